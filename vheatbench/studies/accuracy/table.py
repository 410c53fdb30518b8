"""What ``vheatbench eval`` shows: how far it is, then accuracies and the worst classes; and what a case is named by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vheatbench.metrics import info_of
from vheatbench.numbers import Value, with_interval, with_unit
from vheatbench.present.parts import StudyTable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vheatbench.case import Case
    from vheatbench.present.progress import Display
    from vheatbench.store.read import Run
    from vheatbench.store.schema import Record


class EvalDisplay:
    """What ``eval`` shows while images are answered: the accuracy so far, and a line for every resolution."""

    def __init__(self, cases: Sequence[Case], images: int, shown: Display) -> None:
        self._cases, self._images, self._shown = list(cases), images, shown
        self._place = 0

    def begun(self, case: Case, done: int, total: int) -> None:
        """A resolution begins."""
        self._place = self._cases.index(case)
        before = f"going on after {done} of {total} images" if done else ""
        self._update(done, before)
        if before:
            self._shown.line(_label(case), before)

    def answered(self, done: int, correct: float) -> None:
        """So many images are done."""
        self._update(done, f"top-1 {with_unit(correct, info_of('top1_accuracy'))}")

    def ended(self, record: Record) -> None:
        """The record is on disk."""
        self._shown.line(_label(record.case), outcome(record), record.status)

    def _update(self, done: int, words: str) -> None:
        pixels = [case.pixels for case in self._cases]
        share = (sum(pixels[: self._place]) + pixels[self._place] * done / self._images) / sum(pixels)
        self._shown.update(share, f"{done}/{self._images}", f"{_label(self._cases[self._place])}  {words}")


def _label(case: Case) -> str:
    return f"{case.subject} {case.size}"


def outcome(record: Record) -> str:
    """The record of a resolution on one line."""
    if record.status != "ok":
        return f"{record.status}: {record.reason}"
    top1, images = record.metrics["top1_accuracy"].value or 0.0, record.metrics["images"].value
    return f"top-1 {with_unit(top1, info_of('top1_accuracy'))} of {images:.0f} images, {record.elapsed_s:.1f} s"


def print_accuracies(run: Run, worst: int = 10) -> None:
    """One line per resolution and the worst classes of each on stdout; every warning on stderr."""
    from vheatbench.present.terminal import print_records, print_warnings

    caption = "(low to high): 95 % interval; change: top-1 against the first size, over the same images"
    print_records(("size",), lambda one: [one.case.size], "accuracy", run.records, title=_title(run), caption=caption)
    for record in run.records:
        if worst and record.status == "ok":
            _print_worst(record, worst)
    print_warnings(run.problems, ((_label(record.case), record.warnings) for record in run.records))


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
