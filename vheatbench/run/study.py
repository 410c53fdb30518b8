"""Inside a worker process: plan a study, or carry a group of its cases out, record by record."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType

import torch

from vheatbench.errors import StoreError, UserError, WorkerError
from vheatbench.measure.environment import environment
from vheatbench.run.device import classify
from vheatbench.run.task import Event, Planned, PlanTask, StudyEnd, StudyTask
from vheatbench.run.worker import send

Tell = Callable[[str, float], None]
"""Told how far a group is: in words, and as a share of it."""


def plan(task: PlanTask) -> Planned:
    """Answer a :class:`PlanTask`. Never raises: what is wrong is in the answer."""
    try:
        groups, notes = _module(task.study).plan(task.settings)
    except UserError as error:
        return Planned(problem=str(error))
    except WorkerError as error:
        return Planned(problem=str(error), wrong_input=False)
    except Exception as error:  # whatever a model raises
        return Planned(problem=classify(error)[1], wrong_input=False)
    if not groups:
        return Planned(problem="there is nothing to measure")
    devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return Planned(groups=groups, notes=notes, environment=environment(), cuda_devices=devices)


def carry_out(task: StudyTask, events_fd: int) -> StudyEnd:
    """Measure a group; every record is written as an event once it is finished.

    A study's ``measure`` makes a record of whatever a model does wrong; what it raises ends the run.
    """

    def tell(words: str, share: float) -> None:
        send(events_fd, Event(words=words, share=share))

    try:
        for record in _module(task.study).measure(task, tell):
            send(events_fd, Event(record=record))
    except UserError as error:
        return StudyEnd(problem=str(error), kind="input")
    except StoreError as error:
        return StudyEnd(problem=str(error), kind="store")
    return StudyEnd()


def _module(name: str) -> ModuleType:
    return importlib.import_module(name)
