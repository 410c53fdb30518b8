"""Charts as inline SVG: drawn by matplotlib, coloured by the page's CSS variables."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter, NullLocator

from vheatbench.analysis.scaling import PowerFit, Scaling
from vheatbench.analysis.series import PATCH, Series

INK, FAINT, GRID, PAPER = "#010203", "#040506", "#070809", "#fdfefe"
"""Stand-ins that no chart uses otherwise; each becomes a CSS variable, so that dark mode recolours it."""

SERIES_COLOURS = ("#d55e01", "#0072b3", "#009e74", "#cc79a8", "#56b4ea", "#e69f02", "#8c6bb2", "#7f7f80")
"""Okabe and Ito's colour-blind safe palette, one step off so that each is unique in the SVG."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h")

_VARIABLES = {INK: "--ink", FAINT: "--faint", GRID: "--grid", PAPER: "--paper"} | {
    colour: f"--series-{i + 1}" for i, colour in enumerate(SERIES_COLOURS)
}

_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 10,
    "svg.fonttype": "none",
    # names come from outside: a dollar sign in one is no formula
    "text.parse_math": False,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.spines.right": False,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


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
    "peak_memory_bytes": Look("Peak memory", "MiB", 2.0**-20),
    "macs": Look("Multiply-adds", "GMAC per image", 1e-9, guides=True),
    "energy_per_image_j": Look("Energy", "J per image", 1.0),
    "largest_batch": Look("Largest batch that fits", "images", 1.0),
}


def colour_of(subject: str, subjects: Sequence[str]) -> int:
    """Index of a subject's colour and marker: its place among all subjects of the page."""
    return list(subjects).index(subject) % len(SERIES_COLOURS)


def scaling_chart(
    name: str, metric: str, series: Sequence[tuple[Series, Scaling | None]], subjects: Sequence[str]
) -> str:
    """Log-log chart of a metric against resolution (below) and tokens (above), with fitted lines.

    Args:
        name: unique on the page; keeps the SVG's internal ids apart.
        metric: key of :data:`LOOKS`.
        series: points, and the fit whose line is drawn (None for none).
        subjects: all subjects of the page, for constant colours.

    Returns:
        An ``<svg>`` element.
    """
    look = LOOKS[metric]
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(6.2, 4.1), layout="constrained")
        axes = figure.subplots()
        axes.set_xscale("log")
        axes.set_yscale("log")
        if look.guides:
            _guides(axes, [s for s, _ in series], look.factor)
        for one, scaling in series:
            _draw(axes, one, scaling, look.factor, colour_of(one.subject, subjects))
        _scales(axes, [s for s, _ in series])
        axes.set_ylabel(f"{look.title.lower() if metric != 'macs' else 'multiply-adds'} ({look.axis})")
        axes.grid(True, which="major", color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.legend(loc="best", fontsize=9)
        buffer = io.StringIO()
        with warnings.catch_warnings():
            # the browser draws the text, with fonts that matplotlib does not know of
            warnings.filterwarnings("ignore", message="Glyph .* missing")
            figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return _themed(buffer.getvalue())


def _draw(axes: Axes, series: Series, scaling: Scaling | None, factor: float, index: int) -> None:
    colour, marker = SERIES_COLOURS[index], MARKERS[index]
    sides = [point.side for point in series.points]
    values = [point.value * factor for point in series.points]
    fit = scaling.power if scaling is not None else None
    below = [(p.value - p.low) * factor if p.low is not None else 0.0 for p in series.points]
    above = [(p.high - p.value) * factor if p.high is not None else 0.0 for p in series.points]
    label = series.subject
    if isinstance(fit, PowerFit):
        interval = f" ({fit.low:.2f}–{fit.high:.2f})" if fit.low is not None and fit.high != fit.low else ""
        label += f"   N^{fit.exponent:.2f}{interval}"
    axes.errorbar(
        sides,
        values,
        yerr=[below, above],
        fmt=marker,
        color=colour,
        markersize=6,
        capsize=3,
        linewidth=1.2,
        label=label,
        linestyle="none" if isinstance(fit, PowerFit) else "-",
    )
    if isinstance(fit, PowerFit):
        ends = [math.sqrt(n) * PATCH for n in fit.range]
        line = [fit.coefficient * n**fit.exponent * factor for n in fit.range]
        axes.plot(ends, line, color=colour, linewidth=1.4)


def _guides(axes: Axes, series: Sequence[Series], factor: float) -> None:
    """Dotted lines of slope 1, 1.5 and 2 in N through the middle of the first points."""
    points = [s.points for s in series if len(s.points) > 1]
    if not points:
        return
    first = min(p[0].tokens for p in points)
    last = max(p[-1].tokens for p in points)
    start = math.exp(sum(math.log(p[0].value * factor) for p in points) / len(points))
    for power in (1, 1.5, 2):
        end = start * (last / first) ** power
        axes.plot(
            [math.sqrt(first) * PATCH, math.sqrt(last) * PATCH], [start, end], color=FAINT, linewidth=0.8, linestyle=":"
        )
        axes.annotate(
            f"N^{power:g}" if power != 1 else "N",
            (math.sqrt(last) * PATCH, end),
            xytext=(4, 0),
            textcoords="offset points",
            fontsize=8,
            color=FAINT,
            va="center",
        )


def _scales(axes: Axes, series: Sequence[Series]) -> None:
    """Ticks at the measured sizes below, the same in tokens above, plain numbers at the side."""
    sides = sorted({point.side for s in series for point in s.points})
    axes.xaxis.set_major_locator(FixedLocator(sides))
    axes.xaxis.set_major_formatter(FixedFormatter([f"{side:.0f}" for side in sides]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("resolution (px, side of the square)")
    top = axes.secondary_xaxis("top", functions=(lambda x: x, lambda x: x))
    top.xaxis.set_major_locator(FixedLocator(sides))
    top.xaxis.set_major_formatter(FixedFormatter([f"{(side / PATCH) ** 2:.0f}" for side in sides]))
    top.xaxis.set_minor_locator(NullLocator())
    top.set_xlabel("tokens N (16×16 px patches)", fontsize=9)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    low, high = axes.get_ylim()
    if high / low < 30:
        # under a decade and a half the powers of ten alone would leave one or two ticks
        ticks = [m * 10.0**e for e in range(-9, 13) for m in (1, 2, 3, 5) if low <= m * 10.0**e <= high]
        axes.yaxis.set_major_locator(FixedLocator(ticks))
        axes.yaxis.set_minor_locator(NullLocator())


def _themed(svg: str) -> str:
    """The bare ``<svg>`` element, its stand-in colours replaced by CSS variables, its size by the page's."""
    svg = svg[svg.index("<svg") :]
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    # group ids repeat in every chart and nothing refers to them; those of markers and clips are hashes
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = svg.replace("font-family: sans-serif", "font-family: inherit").replace(
        "font: 10px 'sans-serif'", "font: 10px inherit"
    )
    # described by the figure's own text; a reader need not step through every tick
    return svg.replace("<svg", '<svg role="img" aria-hidden="true" focusable="false"', 1)
