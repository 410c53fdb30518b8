"""Figures of heat diffusion: a filmstrip over time, the field over its image, and all figures that a run allows."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from numpy.typing import NDArray
from PIL import Image

from vheatbench.errors import UserError
from vheatbench.present.style import MAP_COLOURS, TWO_COLUMN, new_figure, save, style
from vheatbench.store.read import Run
from vheatbench.studies.heat.animation import save_animation
from vheatbench.studies.heat.diffusivity_figures import diffusivity_figures
from vheatbench.studies.heat.kernel_figures import kernel_figures
from vheatbench.studies.heat.labels import (
    Clock,
    block_words,
    brief,
    called,
    is_constant,
    label_log,
    number,
    seen_in,
    weights_words,
)
from vheatbench.studies.heat.results import Diffusion, diffusions_of, diffusivities_of, point_responses_of
from vheatbench.studies.heat.temperature import COLDEST, TemperatureScale, evenly, held_at_source, source_cell

MOST_TIMES, MOST_ROWS, MOST_OVERLAYS = 9, 8, 4
"""Columns of a filmstrip hold time 0 and the eight times that ``heat diffuse`` takes by default."""

Key = tuple[str, tuple[int, int], str, tuple[float, float]]


def save_heat_figures(run: Run, out_dir: Path) -> list[Path]:
    """Write every figure that the run's heat records allow, each as PNG, SVG and PDF, and films as APNG and GIF.

    Args:
        run: with records of ``heat diffuse``, ``heat diffusivity`` or ``heat kernel``.
        out_dir: made if need be.

    Returns:
        What was written; empty for a run without heat records.

    Raises:
        UserError: it cannot be written.
    """
    paths: list[Path] = []
    for (subject, size, weights, _), group in groups_of(diffusions_of(run)[0]).items():
        layers = by_layer(group)
        # a source at another place of the same layer gets a name of its own
        names = [f"diffuse-{_slug(subject, _size(size), layer, weights)}" for layer in layers]
        for name, rows in zip(names, layers.values(), strict=True):
            stem = _free(out_dir / name, paths)
            paths += _saved(partial(filmstrip_figure, rows), stem, "strip")
            if any(one.image is not None for one in rows):
                paths += _saved(partial(overlay_figure, rows), stem, "overlay")
            paths += _animated(rows, stem)
        learned = [one for one in group if not is_constant(one)]
        if len(by_layer(learned)) > 1:
            stem = _free(out_dir / f"diffuse-{_slug(subject, _size(size), 'layers', weights)}", paths)
            paths += _saved(partial(filmstrip_figure, learned), stem, "strip")
    drawn = [*diffusivity_figures(diffusivities_of(run)[0]), *kernel_figures(point_responses_of(run)[0])]
    for name, draw in drawn:
        paths += _saved(draw, _free(out_dir / _slug(name), paths))
    return paths


def groups_of(diffusions: Sequence[Diffusion]) -> dict[Key, list[Diffusion]]:
    """Diffusions that belong together: one model's, from one source, in any layer."""
    groups: dict[Key, list[Diffusion]] = {}
    for one in diffusions:
        # the middle of the source's cell differs a little from layer to layer, the cell that was asked for does not
        place = tuple(one.record.case.analysis.get("source", ()))
        groups.setdefault((one.subject, one.resolution, one.weights, place), []).append(one)
    return groups


def by_layer(diffusions: Sequence[Diffusion]) -> dict[str, list[Diffusion]]:
    """Diffusions of the same layer, in the order of the run: they differ in k."""
    layers: dict[str, list[Diffusion]] = {}
    for one in diffusions:
        layers.setdefault(one.layer, []).append(one)
    return layers


def filmstrip_figure(diffusions: Sequence[Diffusion]) -> Figure:
    """A filmstrip at a page's width; of one layer with its constants, or of several layers."""
    rows = min(len(diffusions), MOST_ROWS)
    columns = max(min(len(one.times), MOST_TIMES) for one in diffusions)
    panel = min(1.6, (TWO_COLUMN - 1.2) / columns)
    figure = new_figure(TWO_COLUMN, 0.6 + (panel + 0.22) * rows)
    draw_filmstrip(figure, diffusions)
    return figure


