"""Runs that the runner carries out in this process, and waiting for processes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import psutil

from vheatbench.case import Case
from vheatbench.run.progress import Silent
from vheatbench.run.runner import Runner
from vheatbench.run.schedule import Schedule
from vheatbench.store import Header, Run, RunWriter, read_run
from vheatbench.suites import SuitePolicy, groups_of

PATIENCE_S = 60


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def gone(pid: int) -> bool:
    """True when the process has ended; one that nobody has waited for yet has ended too."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def a_case(subject: str, **axes: object) -> Case:
    return Case(subject=subject, resolution=32, **axes)  # type: ignore[arg-type]


def a_run(folder: Path, plan: list[Case], rounds: int = 1) -> RunWriter:
    return RunWriter.create(
        folder,
        Header(
            run_id="stubbed",
            suite="stub",
            command="vheatbench run",
            created="2026-01-01T00:00:00Z",
            environment={"host": "stub"},
            plan=plan,
            rounds=rounds,
        ),
    )


def run_all(folder: Path, plan: list[Case], devices: list[str], rounds: int = 1, **policy: object) -> Run:
    wanted = SuitePolicy(**{"turns": False, **policy})  # type: ignore[arg-type]
    schedule = Schedule(groups_of(plan) if wanted.turns else [[case] for case in plan], rounds)
    with a_run(folder, plan, rounds) as writer:
        runner = Runner(writer, wanted, devices, Silent())
        records = runner.run(schedule)
        path = writer.finish()
    run = read_run(path)
    assert {(r.case_id, r.round) for r in records} == run.done
    return run
