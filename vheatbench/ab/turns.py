"""Measuring two sides in turns on one device, one worker at a time, and saying how it goes."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence

from vheatbench.ab.arm import SIDES, Arm, ArmError, Side
from vheatbench.ab.rounds import Rounds, Turn
from vheatbench.run.executor import Executor, Seat
from vheatbench.run.progress import clock, step_time
from vheatbench.run.recording import keep
from vheatbench.stop import deferred
from vheatbench.store.read import read_run
from vheatbench.store.schema import Record
from vheatbench.store.write import RunWriter
from vheatbench.suites import SuitePolicy


class TurnProgress:
    """A line on stderr for every turn."""

    def __init__(self, rounds: Rounds, quiet: bool = False) -> None:
        self._rounds = rounds
        self._quiet = quiet
        self._start = time.monotonic()
        self._taken = 0

    def taken(self, turn: Turn, records: Mapping[Side, Record], due: int) -> None:
        """Both sides of a turn are on disk. ``due``: turns of this round that are left."""
        self._taken += 1
        if self._quiet:
            return
        label = turn.pair.base.label
        if turn.pair.head != turn.pair.base:
            label += f" -> {turn.pair.head.subject}"
        sides = ", ".join(f"{side} {_outcome(record)}" for side, record in records.items())
        print(f"[{self._place(turn)} {self._times(turn, due)}] {label}: {sides}", file=sys.stderr, flush=True)

    def _place(self, turn: Turn) -> str:
        last = self._rounds.looks[-1]
        if turn.round >= last:
            return f"confirmation {turn.round - last + 1}/{self._rounds.confirmation}"
        look = next(look for look in self._rounds.looks if turn.round < look)
        return f"round {turn.round + 1}/{look}"

    def _times(self, turn: Turn, due: int) -> str:
        """Elapsed, and what is left until the first look; what comes after that, the rounds decide."""
        elapsed = time.monotonic() - self._start
        first = self._rounds.looks[0]
        if turn.round >= first:
            return clock(elapsed)
        left = due + (first - 1 - turn.round) * len(self._rounds.pairs)
        return f"{clock(elapsed)}, about {clock(elapsed / self._taken * left)} left"


def take_turns(
    arms: Mapping[Side, Arm],
    writers: Mapping[Side, RunWriter],
    rounds: Rounds,
    policy: SuitePolicy,
    device: str,
    progress: TurnProgress,
) -> None:
    """Measure all that is due, also what an interruption left out. Every record is on disk before the next one.

    Raises:
        ArmError: nothing can be measured on a side.
        StoreError: a run could not be written; what it holds is safe.
        KeyboardInterrupt: passed on after the worker was killed.
    """
    records = {side: list(read_run(writers[side].path).records) for side in SIDES}
    live = all(arms[side].takes_turns for side in SIDES)
    executor = Executor(policy, device, fresh=True, turns=live)
    try:
        while turns := rounds.due(records["base"], records["head"]):
            for place, turn in enumerate(turns):
                new = _measure(turn, arms, writers, records, executor, rounds.seed)
                for side, record in new.items():
                    records[side].append(record)
                progress.taken(turn, new, len(turns) - 1 - place)
            _check_measurable(arms, records)
    except BaseException:
        executor.stop()
        raise


def _measure(
    turn: Turn,
    arms: Mapping[Side, Arm],
    writers: Mapping[Side, RunWriter],
    records: Mapping[Side, Sequence[Record]],
    executor: Executor,
    seed: int,
) -> dict[Side, Record]:
    """What is missing of a turn, both sides together; on disk when this returns."""
    cases = {"base": turn.pair.base, "head": turn.pair.head}
    sides = [side for side in turn.sides if (cases[side].id, turn.round) not in writers[side].done]
    seats = [
        Seat(
            cases[side],
            turn.round,
            arms[side].launch,
            count=not any(record.case_id == cases[side].id for record in records[side]),
        )
        for side in sides
    ]
    measured = executor.measure_group(seats, f"{seed} {turn.pair.base.id} {turn.round}")
    with deferred():
        return {side: keep(writers[side], record) for side, record in zip(sides, measured, strict=True)}


def _check_measurable(arms: Mapping[Side, Arm], records: Mapping[Side, Sequence[Record]]) -> None:
    """Raises ArmError for a side of which nothing could be measured, for other reasons than memory."""
    for side in ("head", "base"):
        found = records[side]  # type: ignore[index]
        if found and not {record.status for record in found} & {"ok", "oom"}:
            raise ArmError(f"{side} ({arms[side].name}): no case could be measured: {found[0].reason}")  # type: ignore[index]


def _outcome(record: Record) -> str:
    if record.status != "ok":
        return f"{record.status} ({record.reason})"
    return step_time(record)
