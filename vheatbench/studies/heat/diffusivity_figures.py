"""Figures of a model's diffusivity k: by frequency, by depth, how far it carries heat, both resizing rules."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib import colormaps, rcParams
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from vheatbench.present.images import evenly
from vheatbench.present.style import (
    DASHES,
    MAP_COLOURS,
    MARKERS,
    TWO_COLUMN,
    label_outer,
    log_ticks,
    panels,
    set_ticks,
    shorten,
    titled_figure,
)
from vheatbench.studies.heat.diffusivity_groups import (
    Blocks,
    last_blocks,
    model_words,
    models_of,
    rules_of,
    series_of,
    stage_of,
    stages_of,
    variant,
)
from vheatbench.studies.heat.labels import block_words, number
from vheatbench.studies.heat.results import Diffusivity

ZERO_COLOUR = "#8ecae6"
"""Of frequencies whose k is exactly 0 in every channel: no colour of the map."""

MOST_MAPS = 24

Limits = tuple[float, float]


def diffusivity_figures(results: Sequence[Diffusivity]) -> list[tuple[str, Callable[[], Figure]]]:
    """Every figure that the results allow: a file name and what draws it."""
    figures: list[tuple[str, Callable[[], Figure]]] = []
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


def maps_figure(blocks: Blocks) -> Figure:
    """Maps of every block."""
    count = min(len(blocks), MOST_MAPS)
    columns = min(count, 6)
    grid = blocks[0].mean_map.shape
    cell = min((TWO_COLUMN - 0.8) / columns * grid[0] / grid[1], 2.5)
    title = f"Mean k over channels by frequency, 0 top left to π rad/cell: {model_words(blocks)}"
    return titled_figure(partial(draw_k_maps, blocks=blocks), 0.5 + (cell + 0.32) * -(-count // columns), title)


def quantiles_figure(blocks: Blocks) -> Figure:
    """Quantiles of k and its zeros against depth."""
    title = f"k over channels and frequencies: {model_words(blocks)}"
    return titled_figure(partial(draw_distribution, blocks=blocks), 2.5, title)


def lengths_figure(series: Sequence[Blocks]) -> Figure:
    """Diffusion length of one model in pixels and in share of the image."""
    title = f"How far one application carries heat: {model_words(series[0], size=False)}"
    return titled_figure(partial(draw_reach, series=series), 2.4, title)


def decay_figure(blocks: Blocks) -> Figure:
    """Decay spectrum of every stage, on one axis of decay."""
    title = f"What one application leaves of a frequency, medians over channels: {model_words(blocks)}"
    rows = -(-len(stages_of(blocks)) // 4)
    return titled_figure(partial(draw_stages, blocks=blocks, most_columns=4), 0.35 + 2.0 * rows, title)


def rules_figure(series: Sequence[Blocks]) -> Figure:
    """Last block of every stage: k at the model's own size and under each rule, with what is left of a frequency."""
    title = f"k by frequency under both resizing rules: {model_words(series[0], size=False)}"
    return titled_figure(partial(draw_both_rules, compared=series), 0.6 + 1.35 * len(last_blocks(series)), title)


# what they are made of


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


def draw_k_maps(figure: Figure, blocks: Blocks) -> list[Axes]:
    """A map per block, at most 24 evenly chosen, on one scale; returns the axes."""
    chosen = [blocks[i] for i in evenly(len(blocks), MOST_MAPS)]
    columns = min(len(chosen), 6)
    axes = panels(figure, len(chosen), columns)
    limits = map_limits(chosen)
    for ax, one in zip(axes, chosen, strict=True):
        draw_k_map(ax, one, limits)
        mean = number(one.record, "k_mean_cells2")
        ax.set_title(f"{block_words(one.layer)}\nmean {mean:.2g}", loc="center", pad=2, fontsize="medium")
    _k_bar(figure, axes, limits, chosen)
    return axes


def draw_both_rules(figure: Figure, compared: Sequence[Blocks]) -> None:
    """A row per stage: maps of its last block, and what is left of a frequency."""
    rows = last_blocks(compared)
    ratios = [1.0] * len(compared) + [1.4]
    axes: NDArray[Any] = figure.subplots(len(rows), len(compared) + 1, squeeze=False, width_ratios=ratios)
    chosen = [one for row in rows for one in row]
    limits = map_limits(chosen)
    for line, row in zip(axes, rows, strict=True):
        draw_rules(line[-1], row)
        for ax, one in zip(line, row, strict=False):
            draw_k_map(ax, one, limits)
        line[0].set_ylabel(block_words(row[0].layer).replace(", ", "\n"))
    for ax, one in zip(axes[0], rows[0], strict=False):
        ax.set_title(variant(one), loc="center")
    for ax in axes[:-1, -1]:
        ax.set_xlabel("")
    same_decay(axes[:, -1], chosen)
    _k_bar(figure, axes, limits, chosen)


