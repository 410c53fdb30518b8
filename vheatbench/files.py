"""Files: written whole or not at all, read only where they are regular and not endless, held by one process at a time.

What cannot be read or written is an OSError whose ``strerror`` says why in words that fit into a message:
``is not a regular file``, ``is larger than 16 MiB``, ``No space left on device``.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import hashlib
import os
import secrets
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from vheatbench.errors import StoreError, UserError

MIB, GIB = 2**20, 2**30
MOST_IMAGE_BYTES = GIB
"""Of a file with a picture."""

NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""A full disk, a full quota, and a limit on the size of files."""
_LOST = NO_SPACE | {errno.EIO, errno.EPIPE}
"""What goes wrong while a file is written, whatever its path."""

_UNFINISHED = ".unfinished"


@contextmanager
def whole_file(path: str | Path, *, replace: bool = True) -> Iterator[IO[bytes]]:
    """A file to write into that gets its name when the block ends: until then, and after an error, the old one stays.

    It is on disk before it gets its name. Symbolic links are followed. The file has the permissions of the old one, or
    those of any new file. What is no regular file (a FIFO, a device, the standard output as ``/dev/stdout``) cannot
    be replaced and is written directly.

    Args:
        path: in a folder that is there.
        replace: False refuses to replace a file, also one that was made in the meantime.

    Raises:
        OSError: it cannot be written; FileExistsError where there is a file that is not to be replaced.
    """
    try:
        old: os.stat_result | None = os.stat(path)
    except FileNotFoundError:
        old = None
    if old is not None and not replace:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    stream = _stream_at(old)
    if old is not None and (stream is not None or not stat.S_ISREG(old.st_mode)):
        with open(path, "wb") if stream is None else os.fdopen(os.dup(stream), "wb") as file:
            yield file
        return
    if old is not None and not os.access(path, os.W_OK):  # a rename would not mind
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    target = Path(os.path.realpath(path))
    _remove_left(target)
    unfinished = target.with_name(f"{_unfinished_name(target)}{secrets.token_hex(4)}{_UNFINISHED}")
    fd = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with os.fdopen(fd, "wb") as file:
            lock(file)
            if old is not None:
                os.fchmod(fd, stat.S_IMODE(old.st_mode))
            yield file
            file.flush()
            os.fsync(fd)
        if replace:
            os.replace(unfinished, target)
        else:
            _rename_new(unfinished, target)
    finally:
        with suppress(OSError):
            unfinished.unlink()


def write_file(path: str | Path, content: bytes | str) -> None:
    """Write a file as :func:`whole_file` does, its folder made if need be; text as UTF-8.

    Raises:
        UserError: nothing can be written there (exit code 2).
        StoreError: the disk is full or failed (exit code 6); what was there before is unharmed.
    """
    path = Path(path)
    # half a surrogate pair, from a name that is not UTF-8, has no place in a text
    data = content.encode(errors="backslashreplace") if isinstance(content, str) else content
    try:
        _make_folder(path.parent)
        with whole_file(path) as file:
            file.write(data)
    except OSError as error:
        raise write_error(path, error) from error


def write_error(path: str | Path, error: OSError) -> UserError | StoreError:
    """What to raise for a file that could not be written: UserError for a bad path, StoreError for a disk."""
    reason = f"{path}: cannot be written ({reason_of(error)})"
    if error.errno not in _LOST:
        return UserError(reason)
    remedy = "free space and try again" if error.errno in NO_SPACE else "try again"
    return StoreError(f"{reason}; what was there before is unharmed: {remedy}")


def check_target(path: str | Path) -> None:
    """See that a file can be written in the end, before hours are spent on it; its folder is made if need be.

    Raises:
        OSError: it cannot.
    """
    path = Path(path)
    _make_folder(path.parent)
    if path.exists() and not path.is_file():
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        return  # to open a FIFO is to tell its reader that all of it was written
    with suppress(_NotNowError), whole_file(path):
        raise _NotNowError


class _NotNowError(Exception):
    """Ends the writing of a file before it gets its name."""


