"""How the cost of a subject grows with the number of tokens N: exponents, and whether to believe them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from vheatbench.analysis.powerlaw import (
    Floats,
    OverheadFit,
    PowerFit,
    Unfit,
    checked,
    fit_overhead,
    fit_power,
)
from vheatbench.stats import student_t_quantile

NOTICEABLE = 0.1
"""Change of the local exponent over a series from which on a single power is a bad description."""
NARROW = 4.0
"""Ratio of largest to smallest N under which an exponent is called one of a narrow range."""
END_SPAN = 1.7
"""Ratio of the two N between which the exponent at the large end is taken, at least."""


@dataclass(frozen=True)
class Curvature:
    """Local exponents at both ends of a series, and whether they differ."""

    local_exponents: tuple[float, float]
    """d log cost / d log N at the small and at the large end."""
    how: str
    """``quadratic``: slopes of a quadratic fitted on log-log, at the smallest and largest N;
    ``neighbours``: slopes between the two smallest and the two largest N."""
    warning: str | None
    """Why a single power does not describe the series, or None."""


@dataclass(frozen=True)
class Scaling:
    """Everything there is to say about the growth of one series."""

    power: PowerFit | Unfit
    overhead: OverheadFit | Unfit
    local_exponents: tuple[float, float] | None
    """At the small and at the large end; None where not even a power can be fitted."""
    warnings: list[str]


@dataclass(frozen=True)
class EndExponent:
    """d log cost / d log N between the largest N and one well below it, with an interval."""

    value: float
    low: float
    high: float
    first: float
    """The smaller N."""
    last: float


def end_exponent(points: Sequence[EndPoint]) -> EndExponent | None:
    """The exponent at the large end, where fixed overheads count least; None with fewer than two sizes.

    It is the slope between the largest N and the largest of the others that is at least ``END_SPAN`` times smaller
    (else the smallest): far enough apart that the noise of two points does not decide it. Its interval is the most
    cautious one, from the one's low to the other's high end; a point without an interval is taken as exact.

    Args:
        points: with positive values, by growing N.
    """
    if len(points) < 2:
        return None
    last = points[-1]
    below = [point for point in points[:-1] if point.tokens * END_SPAN <= last.tokens] or [points[0]]
    first = below[-1]
    if first.tokens >= last.tokens or min(first.value, last.value, first.low or 1.0, last.low or 1.0) <= 0:
        return None
    span = math.log(last.tokens / first.tokens)

    def slope(start: float | None, end: float | None) -> float:
        return math.log((end or last.value) / (start or first.value)) / span

    return EndExponent(
        slope(None, None), slope(first.high, last.low), slope(first.low, last.high), first.tokens, last.tokens
    )


class EndPoint(Protocol):
    """What :func:`end_exponent` needs of a point."""

    @property
    def tokens(self) -> float: ...
    @property
    def value(self) -> float: ...
    @property
    def low(self) -> float | None: ...
    @property
    def high(self) -> float | None: ...


def curvature(tokens: Sequence[float], values: Sequence[float], deterministic: bool = False) -> Curvature | Unfit:
    """Does a single power describe the series?

    Noisy values, 4 points or more: a quadratic on log-log. It warns where the local exponent changes by
    more than ``NOTICEABLE`` over the fitted range and the quadratic term differs from 0 at 95 % (Student's
    t, n - 3 degrees of freedom); straight series are warned about in less than 5 % of cases. Without noise
    (``deterministic``) or with 3 points, local exponents are slopes between neighbours. They warn only if
    there is no noise: 3 noisy points cannot tell curvature from noise.

    Raises:
        ValueError: lengths differ, a number is not finite, or an N is not positive.
    """
    data = checked(tokens, values)
    if isinstance(data, Unfit):
        return data
    log_n, log_y = np.log(data[0]), np.log(data[1])
    distinct = len(set(tokens))
    if deterministic or len(log_n) < 4 or distinct < 3:
        return _from_neighbours(log_n, log_y, deterministic)
    return _from_quadratic(log_n, log_y)


def _from_neighbours(log_n: Floats, log_y: Floats, deterministic: bool) -> Curvature:
    x = np.unique(log_n)
    y = np.array([log_y[log_n == at].mean() for at in x])
    slopes = np.diff(y) / np.diff(x)
    ends = (float(slopes[0]), float(slopes[-1]))
    warning = None
    if deterministic and abs(ends[1] - ends[0]) > NOTICEABLE:
        n = [f"{at:.6g}" for at in np.exp(x)]
        warning = (
            f"a single power does not describe this series: the local exponent goes from {ends[0]:.2f} "
            f"between N={n[0]} and {n[1]} to {ends[1]:.2f} between N={n[-2]} and {n[-1]}"
        )
    elif deterministic and slopes.max() - slopes.min() > NOTICEABLE:
        warning = (
            f"a single power does not describe this series: the local exponent varies from "
            f"{slopes.min():.2f} to {slopes.max():.2f} between neighbouring points (padding, or a kernel "
            f"that changes with size)"
        )
    return Curvature(ends, "neighbours", warning)


def _from_quadratic(log_n: Floats, log_y: Floats) -> Curvature:
    n = len(log_n)
    u = log_n - log_n.mean()
    # The part of u^2 that a straight line cannot take over: its coefficient is the quadratic's.
    bow = u * u - (u * u).mean() - u * float(u @ (u * u)) / float(u @ u)
    second = float(bow @ log_y) / float(bow @ bow)
    rest = log_y - second * u * u
    first = float(u @ rest) / float(u @ u)
    residuals = rest - rest.mean() - first * u
    error = math.sqrt(float(residuals @ residuals) / (n - 3) / float(bow @ bow))
    ends = (first + 2 * second * float(u[0]), first + 2 * second * float(u[-1]))
    significant = abs(second) > student_t_quantile(0.975, n - 3) * error
    warning = None
    if significant and abs(ends[1] - ends[0]) > NOTICEABLE:
        warning = (
            f"a single power does not describe this series: the local exponent goes from {ends[0]:.2f} at "
            f"N={math.exp(log_n[0]):.6g} to {ends[1]:.2f} at N={math.exp(log_n[-1]):.6g}"
        )
    return Curvature(ends, "quadratic", warning)


def describe_scaling(tokens: Sequence[float], values: Sequence[float], deterministic: bool = False) -> Scaling:
    """Both fits of one series at 95 %, its local exponents, and what to be warned of.

    ``values`` are costs in any unit (seconds, bytes, MACs); ``deterministic`` says that they carry no noise.

    Raises:
        ValueError: lengths differ, a number is not finite, or an N is not positive.
    """
    power = fit_power(tokens, values, deterministic=deterministic)
    overhead = fit_overhead(tokens, values, deterministic=deterministic)
    bend = curvature(tokens, values, deterministic)
    if isinstance(power, Unfit) or isinstance(bend, Unfit):
        return Scaling(power, overhead, None, [])
    warnings = [bend.warning] if bend.warning else []
    widest = power.range[1] / power.range[0]
    if widest < NARROW:
        warnings.append(f"the points span only a factor of {widest:.2g} in N: do not extrapolate them")
    if isinstance(overhead, OverheadFit) and overhead.low is not None and overhead.low > power.exponent:
        end = f"to {overhead.high:.2f}" if overhead.high is not None else "and up, open"
        warnings.append(
            # Only "if": the sum of two powers bends the same way.
            f"if a fixed overhead bends the series, it is {100 * overhead.share:.0f} % of the cost at "
            f"N={power.range[0]:.6g}, and the exponent beside it is {overhead.exponent:.2f} "
            f"({overhead.low:.2f} {end}), against {power.exponent:.2f} for a single power"
        )
    return Scaling(power, overhead, bend.local_exponents, warnings)
