"""Writing a run: every record is on disk before the next case begins."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import shlex
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType

from pydantic import BaseModel

from vheatbench.errors import StoreError, UserError
from vheatbench.stop import deferred
from vheatbench.store.read import PARTIAL, Run, parse_line, read_run
from vheatbench.store.schema import SCHEMA_VERSION, Footer, Header, Record
from vheatbench.text import utc_now

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def run_file_name(header: Header) -> str:
    """``<utc>-<suite>-<host>-<id>.jsonl``: the name of the run's file once it is finished.

    Raises ValueError if ``header.created`` is not an ISO 8601 time.
    """
    created = datetime.fromisoformat(header.created.replace("Z", "+00:00"))
    if created.tzinfo is None:
        created = created.replace(tzinfo=timezone.utc)
    stamp = created.astimezone(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    host = str(header.environment.get("host", "unknown"))
    return "-".join([stamp, _slug(header.suite), _slug(host), _slug(header.run_id)]) + ".jsonl"


class RunWriter:
    """Writes one run, from ``create`` or ``resume`` over ``append`` to ``finish``.

    As a context manager it closes the file, finished or not; an unfinished one can be resumed.
    """

    def __init__(self, path: Path, fd: int, header: Header, sync: bool = True) -> None:
        """Used by ``create`` and ``resume``, which open and lock ``path`` as ``fd``."""
        self._sync = sync
        self.path = path
        """The ``.partial`` file, after ``finish`` the ``.jsonl`` file."""
        self.header = header
        self.done: set[tuple[str, int]] = set()
        """Case id and round of every record in the file."""
        self.count = 0
        """Records in the file."""
        self._fd: int | None = fd
        self._file = os.fstat(fd)
        self._size = 0
        self._hash = hashlib.sha256()

    @classmethod
    def create(cls, out_dir: str | Path, header: Header, sync: bool = True) -> RunWriter:
        """Begins a run in ``out_dir``, which is made if need be: a ``.partial`` file with the header.

        The file gets its name once the header is on disk: what is killed before leaves no run behind. Without
        ``sync`` the records are on disk when the run is finished, not before: for what is somewhere else too.
        Raises UserError if the file cannot be made or exists already, ValueError for a header that has
        no JSON form (NaN, infinity, a value of a strange type).
        """
        line = _encode(header)
        final = Path(out_dir) / run_file_name(header)
        path = final.with_name(final.name + PARTIAL)
        unnamed = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            if final.exists():
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
            fd = os.open(unnamed, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o666)
        except OSError as error:
            raise UserError(f"cannot write a run to {path}: {error.strerror}") from error
        writer = cls(unnamed, fd, header, sync)
        try:
            _lock(fd, unnamed)
            writer._append(line)
            _rename(unnamed, path)
        except BaseException as error:
            writer.close()
            unnamed.unlink(missing_ok=True)
            if isinstance(error, StoreError | OSError):
                cause = error.__cause__ if isinstance(error, StoreError) else error.strerror
                raise UserError(f"cannot write a run to {path}: {cause}") from error
            raise
        writer.path = path
        _sync_directory(path.parent)
        return writer

    @classmethod
    def resume(cls, path: str | Path) -> RunWriter:
        """Reopens a ``.partial`` file to go on where it ends; ``done`` says what is in it.

        A last line that a crash cut off is removed, whole records never are. Raises UserError if the
        file is no unfinished run, is being written by another process or has another schema version;
        StoreError if it cannot be written.
        """
        path = Path(path)
        if path.suffix != PARTIAL:
            raise UserError(f"{path} is not an unfinished run: only a {PARTIAL} file can be resumed")
        try:
            fd = os.open(path, os.O_RDWR | os.O_APPEND)
        except OSError as error:
            raise UserError(f"cannot resume {path}: {error.strerror}") from error
        try:
            _lock(fd, path)
            run = read_run(path)
            writer = cls(path, fd, run.header)
            writer._take_over(run)
        except BaseException:
            os.close(fd)
            raise
        return writer

    def append(self, record: Record) -> None:
        """Writes one record; when this returns, it is on disk.

        Raises StoreError if it cannot be written: the file then ends with the record before, and
        ``append`` may be tried again; also if ``lost`` says something, which is checked before every write.
        Raises ValueError, before anything is written, for a record with
        a foreign ``case_id`` or without a JSON form (NaN, infinity, a value of a strange type).
        """
        if record.case_id != record.case.id:
            raise ValueError(f"case_id {record.case_id} does not belong to its case {record.case.id}")
        self._append(_encode(record))
        self.count += 1
        self.done.add((record.case_id, record.round))

    def append_lines(self, lines: Sequence[bytes], keys: Iterable[tuple[str, int]]) -> None:
        """As ``append``, for lines of records of other runs, which are not read; ``keys``: case and round of each."""
        self._append(b"".join(lines))
        self.count += len(lines)
        self.done.update(keys)

    def finish(self, elapsed_s: float = 0.0) -> Path:
        """Writes the footer, gives the file its final name, closes it and returns its path.

        ``elapsed_s``: see ``Footer``.

        Raises StoreError if that cannot be done or the name is taken; ``finish`` may be tried again.
        """
        footer = Footer(
            records=self.count, sha256=self._hash.hexdigest(), finished=utc_now(), elapsed_s=round(elapsed_s, 3)
        )
        self._sync = True
        self._put(_encode(footer))
        final = self.path.with_suffix("")
        with deferred():  # a signal would leave both names, or a path that is not there
            try:
                _rename(self.path, final)
            except OSError as error:
                raise self._error(error, final) from error
            self.path = final
        _sync_directory(final.parent)
        self.close()
        return final

    @property
    def lost(self) -> str | None:
        """What others have done to the file so that its records are not what ``path`` holds; None while they are."""
        try:
            there = os.stat(self.path)
        except OSError:
            there = None
        if there is not None and os.path.samestat(there, self._file):
            if there.st_size >= self._size:
                return None
            return (
                f"{self.path} was cut while the run was written: {there.st_size} bytes of {self._size} are left; "
                "resume it to go on from the whole records among them"
            )
        if self._fd is not None and os.fstat(self._fd).st_nlink == 0:
            return (
                f"{self.path} was {'removed' if there is None else 'replaced'} while the run was written: "
                f"its {self.count} records are lost; begin a new run"
            )
        return (
            f"{self.path} was moved or removed while the run was written, and its {self.count} records with it: "
            "put the file back and resume it, or begin a new run"
        )

    def check(self) -> None:
        """Raises StoreError where ``lost`` says something: before anyone is told that the records are safe."""
        if (lost := self.lost) is not None:
            raise StoreError(lost)

    def close(self) -> None:
        """Closes the file and gives up its lock; without ``finish`` before, the run can be resumed."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def __enter__(self) -> RunWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _take_over(self, run: Run) -> None:
        final = self.path.with_suffix("")
        if final.exists():  # a crash in the middle of the final rename leaves both names of one file
            raise UserError(f"{self.path} is finished already: see {final}; delete the {PARTIAL} file")
        data = self.path.read_bytes()
        lines = data.split(b"\n")
        version = parse_line(lines[0])["schema_version"]
        if version != SCHEMA_VERSION:
            raise UserError(
                f"{self.path} was begun with schema {version}, this vheatbench writes {SCHEMA_VERSION}: "
                "resume it with the vheatbench that began it, or begin a new run"
            )
        kept = b"".join(line + b"\n" for line in _without_torn_end(lines))
        self.count = len(run.records)
        self.done = set(run.done)
        self._size = min(len(kept), len(data))
        self._hash.update(data[: self._size])
        self._append(kept[self._size :])  # cuts the rest off; a whole record may only lack its newline

    def _append(self, data: bytes) -> None:
        self._put(data)
        self._size += len(data)
        self._hash.update(data)

    def _put(self, data: bytes) -> None:
        if self._fd is None:
            raise ValueError(f"{self.path} is closed")
        self.check()  # without it, cutting below would fill a file that was shortened with zeros
        try:
            # Whatever an interrupted or failed write left behind the last whole line goes first.
            os.ftruncate(self._fd, self._size)
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._fd, rest) :]
            if self._sync:
                os.fsync(self._fd)
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._fd, self._size)
            raise self._error(error, self.path) from error

    def _error(self, error: OSError, target: Path) -> StoreError:
        if (lost := self.lost) is not None:
            return StoreError(lost)
        remedy = "free space" if error.errno in _NO_SPACE else "put that right"
        return StoreError(
            f"cannot write {target}: {error.strerror}; the {self.count} records before are safe in "
            f"{self.path}: {remedy} and continue with `--resume {shlex.quote(str(self.path))}`"
        )