@contextmanager
def open_regular(path: str | Path, limit: int | None = None) -> Iterator[IO[bytes]]:
    """Open a file for reading. It does not wait for the other end of a FIFO, nor does it touch a device.

    Args:
        path: of a regular file, or of a link to one.
        limit: the most bytes that it may have; None for no limit.

    Raises:
        OSError: not there, not to be read, not a regular file, or larger than ``limit``.
    """
    check_regular(path, limit)
    # it may have become a FIFO since then
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        _check(os.fstat(fd), path, limit)
        yield file


def check_regular(path: str | Path, limit: int | None = None) -> None:
    """As :func:`open_regular`, for a file that a library is to open. Raises OSError."""
    try:
        status = os.stat(path)
    except ValueError as error:  # a null character in the name
        raise OSError(errno.EINVAL, str(error), str(path)) from None
    _check(status, path, limit)


def read_bytes(path: str | Path, limit: int) -> bytes:
    """The content of a regular file of at most ``limit`` bytes. Raises OSError, as :func:`open_regular`."""
    with open_regular(path, limit) as file:
        data = file.read(limit + 1)
    if len(data) > limit:  # it grows, or does not know its size, as files of the kernel
        raise _too_large(path, limit)
    return data


def read_text(path: str | Path, limit: int) -> str:
    """As :func:`read_bytes`, decoded. Raises UnicodeDecodeError for what is not UTF-8, and OSError."""
    return read_bytes(path, limit).decode()


def blocks_of(path: str | Path) -> Iterator[bytes]:
    """The content of a regular file of any size, piece by piece. Raises OSError, as :func:`open_regular`."""
    with open_regular(path) as file:
        while block := file.read(MIB):
            yield block


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a regular file as 64 hexadecimal digits. Raises OSError, as :func:`open_regular`."""
    digest = hashlib.sha256()
    for block in blocks_of(path):
        digest.update(block)
    return digest.hexdigest()


def append(fd: int, data: bytes) -> None:
    """Write behind the end of a file that is open for appending; when this returns, it is on disk.

    Raises:
        OSError: it cannot be written; the file is as it was before.
    """
    size = os.fstat(fd).st_size
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(fd, rest) :]
        os.fsync(fd)
    except BaseException:
        with suppress(OSError):
            os.ftruncate(fd, size)
        raise


def lock(file: int | IO[bytes], wait: bool = False) -> bool:
    """Hold an open file against other processes, until it is closed.

    Args:
        file: open, or its descriptor.
        wait: for another process that holds it.

    Returns:
        False where another process holds it. True also on file systems that have no locks, as some of clusters:
        refusing to work there would be worse.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def reason_of(error: OSError) -> str:
    """Why, in the words of the operating system or of this module, without the path."""
    return error.strerror or str(error)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from None


def _check(status: os.stat_result, path: str | Path, limit: int | None) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "is a folder, not a file", str(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "is not a regular file", str(path))
    if limit is not None and status.st_size > limit:
        raise _too_large(path, limit)


def _too_large(path: str | Path, limit: int) -> OSError:
    unit, name = (GIB, "GiB") if limit >= GIB else (MIB, "MiB") if limit >= MIB else (1, "bytes")
    return OSError(errno.EFBIG, f"is larger than {limit // unit:,} {name}", str(path))


def _stream_at(status: os.stat_result | None) -> int | None:
    """The standard stream that is open on this file: it is written where it stands, also where it is a file."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # closed, or replaced by what has no descriptor
            if status is not None and os.path.samestat(os.fstat(stream.fileno()), status):
                stream.flush()
                return stream.fileno()
    return None


def _unfinished_name(target: Path) -> str:
    # a name has 255 bytes at most, and a character up to 4
    return f".{target.name[:48]}."


def _remove_left(target: Path) -> None:
    """Remove what processes left behind that were killed while they wrote this file; those that live hold a lock."""
    pattern = f"{glob.escape(_unfinished_name(target))}*{_UNFINISHED}"
    for left in target.parent.glob(pattern):
        with suppress(OSError), open_regular(left) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left.unlink()


def _rename_new(unfinished: Path, target: Path) -> None:
    """Rename where no file is: a plain rename would replace it, a link does not."""
    try:
        os.link(unfinished, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if target.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from None
        os.rename(unfinished, target)
