"""Maps of effective receptive fields side by side, with one colour scale and bar."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import matplotlib.patheffects
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from vheatbench.present.style import MAP_COLOURS, TWO_COLUMN, fold, new_figure
from vheatbench.store.schema import Metric
from vheatbench.studies.erf.colours import ColourScale, colour_scale, shown_density
from vheatbench.studies.erf.curves import coarse, density, level_of
from vheatbench.studies.erf.labels import RANDOM, deepest, differing, series, title_of, words
from vheatbench.studies.erf.results import ErfResult

COLUMNS, ROWS = 5, 5
"""Panels of one figure: more go to a further one of the same scale."""

CONTOUR, CENTRE = "#7df0ff", "white"

CELLS = 56
"""Cells of the longer side that the contour is drawn on: single pixels would make it a cloud of specks."""

Cell = ErfResult | None
Grid = list[list[Cell]]


def erf_map(ax: Axes, result: ErfResult, scale: ColourScale | None = None) -> Axes:
    """One map: the density as colour, the A50 contour, a cross at the centre, the numbers below.

    Args:
        ax: to draw on; its axes are pixels of the input.
        result: what to draw.
        scale: of all maps of the figure; the map's own where not given.

    Returns:
        ``ax``.
    """
    scale = scale or colour_scale([result])
    height, width = result.resolution
    field, block = shown_density(result)
    # cells of a cut off last block are drawn as whole ones, beyond the edge
    extent = (0.0, float(field.shape[1] * block), float(field.shape[0] * block), 0.0)
    ax.imshow(field, cmap=MAP_COLOURS, norm=scale.norm, extent=extent, interpolation="nearest")
    _contour(ax, result)
    y, x = result.centre
    ax.plot(x, y, marker="+", color=CENTRE, markersize=5, markeredgewidth=0.8, path_effects=_outline(1.8))
    ax.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set_visible(False)
    ax.set_xlabel(panel_text(result), fontsize=6.5, linespacing=1.15)
    return ax


def _contour(ax: Axes, result: ErfResult) -> None:
    """The border of the smallest area that holds half of the mass, on coarse cells."""
    field, block = coarse(density(result), CELLS)
    level = level_of(field, 0.5)
    if level <= 0 or min(field.shape) < 2 or level >= field.max():
        return
    y, x = ((np.arange(size) + 0.5) * block for size in field.shape)
    ax.contour(x, y, field, levels=[level], colors=CONTOUR, linewidths=0.8)


def _outline(width: float) -> list[Any]:
    return [matplotlib.patheffects.withStroke(linewidth=width, foreground="black")]


def panel_text(result: ErfResult) -> str:
    """Below a map: A50, A99 and radius with their intervals, and that the weights are random if they are."""
    lines = []
    for name, title, factor, unit in (
        ("erf_a50", "A50", 100.0, "%"),
        ("erf_a99", "A99", 100.0, "%"),
        ("erf_radius_px", "radius", 1.0, "px"),
    ):
        metric = result.record.metrics.get(name)
        if metric is not None and metric.value is not None:
            lines.append(f"{title} {with_interval(metric, factor, unit)}")
    if not result.map.any():
        lines.append("no gradient at all")
    if result.random:
        lines.append(RANDOM)
    return "\n".join(lines)


def with_interval(metric: Metric, factor: float = 1.0, unit: str = "") -> str:
    """``4.0 % (3.8 to 4.3)`` in as many digits as the interval allows; three without an interval."""
    value, unit = (metric.value or 0.0) * factor, f" {unit}" if unit else ""
    if metric.low is None or metric.high is None or metric.low >= metric.high:
        decimals = 2 - math.floor(math.log10(abs(value))) if value else 0
        return f"{value:.{max(0, decimals)}f}{unit}"
    low, high = metric.low * factor, metric.high * factor
    decimals = max(0, -math.floor(math.log10((high - low) / 4)))
    return f"{value:.{decimals}f}{unit} ({low:.{decimals}f} to {high:.{decimals}f})"


def grid_of(results: Sequence[ErfResult]) -> tuple[Grid, list[str], list[str]]:
    """Which map stands where: models, layers and conduction side by side, sizes, weights and protocols one below
    the other.

    Returns:
        Rows of results (None where there is none), titles of the columns, titles of the rows (empty for a single one).
    """
    across = ("subject", "layer", "conduction")
    down = [part for part in ("resolution", "weights", "dtype", "protocol") if part in differing(results)]
    columns = list(dict.fromkeys(_key(result, across) for result in results))
    subjects = list(dict.fromkeys(column[0] for column in columns))
    columns.sort(key=lambda column: subjects.index(column[0]))
    rows = list(dict.fromkeys(_key(result, down) for result in results))
    placed = {(_key(result, down), _key(result, across)): result for result in results}
    grid: Grid = [[placed.get((row, column)) for column in columns] for row in rows]
    firsts = [next(result for result in results if _key(result, across) == column) for column in columns]
    return grid, [_column_title(result, results) for result in firsts], ["\n".join(row) for row in rows]


def _key(result: ErfResult, parts: Sequence[str]) -> tuple[str, ...]:
    return tuple(words(result, part, 60) for part in parts)


def _column_title(result: ErfResult, results: Sequence[ErfResult]) -> str:
    """What tells a column from the others; model and layer where nothing does."""
    apart = differing(results)
    named = "subject" in apart or not {"layer", "conduction"} & set(apart)
    lines = [fold(words(result, "subject", 60), 20)] if named else []
    if named or "layer" in apart:
        lines.append(fold(words(result, "layer", 60), 22, 2))
    if "conduction" in apart and words(result, "conduction"):
        lines.append(words(result, "conduction"))
    return "\n".join(lines)


def erf_maps(
    results: Sequence[ErfResult], scale: ColourScale | None = None, kind: Literal["log", "power"] = "log"
) -> list[Figure]:
    """Maps side by side, all on one colour scale, on as many figures as they need (none for no results).

    Args:
        results: maps to show.
        scale: of these and further maps; the maps' own where not given.
        kind: of the scale where not given: ``log`` or ``power`` (mass to the power 1/4).
    """
    if not results:
        return []
    scale = scale or colour_scale(results, kind)
    grid, columns, rows = grid_of(results)
    figures = []
    if len(grid) == 1 and len(columns) > COLUMNS:
        # a single row continues below
        for start in range(0, len(columns), 4 * ROWS):
            cells, titles = grid[0][start : start + 4 * ROWS], columns[start : start + 4 * ROWS]
            lines = [cells[i : i + 4] for i in range(0, len(cells), 4)]
            figures.append(_page(lines, [titles[i : i + 4] for i in range(0, len(titles), 4)], [], scale))
        return figures
    for top in range(0, len(grid), ROWS):
        for left in range(0, len(columns), COLUMNS):
            part = [line[left : left + COLUMNS] for line in grid[top : top + ROWS]]
            figures.append(_page(part, [columns[left : left + COLUMNS]], rows[top : top + ROWS], scale))
    return figures


def _page(grid: Grid, titles: list[list[str]], row_titles: list[str], scale: ColourScale) -> Figure:
    """One figure; titles stand over the first row, or over each where each has its own."""
    shown = [result for line in grid for result in line if result is not None]
    across, down = max(len(line) for line in grid), len(grid)
    aspect = max((one.resolution[0] / one.resolution[1] for one in shown), default=1.0)
    bar = 1.0 + (0.3 if any(row_titles) else 0.0)
    panel = min(1.9, (TWO_COLUMN - bar - 0.1 * across) / across)
    text = max(panel_text(one).count("\n") + 1 for one in shown) * 0.115 + 0.1
    head = [max((title.count("\n") + 1 for title in line), default=0) * 0.125 + 0.08 for line in titles]
    figure = new_figure(
        max(min(TWO_COLUMN, across * (panel + 0.1) + bar + 0.2), 2.4),
        max(down * (panel * min(aspect, 2.0) + text) + sum(head) + 0.3, 1.6),
    )
    axes = figure.subplots(down, across, squeeze=False)
    for i, line in enumerate(grid):
        for j in range(across):
            _panel(axes[i][j], line[j] if j < len(line) else None, scale, inside=j < len(line))
            if i < len(titles) and j < len(titles[i]):
                axes[i][j].set_title(titles[i][j], loc="center", fontsize=7, linespacing=1.15)
        if i < len(row_titles) and row_titles[i]:
            axes[i][0].set_ylabel(fold(row_titles[i], 22), fontsize=7)
    _bar(figure, axes, scale)
    figure.suptitle(title_of(shown, length=int(15 * figure.get_figwidth())), x=0.01, ha="left", fontsize=7)
    return figure


def _panel(ax: Axes, result: Cell, scale: ColourScale, inside: bool) -> None:
    if result is not None:
        erf_map(ax, result, scale)
        return
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set_visible(False)
    if inside:
        ax.text(0.5, 0.5, "not measured", ha="center", va="center", fontsize=6.5, transform=ax.transAxes)


def _bar(figure: Figure, axes: Any, scale: ColourScale) -> None:
    mappable = ScalarMappable(norm=scale.norm, cmap=MAP_COLOURS)
    extend = "min" if scale.low > 0 else "neither"
    long = max(0.4, min(1.0, 2.0 / figure.get_size_inches()[1]))
    bar = figure.colorbar(mappable, ax=axes, extend=extend, shrink=long, aspect=20, fraction=0.05, pad=0.02)
    bar.set_ticks(scale.ticks)
    bar.ax.yaxis.set_minor_locator(NullLocator())
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{float(f'{value:.2g}'):g}"))
    bar.ax.tick_params(labelsize=6.5)
    amount, colour = scale.words.split(", ")
    bar.set_label(f"{amount}\n{colour}\n+ centre, line: A50 contour", fontsize=6.5)


def layer_maps(results: Sequence[ErfResult]) -> list[tuple[str, list[ErfResult]]]:
    """Of every subject with several layers the maps to show: at most five layers, first and last among them."""
    found: dict[str, list[ErfResult]] = {}
    for group in series(results, "layer"):
        last = len(group) - 1
        picked = sorted({round(place) for place in np.linspace(0, last, min(COLUMNS, last + 1))})
        found.setdefault(group[0].subject, []).extend(group[place] for place in picked)
    return list(found.items())


def main_maps(results: Sequence[ErfResult]) -> list[ErfResult]:
    """The maps that are compared: of every model, size and state the deepest layer."""
    return deepest(results)
