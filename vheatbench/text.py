"""Words that every room needs."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone


def some(items: Iterable[object], most: int = 3) -> str:
    """``a, b, c and 4 more``: at most so many of the items."""
    words = [str(item) for item in items]
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more


def printable(text: str) -> str:
    """A text from anywhere for one line: no line breaks, no terminal control sequences, at most 300 characters."""
    return "".join(c if c.isprintable() else " " for c in text)[:300]


def one_line(text: str) -> str:
    """The first line of a text from anywhere, as records hold it, :func:`printable`."""
    return printable(next(iter(text.strip().splitlines()), ""))


def first_line_of(error: BaseException) -> str:
    """The first line of what an exception says, as :func:`one_line` has it; its type where it says nothing."""
    return one_line(str(error)) or type(error).__name__


def did_you_mean(name: str, known: Iterable[str], most: int = 4) -> str:
    """``did you mean 'a', 'b'?``: the known names that are nearest to a wrong one; empty where none is near."""
    near = difflib.get_close_matches(name, list(known), n=most)
    return f"did you mean {', '.join(map(repr, near))}?" if near else ""


def utc_now() -> str:
    """The time as run files hold it: UTC, ISO 8601, in seconds."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def listed(names: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def moment(iso: str) -> str:
    """``29 Nov 2026, 10:17 UTC`` of a time in ISO 8601; what is no time stays as it is."""
    try:
        when = datetime.fromisoformat(iso)
    except ValueError:
        return iso
    zone = " UTC" if when.utcoffset() is not None and not when.utcoffset() else ""
    return f"{when.day} {when:%b %Y, %H:%M}{zone}"
