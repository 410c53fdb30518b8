"""Maps of receptive fields side by side on one colour scale: figures for print, small palette pictures for a page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.patheffects
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vheatbench import numbers
from vheatbench.present.images import LEVELS, Field, coarse, colour_bar, evenly, levels_of, palette_uri
from vheatbench.present.style import MAP_COLOURS, TWO_COLUMN, fold, new_figure, set_ticks
from vheatbench.studies.erf.field import ColourScale, contour_of, density, shown_density
from vheatbench.studies.erf.labels import RANDOM, differing, labels, metric_of, series, title_of, with_interval, words
from vheatbench.studies.erf.results import ErfResult

COLUMNS, ROWS = 5, 5
"""Panels of one figure: more go to a further one of the same scale."""

CONTOUR, CONTOUR_99, CENTRE = "#7df0ff", "#8de08d", "white"

COLOUR_WORDS = "mass per pixel (1 = uniform)", "colour logarithmic"

PICTURE_SIDES = (224, 192, 160, 128, 96, 64, 48)
"""Longest side of a page's picture in pixels: the first that stays under the limit."""

MAP_BYTES, PAGE_BYTES, LEAST_BYTES = 60_000, 400_000, 8_000
"""Most of one map's data URI, of all maps of a page, and what a map may take however many there are."""

Grid = list[list[ErfResult | None]]


def erf_map(ax: Axes, result: ErfResult, scale: ColourScale | None = None) -> Axes:
    """One map: the density as colour, the A50 contour, a cross at the centre, the numbers below.

    ``scale`` is that of all maps of the figure, the map's own where not given. The axes are pixels of the input.
    """
    scale = scale or ColourScale.of([result.map])
    height, width = result.resolution
    field, block = shown_density(result.map)
    # cells of a cut off last block are drawn as whole ones, beyond the edge
    extent = (0.0, float(field.shape[1] * block), float(field.shape[0] * block), 0.0)
    ax.imshow(field, cmap=MAP_COLOURS, norm=scale.norm, extent=extent, interpolation="nearest")
    for share, colour, dash in ((0.99, CONTOUR_99, "dotted"), (0.5, CONTOUR, "solid")):
        cells, block, level = contour_of(result.map, share)
        if min(cells.shape) > 1 and cells.min() < level < cells.max():
            rows, columns = ((np.arange(size) + 0.5) * block for size in cells.shape)
            ax.contour(columns, rows, cells, levels=[level], colors=colour, linewidths=0.8, linestyles=dash)
    y, x = result.centre
    outline = matplotlib.patheffects.withStroke(linewidth=1.8, foreground="black")
    ax.plot(x, y, marker="+", color=CENTRE, markersize=5, markeredgewidth=0.8, path_effects=[outline])
    ax.set(xlim=(0, width), ylim=(height, 0))
    _bare(ax)
    ax.set_xlabel("\n".join(panel_lines(result)), fontsize=6.5, linespacing=1.15)
    return ax


def _bare(ax: Axes) -> None:
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


def panel_lines(result: ErfResult) -> list[str]:
    """Below a map: A50, A99 and radius with their intervals, and that the weights are random if they are."""
    lines = [
        f"{title} {with_interval(result.record, name, unit)}"
        for name, title, unit in (("erf_a50", "A50", "%"), ("erf_a99", "A99", "%"), ("erf_radius_px", "radius", "px"))
        if metric_of(result.record, name)
    ]
    return lines + ["no gradient at all"] * (not result.map.any()) + [RANDOM] * result.random


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
    apart = differing(results)
    return grid, [_column_title(column, apart) for column in columns], ["\n".join(row) for row in rows]


def _key(result: ErfResult, parts: Sequence[str]) -> tuple[str, ...]:
    return tuple(words(result.record, part, 60) for part in parts)


def _column_title(column: tuple[str, ...], apart: Sequence[str]) -> str:
    """What tells a column from the others; model and layer where nothing does."""
    subject, layer, conduction = column
    named = "subject" in apart or not {"layer", "conduction"} & set(apart)
    lines = [
        fold(subject, 20) if named else "",
        fold(layer, 22, 2) if named or "layer" in apart else "",
        conduction if "conduction" in apart else "",
    ]
    return "\n".join(filter(None, lines))


def erf_maps(results: Sequence[ErfResult]) -> list[Figure]:
    """Maps side by side, all on one colour scale, on as many figures as they need (none for no results)."""
    if not results:
        return []
    scale = ColourScale.of(result.map for result in results)
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
    text = max(len(panel_lines(one)) for one in shown) * 0.115 + 0.1
    head = [max((title.count("\n") + 1 for title in line), default=0) * 0.125 + 0.08 for line in titles]
    figure = new_figure(
        max(min(TWO_COLUMN, across * (panel + 0.1) + bar + 0.2), 2.4),
        max(down * (panel * min(aspect, 2.0) + text) + sum(head) + 0.3, 1.6),
    )
    axes = figure.subplots(down, across, squeeze=False)
    for i, line in enumerate(grid):
        for j in range(across):
            _panel(axes[i][j], line[j] if j < len(line) else None, scale, inside=j < len(line))
            axes[i][j].xaxis.label.set_fontsize(6.5 if across < 4 else 5.8)  # numbers of neighbours stay apart
            if i < len(titles) and j < len(titles[i]):
                axes[i][j].set_title(titles[i][j], loc="center", fontsize=7, linespacing=1.15)
        if i < len(row_titles) and row_titles[i]:
            axes[i][0].set_ylabel(fold(row_titles[i], 22), fontsize=7)
    _figure_bar(figure, axes, scale)
    figure.suptitle(title_of(shown, length=int(15 * figure.get_figwidth())), x=0.01, ha="left", fontsize=7)
    return figure


