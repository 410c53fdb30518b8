"""Which version of some code is being measured, as git knows it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

HOOK_VARIABLES = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_COMMON_DIR")
"""What a git hook sets; it would send every command to the hook's own repository and index."""
TIMEOUT_S = 10


def checkout(folder: Path | None = None) -> dict[str, Any] | None:
    """The git checkout around ``folder`` (the working directory if None): ``commit``, and ``dirty``, whether tracked
    files differ from it. None outside a checkout, before its first commit, and where git is missing or slow."""
    commit = git("rev-parse", "HEAD", folder=folder)
    changes = git("status", "--porcelain", "--untracked-files=no", folder=folder)
    if commit is None or changes is None:
        return None
    return {"commit": commit, "dirty": bool(changes)}


def checkout_at(root: Path) -> dict[str, Any] | None:
    """As :func:`checkout`, of one that begins in ``root``: what is installed inside a project is not the project's."""
    return checkout(root) if (root / ".git").exists() else None


def git(*arguments: str, folder: Path | None = None) -> str | None:
    """What git says in ``folder`` (the working directory if None); None where it fails, is missing or slow."""
    # Optional locks off: a benchmark must not hold the index of somebody's checkout
    command = ["git", "--no-optional-locks", *arguments]
    variables = {key: value for key, value in os.environ.items() if key not in HOOK_VARIABLES}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=folder, env=variables, timeout=TIMEOUT_S, check=True
        )
    except (OSError, ValueError, subprocess.SubprocessError):  # ValueError: an answer that is not UTF-8
        return None
    return done.stdout.strip()
