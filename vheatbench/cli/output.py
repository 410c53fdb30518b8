"""Data on stdout, everything else on stderr, whatever the terminal can show."""

from __future__ import annotations

import codecs
import io
import json
import os
import sys
from typing import Any

SIGNS = {"±": "+-", "×": "x", "−": "-", "—": "-", "…": "...", "●": "*", "→": "->"}


def print_json(data: Any) -> None:
    """One JSON document. In ASCII: it passes every terminal and pipe, and means the same."""
    json.dump(data, sys.stdout, indent=2, allow_nan=False)
    sys.stdout.write("\n")


def prepare_streams() -> None:
    """Make stdout and stderr take every text: a terminal without ± gets +-, a closed stream a hole."""
    codecs.register_error("vheatbench", _nearest)
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115 (``>&-``: it stays open as stdout does)
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="vheatbench")


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