def still_at(path: str | Path, fd: int) -> bool:
    """Whether ``path`` still names the open file ``fd``: it was not removed, replaced or moved."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(fd))
    except OSError:
        return False


def _encode(line: BaseModel) -> bytes:
    # Not pydantic's own JSON: it writes NaN as null, which would be a hole instead of an error.
    try:
        text = json.dumps(line.model_dump(), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise ValueError(f"a {type(line).__name__.lower()} has no JSON form: {error}") from error
    # Half a surrogate pair (from a file name that is not UTF-8) becomes its JSON escape.
    return text.encode(errors="backslashreplace") + b"\n"


def _slug(text: str) -> str:
    # Short enough for four of them in the 255 bytes of a file name.
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")[:60] or "unknown"


def _lock(fd: int, path: Path) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"{path} is being written by another process: wait until it has ended") from None
    except OSError:
        pass  # Some cluster file systems have no locks; refusing to measure there would be worse.
    if not still_at(path, fd):
        raise UserError(f"{path} was finished or replaced by another process in this moment")


def _without_torn_end(lines: list[bytes]) -> list[bytes]:
    """``lines`` of a file without what cannot stay at its end: half a line, and a footer."""
    lines = lines[:-1] if lines[-1] == b"" else lines[:]
    try:
        parse_line(lines[-1])
    except ValueError:
        lines.pop()
    # A footer without the final name: the crash came between the two. It is written anew.
    with suppress(ValueError):
        if parse_line(lines[-1]).get("line") == "footer":
            lines.pop()
    return lines


def _rename(partial: Path, final: Path) -> None:
    # A plain rename would replace an existing file without a word; a link does not.
    try:
        os.link(partial, final)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if final.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
        os.rename(partial, final)
    else:
        os.unlink(partial)


def _sync_directory(directory: Path) -> None:
    # Best effort: some network file systems refuse to sync a directory, the file itself is on disk.
    with suppress(OSError):
        fd = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
