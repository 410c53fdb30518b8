"""What is measured next: every group in its rounds, the studies, and in the time that is left what is known worst."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from vheatbench.case import Case
from vheatbench.run.progress import weight
from vheatbench.run.task import StudyTask
from vheatbench.store.schema import Record

MOST_ROUNDS = 100
"""Rounds that a group has at most in a budget."""
LATE = 1.08
"""Share of the budget after which a round that is not at its end is given up."""
SHORTEST = 0.6
"""Share of the longest round of a group that another one takes at least."""
ENDING = 0.1
"""Share of it that comes after the samples."""
FIRST_SHARE = 0.6
"""Share of the time left that the first rounds of all groups may take, where a budget is short."""

SHARES = {"model": 2.0, "operator": 1.0}
"""How the time of further rounds is divided where a run has both."""

Uncertainty = Callable[[Sequence[Record]], float]
"""How badly the ratios of a group are known from all of its records; the group with the largest value comes next."""


@dataclass(frozen=True)
class GroupRound:
    """A group of cases that are measured together once more: those that the run does not hold yet."""

    cases: tuple[Case, ...]
    round: int
    until: float | None = None
    """Moment of the monotonic clock at which sampling should end."""
    further: bool = False
    """Whether it is one that the time of a budget had room for, which is there for the ratios alone."""


@dataclass
class _Group:
    cases: list[Case]
    records: list[Record] = field(default_factory=list)
    next_round: int = 0
    longest_s: float = 0.0
    spent_s: float = 0.0
    """By all rounds of this run."""
    busy: bool = False

    @property
    def kind(self) -> str:
        """Of its subjects."""
        return self.cases[0].kind

    def before(self) -> float:
        """Seconds of the longest round that the run holds."""
        taken: dict[int, float] = {}
        for record in self.records:
            own = record.elapsed_s - record.spent_s.get("wait", 0.0)
            taken[record.round] = taken.get(record.round, 0.0) + own
        return max(taken.values(), default=0.0)

    @property
    def failed(self) -> bool:
        """Whether fewer than two cases are left that another round says something of."""
        bad = {record.case_id for record in self.records if record.status != "ok"}
        return len(self.cases) - len(bad) < min(2, len(self.cases))


class Schedule:
    """Hands out what is to be measured, to one device or several.

    Without a budget that is every group in every round, odd rounds backwards; then the studies. With one, the first
    rounds, the studies, and then whole rounds of the groups whose ratios are known worst, as long as one more fits
    into the time; models and operators have their shares of it.
    """

    def __init__(
        self,
        groups: Sequence[Sequence[Case]],
        rounds: int,
        studies: Sequence[StudyTask] = (),
        done: Collection[tuple[str, int]] = (),
        records: Sequence[Record] = (),
        seconds: float | None = None,
        uncertainty: Uncertainty = lambda records: 0.0,
    ) -> None:
        """
        Args:
            groups: all timed cases of the run, what is measured together side by side.
            rounds: that each has.
            studies: what is to be done besides.
            done: ids and rounds of cases that the run holds.
            records: those of a run that is resumed.
            seconds: what is left of its budget; None where there is none.
            uncertainty: see :data:`Uncertainty`.
        """
        self._done = frozenset(done)
        self._lock = threading.Lock()
        self._uncertainty = uncertainty
        self._seconds = seconds
        self._begun = time.monotonic()
        self.studies = studies
        self.groups = [_Group(list(cases)) for cases in groups]
        self._of = {case.id: group for group in self.groups for case in group.cases}
        for record in records:
            if record.case_id in self._of:
                self._of[record.case_id].records.append(record)
        for group in self.groups:
            group.longest_s = group.before()
        self._first = self._first_rounds(rounds, studies)
        self._left = sum(sum(map(weight, item.cases)) for item in self._first if isinstance(item, GroupRound))
        self._place = 0

    def _first_rounds(self, rounds: int, studies: Sequence[StudyTask]) -> list[GroupRound | StudyTask]:
        found: list[GroupRound | StudyTask] = []
        for number in range(rounds):
            for group in reversed(self.groups) if number % 2 else self.groups:
                missing = [case for case in group.cases if (case.id, number) not in self._done]
                if missing:
                    found.append(GroupRound(_ordered(missing, number), number))
        for group in self.groups:
            group.next_round = rounds
        for id_, number in self._done:
            if id_ in self._of:
                self._of[id_].next_round = max(self._of[id_].next_round, number + 1)
        for task in studies:
            left = [case for case in task.cases if (case.id, 0) not in self._done]
            if left:
                found.append(task.model_copy(update={"cases": left}))
        return found

    @property
    def first(self) -> Sequence[GroupRound | StudyTask]:
        """What is measured in any case, in its order."""
        return self._first

    @property
    def end(self) -> float | None:
        """Moment of the monotonic clock after which nothing is waited for any more."""
        return self._begun + LATE * self._seconds if self._seconds is not None else None

    def next(self) -> GroupRound | StudyTask | None:
        """The next thing to measure; None when there is nothing more, or no time."""
        with self._lock:
            now = time.monotonic()
            left = self._begun + self._seconds - now if self._seconds is not None else math.inf
            if self._place < len(self._first):
                if left <= 0:
                    return None
                item = self._first[self._place]
                self._place += 1
                return self._in_its_time(item, now, left) if isinstance(item, GroupRound) else item
            if self._seconds is None:
                return None
            fitting = [
                group for group in self.groups
                if not group.busy and not group.failed and 0 < SHORTEST * group.longest_s <= left
                and group.next_round < MOST_ROUNDS and len(group.cases) > 1
            ]  # fmt: skip
            if not fitting:
                return None
            spent = dict.fromkeys(SHARES, 0.0)
            for group in self.groups:
                spent[group.kind] = spent.get(group.kind, 0.0) + group.spent_s
            least = min((group.kind for group in fitting), key=lambda kind: spent[kind] / SHARES.get(kind, 1.0))
            alike = [group for group in fitting if group.kind == least]
            worst = max(alike, key=lambda group: self._uncertainty(group.records))
            worst.busy = True
            worst.next_round += 1
            cases = _ordered(worst.cases, worst.next_round - 1)
            return GroupRound(cases, worst.next_round - 1, now + left - ENDING * worst.longest_s, further=True)

    def finished(self, item: GroupRound, records: Sequence[Record], seconds: float) -> None:
        """Tell what a round has given, and how long it took."""
        with self._lock:
            group = self._of[item.cases[0].id]
            group.records += records
            group.longest_s = max(group.longest_s, seconds)
            group.spent_s += seconds
            group.busy = False

    def _in_its_time(self, item: GroupRound, now: float, left: float) -> GroupRound:
        """With the share of a short budget that a first round may sample."""
        own = sum(map(weight, item.cases))
        share = own / self._left if self._left > 0 else 1.0
        self._left -= own
        return (
            item if math.isinf(left) else GroupRound(item.cases, item.round, now + max(1.0, FIRST_SHARE * left * share))
        )


def _ordered(cases: Sequence[Case], number: int) -> tuple[Case, ...]:
    """Odd rounds run backwards (ABBA), so that a steady drift falls on all alike where they do not take turns."""
    return tuple(cases[::-1] if number % 2 else cases)
