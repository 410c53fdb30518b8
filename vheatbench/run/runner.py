"""Carrying a run out: what is planned goes to the devices, what they give goes to disk."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Collection, Sequence
from typing import Any

from vheatbench.case import Case
from vheatbench.errors import StoreError, UserError, WorkerError
from vheatbench.run.executor import Executor, Seat, StoppedError, unanswered
from vheatbench.run.exports import exports_folder
from vheatbench.run.process import Launch, Outcome, Worker
from vheatbench.run.progress import Item, Progress, outcome
from vheatbench.run.recording import keep
from vheatbench.run.schedule import GroupRound, Schedule
from vheatbench.run.task import Event, Inspection, InspectTask, Planned, PlanTask, StudyEnd, StudyTask
from vheatbench.stop import deferred
from vheatbench.store.schema import Record, Status
from vheatbench.store.write import RunWriter
from vheatbench.suites import SuitePolicy
from vheatbench.text import utc_now

INSPECTION_TIMEOUT_S = 600.0


def inspect_machine(cases: Sequence[Case], foresee: bool = False, launch: Launch | None = None) -> Inspection:
    """Ask a worker process what this machine is and whether the cases make sense.

    A process of its own, so that the runner never imports torch: it stays small, starts quickly and
    holds no memory on any GPU.

    Raises:
        WorkerError: the process died (torch cannot be imported, say); its last words are in the message.
    """
    outcome = Worker(launch=launch).run(InspectTask(cases=list(cases), foresee=foresee), INSPECTION_TIMEOUT_S)
    if outcome.end != "answered":
        raise WorkerError(f"this machine could not be inspected: {outcome.reason}")
    return Inspection.model_validate_json(outcome.answer)


def plan_study(study: str, settings: dict[str, Any]) -> Planned:
    """Ask a worker process which cases the settings of a study make, and what this machine is.

    Raises:
        UserError: something is wrong with what was asked for.
        WorkerError: a model cannot be looked at, or the process died.
    """
    ended = Worker().run(PlanTask(study=study, settings=settings))
    if ended.end != "answered":
        raise WorkerError(f"it cannot be planned: {ended.reason}")
    planned = Planned.model_validate_json(ended.answer)
    if planned.problem:
        raise UserError(planned.problem) if planned.wrong_input else WorkerError(planned.problem)
    return planned


def items_of(schedule: Schedule, done: Collection[tuple[str, int]]) -> tuple[list[Item], set[str]]:
    """What :meth:`Runner.run` tells of for certain, in its order, and the keys of those that a resumed run holds."""
    cases = {case.id: case for group in schedule.groups for case in group.cases}
    held = [Item.of(cases[id_], number) for id_, number in sorted(done) if id_ in cases]
    held += [_item(task) for task in schedule.studies if all((case.id, 0) in done for case in task.cases)]
    left = [item for one in schedule.first for item in _items(one)]
    return [*held, *left], {item.key for item in held}


def _items(task: GroupRound | StudyTask) -> list[Item]:
    if isinstance(task, GroupRound):
        return [Item.of(case, task.round) for case in task.cases]
    return [_item(task)]


def _label(group: GroupRound) -> str:
    if len(group.cases) == 1:
        return Item.of(group.cases[0], group.round).label
    first = group.cases[0]
    return f"{first.size} {first.variant}: {', '.join(case.subject for case in group.cases)}"


def _item(task: StudyTask) -> Item:
    # a pass over a model gives all of its layers, so that more cases take little more time
    return Item(f"{task.study}/{task.cases[-1].id}", task.label, 2.0 * len(task.cases) ** 0.5)


class Runner:
    """Measures what a schedule hands out on one or more devices side by side, one group at a time on each."""

    def __init__(self, writer: RunWriter, policy: SuitePolicy, devices: Sequence[str], progress: Progress) -> None:
        """``devices``: ``cpu``, or ``cuda:0``, ``cuda:1``, ..."""
        self._writer = writer
        self._policy = policy
        self._progress = progress
        folder = exports_folder(writer.path)
        self._executors = [Executor(policy, device, len(devices), folder=folder) for device in devices]
        self._lock = threading.Lock()
        self._error: BaseException | None = None

    def run(self, schedule: Schedule) -> list[Record]:
        """Measure what the schedule hands out, and return the new records.

        Every group's records are on disk before the next one starts on that device.

        Raises:
            UserError: what a study was asked for turns out wrong while it is measured.
            WorkerError: a worker was killed whose work the next one can go on with.
            StoreError: the file could not be written; what it holds is safe.
            KeyboardInterrupt: passed on after the workers were killed.
        """
        records: list[Record] = []
        threads = [
            threading.Thread(target=self._serve, args=(executor, schedule, records), daemon=True, name=executor.device)
            for executor in self._executors
        ]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join(None if schedule.end is None else max(0.0, schedule.end - time.monotonic()))
            if any(thread.is_alive() for thread in threads):  # the budget is spent
                self._halt()
                for thread in threads:
                    thread.join()
        except BaseException:
            self._halt()
            for thread in threads:
                thread.join(timeout=10)
            raise
        if self._error is not None:
            raise self._error
        return records

    def _serve(self, executor: Executor, schedule: Schedule, records: list[Record]) -> None:
        try:
            while (task := schedule.next()) is not None:
                if isinstance(task, StudyTask):
                    self._study(task, executor, records)
                    continue
                started = time.monotonic()
                new = self._group(task, executor)
                records += new
                schedule.finished(task, new, time.monotonic() - started)
        except StoppedError:
            return
        except BaseException as error:  # handed to the thread that waits
            self._error = self._error or error
            self._halt()

    def _group(self, group: GroupRound, executor: Executor) -> list[Record]:
        """Measure a group once; its records are kept all together, so that a round is whole or not there."""
        items = _items(group)
        whole = Item(f"{items[0].key}+", _label(group), sum(item.weight for item in items))

        def on_turn(number: int, share: float) -> None:
            with self._lock:
                self._progress.told(whole, f"turn {number}", share, executor.device)

        with self._lock:
            self._progress.started(whole, executor.device)
        seats = [Seat(case, group.round, count=group.round == 0, memory=not group.further) for case in group.cases]
        seed = f"{self._policy.seed} {group.cases[0].point} {group.round}"
        measured = executor.measure_group(seats, seed, group.until, on_turn)
        executor.check_still_wanted(measured)
        with self._lock, deferred():
            kept = [keep(self._writer, record) for record in measured]
            for item, record in zip(items, kept, strict=True):
                self._progress.finished(item, record.status, outcome(record), executor.device)
        return kept

    def _study(self, task: StudyTask, executor: Executor, records: list[Record]) -> None:
        """A group of a study's cases: records are kept as they come, and what has none in the end failed."""
        item, started = _item(task), utc_now()
        kept: list[Record] = []
        words = ""

        def append(record: Record) -> None:
            executor.check_still_wanted([record])
            with self._lock:
                kept.append(keep(self._writer, executor.placed(record)))

        def on_event(event: Event) -> None:
            nonlocal words
            if event.record is not None:
                with contextlib.suppress(StoppedError):  # nobody waits for it any more
                    append(event.record)
                return
            words = event.words
            with self._lock:
                self._progress.told(item, words, event.share, executor.device)

        with self._lock:
            self._progress.started(item, executor.device)
        try:
            ended = executor.run(task.model_copy(update={"policy": self._policy}), on_event=on_event)
        except StoppedError:
            records += kept
            raise
        self._raise(ended)
        there = {record.case_id for record in kept}
        missing = [case for case in task.cases if case.id not in there]
        lost = [unanswered(case, started, ended, len(missing)) for case in missing]
        if lost and task.resumable and ended.signal is not None and lost[0].status == "failed":
            raise WorkerError(f"{task.label}: {ended.reason}")
        for record in lost:
            append(record)
        records += kept
        bad = next((record for record in kept if record.status != "ok"), None)
        with self._lock:
            status: Status = bad.status if bad is not None else "ok"
            self._progress.finished(
                item, status, f"{status}: {bad.reason}" if bad is not None else words, executor.device
            )

    @staticmethod
    def _raise(ended: Outcome) -> None:
        """Raise what ends the whole run, as a worker has said."""
        if ended.end != "answered":
            return
        end = StudyEnd.model_validate_json(ended.answer)
        if end.problem:
            raise StoreError(end.problem) if end.kind == "store" else UserError(end.problem)

    def _halt(self) -> None:
        for executor in self._executors:
            executor.stop()
