"""Fits of a power law, with and without a fixed overhead, to one series of costs.

Noise of running times is multiplicative, so both fits are least squares on log cost: every point counts by
its relative, not its absolute, error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vheatbench.stats import student_t_quantile

Floats = NDArray[np.float64]

EXACT = 1e-9
"""A relative residual below this is rounding, not noise."""
STEEPEST = 4.0
"""Largest exponent looked for beside an overhead. An interval that reaches it is reported as open."""

LACK_OF_FIT = "the values are deterministic: the interval describes lack of fit, not noise"


@dataclass(frozen=True)
class Unfit:
    """No fit, and why, in words."""

    reason: str


@dataclass(frozen=True)
class PowerFit:
    """cost = coefficient * N^exponent."""

    exponent: float
    low: float | None
    high: float | None
    """Ends of the exponent's interval; None where the points do not determine one."""
    coefficient: float
    """Cost at N = 1, in the unit of the values. An extrapolation."""
    n: int
    """Number of points."""
    range: tuple[float, float]
    """Smallest and largest N fitted."""
    residual_sd: float | None
    """Standard deviation of log cost around the fit: 0.01 is about 1 %. None without spare points."""
    confidence: float
    note: str = ""


@dataclass(frozen=True)
class OverheadFit:
    """cost = overhead + coefficient * N^exponent, with overhead >= 0."""

    exponent: float
    low: float | None
    high: float | None
    """Ends of the exponent's interval; None where the data set no limit on that side (``unbounded``)."""
    overhead: float
    """In the unit of the values."""
    share: float
    """Overhead divided by the fitted cost at the smallest N, 0 to 1."""
    coefficient: float
    """In the unit of the values, per N^exponent."""
    n: int
    range: tuple[float, float]
    """Smallest and largest N fitted."""
    residual_sd: float
    """Standard deviation of log cost around the fit: 0.01 is about 1 %."""
    confidence: float
    unbounded: bool
    """True where at least one end of the interval is open."""
    note: str = ""


def checked(tokens: Sequence[float], values: Sequence[float]) -> tuple[Floats, Floats] | Unfit:
    """Both sequences as arrays sorted by N, or why no power law can be fitted to them.

    Raises:
        ValueError: lengths differ, a number is not finite, or an N is not positive: a mistake of the caller.
    """
    if len(tokens) != len(values):
        raise ValueError(f"{len(tokens)} token counts but {len(values)} values")
    if not all(map(math.isfinite, [*tokens, *values])):
        raise ValueError("token counts and values must be finite")
    if any(n <= 0 for n in tokens):
        raise ValueError("token counts must be positive")
    if any(value <= 0 for value in values):
        # A measurement can honestly be 0 (memory growth): a result, not a mistake.
        return Unfit("a value is zero or negative, and a power law is positive everywhere")
    if len(set(tokens)) < 2:
        count = len(set(tokens))
        return Unfit(f"{count} token count{'' if count == 1 else 's'}: an exponent needs at least 2")
    x, y = np.asarray(tokens, dtype=float), np.asarray(values, dtype=float)
    order = np.argsort(x, kind="stable")
    return x[order], y[order]


def fit_power(
    tokens: Sequence[float], values: Sequence[float], confidence: float = 0.95, deterministic: bool = False
) -> PowerFit | Unfit:
    """Ordinary least squares of log cost on log N, with Student's t interval on n - 2 degrees of freedom.

    The interval assumes that a power describes the series and that relative errors are independent, normal
    and equally large; ``scaling.curvature`` tests the first. With 2 distinct N there is an exponent and no
    interval.

    Raises:
        ValueError: see :func:`checked`.
    """
    data = checked(tokens, values)
    if isinstance(data, Unfit):
        return data
    log_n, log_y = np.log(data[0]), np.log(data[1])
    n = len(log_n)
    centred = log_n - log_n.mean()
    spread = float(centred @ centred)
    slope = float(centred @ log_y) / spread
    intercept = float(log_y.mean()) - slope * float(log_n.mean())
    residuals = log_y - log_y.mean() - slope * centred
    coefficient = math.exp(intercept)
    span = (float(data[0][0]), float(data[0][-1]))
    if len(set(tokens)) < 3:
        note = "2 token counts determine an exponent but leave nothing to judge it by: no interval"
        return PowerFit(slope, None, None, coefficient, n, span, None, confidence, note)
    sd = math.sqrt(float(residuals @ residuals) / (n - 2))
    note = LACK_OF_FIT if deterministic else ""
    if sd <= EXACT:
        sd, note = 0.0, "the points lie exactly on a power: the interval has no width"
    half = student_t_quantile((1 + confidence) / 2, n - 2) * sd / math.sqrt(spread)
    return PowerFit(slope, slope - half, slope + half, coefficient, n, span, sd, confidence, note)


