"""Options that are called alike and mean the same in every command that has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

RESULTS_FOLDER = Path("results")
OLD = "--out"
"""What each command's folder of output was called before."""


def results_option(what: str, *old: str) -> Any:
    """``--results``: the folder of run files."""
    return typer.Option(RESULTS_FOLDER, "--results", *old, help=what)


def figures_option(default: str) -> Any:
    """``--figures``: the folder that pictures are drawn into."""
    return typer.Option(None, "--figures", OLD, help=f"Folder for figures.  [default: {default}]")


def checkpoints_option(default: str = "") -> Any:
    """``--checkpoints``: the folder of a training."""
    shown = f"  [default: {default}]" if default else ""
    return typer.Option(None if default else ..., "--checkpoints", OLD, help=f"Folder for checkpoints.{shown}")


JSON = typer.Option(False, "--json", help="Print what was found as JSON on stdout.")
QUIET = typer.Option(False, "--quiet", "-q", help="No progress.")
DEVICE = typer.Option("auto", "--device", help="auto, cpu or cuda.")
DEVICE_OR_INDEX = typer.Option("auto", "--device", help="auto, cpu, cuda or cuda:INDEX.")
