"""Adding rounds while the answer is open, without paying for it in false alarms.

Looking at the rounds after each one and stopping at the first alarm multiplies false alarms. So the looks are fixed
in advance and share the probability of an error among them (Bonferroni; Jennison and Turnbull, Group Sequential
Methods, section 2, have sharper divisions).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from vheatbench.errors import UserError
from vheatbench.verdict.rule import MIN_ROUNDS, Gate, gate, signed_rank_interval


@dataclass(frozen=True)
class Looks:
    """After how many rounds the gate is asked, and the error probability of all its two-sided intervals together."""

    rounds: tuple[int, ...] = (10, 15, 20)
    alpha: float = 0.01

    def __post_init__(self) -> None:
        if not self.rounds or any(n < 1 for n in self.rounds) or list(self.rounds) != sorted(set(self.rounds)):
            raise UserError(f"looks after {self.rounds} rounds: give growing numbers of rounds, for example 10,15,20")
        if not 0 < self.alpha < 1:
            raise UserError(f"an error probability must lie between 0 and 1, not {self.alpha}")

    @property
    def confidence(self) -> float:
        """Of the interval at each look."""
        return 1 - self.alpha / len(self.rounds)

    @property
    def blind(self) -> tuple[int, ...]:
        """Looks that cannot decide anything: too few rounds for an interval of this confidence."""
        return tuple(
            n for n in self.rounds if n < MIN_ROUNDS or math.isinf(signed_rank_interval([0.0] * n, self.confidence)[0])
        )


def decide(log_ratios: Sequence[float], looks: Looks, margin: float = 0.05, capped: str | None = None) -> Gate | None:
    """The gate's answer after these rounds, or None: go on.

    Between looks the answer is None whatever the rounds say. At a look, ``regressed``, ``improved`` and ``same``
    end the measurement, ``suspect`` and ``inconclusive`` only at the last. Rounds after the last look are left out.

    Raises:
        ValueError: see :func:`vheatbench.verdict.rule.gate`.
    """
    last = looks.rounds[-1]
    taken = list(log_ratios)[:last]
    if len(taken) not in looks.rounds:
        return None
    found = gate(taken, margin, looks.confidence, capped)
    decided = found.verdict in ("regressed", "improved", "same")
    return found if decided or len(taken) == last else None
