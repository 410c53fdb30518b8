"""One section of the page: charts, exponents, crossovers and findings of one group of records."""

from __future__ import annotations

from collections.abc import Sequence

from vheatbench.analysis.crossover import Crossover
from vheatbench.analysis.findings import crossovers_of, model_findings, scaling_of
from vheatbench.analysis.groups import Group
from vheatbench.analysis.operator_findings import operator_crossovers, operator_findings
from vheatbench.analysis.operators import HEAT, OFFICIAL, is_heat, theory_of
from vheatbench.analysis.scaling import PowerFit, Scaling
from vheatbench.analysis.series import Series
from vheatbench.report import numbers
from vheatbench.report.charts import LOOKS, scaling_chart
from vheatbench.report.operator_parts import add_operator_parts
from vheatbench.report.parts import Chart, Section, Table

FITTED = ("latency_s", "peak_memory_bytes", "macs")
"""Metrics whose growth is fitted: costs. Throughput is the inverse of latency at a fixed batch."""

OF_OPERATORS = ("latency_s", "peak_memory_bytes", "macs", "energy_per_image_j")
"""Metrics that are charted for operators."""


def section_of(group: Group, id_: str, subjects: Sequence[str], several: bool) -> Section:
    """Everything the page shows of one group.

    Args:
        group: records of one variant on one device.
        id_: unique on the page.
        subjects: all subjects of the page, for constant colours.
        several: whether the run has several groups, so that the title names the device.
    """
    section = Section(id_, f"{group.title} on {group.device}" if several else group.title)
    exponents: list[tuple[str, ...]] = []
    for metric in OF_OPERATORS if group.kind == "operator" else LOOKS:
        fits: dict[str, Scaling] = {}
        if metric in FITTED:
            fits = {series.subject: scaling for series, scaling in scaling_of(group, metric)}
        series = [one for one in group.series(metric) if one.points]
        # one size is a point, not a curve: it stands in the table
        if max((len(one.points) for one in series), default=0) < 2:
            continue
        section.charts += _charts(id_, metric, series, fits, subjects, group)
        for one in series:
            section.fit_warnings += one.warnings
            scaling = fits.get(one.subject)
            if scaling is not None:
                exponents.append(_exponent_row(metric, one, scaling, group))
                section.fit_warnings += [f"{one.subject}, {LOOKS[metric].title.lower()}: {w}" for w in scaling.warnings]
    operators = group.kind == "operator"
    if operators:
        add_operator_parts(section, group, subjects)
    if exponents:
        section.tables.append(_exponent_table(id_, group, exponents))
    crossings = operator_crossovers(group) if operators else crossovers_of(group)
    if section.charts and crossings:
        section.tables.append(_crossover_table(id_, group, crossings))
    shown = {chart.id for chart in section.charts} | {table.id for table in section.tables}
    for finding in operator_findings(group) if operators else model_findings(group):
        anchor = f"{id_}-{finding.chart}"
        section.findings.append((finding, anchor if anchor in shown else ""))
    return section


def _charts(
    id_: str, metric: str, series: list[Series], fits: dict[str, Scaling], subjects: Sequence[str], group: Group
) -> list[Chart]:
    """One chart; with several backends of heat conduction a second one of their latency, and the first without them."""
    backends = [one for one in series if is_heat(one.subject)]
    compared = [one for one in series if not is_heat(one.subject) or one.subject in (HEAT, OFFICIAL)]
    if group.kind == "model" or not compared or len(compared) == len(series):
        return [_chart(f"{id_}-{metric}", "", metric, series, fits, subjects, group)]
    found = [_chart(f"{id_}-{metric}", "", metric, compared, fits, subjects, group)]
    if metric == "latency_s":
        found.append(_chart(f"{id_}-backends", ", backends of heat", metric, backends, fits, subjects, group))
    return found


