"""What the models beside vHeat cost against it as the size grows: the one picture of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vheatbench.analysis.crossover import Crossover, Ratio, crossover, ratio_at
from vheatbench.analysis.findings import common_sizes
from vheatbench.analysis.groups import ChartGroup, pairs_of
from vheatbench.analysis.series import Point, Series

MOST_CURVES = 6
"""Of one picture."""


@dataclass(frozen=True)
class RelativeCurve:
    """One subject's latency over the base's, by growing size."""

    series: Series
    points: tuple[tuple[Point, Ratio], ...]
    """The subject's own point at each common size, and its ratio there."""

    @property
    def subject(self) -> str:
        return self.series.subject

    def at(self, size: tuple[int, int]) -> Ratio | None:
        """The ratio at a size; None where it was not measured."""
        return next((ratio for point, ratio in self.points if point.resolution == size), None)


@dataclass(frozen=True)
class RelativeCost:
    """Latencies of a group over that of its vHeat.

    The base is vHeat on equal footing: its official formulation, which runs by the same products as the models beside
    it, where that was measured; else vHeat as it is.
    """

    focus: str
    """The vHeat in question."""
    base: str
    """What is 1."""
    curves: tuple[RelativeCurve, ...]
    """Of the models beside it."""
    own: RelativeCurve | None
    """Of vHeat by its own products, where that is not the base."""
    crossings: tuple[Crossover, ...]
    """From where on the base is faster than each."""

    @property
    def last(self) -> tuple[int, int] | None:
        """The largest size at which each of the models beside it was measured; None where they share none."""
        sizes = [[point.resolution for point, _ in curve.points] for curve in self.curves]
        common = [size for size in sizes[0] if all(size in others for others in sizes[1:])]
        return common[-1] if common else None


def relative_cost(group: ChartGroup) -> RelativeCost | None:
    """Of the first vHeat of a group of models; None where nothing is beside it at two sizes."""
    series = {one.subject: one for one in group.series("latency_s")}
    pairs = pairs_of(group)
    focus = next((pair.focus for pair in pairs), "")
    if focus not in series:
        return None
    official = f"{focus}-official"
    base = official if official in series else focus
    others = [pair.baseline for pair in pairs if pair.focus == focus and pair.baseline not in (base, official)]
    curves = [curve for name in others if name in series and (curve := _curve(series[name], series[base])) is not None]
    # one size is a number, not a curve
    curves = [curve for curve in curves if len(curve.points) > 1][:MOST_CURVES]
    if not curves:
        return None
    crossed = [crossover(series[base], curve.series, better="lower") for curve in curves]
    own = _curve(series[focus], series[base]) if base != focus else None
    return RelativeCost(focus, base, tuple(curves), own, tuple(crossed))


def _curve(one: Series, base: Series) -> RelativeCurve | None:
    sizes: Sequence[tuple[int, int]] = common_sizes(one, base)
    points = {point.resolution: point for point in one.points}
    found = tuple((points[size], ratio_at(one, base, size)) for size in sizes)
    return RelativeCurve(one, found) if found else None
