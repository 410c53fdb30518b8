"""Figures of receptive fields: curves of single maps, areas over depth and resolution, and all that a run allows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vheatbench.present.style import (
    FORMATS,
    ONE_COLUMN,
    PRINT_LINES,
    TWO_COLUMN,
    LineStyle,
    legend_below,
    new_figure,
    plain_log,
    save,
    set_ticks,
    shorten,
    style,
)
from vheatbench.studies.erf.field import area_curve, radial_profile
from vheatbench.studies.erf.labels import deepest, labels, metric_of, series, title_of
from vheatbench.studies.erf.maps import erf_maps, layer_maps
from vheatbench.studies.erf.results import ErfResult

LINES = 10
"""Curves of one figure: more go to a further one."""

METRICS = {"erf_a50": "A50", "erf_a99": "A99", "erf_entropy_area": "entropy area"}
"""Shares of the image, and what they are called."""


def draw_radial_profile(ax: Axes, results: Sequence[ErfResult], lines: Sequence[LineStyle] = PRINT_LINES) -> Axes:
    """Mean mass density over the distance from the centre, logarithmic; a line per result, labelled by what differs.

    The distance is in pixels where all sizes are equal, else in shares of the shorter side.
    """
    pixels = len({result.resolution for result in results}) == 1
    for i, (result, label) in enumerate(zip(results, labels(results), strict=True)):
        radius, profile = radial_profile(result.map, result.centre)
        unit = 1.0 if pixels else 1.0 / min(result.resolution)
        ax.plot(radius * unit, profile, color=lines[i].colour, ls=lines[i].dash, label=label)
    plain_log(ax.yaxis)
    ax.set_xlim(left=0)
    ax.set_xlabel("distance from the centre (px)" if pixels else "distance from the centre (share of the shorter side)")
    ax.set_ylabel("mean mass density (1 = uniform)")
    ax.grid(True)
    ax.set_title(title_of(results))
    return ax


def draw_area_curve(ax: Axes, results: Sequence[ErfResult], lines: Sequence[LineStyle] = PRINT_LINES) -> Axes:
    """A_t, the smallest share of the pixels that holds the share t of the mass, over t; the diagonal is uniform."""
    for i, (result, label) in enumerate(zip(results, labels(results), strict=True)):
        ax.plot(*area_curve(result.map), color=lines[i].colour, ls=lines[i].dash, label=label)
    faint = matplotlib.rcParams["axes.edgecolor"]
    ax.plot([0, 1], [0, 1], color=faint, linewidth=0.8, linestyle=(0, (1, 2)))
    ax.annotate("uniform", (0.25, 0.25), xytext=(-4, 2), textcoords="offset points", ha="right", fontsize="small")
    ax.axvline(0.5, color=faint, linewidth=0.6, linestyle=":", zorder=0.5)
    ax.annotate(
        "A50", (0.5, 1), xycoords=("data", "axes fraction"), xytext=(-2, -1), textcoords="offset points", ha="right",
        va="top", fontsize="small",
    )  # fmt: skip
    ax.set(xlim=(0, 1), ylim=(0, 1))
    ax.set_xlabel("share t of the mass")
    ax.set_ylabel("smallest share of pixels holding t")
    ax.grid(True)
    ax.set_title(title_of(results))
    return ax


def draw_area_by_depth(
    ax: Axes, results: Sequence[ErfResult], metric: str = "erf_a50", lines: Sequence[LineStyle] = PRINT_LINES
) -> Axes:
    """A metric of :data:`METRICS` over the layers of a model, with its interval, logarithmic.

    There is a line per model, size and state with two layers or more. The layers' names are on the axis where all
    lines have as many; else it is the position among the layers measured, from 0 (first) to 1 (last).
    """
    groups = series(results, "layer")
    names = list(dict.fromkeys(tuple(shorten(result.layer, 18) for result in group) for group in groups))
    if len({len(group) for group in groups}) == 1 and len(names) <= 3:
        _draw_series(ax, groups, metric, lines, "layer", lambda group: [float(i) for i in range(len(group))])
        _name_layers(ax, ["\n".join(dict.fromkeys(same)) for same in zip(*names, strict=True)])
        ax.set_xlabel("layer")
    else:
        _draw_series(
            ax, groups, metric, lines, "layer", lambda group: [i / (len(group) - 1) for i in range(len(group))]
        )
        ax.set_xlabel("position among the layers measured")
    ax.set_ylabel(f"{METRICS[metric]} (share of the image)")
    return ax


def draw_area_by_resolution(
    ax: Axes,
    results: Sequence[ErfResult],
    metric: str = "erf_a50",
    unit: Literal["pixels", "share"] = "share",
    lines: Sequence[LineStyle] = PRINT_LINES,
) -> Axes:
    """A metric of :data:`METRICS` over the resolution, with its interval, both logarithmic.

    There is a line per model, layer and state with two sizes or more. In ``pixels`` it is the share times the image's
    area.
    """
    groups = series(results, "resolution")
    scale = area if unit == "pixels" else lambda _: 1.0
    _draw_series(ax, groups, metric, lines, "resolution", lambda group: [side(result) for result in group], scale)
    ax.set_xscale("log")
    sides = sorted({side(result) for group in groups for result in group})
    set_ticks(ax.xaxis, sides, [f"{length:.0f}" for length in sides])
    square = all(result.resolution[0] == result.resolution[1] for group in groups for result in group)
    ax.set_xlabel("resolution (px)" if square else "resolution (px, side of the square of equal area)")
    ax.set_ylabel(f"{METRICS[metric]} ({'pixels' if unit == 'pixels' else 'share of the image'})")
    return ax


def area(result: ErfResult) -> float:
    """Pixels of the image."""
    return float(result.record.case.pixels)


def side(result: ErfResult) -> float:
    """Side in pixels of the square of equal area."""
    return area(result) ** 0.5


def _draw_series(
    ax: Axes,
    groups: Sequence[Sequence[ErfResult]],
    metric: str,
    lines: Sequence[LineStyle],
    along: str,
    places: Callable[[Sequence[ErfResult]], list[float]],
    scale: Callable[[ErfResult], float] = lambda _: 1.0,
) -> None:
    """One line with error bars per series; a result without the metric is a gap."""
    lowest = math.inf
    names = labels([group[-1] for group in groups], without=(along,))
    for i, (group, label) in enumerate(zip(groups, names, strict=True)):
        line = lines[i % len(lines)]
        x, y, below, above = [], [], [], []
        for place, result in zip(places(group), group, strict=True):
            found, factor = metric_of(result.record, metric), scale(result)
            if found is None or not found.value:
                continue
            low, high = (found.value if end is None else end for end in (found.low, found.high))
            x.append(place)
            y.append(found.value * factor)
            # a jackknife's interval may go below nothing, which a logarithmic axis has no place for
            below.append(min((found.value - low) * factor, 0.99 * y[-1]))
            above.append((high - found.value) * factor)
        if y:
            lowest = min(lowest, *y)
            ax.errorbar(
                x, y, yerr=[below, above], color=line.colour, marker=line.marker, markerfacecolor=line.face,
                linestyle=line.dash, label=label,
            )  # fmt: skip
    if math.isfinite(lowest):
        ax.set_yscale("log")
        # an interval that reaches down to nothing runs off the axis instead of stretching it
        ax.set_ylim(bottom=max(ax.get_ylim()[0], lowest / 3))
    plain_log(ax.yaxis)
    ax.grid(True)
    ax.set_title(title_of([result for group in groups for result in group], without=(along,)))


def _name_layers(ax: Axes, names: Sequence[str]) -> None:
    """Names below the axis, every second or third of them where there are many."""
    step = -(-len(names) // 12)
    places = list(range(len(names) - 1, -1, -step))[::-1]
    set_ticks(ax.xaxis, places, [names[place] for place in places])
    if len(places) * max(len(line) for place in places for line in names[place].split("\n")) > 40:
        ax.tick_params(axis="x", rotation=50, rotation_mode="anchor")
        for label in ax.get_xticklabels():
            label.set_horizontalalignment("right")


def save_erf_figures(results: Sequence[ErfResult], out_dir: Path, formats: Sequence[str] = FORMATS) -> list[Path]:
    """Write every figure that the results allow.

    - ``erf-maps``: of every model the deepest layer measured, side by side on one colour scale;
    - ``erf-layers-MODEL``: layers of one model, where several were measured;
    - ``erf-radial``, ``erf-area``: profile over the distance, area against threshold;
    - ``erf-depth``, ``erf-resolution``: areas over the layers and over the sizes, where there are several.

    What does not fit on one figure goes on another, numbered from 2 on.

    Args:
        results: what was measured, of any models, sizes, layers and states.
        out_dir: made if it is not there.
        formats: each figure is written in all of them.

    Returns:
        What was written; nothing for no results.

    Raises:
        UserError: a file cannot be written.
    """
    written = []
    with style():
        for name, figure in figures_of(results):
            written += save(figure, out_dir / name, formats)
    return written


def figures_of(results: Sequence[ErfResult]) -> Iterator[tuple[str, Figure]]:
    """Name and figure of all of them; to be taken within :func:`vheatbench.present.style.style`."""
    if not results:
        return
    main = sorted(deepest(results), key=area)
    yield from _numbered("erf-maps", erf_maps(main))
    names: dict[str, int] = {}
    for subject, shown in layer_maps(results):
        name = "".join(sign if sign.isalnum() or sign in "._-" else "-" for sign in shorten(subject, 60))
        names[name] = names.get(name, 0) + 1
        stem = f"erf-layers-{name}" + (f"-{names[name]}" if names[name] > 1 else "")
        yield from _numbered(stem, erf_maps(shown))
    chunks = [main[start : start + LINES] for start in range(0, len(main), LINES)]
    yield from _numbered("erf-radial", [_curves(draw_radial_profile, chunk, 2.4) for chunk in chunks])
    yield from _numbered("erf-area", [_curves(draw_area_curve, chunk, 2.6) for chunk in chunks])
    if series(results, "layer"):
        yield "erf-depth", _depth(results)
    if series(main, "resolution"):
        yield "erf-resolution", _resolution(main)


def _numbered(name: str, figures: Sequence[Figure]) -> Iterator[tuple[str, Figure]]:
    for number, figure in enumerate(figures, start=1):
        yield name if number == 1 else f"{name}-{number}", figure


def _curves(draw: Callable[[Axes, Sequence[ErfResult]], Axes], results: Sequence[ErfResult], height: float) -> Figure:
    figure = new_figure(ONE_COLUMN, height)
    draw(figure.subplots(), results)
    legend_below(figure)
    return figure


def _depth(results: Sequence[ErfResult]) -> Figure:
    figure = new_figure(TWO_COLUMN, 2.6)
    left, right = figure.subplots(1, 2)
    draw_area_by_depth(left, results, "erf_a50")
    draw_area_by_depth(right, results, "erf_a99").set_title("")
    legend_below(figure)
    return figure


def _resolution(results: Sequence[ErfResult]) -> Figure:
    figure = new_figure(TWO_COLUMN, 4.4)
    axes = figure.subplots(2, 2)
    for row, metric in zip(axes, ("erf_a50", "erf_a99"), strict=True):
        draw_area_by_resolution(row[0], results, metric, "pixels")
        draw_area_by_resolution(row[1], results, metric, "share").set_title("")
    for ax in axes[1]:
        ax.set_title("")
    for ax in axes[0]:
        ax.set_xlabel("")
    legend_below(figure)
    return figure
