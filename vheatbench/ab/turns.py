"""Measuring two sides in turns on one device, one worker at a time, and saying how it goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vheatbench.ab.arm import SIDES, Arm, ArmError, Side
from vheatbench.ab.rounds import Rounds, Turn
from vheatbench.run.executor import Executor, Seat
from vheatbench.run.exports import exports_folder
from vheatbench.run.progress import Display, step_time
from vheatbench.run.recording import keep
from vheatbench.stop import deferred
from vheatbench.store.read import read_run
from vheatbench.store.schema import Record
from vheatbench.store.write import RunWriter
from vheatbench.suites import SuitePolicy


class TurnProgress:
    """How far the rounds are, told to a display."""

    def __init__(self, rounds: Rounds, display: Display) -> None:
        self._rounds, self._display = rounds, display

    def started(self, turn: Turn, due: int) -> None:
        """A turn begins. ``due``: turns of this round that are left, with this one."""
        last, looks = self._rounds.looks[-1], self._rounds.looks
        if turn.round >= last:
            count = f"confirmation {turn.round - last + 1}/{self._rounds.confirmation}"
        else:
            count = f"round {turn.round + 1}/{next(look for look in looks if turn.round < look)}"
        # all until the first look; what comes after that, the rounds decide
        left = max(0.0, looks[0] - 1 - turn.round + due / len(self._rounds.pairs)) if turn.round < looks[0] else 0.0
        self._display.update(1 - left / looks[0], count, _label(turn))

    def taken(self, turn: Turn, records: Mapping[Side, Record], due: int) -> None:
        """Both sides of a turn are on disk. ``due``: turns of this round that are left."""
        self.started(turn, due)
        bad = next((record.status for record in records.values() if record.status != "ok"), "ok")
        self._display.line(_label(turn), ", ".join(f"{side} {_outcome(one)}" for side, one in records.items()), bad)


def _label(turn: Turn) -> str:
    base, head = turn.pair
    return base.label + (f" -> {head.subject}" if head != base else "")


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
    # models are named by their content and code, so that both sides may share a folder
    executor = Executor(policy, device, fresh=True, turns=live, folder=exports_folder(writers["head"].path))
    try:
        while turns := rounds.due(records["base"], records["head"]):
            for place, turn in enumerate(turns):
                progress.started(turn, len(turns) - place)
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
