"""Is the head worse than the base? The rule, on log ratios of rounds. Numpy only, pure functions.

The unit of evidence is a round, one fresh process's burst of samples: samples of one process are not independent, and
tests that pool them find "regressions" in identical code. Paired rounds are compared by the Hodges-Lehmann estimate
and the exact signed-rank interval of their log ratios (Hollander, Wolfe and Chicken, Nonparametric Statistical
Methods, sections 3.2 and 3.3), unpaired ones by the shift between two samples (section 4.2 and 4.3 there).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from vheatbench.analysis.signed_rank import (
    Floats,
    hodges_lehmann,
    order_interval,
    signed_rank_counts,
    signed_rank_interval,
    walsh_averages,
)
from vheatbench.errors import UserError

Verdict = Literal["improved", "same", "suspect", "regressed", "inconclusive", "incomparable"]

MIN_ROUNDS = 8
"""Rounds per side below which nothing is decided: the fewest whose signed-rank interval can reach 99 %."""
ROUNDING = 1e-12
"""Log ratios nearer to each other than this are equal: what is beyond a margin must not hang on the last bit."""


@dataclass(frozen=True)
class Gate:
    """What the rounds of one case say. Ratios are logarithms of head over base, turned so that positive is worse."""

    verdict: Verdict
    estimate: float
    low: float
    high: float
    """Ends of the interval; infinite where there are too few rounds for one."""
    rounds: int
    """Pairs of rounds; of unpaired sides, rounds of the smaller."""
    confidence: float
    """Asked of the interval; an exact one covers at least as much."""
    margin: float
    """Relative worsening that is tolerated: 0.05 is 5 %."""
    detectable: float
    """The smallest worsening, as a log ratio, that rounds this noisy could have shown to be beyond the margin."""
    p: float
    """One-sided probability of such rounds if the head were worse by the margin and no more."""
    capped: str | None = None
    """Why ``regressed`` and ``improved`` were out of reach, or None."""

    @property
    def clear(self) -> bool:
        """Whether a worsening beyond the margin is ruled out, whatever else is open."""
        return self.high <= math.log1p(self.margin) + ROUNDING


def gate(
    log_ratios: Sequence[float], margin: float = 0.05, confidence: float = 0.99, capped: str | None = None
) -> Gate:
    """The verdict on paired rounds.

    ``regressed``: the whole interval is beyond the margin. ``improved``: beyond the margin on the other side.
    ``same``: the interval lies within the margin on both sides. ``suspect``: worse, but perhaps by less than the
    margin. ``inconclusive``: all else, and always with fewer than ``MIN_ROUNDS`` rounds.

    Args:
        log_ratios: per round log(head / base), positive = worse.
        margin: relative worsening that is tolerated.
        confidence: of the two-sided interval.
        capped: why these rounds cannot fail or pass anybody, for example that all base rounds came first:
            ``regressed`` becomes ``suspect`` and ``improved`` becomes ``inconclusive``.

    Raises:
        ValueError: a ratio is not finite, a margin is negative, or a confidence is not between 0 and 1.
    """
    d = _finite(log_ratios)
    _check(margin, confidence)
    estimate = hodges_lehmann(d) if len(d) else 0.0
    low, high = signed_rank_interval(d, confidence)
    p = _tail_of_sums(d - math.log1p(margin)) if len(d) else 1.0
    return _gate(estimate, low, high, len(d), margin, confidence, p, capped)


def gate_unpaired(
    base: Sequence[float], head: Sequence[float], margin: float, confidence: float, capped: str | None
) -> Gate:
    """As :func:`gate`, for logarithms of rounds that do not belong together in pairs; positive ``head`` is worse.

    Exact only if both sides were measured under the same conditions, which rounds of two sessions were not.
    """
    x, y = _finite(base), _finite(head)
    _check(margin, confidence)
    shifts = np.sort((y[:, None] - x[None, :]).ravel())
    estimate = float(np.median(shifts)) if len(shifts) else 0.0
    low, high = order_interval(shifts, _rank_sum_counts(len(x), len(y)), confidence)
    counts = _rank_sum_counts(len(x), len(y))
    beyond = int((shifts > math.log1p(margin) + ROUNDING).sum())
    p = float(sum(counts[beyond:]) / sum(counts))
    return _gate(estimate, low, high, min(len(x), len(y)), margin, confidence, p, capped)


def holm(p_values: Sequence[float]) -> list[float]:
    """Probabilities adjusted for how many there are (Holm 1979): of any order, in the order given, at most 1."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [1.0] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def _gate(
    estimate: float,
    low: float,
    high: float,
    rounds: int,
    margin: float,
    confidence: float,
    p: float,
    capped: str | None,
) -> Gate:
    limit = math.log1p(margin)
    verdict: Verdict = "inconclusive"
    if rounds >= MIN_ROUNDS and math.isfinite(low):
        if low > limit + ROUNDING:
            verdict = "suspect" if capped else "regressed"
        elif high < -limit - ROUNDING:
            verdict = "inconclusive" if capped else "improved"
        elif low >= -limit - ROUNDING and high <= limit + ROUNDING:
            verdict = "same"
        elif low > ROUNDING:
            verdict = "suspect"
    else:
        low, high = -math.inf, math.inf
    return Gate(verdict, estimate, low, high, rounds, confidence, margin, limit + estimate - low, p, capped)


def _finite(values: Sequence[float] | Floats) -> Floats:
    found = np.asarray(values, dtype=float).ravel()
    if not np.isfinite(found).all():
        raise ValueError("a log ratio is not finite: leave out rounds whose value is zero, negative or no number")
    return found


def _check(margin: float, confidence: float) -> None:
    if not (math.isfinite(margin) and margin >= 0):
        raise ValueError(f"a margin must be finite and not negative, not {margin}")
    if not 0 < confidence < 1:
        raise ValueError(f"a confidence must lie between 0 and 1, not {confidence}")


def _tail_of_sums(d: Floats) -> float:
    """P(signed-rank statistic >= the one of ``d``) if ``d`` is symmetric about 0; ties and zeros count against it."""
    above = int((walsh_averages(d) > ROUNDING).sum())
    counts = signed_rank_counts(len(d))
    return sum(counts[above:]) / sum(counts)


@lru_cache(maxsize=64)
def _rank_sum_counts(m: int, n: int) -> tuple[int, ...]:
    """How many arrangements of m and n values give each number of pairs (0 to m n) with the second larger.

    The coefficients of the Gaussian binomial (Mann and Whitney 1947).
    """
    counts = [1] + [0] * (m * n)
    for i in range(1, m + 1):
        # times (1 - q^(n + i)), then divided by (1 - q^i)
        for total in range(m * n, n + i - 1, -1):
            counts[total] -= counts[total - n - i]
        for total in range(i, m * n + 1):
            counts[total] += counts[total - i]
    return tuple(counts)


@dataclass(frozen=True)
class Looks:
    """After how many rounds the gate is asked, and the error probability of all its two-sided intervals together.

    Looking at the rounds after each one and stopping at the first alarm multiplies false alarms. So the looks are fixed
    in advance and share the probability of an error among them (Bonferroni; Jennison and Turnbull, Group Sequential
    Methods, section 2, have sharper divisions).
    """

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
        ValueError: see :func:`gate`.
    """
    last = looks.rounds[-1]
    taken = list(log_ratios)[:last]
    if len(taken) not in looks.rounds:
        return None
    found = gate(taken, margin, looks.confidence, capped)
    decided = found.verdict in ("regressed", "improved", "same")
    return found if decided or len(taken) == last else None
