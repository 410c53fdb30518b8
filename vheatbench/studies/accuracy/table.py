"""What ``vheatbench eval`` shows: how far it is, then accuracies and the worst classes; and what a case is named by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vheatbench.metrics import info_of
from vheatbench.numbers import Value, with_interval, with_unit
from vheatbench.present.parts import StudyTable
from vheatbench.present.progress import display

if TYPE_CHECKING:
    from vheatbench.case import Case
    from vheatbench.store.read import Run
    from vheatbench.store.schema import Record


class EvalDisplay:
    """What ``eval`` shows while images are answered: the accuracy so far, and a line for every resolution."""

    def __init__(self, images: int, quiet: bool) -> None:
        self.shown = display(images, quiet)
        self._images, self._label = images, ""

    def begun(self, case: Case, done: int, total: int) -> None:
        """A resolution begins."""
        self._label = f"{case.subject} {case.size}"
        if done:
            self.shown.line(f"{self._label}: going on after {done} of {total} images")
        self.shown.update(done, f"{self._label}  {done}/{total}")

    def answered(self, done: int, correct: float) -> None:
        """So many images are done."""
        so_far = with_unit(correct, info_of("top1_accuracy"))
        self.shown.update(done, f"{self._label}  {done}/{self._images}  top-1 {so_far}")

    def ended(self, record: Record) -> None:
        """The record is on disk."""
        self.shown.line(outcome(record), record.status == "ok")


def outcome(record: Record) -> str:
    """A resolution on one line."""
    label = f"{record.case.subject} {record.case.size}"
    if record.status != "ok":
        return f"{label}: {record.status}: {record.reason}"
    top1, images = record.metrics["top1_accuracy"].value or 0.0, record.metrics["images"].value
    text = with_unit(top1, info_of("top1_accuracy"))
    return f"{label}: top-1 {text} of {images:.0f} images, {record.elapsed_s:.1f} s"


def print_accuracies(run: Run, worst: int = 10) -> None:
    """One line per resolution and the worst classes of each on stdout; every warning on stderr."""
    from vheatbench.present.terminal import print_records, print_warnings

    caption = "(low to high): 95 % interval; change: top-1 against the first size, over the same images"
    print_records(("size",), lambda one: [one.case.size], "accuracy", run.records, title=_title(run), caption=caption)
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
        share = with_interval(Value(one["accuracy"], one["low"], one["high"]), info_of("top1_accuracy"))
        rows.append((one["name"], str(one["correct"]), str(one["images"]), share, taken))
    columns = (Column("class", "name"), Column("right"), Column("of"), Column("%"), Column("taken for", "notes"))
    print_table(columns, rows, title=f"Worst classes at {record.case.size}")


NAMES = ("model", "size", "how", "weights", "data")
"""What :func:`names_of` gives."""


def names_of(record: Record) -> tuple[str, str, str, str, str]:
    """Model, size, training and test, weights and data of a case in mode ``eval``; empty where they are not known."""
    weights = record.conditions.get("weights") or record.subject.get("weights") or ""
    data = record.conditions.get("data")
    name = str(data.get("name", "")) if isinstance(data, dict) else ""
    analysis = record.case.analysis
    how = [str(analysis[key]) for key in ("schedule", "test", "scales") if key in analysis]
    how[1:1] = [f"{analysis['steps']} steps"] if "steps" in analysis else []
    data_name = name or str(analysis.get("data", ""))
    return record.case.subject, record.case.size, ", ".join(how), str(weights), data_name


TABLES = (StudyTable("accuracy", NAMES, names_of, "accuracy", lambda case: case.mode == "eval"),)
