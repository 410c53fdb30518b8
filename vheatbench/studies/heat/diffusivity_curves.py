"""Curves of a model's diffusivity: k and its reach against depth, and what is left of a frequency."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from vheatbench.present.style import COLOURS, DASHES, MARKERS
from vheatbench.studies.heat.labels import label_log, number, size_words
from vheatbench.studies.heat.results import Diffusivity


def variant(result: Diffusivity) -> str:
    """Size and resizing rule in words: ``224 px``, ``512 px (zeropad)``."""
    return size_words(result.resolution) + (f" ({result.rule})" if result.rule else "")


def stage_of(result: Diffusivity) -> str:
    """Such as ``stages.2`` of ``stages.2.blocks.5``."""
    return result.layer.split(".blocks.")[0]


def stages_of(blocks: Sequence[Diffusivity]) -> list[list[Diffusivity]]:
    """The blocks by stage, from input to output."""
    stages: dict[str, list[Diffusivity]] = {}
    for one in blocks:
        stages.setdefault(stage_of(one), []).append(one)
    return list(stages.values())


def draw_quantiles(ax: Axes, blocks: Sequence[Diffusivity], colours: Sequence[str] = COLOURS) -> Axes:
    """k over channels and frequencies against depth: median, quartiles, mean, largest; 0 has a line of its own.

    Args:
        ax: axes to draw on.
        blocks: of one model at one size, by depth.
        colours: of the lines.
    """
    depth = [one.depth for one in blocks]
    q25, median, q75, mean, largest = (
        np.array([number(one.record, f"k_{name}_cells2") for one in blocks])
        for name in ("q25", "median", "q75", "mean", "max")
    )
    everything = np.concatenate([q25, median, q75, mean, largest])
    positive = everything[everything > 0]
    floor, top = (float(positive.min()) / 4, float(positive.max()) * 2) if positive.size else (0.1, 1.0)
    low, high = np.maximum(q25, floor), np.maximum(q75, floor)
    ax.fill_between(depth, low, high, color=colours[1], alpha=0.25, linewidth=0, label="quartiles")
    ax.plot(depth, np.maximum(largest, floor), "^:", color=colours[0], label="largest")
    ax.plot(depth, np.maximum(mean, floor), "s--", color=colours[2], label="mean")
    ax.plot(depth, np.maximum(median, floor), "o-", color=colours[1], label="median")
    ax.set_yscale("log")
    ax.set_ylim(floor / 1.5, top)
    label_log(ax.yaxis, 1.5 * floor, top)
    if everything.min() <= 0:
        ax.axhline(floor, color=rcParams["axes.edgecolor"], linewidth=0.6, linestyle=":")
        beside: dict[str, Any] = {
            "xycoords": ax.get_yaxis_transform(),
            "textcoords": "offset points",
            "fontsize": "small",
        }
        ax.annotate("0", (0, floor), xytext=(-4, 0), ha="right", va="center", **beside)
    ax.set_ylabel("k (cells²)")
    return _depth_axis(ax, blocks)


def draw_zero_share(ax: Axes, blocks: Sequence[Diffusivity], colours: Sequence[str] = COLOURS) -> Axes:
    """Share of channels and frequencies whose k is exactly 0, against depth."""
    shares = [100 * number(one.record, "k_zero_share") for one in blocks]
    ax.bar([one.depth for one in blocks], shares, 0.7, color=colours[7])
    ax.set_ylim(0, 108)
    ax.set_yticks([0, 25, 50, 75, 100])
    ax.set_ylabel("k exactly 0 (%)")
    return _depth_axis(ax, blocks)


def draw_lengths(
    ax: Axes, series: Sequence[Sequence[Diffusivity]], share: bool, colours: Sequence[str] = COLOURS
) -> Axes:
    """Diffusion length sqrt(2 k) of the mean k against depth, in pixels or in share of the image's shorter side.

    Args:
        ax: axes to draw on.
        series: blocks of one model at one size under one rule, a line each.
        share: of the image instead of pixels.
        colours: of the lines.
    """
    metric, factor = ("diffusion_length_share", 100.0) if share else ("diffusion_length_px", 1.0)
    for i, blocks in enumerate(series):
        values = [number(block.record, metric) * factor for block in blocks]
        look: dict[str, Any] = {
            "color": colours[i % len(colours)],
            "marker": MARKERS[i % len(MARKERS)],
            "linestyle": DASHES[i % 3],
        }
        ax.plot([block.depth for block in blocks], values, label=variant(blocks[0]), **look)
    ax.set_ylabel("diffusion length (% of the image)" if share else "diffusion length (px)")
    ax.set_ylim(bottom=0)
    return _depth_axis(ax, series[0])


def draw_decay(ax: Axes, blocks: Sequence[Diffusivity], colours: Sequence[str] = COLOURS) -> Axes:
    """What one application leaves of a frequency: median of exp(-k |w|²) of every block, quartiles of the last one.

    Where the median falls to a half there is a dot.

    Args:
        ax: axes to draw on.
        blocks: of one stage, by depth.
        colours: of the first, middle and last block; the others are thin and grey.
    """
    named = {0: (colours[0], "first block"), len(blocks) // 2: (colours[2], "middle block")}
    named[len(blocks) - 1] = (colours[1], "last block")
    _band(ax, blocks[-1], colours[1], "quartiles of the last block")
    for i, one in enumerate(blocks):
        colour, label = named.get(i, (rcParams["axes.edgecolor"], "other blocks"))
        look: dict[str, Any] = {
            "color": colour,
            "linewidth": 1.2 if i in named else 0.5,
            "zorder": 3 if i in named else 2,
        }
        ax.plot(one.radial_frequency, one.decay_quantiles[:, 1], label=label, **look)
        half = number(one.record, "half_decay_frequency_rad_per_cell")
        if i in named and math.isfinite(half):
            ax.plot([half], [0.5], "o", color=colour, zorder=4)
    return _decay_axes(ax, blocks)


def draw_rules(ax: Axes, results: Sequence[Diffusivity], colours: Sequence[str] = COLOURS) -> Axes:
    """Median and quartiles of exp(-k |w|²) of one block against |w|, a line and a band per size and rule."""
    for i, one in enumerate(results):
        look: dict[str, Any] = {"color": colours[i % len(colours)], "linestyle": DASHES[i % 3]}
        _band(ax, one, look["color"], None)
        ax.plot(one.radial_frequency, one.decay_quantiles[:, 1], label=variant(one), **look)
    return _decay_axes(ax, results)


def decay_floor(blocks: Sequence[Diffusivity]) -> float:
    """Where an axis of decay begins: 0, or closer to 1 where hardly anything decays."""
    lowest = min(float(one.decay_quantiles.min()) for one in blocks)
    return 0.0 if lowest < 0.6 else 1 - 1.3 * max(1 - lowest, 0.01)


def _band(ax: Axes, one: Diffusivity, colour: str, label: str | None) -> None:
    low, high = one.decay_quantiles[:, 0], one.decay_quantiles[:, 2]
    ax.fill_between(one.radial_frequency, low, high, color=colour, alpha=0.2, linewidth=0, label=label)


def _decay_axes(ax: Axes, blocks: Sequence[Diffusivity]) -> Axes:
    floor = decay_floor(blocks)
    if floor == 0:
        ax.axhline(0.5, color=rcParams["axes.edgecolor"], linewidth=0.6, linestyle=":", zorder=0)
    ax.set_ylim(floor, 1 + 0.03 * (1 - floor))
    ax.set_xlim(0, None)
    ax.yaxis.set_major_locator(MaxNLocator(5))
    ax.set_xlabel("|w| (rad/cell)")
    ax.set_ylabel("exp(-k |w|²)")
    return ax


def _depth_axis(ax: Axes, blocks: Sequence[Diffusivity]) -> Axes:
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
