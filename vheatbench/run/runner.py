"""Carrying a run out: one worker process per case or group of a study's cases, records on disk as they come."""

from __future__ import annotations

import os
import queue
import signal
import threading
from collections.abc import Callable, Sequence
from typing import Any

from pydantic import ValidationError

from vheatbench.case import Case
from vheatbench.errors import StoreError, UserError, WorkerError, says_out_of_memory
from vheatbench.run.process import Launch, Outcome, Worker
from vheatbench.run.progress import Item, Progress, outcome
from vheatbench.run.task import (
    Event,
    Inspection,
    InspectTask,
    Interim,
    MeasureTask,
    Planned,
    PlanTask,
    StudyEnd,
    StudyTask,
)
from vheatbench.store.schema import Record, Status
from vheatbench.store.write import RunWriter
from vheatbench.suites import SuitePolicy
from vheatbench.text import utc_now

INSPECTION_TIMEOUT_S = 600.0
MEMORY_SIGNALS = (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT)
"""What a process dies of that takes no notice of a failed allocation, or of which a library takes too much."""
NEAR_LIMIT = 0.75
"""Share of its limit that a process which ran out of memory has resident: stacks and arenas count, but hold less."""


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


def items_of(
    schedule: Sequence[tuple[Case, int]], studies: Sequence[StudyTask], done: set[tuple[str, int]]
) -> tuple[list[Item], set[str]]:
    """What :meth:`Runner.run` tells of, in its order, and the keys of those items that a resumed run holds."""
    items = [Item.of(case, round_) for case, round_ in schedule] + [_item(task) for task in studies]
    keys = {Item.of(case, round_).key for case, round_ in schedule if (case.id, round_) in done}
    return items, keys | {_item(task).key for task in studies if done.issuperset((case.id, 0) for case in task.cases)}


def _item(task: StudyTask) -> Item:
    # a pass over a model gives all of its layers, so that more cases take little more time
    return Item(f"{task.study}/{task.cases[-1].id}", task.label, 2.0 * len(task.cases) ** 0.5)


