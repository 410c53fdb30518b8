"""Charts of a metric against size as inline SVG: drawn by matplotlib, coloured by the page's CSS variables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes

from vheatbench import numbers
from vheatbench.analysis.axis import GRID as TOKEN_GRID
from vheatbench.analysis.powerlaw import PowerFit
from vheatbench.analysis.scaling import Scaling
from vheatbench.analysis.series import Point, Series
from vheatbench.present.chart import error_bars, multiples, page_chart, plain_numbers
from vheatbench.present.parts import Chart
from vheatbench.present.style import LineStyle, set_ticks, spaced
from vheatbench.present.theme import FAINT

View = Literal["log", "linear", "tokens"]

VIEWS: dict[View, str] = {"log": "logarithmic", "linear": "linear", "tokens": "linear in tokens"}
"""How a chart may be drawn, and what its switch calls it. Both logarithmic axes are one drawing: on it a side and its
tokens differ by a factor and a power only."""


MOST_TARGETS = 300
"""Points up to which each can be pointed at; more lie too close, and make the page heavy."""


MOST_POINTS = 150
"""In the table behind a chart. The records' table has all."""


@dataclass(frozen=True)
class Curve:
    """One subject of a chart against size."""

    series: Series
    style: LineStyle
    scaling: Scaling | None = None
    """The fit whose exponent is shown."""
    samples: Mapping[tuple[int, int], int] = field(default_factory=dict)
    """How many raw samples stand behind each size."""

    @property
    def name(self) -> str:
        return self.series.subject

    @property
    def power(self) -> PowerFit | None:
        """The fitted power, where there is one."""
        power = self.scaling.power if self.scaling is not None else None
        return power if isinstance(power, PowerFit) else None

    def point_in_words(self, point: Point) -> str:
        """``vheat-t at 224 px, 196 tokens: 48.1 ms (46.0 to 50.7), 36 samples in 3 rounds``."""
        samples, rounds = self.samples.get(point.resolution), f"{point.n_rounds} round{'s' * (point.n_rounds != 1)}"
        info, where = self.series.info, self.series.axis.words(point.resolution)
        return (
            f"{self.name} at {where}, {point.tokens:.0f} tokens: {numbers.with_interval(point, info, info.unit)}, "
            + (f"{samples} samples in {rounds}" if samples else rounds)
        )


def chart_of(id_: str, title: str, curves: Sequence[Curve], views: Sequence[View], caption: str) -> Chart:
    """A chart of one metric against size, with its words and the numbers behind it.

    Args:
        id_: unique on the page.
        title: above it.
        curves: all of one metric on one axis.
        views: keys of :data:`VIEWS`, the first for a page without script.
        caption: what is drawn.
    """
    first = curves[0].series
    info, axis = first.info, first.axis
    rows = [
        (curve.name, f"{p.resolution[0]}×{p.resolution[1]}", f"{p.tokens:.0f}", numbers.value_of(p, info),
         numbers.interval_of(p, info), str(p.n_rounds), str(curve.samples.get(p.resolution) or "—"))
        for curve in curves for p in curve.series.points
    ]  # fmt: skip
    if len(rows) > MOST_POINTS:
        caption += f" Of its {len(rows)} points the first {MOST_POINTS} are listed here; the records have all."
    header = (axis.subject, axis.heading, "tokens N", info.heading, "interval", "rounds", "samples")
    text = f"{title}: {'; '.join(map(_described, curves))}."
    return Chart(id_, title, _drawings(id_, curves, views), caption, text, header, rows[:MOST_POINTS])


def _described(curve: Curve) -> str:
    """For those who cannot see it."""
    series, info = curve.series, curve.series.info
    first, last = series.points[0], series.points[-1]
    text = (
        f"{curve.name} goes from {numbers.value_of(first, info)} at {series.axis.near(first.side)} "
        f"to {numbers.value_of(last, info)} {info.unit} at {series.axis.near(last.side)}"
    )
    return text + (f", as N^{curve.power.exponent:.2f}" if curve.power is not None else "")


def _drawings(name: str, curves: Sequence[Curve], views: Sequence[View]) -> str:
    """``<svg>`` elements, each in a ``<div data-view=...>``, once per view; the page's CSS shows one of them."""
    return "".join(
        f'<div data-view="{view}" data-label="{VIEWS[view]}">{_drawing(f"{name}-{view}", curves, view)}</div>'
        for view in views
    )


