"""Carrying tasks out on one device: a worker process for a case, or several that take turns for a group of cases."""

from __future__ import annotations

import os
import secrets
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from pydantic import ValidationError

from vheatbench.case import Case
from vheatbench.errors import WorkerError, says_out_of_memory
from vheatbench.run.process import Launch, Outcome, Worker
from vheatbench.run.recording import failure
from vheatbench.run.task import Event, Interim, MeasureTask, StudyTask
from vheatbench.run.turns import LiveWorker, take_turns
from vheatbench.run.whereabouts import gpu_uuid, in_slurm_job
from vheatbench.store.schema import Record, Status
from vheatbench.suites import SuitePolicy
from vheatbench.text import utc_now

MEMORY_SIGNALS = (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT)
"""What a process dies of that takes no notice of a failed allocation, or of which a library takes too much."""
NEAR_LIMIT = 0.75
"""Share of its limit that a process which ran out of memory has resident: stacks and arenas count, but hold less."""
SAME_SIGNAL_S = 0.5
"""Seconds in which a signal has reached all processes of a job."""


class StoppedError(Exception):
    """Carrying out was stopped: there is no result."""


@dataclass(frozen=True)
class Seat:
    """A case that is to be measured once more, and by whose code."""

    case: Case
    round: int
    launch: Launch | None = None
    """The runner's own if None."""
    count: bool = True
    """Whether to count multiply-adds too, and what else is the same in every round."""
    memory: bool = True
    """Whether to measure the memory too."""