def draw_filmstrip(figure: Figure, diffusions: Sequence[Diffusion]) -> NDArray[Any]:
    """Fields over log-spaced times: a row for each diffusivity (or layer), one colour scale for all of them.

    Args:
        figure: empty; its size is kept.
        diffusions: at most 8 are shown, evenly chosen.

    Returns:
        The axes, one row per diffusion.
    """
    rows = [diffusions[i] for i in evenly(len(diffusions), MOST_ROWS)]
    clock, scale = Clock(rows), TemperatureScale.of(rows)
    columns = max(min(len(one.times), MOST_TIMES) for one in rows)
    axes: NDArray[Any] = figure.subplots(len(rows), columns, squeeze=False)
    several = len(by_layer(rows)) > 1
    for row, (line, one) in enumerate(zip(axes, rows, strict=True)):
        shown = evenly(len(one.times), MOST_TIMES)
        for ax, i in zip(line, shown, strict=False):
            draw_field(ax, one.frames[i], scale)
            shared, other = f"t {brief(one.times[i])}", f"kt {brief(one.mean_kt[i])}"
            if not clock.by_time:
                shared, other = other, shared
            if row == 0:
                ax.set_title(shared, loc="center", pad=2)
            ax.set_xlabel(other, labelpad=2, size="small")
        for ax in line[len(shown) :]:
            ax.set_axis_off()
        mark_source(line[0], one)
        line[0].set_ylabel(
            block_words(one.layer).replace(", ", "\n") if several else called(one).replace("constant k", "constant\nk")
        )
    figure.suptitle(strip_title(rows) + chosen_times(rows, MOST_TIMES), x=0.01, ha="left")
    _colour_bar(figure, axes, scale, "black")
    return axes


def draw_field(ax: Axes, field: NDArray[np.floating], scale: TemperatureScale) -> Axes:
    """One temperature field (H, W), its cells as squares, without ticks."""
    ax.imshow(scale.position(field), cmap=MAP_COLOURS, vmin=0, vmax=1, interpolation="nearest")
    return _frame(ax)


def mark_source(ax: Axes, diffusion: Diffusion) -> Axes:
    """A ring around the source's cell."""
    row, column = source_cell(diffusion)
    radius = max(1.5, max(diffusion.frames[0].shape) / 9)
    ax.add_patch(Circle((column, row), radius, fill=False, edgecolor="white", linewidth=0.9))
    return ax


def strip_title(rows: Sequence[Diffusion]) -> str:
    """What is seen, on two lines; says random weights, dead frequencies, and when the heat stays where it was."""
    lines = [seen_in(rows), weights_words(rows[0].weights)]
    learned = [one for one in rows if not is_constant(one)]
    if learned:
        held = [held_at_source(one) for one in learned]
        zeros = [number(one.record, "k_zero_share") for one in learned]
        if max(zeros) > 0:
            lines[1] += f"; learned k is 0 at {_percents(zeros)} of the frequencies"
        if max(held) > 0.1:
            lines[1] += f"; {_percents(held)} of the heat is in its cell at the end"
        if min(held) > 0.9:
            lines[1] += ": the field stays a point"
    return "\n".join(lines)


def chosen_times(rows: Sequence[Diffusion], most: int) -> str:
    """Says that not all times are shown, to stand behind a title; empty where all are."""
    count = max(len(one.times) for one in rows)
    return f"; {most} of {count} times" if count > most else ""


def _percents(shares: Sequence[float]) -> str:
    low, high = f"{100 * min(shares):.0f}", f"{100 * max(shares):.0f}"
    return f"{low} %" if low == high else f"{low} to {high} %"


