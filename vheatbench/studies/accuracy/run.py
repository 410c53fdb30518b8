"""Accuracy as a study that the runner carries out: one resolution after the other, in one process each.

``vheatbench eval`` does the same in the processes that ``torchrun`` starts (:mod:`.evaluate`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from vheatbench.errors import UserError
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
    cases = make_plan(_settings(asked)).cases
    return [Group(label=f"{case.subject} {case.size}", cases=[case]) for case in cases], []


def measure(task: StudyTask, tell: Tell) -> Iterator[Record]:
    """The record of one resolution; the answers of a worker that was killed before are not asked for again.

    Raises:
        UserError: an image cannot be read, or images or weights are others than when the run was begun.
        StoreError: the answers cannot be written.
    """
    (case,) = task.cases
    settings = replace(_settings(task.settings), resolutions=(case.resolution,), device=case.device)
    planned = make_plan(settings)
    if planned.cases[0].id != case.id:
        raise UserError(f"{task.label}: its images or weights are others than when the run was begun: begin a new run")
    processes = Processes(torch.device("cuda:0" if case.device == "cuda" else "cpu"))
    record = evaluate_case(case, planned, task.run_path, processes, _Telling(tell, len(planned.images)), 0, False)
    if record.status == "ok":
        progress_file(task.run_path, case).unlink(missing_ok=True)
        tell(f"top-1 {record.metrics['top1_accuracy'].value:.2%} of {len(planned.images)} images", 1.0)
    yield record


class _Telling:
    """The progress of an evaluation, as a worker tells it."""

    def __init__(self, tell: Tell, total: int) -> None:
        self._tell, self._total = tell, total

    def begun(self, case: object, done: int, total: int) -> None:
        if done:
            self._tell(f"going on after {done} of {total} images", done / total)

    def answered(self, done: int, correct: float) -> None:
        self._tell(f"{done} of {self._total} images, top-1 {correct:.1%}", done / self._total)

    def ended(self, record: Record) -> None:
        """The runner says it."""


def _settings(asked: dict[str, Any]) -> EvalSettings:
    settings = settings_of(EvalSettings, {**asked, "device": "cpu"} if asked.get("device") == "auto" else asked)
    there = torch.cuda.is_available()
    if asked.get("device") == "auto" and there:
        settings = replace(settings, device="cuda")
    if settings.device == "cuda" and not there:
        raise UserError("CUDA was asked for, but torch sees no CUDA device")
    return settings
