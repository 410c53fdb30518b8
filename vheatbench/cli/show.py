"""``vheatbench show``: the table of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from vheatbench.store.read import Run


def show(
    run: str = typer.Argument("latest", help="A run file, its id or the start of its name, or 'latest'."),
    results: Path = typer.Option(Path("results"), help="Folder of run files."),
    json_: bool = typer.Option(False, "--json", help="Print header and records as JSON."),
    csv: Path | None = typer.Option(None, help="Also write the table as CSV to this file."),
) -> None:
    """Print the table of a run, with what is wrong with the file and every warning."""
    from vheatbench.store.read import find_run, read_run

    found = read_run(find_run(run, results))
    if csv is not None:
        from vheatbench.store.export import write_csv

        write_csv(found, csv)
    if json_:
        from vheatbench.cli.output import print_json

        records = [record.model_dump(mode="json") for record in found.records]
        print_json({"header": found.header.model_dump(mode="json"), "records": records, "problems": found.problems})
        return
    _print(found)


def _print(run: Run) -> None:
    """The table of what the run is: an analysis has one of its own."""
    modes = {record.case.mode for record in run.records}
    if "erf" in modes:
        from vheatbench.cli.erf import print_fields as print_table
    elif "heat" in modes:
        from vheatbench.studies.heat.table import print_heat as print_table
    elif run.header.suite in ("detect-eval", "segment-eval"):
        from vheatbench.cli.dense import print_scores as print_table
    elif "eval" in modes:
        from vheatbench.studies.accuracy.table import print_accuracies as print_table
    elif "fit" in modes:
        from vheatbench.studies.training.table import print_training as print_table
    else:
        from vheatbench.cli.table import print_run as print_table
    print_table(run)
