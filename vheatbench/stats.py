"""Small exact statistics used while measuring and while analysing. Standard library only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

CONFIDENCE = 0.95
"""Of an interval where nothing else is asked for."""


class Interval(NamedTuple):
    """A point estimate, its interval and the coverage the interval really has."""

    value: float
    low: float
    high: float
    confidence: float

    @property
    def relative_half_width(self) -> float:
        """Half the interval's width divided by the estimate: 0.02 is plus or minus 2 %."""
        return (self.high - self.low) / 2 / abs(self.value) if self.value else math.inf


def median(values: Sequence[float]) -> float:
    """Middle value; mean of the two middle values for an even number of them."""
    ordered = sorted(values)
    if not ordered:
        raise ValueError("median of no values")
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[middle]
    return (ordered[middle - 1] + ordered[middle]) / 2


def quantile(values: Sequence[float], q: float) -> float:
    """Quantile by linear interpolation between order statistics (Hyndman and Fan, type 7)."""
    ordered = sorted(values)
    if not ordered:
        raise ValueError("quantile of no values")
    position = (len(ordered) - 1) * q
    lower = math.floor(position)
    upper = math.ceil(position)
    return ordered[lower] + (ordered[upper] - ordered[lower]) * (position - lower)


def median_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Median with its exact order-statistic interval, which assumes no distribution.

    The interval runs from the k-th smallest to the k-th largest value, with the largest k whose
    binomial coverage 1 - 2 P(Bin(n, 1/2) < k) reaches ``confidence`` (Conover, Practical Nonparametric
    Statistics, section 3.2). Fewer than 6 values cannot reach 0.95: then the interval is the range and
    ``confidence`` in the result says what it covers (0.75 for 3 values, 0 for 1).
    """
    ordered = sorted(values)
    n = len(ordered)
    if n == 0:
        raise ValueError("median of no values")
    tail = 0.0  # P(Bin(n, 1/2) < k)
    chosen, coverage = 1, 1 - 2 * 0.5**n
    for k in range(1, n // 2 + 1):
        tail += math.comb(n, k - 1) / 2**n
        if 1 - 2 * tail < confidence:
            break
        chosen, coverage = k, 1 - 2 * tail
    return Interval(median(ordered), ordered[chosen - 1], ordered[n - chosen], max(coverage, 0.0))


def student_t_cdf(t: float, df: int) -> float:
    """Cumulative probability of Student's t for whole degrees of freedom.

    The finite trigonometric series of Abramowitz and Stegun, 26.7.3 and 26.7.4.
    """
    if df < 1:
        raise ValueError("degrees of freedom must be at least 1")
    theta = math.atan(t / math.sqrt(df))
    cos, sin = math.cos(theta), math.sin(theta)
    # A(t|df) = P(|T| <= t), signed like t
    if df % 2:
        term, total = cos, 0.0
        for j in range(1, (df - 1) // 2 + 1):
            total += term
            term *= cos * cos * (2 * j) / (2 * j + 1)
        central = 2 / math.pi * (theta + sin * total)
    else:
        term, total = 1.0, 0.0
        for j in range(1, df // 2 + 1):
            total += term
            term *= cos * cos * (2 * j - 1) / (2 * j)
        central = sin * total
    return 0.5 + central / 2


def student_t_quantile(p: float, df: int) -> float:
    """Inverse of :func:`student_t_cdf` by bisection, to a relative 1e-12."""
    if not 0 < p < 1:
        raise ValueError("p must lie strictly between 0 and 1")
    if p < 0.5:
        return -student_t_quantile(1 - p, df)
    high = 1.0
    while student_t_cdf(high, df) < p:
        high *= 2
    low = 0.0
    for _ in range(200):
        middle = (low + high) / 2
        if student_t_cdf(middle, df) < p:
            low = middle
        else:
            high = middle
        if high - low <= 1e-12 * high:
            break
    return (low + high) / 2


def mean_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Mean of independent values with Student's interval, which holds for values about normally distributed.

    Raises:
        ValueError: fewer than two values.
    """
    n = len(values)
    if n < 2:
        raise ValueError("an interval of a mean takes two values")
    mean = math.fsum(values) / n
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = student_t_quantile((1 + confidence) / 2, n - 1) * deviation / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, confidence)


def wilson(successes: int, n: int, confidence: float = CONFIDENCE) -> Interval:
    """A proportion with Wilson's score interval (Wilson 1927; Brown, Cai, DasGupta 2001, section 3.1.1).

    Raises:
        ValueError: not 0 <= successes <= n, or n is 0.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} of {n} is no proportion")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = successes / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # at both ends the interval reaches the end exactly; rounding must not take it past the estimate
    low = 0.0 if successes == 0 else max(0.0, middle - half)
    high = 1.0 if successes == n else min(1.0, middle + half)
    return Interval(share, low, high, confidence)


def paired_difference(gained: int, lost: int, n: int, confidence: float = CONFIDENCE) -> Interval:
    """Change of a proportion over the same n images: ``gained`` became right, ``lost`` became wrong.

    The interval is Agresti and Min's adjusted Wald interval for matched pairs (Statistics in Medicine 2005): half an
    image is added to each of the four cells. It is narrower than the two proportions' intervals suggest, because
    most images are right or wrong both times.

    Raises:
        ValueError: counts that are negative or more than n, or n is 0.
    """
    if n < 1 or min(gained, lost) < 0 or gained + lost > n:
        raise ValueError(f"{gained} gained and {lost} lost of {n} images are no counts")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    b, c, total = gained + 0.5, lost + 0.5, n + 2
    middle = (b - c) / total
    half = z * math.sqrt(max(0.0, b + c - (b - c) ** 2 / total)) / total
    return Interval((gained - lost) / n, max(-1.0, middle - half), min(1.0, middle + half), confidence)
