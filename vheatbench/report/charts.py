"""Charts of a metric against size as inline SVG: drawn by matplotlib, coloured by the page's CSS variables."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter, NullLocator

from vheatbench.analysis.axis import GRID as TOKEN_GRID
from vheatbench.analysis.scaling import PowerFit, Scaling
from vheatbench.analysis.series import Point, Series
from vheatbench.present.svg import Target, with_targets
from vheatbench.present.theme import FAINT, GRID, Style, add_legend, chart_style, series_id, svg_of

View = Literal["log", "linear", "tokens"]

VIEWS: dict[View, str] = {"log": "logarithmic", "linear": "linear", "tokens": "linear in tokens"}
"""How a chart may be drawn, and what its switch calls it. Both logarithmic axes are one drawing: on it a side and its
tokens differ by a factor and a power only."""


MOST_TARGETS = 300
"""Points up to which each can be pointed at; more lie too close, and make the page heavy."""


@dataclass(frozen=True)
class Look:
    """What a metric's chart is called and measured in."""

    title: str
    axis: str
    factor: float
    guides: bool = False
    """Draw lines of slope 1, 1.5 and 2 in N."""


LOOKS = {
    "throughput_images_per_s": Look("Throughput", "images/s", 1.0),
    "latency_s": Look("Latency of one step", "ms", 1e3, guides=True),
    "latency_per_image_s": Look("Time per image", "ms per image", 1e3, guides=True),
    "peak_memory_bytes": Look("Peak memory", "MiB", 2.0**-20),
    "peak_memory_per_image_bytes": Look("Peak memory per image", "MiB per image", 2.0**-20),
    "macs": Look("Multiply-adds", "GMAC per image", 1e-9, guides=True),
    "energy_per_image_j": Look("Energy", "J per image", 1.0),
    "largest_batch": Look("Largest batch that fits", "images", 1.0),
}


def scaling_chart(
    name: str,
    metric: str,
    series: Sequence[tuple[Series, Scaling | None]],
    styles: Mapping[str, Style],
    said: Callable[[Series, Point], str],
    views: Sequence[View] = ("log",),
) -> str:
    """Chart of a metric against size and tokens, once per view; the page's CSS shows one of them.

    Models have the fitted lines, operators lines that join their points: a fixed overhead at small grids bends them.

    Args:
        name: unique on the page; keeps the SVG's internal ids apart.
        metric: key of :data:`LOOKS`.
        series: points, and the fit whose exponent is shown (None for none). All on one axis.
        styles: by subject.
        said: what a point says when it is pointed at.
        views: keys of :data:`VIEWS`, the first for a page without script.

    Returns:
        ``<svg>`` elements, each in a ``<div data-view=...>``.
    """
    drawn = []
    for view in views:
        svg = _drawing(f"{name}-{view}", metric, series, styles, said, view)
        drawn.append(f'<div data-view="{view}" data-label="{VIEWS[view]}">{svg}</div>')
    return "".join(drawn)


