"""The table of a training on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from vheatbench import numbers
from vheatbench.metrics import info_of
from vheatbench.present.parts import StudyTable, Table
from vheatbench.stats import Interval
from vheatbench.studies.training.record import name_of
from vheatbench.studies.training.seeds import OverSeeds, over_seeds

if TYPE_CHECKING:
    from vheatbench.store.read import Run
    from vheatbench.store.schema import Record


def print_training(run: Run) -> None:
    """One line per model on stdout; what is wrong and every warning on stderr."""
    from vheatbench.present.terminal import print_page_table, print_records, print_warnings

    records = as_planned(run)
    heads, names_of = row_names(records)
    print_records(
        heads,
        names_of,
        "training",
        records,
        title=f"{run.header.description or run.header.suite}: {run.device_name}, {run.header.created}",
        caption="after the last epoch, (low to high): 95 % interval; best: of all epochs, chosen on the test images",
    )
    seeds = seeds_table("seeds", over_seeds(records))
    if seeds is not None:
        print_page_table(seeds)
    print_warnings(run.problems, ((name_of(record), record.warnings) for record in run.records))


def as_planned(run: Run) -> list[Record]:
    """The records in the order of the plan: those of trainings side by side come as they end."""
    order = {case.id: position for position, case in enumerate(run.header.plan)}
    return sorted(run.records, key=lambda record: order.get(record.case_id, len(order)))


def row_names(records: Sequence[Record]) -> tuple[tuple[str, ...], Callable[[Record], list[str]]]:
    """Heads of what names a row of a training's table, and that of a record; a seed only where there are several."""
    several = len({record.case.analysis.get("seed") for record in records}) > 1

    def names(record: Record) -> list[str]:
        epochs = len(record.samples["train_loss"].values) if "train_loss" in record.samples else 0
        seed = [str(record.case.analysis.get("seed", ""))] if several else []
        return [name_of(record), *seed, str(epochs)]

    return ("model", "seed", "epochs") if several else ("model", "epochs"), names


def seeds_table(id_: str, found: Sequence[OverSeeds]) -> Table | None:
    """What several seeds say of models that were trained by one recipe; None where each has one."""
    if not found:
        return None
    top1, first = info_of("top1_accuracy"), found[0].name
    rows = [
        (
            one.name,
            ", ".join(map(str, one.by_seed)),
            ", ".join(numbers.plain(value * top1.factor) for value in one.by_seed.values()),
            _points(one.mean, top1.factor),
            "" if one.change is None else _points(one.change, top1.factor, signed=True),
        )
        for one in found
    ]
    caption = (
        "Mean over trainings that differ in their seed alone, with Student's 95 % interval; the change is that of "
        "pairs of the same seed, in percentage points."
    )
    header = ("model", "seeds", "top-1 % of each", "mean top-1 %", f"change from {first}")
    return Table(id_, "Over seeds", caption, header, rows)


def _points(interval: Interval, factor: float, signed: bool = False) -> str:
    value, low, high = (f"{factor * one:{'+' if signed else ''}.2f}" for one in interval[:3])
    return f"{value} ({low} to {high})"


def _names(record: Record) -> tuple[str, ...]:
    analysis = record.case.analysis
    return name_of(record), record.case.size, str(analysis.get("epochs", "")), str(analysis.get("seed", ""))


TABLES = (
    StudyTable("training", ("model", "size", "epochs", "seed"), _names, "training", lambda case: case.mode == "fit"),
)
