"""Exceptions that the command line prints as one line."""

from __future__ import annotations


class UserError(Exception):
    """Bad input from the user: the message says what is wrong, where, and what to do. Exit code 2."""


class StoreError(Exception):
    """A run file could not be written: the message says what is safe and how to go on. Exit code 6."""


class WorkerError(Exception):
    """A process that was to look at this machine or measure died: the message has its last words. Exit code 6."""


def one_line(text: str) -> str:
    """The first line of a text from anywhere, as records hold it: no control characters, at most 300 long."""
    line = next(iter(text.strip().splitlines()), "")
    return "".join(c if c.isprintable() else " " for c in line)[:300]
