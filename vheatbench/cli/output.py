"""Data on stdout, everything else on stderr, whatever the terminal can show."""

from __future__ import annotations

import codecs
import io
import json
import os
import shlex
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vheatbench.store.read import Run

SIGNS = {"±": "+-", "×": "x", "−": "-", "—": "-", "…": "...", "\u202f": " ", "●": "*", "→": "->"}


def print_json(data: Any) -> None:
    """One JSON document. In ASCII: it passes every terminal and pipe, and means the same."""
    for part in json.JSONEncoder(indent=2, allow_nan=False).iterencode(data):
        if _Readers.gone:
            return
        sys.stdout.write(part)
    sys.stdout.write("\n")


def print_records(run: Run, **more: Any) -> None:
    """A run as JSON on stdout: the same for every command, with what else there is to say of it."""
    records = [record.model_dump(mode="json") for record in run.records]
    header = run.header.model_dump(mode="json")
    print_json({"path": str(run.path), "header": header, "records": records, "problems": run.problems, **more})


def command_line() -> str:
    """The command line that is carried out, as a shell takes it."""
    return shlex.join(["vheatbench", *sys.argv[1:]])


def prepare_streams() -> None:
    """Make the standard streams fit for whatever comes.

    They take every text: a terminal without ± gets +-. Those that are closed become holes; nothing else may get their
    numbers, which workers and git would take for the streams. Readers may go (``vheatbench show | head``), and what is
    for people, on stderr, may get lost on a full disk: neither ends a command, nor does it change its exit code.
    """
    codecs.register_error("vheatbench", _nearest)
    _fill_holes()
    sys.stdin = sys.stdin or open(os.devnull)  # noqa: SIM115 (it stays open as stdin does)
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    if sys.stdout is sys.__stdout__ and isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout = _over(sys.stdout, _Readers(1, "w", closefd=False))
    if sys.stderr is sys.__stderr__ and isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr = _over(sys.stderr, _People(2, "w", closefd=False))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="vheatbench")


class _Readers(io.FileIO):
    """Drops what nobody reads any more."""

    gone = False

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            _Readers.gone = True
            return memoryview(data).nbytes


class _People(io.FileIO):
    """Drops what cannot be shown: on a full disk, a terminal that is gone or does not keep pace."""

    def write(self, data: Any, /) -> int:
        try:
            written = super().write(data)
        except OSError:
            written = None
        return memoryview(data).nbytes if written is None else written


def _over(stream: io.TextIOWrapper, raw: io.FileIO) -> io.TextIOWrapper:
    """A text stream like ``stream`` over ``raw``."""
    buffer = io.BufferedWriter(raw)
    return io.TextIOWrapper(buffer, stream.encoding, line_buffering=stream.line_buffering or stream.write_through)


def _fill_holes() -> None:
    """Open the null device in place of every standard stream that is closed: a file gets the lowest free number."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)


def forget_stdout() -> None:
    """Drop what stdout could not take, or Python tries again at its end and complains."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _nearest(error: UnicodeError) -> tuple[str | bytes, int]:
    """Codec error handler: nearest signs; file names that are not UTF-8 come out as the bytes they are."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    sign = error.object[error.start]
    if "\udc80" <= sign <= "\udcff":
        return bytes([ord(sign) - 0xDC00]), error.start + 1
    return SIGNS.get(sign) or sign.encode("ascii", "backslashreplace").decode(), error.start + 1
