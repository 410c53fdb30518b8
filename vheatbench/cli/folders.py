"""Folders that commands write into."""

from __future__ import annotations

import tempfile
from pathlib import Path

from vheatbench.errors import UserError

REPORTS = Path("reports")
"""Where figures go by default, each run's into a folder of its own."""


def check_writable(folder: Path, option: str) -> None:
    """Make a folder and see that it takes files: nothing is to be measured whose figures have no place.

    Args:
        folder: made with its parents if need be.
        option: that names it, for the message.

    Raises:
        UserError: it cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"{option} {folder}: cannot be written ({error.strerror or error})") from None
