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
from vheatbench.present.images import evenly
from vheatbench.present.style import MAP_COLOURS, TWO_COLUMN, log_ticks, save, set_ticks, style, titled_figure
from vheatbench.store.read import Run
from vheatbench.studies.heat.animation import save_animation
from vheatbench.studies.heat.diffusivity_figures import diffusivity_figures
from vheatbench.studies.heat.kernel_figures import kernel_figures
from vheatbench.studies.heat.labels import (
    Clock,
    block_words,
    is_constant,
    k_words,
    number,
    place_words,
    weights_words,
)
from vheatbench.studies.heat.results import Diffusion, diffusions_of, diffusivities_of, point_responses_of
from vheatbench.studies.heat.temperature import COLDEST, TemperatureScale, held_at_source, source_cell

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
    for (subject, _, weights, _), group in groups_of(diffusions_of(run)[0]).items():
        layers, size = by_layer(group), group[0].record.case.size
        # a source at another place of the same layer gets a name of its own
        names = [f"diffuse-{_slug(subject, size, layer, weights)}" for layer in layers]
        for name, rows in zip(names, layers.values(), strict=True):
            stem = _free(out_dir / name, paths)
            paths += _saved(partial(filmstrip_figure, rows), stem, "strip")
            if any(one.image is not None for one in rows):
                paths += _saved(partial(overlay_figure, rows), stem, "overlay")
            paths += save_animation(rows, stem.with_name(f"{stem.name}-film"))
        learned = [one for one in group if not is_constant(one)]
        if len(by_layer(learned)) > 1:
            stem = _free(out_dir / f"diffuse-{_slug(subject, size, 'layers', weights)}", paths)
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
    """Fields over log-spaced times: a row for each diffusivity of one layer, or for each of several layers.

    At most 8 rows are shown, evenly chosen.
    """
    rows = [diffusions[i] for i in evenly(len(diffusions), MOST_ROWS)]
    panel = min(1.6, (TWO_COLUMN - 1.2) / _columns(rows, MOST_TIMES))
    height, title = 0.6 + (panel + 0.22) * len(rows), strip_title(rows) + chosen_times(rows, MOST_TIMES)
    return titled_figure(partial(_draw_filmstrip, rows=rows), height, title)


def _draw_filmstrip(figure: Figure, rows: Sequence[Diffusion]) -> None:
    clock, scale = Clock(rows), TemperatureScale.of(rows)
    several = len(by_layer(rows)) > 1
    axes = _panels(figure, rows, MOST_TIMES, partial(_draw_moment, clock=clock, scale=scale))
    for line, one in zip(axes, rows, strict=True):
        row, column = source_cell(one)
        _ring(line[0], (column, row), max(1.5, max(one.frames[0].shape) / 9), 0.9)
        k = k_words(one).replace("constant k", "constant\nk")
        line[0].set_ylabel(block_words(one.layer).replace(", ", "\n") if several else k)
    for ax, i in zip(axes[0], evenly(len(rows[0].times), MOST_TIMES), strict=False):
        ax.set_title(clock.moment(rows[0], i)[0], loc="center", pad=2)
    _colour_bar(figure, axes, scale, "black")


def _draw_moment(ax: Axes, one: Diffusion, index: int, clock: Clock, scale: TemperatureScale) -> None:
    """One temperature field, its cells as squares, its own time below."""
    ax.imshow(scale.position(one.frames[index]), cmap=MAP_COLOURS, vmin=0, vmax=1, interpolation="nearest")
    ax.set_xlabel(clock.moment(one, index)[1], labelpad=2, size="small")


def _columns(rows: Sequence[Diffusion], most: int) -> int:
    return max(min(len(one.times), most) for one in rows)


def _panels(
    figure: Figure, rows: Sequence[Diffusion], most: int, draw: Callable[[Axes, Diffusion, int], None]
) -> NDArray[Any]:
    """A row of axes without ticks per diffusion, drawn at up to ``most`` of its times."""
    axes: NDArray[Any] = figure.subplots(len(rows), _columns(rows, most), squeeze=False)
    for line, one in zip(axes, rows, strict=True):
        shown = evenly(len(one.times), most)
        for ax, i in zip(line, shown, strict=False):
            draw(ax, one, i)
            ax.set_xticks([])
            ax.set_yticks([])
            ax.spines[:].set_visible(False)
        for ax in line[len(shown) :]:
            ax.set_axis_off()
    return axes


def _ring(ax: Axes, centre: tuple[float, float], radius: float, width: float) -> None:
    """A ring around the source's cell."""
    ax.add_patch(Circle(centre, radius, fill=False, edgecolor="white", linewidth=width))


def strip_title(rows: Sequence[Diffusion]) -> str:
    """What is seen, on two lines; says random weights, dead frequencies, and when the heat stays where it was."""
    lines = [place_words(rows), weights_words(rows[0].weights)]
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
    columns = _columns(rows, MOST_OVERLAYS)
    height, width = rows[0].resolution
    panel = (TWO_COLUMN - 1.1) / columns * height / width
    title = strip_title(rows) + chosen_times(rows, columns)
    return titled_figure(partial(_draw_overlays, rows=rows), 0.45 + (panel + 0.2) * len(rows), title)


def _draw_overlays(figure: Figure, rows: Sequence[Diffusion]) -> None:
    scale = TemperatureScale.of(rows)
    axes = _panels(figure, rows, MOST_OVERLAYS, partial(_draw_overlay, scale=scale))
    for line, one in zip(axes, rows, strict=True):
        line[0].set_ylabel(k_words(one))
    _colour_bar(figure, axes, scale, "nearly transparent")


def _draw_overlay(ax: Axes, one: Diffusion, index: int, scale: TemperatureScale) -> None:
    """The field of one time over the image, the source's cell ringed; the hotter, the less is seen of the image."""
    place = scale.position(one.frames[index])
    picture = image_of(one)
    height, width = picture.shape[:2]
    extent = (0, width, height, 0)
    ax.imshow(picture, extent=extent)
    ax.imshow(place, cmap=MAP_COLOURS, vmin=0, vmax=1, alpha=opacity(place), extent=extent, interpolation="nearest")
    _ring(ax, (one.source[1] * width, one.source[0] * height), 0.05 * max(height, width), 1)
    ax.set_title(", ".join(Clock([one]).moment(one, index)), loc="center", pad=2)


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


def _colour_bar(figure: Figure, axes: NDArray[Any], scale: TemperatureScale, coldest: str) -> None:
    colours = ScalarMappable(LogNorm(COLDEST, scale.hottest), MAP_COLOURS)
    height = figure.get_size_inches()[1]
    tall = min(height, 3.0)
    bar = figure.colorbar(colours, ax=axes, extend="min", pad=0.01, aspect=9 * tall, shrink=tall / height)
    bar.set_label(f"temperature / its mean, log scale\n({coldest}: below {COLDEST:g}, or negative)")
    set_ticks(bar.ax.yaxis, log_ticks(COLDEST, scale.hottest))


def _saved(draw: Callable[[], Figure], stem: Path, what: str = "") -> list[Path]:
    with style():
        return save(draw(), stem.with_name(f"{stem.name}-{what}") if what else stem)


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