def _drawing(name: str, curves: Sequence[Curve], view: View) -> str:
    """Models have the fitted lines, operators lines that join their points: a fixed overhead bends them."""
    series, info = [curve.series for curve in curves], curves[0].series.info
    many = sum(len(one.points) for one in series) > MOST_TARGETS
    with page_chart(name, [curve.name for curve in curves]) as chart:
        axes = chart.axes
        if view == "log":
            axes.set_xscale("log")
            if any(value > 0 for one in series for value in one.values):  # there are operators without multiply-adds
                axes.set_yscale("log")
            if "guided" in info.roles:
                _guides(axes, series, info.factor)
        for curve in curves:
            chart.belongs(curve.name, _draw(axes, curve, view, 0 if many else 3))
        _scales(axes, series, view)
        axes.set_ylabel(info.heading)
        axes.grid(True, which="major")
        for curve in curves if not many else ():
            for point in curve.series.points:
                place = _place(curve.series, point, view)
                chart.target(curve.name, place, point.value * info.factor, curve.point_in_words(point))
    return chart.svg


def _place(series: Series, point: Point, view: View) -> float:
    """Where a point stands on the lower axis."""
    return series.axis.tokens(point.side) if view == "tokens" else point.side


def _draw(axes: Axes, curve: Curve, view: View, caps: float) -> list[Artist]:
    """The points of a subject and their line, fitted or from one to the next; what is drawn."""
    series, style, fit, factor = curve.series, curve.style, curve.power, curve.series.info.factor
    x = [_place(series, point, view) for point in series.points]
    values = [point.value * factor for point in series.points]
    fitted = fit is not None and series.axis != TOKEN_GRID
    spread = error_bars(series.points, factor)
    label = curve.name
    if fit is not None:
        interval = f" ({fit.low:.2f} to {fit.high:.2f})" if fit.low is not None and fit.high != fit.low else ""
        label += f"   N^{fit.exponent:.2f}{interval}"
    bars = axes.errorbar(
        x,
        values,
        yerr=spread if any(map(any, spread)) else None,
        fmt=style.marker,
        color=style.colour,
        markerfacecolor=style.face,
        markersize=6,
        capsize=caps,
        linewidth=1.2,
        label=label,
        linestyle="none" if fitted else style.dash,
    )
    drawn = [*bars.get_children()]
    if fit is not None and fitted:
        tokens = np.array(fit.range) if view == "log" else np.geomspace(*fit.range, 30)
        ends = tokens if view == "tokens" else [series.axis.side_of(n) for n in tokens]
        line = fit.coefficient * tokens**fit.exponent * factor
        drawn += axes.plot(ends, line, color=style.colour, linewidth=1.4, linestyle=style.dash)
    for artist in drawn:
        # within the axes: nothing to measure when margins are found, which takes as long as drawing does
        artist.set_in_layout(False)
    return drawn


def _guides(axes: Axes, series: Sequence[Series], factor: float) -> None:
    """Dotted lines of slope 1, 1.5 and 2 in N through the middle of the first points."""
    curves = [s for s in series if len(s.points) > 1 and s.points[0].value > 0]
    if not curves:
        return
    side_of = curves[0].axis.side_of
    first = min(s.points[0].tokens for s in curves)
    last = max(s.points[-1].tokens for s in curves)
    start = math.exp(sum(math.log(s.points[0].value * factor) for s in curves) / len(curves))
    for power in (1, 1.5, 2):
        end = start * (last / first) ** power
        axes.plot([side_of(first), side_of(last)], [start, end], color=FAINT, linewidth=0.8, linestyle=":")
        axes.annotate(
            f"N^{power:g}" if power != 1 else "N",
            (side_of(last), end),
            xytext=(7, 0),  # beside the marker of a curve that grows like this
            textcoords="offset points",
            fontsize=8,
            color=FAINT,
            va="center",
        )


def _scales(axes: Axes, series: Sequence[Series], view: View) -> None:
    """Ticks at the measured sizes below, the same in tokens above (or the other way), plain numbers at the side."""
    axis = series[0].axis
    sides = sorted({point.side for s in series for point in s.points})
    labels = ([f"{side:.0f}" for side in sides], [f"{axis.tokens(side):.0f}" for side in sides])
    titles = (axis.label, axis.tokens_label)
    ticks: Sequence[float] = sides
    if view == "tokens":
        labels, titles, ticks = labels[::-1], titles[::-1], [axis.tokens(side) for side in sides]
    top = axes.secondary_xaxis("top", functions=(lambda x: x, lambda x: x))
    for one, texts, title in zip((axes, top), labels, titles, strict=True):
        set_ticks(one.xaxis, ticks, spaced(ticks, texts, view == "log"))
        one.set_xlabel(title)
    top.xaxis.label.set_fontsize(9)
    plain_numbers(axes.yaxis)
    if axes.get_yscale() != "log":
        axes.set_ylim(bottom=0)
        return
    low, high = axes.get_ylim()
    if high / low < 30:
        # under a decade and a half the powers of ten alone would leave one or two ticks
        set_ticks(axes.yaxis, multiples(low, high, (1, 2, 3, 5)))
