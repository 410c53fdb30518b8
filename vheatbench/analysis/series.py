"""From records to series: one metric of one subject over resolutions, ready to be fitted or compared."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from vheatbench.analysis.axis import PIXELS, Axis, axis_of
from vheatbench.metrics import MetricInfo, info_of
from vheatbench.stats import median, median_interval
from vheatbench.store.per_image import compared
from vheatbench.store.schema import Direction, Metric, Record


@dataclass(frozen=True)
class Point:
    """One measured resolution. ``value``, ``low`` and ``high`` are in the unit of the series."""

    resolution: tuple[int, int]
    """Height and width in the unit of the series' axis."""
    tokens: float
    """``Case.tokens``."""
    value: float
    """Median over the rounds."""
    low: float | None = None
    high: float | None = None
    """Ends of the interval; both None where no round came with one. Equal to ``value`` if deterministic."""
    n_rounds: int = 1
    confidence: float = 0.95
    """What the interval covers at least. Small for few rounds, see :func:`series_from`."""
    records: tuple[Record, ...] = field(default=(), repr=False, compare=False)
    """Of all rounds: those that took turns with others give the ratio (:mod:`vheatbench.analysis.paired_ratio`)."""

    @property
    def side(self) -> float:
        """Side of the square of equal area, in the unit of the series' axis."""
        return math.sqrt(self.resolution[0] * self.resolution[1])


@dataclass(frozen=True)
class Series:
    """Points of one subject, variant, device and metric, by growing area."""

    subject: str
    variant: str
    """``Case.variant``: batch, dtype, mode and every other axis but subject and resolution."""
    metric: str
    unit: str
    points: tuple[Point, ...]
    device: str = "cpu"
    """Kind of device. ``Case.variant`` does not name it, and two devices must not share a curve."""
    direction: Direction = "neutral"
    deterministic: bool = False
    warnings: tuple[str, ...] = ()
    axis: Axis = PIXELS
    """What the resolutions of the points are."""

    @property
    def info(self) -> MetricInfo:
        """How the metric is called and shown."""
        return info_of(self.metric, self.unit)

    @property
    def tokens(self) -> list[float]:
        return [point.tokens for point in self.points]

    @property
    def values(self) -> list[float]:
        """In ``unit``."""
        return [point.value for point in self.points]


def series_from(records: Iterable[Record], metric: str) -> list[Series]:
    """One series of ``metric`` per subject, variant and device, in the order of first appearance.

    Records are taken as they are compared (:func:`vheatbench.store.per_image.compared`). Those that are not ``ok`` and
    metrics that are unavailable give no point. A case measured in several
    rounds gives one point, its median over rounds, with this interval:

    - one round: the metric's own interval (which knows nothing of the spread between processes);
    - 2 to 5 rounds: the hull of the rounds' intervals. It contains the range of the round values, whose
      coverage of the median is 1 - 2^(1 - rounds), so no more than that (or the metric's own coverage, if
      less) is claimed as ``confidence``: 0.5 for 2 rounds, 0.75 for 3;
    - 6 rounds and more: the order-statistic interval of the median of the round values.

    Deterministic metrics that disagree between rounds keep their largest value, and the series says so.

    Raises:
        ValueError: the records give ``metric`` in different units.
    """
    curves: dict[tuple[str, str, str], dict[tuple[int, int], list[Record]]] = defaultdict(dict)
    for record in map(compared, records):
        found = record.metrics.get(metric)
        if record.status == "ok" and found is not None and found.value is not None:
            case = record.case
            by_size = curves[(case.subject, case.variant, case.device)]
            by_size.setdefault(case.resolution, []).append(record)
    return [_series(*key, metric, by_size) for key, by_size in curves.items()]


def point_of(records: Sequence[Record], name: str) -> Point | None:
    """The point of one case, from all of its rounds, as :func:`series_from` makes it; None where none has a value.

    Args:
        records: of one case, as they are compared.
        name: of the metric.

    Raises:
        ValueError: they give the metric in different units.
    """
    found = [record for record in records if record.status == "ok" and _has_value(record, name)]
    if not found:
        return None
    metrics = [record.metrics[name] for record in found]
    _unit_of(metrics, name, found[0].case.subject)
    return _point(found, metrics, all(metric.deterministic for metric in metrics))


def _has_value(record: Record, name: str) -> bool:
    metric = record.metrics.get(name)
    return metric is not None and metric.value is not None


def _unit_of(metrics: Sequence[Metric], name: str, subject: str) -> str:
    units = {metric.unit for metric in metrics}
    if len(units) > 1:
        raise ValueError(f"{name} of {subject} comes in different units: {', '.join(sorted(units))}")
    return metrics[0].unit


def _point(records: Sequence[Record], metrics: Sequence[Metric], deterministic: bool) -> Point:
    case, own = records[0].case, tuple(records)
    values = [metric.value for metric in metrics if metric.value is not None]
    if deterministic:
        most = max(values)
        return Point(case.resolution, case.tokens, most, most, most, len(values), 1.0, own)
    return replace(_noisy_point(case.resolution, case.tokens, values, metrics), records=own)


def _series(subject: str, variant: str, device: str, name: str, by_size: dict[tuple[int, int], list[Record]]) -> Series:
    everything = [record.metrics[name] for records in by_size.values() for record in records]
    unit = _unit_of(everything, name, subject)
    deterministic = all(metric.deterministic for metric in everything)
    points, warnings = [], []
    for size in sorted(by_size, key=lambda size: (size[0] * size[1], size)):
        metrics = [record.metrics[name] for record in by_size[size]]
        values = [metric.value for metric in metrics if metric.value is not None]
        if deterministic and min(values) != max(values):
            warnings.append(
                f"{name} of {subject} should be deterministic, but at {size[0]}x{size[1]} its rounds "
                f"gave {min(values):g} to {max(values):g} {unit}; the largest is shown"
            )
        points.append(_point(by_size[size], metrics, deterministic))
    direction, notes, axis = everything[0].direction, tuple(warnings), axis_of(by_size[points[0].resolution][0].case)
    return Series(subject, variant, name, unit, tuple(points), device, direction, deterministic, notes, axis)


def _noisy_point(size: tuple[int, int], tokens: float, values: list[float], metrics: Sequence[Metric]) -> Point:
    n = len(values)
    if n >= 6:
        spread = median_interval(values)
        low, high = spread.low, spread.high
        return Point(size, tokens, spread.value, low, high, n, spread.confidence)
    own = [
        (metric.low, metric.high, metric.confidence if metric.confidence is not None else 0.95)
        for metric in metrics
        if metric.low is not None and metric.high is not None
        # An interval of a single sample covers nothing, and an infinite one says nothing.
        if metric.confidence != 0 and math.isfinite(metric.low) and math.isfinite(metric.high)
    ]
    ends = values if n > 1 else []
    lows, highs = [*ends, *(low for low, _, _ in own)], [*ends, *(high for _, high, _ in own)]
    if not lows:
        return Point(size, tokens, values[0])
    claims = [confidence for _, _, confidence in own]
    if n > 1:
        claims.append(median_interval(values).confidence)
    return Point(size, tokens, median(values), min(lows), max(highs), n, min(claims))