def overlay_figure(diffusions: Sequence[Diffusion]) -> Figure:
    """Fields over the image at up to four times, a row for each diffusivity of one layer."""
    rows = [one for one in diffusions if one.image is not None][:MOST_ROWS]
    columns = min(MOST_OVERLAYS, max(len(one.times) for one in rows))
    height, width = rows[0].resolution
    panel = (TWO_COLUMN - 1.1) / columns * height / width
    figure = new_figure(TWO_COLUMN, 0.45 + (panel + 0.2) * len(rows))
    axes: NDArray[Any] = figure.subplots(len(rows), columns, squeeze=False)
    scale = TemperatureScale.of(rows)
    for line, one in zip(axes, rows, strict=True):
        shown = evenly(len(one.times), columns)
        for ax, i in zip(line, shown, strict=False):
            draw_overlay(ax, one, i, scale)
        for ax in line[len(shown) :]:
            ax.set_axis_off()
        line[0].set_ylabel(called(one))
    figure.suptitle(strip_title(rows) + chosen_times(rows, columns), x=0.01, ha="left")
    _colour_bar(figure, axes, scale, "nearly transparent")
    return figure


def draw_overlay(ax: Axes, diffusion: Diffusion, index: int, scale: TemperatureScale) -> Axes:
    """The field of one time as a translucent map over the image, the source's cell ringed.

    Args:
        ax: axes to draw on.
        diffusion: with an image.
        index: of the time.
        scale: of colours and opacity; the hotter, the less is seen of the image.
    """
    place = scale.position(diffusion.frames[index])
    picture = image_of(diffusion)
    height, width = picture.shape[:2]
    extent = (0, width, height, 0)
    ax.imshow(picture, extent=extent)
    ax.imshow(place, cmap=MAP_COLOURS, vmin=0, vmax=1, alpha=opacity(place), extent=extent, interpolation="nearest")
    y, x = (share * side for share, side in zip(diffusion.source, (height, width), strict=True))
    ax.add_patch(Circle((x, y), 0.05 * max(height, width), fill=False, edgecolor="white", linewidth=1))
    ax.set_title(f"t {brief(diffusion.times[index])}, kt {brief(diffusion.mean_kt[index])}", loc="center", pad=2)
    return _frame(ax)


def opacity(place: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of every cell over the image, from its place on the colour scale: 0.2 to 0.9."""
    return 0.2 + 0.7 * place


def image_of(diffusion: Diffusion) -> NDArray[np.uint8]:
    """The picture that the field belongs to, (H, W, 3) bytes. Raises UserError where it cannot be read."""
    try:
        with Image.open(io.BytesIO(diffusion.image or b"")) as picture:
            return np.asarray(picture.convert("RGB"))
    except OSError:
        raise UserError(f"{diffusion.record.case.label}: its picture in the run's folder is no image") from None


def _frame(ax: Axes) -> Axes:
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(False)
    return ax


def _colour_bar(figure: Figure, axes: NDArray[Any], scale: TemperatureScale, coldest: str) -> None:
    colours = ScalarMappable(LogNorm(COLDEST, scale.hottest), MAP_COLOURS)
    height = figure.get_size_inches()[1]
    tall = min(height, 3.0)
    bar = figure.colorbar(colours, ax=axes, extend="min", pad=0.01, aspect=9 * tall, shrink=tall / height)
    bar.set_label(f"temperature / its mean, log scale\n({coldest}: below {COLDEST:g}, or negative)")
    label_log(bar.ax.yaxis, COLDEST, scale.hottest)


def _saved(draw: Callable[[], Figure], stem: Path, what: str = "") -> list[Path]:
    with style():
        return save(draw(), stem.with_name(f"{stem.name}-{what}") if what else stem)


def _animated(diffusions: Sequence[Diffusion], stem: Path) -> list[Path]:
    return save_animation(diffusions, stem.with_name(f"{stem.name}-film"))


def _size(resolution: tuple[int, int]) -> str:
    height, width = resolution
    return str(height) if height == width else f"{height}x{width}"


def _slug(*names: str) -> str:
    return "-".join(re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-.")[:60] for name in names)


def _free(stem: Path, taken: Sequence[Path]) -> Path:
    """The stem, numbered where figures of this name were written already."""
    names = {path.name for path in taken}
    number, found = 1, stem
    while any(name.startswith((f"{found.name}-", f"{found.name}.")) for name in names):
        number += 1
        found = stem.with_name(f"{stem.name}-{number}")
    return found
