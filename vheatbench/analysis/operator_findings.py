"""What a run says of operators, in plain sentences that the numbers support."""

from __future__ import annotations

from dataclasses import dataclass

from vheatbench.analysis.crossover import Crossover, Ratio, alike, crossover_sentences, ratio_at
from vheatbench.analysis.findings import Finding, common_sizes, crossings, scaling_of
from vheatbench.analysis.groups import ChartGroup, SubjectPair, heat_of, pairs_of
from vheatbench.analysis.operators import ATTENTION, HEAT, OFFICIAL, is_heat, is_kernel, theory_of
from vheatbench.analysis.powerlaw import PowerFit
from vheatbench.analysis.roofline import Roofline, roofline_of
from vheatbench.analysis.scaling import end_exponent
from vheatbench.analysis.series import Point
from vheatbench.text import listed


def operator_findings(group: ChartGroup) -> list[Finding]:
    """Everything there is to say of a group of operators: speed, exponents, crossovers, backends, roofline."""
    found = [
        _speed(group),
        _exponents(group),
        _crossovers(group),
        _backends(group),
        _reached(group),
    ]
    return [finding for finding in found if finding is not None]


def baseline_pairs(group: ChartGroup) -> list[SubjectPair]:
    """Heat conduction against the other operators: the pairs of a group that sentences are about.

    Not those among its own backends, nor kernels of attention where ``op/attention`` itself is there: tables have all.
    """
    measured = {record.case.subject for record in group.records if record.status == "ok"}
    return [
        pair
        for pair in pairs_of(group)
        if not is_heat(pair.baseline) and not (is_kernel(pair.baseline) and ATTENTION in measured)
    ]


def operator_crossovers(group: ChartGroup) -> list[Crossover]:
    """In latency for all pairs of a group; in memory and multiply-adds not among the backends."""
    found = crossings(group, "latency_s", pairs_of(group))
    for metric in ("peak_memory_bytes", "macs"):
        found += crossings(group, metric, baseline_pairs(group))
    return found


def speed_ratios(group: ChartGroup, pair: SubjectPair) -> dict[tuple[int, int], Ratio]:
    """How many times as fast the focus of a pair is as its baseline, at every grid of both, by growing grid."""
    series = {one.subject: one for one in group.series("latency_s")}
    a, b = series.get(pair.focus), series.get(pair.baseline)
    if a is None or b is None:
        return {}
    return {size: ratio_at(b, a, size) for size in common_sizes(a, b)}


def as_fast(ratio: Ratio) -> str:
    """``1.42× (1.40 to 1.44)``, and that it is within the noise where it is."""
    text = f"{significant(ratio.value)}×"
    if ratio.low is None or ratio.high is None:
        return text
    noise = ", within the noise" if ratio.low <= 1 <= ratio.high else ""
    return f"{text} ({significant(ratio.low)} to {significant(ratio.high)}{noise})"


def significant(value: float) -> str:
    """Three digits: ``0.53``, ``1.42``, ``12.3``, ``123``."""
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}"


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


def fastest_backends(group: ChartGroup) -> list[Fastest]:
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
        rivals = tuple(
            s for s, point in backends.items() if s != best and alike(point, backends[best], group.named("latency_s"))
        )
        over = ratio_at(series[OFFICIAL], series[best], size) if OFFICIAL in backends else None
        auto = ratio_at(series[HEAT], series[best], size) if HEAT in at[size] and not stands_in else None
        found.append(Fastest(size, best, backends[best], over, rivals, auto))
    return found


def _compared(group: ChartGroup) -> set[str | None]:
    """Subjects that sentences are about."""
    return {subject for pair in baseline_pairs(group) for subject in (pair.focus, pair.baseline)} or {heat_of(group)}


def _speed(group: ChartGroup) -> Finding | None:
    """At the largest common grid with each operator."""
    at: dict[str, list[str]] = {}
    focus = ""
    for pair in baseline_pairs(group):
        ratios = speed_ratios(group, pair)
        if ratios:
            size = list(ratios)[-1]
            focus = pair.focus
            at.setdefault(f"{size[0]}×{size[1]}", []).append(f"{as_fast(ratios[size])} as fast as {pair.baseline}")
    if not at:
        return None
    parts = [f"At a grid of {grid} {focus} is {', '.join(words)}" for grid, words in at.items()]
    return Finding(". ".join(parts) + ".", "latency_s", important=True)


def _exponents(group: ChartGroup) -> Finding | None:
    """Of heat conduction and of what it is compared with, beside theory and the count of multiply-adds."""
    part = group.records[0].case.part
    compared = _compared(group)
    macs = {series.subject: scaling.power for series, scaling in scaling_of(group, "macs")}
    words, spans, cost = [], set(), ""
    for series, scaling in scaling_of(group, "latency_s"):
        fit = scaling.power
        if series.subject not in compared or not isinstance(fit, PowerFit) or fit.low is None or fit.high is None:
            continue
        cost = series.info.capitalised
        beside = [f"{fit.low:.2f} to {fit.high:.2f}"]
        end = end_exponent(series.points)
        if end is not None and len(series.points) > 3:
            beside.append(f"at the large end {end.value:.2f}")
        if theory := theory_of(series.subject, group.records):
            beside.append(f"theory {theory}")
        counted = macs.get(series.subject)
        if isinstance(counted, PowerFit):
            beside.append(f"multiply-adds {counted.exponent:.2f}")
        words.append(f"{series.subject} N^{fit.exponent:.2f} ({'; '.join(beside)})")
        spans.add(series.axis.span(series.points[0].side, series.points[-1].side))
    if not words:
        return None
    grids = f"grids {spans.pop()}" if len(spans) == 1 else "each over the grids it was measured at"
    text = f"{cost} grows with the number of tokens N ({grids}) as {', '.join(words)}."
    if part == "layer":
        text += " A layer adds projections that are linear in N to its core."
    text += " Theory is for large grids: a fixed overhead, or memory instead of arithmetic as the limit, lowers it."
    return Finding(text, "latency_s")


def _crossovers(group: ChartGroup) -> Finding | None:
    sentences = crossover_sentences(crossings(group, "latency_s", baseline_pairs(group)))
    return Finding(f"Crossovers: {'; '.join(sentences)}.", "latency_s") if sentences else None


def _backends(group: ChartGroup) -> Finding | None:
    """The fastest backend at the smallest and the largest grid."""
    rows = fastest_backends(group)
    if not rows:
        return None
    parts = []
    for row in dict.fromkeys((rows[0], rows[-1])):
        text = f"{row.backend} at {row.resolution[0]}×{row.resolution[1]}"
        if row.over_official is not None and OFFICIAL not in (row.backend, *row.rivals):
            text += f", {as_fast(row.over_official)} as fast as {OFFICIAL}"
        if row.rivals:
            text += f", not to be told from {listed(row.rivals)}"
        parts.append(text)
    return Finding(f"Fastest backend of heat conduction: {'; '.join(parts)}.", "fastest")


def _reached(group: ChartGroup) -> Finding | None:
    """What share of the roof each compared operator reaches at its largest grid."""
    roofline = roofline_of(group)
    if not isinstance(roofline, Roofline):
        return None
    compared = _compared(group)
    last = {point.subject: point for point in roofline.points if point.subject in compared}
    words = [
        f"{point.subject} {100 * point.fraction:.0f} % at {point.resolution[0]}×{point.resolution[1]} "
        f"(bound by {point.bound})"
        for point in last.values()
    ]
    return Finding(f"Reached of what the measured ceilings allow: {', '.join(words)}.", "roofline")