def draw_distribution(figure: Figure, blocks: Blocks) -> None:
    """Quantiles of k on the left, its exact zeros on the right, both against depth."""
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    draw_quantiles(left, blocks)
    draw_zero_share(right, blocks)


def draw_quantiles(ax: Axes, blocks: Blocks) -> Axes:
    """k over channels and frequencies against depth: median, quartiles, mean, largest; 0 has a line of its own."""
    depth = [one.depth for one in blocks]
    q25, median, q75, mean, largest = (
        np.array([number(one.record, f"k_{name}_cells2") for one in blocks])
        for name in ("q25", "median", "q75", "mean", "max")
    )
    everything = np.concatenate([q25, median, q75, mean, largest])
    positive = everything[everything > 0]
    floor, top = (float(positive.min()) / 4, float(positive.max()) * 2) if positive.size else (0.1, 1.0)
    low, high = np.maximum(q25, floor), np.maximum(q75, floor)
    ax.fill_between(depth, low, high, color="C1", alpha=0.25, linewidth=0, label="quartiles")
    ax.plot(depth, np.maximum(largest, floor), "^:", color="C0", label="largest")
    ax.plot(depth, np.maximum(mean, floor), "s--", color="C2", label="mean")
    ax.plot(depth, np.maximum(median, floor), "o-", color="C1", label="median")
    ax.set_yscale("log")
    ax.set_ylim(floor / 1.5, top)
    set_ticks(ax.yaxis, log_ticks(1.5 * floor, top))
    if everything.min() <= 0:
        ax.axhline(floor, color=rcParams["axes.edgecolor"], linewidth=0.6, linestyle=":")
        ax.annotate(
            "0", (0, floor), xycoords=ax.get_yaxis_transform(), xytext=(-4, 0), textcoords="offset points", ha="right",
            va="center", fontsize="small",
        )  # fmt: skip
    ax.set_ylabel("k (cells²)")
    return _depth_axis(ax, blocks)


def draw_zero_share(ax: Axes, blocks: Blocks) -> Axes:
    """Share of channels and frequencies whose k is exactly 0, against depth."""
    shares = [100 * number(one.record, "k_zero_share") for one in blocks]
    ax.bar([one.depth for one in blocks], shares, 0.7, color="C7")
    ax.set_ylim(0, 108)
    ax.set_yticks([0, 25, 50, 75, 100])
    ax.set_ylabel("k exactly 0 (%)")
    return _depth_axis(ax, blocks)


def draw_reach(figure: Figure, series: Sequence[Blocks]) -> None:
    """Diffusion length in pixels on the left, in share of the image on the right."""
    for ax, share in zip(figure.subplots(1, 2), (False, True), strict=True):
        draw_lengths(ax, series, share)


def draw_lengths(ax: Axes, series: Sequence[Blocks], share: bool) -> Axes:
    """Diffusion length sqrt(2 k) of the mean k against depth, a line per size and rule.

    It is in pixels, or with ``share`` in % of the image's shorter side.
    """
    metric, factor = ("diffusion_length_share", 100.0) if share else ("diffusion_length_px", 1.0)
    for i, blocks in enumerate(series):
        values = [number(block.record, metric) * factor for block in blocks]
        ax.plot(
            [block.depth for block in blocks], values, label=variant(blocks[0]), color=f"C{i}",
            marker=MARKERS[i % len(MARKERS)], linestyle=DASHES[i % 3],
        )  # fmt: skip
    ax.set_ylabel("diffusion length (% of the image)" if share else "diffusion length (px)")
    ax.set_ylim(bottom=0)
    return _depth_axis(ax, series[0])


def draw_stages(figure: Figure, blocks: Blocks, most_columns: int) -> None:
    """What is left of a frequency, a panel per stage, on one axis of decay."""
    stages = stages_of(blocks)
    columns = min(len(stages), most_columns)
    axes = panels(figure, len(stages), columns, share_y=True)
    for ax, stage in zip(axes, stages, strict=True):
        draw_decay(ax, stage)
        ax.set_title(shorten(stage_of(stage[0]), 24))
    label_outer(axes, columns)
    same_decay(axes, blocks)


