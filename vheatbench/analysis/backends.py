"""Which backend of heat conduction is fastest at which grid, and whether ``auto`` chooses well."""

from __future__ import annotations

from dataclasses import dataclass

from vheatbench.analysis.crossover import Ratio, overlap, ratio_at
from vheatbench.analysis.groups import Group
from vheatbench.analysis.operators import HEAT, OFFICIAL, is_heat
from vheatbench.analysis.series import Point


@dataclass(frozen=True)
class Fastest:
    """The fastest backend at one grid."""

    resolution: tuple[int, int]
    backend: str
    latency: Point
    """Seconds per step; per image where the batch is the largest that fits."""
    over_official: Ratio | None
    """How many times as fast as ``op/heat-official``; None where that was not measured."""
    rivals: tuple[str, ...]
    """Backends that it cannot be told from: their intervals of the latency overlap with its own."""
    auto: Ratio | None
    """Latency of ``op/heat`` divided by the fastest backend's: 1 where auto chose it. None where not measured."""


def fastest_backends(group: Group) -> list[Fastest]:
    """The fastest backend by latency at every grid at which two of them or more were measured, by growing grid.

    ``op/heat`` is no backend of its own: it stands beside them, to judge the choice that ``auto`` makes. Where the
    backend that it chose was not measured by name, it takes its place.
    """
    named = [r for r in group.records if r.case.subject == HEAT and "kernel" in r.subject]
    chosen = {record.case.resolution: f"{HEAT}-{record.subject['kernel']}" for record in named}
    series = {one.subject: one for one in group.series("latency_s") if is_heat(one.subject)}
    at: dict[tuple[int, int], dict[str, Point]] = {}
    for subject, one in series.items():
        for point in one.points:
            at.setdefault(point.resolution, {})[subject] = point
    found = []
    for size in sorted(at, key=lambda size: (size[0] * size[1], size)):
        stands_in = size in chosen and chosen[size] not in at[size]
        backends = {subject: point for subject, point in at[size].items() if subject != HEAT or stands_in}
        if len(backends) < 2:
            continue
        best = min(backends, key=lambda subject: backends[subject].value)
        rivals = tuple(s for s, point in backends.items() if s != best and overlap(point, backends[best]))
        over = ratio_at(series[OFFICIAL], series[best], size) if OFFICIAL in backends else None
        auto = ratio_at(series[HEAT], series[best], size) if HEAT in at[size] and not stands_in else None
        found.append(Fastest(size, best, backends[best], over, rivals, auto))
    return found
