"""From which resolution on one subject beats another, with an interval."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from vheatbench.analysis.axis import PIXELS, Axis
from vheatbench.analysis.paired_ratio import paired_ratio
from vheatbench.analysis.series import Point, Series
from vheatbench.text import listed

Floats = NDArray[np.float64]
Better = Literal["lower", "higher"]
Kind = Literal["always", "never", "crosses", "crosses back", "undecided"]

_WORDS = (  # what "better" is called, by the metric's name
    (("latency", "throughput", "time"), "faster"),
    (("memory",), "smaller in memory"),
    (("flops", "macs", "energy"), "cheaper"),
)


@dataclass(frozen=True)
class Crossover:
    """Where A begins to beat B, or stops. Resolutions are sides of squares of equal area, in the axis's unit."""

    a: str
    b: str
    """Names of the two series."""
    metric: str
    kind: Kind
    """By the measured values: ``always`` and ``never`` hold at every common resolution; ``crosses``: A is
    better from ``value`` on; ``crosses back``: A is better up to ``value`` at most and not beyond."""
    value: float | None
    """A side; None unless A crosses or crosses back."""
    low: float | None
    high: float | None
    """Ends of the interval, sides; None where the crossing may lie below the smallest or above the
    largest resolution. ``always`` with a ``high`` means: better everywhere as measured, but the noise
    allows a crossing up to there. ``never`` with a ``low``: likewise from there on."""
    span: tuple[float, float] | None
    """Smallest and largest common side; None without any."""
    confidence: float
    reason: str = ""
    """Why it is undecided."""
    warnings: tuple[str, ...] = ()
    axis: Axis = PIXELS

    @property
    def tokens(self) -> float | None:
        """``value`` as a number of tokens."""
        return None if self.value is None else self.axis.tokens(self.value)

    @property
    def sentence(self) -> str:
        """The result in plain words."""
        return self.sentence_about(self.b)

    def sentence_about(self, b: str) -> str:
        """The same with B called ``b``, for instance several that it holds of alike."""
        better = next((word for keys, word in _WORDS if any(key in self.metric for key in keys)), "better")
        claim = f"{self.a} is {better} than {b}"
        if self.span is None or self.kind == "undecided":
            return f"whether {claim} is undecided: {self.reason}"
        axis, everywhere = self.axis, self.axis.span(*self.span)
        if self.kind == "always":
            doubt = f", but noise allows a crossing up to {axis.near(self.high)}" if self.high is not None else ""
            return f"{claim} at every measured {axis.size}, {everywhere}{doubt}"
        if self.kind == "never":
            doubt = f", but noise allows it from {axis.near(self.low)} on" if self.low is not None else ""
            return f"{self.a} is not {better} than {b} at any measured {axis.size}, {everywhere}{doubt}"
        low = f"below {axis.number(self.span[0])}" if self.low is None else axis.number(self.low)
        high = f"above {axis.number(self.span[1])}" if self.high is None else axis.number(self.high)
        value = axis.about(cast(float, self.value))
        where = f"from {value} on" if self.kind == "crosses" else f"only up to {value}"
        return f"{claim} {where} ({100 * self.confidence:g} % interval {low} to {high})"


class Ratio(NamedTuple):
    """A value of one series divided by another's; ``low`` and ``high`` None where either has no interval."""

    value: float
    low: float | None
    high: float | None
    paired: bool = False
    """Whether both took turns, and this is the ratio of those."""


