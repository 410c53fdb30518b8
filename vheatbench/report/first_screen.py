"""The two charts of the first screen: what the others cost against vHeat, and how the operators' time grows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from matplotlib.axes import Axes

from vheatbench import numbers
from vheatbench.analysis.groups import ChartGroup, heat_of
from vheatbench.analysis.operator_findings import as_fast
from vheatbench.analysis.operators import ATTENTION, theory_of
from vheatbench.analysis.relative_cost import RelativeCost, RelativeCurve
from vheatbench.analysis.scaling import EndExponent, end_exponent
from vheatbench.analysis.series import Series
from vheatbench.present.chart import PageChart, multiples, page_chart, plain_numbers
from vheatbench.present.parts import Chart
from vheatbench.present.style import set_ticks, spaced
from vheatbench.present.theme import FAINT, INK, style_of

WIDE, SMALL, NARROW = 6.6, 3.7, 3.5
"""Widths of the picture, of the chart beside it, and of either on a phone, in inches of 72 units."""
HEIGHT = 3.9
TICKS = (
    (1.8, (0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.3, 1.4, 1.6)),
    (5, (0.2, 0.3, 0.5, 0.7, 1, 1.4, 2, 3, 4)),
    (30, (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20)),
)
"""Ticks of ratios whose ends differ by less than a factor."""


def relative_chart(id_: str, cost: RelativeCost, subjects: Sequence[str], context: str) -> Chart:
    """The picture: latency over that of vHeat against the resolution, with bands, measured sizes and crossovers.

    Args:
        id_: unique on the page.
        cost: what is drawn.
        subjects: all of the page, for constant colours.
        context: device and variant, for the caption.
    """
    curves = [*cost.curves, *([cost.own] if cost.own is not None else [])]
    names = [curve.subject for curve in curves]

    def draw(chart: PageChart, narrow: bool) -> None:
        axes = chart.axes
        axes.set_xscale("log")
        axes.set_yscale("log")
        sides = [point.side for curve in curves for point, _ in curve.points]
        axes.plot([min(sides), max(sides)], [1.0, 1.0], color=style_of(cost.focus, subjects).colour, linewidth=2.2)
        for curve in curves:
            _draw_curve(chart, curve, style_of(curve.subject, subjects).colour, light=curve is cost.own, cost=cost)
        _sizes(axes, curves)
        _ratios(axes)
        named = [(f"{cost.focus} = 1", 1.0, style_of(cost.focus, subjects).colour)]
        for curve in curves:
            last, colour = curve.points[-1][1].value, style_of(curve.subject, subjects).colour
            named.append((_called(curve, cost), last, colour))
        _name_at_end(axes, named, narrow)
        for crossing in cost.crossings:
            if crossing.value is not None:
                axes.plot([crossing.value], [1.0], marker="D", markersize=6, color=INK, zorder=5)
                axes.annotate(
                    crossing.axis.near(float(f"{crossing.value:.2g}")), (crossing.value, 1.0), xytext=(0, -14),
                    textcoords="offset points", ha="center", fontsize=9, color=INK,
                )  # fmt: skip
        axes.set_ylabel(f"time over that of {cost.focus}")

    axis = curves[0].series.axis
    header = (axis.subject, axis.heading, f"time over {cost.base}", "interval", "from")
    rows = [
        (curve.subject, axis.words(point.resolution), numbers.plain(ratio.value, 3),
         f"{ratio.low:.3f} to {ratio.high:.3f}" if ratio.low is not None and ratio.high is not None else "—",
         "turns" if ratio.paired else "medians")
        for curve in curves for point, ratio in curve.points
    ]  # fmt: skip
    own = (
        f" {cost.focus} is drawn as {cost.base}, which runs by plain PyTorch like the models beside it; the dashed "
        f"line is {cost.focus} by its own products."
        if cost.own is not None
        else ""
    )
    caption = (
        f"Time of a step over that of {cost.focus}, both axes logarithmic; above the line: slower than vHeat. Dots: "
        f"measured sizes; bands: intervals (95 %, of few rounds less); diamonds: crossovers.{own} {context}."
    )
    return Chart(
        id_,
        "What a model costs against vHeat as the resolution grows",
        _both(id_, names, draw, WIDE),
        caption,
        "; ".join(_in_words(curve, cost) for curve in curves) + ".",
        header,
        rows,
    )


def exponents_chart(id_: str, group: ChartGroup, subjects: Sequence[str]) -> Chart | None:
    """The small chart: time of heat conduction and of global attention alone, with their exponents at the large end."""
    heat = heat_of(group)
    series = {one.subject: one for one in group.series("latency_s")}
    shown = [series[name] for name in (heat, ATTENTION) if name in series and len(series[name].points) > 1]
    if not shown:
        return None
    ends = {one.subject: end_exponent(one.points) for one in shown}
    info = shown[0].info

    def draw(chart: PageChart, narrow: bool) -> None:
        axes = chart.axes
        axes.set_xscale("log")
        axes.set_yscale("log")
        labels = []
        for one in shown:
            colour, end = style_of(one.subject, subjects).colour, ends[one.subject]
            values = [value * info.factor for value in one.values]
            chart.belongs(
                one.subject, axes.plot(one.tokens, values, color=colour, marker="o", markersize=4.5, linewidth=1.6)
            )
            for point in one.points:
                value = numbers.with_interval(point, info, info.unit)
                words = f"{one.subject} on {one.axis.words(point.resolution)}: {value}"
                chart.target(one.subject, point.tokens, point.value * info.factor, words)
            _theory(axes, one, theory_of(one.subject, group.records), info.factor)
            name = one.subject.removeprefix("op/")
            labels.append((f"{name}\nN^{end.value:.2f}" if end is not None else name, values[-1], colour))
        sides = sorted({point.side for one in shown for point in one.points})
        ticks = [side**2 for side in sides]
        set_ticks(axes.xaxis, ticks, spaced(ticks, [f"{side:.0f}²" for side in sides], digit=0.03))
        axes.set_xlabel("tokens N")
        plain_numbers(axes.yaxis)
        axes.set_ylabel(info.heading)
        axes.grid(True, which="major")
        _name_at_end(axes, labels, narrow, room=0.3, at=[one.tokens[-1] for one in shown])

    caption = (
        f"{info.capitalised} of the operators alone against the number of tokens, both logarithmic; {group.title}. "
        "Named: the exponent between the largest grids, where fixed overheads count least. Dotted: growth as theory "
        "counts multiply-adds."
    )
    header = ("operator", "exponent at the large end", "interval", "between grids", "of multiply-adds", "theory")
    rows = [_end_row(one, ends[one.subject], group) for one in shown]
    text = "; ".join(f"{row[0]} grows as N^{row[1]} between {row[3]}" for row in rows)
    names = [one.subject for one in shown]
    return Chart(id_, "The operator alone", _both(id_, names, draw, SMALL), caption, f"{text}.", header, rows)


def _end_row(one: Series, end: EndExponent | None, group: ChartGroup) -> tuple[str, ...]:
    counted = {series.subject: series for series in group.series("macs")}
    exact = end_exponent(counted[one.subject].points) if one.subject in counted else None
    return (
        one.subject,
        f"{end.value:.2f}" if end is not None else "—",
        f"{end.low:.2f} to {end.high:.2f}" if end is not None else "—",
        one.axis.span(one.axis.side_of(end.first), one.axis.side_of(end.last)) if end is not None else "—",
        f"{exact.value:.3f}" if exact is not None else "—",
        theory_of(one.subject, group.records) or "—",
    )


def _both(id_: str, names: Sequence[str], draw: Callable[[PageChart, bool], None], width: float) -> str:
    """The drawing for a screen and one for a phone, of which the page's style shows one."""
    found = []
    for kind, inches in (("wide", width), ("narrow", NARROW)):
        with page_chart(f"{id_}-{kind}", names, width=inches, height=HEIGHT) as chart:
            draw(chart, kind == "narrow")
        found.append(f'<div class="{kind}">{chart.svg}</div>')
    return "".join(found)


