"""The history on the page: for every branch and machine the trends of its cases, with the changes marked."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import replace

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from vheatbench import numbers
from vheatbench.analysis.changepoint import WINDOW, ChangePoint
from vheatbench.analysis.history import Trend, trends_of
from vheatbench.metrics import MetricInfo, info_of, with_role
from vheatbench.present.chart import error_bars, page_chart
from vheatbench.present.parts import Chart, Section, Table
from vheatbench.present.style import panels, set_ticks
from vheatbench.present.theme import FAINT, INK, SERIES_COLOURS
from vheatbench.store.history import History

PANELS = 6
"""Cases in one chart."""
MOST_PANELS = 24
"""Cases of one metric that are drawn, those that changed first; the table has all."""
WORSE, OTHER = SERIES_COLOURS[0], SERIES_COLOURS[2]


def history_sections(history: History, id_: str) -> list[Section]:
    """One section for every branch and machine that has at least two runs of a case.

    Args:
        history: as read; what is wrong with its file becomes a note of the first section.
        id_: unique on the page, the beginning of the ids of everything in the sections.
    """
    groups: dict[tuple[str, str, str], list[Trend]] = {}
    for trend in trends_of(history.entries):
        groups.setdefault((trend.branch, trend.fingerprint, trend.device), []).append(trend)
    sections: list[Section] = []
    for trends in groups.values():
        if max(len(trend.points) for trend in trends) >= 2:
            sections.append(_section(f"{id_}h{len(sections)}", trends))
    if sections:
        sections[0].notes += history.problems
    return sections


def _section(id_: str, trends: list[Trend]) -> Section:
    one = trends[0]
    section = Section(id_, f"History of branch {one.branch or '(none)'} on {one.machine}")
    trended = [info.name for info in with_role("trended")]
    for metric in dict.fromkeys(trend.metric for trend in trends):
        drawn = [trend for trend in trends if trend.metric == metric and len(trend.points) >= 2]
        drawn = [trend for trend in drawn if metric in trended or trend.changes]
        drawn.sort(key=lambda trend: not trend.changes)
        if len(drawn) > MOST_PANELS:
            section.notes.append(f"{metric}: {MOST_PANELS} of {len(drawn)} cases are drawn, the table below has all.")
        drawn = [replace(trend, points=trend.points[-WINDOW:]) for trend in drawn[:MOST_PANELS]]
        parts = [drawn[i : i + PANELS] for i in range(0, len(drawn), PANELS)]
        for number, part in enumerate(parts):
            section.charts.append(_chart(f"{id_}-{_slug(metric)}-{number}", metric, part, number, len(parts)))
    section.tables.append(_table(f"{id_}-trends", trends))
    changed = [trend for trend in trends if trend.changes]
    if changed:
        section.tables.append(_changes_table(f"{id_}-changes", changed))
    section.notes.append(
        f"Machine {one.fingerprint}. Runs of different sessions: a change of level is a hint, not a verdict."
    )
    return section


def _chart(id_: str, metric: str, trends: Sequence[Trend], number: int, of: int) -> Chart:
    info = info_of(metric, trends[0].unit)
    title = f"{info.capitalised} over time" + (f" ({number + 1} of {of})" if of > 1 else "")
    caption = (
        f"{info.capitalised} in {info.unit or 'its own unit'}, run by run (the last {WINDOW}); horizontal lines: "
        "medians between changes of level; dashed verticals: the changes."
    )
    header = ("case", "run", "time", "commit", info.heading, "interval")
    rows = [
        (trend.label, point.run_id, point.when, point.commit[:10], numbers.value_of(point, info),
         numbers.interval_of(point, info))
        for trend in trends for point in trend.points
    ]  # fmt: skip
    return Chart(id_, title, _draw(id_, trends, info), caption, _describe(title, trends, info), header, rows)


def _draw(name: str, trends: Sequence[Trend], info: MetricInfo) -> str:
    columns = min(2, len(trends))
    lines = -(-len(trends) // columns)
    with page_chart(name, height=2.1 * lines + 0.3) as chart:
        for axes, trend in zip(panels(chart.figure, len(trends), columns), trends, strict=True):
            _panel(axes, trend, info.factor)
            axes.set_ylabel(info.unit, fontsize=8)
    return chart.svg


def _panel(axes: Axes, trend: Trend, factor: float) -> None:
    values = [value * factor for value in trend.values]
    places = list(range(len(values)))
    spread = error_bars(trend.points, factor)
    axes.plot(places, values, color=FAINT, linewidth=0.7)
    # a hundred intervals are a band of ink, and half the size of the page
    if len(values) <= 40:
        axes.errorbar(places, values, yerr=spread, fmt="none", ecolor=SERIES_COLOURS[1], elinewidth=0.8)
    axes.plot(places, values, "o", color=SERIES_COLOURS[1], markersize=2.6)
    _levels(axes, trend, factor)
    axes.set_title("\n".join(textwrap.wrap(trend.label, 46, max_lines=3)), fontsize=8)
    axes.set_xlim(-0.5, len(values) - 0.5)
    low, high = min(values), max(values)
    # noise of a percent should not fill the panel: it spans at least a tenth of the value
    room = max(high - low, 0.1 * abs(high)) or 1.0
    middle = (low + high) / 2
    axes.set_ylim(middle - 0.65 * room, middle + 0.65 * room)
    set_ticks(axes.yaxis, MaxNLocator(4))
    ends = [0, len(values) - 1]
    axes.set_xticks(ends, [trend.points[i].when[:10] for i in ends])
    first, last = axes.get_xticklabels()
    first.set_horizontalalignment("left")
    last.set_horizontalalignment("right")
    axes.tick_params(labelsize=8)
    axes.grid(True, axis="y", linewidth=0.6)


def _levels(axes: Axes, trend: Trend, factor: float) -> None:
    if not trend.changes or trend.deterministic:
        levels = [] if trend.deterministic or trend.usual is None else [(0, len(trend.points), trend.usual)]
    else:
        starts = [0, *(change.index for change in trend.changes)]
        medians = [trend.changes[0].before, *(change.after for change in trend.changes)]
        levels = list(zip(starts, [*starts[1:], len(trend.points)], medians, strict=True))
    for begin, end, level in levels:
        axes.plot([begin - 0.5, end - 0.5], [level * factor] * 2, color=INK, linewidth=1.2)
    for number, change in enumerate(trend.changes[-8:]):
        colour = WORSE if trend.worsens(change) else OTHER
        axes.axvline(change.index - 0.5, color=colour, linewidth=1.2, linestyle="--")
        right = change.index > 0.8 * len(trend.points)
        axes.annotate(
            trend.size_of(change),
            (change.index - 0.5, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(-3 if right else 3, -8 - 10 * (number % 2)),
            textcoords="offset points",
            fontsize=8,
            ha="right" if right else "left",
        )


def _describe(title: str, trends: Sequence[Trend], info: MetricInfo) -> str:
    """The chart in words, for those who cannot see it."""
    words = []
    for trend in trends:
        first, last = (numbers.value_of(point, info) for point in (trend.points[0], trend.points[-1]))
        text = f"{trend.label} goes from {first} to {last} {info.unit} in {len(trend.points)} runs"
        changes = ", ".join(_words(trend, change) for change in trend.changes[-4:])
        words.append(f"{text}, with changes of {changes}" if changes else f"{text}, without a change of level")
    return f"{title}: " + "; ".join(words) + "."


def _words(trend: Trend, change: ChangePoint) -> str:
    point = trend.points[change.index]
    return f"{trend.size_of(change)} at {point.commit[:10] or point.run_id} ({point.when[:10]})"


def _table(id_: str, trends: Sequence[Trend]) -> Table:
    rows = []
    for trend in trends:
        info = info_of(trend.metric, trend.unit)
        last = numbers.value_of(trend.points[-1] if trend.points else None, info)
        usual = numbers.value_of(numbers.Value(trend.usual), info)
        against = numbers.percent(trend.against_usual) if trend.against_usual is not None else "—"
        status = trend.status if trend.status != "ok" else ""
        name = f"{trend.label}, {info.heading}"
        rows.append((name, str(len(trend.points)), last, usual, against, str(len(trend.changes)), status))
    header = ("case and metric", "runs", "last", "usual", "last against usual", "changes", "status now")
    caption = "“Usual” is the median of the runs before the last one, since the last change of level."
    return Table(id_, "All trends", caption, header, rows)


def _changes_table(id_: str, trends: Sequence[Trend]) -> Table:
    rows = [
        (f"{trend.label}, {info_of(trend.metric).title}", _words(trend, change),
         "worse" if trend.worsens(change) else "better" if trend.direction != "neutral" else "—",
         f"{change.p:.2g}" if change.p else "exact")
        for trend in trends for change in trend.changes
    ]  # fmt: skip
    caption = (
        "Rank-CUSUM with a permutation null (p at most 0.01), at least 3 %, 4 runs before and 6 after; of exact "
        "metrics every change."
    )
    return Table(id_, "Changes of level", caption, ("case and metric", "change", "direction", "p"), rows, words=True)


def _slug(metric: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in metric)
