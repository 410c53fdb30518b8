"""Which measurements are due: rounds in turns, more while the answer is open, fresh ones where it is bad.

A round measures a case once on each side, each in a fresh process, one right after the other. What is due follows from
what has been measured alone, so a comparison that was interrupted goes on where it was.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from vheatbench.ab.arm import Side
from vheatbench.case import Case
from vheatbench.store.schema import Record

Answer = Literal["open", "settled", "flagged"]
"""What a look at a case's rounds gives: undecided; decided; decided against the head, to be confirmed."""

Judge = Callable[[Sequence[tuple[Record, Record]]], Answer]
"""Told the pairs of records of a case, round by round, as many as a look takes."""


class Pair(NamedTuple):
    """What is compared: a case on each side. The same one, unless two models are compared."""

    base: Case
    head: Case


class Turn(NamedTuple):
    """A pair to be measured once more."""

    pair: Pair
    round: int
    sides: tuple[Side, Side]
    """In this order."""


@dataclass(frozen=True)
class Rounds:
    """The plan of a comparison."""

    pairs: Sequence[Pair]
    looks: Sequence[int]
    """After how many rounds a case is judged; growing."""
    confirmation: int
    """Fresh rounds that a flagged case gets; numbered from the last look on."""
    seed: int
    judge: Judge

    def due(self, base: Sequence[Record], head: Sequence[Record]) -> list[Turn]:
        """The next round of every case that needs one, in the order to be measured in; empty at the end.

        A case that failed once on either side is not measured again: its failure is the result.
        """
        records = {"base": _by_round(base), "head": _by_round(head)}
        turns = []
        for pair in self.pairs:
            one, other = records["base"].get(pair.base.id, {}), records["head"].get(pair.head.id, {})
            if any(record.status != "ok" for record in (*one.values(), *other.values())):
                # the other side's half of that round still tells whether the failure is the head's own
                wanted: Iterator[int] = iter(one.keys() | other.keys())
            else:
                wanted = self._wanted({n: (one[n], other[n]) for n in sorted(one.keys() & other.keys())})
            pending = [n for n in wanted if n not in one or n not in other]
            if pending:
                turns.append(Turn(pair, min(pending), self.order(pair, min(pending))))
        if turns:
            random.Random(f"{self.seed} {min(turn.round for turn in turns)}").shuffle(turns)
        return turns

    def order(self, pair: Pair, round_: int) -> tuple[Side, Side]:
        """Who goes first: drawn for each pair of rounds (ABBA or BAAB), so that neither side profits from drift."""
        first = random.Random(f"{self.seed} {pair.base.id} {round_ // 2}").random() < 0.5
        return ("base", "head") if first != bool(round_ % 2) else ("head", "base")

    def _wanted(self, measured: dict[int, tuple[Record, Record]]) -> Iterator[int]:
        """Numbers of the rounds of a case that can be said to be needed by now."""
        last = self.looks[-1]
        for look in self.looks:
            yield from range(look)
            if any(n not in measured for n in range(look)):
                return
            answer = self.judge([measured[n] for n in range(look)])
            if answer == "flagged":
                yield from range(last, last + self.confirmation)
            if answer != "open":
                return


def _by_round(records: Sequence[Record]) -> dict[str, dict[int, Record]]:
    found: dict[str, dict[int, Record]] = {}
    for record in records:
        found.setdefault(record.case_id, {})[record.round] = record
    return found
