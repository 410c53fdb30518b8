"""What only a section of operators shows: speed by grid, the fastest backend, the roofline, the kernels that ran."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from vheatbench import numbers
from vheatbench.analysis.axis import GRID
from vheatbench.analysis.crossover import Crossover, Ratio
from vheatbench.analysis.findings import crossings, scaling_of
from vheatbench.analysis.groups import ChartGroup, SubjectPair, heat_of, pairs_of
from vheatbench.analysis.operator_findings import as_fast, baseline_pairs, fastest_backends, significant, speed_ratios
from vheatbench.analysis.operators import HEAT
from vheatbench.analysis.roofline import Placed, Roofline, roofline_of
from vheatbench.metrics import info_of
from vheatbench.present.parts import Chart, Section, Table
from vheatbench.report.roofline_chart import largest_grid, rate_text, rate_unit, roofline_chart


def add_operator_parts(section: Section, group: ChartGroup, subjects: Sequence[str]) -> None:
    """Add them to a section of a group of operators."""
    roofline = roofline_of(group)
    if isinstance(roofline, Roofline):
        section.charts.append(_roofline_chart(f"{section.id}-roofline", roofline, group, subjects))
        section.notes += roofline.notes
    else:
        section.notes.append(f"No roofline: {roofline.reason}.")
    section.notes += _kernels(group)
    tables = (_speed_table(f"{section.id}-speed", group), _fastest_table(f"{section.id}-fastest", group))
    section.tables += [table for table in tables if table is not None]


def _kernels(group: ChartGroup) -> list[str]:
    """Which attention kernels ran: found out while measuring, not assumed."""
    ran: dict[str, dict[str, None]] = {}
    for record in group.records:
        if record.status == "ok" and record.subject.get("kernel"):
            ran.setdefault(record.case.subject, {})[str(record.subject["kernel"])] = None
    if not ran:
        return []
    words = [f"{subject}: {' or '.join(kernels)}" for subject, kernels in ran.items()]
    return [f"Kernels that ran: {'; '.join(words)}."]


def _speed_table(id_: str, group: ChartGroup) -> Table | None:
    """Heat conduction over every other subject, one column per grid."""
    focus = heat_of(group)
    pairs = [pair for pair in pairs_of(group) if pair.focus == focus]
    ratios = {pair: speed_ratios(group, pair) for pair in pairs}
    grids = sorted({size for found in ratios.values() for size in found}, key=lambda size: (size[0] * size[1], size))
    if focus is None or not grids:
        return None
    rows = [
        (f"over {pair.baseline}", *(_ratio_cell(found.get(size)) for size in grids))
        for pair, found in ratios.items()
        if found
    ]
    caption = (
        f"How many times as fast {focus} is as each of the others, by grid: latency over latency, with the most "
        "cautious interval. Under 1: slower. ≈: within the noise."
    )
    return Table(id_, f"Speed of {focus}", caption, ("operator", *(GRID.words(size) for size in grids)), rows)


def _ratio_cell(ratio: Ratio | None) -> str:
    if ratio is None:
        return "—"
    if ratio.low is None or ratio.high is None:
        return f"{significant(ratio.value)}×"
    near = "≈ " if ratio.low <= 1 <= ratio.high else ""
    return f"{near}{significant(ratio.value)}× ({significant(ratio.low)}–{significant(ratio.high)})"


def _fastest_table(id_: str, group: ChartGroup) -> Table | None:
    found = fastest_backends(group)
    if not found:
        return None
    cost = info_of(group.named("latency_s"))
    rows = []
    for row in found:
        noise = f"within the noise of {', '.join(row.rivals)}" if row.rivals else "clear"
        rows.append(
            (
                GRID.words(row.resolution),
                row.backend,
                numbers.with_interval(row.latency, cost),
                _ratio_cell(row.over_official),
                noise,
                _ratio_cell(row.auto),
            )
        )
    caption = (
        "The fastest backend at each grid, and how many times as fast as the official formulation it is. Within the "
        f"noise: intervals of the latency overlap. Last: latency of {HEAT}, whose backend is chosen by rule, over the "
        "fastest's."
    )
    header = ("grid", "fastest backend", cost.heading, "over official", "lead", f"{HEAT} over the fastest")
    return Table(id_, "Which backend of heat conduction is fastest", caption, header, rows)


def _roofline_chart(id_: str, roofline: Roofline, group: ChartGroup, subjects: Sequence[str]) -> Chart:
    roof = roofline.roof
    dtype = group.records[0].case.dtype
    bandwidth = numbers.with_interval(roof.bandwidth, info_of("bandwidth_bytes_per_s"), "GB/s")
    factor, unit = rate_unit(roof)
    rate = numbers.with_interval(roof.rate, replace(info_of("rate_flop_per_s"), factor=factor), unit)
    caption = (
        f"Achieved FLOP/s against FLOP per byte of least traffic, both logarithmic; {group.title}. The roof is what "
        f"this device did in this run in {dtype}: a large copy {bandwidth}, a large matrix product {rate}; they meet "
        f"at {numbers.plain(roof.ridge, 3)} FLOP/byte (dotted). Curves go from the smallest grid to the largest (large "
        f"marker: {GRID.words(largest_grid(roofline))} where no other is named). FLOP and bytes by closed form, "
        "each input, constant and output moved once."
    )
    of = "image" if group.per_image else "step"
    header = (
        "operator", "grid", f"MFLOP per {of}", f"least MiB per {of}", "FLOP/byte", "achieved (GFLOP/s)",
        "achieved (GB/s)", "attainable (GFLOP/s)", "share of attainable", "bound by",
    )  # fmt: skip
    rows = [_roofline_row(point) for point in roofline.points]
    return Chart(id_, "Roofline", roofline_chart(id_, roofline, subjects), caption, _in_words(roofline), header, rows)


def _roofline_row(point: Placed) -> tuple[str, ...]:
    interval = f" ({point.low:.1%} to {point.high:.1%})" if point.low is not None and point.high is not None else ""
    return (
        point.subject,
        GRID.words(point.resolution),
        numbers.plain(point.flop * 1e-6),
        numbers.plain(point.bytes * 2.0**-20),
        numbers.plain(point.intensity, 3),
        numbers.plain(point.rate * 1e-9, 3),
        numbers.plain(point.bandwidth * 1e-9, 3),
        numbers.plain(point.attainable * 1e-9, 3),
        f"{point.fraction:.1%}{interval}".replace("%", " %"),
        point.bound,
    )


def _in_words(roofline: Roofline) -> str:
    """The chart for those who cannot see it."""
    first = {point.subject: point for point in reversed(roofline.points)}
    last = {point.subject: point for point in roofline.points}
    words = [
        f"{subject} goes from {numbers.plain(first[subject].rate * 1e-9, 3)} GFLOP/s at "
        f"{GRID.words(first[subject].resolution)} to {numbers.plain(point.rate * 1e-9, 3)} at "
        f"{GRID.words(point.resolution)}, {100 * point.fraction:.0f} % of what its intensity of "
        f"{numbers.plain(point.intensity, 3)} FLOP/byte allows"
        for subject, point in last.items()
    ]
    roof = roofline.roof
    return (
        f"Roofline under a copy of {rate_text(roof.bandwidth.value)} GB/s and a matrix product of "
        f"{rate_text(roof.rate.value)} GFLOP/s: {'; '.join(words)}."
    )


@dataclass(frozen=True)
class Glance:
    """All groups of operators of a run in one table: heat conduction over each other operator."""

    header: tuple[str, ...]
    rows: list[tuple[str, str, tuple[str, ...]]]
    """Title of a group, id of its section, cells."""


def glance_of(groups: Sequence[tuple[ChartGroup, str]]) -> Glance:
    """The table, of groups of operators each with the id of its section."""
    baselines = list(dict.fromkeys(pair.baseline for group, _ in groups for pair in baseline_pairs(group)))
    rows = []
    for group, id_ in groups:
        focus = heat_of(group)
        fits = {series.subject: scaling.power for series, scaling in scaling_of(group, "latency_s")}
        cells = [focus or "—", numbers.exponent_of(fits[focus]) if focus in fits else "—"]
        pairs = {pair.baseline: pair for pair in baseline_pairs(group) if pair.focus == focus}
        cells += [_glance(group, pairs.get(baseline)) for baseline in baselines]
        rows.append((group.title, id_, tuple(cells)))
    return Glance(("heat", "α of its latency", *(f"over {baseline}" for baseline in baselines)), rows)


def _glance(group: ChartGroup, pair: SubjectPair | None) -> str:
    ratios = speed_ratios(group, pair) if pair is not None else {}
    if pair is None or not ratios:
        return "—"
    size = list(ratios)[-1]
    text = f"{as_fast(ratios[size])} at {GRID.words(size)}"
    found: list[Crossover] = crossings(group, "latency_s", [pair])
    if found and found[0].kind == "crosses" and found[0].value is not None:
        text += f"; faster from {GRID.near(found[0].value)} on"
    return text
