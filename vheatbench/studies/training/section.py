"""The section of trained models: learning curves, and where each ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from vheatbench import numbers
from vheatbench.analysis.findings import Finding
from vheatbench.present.parts import Chart, Section, StudyTable, Table
from vheatbench.present.svg import Target, with_targets
from vheatbench.present.theme import GRID, add_legend, chart_style, series_id, style_of, svg_of
from vheatbench.store.read import Run
from vheatbench.store.schema import Metric, Record

MOST_ROWS = 20
"""Epochs of a model in the table behind a chart: the first, the last and evenly spaced ones between them."""
MOST_TARGETS = 300
"""Points up to which each has its words."""

COLUMNS = (
    ("params", "parameters", 1.0, 0),
    ("top1_accuracy", "test top-1 (%)", 100.0, 2),
    ("ema_top1_accuracy", "by averaged weights (%)", 100.0, 2),
    ("best_top1_accuracy", "best epoch (%)", 100.0, 2),
    ("train_loss", "training loss", 1.0, 4),
    ("test_loss", "test loss", 1.0, 4),
    ("throughput_images_per_s", "images/s", 1.0, 1),
    ("epoch_s", "s per epoch", 1.0, 2),
    ("waiting_share", "waiting for images (%)", 100.0, 1),
    ("peak_memory_bytes", "peak memory (MiB)", 2.0**-20, 0),
)
"""Metric, heading with unit, factor from the metric's unit, digits after the point."""


@dataclass(frozen=True)
class Curve:
    """One value per epoch of a model."""

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
    for record in run.records:
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
    names = [name_of(record) for record in records]
    for metric, what, words, factor in (
        ("top1_accuracy", "Test accuracy", "test accuracy (%)", 100.0),
        ("train_loss", "Training loss", "training loss, mean of the epoch", 1.0),
        ("ema_top1_accuracy", "Test accuracy of averaged weights", "test accuracy (%)", 100.0),
    ):
        curves = _curves(records, metric, factor)
        if curves:
            section.charts.append(_chart(f"{id_}-{metric}", what, words, curves, names, records[0]))
    section.tables.append(_table(f"{id_}-end", records))
    finding = _finding(records)
    if finding is not None:
        section.findings.append((finding, section.charts[0].id if section.charts else ""))
    section.notes = _notes(records)
    for name, record in zip(names, records, strict=True):
        if record.status != "ok":
            section.alerts.append(f"{name} was not trained to its end: {record.status}: {record.reason}")
    return section


def name_of(record: Record) -> str:
    """What the recipe calls the model."""
    return str(record.conditions.get("name") or record.case.subject)


def _names(record: Record) -> tuple[str, ...]:
    return name_of(record), record.case.size, str(record.case.analysis.get("epochs", ""))


TABLES = (
    StudyTable(
        "training",
        ("model", "size", "epochs"),
        _names,
        tuple((metric, heading, factor) for metric, heading, factor, _ in COLUMNS),
        lambda case: case.mode == "fit",
    ),
)


def _curves(records: Sequence[Record], metric: str, factor: float) -> list[Curve]:
    return [
        Curve(name_of(record), [value * factor for value in record.samples[metric].values])
        for record in records
        if metric in record.samples and record.samples[metric].values
    ]


def _notes(records: Sequence[Record]) -> list[str]:
    first = records[0]
    conditions, case = first.conditions, first.case
    images = f"{conditions.get('train_images')} training and {conditions.get('test_images')} test images"
    return [
        f"{images} of {case.size} px; batch {case.batch}, {case.dtype}, seed {case.analysis.get('seed')}, recipe "
        f"{case.analysis.get('recipe')}. One training of each model: another seed moves the accuracies too, by an "
        "amount that the intervals (of the test images alone) do not cover."
    ]