def _drawing(
    name: str,
    metric: str,
    series: Sequence[tuple[Series, Scaling | None]],
    styles: Mapping[str, Style],
    said: Callable[[Series, Point], str],
    view: View,
) -> str:
    look, only = LOOKS[metric], [one for one, _ in series]
    many = sum(len(one.points) for one in only) > MOST_TARGETS
    with matplotlib.rc_context(chart_style(name)):
        # an SVG has 72 units per inch: places are those of the figure
        figure = Figure(figsize=(6.2, 4.1), dpi=72, layout="constrained")
        axes = figure.subplots()
        if view == "log":
            axes.set_xscale("log")
            axes.set_yscale("log")
            if look.guides:
                _guides(axes, only, look.factor)
        for place, (one, scaling) in enumerate(series):
            _draw(axes, one, scaling, look.factor, styles[one.subject], view, place, 0 if many else 3)
        _scales(axes, only, view)
        axes.set_ylabel(f"{look.title.lower() if metric != 'macs' else 'multiply-adds'} ({look.axis})")
        axes.grid(True, which="major", color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        add_legend(figure, axes)
        svg = svg_of(figure, [one.subject for one in only])
        height = figure.get_figheight() * 72
        targets = [
            _target(axes, height, one.subject, (_place(one, point, view), point.value * look.factor), said(one, point))
            for one in only
            for point in one.points
        ]
    return with_targets(svg, [] if many else targets)


def _target(axes: Axes, height: float, subject: str, at: tuple[float, float], text: str) -> Target:
    x, y = axes.transData.transform(at)
    return Target(subject, x, height - y, text)


def _place(series: Series, point: Point, view: View) -> float:
    """Where a point stands on the lower axis."""
    return series.axis.tokens(point.side) if view == "tokens" else point.side


def _draw(
    axes: Axes,
    series: Series,
    scaling: Scaling | None,
    factor: float,
    style: Style,
    view: View,
    place: int,
    caps: float,
) -> None:
    x = [_place(series, point, view) for point in series.points]
    values = [point.value * factor for point in series.points]
    fit = scaling.power if scaling is not None else None
    fitted = isinstance(fit, PowerFit) and series.axis != TOKEN_GRID
    below = [(p.value - p.low) * factor if p.low is not None else 0.0 for p in series.points]
    above = [(p.high - p.value) * factor if p.high is not None else 0.0 for p in series.points]
    label = series.subject
    if isinstance(fit, PowerFit):
        interval = f" ({fit.low:.2f}–{fit.high:.2f})" if fit.low is not None and fit.high != fit.low else ""
        label += f"   N^{fit.exponent:.2f}{interval}"
    bars = axes.errorbar(
        x,
        values,
        yerr=[below, above] if any(below) or any(above) else None,
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
    if isinstance(fit, PowerFit) and fitted:
        tokens = np.array(fit.range) if view == "log" else np.geomspace(*fit.range, 30)
        ends = tokens if view == "tokens" else [series.axis.side_of(n) for n in tokens]
        line = fit.coefficient * tokens**fit.exponent * factor
        drawn += axes.plot(ends, line, color=style.colour, linewidth=1.4, linestyle=style.dash)
    for artist in drawn:
        artist.set_gid(series_id(place))
        # within the axes: nothing to measure when margins are found, which takes as long as drawing does
        artist.set_in_layout(False)


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
            xytext=(4, 0),
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
        one.xaxis.set_major_locator(FixedLocator(ticks))
        one.xaxis.set_major_formatter(FixedFormatter(_spaced(ticks, texts, view == "log")))
        one.xaxis.set_minor_locator(NullLocator())
        one.set_xlabel(title)
    top.xaxis.label.set_fontsize(9)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    if view != "log":
        axes.set_ylim(bottom=0)
        return
    low, high = axes.get_ylim()
    if high / low < 30:
        # under a decade and a half the powers of ten alone would leave one or two ticks
        found = [m * 10.0**e for e in range(-9, 13) for m in (1, 2, 3, 5) if low <= m * 10.0**e <= high]
        axes.yaxis.set_major_locator(FixedLocator(found))
        axes.yaxis.set_minor_locator(NullLocator())


def _spaced(ticks: Sequence[float], labels: Sequence[str], log: bool = True) -> list[str]:
    """The labels, those left blank that would run into a larger tick's: a digit takes 1.7 % of the axis."""
    at = [math.log(tick / ticks[0]) if log else tick - ticks[0] for tick in ticks]
    shown: list[str] = []
    next_at, width = math.inf, 0
    for place, label in zip(reversed(at), reversed(labels), strict=True):
        share = place / (at[-1] or 1.0)
        if next_at - share >= 0.017 * ((width + len(label)) / 2 + 1):
            shown.append(label)
            next_at, width = share, len(label)
        else:
            shown.append("")
    return shown[::-1]
