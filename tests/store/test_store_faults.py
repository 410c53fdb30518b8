"""Runs on disk when something goes wrong: crashes, full disks, damaged files, two writers at once."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.stored import CASES, a_header, a_record, write_run
from vheatbench.errors import UserError
from vheatbench.store import Header, RunWriter, StoreError, list_runs, read_run

TESTS = Path(__file__).parents[1]

SMALL: dict[str, Any] = {"plan": CASES[:2], "environment": {}, "command": "é"}


def python(code: str, *arguments: object, inside: Sequence[str] = (), **options: Any) -> subprocess.Popen:
    """A real process that writes a run; ``code`` finds the store and the helpers of the tests imported."""
    preamble = "import sys\nfrom support.stored import *\nfrom vheatbench.store import *\n"
    command = [*inside, sys.executable, "-c", preamble + code, *map(str, arguments)]
    paths = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}
    return subprocess.Popen(command, env=paths, stdout=subprocess.PIPE, text=True, **options)


def a_partial(directory: Path, *records: Any, **header: Any) -> Path:
    with RunWriter.create(directory, a_header(**header)) as writer:
        for record in records:
            writer.append(record)
    return writer.path


# Damaged files


def test_cut_anywhere_whole_records_are_kept_and_resume_finds_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda fd: None)  # only for speed
    records = [a_record(case, metrics={}) for case in CASES[:2]]
    data = write_run(tmp_path, a_header(**SMALL), *records).read_bytes()
    ends = [n for n, byte in enumerate(data) if byte == ord("\n")]
    for length in range(len(data)):
        for name in ("cut.jsonl", "cut.jsonl.partial"):
            path = tmp_path / name
            path.write_bytes(data[:length])
            if length < ends[0]:
                with pytest.raises(UserError):
                    read_run(path)
                continue
            run = read_run(path)
            whole = sum(length >= end for end in ends[1:3])
            assert run.records == records[:whole], length
            # Only the footer's own newline may be missing from a run that is whole.
            assert run.complete == (length == len(data) - 1), length
            assert run.complete == (not run.problems), length
        (tmp_path / "cut.jsonl").unlink()
        if length % 8 and all(abs(length - end) > 2 for end in ends):
            continue  # resuming everywhere would take too long
        if length < ends[0]:
            with pytest.raises(UserError):
                RunWriter.resume(path)
            assert path.read_bytes() == data[:length]
            continue
        with RunWriter.resume(path) as writer:
            assert (writer.count, len(writer.done)) == (whole, whole)
            assert writer.path.read_bytes() == data[: ends[whole] + 1]


def test_a_cut_and_resumed_run_is_whole_again(tmp_path: Path) -> None:
    path = a_partial(tmp_path, *[a_record(case) for case in CASES[:3]])
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 7)
    assert f"{path}:4: the last line is cut off, left out" in read_run(path).problems
    with RunWriter.resume(path) as writer:
        assert writer.done == {(case.id, 0) for case in CASES[:2]}
        for case in CASES[2:]:
            writer.append(a_record(case))
        run = read_run(writer.finish())
    assert run.complete
    assert run.problems == []


@pytest.mark.parametrize("tail", [b"\0\0\0\0", b"\0\0\n", b'{"line":"rec\n', b"\xff\xfe\n", b"NaN\n", b"\n"])
def test_rubbish_at_the_end_is_cut_off(tmp_path: Path, tail: bytes) -> None:
    path = a_partial(tmp_path, a_record())
    before = path.read_bytes()
    path.write_bytes(before + tail)
    with RunWriter.resume(path) as writer:
        assert path.read_bytes() == before
        assert writer.count == 1


def test_a_footer_without_the_final_name_is_written_anew(tmp_path: Path) -> None:
    """The state after a crash between the footer and the rename, and rubbish behind it."""
    final = write_run(tmp_path, a_header(), a_record())
    path = final.rename(final.with_name(final.name + ".partial"))
    path.write_bytes(path.read_bytes() + b"{")
    with RunWriter.resume(path) as writer:
        for case in CASES[1:]:
            writer.append(a_record(case))
        assert read_run(writer.finish()).problems == []


def test_a_crash_inside_the_rename_leaves_the_finished_run_alone(tmp_path: Path) -> None:
    final = write_run(tmp_path, a_header(), a_record())
    data = final.read_bytes()
    partial = final.with_name(final.name + ".partial")
    os.link(final, partial)
    with pytest.raises(UserError, match="finished already"):
        RunWriter.resume(partial)
    assert final.read_bytes() == data


def damaged(path: Path, number: int, change: bytes | None) -> list[str]:
    """The problems after line ``number`` was replaced; None breaks a digit inside it."""
    lines = path.read_bytes().split(b"\n")
    old = lines[number - 1]
    lines[number - 1] = old.replace(b'"round":0', b'"round":5') if change is None else change
    path.write_bytes(b"\n".join(lines))
    return read_run(path).problems


FOREIGN = a_record().model_dump_json().replace('"batch":1', '"batch":2').encode()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (b"", "not JSON: Expecting value"),
        (b"\x80abc", "not UTF-8 text"),
        (b'{"a":1e999}', "not a finite number: 1e999"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[1]", "not a JSON object"),
        (b'{"line":"record"}', "case: Field required"),
        (b'{"line":"\x1b[2J"}'.replace(b"\x1b", rb"\u001b"), "neither a record nor a footer"),
        (a_header().model_dump_json().encode(), "neither a record nor a footer, but 'header'"),
        (b'{"line":"footer","records":1,"sha256":"","finished":""}', "footer in the middle"),
        (FOREIGN, "does not belong to its case"),
    ],
)
def test_a_bad_line_is_named_and_the_rest_kept(tmp_path: Path, change: bytes, said: str) -> None:
    path = write_run(tmp_path, a_header(), *[a_record(case) for case in CASES])
    problems = damaged(path, 3, change)
    assert problems[0].startswith(f"{path}:3: ")
    assert said in problems[0]
    assert all(problem.isprintable() for problem in problems)
    assert "(its SHA-256 is not the footer's)" in problems[1]
    assert "the footer counts 4 records, 3 can be read" in problems[2]
    assert "3 of 4 cases" in problems[3]
    assert [record.case for record in read_run(path).records] == [CASES[0], *CASES[2:]]


def test_a_changed_number_does_not_go_unnoticed(tmp_path: Path) -> None:
    path = write_run(tmp_path, a_header(plan=[]), a_record())
    assert ["SHA-256" in problem for problem in damaged(path, 2, None)] == [True]


def test_a_bad_line_in_the_middle_survives_resuming(tmp_path: Path) -> None:
    path = a_partial(tmp_path, *[a_record(case) for case in CASES[:3]])
    assert len(damaged(path, 3, b"rubbish")) == 2
    with RunWriter.resume(path) as writer:
        for case in (CASES[1], CASES[3]):
            assert (case.id, 0) not in writer.done
            writer.append(a_record(case))
        run = read_run(writer.finish())
    assert run.complete
    assert [problem.split(":")[1] for problem in run.problems] == ["3"]


def test_what_is_no_run_file_is_one_clear_line(tmp_path: Path) -> None:
    contents = {
        "empty.jsonl": (b"", "is empty"),
        "binary.jsonl": (bytes(range(256)) * 9, "not a readable run file"),
        "list.jsonl": (b"[]\n", "not a JSON object"),
        "other.jsonl": (b'{"a": 1}\n', "its first line is no header"),
        "damaged.jsonl": (b'{"line":"header","schema_version":1}\n', "damaged header: .*run_id"),
    }
    for name, (data, message) in contents.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError, match=message) as caught:
            read_run(tmp_path / name)
        assert name in str(caught.value)
        assert str(caught.value).isprintable()
    os.mkfifo(tmp_path / "fifo.jsonl")
    others = [("fifo.jsonl", "not a reg"), (".", "directory"), ("no", "no run file"), ("\0", "cannot read")]
    for name, message in others:
        with pytest.raises(UserError, match=message):
            read_run(tmp_path / name)


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(at=st.integers(0, 10_000), rubbish=st.binary(min_size=1, max_size=8), drop=st.integers(0, 40))
def test_no_damage_crashes_the_reader(
    at: int, rubbish: bytes, drop: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.getbasetemp()
    sound = directory / "sound.jsonl"
    if not sound.exists():
        write_run(directory, a_header(**SMALL), a_record(), a_record(CASES[1])).rename(sound)
    data = sound.read_bytes()
    at %= len(data)
    changed = data[:at] + rubbish + data[at + drop :]
    path = directory / "changed.jsonl"
    path.write_bytes(changed)
    try:
        problems = read_run(path).problems
    except UserError as error:
        problems = [str(error)]
    # the footer's hash is of what stands before it: blanks between its own entries change nothing
    assert problems or changed[:-1].startswith(data[: data.rindex(b'{"line":"footer"')])
    assert problems or read_run(path).footer == read_run(sound).footer
    assert all("\n" not in problem for problem in problems)


# Crashes and full disks, in real processes


def test_a_killed_writer_loses_nothing_it_said_was_written(tmp_path: Path) -> None:
    code = (
        "writer = RunWriter.create(sys.argv[1], a_header(plan=[], rounds=10**6))\n"
        "for number in range(10**6):\n"
        "    writer.append(a_record(round=number, reason='x' * 5000))\n"
        "    print(number, flush=True)\n"
    )
    process = python(code, tmp_path)
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) == 20:
            process.send_signal(signal.SIGKILL)
            break
    said = max(20, *map(int, process.stdout.read().split()), 0)
    process.wait()
    (path,) = tmp_path.iterdir()
    rounds = [record.round for record in read_run(path).records]
    assert rounds == list(range(len(rounds)))
    assert len(rounds) > said
    with RunWriter.resume(path) as writer:
        writer.append(a_record(round=10**6))
        run = read_run(writer.finish())
    assert run.problems == []
    assert len(run.records) == len(rounds) + 1


KILLED = (
    "import os, signal\n"
    "call, real = sys.argv[2], getattr(os, sys.argv[2])\n"
    "def last(*arguments):\n"
    "    if call == 'write':\n"
    "        real(arguments[0], arguments[1][:50])\n"
    "    os.kill(os.getpid(), signal.SIGKILL)\n"
    "setattr(os, call, last)\n"
    "RunWriter.create(sys.argv[1], a_header())\n"
)


@pytest.mark.parametrize("call", ["ftruncate", "write", "fsync", "link"])
def test_killed_before_its_header_is_whole_a_run_has_no_name(tmp_path: Path, call: str) -> None:
    old = write_run(tmp_path, a_header(created="2020-01-01T00:00:00Z"), a_record())
    assert python(KILLED, tmp_path, call).wait() == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 2
    assert list_runs(tmp_path) == [old]
    RunWriter.create(tmp_path, a_header()).close()  # nor is the name taken


# Files that others take away, in the middle of the run


def replace(path: Path) -> None:
    copy = path.with_name("copy")
    copy.write_bytes(path.read_bytes())
    copy.replace(path)


INTERFERENCES: dict[str, tuple[Any, str]] = {
    "remove": (Path.unlink, r"was removed while .*its 2 records are lost"),
    "remove the folder": (lambda path: shutil.rmtree(path.parent), "was removed while"),
    "replace": (replace, r"was replaced while .*its 2 records are lost"),
    "move": (lambda path: path.rename(path.with_name("elsewhere")), "was moved or removed while .*put the file back"),
    "move the folder": (lambda path: path.parent.rename(path.parent.with_name("elsewhere")), "was moved or removed"),
    "cut": (lambda path: os.truncate(path, path.stat().st_size - 9), r"was cut while .*resume it"),
    "empty": (lambda path: path.write_bytes(b""), r"was cut while .*: 0 bytes of"),
}


@pytest.mark.parametrize("act", ["append", "finish", "check"])
@pytest.mark.parametrize("name", INTERFERENCES)
def test_a_file_that_is_taken_away_is_said_at_the_next_record(tmp_path: Path, name: str, act: str) -> None:
    interfere, message = INTERFERENCES[name]
    with RunWriter.create(tmp_path / "results", a_header()) as writer:
        for case in CASES[:2]:
            writer.append(a_record(case))
        writer.check()
        interfere(writer.path)
        left = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        with pytest.raises(StoreError, match=message) as raised:
            writer.append(a_record(CASES[2])) if act == "append" else getattr(writer, act)()
        assert "safe" not in str(raised.value)
        assert str(raised.value).isprintable()
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == left


def test_a_file_that_is_put_back_is_written_on(tmp_path: Path) -> None:
    with RunWriter.create(tmp_path, a_header()) as writer:
        aside = writer.path.rename(tmp_path / "aside")
        with pytest.raises(StoreError, match="was moved"):
            writer.append(a_record())
        aside.rename(writer.path)
        writer.append(a_record())
    writer.check()
    assert len(read_run(writer.path).records) == 1
    writer.path.unlink()
    with pytest.raises(StoreError, match="moved or removed"):
        writer.check()


FILL = (
    "writer = RunWriter.create(sys.argv[1], a_header())\n"
    "writer.append(a_record())\n"
    "try:\n"
    "    writer.append(a_record(CASES[1], reason='x' * 100_000))\n"
    "except StoreError as error:\n"
    "    print(error)\n"
    "    assert writer.path.read_bytes().endswith(b'\\n'), 'half a line is left'\n"
    "else:\n"
    "    sys.exit('nothing failed')\n"
    "writer.append(a_record(CASES[2]))\n"  # a smaller record still fits
)


def check_full(path: Path, message: str, reason: str) -> None:
    assert reason in message
    assert f"the 1 records before are safe in {path}" in message
    assert f"free space and continue with `--resume {path}`" in message
    assert message.count("\n") == 1
    run = read_run(path)
    assert [record.case for record in run.records] == [CASES[0], CASES[2]]
    assert len(run.problems) == 1
    assert "unfinished run: 2 of 4 cases" in run.problems[0]


def test_a_file_size_limit_leaves_a_valid_file(tmp_path: Path) -> None:
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
    process = python(limit + FILL, tmp_path)
    message = process.communicate()[0]
    assert process.returncode == 0
    (path,) = tmp_path.iterdir()
    check_full(path, message, "File too large")


def test_a_full_disk_leaves_a_valid_file(tmp_path: Path) -> None:
    """A file system of 64 KiB of our own, visible to one process only."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f"mount -t tmpfs -o size=64k none {disk}"
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-rm", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    keep = "import shutil\nwriter.close()\nshutil.copytree(sys.argv[1], sys.argv[2])\n"
    script = f'{mount} && exec "$0" "$@"'
    process = python(FILL + keep, disk, tmp_path / "kept", inside=[unshare, "-rm", "sh", "-c", script])
    message = process.communicate()[0]
    assert process.returncode == 0
    (path,) = (tmp_path / "kept").iterdir()
    check_full(path, message.replace(str(disk), str(path.parent)), "No space left on device")


