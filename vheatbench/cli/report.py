"""``vheatbench report``: one HTML page from one or more runs."""

from __future__ import annotations

import sys
from pathlib import Path

import typer


def report(
    runs: list[str] = typer.Argument(None, help="Run files, ids or starts of names; default the latest run."),
    output: Path | None = typer.Option(None, "--output", "-o", help="The page; default reports/<run>.html."),
    results: Path = typer.Option(Path("results"), help="Folder of run files."),
) -> None:
    """Write a self-contained HTML page: findings, scaling curves, the table, warnings, environment."""
    from vheatbench.report.page import write_report
    from vheatbench.store.read import find_run, read_run

    paths = [find_run(name, results) for name in runs or ["latest"]]
    target = output or Path("reports") / f"{paths[0].name.split('.')[0]}.html"
    write_report([read_run(path) for path in paths], target)
    print(target)
    print(f"{target.stat().st_size / 1024:.0f} KiB, one file, no network needed", file=sys.stderr)
