"""The table of a training on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vheatbench.store.read import Run
    from vheatbench.store.schema import Record

COLUMNS = (
    ("params", "params k", 1e-3, 1),
    ("top1_accuracy", "test top-1 %", 100.0, 2),
    ("ema_top1_accuracy", "averaged %", 100.0, 2),
    ("best_top1_accuracy", "best %", 100.0, 2),
    ("train_loss", "train loss", 1.0, 4),
    ("test_loss", "test loss", 1.0, 4),
    ("throughput_images_per_s", "images/s", 1.0, 1),
    ("epoch_s", "epoch s", 1.0, 2),
    ("training_s", "in all s", 1.0, 1),
    ("peak_memory_bytes", "peak MiB", 2.0**-20, 0),
)
"""Metric, heading with unit, factor from the metric's unit, digits after the point."""


def print_training(run: Run) -> None:
    """One line per model on stdout; what is wrong and every warning on stderr."""
    from vheatbench.present.terminal import Column, print_table, print_warnings

    shown = [column for column in COLUMNS if any(column[0] in record.metrics for record in run.records)]
    rows = []
    for record in run.records:
        cells = [name_of(record), str(len(record.samples["train_loss"].values)) if record.samples else "0"]
        cells += [_cell(record, *column) for column in shown]
        rows.append([*cells, f"{record.status}: {record.reason}" if record.status != "ok" else ""])
    print_table(
        [
            Column("model", "name"),
            Column("epochs"),
            *(Column(heading) for _, heading, _, _ in shown),
            Column("notes", "notes"),
        ],
        rows,
        title=f"{run.header.description or run.header.suite}: {run.device_name}, {run.header.created}",
        caption="after the last epoch, [low, high]: 95 % interval; best: of all epochs, chosen on the test images",
    )
    print_warnings(run.problems, ((name_of(record), record.warnings) for record in run.records))


def name_of(record: Record) -> str:
    """What the recipe calls the model."""
    return str(record.conditions.get("name") or record.case.subject)


def _cell(record: Record, name: str, heading: str, factor: float, digits: int) -> str:
    metric = record.metrics.get(name)
    if metric is None or metric.value is None:
        return "—"
    text = f"{metric.value * factor:.{digits}f}"
    if name != "top1_accuracy" or metric.low is None or metric.high is None:
        return text
    return f"{text} [{metric.low * factor:.1f}, {metric.high * factor:.1f}]"
