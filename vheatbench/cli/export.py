"""``vheatbench export``: a run in the format of another tool."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from vheatbench.cli.options import results_option

if TYPE_CHECKING:
    from vheatbench.report.exports import Export
    from vheatbench.store.read import Run

FORMATS = ("gab-smaller", "gab-bigger", "bmf", "otava", "csv", "parquet", "markdown")


def export(
    run: str = typer.Argument("latest", help="A run file, its id or the start of its name, or 'latest'."),
    format_: str = typer.Option(..., "--format", help=f"One of {', '.join(FORMATS)}."),
    output: Path | None = typer.Option(None, "--output", "-o", help="The file; default stdout."),
    results: Path = results_option("Folder of run files."),
) -> None:
    """Write a run for another tool.

    gab-smaller, gab-bigger: github-action-benchmark, metrics of which less (more) is better. bmf: Bencher.
    otava: one row of Apache Otava's CSV. csv, parquet: everything but samples. markdown: for a step summary.
    """
    from vheatbench.errors import UserError
    from vheatbench.present.terminal import print_warnings
    from vheatbench.store.read import find_measured, read_run

    if format_ not in FORMATS:
        raise UserError(f"--format {format_!r}: none of {', '.join(FORMATS)}")
    found = read_run(find_measured(run, results))
    print_warnings(found.problems)
    if format_ in ("csv", "parquet"):
        _write_table(found, format_, output)
    else:
        deliver(_exported(found, format_), output)


def deliver(export: Export, output: Path | None) -> None:
    """Write an export to a file or stdout, and say on stderr what is not in it.

    Raises UserError or StoreError if the file cannot be written.
    """
    from vheatbench.files import write_file
    from vheatbench.present.terminal import print_warnings

    print_warnings(f"left out: {text}" for text in export.left_out)
    if output is None:
        sys.stdout.write(export.text)
        return
    write_file(output, export.text)
    print(output)


def _exported(run: Run, format_: str) -> Export:
    from vheatbench.analysis.history import entries_of
    from vheatbench.report import exports

    entries = entries_of(run)
    if format_ == "bmf":
        return exports.bencher_metric_format(entries)
    if format_ == "otava":
        return exports.otava_csv(entries, sorted({name for entry in entries for name in entry.metrics}))
    if format_ == "markdown":
        return exports.markdown(entries)
    return exports.github_action_benchmark(entries, "lower" if format_ == "gab-smaller" else "higher")


def _write_table(run: Run, format_: str, output: Path | None) -> None:
    from vheatbench.errors import UserError
    from vheatbench.store.export import to_frame, write_csv, write_parquet

    if output is None:
        if format_ == "parquet":
            raise UserError("--format parquet is no text: name a file with --output")
        to_frame(run).to_csv(sys.stdout, index=False)
        return
    (write_csv if format_ == "csv" else write_parquet)(run, output)
    print(output)
