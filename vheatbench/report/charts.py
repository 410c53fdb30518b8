"""Charts of a metric against size as inline SVG: drawn by matplotlib, coloured by the page's CSS variables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter, NullLocator

from vheatbench.analysis.axis import GRID as TOKEN_GRID
from vheatbench.analysis.scaling import PowerFit, Scaling
from vheatbench.analysis.series import Series
from vheatbench.report.theme import FAINT, GRID, Style, add_legend, chart_style, style_of, svg_of


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


def scaling_chart(
    name: str, metric: str, series: Sequence[tuple[Series, Scaling | None]], subjects: Sequence[str]
) -> str:
    """Log-log chart of a metric against size (below) and tokens (above).

    Models have the fitted lines, operators lines that join their points: a fixed overhead at small grids bends them.

    Args:
        name: unique on the page; keeps the SVG's internal ids apart.
        metric: key of :data:`LOOKS`.
        series: points, and the fit whose exponent is shown (None for none). All on one axis.
        subjects: all subjects of the page, for constant colours.

    Returns:
        An ``<svg>`` element.
    """
    look = LOOKS[metric]
    with matplotlib.rc_context(chart_style(name)):
        figure = Figure(figsize=(6.2, 4.1), layout="constrained")
        axes = figure.subplots()
        axes.set_xscale("log")
        axes.set_yscale("log")
        if look.guides:
            _guides(axes, [s for s, _ in series], look.factor)
        for one, scaling in series:
            _draw(axes, one, scaling, look.factor, style_of(one.subject, subjects))
        _scales(axes, [s for s, _ in series])
        axes.set_ylabel(f"{look.title.lower() if metric != 'macs' else 'multiply-adds'} ({look.axis})")
        axes.grid(True, which="major", color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        add_legend(figure, axes)
        return svg_of(figure)


def _draw(axes: Axes, series: Series, scaling: Scaling | None, factor: float, style: Style) -> None:
    sides = [point.side for point in series.points]
    values = [point.value * factor for point in series.points]
    fit = scaling.power if scaling is not None else None
    fitted = isinstance(fit, PowerFit) and series.axis != TOKEN_GRID
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
        fmt=style.marker,
        color=style.colour,
        markerfacecolor=style.face,
        markersize=6,
        capsize=3,
        linewidth=1.2,
        label=label,
        linestyle="none" if fitted else style.dash,
    )
    if isinstance(fit, PowerFit) and fitted:
        ends = [series.axis.side_of(n) for n in fit.range]
        line = [fit.coefficient * n**fit.exponent * factor for n in fit.range]
        axes.plot(ends, line, color=style.colour, linewidth=1.4, linestyle=style.dash)


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


def _scales(axes: Axes, series: Sequence[Series]) -> None:
    """Ticks at the measured sizes below, the same in tokens above, plain numbers at the side."""
    axis = series[0].axis
    sides = sorted({point.side for s in series for point in s.points})
    axes.xaxis.set_major_locator(FixedLocator(sides))
    axes.xaxis.set_major_formatter(FixedFormatter(_spaced(sides, [f"{side:.0f}" for side in sides])))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(axis.label)
    top = axes.secondary_xaxis("top", functions=(lambda x: x, lambda x: x))
    top.xaxis.set_major_locator(FixedLocator(sides))
    top.xaxis.set_major_formatter(FixedFormatter(_spaced(sides, [f"{axis.tokens(side):.0f}" for side in sides])))
    top.xaxis.set_minor_locator(NullLocator())
    top.set_xlabel(axis.tokens_label, fontsize=9)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    low, high = axes.get_ylim()
    if high / low < 30:
        # under a decade and a half the powers of ten alone would leave one or two ticks
        ticks = [m * 10.0**e for e in range(-9, 13) for m in (1, 2, 3, 5) if low <= m * 10.0**e <= high]
        axes.yaxis.set_major_locator(FixedLocator(ticks))
        axes.yaxis.set_minor_locator(NullLocator())


def _spaced(sides: Sequence[float], labels: Sequence[str]) -> list[str]:
    """The labels, those left blank that would run into a larger side's: a digit takes 1.7 % of the axis."""
    span = math.log(sides[-1] / sides[0]) if len(sides) > 1 else 1.0
    shown: list[str] = []
    next_at, width = math.inf, 0
    for side, label in zip(reversed(sides), reversed(labels), strict=True):
        at = math.log(side / sides[0]) / span
        if next_at - at >= 0.017 * ((width + len(label)) / 2 + 1):
            shown.append(label)
            next_at, width = at, len(label)
        else:
            shown.append("")
    return shown[::-1]
