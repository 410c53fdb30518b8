"""A study whose groups do what their names say: what ``run.task.StudyTask.study`` names, for tests of the runner."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vheatbench.case import Case
from vheatbench.errors import StoreError, UserError, WorkerError
from vheatbench.run.task import Group, StudyTask
from vheatbench.store.schema import Record

HALF = 1
"""Records of a group that are sent before the deed."""


def plan(settings: dict[str, Any]) -> tuple[list[Group], list[str]]:
    """A group of two cases for every name; ``refused`` and ``broken`` cannot be planned."""
    names = settings["names"]
    if "refused" in names:
        raise UserError("there is no such thing")
    if "broken" in names:
        raise WorkerError("the model is broken")
    if "raises" in names:
        raise ValueError("of the model's own")
    return [Group(label=name, cases=cases(name)) for name in names], ["a note"]


def cases(name: str) -> list[Case]:
    return [Case(subject=name, resolution=32, mode="heat", analysis={"part": part}) for part in (1, 2)]


def measure(task: StudyTask, progress: Any) -> Iterator[Record]:
    for done, case in enumerate(task.cases):
        progress(f"{done} of {len(task.cases)}", done / len(task.cases))
        if done == HALF:
            deed(case.subject, task)
        yield Record(
            case=case,
            case_id=case.id,
            status="ok",
            started="2026-01-01T00:00:00Z",
            conditions={"variable": os.environ.get("OMP_NUM_THREADS", ""), "folder": str(Path.cwd())},
        )
    progress("all", 1.0)


def deed(name: str, task: StudyTask) -> None:
    if name == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif name == "signalled":
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
            os.kill(os.getpid(), number)
    elif name == "sleeps":
        child = subprocess.Popen(["sleep", "600"])
        task.run_path.with_name("child").write_text(f"{child.pid}")
        time.sleep(600)
    elif name == "wrong":
        raise UserError("its images have changed")
    elif name == "full":
        raise StoreError("no room for the map")
    elif name == "noisy":
        print("rubbish", flush=True)
        raise MemoryError