def _draw_curve(chart: PageChart, curve: RelativeCurve, colour: str, *, light: bool, cost: RelativeCost) -> None:
    axes = chart.axes
    x = [point.side for point, _ in curve.points]
    ratios = [ratio for _, ratio in curve.points]
    low = [ratio.low if ratio.low is not None else ratio.value for ratio in ratios]
    high = [ratio.high if ratio.high is not None else ratio.value for ratio in ratios]
    band = axes.fill_between(x, low, high, color=colour, alpha=0.10 if light else 0.18, linewidth=0)
    line = axes.plot(
        x, [ratio.value for ratio in ratios], color=colour, marker="o", linewidth=1.2 if light else 2.0,
        markersize=3.5 if light else 5.5, linestyle="--" if light else "-", alpha=0.75 if light else 1.0,
    )  # fmt: skip
    chart.belongs(curve.subject, [band, *line])
    for (point, ratio), side in zip(curve.points, x, strict=True):
        where = curve.series.axis.words(point.resolution)
        chart.target(
            curve.subject, side, ratio.value, f"{curve.subject} at {where}: {as_fast(ratio)} {cost.base}'s time"
        )


def _in_words(curve: RelativeCurve, cost: RelativeCost) -> str:
    """A curve for those who cannot see it."""
    (first, low), (last, high) = curve.points[0], curve.points[-1]
    axis = curve.series.axis
    return (
        f"{_called(curve, cost)} goes from {numbers.plain(low.value, 3)} times {cost.base}'s time at "
        f"{axis.words(first.resolution)} to {numbers.plain(high.value, 3)} at {axis.words(last.resolution)}"
    )


