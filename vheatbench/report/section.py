"""One section of the page: charts, exponents, crossovers and findings of one group of records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from vheatbench import numbers
from vheatbench.analysis.crossover import Crossover
from vheatbench.analysis.findings import crossovers_of, model_findings, scaling_of
from vheatbench.analysis.groups import Group, pairs_of
from vheatbench.analysis.operator_findings import operator_crossovers, operator_findings
from vheatbench.analysis.operators import HEAT, OFFICIAL, is_heat, theory_of
from vheatbench.analysis.scaling import PowerFit, Scaling
from vheatbench.analysis.series import Point, Series
from vheatbench.present.parts import Chart, Section, Table
from vheatbench.present.theme import style_of
from vheatbench.report.charts import LOOKS, View, scaling_chart
from vheatbench.report.operator_parts import add_operator_parts
from vheatbench.store.per_image import PER_IMAGE, step_name

FITTED = ("latency_s", "peak_memory_bytes", "macs")
"""Metrics whose growth is fitted: costs. Throughput is the inverse of latency at a fixed batch."""

OF_MODELS = (
    "throughput_images_per_s", "latency_s", "peak_memory_bytes", "macs", "energy_per_image_j", "largest_batch",
)  # fmt: skip
"""Metrics that are charted for models: of a step, each as the group compares it (``Group.named``)."""
OF_OPERATORS = ("latency_s", "peak_memory_bytes", "macs", "energy_per_image_j")
"""The same for operators."""

MOST_CURVES = 24
"""On one chart: as many as can be told apart (:func:`vheatbench.present.theme.style_of`)."""
MOST_POINTS = 150
"""In the table behind a chart. The records' table has all."""


def section_of(
    group: Group, id_: str, subjects: Sequence[str], several: bool, views: Sequence[View] = ("log",)
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
    for metric in OF_OPERATORS if group.kind == "operator" else OF_MODELS:
        fits: dict[str, Scaling] = {}
        if metric in FITTED:
            fits = {series.subject: scaling for series, scaling in scaling_of(group, metric)}
        series = [one for one in group.series(metric) if one.points]
        # one size is a point, not a curve: it stands in the table
        if max((len(one.points) for one in series), default=0) < 2:
            continue
        section.charts += _charts(id_, metric, series, fits, subjects, group, views)
        for one in series:
            section.fit_warnings += one.warnings
            scaling = fits.get(one.subject)
            if scaling is not None:
                exponents.append(_exponent_row(one, scaling, group))
                section.fit_warnings += [
                    f"{one.subject}, {LOOKS[one.metric].title.lower()}: {w}" for w in scaling.warnings
                ]
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
    id_: str,
    metric: str,
    series: list[Series],
    fits: dict[str, Scaling],
    subjects: Sequence[str],
    group: Group,
    views: Sequence[View],
) -> list[Chart]:
    """One chart; with several backends of heat conduction a second one of their latency, and the first without them."""
    backends = [one for one in series if is_heat(one.subject)]
    compared = [one for one in series if not is_heat(one.subject) or one.subject in (HEAT, OFFICIAL)]
    if group.kind == "model" or not compared or len(compared) == len(series):
        return [_chart(f"{id_}-{metric}", "", metric, series, fits, subjects, group, views)]
    found = [_chart(f"{id_}-{metric}", "", metric, compared, fits, subjects, group, views)]
    if metric == "latency_s":
        found.append(_chart(f"{id_}-backends", ", backends of heat", metric, backends, fits, subjects, group, views))
    return found


