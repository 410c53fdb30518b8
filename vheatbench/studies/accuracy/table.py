"""What ``vheatbench eval`` shows: a bar while images are answered, then accuracies and the worst classes."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vheatbench.case import Case
    from vheatbench.store.read import Run
    from vheatbench.store.schema import Metric, Record


class Silent:
    """Says nothing."""

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def begun(self, case: Case, done: int, total: int) -> None:
        """A resolution begins."""

    def answered(self, done: int, correct: float) -> None:
        """So many images are done."""

    def ended(self, record: Record) -> None:
        """The record is on disk."""


class Lines(Silent):
    """A line where a resolution begins in the middle, and one when it ends."""

    def begun(self, case: Case, done: int, total: int) -> None:
        if done:
            print(f"{case.subject} {case.size}: going on after {done} of {total} images", file=sys.stderr, flush=True)

    def ended(self, record: Record) -> None:
        print(outcome(record), file=sys.stderr, flush=True)


class Bar(Lines):
    """Finished resolutions scroll by; below them a bar over images, and the accuracy so far."""

    def __init__(self, total: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[correct]}", markup=False),
            TimeElapsedColumn(),
            console=Console(stderr=True, highlight=False),
            transient=True,
        )
        self._task = self._progress.add_task("starting", total=total, correct="")

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def begun(self, case: Case, done: int, total: int) -> None:
        self._progress.update(self._task, description=f"{case.subject} {case.size}", completed=done, correct="")

    def ended(self, record: Record) -> None:
        self._progress.console.print(outcome(record), markup=False)

    def answered(self, done: int, correct: float) -> None:
        self._progress.update(self._task, completed=done, correct=f"top-1 {correct:.1%}")


def make_progress(total: int, quiet: bool) -> Silent:
    """The right kind for where stderr goes."""
    if quiet:
        return Silent()
    return Bar(total) if sys.stderr.isatty() else Lines()


def outcome(record: Record) -> str:
    """A resolution on one line."""
    label = f"{record.case.subject} {record.case.size}"
    if record.status != "ok":
        return f"{label}: {record.status}: {record.reason}"
    top1 = record.metrics["top1_accuracy"]
    return f"{label}: top-1 {top1.value:.2%} of {record.metrics['images'].value:.0f} images, {record.elapsed_s:.1f} s"


COLUMNS = (
    ("top1_accuracy", "top-1 %", 100.0, 2),
    ("top1_gain", "change", 100.0, 2),
    ("top5_accuracy", "top-5 %", 100.0, 2),
    ("loss", "loss", 1.0, 4),
    ("throughput_images_per_s", "model images/s", 1.0, 1),
    ("pipeline_images_per_s", "with loading", 1.0, 1),
)
"""Metric, heading, factor from the metric's unit, digits after the point."""


def print_accuracies(run: Run, worst: int = 10) -> None:
    """One line per resolution and the worst classes of each on stdout; every warning on stderr."""
    from vheatbench.present.terminal import Column, print_table, print_warnings

    shown = [column for column in COLUMNS if any(column[0] in record.metrics for record in run.records)]
    rows = []
    for record in run.records:
        cells = [_cell(record.metrics.get(metric), factor, digits) for metric, _, factor, digits in shown]
        rows.append([record.case.size, _cell(record.metrics.get("images"), 1.0, 0), *cells, _notes(record)])
    print_table(
        [
            Column("size", "name", right=True),
            Column("images"),
            *(Column(heading) for _, heading, _, _ in shown),
            Column("notes", "notes"),
        ],
        rows,
        title=_title(run),
        caption="[low, high]: 95 % interval; change: top-1 against the first size, over the same images",
    )
    for record in run.records:
        if worst and record.status == "ok":
            _print_worst(record, worst)
    print_warnings(
        run.problems, ((f"{record.case.subject} {record.case.size}", record.warnings) for record in run.records)
    )


def _title(run: Run) -> str:
    case = run.records[0].case
    conditions = next((record.conditions for record in run.records if record.conditions), {})
    words = [f"weights {conditions['weights']}"] if "weights" in conditions else []
    words += [f"on {conditions['data']['name']}"] if "data" in conditions else []
    return f"{', '.join([case.subject, *words])}: {run.device_name}, {run.header.created}"


def _print_worst(record: Record, worst: int) -> None:
    from vheatbench.present.terminal import Column, print_table

    rows = []
    for one in record.conditions["worst_classes"][:worst]:
        taken = ", ".join(f"{other} ×{count}" for other, count in one["taken_for"])
        share = f"{one['accuracy'] * 100:.1f} [{one['low'] * 100:.1f}, {one['high'] * 100:.1f}]"
        rows.append((one["name"], str(one["correct"]), str(one["images"]), share, taken))
    columns = (Column("class", "name"), Column("right"), Column("of"), Column("%"), Column("taken for", "notes"))
    print_table(columns, rows, title=f"Worst classes at {record.case.size}")


def _cell(metric: Metric | None, factor: float, digits: int) -> str:
    if metric is None or metric.value is None:
        return "—"
    text = f"{metric.value * factor:.{digits}f}"
    if metric.low is None or metric.high is None:
        return text
    return f"{text} [{metric.low * factor:.{digits}f}, {metric.high * factor:.{digits}f}]"


def _notes(record: Record) -> str:
    if record.status != "ok":
        return f"{record.status}: {record.reason}"
    count = len(record.warnings)
    return f"{count} warning{'s' * (count > 1)}" if count else ""