def crossover(
    a: Series,
    b: Series,
    better: Better | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    draws: int = 2000,
) -> Crossover:
    """The smallest resolution from which on ``a`` beats ``b``; ``better`` defaults to the metric's direction.

    Between common resolutions the logarithm of the ratio is interpolated linearly in log N, which is exact
    for two power laws. Where the lead changes several times, the last change counts and a warning says so.

    The interval is that of a parametric bootstrap: every value is redrawn ``draws`` times, log-normally with
    the standard deviation its own interval implies, and the crossing found again; draws that do not cross
    count as below the smallest or above the largest resolution and open the interval on that side. Its low
    end is widened to where A is no longer significantly behind. An interval open on both sides is undecided.
    Values without an interval are taken as exact, with a warning. The same ``seed`` gives the same interval.

    Raises:
        ValueError: the series have different metrics, units or axes, or no direction says what is better.
    """
    if (a.metric, a.unit) != (b.metric, b.unit):
        raise ValueError(f"cannot compare {a.metric} in {a.unit} with {b.metric} in {b.unit}")
    if a.axis != b.axis:
        raise ValueError(f"cannot compare sizes of a {a.axis.subject} with sizes of a {b.axis.subject}")
    wanted = better or a.direction
    if wanted not in ("lower", "higher"):
        raise ValueError(f"{a.metric} has no better direction: say 'lower' or 'higher'")
    names = _names(a, b)
    pairs, warnings = _common(a, b)
    sides = np.array([pair[0].side for pair in pairs])
    span = (float(sides[0]), float(sides[-1])) if len(pairs) else None

    def undecided(reason: str) -> Crossover:
        found = tuple(warnings)
        return Crossover(*names, a.metric, "undecided", None, None, None, span, confidence, reason, found, a.axis)

    if len(set(sides.tolist())) < 2:
        return undecided("fewer than 2 common resolutions")
    if all(alike(p, q, a.metric) for p, q in pairs):
        return undecided("the intervals overlap at every common resolution")

    sign = -1 if wanted == "lower" else 1
    ratios = [_log_ratio(p, q, a.metric) for p, q in pairs]
    lead = sign * np.array([[log for log, _ in ratios]])
    noise = np.array([sd for _, sd in ratios])
    x, lead, noise = _merged(np.log(sides), lead, noise)
    redrawn = lead + noise * np.random.default_rng(seed).standard_normal((draws, len(x)))

    ahead = lead[0] > 0
    changes = int((ahead[1:] != ahead[:-1]).sum())
    if changes > 1:
        warnings.append(f"the lead changes {changes} times; the last change is reported")
    backwards = changes > 0 and not ahead[-1]
    if backwards:  # A stops being better where B begins to be
        lead, redrawn = -lead, -redrawn
    start = float(_start(x, lead)[0])
    tail = (1 - confidence) / 2
    # "higher" and "lower" return a draw itself, so that infinite draws never meet in an interpolation
    ends = _start(x, redrawn)
    low = float(np.quantile(ends, tail, method="lower"))
    # Where noise makes the lead flip to and fro, the last change comes late, later still in the draws, which
    # add noise to noise: covers 0.7 instead of 0.95. The crossing of the whole band's upper edge does not.
    upper = lead + NormalDist().inv_cdf(1 - tail) * noise
    low = min(low, float(_start(x, upper)[0]))
    high = max(start, float(np.quantile(ends, 1 - tail, method="higher")))
    if changes and low == -math.inf and high == math.inf:
        return undecided("noise allows a crossing at any common resolution, or none")
    kind: Kind = "crosses back" if backwards else "crosses" if changes else "always" if ahead[0] else "never"
    if kind == "always" and high == math.inf:  # what noise allows ends where the measurements do
        high = float(x[-1])
    return Crossover(
        *names,
        a.metric,
        kind,
        _side(start),
        _side(low),
        _side(high),
        span,
        confidence,
        "",
        tuple(warnings),
        a.axis,
    )


def crossover_sentences(crossings: Iterable[Crossover]) -> list[str]:
    """Each in a sentence; those that read alike (everywhere, nowhere) in one."""
    alike: dict[str, list[Crossover]] = {}
    for found in crossings:
        alike.setdefault(found.sentence_about("others"), []).append(found)
    return [same[0].sentence_about(listed([found.b for found in same])) for same in alike.values()]


def ratio_at(a: Series, b: Series, resolution: int | tuple[int, int]) -> Ratio:
    """Value of ``a`` divided by value of ``b`` at one resolution (a number is a square's side).

    Where both took turns it is the ratio of those, with the interval of that (:mod:`vheatbench.analysis.paired_ratio`).
    Else the interval is conservative: A's low over B's high to A's high over B's low.

    Raises:
        ValueError: the series have different metrics or units, one of them was not measured at
            ``resolution``, or B's value or interval reaches zero there.
    """
    if (a.metric, a.unit) != (b.metric, b.unit):
        raise ValueError(f"cannot compare {a.metric} in {a.unit} with {b.metric} in {b.unit}")
    size = (resolution, resolution) if isinstance(resolution, int) else resolution
    found = []
    for series in (a, b):
        point = next((point for point in series.points if point.resolution == size), None)
        if point is None:
            raise ValueError(f"{series.subject} has no {series.metric} at {size[0]}x{size[1]}")
        found.append(point)
    p, q = found
    paired = paired_ratio(q.records, p.records, a.metric)
    if paired is not None:
        ratio = paired.ratio
        known = ratio.confidence > 0
        return Ratio(ratio.value, ratio.low if known else None, ratio.high if known else None, paired=True)
    if min(q.value, q.value if q.low is None else q.low) <= 0:
        raise ValueError(f"{b.metric} of {b.subject} reaches zero at {size[0]}x{size[1]}: no ratio")
    value = p.value / q.value
    if p.low is None or p.high is None or q.low is None or q.high is None:
        return Ratio(value, None, None)
    return Ratio(value, p.low / q.high, p.high / q.low)