def _chart(
    id_: str,
    what: str,
    metric: str,
    series: list[Series],
    fits: dict[str, Scaling],
    subjects: Sequence[str],
    group: Group,
) -> Chart:
    look, axis = LOOKS[metric], series[0].axis
    pairs = [(one, fits.get(one.subject)) for one in series]
    svg = scaling_chart(id_, metric, pairs, subjects)
    against = "resolution" if group.kind == "model" else "the token grid"
    caption = f"{look.title}{what} in {look.axis} against {against}, both logarithmic; {group.title}."
    if fits:
        caption += (
            " Lines: the fitted power of the token count N, exponent and 95 % interval in the legend."
            if group.kind == "model"
            else " Lines join the measured grids; legend: fitted power of the token count N, with its 95 % interval."
        )
    if look.guides:
        caption += " Dotted: growth as N, N^1.5 and N²."
    if metric == "peak_memory_bytes":
        caption += (
            f" Growth of the process over its size after the {axis.subject} was built: activations and workspaces, "
            "no weights."
            if group.device == "cpu"
            else " Most bytes alive at once in torch's allocator: weights, input, activations, workspaces."
        )
    rows = [
        (one.subject, f"{p.resolution[0]}×{p.resolution[1]}", f"{p.tokens:.0f}",
         numbers.value_of(p, look.factor), numbers.interval_of(p, look.factor), str(p.n_rounds))
        for one in series for p in one.points
    ]  # fmt: skip
    header = (axis.subject, axis.heading, "tokens N", f"{look.title.lower()} ({look.axis})", "interval", "rounds")
    title = look.title + what
    return Chart(id_, title, svg, caption, _describe(title, series, fits, look.factor, look.axis), header, rows)


def _describe(title: str, series: list[Series], fits: dict[str, Scaling], factor: float, unit: str) -> str:
    """The chart in words, for those who cannot see it."""
    words = []
    for one in series:
        first, last = one.points[0], one.points[-1]
        text = (
            f"{one.subject} goes from {numbers.value_of(first, factor)} at {one.axis.near(first.side)} "
            f"to {numbers.value_of(last, factor)} {unit} at {one.axis.near(last.side)}"
        )
        fit = fits[one.subject].power if one.subject in fits else None
        words.append(text + (f", as N^{fit.exponent:.2f}" if isinstance(fit, PowerFit) else ""))
    return f"{title}: " + "; ".join(words) + "."


def _exponent_row(metric: str, series: Series, scaling: Scaling, group: Group) -> tuple[str, ...]:
    local = scaling.local_exponents
    theory = [theory_of(series.subject, group.records[0].case.part) or "—"] if group.kind == "operator" else []
    if metric == "peak_memory_bytes" and theory:
        theory = ["—"]
    return (
        series.subject,
        LOOKS[metric].title,
        numbers.exponent_of(scaling.power),
        *theory,
        f"{local[0]:.2f} → {local[1]:.2f}" if local is not None else "—",
        numbers.exponent_of(scaling.overhead),
        f"{series.tokens[0]:.0f} to {series.tokens[-1]:.0f}",
        str(len(series.points)),
    )


def _exponent_table(id_: str, group: Group, rows: list[tuple[str, ...]]) -> Table:
    caption = (
        f"α with its 95 % interval, per {group.kind}. “Local” is the slope at the small and at the large end; "
        "“with overhead” fits a + c·N^α."
    )
    theory = []
    if group.kind == "operator":
        theory = ["theory"]
        caption += (
            " Theory counts multiply-adds on large grids; where memory limits an operator its time grows as its "
            "bytes, as N."
        )
    fits = ("α (interval)", *theory, "local α, small → large", "α with overhead", "N fitted", "points")
    return Table(f"{id_}-exponents", "Exponents: cost = c·N^α", caption, (group.kind, "cost", *fits), rows)


def _crossover_table(id_: str, group: Group, crossings: list[Crossover]) -> Table:
    what = "grid on one operator" if group.kind == "operator" else "size on one model"
    like = "" if group.kind == "operator" else " of like cost"
    caption = f"From which {what} beats another{like}, by interpolating between the measured {crossings[0].axis.size}s."
    rows = [(LOOKS[found.metric].title, found.sentence) for found in crossings]
    return Table(f"{id_}-crossovers", "Crossovers", caption, ("metric", "result"), rows, words=True)
