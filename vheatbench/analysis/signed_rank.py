"""The exact interval of paired values that assumes no more than symmetry: Hodges and Lehmann, and signed ranks.

Hollander, Wolfe and Chicken, Nonparametric Statistical Methods, sections 3.2 and 3.3. Numpy only, pure functions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def hodges_lehmann(d: Sequence[float] | Floats) -> float:
    """Median of the Walsh averages, the means of all pairs of values, each value paired with itself too.

    Raises ValueError for no values.
    """
    averages = walsh_averages(np.asarray(d, dtype=float))
    if not len(averages):
        raise ValueError("Hodges-Lehmann estimate of no values")
    return float(np.median(averages))


def signed_rank_interval(d: Sequence[float] | Floats, confidence: float = 0.99) -> tuple[float, float]:
    """The narrowest exact interval of the centre of a symmetric distribution that covers ``confidence``.

    From the k-th smallest to the k-th largest Walsh average, by the distribution of the signed-rank statistic over
    all 2^n signs. Infinite where n values cannot reach ``confidence``: at 0.99, fewer than 8. Ties make it wider
    than need be, never narrower.
    """
    values = np.asarray(d, dtype=float)
    return order_interval(walsh_averages(values), signed_rank_counts(len(values)), confidence)


def walsh_averages(values: Floats) -> Floats:
    """Means of all pairs i <= j, sorted."""
    i, j = np.triu_indices(len(values))
    averages: Floats = np.sort((values[i] + values[j]) / 2)
    return averages


def order_interval(ordered: Floats, counts: tuple[int, ...], confidence: float) -> tuple[float, float]:
    """From the k-th smallest to the k-th largest of ``ordered``, with the largest k that covers ``confidence``.

    ``counts`` tells how often, of all equally likely arrangements, each number of values lies above the centre.
    """
    total = sum(counts)
    tail, k = 0, 0
    for count in counts:
        tail += count
        # in whole numbers: 1 - 0.99 is not quite 0.01, and 2^n has no end
        if 2 * tail * 10**12 > round((1 - confidence) * 1e12) * total:
            break
        k += 1
    if k == 0 or not len(ordered):
        return -math.inf, math.inf
    return float(ordered[k - 1]), float(ordered[len(ordered) - k])


@lru_cache(maxsize=64)
def signed_rank_counts(n: int) -> tuple[int, ...]:
    """How many of the 2^n sets of signs give each sum of positive ranks, from 0 to n (n + 1) / 2."""
    counts = [1]
    for rank in range(1, n + 1):
        longer = counts + [0] * rank
        for total, count in enumerate(counts):
            longer[total + rank] += count
        counts = longer
    return tuple(counts)