def _names(a: Series, b: Series) -> tuple[str, str]:
    """What tells the two series apart, and no more."""
    if a.subject != b.subject:
        return a.subject, b.subject
    if a.variant != b.variant:
        return f"{a.subject} ({a.variant})", f"{b.subject} ({b.variant})"
    return f"{a.subject} ({a.device})", f"{b.subject} ({b.device})"


def _common(a: Series, b: Series) -> tuple[list[tuple[Point, Point]], list[str]]:
    """Points of both series at the same resolution by growing area, and what is wrong with them."""
    others = {point.resolution: point for point in b.points}
    pairs = [(p, others[p.resolution]) for p in a.points if p.resolution in others]
    pairs.sort(key=lambda pair: pair[0].side)
    usable = [pair for pair in pairs if all(p.value > 0 and (p.low is None or p.low > 0) for p in pair)]
    warnings = []
    if len(usable) < len(pairs):
        warnings.append(f"{len(pairs) - len(usable)} resolutions left out: a value or its interval reaches zero")
    blind = sum(any(p.low is None or p.high is None for p in pair) for pair in usable)
    if blind:
        warnings.append(f"{blind} resolutions without an interval count as exact")
    return usable, warnings


def overlap(p: Point, q: Point) -> bool:
    """Whether two intervals have a value in common; a value without one is taken as exact."""
    low_p, high_p = (p.low, p.high) if p.low is not None and p.high is not None else (p.value, p.value)
    low_q, high_q = (q.low, q.high) if q.low is not None and q.high is not None else (q.value, q.value)
    return low_p <= high_q and low_q <= high_p


def _log_ratio(p: Point, q: Point, metric: str) -> tuple[float, float]:
    """Log ratio of two values, from their turns where they took any, and its standard deviation."""
    paired = paired_ratio(q.records, p.records, metric)
    if paired is None:
        return math.log(p.value / q.value), math.hypot(_log_sd(p), _log_sd(q))
    return paired.log.value, _sd(paired.half_width, paired.log.confidence)


def alike(p: Point, q: Point, metric: str) -> bool:
    """Whether neither can be said to be ahead."""
    paired = paired_ratio(q.records, p.records, metric)
    return paired.log.low <= 0 <= paired.log.high if paired is not None else overlap(p, q)


def _log_sd(p: Point) -> float:
    """Standard deviation of log value: half the interval's log width over its normal quantile."""
    if p.low is None or p.high is None or p.low >= p.high:
        return 0.0
    return _sd(math.log(p.high / p.low) / 2, p.confidence)


def _sd(half_width: float, confidence: float) -> float:
    """The standard deviation of what has such an interval."""
    # A confidence of 1 or 0 beside a real width is no statement about the tails: taken as 0.95.
    return half_width / NormalDist().inv_cdf((1 + (confidence if 0 < confidence < 1 else 0.95)) / 2)


def _merged(x: Floats, lead: Floats, noise: Floats) -> tuple[Floats, Floats, Floats]:
    """Columns of equal area (224x448 and 448x224) as one, their mean: interpolation needs distinct x."""
    distinct, group = np.unique(np.round(x, 9), return_inverse=True)
    share = (group[:, None] == np.arange(len(distinct))).astype(float)
    share /= share.sum(axis=0)
    return distinct, lead @ share, np.sqrt(noise**2 @ share**2)


def _start(x: Floats, lead: Floats) -> Floats:
    """Per row the x from which on ``lead`` > 0: -inf if everywhere, inf if not even at the last x."""
    behind = lead <= 0
    last = lead.shape[1] - 1 - behind[:, ::-1].argmax(axis=1)  # the last x at which it is behind
    rows, left = np.arange(len(lead)), np.minimum(last, lead.shape[1] - 2)
    y0, y1 = lead[rows, left], lead[rows, left + 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        crossing = x[left] + (x[left + 1] - x[left]) * y0 / (y0 - y1)
    crossing = np.where(behind[:, -1], math.inf, crossing)
    return np.where(behind.any(axis=1), crossing, -math.inf)


def _side(log_side: float) -> float | None:
    return math.exp(log_side) if math.isfinite(log_side) else None
