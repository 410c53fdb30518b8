"""Plans and groups of studies carried out in the test's own process, where what a test replaces is replaced."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable

import pytest
from pydantic import BaseModel

from vheatbench.run import study
from vheatbench.run.inspect import inspect
from vheatbench.run.process import Outcome, Worker
from vheatbench.run.task import Event, InspectTask, PlanTask, StudyTask


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use this, and no worker process is started for a study."""
    run = Worker.run

    def here(
        self: Worker,
        task: BaseModel,
        timeout_s: float | None = None,
        on_event: Callable[[Event], None] = lambda event: None,
    ) -> Outcome:
        if isinstance(task, InspectTask):
            return Outcome("answered", inspect(task).model_dump_json(), "", 0.0)
        if isinstance(task, PlanTask):
            with contextlib.redirect_stdout(sys.stderr):  # a worker's goes to a log
                return Outcome("answered", study.plan(task).model_dump_json(), "", 0.0)
        if not isinstance(task, StudyTask):
            return run(self, task, timeout_s, on_event)
        ours, theirs = os.pipe()

        def listen() -> None:
            with os.fdopen(ours) as lines:
                for line in lines:
                    on_event(Event.model_validate_json(line))

        listener = threading.Thread(target=listen)
        listener.start()
        try:
            with contextlib.redirect_stdout(sys.stderr):
                return Outcome("answered", study.carry_out(task, theirs).model_dump_json(), "", 0.0)
        finally:
            os.close(theirs)
            listener.join()

    monkeypatch.setattr(Worker, "run", here)