def _called(curve: RelativeCurve, cost: RelativeCost) -> str:
    return "own products" if curve is cost.own else curve.subject


def _sizes(axes: Axes, curves: Sequence[RelativeCurve]) -> None:
    sides = sorted({point.side for curve in curves for point, _ in curve.points})
    set_ticks(axes.xaxis, sides, spaced(sides, [f"{side:.0f}" for side in sides]))
    axes.set_xlabel(curves[0].series.axis.label)


def _ratios(axes: Axes) -> None:
    """Ticks of the ratios: plain ones, as many as there is room for."""
    low, high = axes.get_ylim()
    low, high = min(low, 0.85), max(high, 1.2)
    axes.set_ylim(low / 1.04, high * 1.04)
    steps = next((steps for span, steps in TICKS if high / low < span), ())
    ticks = [tick for tick in steps if low <= tick <= high] or multiples(low, high, (1, 2, 5))
    set_ticks(axes.yaxis, ticks, [f"{tick:g}×" for tick in ticks])
    axes.grid(True, which="major")


def _name_at_end(
    axes: Axes,
    labels: Sequence[tuple[str, float, str]],
    narrow: bool,
    room: float = 0.22,
    at: Sequence[float] = (),
) -> None:
    """Names beside the ends of their lines, moved apart where they would lie over each other."""
    left, right = axes.get_xlim()
    share = room * (1.5 if narrow else 1.0)
    axes.set_xlim(left, right * (right / left) ** share)
    low, high = (math.log(end) for end in axes.get_ylim())
    step = (high - low) * 0.062
    placed: list[float] = []
    order = sorted(range(len(labels)), key=lambda i: labels[i][1])
    for i in order:
        y = math.log(labels[i][1])
        height = step * (1 + labels[i][0].count("\n"))
        y = max(y, placed[-1] + height) if placed else y
        placed.append(y)
    for y, i in zip(placed, order, strict=True):
        text, _, colour = labels[i]
        x = at[i] if at else right
        axes.annotate(
            text, (x, math.exp(y)), xytext=(6, 0), textcoords="offset points", va="center", fontsize=10, color=colour,
            annotation_clip=False, fontweight="bold" if text.endswith("= 1") else "normal",
        )  # fmt: skip


def _theory(axes: Axes, one: Series, theory: str, factor: float) -> None:
    """A dotted line of theory's slope through the last point."""
    try:
        power = float(theory)
    except ValueError:  # none, or a range
        return
    first, last = one.points[max(0, len(one.points) - 4)], one.points[-1]
    start = last.value * factor * (first.tokens / last.tokens) ** power
    axes.plot([first.tokens, last.tokens], [start, last.value * factor], color=FAINT, linewidth=1.0, linestyle=":")
