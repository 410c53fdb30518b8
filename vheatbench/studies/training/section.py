"""The section of trained models: learning curves, and where each ended."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.ticker import LogLocator, MaxNLocator

from vheatbench import numbers
from vheatbench.analysis.findings import Finding
from vheatbench.metrics import MetricInfo, columns, info_of
from vheatbench.numbers import value_of, with_interval
from vheatbench.present.chart import page_chart
from vheatbench.present.parts import Chart, Section, Table
from vheatbench.present.style import set_ticks
from vheatbench.present.theme import style_of
from vheatbench.store.read import Run
from vheatbench.store.schema import Record
from vheatbench.studies.training.record import name_of
from vheatbench.studies.training.seeds import OverSeeds, over_seeds
from vheatbench.studies.training.table import as_planned, row_names, seeds_table

MOST_ROWS = 20
"""Epochs of a model in the table behind a chart: the first, the last and evenly spaced ones between them."""
MOST_TARGETS = 300
"""Points up to which each has its words."""


@dataclass(frozen=True)
class Curve:
    """One value per epoch of a model: the mean over its seeds."""

    name: str
    values: Sequence[float]


def training_sections(run: Run, id_: str) -> list[Section]:
    """Everything the page shows of models that were trained.

    Args:
        run: any run; of one without training nothing is shown.
        id_: unique on the page: how the ids of the sections and their charts start.

    Returns:
        A section for each recipe and data of the run.
    """
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in as_planned(run):
        if record.case.mode == "fit":
            analysis = record.case.analysis
            groups.setdefault((str(analysis.get("recipe")), str(analysis.get("data"))), []).append(record)
    several = len(groups) > 1
    return [
        _section(records, f"{id_}{number}", f"Training: {recipe}" if several else "Training")
        for number, ((recipe, _), records) in enumerate(groups.items())
    ]


def _section(records: Sequence[Record], id_: str, title: str) -> Section:
    section = Section(id_, title)
    names = list(dict.fromkeys(name_of(record) for record in records))
    seeds = over_seeds(records)
    for info in map(info_of, ("top1_accuracy", "train_loss", "ema_top1_accuracy")):
        curves = _curves(records, info)
        if curves:
            section.charts.append(_chart(f"{id_}-{info.name}", info, curves, names, records[0], bool(seeds)))
    summary = seeds_table(f"{id_}-seeds", seeds)
    section.tables += [summary] if summary is not None else []
    section.tables.append(_table(f"{id_}-end", records))
    finding = _seeds_finding(seeds) if seeds else _finding(records)
    if finding is not None:
        section.findings.append((finding, section.charts[0].id if section.charts else ""))
    section.notes = _notes(records)
    for record in records:
        if record.status != "ok":
            section.alerts.append(f"{name_of(record)} was not trained to its end: {record.status}: {record.reason}")
    return section


def _curves(records: Sequence[Record], info: MetricInfo) -> list[Curve]:
    found: dict[str, list[list[float]]] = {}
    for record in records:
        if info.name in record.samples and record.samples[info.name].values:
            found.setdefault(name_of(record), []).append(record.samples[info.name].values)
    # a seed that ended early has no say in what came after
    return [
        Curve(name, [math.fsum(epoch) / len(epoch) * info.factor for epoch in zip(*curves, strict=False)])
        for name, curves in found.items()
    ]


def _notes(records: Sequence[Record]) -> list[str]:
    first = records[0]
    conditions, case = first.conditions, first.case
    images = f"{conditions.get('train_images')} training and {conditions.get('test_images')} test images"
    seeds = sorted({str(record.case.analysis.get("seed")) for record in records})
    text = (
        f"{images} of {case.size} px; batch {case.batch}, {case.dtype}, seed{'s' * (len(seeds) > 1)} "
        f"{', '.join(seeds)}, recipe {case.analysis.get('recipe')}."
    )
    if len(seeds) == 1:
        text += (
            " One training of each model: another seed moves the accuracies too, by an amount that the intervals (of "
            "the test images alone) do not cover."
        )
    return [text]


def _chart(
    id_: str, info: MetricInfo, curves: list[Curve], names: Sequence[str], first: Record, several: bool
) -> Chart:
    is_loss, title = "loss" in info.name, info.capitalised
    svg = _svg(id_, info.heading, curves, names, logarithmic=is_loss)
    rows = [
        (curve.name, str(epoch + 1), numbers.plain(curve.values[epoch]))
        for curve in curves
        for epoch in _spread(len(curve.values))
    ]
    ends = "; ".join(
        f"{curve.name} from {numbers.plain(curve.values[0])} after epoch 1 to {numbers.plain(curve.values[-1])} "
        f"after epoch {len(curve.values)}"
        for curve in curves
    )
    caption = (
        f"{title} after every epoch{', the mean over seeds' if several else ''}, "
        + (
            "logarithmic: mean over the epoch's updates, of smoothed and mixed labels where the recipe has them."
            if is_loss
            else f"on {first.conditions.get('test_images')} images that were not learnt from."
        )
        + (
            f" Of more than {MOST_ROWS} epochs the table lists evenly spaced ones."
            if len(rows) < _points(curves)
            else ""
        )
    )
    return Chart(id_, title, svg, caption, f"{title}: {ends}.", ("model", "epoch", info.heading), rows)


def _points(curves: Sequence[Curve]) -> int:
    return sum(len(curve.values) for curve in curves)


def _spread(count: int) -> list[int]:
    if count <= MOST_ROWS:
        return list(range(count))
    return [i * (count - 1) // (MOST_ROWS - 1) for i in range(MOST_ROWS)]


def _svg(name: str, words: str, curves: Sequence[Curve], names: Sequence[str], logarithmic: bool) -> str:
    few = _points(curves) <= MOST_TARGETS
    with page_chart(name, [curve.name for curve in curves]) as chart:
        axes = chart.axes
        for curve in curves:
            style = style_of(curve.name, names)
            epochs = range(1, len(curve.values) + 1)
            line = axes.plot(
                epochs, curve.values, color=style.colour, linestyle=style.dash, marker=style.marker if few else None,
                markerfacecolor=style.face, markersize=5, label=curve.name,
            )  # fmt: skip
            chart.belongs(curve.name, line)
            for epoch, value in zip(epochs, curve.values, strict=True) if few else ():
                chart.target(curve.name, epoch, value, f"{curve.name}, epoch {epoch}: {numbers.plain(value)}")
        if logarithmic and all(value > 0 for curve in curves for value in curve.values):
            axes.set_yscale("log")
            set_ticks(axes.yaxis, LogLocator(subs=(1, 2, 5), numticks=12))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("epoch")
        axes.set_ylabel(words)
        axes.grid(True)
    return chart.svg


def _table(id_: str, records: Sequence[Record]) -> Table:
    shown = columns("training", records)
    heads, names_of = row_names(records)
    rows = [(*names_of(record), *(with_interval(record.metrics.get(i.name), i) for i in shown)) for record in records]
    caption = (
        "After the last epoch; in brackets the 95 % interval: of an accuracy by the number of test images, of a time "
        "over epochs. The best epoch was chosen on the test images themselves, so it is optimistic."
    )
    return Table(id_, "Where they ended", caption, (*heads, *(info.heading for info in shown)), rows)


def _seeds_finding(seeds: Sequence[OverSeeds]) -> Finding:
    """What the first model reaches over the seeds, and which others differ from it."""
    first, *others = seeds
    text = (
        f"Over {len(first.by_seed)} seeds {first.name} answers {100 * first.mean.value:.1f} % of the test images right"
    )
    differing = [
        f"{one.name} {100 * one.change.value:+.1f} points ({100 * one.change.low:+.1f} to {100 * one.change.high:+.1f})"
        for one in others
        if one.change is not None
    ]
    text += f"; against it {', '.join(differing)}." if differing else "."
    alike = [one.name for one in others if one.change is not None and not one.changed()]
    if alike:
        text += f" The intervals of {' and '.join(alike)} hold 0: no difference is shown."
    return Finding(text, "", important=True)


def _finding(records: Sequence[Record]) -> Finding | None:
    """Who ended highest, and whether the others' intervals reach it."""
    ended = [
        (name_of(record), metric)
        for record in records
        if (metric := record.metrics.get("top1_accuracy")) is not None and metric.value is not None
    ]
    if not ended:
        return None
    ended.sort(key=lambda pair: -(pair[1].value or 0.0))
    top1 = info_of("top1_accuracy")
    values = ", ".join(f"{name} {value_of(metric, top1)} %" for name, metric in ended)
    text = f"Test accuracy after the last epoch: {values}."
    if len(ended) > 1:
        (first, best), others = ended[0], ended[1:]
        near = [name for name, metric in others if (metric.high or 0.0) >= (best.low or 0.0)]
        text += f" The 95 % intervals of {first} and {', '.join(near)} overlap." if near else ""
    return Finding(text, "", important=True)
