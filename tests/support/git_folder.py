"""git for tests: a repository's commands, whoever runs them and however their git is set up."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path


def git(folder: Path, *arguments: str) -> str:
    """What git says."""
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "protocol.file.allow=always"]
    done = subprocess.run(
        ["git", "-C", str(folder), *identity, *arguments],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "GIT_CONFIG_GLOBAL": os.devnull},
    )
    return done.stdout.strip()


def commit(folder: Path, message: str, tag: str | None = None) -> str:
    """Commit everything in a folder, which becomes a repository if it is none; the commit's hash."""
    if not (folder / ".git").exists():
        git(folder, "init", "--quiet", "--initial-branch", "main")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", message)
    if tag is not None:
        git(folder, "tag", tag)
    return git(folder, "rev-parse", "HEAD")


def worktrees(folder: Path) -> int:
    """How many worktrees git knows of beside the repository's own, those included that are no longer there."""
    return git(folder, "worktree", "list", "--porcelain").count("worktree ") - 1
