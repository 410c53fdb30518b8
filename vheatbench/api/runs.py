"""Runs as they are named in Python: the run itself, a path, or what the commands take for one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vheatbench.errors import UserError
from vheatbench.store.read import Run, find_measured
from vheatbench.store.read import read_run as read_run_file

RunLike = Run | str | Path
"""A run, the path of its file, ``latest``, a suite (its newest run), or the beginning of an id or file name."""


def read_run(run: RunLike = "latest", results: str | Path = "results") -> Run:
    """A measured run.

    Args:
        run: see :data:`RunLike`.
        results: folder that names are looked for in.

    Raises:
        UserError: there is none, or the file cannot be read.
    """
    return run if isinstance(run, Run) else read_run_file(find_measured(str(run), results))


def runs_of(runs: RunLike | Sequence[RunLike], results: str | Path = "results") -> list[Run]:
    """One or several, at least one. Raises UserError as :func:`read_run` does, and for none."""
    several = [runs] if isinstance(runs, (Run, str, Path)) else list(runs)
    if not several:
        raise UserError("no run was given")
    return [read_run(run, results) for run in several]