def _chart(
    id_: str,
    what: str,
    metric: str,
    series: list[Series],
    fits: dict[str, Scaling],
    subjects: Sequence[str],
    group: Group,
    views: Sequence[View],
) -> Chart:
    look, axis = LOOKS[series[0].metric], series[0].axis
    samples = samples_of(group, metric)

    def said(one: Series, point: Point) -> str:
        return point_in_words(one, point, look.factor, look.axis, samples.get((one.subject, point.resolution)))

    pairs = [(one, fits.get(one.subject)) for one in series]
    styles = {one.subject: style_of(one.subject, subjects) for one in series}
    svg = scaling_chart(id_, series[0].metric, pairs, styles, said, views)
    caption = _caption(what, metric, series, bool(fits), group, len(views) > 1)
    rows = [
        (one.subject, f"{p.resolution[0]}×{p.resolution[1]}", f"{p.tokens:.0f}",
         numbers.value_of(p, look.factor), numbers.interval_of(p, look.factor), str(p.n_rounds),
         str(samples.get((one.subject, p.resolution)) or "—"))
        for one in series for p in one.points
    ]  # fmt: skip
    if len(rows) > MOST_POINTS:
        caption += f" Of its {len(rows)} points the first {MOST_POINTS} are listed here; the records have all."
    header = (
        axis.subject, axis.heading, "tokens N", f"{look.title.lower()} ({look.axis})", "interval", "rounds", "samples",
    )  # fmt: skip
    title = look.title + what
    text = _describe(title, series, fits, look.factor, look.axis)
    return Chart(id_, title, svg, caption, text, header, rows[:MOST_POINTS])


def most_telling(group: Group) -> Group:
    """The group with as many subjects as one chart can show: those that are compared first, in their own order."""
    subjects = list(dict.fromkeys(record.case.subject for record in group.records))
    if len(subjects) <= MOST_CURVES:
        return group
    compared = [name for pair in pairs_of(group) for name in (pair.focus, pair.baseline)]
    chosen = set(list(dict.fromkeys([*compared, *subjects]))[:MOST_CURVES])
    return replace(group, records=tuple(record for record in group.records if record.case.subject in chosen))


def cost_of(group: Group) -> int:
    """What drawing a group costs: each chart as much as six curves, and its curves."""
    curves = min(MOST_CURVES, len({record.case.subject for record in group.records}))
    charted = OF_OPERATORS if group.kind == "operator" else OF_MODELS
    return (6 + curves) * sum(max((len(one.points) for one in group.series(name)), default=0) > 1 for name in charted)


def samples_of(group: Group, metric: str) -> dict[tuple[str, tuple[int, int]], int]:
    """How many raw samples stand behind each point, by subject and size; nothing where a metric has none."""
    source = group.named("latency_s" if metric == "throughput_images_per_s" else metric)
    found: dict[tuple[str, tuple[int, int]], int] = {}
    for record in group.records:
        if record.status == "ok" and source in record.samples:
            key = (record.case.subject, record.case.resolution)
            found[key] = found.get(key, 0) + len(record.samples[source].values)
    return found


def point_in_words(series: Series, point: Point, factor: float, unit: str, samples: int | None) -> str:
    """``vheat-t at 224 px, 196 tokens: 48.1 ms (46.0 to 50.7), 36 samples in 3 rounds``."""
    interval = numbers.interval_of(point, factor)
    rounds = f"{point.n_rounds} round{'s' * (point.n_rounds != 1)}"
    return (
        f"{series.subject} at {series.axis.words(point.resolution)}, {point.tokens:.0f} tokens: "
        f"{numbers.value_of(point, factor)} {unit}{f' ({interval})' if interval else ''}, "
        + (f"{samples} samples in {rounds}" if samples else rounds)
    )


def _caption(what: str, metric: str, series: list[Series], fitted: bool, group: Group, switched: bool) -> str:
    look, axis = LOOKS[series[0].metric], series[0].axis
    against = "resolution" if group.kind == "model" else "the token grid"
    first = " at first" if switched else ""
    caption = f"{look.title}{what} in {look.axis} against {against}, both logarithmic{first}; {group.title}."
    if fitted:
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
    if group.per_image and metric in PER_IMAGE:
        caption += " Of a step of the largest batch that fits, over its images: each size has a batch of its own."
    return caption


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


def _exponent_row(series: Series, scaling: Scaling, group: Group) -> tuple[str, ...]:
    local = scaling.local_exponents
    theory = [theory_of(series.subject, group.records[0].case.part) or "—"] if group.kind == "operator" else []
    if step_name(series.metric) == "peak_memory_bytes" and theory:
        theory = ["—"]
    return (
        series.subject,
        LOOKS[series.metric].title,
        numbers.exponent_of(scaling.power),
        *theory,
        f"{local[0]:.2f} → {local[1]:.2f}" if local is not None else "—",
        numbers.exponent_of(scaling.overhead, "open"),
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