def draw_last_blocks(figure: Figure, rows: Sequence[Blocks]) -> None:
    """A panel per stage: what its last block leaves of a frequency at a model's own size and as each rule makes it."""
    columns = min(len(rows), 2)
    axes = panels(figure, len(rows), columns, share_y=True)
    for ax, row in zip(axes, rows, strict=True):
        draw_rules(ax, row)
        ax.set_title(block_words(row[0].layer))
    label_outer(axes, columns)
    same_decay(axes, [one for row in rows for one in row])


def draw_decay(ax: Axes, blocks: Blocks) -> Axes:
    """What one application leaves of a frequency: median of exp(-k |w|²) of every block, quartiles of the last one.

    The first, middle and last block have colours, with a dot where the median falls to a half; the others are thin and
    grey.
    """
    named = {0: ("C0", "first block"), len(blocks) // 2: ("C2", "middle block")}
    named[len(blocks) - 1] = ("C1", "last block")
    _quartile_band(ax, blocks[-1], "C1", "quartiles of the last block")
    for i, one in enumerate(blocks):
        colour, label = named.get(i, (rcParams["axes.edgecolor"], "other blocks"))
        width, above = (1.2, 3) if i in named else (0.5, 2)
        ax.plot(
            one.radial_frequency, one.decay_quantiles[:, 1], label=label, color=colour, linewidth=width, zorder=above
        )
        half = number(one.record, "half_decay_frequency_rad_per_cell")
        if i in named and math.isfinite(half):
            ax.plot([half], [0.5], "o", color=colour, zorder=4)
    return _decay_axes(ax, blocks)


def draw_rules(ax: Axes, results: Sequence[Diffusivity]) -> Axes:
    """Median and quartiles of exp(-k |w|²) of one block against |w|, a line and a band per size and rule."""
    for i, one in enumerate(results):
        _quartile_band(ax, one, f"C{i}", None)
        ax.plot(
            one.radial_frequency, one.decay_quantiles[:, 1], label=variant(one), color=f"C{i}", linestyle=DASHES[i % 3]
        )
    return _decay_axes(ax, results)


def decay_floor(blocks: Blocks) -> float:
    """Where an axis of decay begins: 0, or closer to 1 where hardly anything decays."""
    lowest = min(float(one.decay_quantiles.min()) for one in blocks)
    return 0.0 if lowest < 0.6 else 1 - 1.3 * max(1 - lowest, 0.01)


def same_decay(axes: Iterable[Axes], blocks: Blocks) -> None:
    """One axis of decay for all of them."""
    floor = decay_floor(blocks)
    for ax in axes:
        ax.set_ylim(floor, 1 + 0.03 * (1 - floor))


def _quartile_band(ax: Axes, one: Diffusivity, colour: str, label: str | None) -> None:
    low, high = one.decay_quantiles[:, 0], one.decay_quantiles[:, 2]
    ax.fill_between(one.radial_frequency, low, high, color=colour, alpha=0.2, linewidth=0, label=label)


def _decay_axes(ax: Axes, blocks: Blocks) -> Axes:
    if decay_floor(blocks) == 0:
        ax.axhline(0.5, color=rcParams["axes.edgecolor"], linewidth=0.6, linestyle=":", zorder=0)
    same_decay([ax], blocks)
    ax.set_xlim(0, None)
    ax.yaxis.set_major_locator(MaxNLocator(5))
    ax.set_xlabel("|w| (rad/cell)")
    ax.set_ylabel("exp(-k |w|²)")
    return ax


def _depth_axis(ax: Axes, blocks: Blocks) -> Axes:
    """Blocks from input to output below, their stages apart and numbered above."""
    ax.set_xlabel("block (above: stage)")
    ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    ax.set_xlim(blocks[0].depth - 0.6, blocks[-1].depth + 0.6)
    for before, after in pairwise(stages_of(blocks)):
        ax.axvline((before[-1].depth + after[0].depth) / 2, color=rcParams["grid.color"], linewidth=0.8, zorder=0)
    for stage in stages_of(blocks):
        middle = (stage[0].depth + stage[-1].depth) / 2
        name = stage_of(stage[0]).removeprefix("stages.")[:6]
        ax.text(middle, 1.01, name, transform=ax.get_xaxis_transform(), ha="center", va="bottom", fontsize="small")
    return ax


def _k_bar(figure: Figure, axes: Any, limits: Limits, shown: Sequence[Diffusivity]) -> None:
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
    set_ticks(bar.ax.yaxis, log_ticks(*limits))
    if any((one.mean_map == 0).any() for one in shown):
        patch = Patch(color=ZERO_COLOUR, label="k exactly 0 in all channels")
        figure.legend(handles=[patch], loc="outside lower left")
