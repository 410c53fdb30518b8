"""The table of a training on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vheatbench.present.parts import StudyTable

if TYPE_CHECKING:
    from vheatbench.store.read import Run
    from vheatbench.store.schema import Record


def print_training(run: Run) -> None:
    """One line per model on stdout; what is wrong and every warning on stderr."""
    from vheatbench.present.terminal import print_records, print_warnings

    print_records(
        ("model", "epochs"),
        lambda one: [name_of(one), str(len(one.samples["train_loss"].values)) if one.samples else "0"],
        "training",
        run.records,
        title=f"{run.header.description or run.header.suite}: {run.device_name}, {run.header.created}",
        caption="after the last epoch, (low to high): 95 % interval; best: of all epochs, chosen on the test images",
    )
    print_warnings(run.problems, ((name_of(record), record.warnings) for record in run.records))


def name_of(record: Record) -> str:
    """What the recipe calls the model."""
    return str(record.conditions.get("name") or record.case.subject)


def _names(record: Record) -> tuple[str, ...]:
    return name_of(record), record.case.size, str(record.case.analysis.get("epochs", ""))


TABLES = (StudyTable("training", ("model", "size", "epochs"), _names, "training", lambda case: case.mode == "fit"),)
