"""The section of accuracies: of classifiers by resolution, of detectors and segmenters, and the worst classes."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from vheatbench.analysis.findings import Finding
from vheatbench.analysis.outcomes import Outcome, outcomes_of
from vheatbench.analysis.series import Point
from vheatbench.metrics import columns, info_of, with_role
from vheatbench.numbers import Value, with_interval, with_unit
from vheatbench.present.chart import error_bars, page_chart
from vheatbench.present.parts import Chart, Section, Table
from vheatbench.present.theme import style_of
from vheatbench.store.read import Run
from vheatbench.studies.accuracy.table import TABLES, names_of

WORST_CASES = 4
"""Cases whose worst classes are listed."""
MOST_TICKS = 8
"""Sizes up to which the axis names each."""
TOP1 = info_of("top1_accuracy")


def accuracy_sections(run: Run, id_: str) -> list[Section]:
    """Everything the page shows of ``eval``, ``detect eval`` and ``segment eval``; nothing for other runs.

    Args:
        run: any run.
        id_: unique on the page: the section's, and the beginning of its charts' and tables'.
    """
    outcomes = outcomes_of(record for record in run.records if record.case.mode == "eval")
    if not outcomes:
        return []
    section = Section(id_, "Accuracy")
    chart = _by_size(f"{id_}-sizes", outcomes)
    if chart is not None:
        section.charts.append(chart)
    section.tables.append(_table(f"{id_}-table", outcomes))
    anchor = chart.id if chart is not None else f"{id_}-table"
    section.findings = [(finding, anchor) for finding in _findings(outcomes)]
    good = [outcome for outcome in outcomes if outcome.records[0].conditions.get("worst_classes")]
    section.tables += [_worst(f"{id_}-worst{i}", outcome) for i, outcome in enumerate(good[:WORST_CASES])]
    for outcome in outcomes:
        if outcome.status != "ok":
            section.alerts.append(f"{outcome.case.label}: {outcome.status}: {outcome.reason}")
        section.alerts += [f"{outcome.case.label}: {text}" for text in outcome.warnings]
    return [section]


def _table(id_: str, outcomes: Sequence[Outcome]) -> Table:
    heads, names = TABLES[0].named([outcome.records[0] for outcome in outcomes])
    shown = columns("accuracy", outcomes)
    rows = [
        (*own, *(with_interval(outcome.points.get(info.name), info) for info in shown))
        for own, outcome in zip(names, outcomes, strict=True)
    ]
    caption = (
        "In brackets the 95 % interval for another sample of such images. Change: of top-1 against the run's first "
        "size, over the same images. Weights and data by name or by the beginning of their SHA-256."
    )
    header = (*heads, *(info.heading for info in shown))
    return Table(id_, "Accuracy of every case", caption, header, rows)


def _findings(outcomes: Sequence[Outcome]) -> list[Finding]:
    found = []
    for outcome in outcomes:
        info = next((info for info in with_role("headline") if info.name in outcome.points), None)
        if info is None:
            continue
        model, size, how, weights, data = names_of(outcome.records[0])
        images = outcome.points["images"].value if "images" in outcome.points else None
        text = f"{model} at {size}{f' ({how})' if how else ''}: "
        text += f"{info.title} {with_interval(outcome.points[info.name], info, info.unit)}"
        text += f" on {images:.0f} images of {data}" if images is not None else ""
        text += f", weights {weights}."
        gain = outcome.points.get("top1_gain")
        if gain is not None:
            text += f" Against the first size: {with_interval(gain, info_of('top1_gain'), 'points')}."
        found.append(Finding(text, "", important=True))
    return found


def _by_size(id_: str, outcomes: Sequence[Outcome]) -> Chart | None:
    """Top-1 by the side of the image, a curve for every model; None without two sizes of one."""
    curves: dict[str, list[tuple[float, str, Point]]] = {}
    for outcome in outcomes:
        point = outcome.points.get("top1_accuracy")
        if point is not None:
            place = (outcome.case.pixels**0.5, outcome.case.size, point)
            curves.setdefault(outcome.case.subject, []).append(place)
    curves = {name: sorted(places, key=lambda place: place[0]) for name, places in curves.items()}
    if not any(len(places) > 1 for places in curves.values()):
        return None
    rows = [
        (name, size, with_interval(point, TOP1)) for name, places in curves.items() for _, size, point in places
    ]  # fmt: skip
    text = "; ".join(
        f"{name} {', '.join(f'{with_unit(point.value, TOP1)} at {size}' for _, size, point in places)}"
        for name, places in curves.items()
    )
    caption = "Top-1 accuracy by image size; bars: 95 % interval for another sample of such images."
    return Chart(
        id_, "Accuracy by resolution", _svg(id_, curves), caption, f"Top-1 accuracy: {text}.",
        ("model", "size", TOP1.heading), rows,
    )  # fmt: skip


def _svg(name: str, curves: dict[str, list[tuple[float, str, Point]]]) -> str:
    names = list(curves)
    with page_chart(name, names) as chart:
        axes = chart.axes
        for subject, places in curves.items():
            style = style_of(subject, names)
            values = [point.value * TOP1.factor for _, _, point in places]
            spread = error_bars((point for _, _, point in places), TOP1.factor)
            drawn = axes.errorbar(
                [side for side, _, _ in places], values, yerr=spread, color=style.colour, linestyle=style.dash,
                marker=style.marker, markerfacecolor=style.face, markersize=5, capsize=3, label=subject,
            )  # fmt: skip
            chart.belongs(subject, drawn.get_children())
            for side, size, point in places:
                text = f"{subject} at {size}: {with_unit(point.value, TOP1)}"
                chart.target(subject, side, point.value * TOP1.factor, text)
        sides = sorted({side for places in curves.values() for side, _, _ in places})
        axes.xaxis.set_major_locator(FixedLocator(sides) if len(sides) <= MOST_TICKS else MaxNLocator(integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.0f}"))
        axes.set_xlabel("side of the image (pixels)")
        axes.set_ylabel(TOP1.heading)
        axes.grid(True)
    return chart.svg


def _worst(id_: str, outcome: Outcome) -> Table:
    rows = [
        (
            str(one["name"]),
            f"{one['correct']} of {one['images']}",
            with_interval(Value(one["accuracy"], one["low"], one["high"]), TOP1),
            ", ".join(f"{name} ×{count}" for name, count in one["taken_for"]) or "—",
        )
        for one in outcome.records[0].conditions["worst_classes"]
    ]
    caption = "The classes with the least right answers, and what their images were taken for."
    header = ("class", "right", TOP1.heading, "taken for")
    return Table(id_, f"Worst classes of {outcome.case.subject} at {outcome.case.size}", caption, header, rows)
