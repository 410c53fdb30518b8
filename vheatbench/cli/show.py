"""``vheatbench show``: the table of a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from vheatbench.cli.options import JSON, results_option

if TYPE_CHECKING:
    from vheatbench.store.read import Run


def show(
    run: str = typer.Argument("latest", help="A run file, its id or the start of its name, or 'latest'."),
    results: Path = results_option("Folder of run files."),
    json_: bool = JSON,
    why: str | None = typer.Option(
        None, help='Explain one case, by its id or words of its name ("swin-t 448"): from samples to numbers.'
    ),
    csv: Path | None = typer.Option(None, help="Also write the table as CSV to this file."),
) -> None:
    """Print the table of a run, with what is wrong with the file and every warning."""
    from vheatbench.store.read import find_run, read_run

    found = read_run(find_run(run, results))
    if csv is not None:
        from vheatbench.store.export import write_csv

        write_csv(found, csv)
    if json_:
        from vheatbench.cli.output import print_records

        print_records(found)
        return
    if why is not None:
        from vheatbench.cli.why import explain

        explain(found, why)
        return
    print_parts(found)


def print_parts(run: Run) -> None:
    """The table of the timed cases, and that of every study."""
    from vheatbench.studies import parts_of

    for study, part in parts_of(run):
        if study is not None:
            study.print_table(part)
            continue
        from vheatbench.cli.table import print_run

        for of_one_kind in _by_kind(part):
            print_run(of_one_kind)


def _by_kind(run: Run) -> list[Run]:
    """Models and operators apart, with the columns of each; what is wrong with the file is said with the first."""
    models = [record for record in run.records if record.case.kind == "model"]
    others = [record for record in run.records if record.case.kind != "model"]
    if not models or not others:
        return [run]
    return [replace(run, records=models), replace(run, records=others, problems=[])]