def test_a_write_error_that_leaves_no_way_back(tmp_path: Path) -> None:
    """Neither writing nor cutting back is possible on /dev/full, put in the place of the open file."""
    with RunWriter.create(tmp_path, a_header()) as writer:
        writer.append(a_record())
        assert writer._fd is not None
        kept, full = os.dup(writer._fd), os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, writer._fd)
        for failing in (lambda: writer.append(a_record(CASES[1])), writer.finish):
            with pytest.raises(StoreError, match=r"cannot write .*the 1 records before are safe"):
                failing()
        os.dup2(kept, writer._fd)
        os.write(kept, b'{"half a li')  # as a write that stopped half-way would have left behind
        writer.append(a_record(CASES[1]))
        assert len(read_run(writer.finish()).records) == 2
        os.close(kept)
        os.close(full)


def test_no_space_for_the_header_is_said_before_anything_is_measured(tmp_path: Path) -> None:
    code = (
        "import resource\n"
        "from vheatbench.errors import UserError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "try:\n"
        "    RunWriter.create(sys.argv[1], a_header())\n"
        "except UserError as error:\n"
        "    print(error)\n"
    )
    assert "File too large" in python(code, tmp_path).communicate()[0]
    assert list(tmp_path.iterdir()) == []


def test_every_record_is_synced_by_append(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, synced = os.fsync, []

    def sync(fd: int) -> None:
        real(fd)
        synced.append(os.fstat(fd).st_size)

    monkeypatch.setattr(os, "fsync", sync)
    with RunWriter.create(tmp_path, a_header()) as writer:
        assert len(synced) == 2  # the file and its directory
        writer.append(a_record())
        assert synced[2:] == [writer.path.stat().st_size]
        synced.clear()
        writer.finish()
        assert len(synced) == 2


# Places that cannot be written, names that are taken, two writers


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for place in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/nowhere")):
        with pytest.raises(UserError, match=f"cannot write a run to {place}"):
            RunWriter.create(place, a_header())


def test_no_run_is_ever_overwritten(tmp_path: Path) -> None:
    final = write_run(tmp_path, a_header(), a_record())
    data = final.read_bytes()
    with pytest.raises(UserError, match="File exists"):
        RunWriter.create(tmp_path, a_header())
    final.rename(tmp_path / "aside")
    with RunWriter.create(tmp_path, a_header()) as writer:
        with pytest.raises(UserError, match="File exists"):
            RunWriter.create(tmp_path, a_header())
        writer.append(a_record(CASES[1]))
        (tmp_path / "aside").rename(final)  # meanwhile the name is taken
        with pytest.raises(StoreError, match=r"cannot write .*\.jsonl: File exists; the 1 records"):
            writer.finish()
        assert final.read_bytes() == data
        final.unlink()
        run = read_run(writer.finish())
    assert ["footer" in problem for problem in run.problems] == [False]
    assert len(run.records) == 1


def test_without_hard_links_the_run_is_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    path = write_run(tmp_path, a_header(), a_record())
    assert [child.name for child in tmp_path.iterdir()] == [path.name]
    with RunWriter.create(tmp_path, a_header(run_id="other")) as writer:
        writer.path.with_suffix("").write_text("taken")
        with pytest.raises(StoreError, match="File exists"):
            writer.finish()


def test_two_processes_cannot_write_one_run(tmp_path: Path) -> None:
    code = (
        "writer = RunWriter.create(sys.argv[1], a_header())\n"
        "writer.append(a_record())\n"
        "print('ready', flush=True)\n"
        "sys.stdin.read()\n"
    )
    process = python(code, tmp_path, stdin=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    (path,) = tmp_path.iterdir()
    with pytest.raises(UserError, match="being written by another process"):
        RunWriter.resume(path)
    process.communicate()
    with RunWriter.resume(path) as writer:
        assert writer.count == 1
        with pytest.raises(UserError, match="being written by another process"):
            RunWriter.resume(path)


def test_a_run_finished_while_resuming_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other writer gives up its lock between our open and our lock."""
    path = a_partial(tmp_path, a_record())
    real = os.open

    def slow(name: Any, flags: int, *more: Any) -> int:
        fd = real(name, flags, *more)
        monkeypatch.undo()
        path.rename(path.with_suffix(""))
        return fd

    monkeypatch.setattr(os, "open", slow)
    with pytest.raises(UserError, match="was finished or replaced"):
        RunWriter.resume(path)


@pytest.mark.parametrize("data", [b"", b"rubbish", b'{"line":"header","schema_version":9}\n'])
def test_what_is_no_run_is_not_resumed(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.jsonl.partial"
    path.write_bytes(data)
    with pytest.raises(UserError):
        RunWriter.resume(path)
    assert path.read_bytes() == data
    with pytest.raises(UserError, match="No such file"):
        RunWriter.resume(tmp_path / "y.jsonl.partial")


def test_the_header_of_a_newer_minor_release_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps({**a_header().model_dump(mode="json"), "a_new_field": 1}) + "\n")
    assert isinstance(read_run(path).header, Header)
