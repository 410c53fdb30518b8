"""Figures of a model's diffusivity k: by frequency, by depth, how far it carries heat, both resizing rules."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from vheatbench.present.style import MAP_COLOURS, TWO_COLUMN, legend_below, new_figure, shorten
from vheatbench.studies.heat.diffusivity_curves import (
    decay_floor,
    draw_decay,
    draw_lengths,
    draw_quantiles,
    draw_rules,
    draw_zero_share,
    stage_of,
    stages_of,
    variant,
)
from vheatbench.studies.heat.labels import block_words, label_log, number, weights_words
from vheatbench.studies.heat.results import Diffusivity
from vheatbench.studies.heat.temperature import evenly

ZERO_COLOUR = "#8ecae6"
"""Of frequencies whose k is exactly 0 in every channel: no colour of the map."""

MOST_MAPS = 24
RULES = ("", "bicubic", "zeropad")

Figures = list[tuple[str, Callable[[], Figure]]]
Limits = tuple[float, float]


def diffusivity_figures(results: Sequence[Diffusivity]) -> Figures:
    """Every figure that the results allow: a file name and what draws it."""
    figures: Figures = []
    series = series_of(results)
    for blocks in series:
        one = blocks[0]
        name = " ".join(filter(None, [one.subject, one.record.case.size, one.rule, one.weights]))
        figures += [
            (f"diffusivity maps {name}", partial(maps_figure, blocks)),
            (f"diffusivity quantiles {name}", partial(quantiles_figure, blocks)),
            (f"diffusivity decay {name}", partial(decay_figure, blocks)),
        ]
    for of_model in models_of(series):
        name = f"{of_model[0][0].subject} {of_model[0][0].weights}"
        figures.append((f"diffusivity length {name}", partial(lengths_figure, of_model)))
        figures += [
            (f"diffusivity rules {name} {compared[-1][0].record.case.size}", partial(rules_figure, compared))
            for compared in rules_of(of_model)
        ]
    return figures


def series_of(results: Sequence[Diffusivity]) -> list[list[Diffusivity]]:
    """Blocks of one model at one size under one resizing rule, by depth; a model's own size first."""
    series: dict[tuple[Any, ...], list[Diffusivity]] = {}
    for one in sorted(results, key=lambda result: result.depth):
        rule = RULES.index(one.rule) if one.rule in RULES else len(RULES)
        series.setdefault((one.subject, one.weights, min(rule, 1), one.resolution, rule, one.rule), []).append(one)
    return [series[key] for key in sorted(series)]


def models_of(series: Sequence[list[Diffusivity]]) -> list[list[list[Diffusivity]]]:
    """Series of the same model with the same weights."""
    models: dict[tuple[str, str], list[list[Diffusivity]]] = {}
    for blocks in series:
        models.setdefault((blocks[0].subject, blocks[0].weights), []).append(blocks)
    return list(models.values())


def rules_of(of_model: Sequence[list[Diffusivity]]) -> list[list[list[Diffusivity]]]:
    """For each size that a model was resized to: its own size and what each rule makes of it."""
    sizes = dict.fromkeys(blocks[0].resolution for blocks in of_model if blocks[0].rule)
    own = [blocks for blocks in of_model if not blocks[0].rule]
    found = [own[:1] + [b for b in of_model if b[0].rule and b[0].resolution == size] for size in sizes]
    return [compared for compared in found if len(compared) > 1]


def titled(what: str, blocks: Sequence[Diffusivity], size: bool = True) -> str:
    """What is seen of which model, on one line; random weights are always named."""
    one = blocks[0]
    parts = [shorten(one.subject), *([variant(one)] if size else []), weights_words(one.weights)]
    return f"{what}: {', '.join(parts)}"


def map_limits(results: Sequence[Diffusivity]) -> Limits:
    """Ends of one logarithmic scale for k of all of them, at most four decades apart."""
    positive = np.concatenate([one.mean_map[one.mean_map > 0] for one in results])
    high = float(positive.max()) if positive.size else 1.0
    low = float(positive.min()) if positive.size else high
    return max(min(low, high / 2), high / 1e4), high


def draw_k_map(ax: Axes, result: Diffusivity, limits: Limits) -> Axes:
    """Mean k over channels of every frequency, zero frequency in the top left corner; exact zeros in their colour."""
    colours = colormaps[MAP_COLOURS].with_extremes(bad=ZERO_COLOUR)
    ax.imshow(np.ma.masked_equal(result.mean_map, 0), cmap=colours, norm=LogNorm(*limits), interpolation="nearest")
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(False)
    return ax


