"""The roofline chart: achieved FLOP/s against arithmetic intensity, under the device's measured ceilings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes

from vheatbench import numbers
from vheatbench.analysis.axis import GRID
from vheatbench.analysis.roofline import Placed, Roof, Roofline
from vheatbench.present.chart import multiples, page_chart
from vheatbench.present.style import set_ticks
from vheatbench.present.theme import FAINT, INK, PAPER, style_of


def roofline_chart(name: str, roofline: Roofline, subjects: Sequence[str]) -> str:
    """Log-log chart: one curve per operator, its points joined by growing grid, its last one large.

    Args:
        name: unique on the page; keeps the SVG's internal ids apart.
        roofline: roof and points; FLOP/byte against FLOP/s.
        subjects: all subjects of the page, for constant colours.

    Returns:
        An ``<svg>`` element.
    """
    curves: dict[str, list[Placed]] = {}
    for point in roofline.points:
        curves.setdefault(point.subject, []).append(point)
    factor, unit = rate_unit(roofline.roof)
    with page_chart(name, list(curves), height=4.6) as chart:
        axes = chart.axes
        axes.set_xscale("log")
        axes.set_yscale("log")
        for subject, points in curves.items():
            style = style_of(subject, subjects)
            look: dict[str, Any] = {"color": style.colour, "marker": style.marker, "markerfacecolor": style.face}
            x, y = [p.intensity for p in points], [p.rate * factor for p in points]
            axes.plot(x, y, linestyle=style.dash, linewidth=1.2, markersize=4.5, label=subject, **look)
            axes.plot(x[-1], y[-1], linestyle="none", markersize=8, **look)
        _limits(axes, roofline, factor)
        _draw_roof(axes, roofline.roof, factor, unit)
        axes.set_xlabel("arithmetic intensity (FLOP per byte of least traffic)")
        axes.set_ylabel(f"achieved ({unit})")
        for axis, (low, high) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
            set_ticks(axis, multiples(low, high, (1, 2, 5) if high / low < 1000 else (1,)))
        axes.grid(True, which="major")
        _label_smaller(axes, curves, largest_grid(roofline), factor)
    return chart.svg


def rate_unit(roof: Roof) -> tuple[float, str]:
    """GFLOP/s, or TFLOP/s where a device does ten of them: the factor from FLOP/s, and the unit."""
    return (1e-12, "TFLOP/s") if roof.rate.value >= 1e13 else (1e-9, "GFLOP/s")


def rate_text(rate: float, factor: float = 1e-9) -> str:
    """A ceiling times the factor of its unit (bandwidth: GB/s), three digits."""
    return numbers.plain(rate * factor, 3)


def _limits(axes: Axes, roofline: Roofline, factor: float) -> None:
    """Room for all points, for the ridge and for some of both parts of the roof."""
    ridge = roofline.roof.ridge
    x = [p.intensity for p in roofline.points]
    y = [p.rate * factor for p in roofline.points]
    left, right = min(*x, ridge / 4) / 1.6, max(*x, ridge * 4) * 1.9
    axes.set_xlim(left, right)
    axes.set_ylim(min(y) / 2, max(*y, roofline.roof.rate.value * factor) * 1.8)


def _draw_roof(axes: Axes, roof: Roof, factor: float, unit: str) -> None:
    left, right = axes.get_xlim()
    peak, slope = roof.rate.value * factor, roof.bandwidth.value * factor
    axes.plot([left, roof.ridge, right], [left * slope, peak, peak], color=INK, linewidth=1.6, zorder=1.5)
    bottom, top = axes.get_ylim()
    axes.plot([roof.ridge, roof.ridge], [bottom, peak], color=FAINT, linewidth=0.8, linestyle=":")
    axes.annotate(
        f"matrix product {rate_text(roof.rate.value, factor)} {unit}",
        (roof.ridge, peak),
        xytext=(2, 4),
        textcoords="offset points",
        fontsize=8.5,
    )
    # in the middle of the part of the slope that can be seen
    start = max(left, bottom / slope)
    middle = math.sqrt(start * roof.ridge)
    axes.text(
        middle,
        middle * slope * (top / bottom) ** 0.03,  # a little above the line
        f"copy {rate_text(roof.bandwidth.value)} GB/s",
        # along the roof: its direction in data coordinates, turned into the page's by matplotlib
        rotation=math.degrees(math.atan(slope)),
        rotation_mode="anchor",
        transform_rotates_text=True,
        ha="center",
        fontsize=8.5,
    )


def largest_grid(roofline: Roofline) -> tuple[int, int]:
    """The largest grid of the chart."""
    return max((point.resolution for point in roofline.points), key=math.prod)


def _label_smaller(axes: Axes, curves: dict[str, list[Placed]], largest: tuple[int, int], factor: float) -> None:
    """The last grid beside its marker where it is not the largest: as many labels of one text would cover points."""
    for points in curves.values():
        last = points[-1]
        if last.resolution == largest:
            continue
        axes.annotate(
            GRID.words(last.resolution),
            (last.intensity, last.rate * factor),
            xytext=(6, -3),
            textcoords="offset points",
            fontsize=7.5,
            color=INK,
            bbox={"boxstyle": "square,pad=0.1", "facecolor": PAPER, "edgecolor": "none", "alpha": 0.7},
        )