class Runner:
    """Measures cases on one or more devices side by side, one worker per device, never two."""

    def __init__(
        self,
        writer: RunWriter,
        policy: SuitePolicy,
        devices: Sequence[str],
        progress: Progress,
        launch: Launch | None = None,
    ) -> None:
        """``devices``: ``cpu``, or ``cuda:0``, ``cuda:1``, ...; ``launch``: whose code the workers run."""
        self._writer = writer
        self._policy = policy
        self._devices = list(devices)
        self._progress = progress
        self._launch = launch
        self._queue: queue.SimpleQueue[MeasureTask | StudyTask] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._workers: list[Worker] = []
        self._error: BaseException | None = None

    def run(self, schedule: Sequence[tuple[Case, int]], studies: Sequence[StudyTask] = ()) -> list[Record]:
        """Measure what the run file does not hold yet, and return the new records.

        Every record is on disk before the next case starts on that device.

        Raises:
            UserError: what a study was asked for turns out wrong while it is measured.
            WorkerError: a worker was killed whose work the next one can go on with.
            StoreError: the file could not be written; what it holds is safe.
            KeyboardInterrupt: passed on after the workers were killed.
        """
        for case, round_ in schedule:
            if (case.id, round_) not in self._writer.done:
                self._queue.put(MeasureTask(case=case, round=round_, policy=self._policy))
        for task in studies:
            missing = [case for case in task.cases if (case.id, 0) not in self._writer.done]
            if missing:
                self._queue.put(task.model_copy(update={"cases": missing, "policy": self._policy}))
        records: list[Record] = []
        threads = [
            threading.Thread(target=self._serve, args=(device, records), daemon=True, name=device)
            for device in self._devices
        ]
        for thread in threads:
            thread.start()
        try:
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

    def _serve(self, device: str, records: list[Record]) -> None:
        try:
            while not self._stop.is_set():
                try:
                    task = self._queue.get_nowait()
                except queue.Empty:
                    return
                (self._study if isinstance(task, StudyTask) else self._case)(task, device, records)  # type: ignore[arg-type]
        except BaseException as error:  # handed to the thread that waits
            self._error = self._error or error
            self._halt()

    def _case(self, task: MeasureTask, device: str, records: list[Record]) -> None:
        item = Item.of(task.case, task.round)
        with self._lock:
            self._progress.started(item, device)
        record = self._measure(task.case, task.round, device)
        if record is None:
            return
        with self._lock:
            record = self._keep(record)
            records.append(record)
            self._progress.finished(item, record.status, outcome(record), device)

    def _study(self, task: StudyTask, device: str, records: list[Record]) -> None:
        """A group of a study's cases: records are kept as they come, and what has none in the end failed."""
        item, started = _item(task), utc_now()
        kept: list[Record] = []
        words = ""

        def keep(record: Record) -> None:
            with self._lock:
                kept.append(self._keep(self._placed(record, device)))

        def on_event(event: Event) -> None:
            nonlocal words
            if event.record is not None:
                keep(event.record)
                return
            words = event.words
            with self._lock:
                self._progress.told(item, words, event.share, device)

        with self._lock:
            self._progress.started(item, device)
        ended = self._run_worker(task, device, 0.0, on_event)
        if ended is None:
            records += kept
            return
        self._raise(ended)
        there = {record.case_id for record in kept}
        missing = [case for case in task.cases if case.id not in there]
        lost = [_unanswered(case, started, ended, len(missing)) for case in missing]
        if lost and task.resumable and ended.signal is not None and lost[0].status == "failed":
            raise WorkerError(f"{task.label}: {ended.reason}")
        for record in lost:
            keep(record)
        records += kept
        bad = next((record for record in kept if record.status != "ok"), None)
        with self._lock:
            status: Status = bad.status if bad is not None else "ok"
            self._progress.finished(item, status, f"{status}: {bad.reason}" if bad is not None else words, device)

    @staticmethod
    def _raise(ended: Outcome) -> None:
        """Raise what ends the whole run, as a worker has said."""
        if ended.end != "answered":
            return
        end = StudyEnd.model_validate_json(ended.answer)
        if end.problem:
            raise StoreError(end.problem) if end.kind == "store" else UserError(end.problem)

    def _keep(self, record: Record) -> Record:
        try:
            self._writer.append(record)
        except ValueError as error:  # NaN, say: a result that cannot be stored is a failed case
            record = _failure(record.case, record.round, record.started, "failed", str(error), record.elapsed_s)
            self._writer.append(record)
        return record

    def _halt(self) -> None:
        self._stop.set()
        with self._lock:
            for worker in self._workers:
                worker.stop()

    def _measure(self, case: Case, round_: int, device: str) -> Record | None:
        started = utc_now()
        policy, elapsed = self._policy, 0.0
        warnings: list[str] = []
        while True:
            ended = self._run_worker(MeasureTask(case=case, round=round_, policy=policy), device, elapsed)
            if ended is None:
                return None
            record = _record(case, round_, started, ended)
            elapsed += record.elapsed_s
            batch = too_large(record, ended)
            if batch is None or elapsed >= self._policy.timeout_s:
                break
            end = "fitted when tried, but not when measured" if ended.answer else "ended the worker process"
            warnings.append(f"a batch of {batch} {end}: {record.reason}")
            policy = policy.model_copy(update={"max_batch": batch - max(1, batch // 8)})
        record.warnings = warnings + record.warnings
        record.elapsed_s = elapsed
        return self._placed(record, device)

    def _placed(self, record: Record, device: str) -> Record:
        """The record with the GPU that it was measured on."""
        if device.startswith("cuda"):
            record.conditions["device_index"] = device.split(":")[1]
            record.conditions["devices_side_by_side"] = len(self._devices)
        return record

    def _run_worker(
        self,
        task: MeasureTask | StudyTask,
        device: str,
        elapsed: float,
        on_event: Callable[[Event], None] = lambda event: None,
    ) -> Outcome | None:
        """A fresh process for a task that has taken ``elapsed`` seconds of its time; None if stopped."""
        worker = Worker(worker_environment(device, self._policy), self._launch)
        with self._lock:
            if self._stop.is_set():
                return None
            self._workers.append(worker)
        outcome = worker.run(task, self._policy.timeout_s - elapsed, on_event)
        with self._lock:
            self._workers.remove(worker)
        return None if outcome.end == "stopped" or self._stop.is_set() else outcome


def worker_environment(device: str, policy: SuitePolicy) -> dict[str, str]:
    """Environment variables that confine a worker to its device and thread count."""
    variables = {}
    if device.startswith("cuda:"):
        index = int(device.split(":")[1])
        visible = [entry for entry in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if entry.strip()]
        variables["CUDA_VISIBLE_DEVICES"] = visible[index].strip() if visible else str(index)
        # torch's order by default is fastest first, NVML's by bus: make them one
        variables.setdefault("CUDA_DEVICE_ORDER", os.environ.get("CUDA_DEVICE_ORDER", "PCI_BUS_ID"))
    if policy.threads is not None:
        variables["OMP_NUM_THREADS"] = variables["MKL_NUM_THREADS"] = str(policy.threads)
    return variables


def _record(case: Case, round_: int, started: str, outcome: Outcome) -> Record:
    if outcome.end == "answered":
        try:
            record = Record.model_validate_json(outcome.answer)
        except ValidationError as error:
            first = error.errors()[0]
            reason = f"the worker answered with no valid record: {'.'.join(map(str, first['loc']))}: {first['msg']}"
            return _failure(case, round_, started, "failed", reason, outcome.elapsed_s)
        record.elapsed_s = outcome.elapsed_s
        return record
    interim = _interim(outcome)
    if interim.record is not None:
        record = interim.record
        record.warnings.append(f"measured, but without what comes after the timing: {outcome.reason}")
        record.elapsed_s = outcome.elapsed_s
        return record
    return _lost(case, round_, started, outcome, interim)


def _lost(case: Case, round_: int, started: str, outcome: Outcome, interim: Interim) -> Record:
    """The record of a case whose worker ended without one."""
    if outcome.end == "timeout":
        return _failure(case, round_, started, "timeout", outcome.reason, outcome.elapsed_s)
    reason = f"out of memory: {outcome.reason}" if _died_of_memory(outcome, interim) else outcome.reason
    status: Status = "oom" if outcome.end == "killed" or reason != outcome.reason else "failed"
    return _failure(case, round_, started, status, reason, outcome.elapsed_s)


def _unanswered(case: Case, started: str, outcome: Outcome, of: int) -> Record:
    """The record of one of ``of`` cases of a group of which the worker has sent none."""
    if outcome.end == "answered":
        return _failure(case, 0, started, "failed", "the worker sent no record of it", outcome.elapsed_s / of)
    record = _lost(case, 0, started, outcome, _interim(outcome))
    record.elapsed_s /= of
    return record


def _interim(outcome: Outcome) -> Interim:
    """What a worker left; nothing if it wrote nothing, or was in the middle of it."""
    try:
        return Interim.model_validate_json(outcome.left)
    except ValidationError:
        return Interim()


def _died_of_memory(outcome: Outcome, interim: Interim) -> bool:
    """Whether a crash was one of memory: its last words say so, or it died of a signal near the limit that it had."""
    if outcome.end != "crashed":
        return False
    if says_out_of_memory(outcome.last_words):
        return True
    limit, peak = interim.memory_limit_bytes, outcome.peak_rss_bytes
    near = limit is not None and peak is not None and peak > NEAR_LIMIT * limit
    return near and outcome.signal in MEMORY_SIGNALS


def too_large(record: Record, outcome: Outcome) -> int | None:
    """The batch that memory ended a search for the largest at, or the measurement after it, if it is more than one."""
    if record.case.batch != "largest" or record.status not in ("oom", "failed"):
        return None
    if outcome.end == "answered":
        found = record.metrics.get("largest_batch")
        batch = int(found.value) if record.status == "oom" and found is not None and found.value else None
    else:
        # a process that dies of such a signal in a search whose smaller batches worked has reached its end there
        batch = _interim(outcome).batch if record.status == "oom" or outcome.signal in MEMORY_SIGNALS else None
    return batch if batch is not None and batch > 1 else None


def _failure(case: Case, round_: int, started: str, status: Status, reason: str, elapsed_s: float) -> Record:
    return Record(
        case=case, case_id=case.id, round=round_, status=status, reason=reason, started=started, elapsed_s=elapsed_s
    )
