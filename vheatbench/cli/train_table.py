"""The table of a training on the terminal."""

from __future__ import annotations

import sys
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
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    shown = [column for column in COLUMNS if any(column[0] in record.metrics for record in run.records)]
    table = Table(
        title=escape(f"{run.header.description or run.header.suite}: {run.device_name}, {run.header.created}"),
        title_justify="left",
        caption="after the last epoch, \\[low, high]: 95 % interval; best: of all epochs, chosen on the test images",
        caption_justify="left",
    )
    table.add_column("model", no_wrap=True)
    table.add_column("epochs", justify="right")
    for _, heading, _, _ in shown:
        table.add_column(heading, justify="right", no_wrap=True)
    failed = any(record.status != "ok" for record in run.records)
    if failed:
        table.add_column("notes")
    for record in run.records:
        cells = [name_of(record), str(len(record.samples["train_loss"].values)) if record.samples else "0"]
        cells += [_cell(record, *column) for column in shown]
        cells += [f"{record.status}: {record.reason}" if record.status != "ok" else ""] * failed
        table.add_row(*map(escape, cells))
    Console(width=None if sys.stdout.isatty() else 200, highlight=False).print(table)
    for problem in run.problems:
        print(f"! {problem}", file=sys.stderr)
    for record in run.records:
        for text in record.warnings:
            print(f"! {name_of(record)}: {text}", file=sys.stderr)


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
