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
    from vheatbench.present.terminal import print_warnings
    from vheatbench.store.merge import merge_runs, write_merged
    from vheatbench.store.read import find_run, read_run

    found = [read_run(find_run(name, out)) for name in runs]
    print_warnings(merge_runs(found, allow_mixed=allow_mixed).warnings)
    print(write_merged(found, out, allow_mixed=allow_mixed))