def fit_overhead(
    tokens: Sequence[float], values: Sequence[float], confidence: float = 0.95, deterministic: bool = False
) -> OverheadFit | Unfit:
    """Least squares on log cost for a fixed overhead plus a power, with a profile interval of the exponent.

    The interval holds every exponent whose best fit, overhead and coefficient free, has a sum of squares
    of at most (1 + F / (n - 3)) times the smallest one, F being the quantile of F(1, n - 3) (Seber and
    Wild, Nonlinear Regression, section 5.4). Exponents from 0 to ``STEEPEST`` are looked at. Where the
    interval reaches an end of that range, the data set no limit on that side: that end is None.

    Raises:
        ValueError: see :func:`checked`.
    """
    data = checked(tokens, values)
    if isinstance(data, Unfit):
        return data
    n, distinct = len(data[0]), len(set(tokens))
    if distinct < 4:
        return Unfit(f"{distinct} token counts: an overhead and an exponent need at least 4")
    plain = fit_power(tokens, values, confidence)
    # a constant has a slope of rounding, of either sign
    if isinstance(plain, PowerFit) and plain.high is not None and plain.high < -EXACT:
        return Unfit("the values fall as N grows: an overhead is part of a growing cost")
    log_x, log_y = np.log(data[0] / data[0][0]), np.log(data[1])
    log_z = log_y - log_y.mean()

    grid = np.linspace(0.0, STEEPEST, 81)
    squares, _ = _profile(log_x, log_z, grid)
    best = _zoom_minimum(log_x, log_z, grid, squares)
    (smallest,), (share_of_power,) = _profile(log_x, log_z, np.array([best]))
    sd = math.sqrt(float(smallest) / (n - 3))
    exact = sd <= EXACT
    t = student_t_quantile((1 + confidence) / 2, n - 3)
    limit = max(float(smallest) * (1 + t * t / (n - 3)), n * EXACT**2)  # F(1, m) is the square of t(m)
    low, high = _ends(log_x, log_z, grid, squares, best, limit)
    note = LACK_OF_FIT if deterministic else ""
    if exact:
        sd, note = 0.0, "the points lie exactly on the curve: the interval has no width"
        # Rounding, not data, gives the interval what little width it has here.
        low, high = (end if end is None or abs(end - best) > 1e-4 else best for end in (low, high))
    open_sides = [side for side, end in (("below", low), ("above", high)) if end is None]
    if open_sides:
        limit_note = f"the data do not limit the exponent from {' or '.join(open_sides)}"
        note = f"{note}; {limit_note}" if deterministic and not exact else limit_note
    fitted = np.log1p(share_of_power * np.expm1(best * log_x))
    first = math.exp(float(log_y.mean() - fitted.mean()))  # fitted cost at the smallest N
    overhead = first * (1 - float(share_of_power))
    coefficient = first * float(share_of_power) * float(data[0][0]) ** -best
    span = (float(data[0][0]), float(data[0][-1]))
    return OverheadFit(
        exponent=best,
        low=low,
        high=high,
        overhead=overhead,
        share=1 - float(share_of_power),
        coefficient=coefficient,
        n=n,
        range=span,
        residual_sd=sd,
        confidence=confidence,
        unbounded=bool(open_sides),
        note=note,
    )


