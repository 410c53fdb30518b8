"""One section of the page: charts, exponents, crossovers and findings of one group of records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from vheatbench import numbers
from vheatbench.analysis.crossover import Crossover
from vheatbench.analysis.findings import Finding, crossovers_of, model_findings, scaling_of
from vheatbench.analysis.groups import ChartGroup, pairs_of
from vheatbench.analysis.operator_findings import operator_crossovers, operator_findings
from vheatbench.analysis.operators import HEAT, OFFICIAL, is_heat, theory_of
from vheatbench.analysis.scaling import Scaling
from vheatbench.analysis.series import Series
from vheatbench.metrics import info_of, names
from vheatbench.present.parts import Chart, Section, Table
from vheatbench.present.theme import style_of
from vheatbench.report.charts import Curve, View, chart_of
from vheatbench.report.operator_parts import add_operator_parts
from vheatbench.report.story import operator_growth
from vheatbench.store.per_image import PER_IMAGE, step_name

MOST_CURVES = 24
"""On one chart: as many as can be told apart (:func:`vheatbench.present.theme.style_of`)."""


def section_of(
    group: ChartGroup, id_: str, subjects: Sequence[str], several: bool, views: Sequence[View] = ("log",)
) -> Section:
    """Everything the page shows of one group.

    Args:
        group: records of one variant on one device.
        id_: unique on the page.
        subjects: all subjects of the page, for constant colours.
        several: whether the run has several groups, so that the title names the device.
        views: how each chart against size is drawn.
    """
    section = Section(id_, f"{group.title} on {group.device}" if several else group.title)
    measured = len({record.case.subject for record in group.records})
    group = most_telling(group)
    if measured > MOST_CURVES:
        section.notes.append(f"{MOST_CURVES} of {measured} {group.kind}s are compared here; the records have all.")
    exponents: list[tuple[str, ...]] = []
    for metric in charted(group):
        fits: dict[str, Scaling] = {}
        if metric in names("fitted"):
            fits = {series.subject: scaling for series, scaling in scaling_of(group, metric)}
        series = [one for one in group.series(metric) if one.points]
        # one size is a point, not a curve: it stands in the table
        if max((len(one.points) for one in series), default=0) < 2:
            continue
        samples = samples_of(group, metric)
        curves = [
            Curve(one, style_of(one.subject, subjects), fits.get(one.subject), samples.get(one.subject, {}))
            for one in series
        ]
        section.charts += _charts(id_, metric, curves, group, views)
        for one in series:
            section.fit_warnings += one.warnings
            scaling = fits.get(one.subject)
            if scaling is not None:
                exponents.append(_exponent_row(one, scaling, group))
                section.fit_warnings += [f"{one.subject}, {one.info.title}: {w}" for w in scaling.warnings]
    operators = group.kind == "operator"
    if operators:
        add_operator_parts(section, group, subjects)
    if exponents:
        section.tables.append(_exponent_table(id_, group, exponents))
    crossings = operator_crossovers(group) if operators else crossovers_of(group)
    if section.charts and crossings:
        section.tables.append(_crossover_table(id_, group, crossings))
    shown = {chart.id for chart in section.charts} | {table.id for table in section.tables}
    growth = operator_growth(group, id_) if operators else None
    if growth is not None:
        section.findings.append((Finding(growth.text, "latency_s", important=True), growth.anchor))
    for finding in operator_findings(group) if operators else model_findings(group):
        anchor = f"{id_}-{finding.chart}"
        section.findings.append((finding, anchor if anchor in shown else ""))
    return section


def _charts(id_: str, metric: str, curves: list[Curve], group: ChartGroup, views: Sequence[View]) -> list[Chart]:
    """One chart; with several backends of heat conduction a second one of their latency, and the first without them."""

    def chart(key: str, drawn: list[Curve], what: str = "") -> Chart:
        title = curves[0].series.info.capitalised + what
        return chart_of(f"{id_}-{key}", title, drawn, views, _caption(title, metric, curves[0], group, len(views) > 1))

    compared = [one for one in curves if not is_heat(one.name) or one.name in (HEAT, OFFICIAL)]
    if group.kind == "model" or not compared or len(compared) == len(curves):
        return [chart(metric, curves)]
    backends = [one for one in curves if is_heat(one.name)]
    return [
        chart(metric, compared),
        *([chart("backends", backends, ", backends of heat")] if metric == "latency_s" else []),
    ]


def most_telling(group: ChartGroup) -> ChartGroup:
    """The group with as many subjects as one chart can show: those that are compared first, in their own order."""
    subjects = list(dict.fromkeys(record.case.subject for record in group.records))
    if len(subjects) <= MOST_CURVES:
        return group
    compared = [name for pair in pairs_of(group) for name in (pair.focus, pair.baseline)]
    chosen = set(list(dict.fromkeys([*compared, *subjects]))[:MOST_CURVES])
    return replace(group, records=tuple(record for record in group.records if record.case.subject in chosen))


def cost_of(group: ChartGroup) -> int:
    """What drawing a group costs: each chart as much as six curves, and its curves."""
    curves = min(MOST_CURVES, len({record.case.subject for record in group.records}))
    drawn = (max((len(one.points) for one in group.series(name)), default=0) > 1 for name in charted(group))
    return (6 + curves) * sum(drawn)


def charted(group: ChartGroup) -> list[str]:
    """Metrics that are drawn against size: of a step, each as the group compares it (``ChartGroup.named``)."""
    return names("charted_operators" if group.kind == "operator" else "charted")


def samples_of(group: ChartGroup, metric: str) -> dict[str, dict[tuple[int, int], int]]:
    """How many raw samples stand behind each point, by subject and size; nothing where a metric has none."""
    source = group.named("latency_s" if metric == "throughput_images_per_s" else metric)
    found: dict[str, dict[tuple[int, int], int]] = {}
    for record in group.records:
        if record.status == "ok" and source in record.samples:
            own, size = found.setdefault(record.case.subject, {}), record.case.resolution
            own[size] = own.get(size, 0) + len(record.samples[source].values)
    return found


def _caption(title: str, metric: str, curve: Curve, group: ChartGroup, switched: bool) -> str:
    info, axis = curve.series.info, curve.series.axis
    against = "resolution" if group.kind == "model" else "the token grid"
    first = " at first" if switched else ""
    caption = f"{title} in {info.unit} against {against}, both logarithmic{first}; {group.title}."
    if metric in names("fitted"):
        caption += (
            " Lines: the fitted power of the token count N, exponent and 95 % interval in the legend."
            if group.kind == "model"
            else " Lines join the measured grids; legend: fitted power of the token count N, with its 95 % interval."
        )
    if "guided" in info.roles:
        caption += " Dotted: growth as N, N^1.5 and N²."
    if metric == "peak_memory_bytes":
        caption += (
            " Resident set over that before the engine's session: its weights, packed copies and arena included."
            if group.device == "cpu" and group.records[0].case.exported
            else f" Growth of the process over its size after the {axis.subject} was built: activations and "
            "workspaces, no weights."
            if group.device == "cpu"
            else " Most bytes alive at once in torch's allocator: weights, input, activations, workspaces."
        )
    if group.per_image and metric in PER_IMAGE:
        caption += " Of a step of the largest batch that fits, over its images: each size has a batch of its own."
    return caption


def _exponent_row(series: Series, scaling: Scaling, group: ChartGroup) -> tuple[str, ...]:
    local = scaling.local_exponents
    theory = [theory_of(series.subject, group.records) or "—"] if group.kind == "operator" else []
    if step_name(series.metric) == "peak_memory_bytes" and theory:
        theory = ["—"]
    return (
        series.subject,
        series.info.capitalised,
        numbers.exponent_of(scaling.power),
        *theory,
        f"{local[0]:.2f} → {local[1]:.2f}" if local is not None else "—",
        numbers.exponent_of(scaling.overhead, "open"),
        f"{series.tokens[0]:.0f} to {series.tokens[-1]:.0f}",
        str(len(series.points)),
    )


def _exponent_table(id_: str, group: ChartGroup, rows: list[tuple[str, ...]]) -> Table:
    caption = (
        f"α with its 95 % interval, per {group.kind}. “Local” is the slope of a curve through all points at an end; "
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


def _crossover_table(id_: str, group: ChartGroup, crossings: list[Crossover]) -> Table:
    what = "grid on one operator" if group.kind == "operator" else "size on one model"
    like = "" if group.kind == "operator" else " of like cost"
    caption = f"From which {what} beats another{like}, by interpolating between the measured {crossings[0].axis.size}s."
    rows = [(info_of(found.metric).capitalised, found.sentence) for found in crossings]
    return Table(f"{id_}-crossovers", "Crossovers", caption, ("metric", "result"), rows, words=True)
