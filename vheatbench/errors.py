"""The one exception that means "what you asked for is wrong": printed as one line, exit code 2."""

from __future__ import annotations


class UserError(Exception):
    """Bad input from the user: the message says what is wrong, where, and what to do."""