def _profile(log_x: Floats, log_z: Floats, exponents: Floats) -> tuple[Floats, Floats]:
    """For every exponent the smallest sum of squares, and the power's share q of the cost at the smallest N.

    In units of the fitted cost at the smallest N the curve is (1 - q) + q x^exponent with 0 <= q <= 1 and
    x = N / smallest N; its scale drops out by centring. What is left is a search over q alone, on a grid of
    log q first and by Gauss-Newton steps from its best node then.
    """
    growth = np.expm1(np.outer(exponents, log_x))  # x^exponent - 1
    weights = np.full(len(log_x), 1 / len(log_x))  # a product is a faster mean
    # From a curve that is flat up to the last point, to one without overhead.
    floor = np.log(1e-5 / (1 + growth[:, -1]))
    log_q = floor[:, None] * np.linspace(1.0, 0.0, 33)

    def residuals(log_q: Floats, growth: Floats) -> Floats:
        error: Floats = log_z - np.log1p(np.exp(log_q)[..., None] * growth)
        error -= (error @ weights)[..., None]
        return error

    error = residuals(log_q, growth[:, None, :])
    squares = np.einsum("ijk,ijk->ij", error, error)
    node = squares.argmin(axis=1)
    rows = np.arange(len(exponents))
    best, where, kept = squares[rows, node], log_q[rows, node], error[rows, node]
    for _ in range(8):
        scaled = np.exp(where)[:, None] * growth
        slope = scaled / (1 + scaled)
        slope -= (slope @ weights)[:, None]
        step = np.einsum("ij,ij->i", slope, kept) / np.maximum(np.einsum("ij,ij->i", slope, slope), 1e-300)
        trial = np.minimum(np.maximum(where + np.minimum(np.maximum(step, -1.0), 1.0), floor), 0.0)
        error = residuals(trial, growth)
        trial_squares = np.einsum("ij,ij->i", error, error)
        better = trial_squares < best
        if not (trial_squares < best * (1 - 1e-12)).any():
            break
        best = np.where(better, trial_squares, best)
        where = np.where(better, trial, where)
        kept = np.where(better[:, None], error, kept)
    # The limit q = 0, all overhead, is no node of a grid of log q.
    flat = float(log_z @ log_z)
    return np.minimum(best, flat), np.where(best < flat, np.exp(where), 0.0)


def _zoom_minimum(log_x: Floats, log_z: Floats, grid: Floats, squares: Floats) -> float:
    """The exponent of the smallest sum of squares: ever finer grids around the best node."""
    while True:
        node = int(squares.argmin())
        left, right = grid[max(node - 1, 0)], grid[min(node + 1, len(grid) - 1)]
        # Flat: noise, and finer is meaningless. Exact data never get flat, and are followed to the end.
        if right - left < 1e-11 or squares.max() - squares.min() < 1e-10 * squares.min():
            return float(grid[node])
        grid = np.linspace(left, right, 17)
        squares, _ = _profile(log_x, log_z, grid)


def _ends(
    log_x: Floats, log_z: Floats, grid: Floats, squares: Floats, best: float, limit: float
) -> tuple[float | None, float | None]:
    """Ends of the exponents with a sum of squares up to ``limit``; None where they reach the grid's end.

    Should they form several pieces, the ends are those of their hull.
    """
    inside = grid[squares <= limit]
    lowest, highest = min([best, *inside]), max([best, *inside])
    low_out, high_out = grid[grid < lowest], grid[grid > highest]
    low = _crossing(log_x, log_z, float(low_out[-1]), lowest, limit) if len(low_out) else None
    high = _crossing(log_x, log_z, float(high_out[0]), highest, limit) if len(high_out) else None
    return low, high


def _crossing(log_x: Floats, log_z: Floats, outside: float, inside: float, limit: float) -> float:
    """Where the profile passes ``limit``, between an exponent outside and one inside the interval."""
    while abs(inside - outside) > 1e-5:
        nodes = np.linspace(inside, outside, 17)
        beyond = _profile(log_x, log_z, nodes)[0] > limit
        beyond[0], beyond[-1] = False, True
        first = int(beyond.argmax())
        inside, outside = float(nodes[first - 1]), float(nodes[first])
    return outside  # the wider choice
