"""Accuracy as a study that the runner carries out: one resolution after the other, in one process each.

``vheatbench eval`` does the same in the processes that ``torchrun`` starts (:mod:`.evaluate`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from vheatbench.errors import UserError
from vheatbench.metrics import info_of
from vheatbench.numbers import with_unit
from vheatbench.run.device import device_for
from vheatbench.run.distributed import Group as Processes
from vheatbench.run.study import Tell
from vheatbench.run.task import Group, StudyTask
from vheatbench.store.schema import Record
from vheatbench.studies import settings_of
from vheatbench.studies.accuracy.evaluate import evaluate_case, progress_file
from vheatbench.studies.accuracy.plan import EvalSettings, make_plan


def plan(asked: dict[str, Any]) -> tuple[list[Group], list[str]]:
    """One group for each resolution.

    Args:
        asked: :class:`EvalSettings` as JSON.

    Raises:
        UserError: see :func:`vheatbench.studies.accuracy.plan.make_plan`.
    """
    cases = make_plan(settings_from(asked)).cases
    return [Group(label=f"{case.subject} {case.size}", cases=[case]) for case in cases], []


def measure(task: StudyTask, progress: Tell) -> Iterator[Record]:
    """The record of one resolution; the answers of a worker that was killed before are not asked for again.

    Raises:
        UserError: an image cannot be read, or images or weights are others than when the run was begun.
        StoreError: the answers cannot be written.
    """
    (case,) = task.cases
    planned = make_plan(replace(settings_from(task.settings), device=case.device), load=False)
    if case.id not in [known.id for known in planned.cases]:
        raise UserError(f"{task.label}: its images or weights are others than when the run was begun: begin a new run")
    processes = Processes(torch.device("cuda:0" if case.device == "cuda" else "cpu"))
    reporter = _Reporter(progress, len(planned.images))
    record = evaluate_case(case, planned, task.run_path, processes, reporter, task.policy)
    if record.status == "ok":
        progress_file(task.run_path, case).unlink(missing_ok=True)
        top1 = with_unit(record.metrics["top1_accuracy"].value or 0.0, info_of("top1_accuracy"))
        progress(f"top-1 {top1} of {len(planned.images)} images{reporter.before}", 1.0)
    yield record


class _Reporter:
    """Reports the progress of an evaluation to the runner."""

    def __init__(self, progress: Tell, total: int) -> None:
        self._progress, self._total, self.before = progress, total, ""

    def begun(self, case: object, done: int, total: int) -> None:
        if done:
            self.before = f", going on after {done} of {total} images"
            self._progress(self.before.removeprefix(", "), done / total)

    def answered(self, done: int, correct: float) -> None:
        so_far = with_unit(correct, info_of("top1_accuracy"))
        self._progress(f"{done} of {self._total} images, top-1 {so_far}", done / self._total)

    def ended(self, record: Record) -> None:
        """The runner reports that."""


def settings_from(asked: dict[str, Any]) -> EvalSettings:
    """Settings as JSON, with a device that is there. Raises UserError."""
    settings = settings_of(EvalSettings, asked)
    return replace(settings, device=device_for(settings.device, settings.dtype))
