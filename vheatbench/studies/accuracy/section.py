"""The section of accuracies: of classifiers by resolution, of detectors and segmenters, and the worst classes."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from vheatbench import numbers
from vheatbench.analysis.findings import Finding
from vheatbench.analysis.outcomes import Outcome, outcomes_of
from vheatbench.analysis.series import Point
from vheatbench.present.parts import Chart, Section, Table
from vheatbench.present.svg import Target, with_targets
from vheatbench.present.theme import GRID, add_legend, chart_style, series_id, style_of, svg_of
from vheatbench.store.read import Run
from vheatbench.studies.accuracy.numbers import COLUMNS, MAIN, NAMES, names_of

WORST_CASES = 4
"""Cases whose worst classes are listed."""
MOST_TICKS = 8
"""Sizes up to which the axis names each."""
HEADINGS = {metric: heading.removesuffix(" (%)") for metric, heading, _ in COLUMNS}


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
    shown = [column for column in COLUMNS if any(column[0] in outcome.points for outcome in outcomes)]
    names = [names_of(outcome.records[0]) for outcome in outcomes]
    told = [i for i in range(len(NAMES)) if any(own[i] for own in names)]
    rows = [
        (*(own[i] for i in told), *(_cell(outcome.points.get(metric), factor) for metric, _, factor in shown))
        for own, outcome in zip(names, outcomes, strict=True)
    ]
    caption = (
        "In brackets the 95 % interval for another sample of such images. Change: of top-1 against the run's first "
        "size, over the same images. Weights and data by name or by the beginning of their SHA-256."
    )
    header = (*(NAMES[i] for i in told), *(heading for _, heading, _ in shown))
    return Table(id_, "Accuracy of every case", caption, header, rows)


def _cell(point: Point | None, factor: float) -> str:
    """Shares in percent with two digits, whatever else with four that count; in brackets the interval."""
    if point is None:
        return "—"

    def text(value: float) -> str:
        if factor > 1:
            return f"{value * factor:.2f}"
        return f"{value:.0f}" if value == int(value) else numbers.plain(value * factor)

    if point.low is None or point.high is None or point.low == point.high:
        return text(point.value)
    return f"{text(point.value)} [{text(point.low)}, {text(point.high)}]"


def _main(outcome: Outcome) -> str | None:
    return next((metric for metric in MAIN if metric in outcome.points), None)


def _findings(outcomes: Sequence[Outcome]) -> list[Finding]:
    found = []
    for outcome in outcomes:
        metric = _main(outcome)
        if metric is None:
            continue
        model, size, how, weights, data = names_of(outcome.records[0])
        images = outcome.points["images"].value if "images" in outcome.points else None
        text = f"{model} at {size}{f' ({how})' if how else ''}: "
        text += f"{HEADINGS[metric]} {_cell(outcome.points[metric], 100.0)} %"
        text += f" on {images:.0f} images of {data}" if images is not None else ""
        text += f", weights {weights}."
        gain = outcome.points.get("top1_gain")
        if gain is not None:
            text += f" Against the first size: {_cell(gain, 100.0)} points."
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
        (name, size, _cell(point, 100.0)) for name, places in curves.items() for _, size, point in places
    ]  # fmt: skip
    said = "; ".join(
        f"{name} {', '.join(f'{point.value:.2%} at {size}' for _, size, point in places)}"
        for name, places in curves.items()
    )
    caption = "Top-1 accuracy by image size; bars: 95 % interval for another sample of such images."
    return Chart(
        id_, "Accuracy by resolution", _svg(id_, curves), caption, f"Top-1 accuracy: {said}.",
        ("model", "size", "top-1 (%)"), rows,
    )  # fmt: skip


def _svg(name: str, curves: dict[str, list[tuple[float, str, Point]]]) -> str:
    names = list(curves)
    targets = []
    with matplotlib.rc_context({**chart_style(name), "grid.color": GRID, "axes.spines.top": False}):
        # an SVG has 72 units per inch: places are those of the figure
        figure = Figure(figsize=(6.2, 4.1), dpi=72, layout="constrained")
        axes = figure.subplots()
        axes.set_axisbelow(True)
        for number, (subject, places) in enumerate(curves.items()):
            style = style_of(subject, names)
            x = [side for side, _, _ in places]
            y = [100 * point.value for _, _, point in places]
            below = [100 * (point.value - (point.value if point.low is None else point.low)) for _, _, point in places]
            above = [
                100 * ((point.value if point.high is None else point.high) - point.value) for _, _, point in places
            ]
            drawn = axes.errorbar(
                x, y, yerr=[below, above], color=style.colour, linestyle=style.dash, marker=style.marker,
                markerfacecolor=style.face, markersize=5, capsize=3, label=subject,
            )  # fmt: skip
            for part in (drawn.lines[0], *drawn.lines[1], *drawn.lines[2]):
                part.set_gid(series_id(number))
        sides = sorted({side for places in curves.values() for side, _, _ in places})
        axes.xaxis.set_major_locator(FixedLocator(sides) if len(sides) <= MOST_TICKS else MaxNLocator(integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.0f}"))
        axes.set_xlabel("side of the image (pixels)")
        axes.set_ylabel("top-1 accuracy (%)")
        axes.grid(True, linewidth=0.8)
        add_legend(figure, axes)
        svg = svg_of(figure, names)
        height = figure.get_figheight() * 72
        for subject, places in curves.items():
            for side, size, point in places:
                x_place, y_place = axes.transData.transform((side, 100 * point.value))
                text = f"{subject} at {size}: {numbers.plain(100 * point.value)} %"
                targets.append(Target(subject, x_place, height - y_place, text))
    return with_targets(svg, targets)


def _worst(id_: str, outcome: Outcome) -> Table:
    rows = [
        (
            str(one["name"]),
            f"{one['correct']} of {one['images']}",
            f"{100 * one['accuracy']:.1f} [{100 * one['low']:.1f}, {100 * one['high']:.1f}]",
            ", ".join(f"{name} ×{count}" for name, count in one["taken_for"]) or "—",
        )
        for one in outcome.records[0].conditions["worst_classes"]
    ]
    caption = "The classes with the least right answers, and what their images were taken for."
    header = ("class", "right", "top-1 (%)", "taken for")
    return Table(id_, f"Worst classes of {outcome.case.subject} at {outcome.case.size}", caption, header, rows)
