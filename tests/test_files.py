"""Files are written whole or not at all, and read only where they are regular and not endless."""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from support.disks import OLD, small_disk
from vheatbench import files
from vheatbench.errors import StoreError, UserError


def test_a_file_gets_its_name_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "x.txt"
    files.write_file(path, "±")
    assert path.read_bytes() == "±".encode()
    with files.whole_file(path) as file:
        file.write(b"second")
        file.flush()
        assert path.read_bytes() == "±".encode()
    assert path.read_bytes() == b"second"
    assert os.listdir(path.parent) == ["x.txt"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OSError])
def test_whatever_ends_the_writing_leaves_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "x.txt"
    path.write_bytes(OLD)

    def fail() -> None:
        with files.whole_file(path) as file:
            file.write(b"half of the new")
            file.flush()
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_bytes() == OLD
    assert os.listdir(tmp_path) == ["x.txt"]


def test_a_full_disk_leaves_the_old_file_and_ends_in_6(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_bytes(OLD)
    with small_disk(), pytest.raises(StoreError, match=r"File too large.*free space"):
        files.write_file(path, bytes(1000))
    assert path.read_bytes() == OLD
    assert os.listdir(tmp_path) == ["x.txt"]
    with pytest.raises(StoreError, match="No space left on device"):
        files.write_file("/dev/full", b"x")


def test_a_killed_writer_leaves_the_old_file_and_the_next_one_clears_up(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_bytes(OLD)
    code = "import os, sys; from vheatbench.files import whole_file\n"
    code += "with whole_file(sys.argv[1]) as f:\n f.write(bytes(9999)); f.flush(); os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == -9
    assert path.read_bytes() == OLD
    left = set(os.listdir(tmp_path)) - {"x.txt"}
    assert len(left) == 1
    with files.whole_file(path) as file:
        living = set(os.listdir(tmp_path)) - {"x.txt"}
        assert living.isdisjoint(left)
        files.write_file(path, b"another process, in between")
        assert living <= set(os.listdir(tmp_path))
        file.write(b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["x.txt"]


def test_permissions_are_those_of_the_old_file_or_of_any_new_one(tmp_path: Path) -> None:
    umask = os.umask(0o027)
    try:
        files.write_file(tmp_path / "new.txt", b"")
    finally:
        os.umask(umask)
    assert stat.S_IMODE((tmp_path / "new.txt").stat().st_mode) == 0o640
    (tmp_path / "old.sh").write_bytes(OLD)
    (tmp_path / "old.sh").chmod(0o751)
    files.write_file(tmp_path / "old.sh", b"")
    assert stat.S_IMODE((tmp_path / "old.sh").stat().st_mode) == 0o751


@pytest.mark.parametrize("there", [True, False])
def test_a_link_is_followed(tmp_path: Path, there: bool) -> None:
    (tmp_path / "far").mkdir()
    target, link = tmp_path / "far" / "x.txt", tmp_path / "link"
    if there:
        target.write_bytes(OLD)
    link.symlink_to(target)
    files.write_file(link, b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    assert os.listdir(target.parent) == ["x.txt"]


def test_what_is_no_regular_file_is_written_directly(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append(fifo.read_bytes()))
    reader.start()
    files.check_target(fifo)
    files.write_file(fifo, b"through")
    reader.join()
    assert found == [b"through"]
    assert stat.S_ISFIFO(fifo.stat().st_mode)
    files.write_file("/dev/null", b"gone")
    code = "from vheatbench.files import write_file; print(1); write_file('/dev/stdout', 'two\\n'); print(3)"
    out = tmp_path / "out.txt"  # the standard output is this file, which is not to be replaced under the shell
    with out.open("wb") as file:
        subprocess.run([sys.executable, "-c", code], check=True, stdout=file)
    assert out.read_bytes() == b"1\ntwo\n3\n"


def test_a_path_that_takes_no_file_ends_in_2(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(OLD)
    for path in (tmp_path, tmp_path / "file" / "below", tmp_path / ("x" * 300)):
        with pytest.raises(UserError, match="cannot be written"):
            files.write_file(path, b"x")
        with pytest.raises(OSError, match=r"directory|too long"):
            files.check_target(path)
    files.write_file(tmp_path / ("ü" * 127), b"the longest name there is")
    with pytest.raises(FileExistsError), files.whole_file(tmp_path / "file", replace=False):
        raise AssertionError
    files.check_target(tmp_path / "new" / "file")
    assert os.listdir(tmp_path / "new") == []


def test_a_file_made_in_the_meantime_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"

    def late() -> None:
        with files.whole_file(path, replace=False) as file:
            file.write(b"late")
            path.write_bytes(OLD)

    with pytest.raises(FileExistsError):
        late()
    assert path.read_bytes() == OLD
    assert os.listdir(tmp_path) == ["x.txt"]


def test_only_regular_files_of_a_sane_size_are_read(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_bytes(OLD)
    assert files.read_text(path, files.MIB) == OLD.decode()
    assert files.sha256_of(path) == hashlib.sha256(OLD).hexdigest()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("fifo", "zero"):
        for read in (files.check_regular, files.sha256_of, lambda path: files.read_bytes(path, files.MIB)):
            with pytest.raises(OSError, match="not a regular file"):
                read(tmp_path / name)
    with pytest.raises(OSError, match="is a folder"):
        files.check_regular(tmp_path)
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(3 * files.GIB)
    with pytest.raises(OSError, match="larger than 2 GiB"):
        files.read_bytes(tmp_path / "huge", 2 * files.GIB)
    with pytest.raises(OSError, match="larger than"):  # its size is 0, as it says itself
        files.read_bytes("/proc/self/stat", 10)


def test_one_process_holds_a_lock(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    with path.open("wb") as first, path.open("wb") as second:
        assert files.lock(first)
        assert not files.lock(second)
        first.close()
        assert files.lock(second, wait=True)


def test_without_locks_the_work_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    files.write_file(tmp_path / "x.txt", b"new")
    files.write_file(tmp_path / "x.txt", b"newer")
    assert (tmp_path / "x.txt").read_bytes() == b"newer"
