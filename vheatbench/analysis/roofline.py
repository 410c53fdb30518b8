"""The roofline model: how near an operator comes to what the device's measured ceilings allow.

S. Williams, A. Waterman, D. Patterson, "Roofline: an insightful visual performance model for multicore
architectures", Communications of the ACM 52(4), 2009.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vheatbench.analysis.axis import GRID
from vheatbench.analysis.groups import ChartGroup
from vheatbench.analysis.series import Point, series_from

Bound = Literal["memory", "compute"]


@dataclass(frozen=True)
class Roof:
    """What the device was seen to do at most, in one dtype."""

    bandwidth: Point
    """Of a large copy, bytes/s (read and written)."""
    rate: Point
    """Of a large matrix product, FLOP/s."""

    @property
    def ridge(self) -> float:
        """Intensity in FLOP/byte from which on arithmetic and not memory is the limit."""
        return self.rate.value / self.bandwidth.value

    def attainable(self, intensity: float) -> float:
        """Most FLOP/s that ``intensity`` FLOP/byte allow."""
        return min(self.rate.value, intensity * self.bandwidth.value)


@dataclass(frozen=True)
class Placed:
    """One operator at one grid, placed under the roof."""

    subject: str
    resolution: tuple[int, int]
    flop: float
    """Per step, by closed form; per image where the batch is the largest that fits, and the bytes with it."""
    bytes: float
    """The least traffic of the same, by closed form."""
    rate: float
    """Achieved FLOP/s."""
    bandwidth: float
    """Achieved bytes/s, of the least traffic: what is moved beyond it does not count as achieved."""
    attainable: float
    """FLOP/s that the roof allows at this intensity."""
    fraction: float
    """``rate`` divided by ``attainable``."""
    low: float | None
    high: float | None
    """Ends of the fraction's interval, from the latency's and the ceiling's, the most cautious of both; None where
    either has none."""
    bound: Bound
    """Which part of the roof lies above it."""

    @property
    def intensity(self) -> float:
        """FLOP per byte."""
        return self.flop / self.bytes


@dataclass(frozen=True)
class Roofline:
    """A group of operators under the roof of their run, device and dtype."""

    roof: Roof
    points: tuple[Placed, ...]
    """By operator in the order of the group, then by growing grid."""
    notes: tuple[str, ...]


@dataclass(frozen=True)
class NoRoofline:
    """Why there is none, in words."""

    reason: str


def roofline_of(group: ChartGroup) -> Roofline | NoRoofline:
    """Place every operator of a group that has a latency, FLOPs and bytes under the group's ceilings."""
    roof = _roof(group)
    if isinstance(roof, NoRoofline):
        return roof
    points = []
    flop = _by_place(group, "flops_per_step")
    traffic = _by_place(group, "min_bytes")
    for place, latency in _by_place(group, "latency_s").items():
        if place in flop and place in traffic and min(flop[place].value, traffic[place].value, latency.value) > 0:
            points.append(_placed(*place, flop[place].value, traffic[place].value, latency, roof))
    if not points:
        return NoRoofline("no operator has a latency, flops_per_step and min_bytes above 0")
    return Roofline(roof, tuple(points), tuple(_notes(points)))


def _roof(group: ChartGroup) -> Roof | NoRoofline:
    """The best of each ceiling: what was reached is possible."""
    found = []
    for metric, subject in (("bandwidth_bytes_per_s", "ceiling/copy"), ("rate_flop_per_s", "ceiling/matmul")):
        points = [point for series in series_from(group.ceilings, metric) for point in series.points if point.value > 0]
        if not points:
            return NoRoofline(_why_missing(group, subject))
        found.append(max(points, key=lambda point: point.value))
    return Roof(*found)


def _why_missing(group: ChartGroup, subject: str) -> str:
    dtype = group.records[0].case.dtype
    tried = [record for record in group.ceilings if record.case.subject == subject]
    if not tried:
        return f"this run did not measure {subject} in {dtype} ('ceilings: true' in a suite adds it)"
    reason = next((record.reason for record in tried if record.reason), "it has no value")
    return f"{subject} in {dtype} was not measured: {reason}"


def _by_place(group: ChartGroup, metric: str) -> dict[tuple[str, tuple[int, int]], Point]:
    return {(series.subject, point.resolution): point for series in group.series(metric) for point in series.points}


def _placed(
    subject: str, resolution: tuple[int, int], flop: float, traffic: float, latency: Point, roof: Roof
) -> Placed:
    intensity = flop / traffic
    bound: Bound = "memory" if intensity < roof.ridge else "compute"
    ceiling = roof.bandwidth if bound == "memory" else roof.rate
    # of the least traffic or the arithmetic, per second: the same fraction either way
    work = traffic if bound == "memory" else flop
    low = high = None
    if latency.low and latency.high and ceiling.low and ceiling.high:
        low, high = work / latency.high / ceiling.high, work / latency.low / ceiling.low
    return Placed(
        subject,
        resolution,
        flop,
        traffic,
        flop / latency.value,
        traffic / latency.value,
        roof.attainable(intensity),
        work / latency.value / ceiling.value,
        low,
        high,
        bound,
    )


def _notes(points: list[Placed]) -> list[str]:
    notes = []
    words = {
        "memory": "a copy too large for any cache was the ceiling, and what fits into a cache moves faster",
        "compute": "the large matrix product was not the fastest arithmetic of this device",
    }
    for bound, why in words.items():
        above = [f"{p.subject} at {GRID.words(p.resolution)}" for p in points if p.bound == bound and p.fraction > 1]
        if above:
            more = f" and {len(above) - 4} more" if len(above) > 4 else ""
            notes.append(f"Above the roof, bound by {bound}: {', '.join(above[:4])}{more}. Of these {why}.")
    return notes