def draw_k_maps(figure: Figure, blocks: Sequence[Diffusivity]) -> NDArray[Any]:
    """A map per block, at most 24 evenly chosen, on one scale; returns the axes."""
    chosen = [blocks[i] for i in evenly(len(blocks), MOST_MAPS)]
    columns = min(len(chosen), 6)
    axes: NDArray[Any] = figure.subplots(-(-len(chosen) // columns), columns, squeeze=False)
    limits = map_limits(chosen)
    for ax, one in zip(axes.flat, chosen, strict=False):
        draw_k_map(ax, one, limits)
        mean = number(one.record, "k_mean_cells2")
        ax.set_title(f"{block_words(one.layer)}\nmean {mean:.2g}", loc="center", pad=2, fontsize="medium")
    for ax in axes.flat[len(chosen) :]:
        ax.set_axis_off()
    _k_bar(figure, axes, limits, chosen)
    return axes


def maps_figure(blocks: Sequence[Diffusivity]) -> Figure:
    """Maps of every block at a page's width."""
    count = min(len(blocks), MOST_MAPS)
    columns = min(count, 6)
    grid = blocks[0].mean_map.shape
    cell = min((TWO_COLUMN - 0.8) / columns * grid[0] / grid[1], 2.5)
    figure = new_figure(TWO_COLUMN, 0.5 + (cell + 0.32) * -(-count // columns))
    draw_k_maps(figure, blocks)
    what = "Mean k over channels by frequency, 0 top left to π rad/cell"
    figure.suptitle(titled(what, blocks), x=0.01, ha="left")
    return figure


def quantiles_figure(blocks: Sequence[Diffusivity]) -> Figure:
    """Quantiles of k and its zeros against depth at a page's width."""
    figure = new_figure(TWO_COLUMN, 2.5)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    draw_quantiles(left, blocks)
    draw_zero_share(right, blocks)
    figure.suptitle(titled("k over channels and frequencies", blocks), x=0.01, ha="left")
    legend_below(figure)
    return figure


def lengths_figure(series: Sequence[Sequence[Diffusivity]]) -> Figure:
    """Diffusion length of one model in pixels and in share of the image, at a page's width."""
    figure = new_figure(TWO_COLUMN, 2.4)
    for ax, share in zip(figure.subplots(1, 2), (False, True), strict=True):
        draw_lengths(ax, series, share)
    figure.suptitle(titled("How far one application carries heat", series[0], size=False), x=0.01, ha="left")
    legend_below(figure)
    return figure


def decay_figure(blocks: Sequence[Diffusivity]) -> Figure:
    """Decay spectrum of every stage at a page's width, on one axis of decay."""
    stages = stages_of(blocks)
    columns = min(len(stages), 4)
    rows = -(-len(stages) // columns)
    figure = new_figure(TWO_COLUMN, 0.35 + 2.0 * rows)
    axes: NDArray[Any] = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for ax, stage in zip(axes.flat, stages, strict=False):
        draw_decay(ax, stage)
        ax.set_title(shorten(stage_of(stage[0]), 24))
    _same_decay(axes.flat, blocks)
    for ax in axes.flat[len(stages) :]:
        ax.set_axis_off()
    for ax in axes[:, 1:].flat:
        ax.set_ylabel("")
    what = "What one application leaves of a frequency, medians over channels"
    figure.suptitle(titled(what, blocks), x=0.01, ha="left")
    legend_below(figure)
    return figure


def rules_figure(series: Sequence[Sequence[Diffusivity]]) -> Figure:
    """Last block of every stage: k at the model's own size and under each rule, with what is left of a frequency."""
    stages = [stages_of(blocks) for blocks in series]
    rows = min(len(one) for one in stages)
    figure = new_figure(TWO_COLUMN, 0.6 + 1.35 * rows)
    axes: NDArray[Any] = figure.subplots(rows, len(series) + 1, squeeze=False, width_ratios=[1] * len(series) + [1.4])
    chosen = [one[row][-1] for one in stages for row in range(rows)]
    limits = map_limits(chosen)
    for row in range(rows):
        ends = [one[row][-1] for one in stages]
        draw_rules(axes[row, -1], ends)
        for ax, end in zip(axes[row], ends, strict=False):
            draw_k_map(ax, end, limits)
            if row == 0:
                ax.set_title(variant(end), loc="center")
        axes[row, 0].set_ylabel(block_words(ends[0].layer).replace(", ", "\n"))
        if row < rows - 1:
            axes[row, -1].set_xlabel("")
    _same_decay(axes[:, -1], chosen)
    _k_bar(figure, axes, limits, chosen)
    what = "k by frequency under both resizing rules"
    figure.suptitle(titled(what, series[0], size=False), x=0.01, ha="left")
    legend_below(figure)
    return figure


def _same_decay(axes: Iterable[Axes], blocks: Sequence[Diffusivity]) -> None:
    floor = decay_floor(blocks)
    for ax in axes:
        ax.set_ylim(floor, 1 + 0.03 * (1 - floor))


def _k_bar(figure: Figure, axes: NDArray[Any], limits: Limits, shown: Sequence[Diffusivity]) -> None:
    height = figure.get_size_inches()[1]
    below = any((one.mean_map[one.mean_map > 0] < limits[0]).any() for one in shown)
    bar = figure.colorbar(
        ScalarMappable(LogNorm(*limits), MAP_COLOURS),
        ax=axes,
        extend="min" if below else "neither",
        pad=0.01,
        aspect=9 * min(height, 3),
        shrink=min(1.0, 3 / height),
    )
    bar.set_label("k (cells²), one log scale")
    label_log(bar.ax.yaxis, *limits)
    if any((one.mean_map == 0).any() for one in shown):
        patch = Patch(color=ZERO_COLOUR, label="k exactly 0 in all channels")
        figure.legend(handles=[patch], loc="outside lower left")
