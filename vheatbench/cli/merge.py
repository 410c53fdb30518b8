"""``vheatbench merge``: shards of a run into one file."""

from __future__ import annotations

from pathlib import Path

import typer

from vheatbench.cli.options import OLD, results_option


def merge(
    runs: list[str] = typer.Argument(help="Run files, ids or starts of names: the shards of one suite."),
    out: Path = results_option("Folder for the merged run; also where names are looked up.", OLD),
    allow_mixed: bool = typer.Option(False, help="Merge runs of different environments, marked as such."),
) -> None:
    """Merge shards (``run --shard i/n``) into one run."""
    from vheatbench.analysis.machines import machines_of, marks_of
    from vheatbench.present.terminal import print_warnings
    from vheatbench.store.read import find_run
    from vheatbench.store.slim import merge_files

    merged = merge_files([find_run(name, out) for name in runs], out, allow_mixed, machines_of, marks_of)
    print_warnings(merged.warnings)
    print(merged.path)
