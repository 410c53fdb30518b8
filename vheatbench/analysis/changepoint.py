"""Where a series of values in time changed its level: rank-CUSUM with a permutation null."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

LEAST_BEFORE = 4
LEAST_AFTER = 6
"""Points on the two sides of a change. With 3 or 4 after it, ranks mostly cannot decide."""
WINDOW = 200
"""How many of the last values are looked at: an older change is no news."""
PERMUTATIONS = 1999


@dataclass(frozen=True)
class ChangePoint:
    """A change of level between two neighbouring values."""

    index: int
    """Of the first value at the new level."""
    before: float
    """Median of the values since the change before this one, or since the beginning."""
    after: float
    """Median of the values up to the next change, or to the end."""
    p: float
    """Probability of so clear a change in exchangeable values; 0 where values are exact."""

    @property
    def relative(self) -> float:
        """Signed change over the level before: 0.06 is 6 % more. Infinite from a level of 0."""
        return _relative(self.before, self.after)


def change_points(
    values: Sequence[float], alpha: float = 0.01, least_effect: float = 0.03, seed: int = 0
) -> list[ChangePoint]:
    """Changes of level in noisy values, in order.

    For every split with :data:`LEAST_BEFORE` values before and :data:`LEAST_AFTER` after it, the rank sum of the
    values before is standardised (Mann and Whitney 1947; ties by midranks). The split where it is largest in size
    is a change if fewer than ``alpha`` of random orders of the same values have so large a maximum (Pettitt 1979,
    with a permutation null in place of his approximation) and if the medians of the two sides differ by
    ``least_effect`` of the first. Both sides are then looked at in the same way. Ranks make single spikes harmless,
    and the maximum is compared with maxima, so that ``alpha`` is the false alarm rate of a whole series of
    exchangeable values; neighbours that are alike (autocorrelation 0.5) raise it to about 4 %.

    Args:
        values: in the order of time, finite; only the last :data:`WINDOW` are looked at.
        alpha: accepted probability of a false alarm.
        least_effect: smallest relative difference of medians that is worth a word.
        seed: of the permutations.
    """
    start = max(0, len(values) - WINDOW)
    series = np.asarray(values[start:], dtype=float)
    found = sorted(_splits(series, 0, alpha, least_effect, seed))
    changes = _levels(series, found)
    while any(abs(change.relative) < least_effect for change in changes):
        # between two changes that were split off later, the levels may have come closer
        least = min(range(len(changes)), key=lambda i: abs(changes[i].relative))
        del found[least]
        changes = _levels(series, found)
    return [ChangePoint(start + c.index, c.before, c.after, c.p) for c in changes]


def exact_changes(values: Sequence[float]) -> list[ChangePoint]:
    """Every change of a deterministic metric: each is real, however small, and needs no points after it."""
    pairs = pairwise(values)
    return [ChangePoint(i, old, new, 0.0) for i, (old, new) in enumerate(pairs, start=1) if old != new]


def _splits(series: Values, offset: int, alpha: float, least_effect: float, seed: int) -> list[tuple[int, float]]:
    """Index and p value of the changes, in no order."""
    n = len(series)
    if n < LEAST_BEFORE + LEAST_AFTER:
        return []
    ranks = _midranks(series)
    curve = np.abs(_standardised(ranks[None, :])[0])
    best = int(np.argmax(curve))
    split = LEAST_BEFORE + best
    before, after = float(np.median(series[:split])), float(np.median(series[split:]))
    if abs(_relative(before, after)) < least_effect:
        return []
    null = _null(n, seed) if len(np.unique(series)) == n else _maxima(ranks, seed)
    p = float((1 + np.count_nonzero(null >= curve[best] - 1e-9)) / (1 + len(null)))
    if p > alpha:
        return []
    return [
        (offset + split, p),
        *_splits(series[:split], offset, alpha, least_effect, seed),
        *_splits(series[split:], offset + split, alpha, least_effect, seed),
    ]


def _levels(series: Values, splits: Sequence[tuple[int, float]]) -> list[ChangePoint]:
    if not splits:
        return []
    ends = [0, *(index for index, _ in splits), len(series)]
    levels = [float(np.median(series[a:b])) for a, b in pairwise(ends)]
    return [ChangePoint(index, levels[i], levels[i + 1], p) for i, (index, p) in enumerate(splits)]


def _standardised(ranks: NDArray[Any]) -> Values:
    """Rank sums of the first k values of every row, standardised, for every k that leaves enough on both sides."""
    n = ranks.shape[1]
    k = np.arange(LEAST_BEFORE, n - LEAST_AFTER + 1)
    sums = np.cumsum(ranks, axis=1)[:, k - 1]
    # the variance of n ranks without replacement: with midranks it is smaller by the correction for ties
    spread = np.sqrt(k * (n - k) / (n - 1) * np.var(ranks[0]))
    if spread[0] == 0:
        return np.zeros_like(sums)
    standardised: Values = (sums - k * (n + 1) / 2) / spread
    return standardised


def _midranks(series: Values) -> Values:
    _, inverse, counts = np.unique(series, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    middles: Values = last - (counts - 1) / 2
    return middles[inverse]


@lru_cache(maxsize=256)
def _null(n: int, seed: int) -> Values:
    """Maxima under the null without ties: they depend on nothing but ``n``."""
    return _maxima(np.arange(1.0, n + 1), seed)


def _maxima(ranks: Values, seed: int) -> Values:
    generator = np.random.default_rng(seed)
    shuffled = generator.permuted(np.broadcast_to(ranks, (PERMUTATIONS, len(ranks))), axis=1)
    maxima: Values = np.abs(_standardised(shuffled)).max(axis=1)
    return maxima


def _relative(before: float, after: float) -> float:
    if before == after:
        return 0.0
    return (after - before) / abs(before) if before else float("inf") * (1 if after > before else -1)