def _panel(ax: Axes, result: ErfResult | None, scale: ColourScale, inside: bool) -> None:
    if result is not None:
        erf_map(ax, result, scale)
        return
    _bare(ax)
    if inside:
        ax.text(0.5, 0.5, "not measured", ha="center", va="center", fontsize=6.5, transform=ax.transAxes)


def _figure_bar(figure: Figure, axes: Any, scale: ColourScale) -> None:
    mappable = ScalarMappable(norm=scale.norm, cmap=MAP_COLOURS)
    long = max(0.4, min(1.0, 2.0 / figure.get_size_inches()[1]))
    bar = figure.colorbar(mappable, ax=axes, extend="min", shrink=long, aspect=20, fraction=0.05, pad=0.02)
    set_ticks(bar.ax.yaxis, scale.ticks)
    bar.ax.tick_params(labelsize=6.5)
    bar.set_label("\n".join([*COLOUR_WORDS, "+ centre, lines: A50, A99 (dotted)"]), fontsize=6.5)


def layer_maps(results: Sequence[ErfResult]) -> list[tuple[str, list[ErfResult]]]:
    """Of every subject with several layers the maps to show: at most five layers, first and last among them."""
    found: dict[str, list[ErfResult]] = {}
    for group in series(results, "layer"):
        found.setdefault(group[0].subject, []).extend(group[place] for place in evenly(len(group), COLUMNS))
    return list(found.items())


# the page


def maps_markup(results: Sequence[ErfResult]) -> str:
    """All maps on one colour scale, each an ``<img>`` with its name and numbers, and the scale below."""
    scale = ColourScale.of(result.map for result in results)
    limit = max(LEAST_BYTES, min(MAP_BYTES, PAGE_BYTES // max(1, len(results))))
    panels = Markup("").join(
        _markup(result, label, scale, limit) for result, label in zip(results, labels(results), strict=True)
    )
    grid = "display:grid;grid-template-columns:repeat(auto-fill,minmax(min(13rem,100%),1fr));gap:.9rem"
    bar = colour_bar(f"≤ {numbers.plain(scale.low, 2)}", numbers.plain(scale.high, 2), ", ".join(COLOUR_WORDS))
    return str(Markup('<div style="{}">{}</div>{}').format(grid, panels, bar))


def _markup(result: ErfResult, label: str, scale: ColourScale, limit: int) -> Markup:
    height, width = result.resolution
    layer = words(result.record, "layer")
    below = [layer] * (layer not in label) + panel_lines(result)
    return Markup(
        '<div><img src="{}" alt="{}" width="{}" height="{}" '
        'style="display:block;width:100%;height:auto;image-rendering:pixelated">'
        '<p style="margin:.3rem 0 0;font-size:.8rem;overflow-wrap:anywhere"><strong>{}</strong><br>{}</p></div>'
    ).format(map_uri(result, scale, limit), described(result, label), width, height, label, Markup("<br>").join(below))


def described(result: ErfResult, label: str) -> str:
    """A map in words: for those who cannot see it."""
    y, x = result.centre
    what = [text for part in ("subject", "layer") if (text := words(result.record, part)) not in label]
    name, numbers_below = ", ".join([label, *what]), ", ".join(panel_lines(result))
    return f"Map of {name}, about pixel {x:.0f} across and {y:.0f} down: {numbers_below}"


def map_uri(result: ErfResult, scale: ColourScale, limit: int = MAP_BYTES) -> str:
    """The map as a ``data:image/png`` URI of at most ``limit`` bytes where :data:`PICTURE_SIDES` allow."""
    uri = ""
    for side in PICTURE_SIDES:
        uri = palette_uri(_indices(result, scale, side), CONTOUR, CENTRE, CONTOUR_99)
        if len(uri) <= limit:
            break
    return uri


def _indices(result: ErfResult, scale: ColourScale, side: int) -> NDArray[np.uint8]:
    """Palette indices (H', W'): colours, then the A50 contour, the centre's cross, and the A99 contour in dots."""
    field, block = coarse(density(result.map), side)
    indices = levels_of(scale.positions(field))
    dots = np.add.outer(np.arange(field.shape[0]), np.arange(field.shape[1])) % 4 < 2
    indices[_contour(result, 0.99, field.shape, block) & dots] = LEVELS + 2
    indices[_contour(result, 0.5, field.shape, block)] = LEVELS
    row, column = (
        min(max(int(place / block), 0), size - 1) for place, size in zip(result.centre, field.shape, strict=True)
    )
    arm = max(2, max(field.shape) // 48)
    indices[max(0, row - arm) : row + arm + 1, column] = LEVELS + 1
    indices[row, max(0, column - arm) : column + arm + 1] = LEVELS + 1
    return indices


def _contour(result: ErfResult, share: float, shape: tuple[int, ...], block: int) -> NDArray[np.bool_]:
    """Where the contour of a share of the mass is in a picture of this shape, whose pixels have ``block`` of the
    map's to a side."""
    cells, side, level = contour_of(result.map, share)
    if level <= 0:
        return np.zeros(shape, dtype=bool)
    down, across = (
        _interpolation([(i + 0.5) * block for i in range(size)], [(i + 0.5) * side for i in range(count)])
        for size, count in zip(shape, cells.shape, strict=True)
    )
    inside = down @ cells @ across.T >= level
    around = np.pad(inside, 1, mode="edge")
    surrounded = around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
    border: NDArray[np.bool_] = inside & ~surrounded
    return border


def _interpolation(at: Sequence[float], places: Sequence[float]) -> Field:
    """(len(at), len(places)) weights of linear interpolation."""
    return np.stack([np.interp(at, places, row) for row in np.eye(len(places))], axis=1)
