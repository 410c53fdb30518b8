"""Areas of receptive fields over depth and over resolution, with their intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from vheatbench.present.style import Look, line_of, plain_log, shorten
from vheatbench.studies.erf.labels import labels, series, title_of
from vheatbench.studies.erf.results import ErfResult

METRICS = {"erf_a50": "A50", "erf_a99": "A99", "erf_entropy_area": "entropy area"}
"""Shares of the image, and what they are called."""


def draw_area_by_depth(
    ax: Axes, results: Sequence[ErfResult], metric: str = "erf_a50", looks: Sequence[Look] | None = None
) -> Axes:
    """A metric over the layers of a model, with its interval, logarithmic; one line per model, size and state.

    The layers' names are on the axis where all lines have as many; else it is the position among the layers measured,
    from 0 (first) to 1 (last).

    Args:
        ax: to draw on.
        results: those of two layers or more are drawn.
        metric: key of :data:`METRICS`.
        looks: one per line; those for print where not given.

    Returns:
        ``ax``.
    """
    lines = series(results, "layer")
    names = list(dict.fromkeys(tuple(shorten(result.layer, 18) for result in line) for line in lines))
    if len({len(line) for line in lines}) == 1 and len(names) <= 3:
        _draw(ax, lines, metric, looks, "layer", lambda line: [float(i) for i in range(len(line))])
        _name_layers(ax, ["\n".join(dict.fromkeys(same)) for same in zip(*names, strict=True)])
        ax.set_xlabel("layer")
    else:
        _draw(ax, lines, metric, looks, "layer", lambda line: [i / (len(line) - 1) for i in range(len(line))])
        ax.set_xlabel("position among the layers measured")
    ax.set_ylabel(f"{METRICS[metric]} (share of the image)")
    return ax


def draw_area_by_resolution(
    ax: Axes,
    results: Sequence[ErfResult],
    metric: str = "erf_a50",
    unit: Literal["pixels", "share"] = "share",
    looks: Sequence[Look] | None = None,
) -> Axes:
    """A metric over the resolution, with its interval, both logarithmic; one line per model, layer and state.

    Args:
        ax: to draw on.
        results: those of two sizes or more are drawn.
        metric: key of :data:`METRICS`.
        unit: ``share`` of the image, or ``pixels``: the share times the image's area.
        looks: one per line; those for print where not given.

    Returns:
        ``ax``.
    """
    lines = series(results, "resolution")
    scale = area if unit == "pixels" else lambda _: 1.0
    _draw(ax, lines, metric, looks, "resolution", lambda line: [side(result) for result in line], scale)
    ax.set_xscale("log")
    sides = sorted({side(result) for line in lines for result in line})
    ax.xaxis.set_major_locator(FixedLocator(sides))
    ax.xaxis.set_major_formatter(FixedFormatter([f"{length:.0f}" for length in sides]))
    ax.xaxis.set_minor_locator(NullLocator())
    square = all(result.resolution[0] == result.resolution[1] for line in lines for result in line)
    ax.set_xlabel("resolution (px)" if square else "resolution (px, side of the square of equal area)")
    ax.set_ylabel(f"{METRICS[metric]} ({'pixels' if unit == 'pixels' else 'share of the image'})")
    return ax


def area(result: ErfResult) -> float:
    """Pixels of the image."""
    return float(result.resolution[0] * result.resolution[1])


def side(result: ErfResult) -> float:
    """Side in pixels of the square of equal area."""
    return area(result) ** 0.5


def _draw(
    ax: Axes,
    lines: Sequence[Sequence[ErfResult]],
    metric: str,
    looks: Sequence[Look] | None,
    along: str,
    places: Callable[[Sequence[ErfResult]], list[float]],
    scale: Callable[[ErfResult], float] = lambda _: 1.0,
) -> None:
    """One line with error bars per series; a result without the metric is a gap."""
    names = labels([line[-1] for line in lines], without=(along,))
    lowest = math.inf
    for i, (line, label) in enumerate(zip(lines, names, strict=True)):
        look = looks[i] if looks is not None else line_of(i)
        points = [
            (x, metric_of.value * scale(result), metric_of.low, metric_of.high, scale(result))
            for x, result in zip(places(line), line, strict=True)
            if (metric_of := result.record.metrics.get(metric)) is not None and metric_of.value
        ]
        if not points:
            continue
        lowest = min(lowest, *(point[1] for point in points))
        below = [y - low * factor if low is not None else 0.0 for _, y, low, _, factor in points]
        above = [high * factor - y if high is not None else 0.0 for _, y, _, high, factor in points]
        ax.errorbar(
            [point[0] for point in points],
            [point[1] for point in points],
            # a jackknife's interval may go below nothing, which a logarithmic axis has no place for
            yerr=[[min(down, 0.99 * point[1]) for down, point in zip(below, points, strict=True)], above],
            color=look.colour, marker=look.marker, markerfacecolor=look.face, linestyle=look.dash, label=label,
        )  # fmt: skip
    if math.isfinite(lowest):
        ax.set_yscale("log")
        # an interval that reaches down to nothing runs off the axis instead of stretching it
        ax.set_ylim(bottom=max(ax.get_ylim()[0], lowest / 3))
    plain_log(ax.yaxis)
    ax.grid(True)
    ax.set_title(title_of([result for line in lines for result in line], without=(along,)))


def _name_layers(ax: Axes, names: Sequence[str]) -> None:
    """Names below the axis, every second or third of them where there are many."""
    step = -(-len(names) // 12)
    places = list(range(len(names) - 1, -1, -step))[::-1]
    ax.xaxis.set_major_locator(FixedLocator(places))
    ax.xaxis.set_major_formatter(FixedFormatter([names[place] for place in places]))
    ax.xaxis.set_minor_locator(NullLocator())
    if len(places) * max(len(line) for place in places for line in names[place].split("\n")) > 40:
        ax.tick_params(axis="x", rotation=50, rotation_mode="anchor")
        for label in ax.get_xticklabels():
            label.set_horizontalalignment("right")