@dataclass
class Executor:
    """Measures on one device. :meth:`stop` may be called from another thread."""

    policy: SuitePolicy
    device: str
    """``cpu``, or ``cuda:0``, ``cuda:1``, ..."""
    side_by_side: int = 1
    """Devices that are measured on at the same time."""
    fresh: bool = False
    """Whether timed cases always have a process that is started anew."""
    turns: bool = True
    """Whether cases may take turns, where the policy wants it."""
    folder: Path | None = None
    """Where the cases of the run keep their exported models."""
    _alone: dict[str, str] = field(default_factory=dict)
    """Ids of cases that do not fit beside the others of their group, and why."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stopped: bool = False
    _workers: list[Worker] = field(default_factory=list)

    def stop(self) -> None:
        """Kill what works, now and from now on."""
        with self._lock:
            self._stopped = True
            for worker in self._workers:
                worker.stop()

    def check_still_wanted(self, records: Sequence[Record]) -> None:
        """Raise StoppedError where cases failed because the job that this process belongs to is being ended.

        The signal goes to all of its processes, and what a worker has started (to load images, say) may die of it
        before this one knows.
        """
        if in_slurm_job() and any(record.status == "failed" for record in records):
            time.sleep(SAME_SIGNAL_S)
            if self._stopped:
                raise StoppedError

    def measure_group(
        self,
        seats: Sequence[Seat],
        seed: str,
        until: float | None = None,
        on_turn: Callable[[int, float], None] = lambda number, share: None,
    ) -> list[Record]:
        """Measure cases together, in turns where they fit side by side; their records, in the order of ``seats``.

        What does not fit beside the others, or is the only one, is measured alone.

        Args:
            seats: one of each case.
            seed: of the order.
            until: moment of the monotonic clock at which sampling should end.
            on_turn: told, after all have had a turn, how many they have had, and that as a share of what there may be.

        Raises:
            StoppedError: there are no records of any of them.
            WorkerError: nor are there: a worker was told from outside to end.
        """
        together = [seat for seat in seats if self._may_take_turns(seat.case)]
        records: dict[int, Record] = {}
        if len(together) > 1:
            records = self._in_turns(together, seed, until, on_turn)
        for seat in seats:
            if id(seat) not in records:
                record = self.measure(seat)
                why = self._alone.get(seat.case.id)
                if why is not None:
                    record.warnings.append(f"measured alone, not in turns with its group: {why}")
                records[id(seat)] = record
        return [records[id(seat)] for seat in seats]

    def _folder(self, case: Case) -> Path | None:
        return self.folder.resolve() if self.folder is not None and case.exported else None

    def _may_take_turns(self, case: Case) -> bool:
        return (
            self.turns
            and self.policy.turns
            and case.batch != "largest"
            and case.kind != "ceiling"
            and case.id not in self._alone
        )

    def _in_turns(
        self, seats: Sequence[Seat], seed: str, until: float | None, on_turn: Callable[[int, float], None]
    ) -> dict[int, Record]:
        """Records by the id of their seat, without those whose cases have to be measured alone."""
        started = utc_now()
        workers = [
            LiveWorker(
                self._worker(seat.launch),
                MeasureTask(
                    case=seat.case,
                    round=seat.round,
                    policy=self.policy,
                    count=seat.count,
                    memory=seat.memory,
                    folder=self._folder(seat.case),
                    others=len(seats) - 1,
                ),
                self.policy.timeout_s,
            )
            for seat in seats
        ]
        try:
            crowded = take_turns(workers, self.policy, seed, until, on_turn)
        finally:
            for live in workers:
                live.stop()
                self._remove(live.worker)
        if self._stopped:
            raise StoppedError
        session, lost = secrets.token_hex(6), []
        records = {}
        for seat, live in zip(seats, workers, strict=True):
            if live in crowded:
                self._alone[seat.case.id] = crowded[live]
                continue
            assert live.outcome is not None
            record = _record(seat.case, seat.round, started, live.outcome)
            if record.status == "oom":  # perhaps not if it is alone
                self._alone[seat.case.id] = record.reason or ""
                continue
            record.session = session
            records[id(seat)] = self.placed(record)
            if record.status != "ok" and live.turns:
                record.reason = f"{record.reason} (in turn {live.turns + 1})"
                lost.append(f"from turn {live.turns + 1} on without {seat.case.subject}, which ended")
        for record in records.values():
            record.warnings += lost if record.status == "ok" else []
        return records

    def measure(self, seat: Seat) -> Record:
        """Measure a case alone. Raises StoppedError, and WorkerError for a worker that was told from outside to end."""
        case, started = seat.case, utc_now()
        policy, elapsed = self.policy, 0.0
        warnings: list[str] = []
        while True:
            task = MeasureTask(
                case=case,
                round=seat.round,
                policy=policy,
                count=seat.count,
                memory=seat.memory,
                folder=self._folder(case),
            )
            ended = self.run(task, elapsed, seat.launch)
            record = _record(case, seat.round, started, ended)
            elapsed += record.elapsed_s
            batch = too_large(record, ended)
            if batch is None or elapsed >= self.policy.timeout_s:
                break
            end = "fitted when tried, but not when measured" if ended.answer else "ended the worker process"
            warnings.append(f"a batch of {batch} {end}: {record.reason}")
            policy = policy.model_copy(update={"max_batch": batch - max(1, batch // 8)})
        record.warnings = warnings + record.warnings
        record.elapsed_s = elapsed
        return self.placed(record)

    def run(
        self,
        task: MeasureTask | StudyTask,
        elapsed: float = 0.0,
        launch: Launch | None = None,
        on_event: Callable[[Event], None] = lambda event: None,
    ) -> Outcome:
        """A worker process for a task that has taken ``elapsed`` seconds of its time. Raises StoppedError."""
        worker = self._worker(launch)
        ended = worker.run(task, self.policy.timeout_s - elapsed, on_event)
        self._remove(worker)
        if ended.end == "stopped" or self._stopped:
            raise StoppedError
        return ended

    def placed(self, record: Record) -> Record:
        """The record with the GPU that it was measured on."""
        if self.device.startswith("cuda"):
            record.conditions["device_index"] = self.device.split(":")[1]
            record.conditions["devices_side_by_side"] = self.side_by_side
            if self._uuid is not None:
                record.conditions["gpu_uuid"] = self._uuid
        return record

    @cached_property
    def _uuid(self) -> str | None:
        variables = worker_environment(self.device, self.policy)
        by_bus = variables["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
        return gpu_uuid(variables["CUDA_VISIBLE_DEVICES"], by_bus)

    def _worker(self, launch: Launch | None) -> Worker:
        worker = Worker(worker_environment(self.device, self.policy), launch, self.fresh)
        with self._lock:
            if self._stopped:
                raise StoppedError
            self._workers.append(worker)
        return worker

    def _remove(self, worker: Worker) -> None:
        with self._lock:
            self._workers.remove(worker)


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
    """The record of a case whose worker has ended. Raises WorkerError, see :func:`_check_own_end`."""
    _check_own_end(case.label, outcome)
    if outcome.end == "answered":
        try:
            record = Record.model_validate_json(outcome.answer)
        except ValidationError as error:
            first = error.errors()[0]
            reason = f"the worker answered with no valid record: {'.'.join(map(str, first['loc']))}: {first['msg']}"
            return failure(case, round_, started, "failed", reason, outcome.elapsed_s)
        record.spent_s["start"] = max(0.0, outcome.elapsed_s - sum(record.spent_s.values()))
        record.elapsed_s = outcome.elapsed_s
        return record
    interim = _interim(outcome)
    if interim.record is not None:
        record = interim.record
        record.warnings.append(f"measured, but without what comes after the timing: {outcome.reason}")
        record.elapsed_s = outcome.elapsed_s
        return record
    return _lost(case, round_, started, outcome, interim)


def _check_own_end(label: str, outcome: Outcome) -> None:
    """Raise WorkerError for a worker that was told from outside to end: that says nothing of what it measured."""
    if outcome.end == "ended":
        raise WorkerError(f"{label}: {outcome.reason}: it does not count as measured")


def _lost(case: Case, round_: int, started: str, outcome: Outcome, interim: Interim) -> Record:
    """The record of a case whose worker ended without one."""
    if outcome.end == "timeout":
        return failure(case, round_, started, "timeout", outcome.reason, outcome.elapsed_s)
    reason = f"out of memory: {outcome.reason}" if _died_of_memory(outcome, interim) else outcome.reason
    status: Status = "oom" if outcome.end == "killed" or reason != outcome.reason else "failed"
    return failure(case, round_, started, status, reason, outcome.elapsed_s)


def unanswered(case: Case, started: str, outcome: Outcome, of: int) -> Record:
    """The record of one of ``of`` cases of a group of which the worker has sent none.

    Raises WorkerError, see :func:`_check_own_end`.
    """
    _check_own_end(case.label, outcome)
    if outcome.end == "answered":
        return failure(case, 0, started, "failed", "the worker sent no record of it", outcome.elapsed_s / of)
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