def _chart(id_: str, title: str, words: str, curves: list[Curve], names: Sequence[str], first: Record) -> Chart:
    is_loss = "loss" in id_
    svg = _svg(id_, words, curves, names, logarithmic=is_loss)
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
        f"{title} after every epoch, "
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
    return Chart(id_, title, svg, caption, f"{title}: {ends}.", ("model", "epoch", words), rows)


def _points(curves: Sequence[Curve]) -> int:
    return sum(len(curve.values) for curve in curves)


def _spread(count: int) -> list[int]:
    if count <= MOST_ROWS:
        return list(range(count))
    return [i * (count - 1) // (MOST_ROWS - 1) for i in range(MOST_ROWS)]


def _svg(name: str, words: str, curves: Sequence[Curve], names: Sequence[str], logarithmic: bool) -> str:
    few = _points(curves) <= MOST_TARGETS
    with matplotlib.rc_context({**chart_style(name), "grid.color": GRID, "axes.spines.top": False}):
        # an SVG has 72 units per inch: places are those of the figure
        figure = Figure(figsize=(6.2, 4.1), dpi=72, layout="constrained")
        axes = figure.subplots()
        axes.set_axisbelow(True)
        for place, curve in enumerate(curves):
            style = style_of(curve.name, names)
            (line,) = axes.plot(
                range(1, len(curve.values) + 1),
                curve.values,
                color=style.colour,
                linestyle=style.dash,
                marker=style.marker if few else None,
                markerfacecolor=style.face,
                markersize=5,
                label=curve.name,
            )
            line.set_gid(series_id(place))
        if logarithmic and all(value > 0 for curve in curves for value in curve.values):
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=12))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
            axes.yaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("epoch")
        axes.set_ylabel(words)
        axes.grid(True, linewidth=0.8)
        add_legend(figure, axes)
        svg = svg_of(figure, [curve.name for curve in curves])
        height = figure.get_figheight() * 72
        targets = [
            _target(axes, height, curve.name, epoch, value)
            for curve in curves
            for epoch, value in enumerate(curve.values, start=1)
        ]
    return with_targets(svg, targets if few else [])


def _target(axes: Axes, height: float, name: str, epoch: int, value: float) -> Target:
    x, y = axes.transData.transform((epoch, value))
    return Target(name, x, height - y, f"{name}, epoch {epoch}: {numbers.plain(value)}")


def _table(id_: str, records: Sequence[Record]) -> Table:
    shown = [column for column in COLUMNS if any(column[0] in record.metrics for record in records)]
    rows = [
        (name_of(record), str(len(_values(record))), *(_cell(record.metrics.get(n), f, d) for n, _, f, d in shown))
        for record in records
    ]
    caption = (
        "After the last epoch; in brackets the 95 % interval: of an accuracy by the number of test images, of a time "
        "over epochs. The best epoch was chosen on the test images themselves, so it is optimistic."
    )
    return Table(id_, "Where they ended", caption, ("model", "epochs", *(column[1] for column in shown)), rows)


def _values(record: Record) -> list[float]:
    return record.samples["train_loss"].values if "train_loss" in record.samples else []


def _cell(metric: Metric | None, factor: float, digits: int) -> str:
    if metric is None or metric.value is None:
        return "—"
    text = f"{metric.value * factor:,.{digits}f}".replace(",", "\u202f")
    if metric.low is None or metric.high is None:
        return text
    return f"{text} [{metric.low * factor:.{digits}f}, {metric.high * factor:.{digits}f}]"


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
    said = ", ".join(f"{name} {(metric.value or 0) * 100:.2f} %" for name, metric in ended)
    text = f"Test accuracy after the last epoch: {said}."
    if len(ended) > 1:
        (first, best), others = ended[0], ended[1:]
        near = [name for name, metric in others if (metric.high or 0.0) >= (best.low or 0.0)]
        text += f" The 95 % intervals of {first} and {', '.join(near)} overlap." if near else ""
    return Finding(text, "", important=True)
