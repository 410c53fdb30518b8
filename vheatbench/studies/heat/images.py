"""Temperature fields and maps of k for a page: small palette pictures as data URIs, with their colour scales."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from vheatbench.present.images import (
    LEVELS,
    coarse,
    colour_bar,
    colour_table,
    evenly,
    film_uri,
    image_uri,
    levels_of,
    palette_uri,
)
from vheatbench.studies.heat.animation import FRAME_MS, LAST_MS, frame_moments
from vheatbench.studies.heat.diffusivity_figures import ZERO_COLOUR
from vheatbench.studies.heat.figures import MOST_TIMES, image_of, opacity
from vheatbench.studies.heat.labels import Clock, brief, k_words
from vheatbench.studies.heat.results import Diffusion, Diffusivity
from vheatbench.studies.heat.temperature import COLDEST, TemperatureScale, field_at

MOST_SIDE = 64
"""Cells to a side of a field in a film strip; finer grids are shown as means over squares of cells."""

OVERLAYS, OVERLAY_SIDE = 3, 160

_ROW = "display:grid;grid-template-columns:repeat({},minmax(min({},30%),1fr));gap:.6rem"
_STRIP = "display:grid;grid-template-columns:repeat({},minmax(3.6rem,1fr));gap:.4rem"
_IMAGE = (
    '<div><img src="{}" alt="{}" width="{}" height="{}" style="display:block;width:100%;height:auto;'
    'image-rendering:pixelated"><small>{}</small></div>'
)


_FILM = (
    '<div style="max-width:16rem"><picture><source media="(prefers-reduced-motion: reduce)" srcset="{}">'
    '<img src="{}" alt="{}" width="{}" height="{}" style="display:block;width:100%;height:auto;'
    'image-rendering:pixelated"></picture><small>{}</small></div>'
)
FILM_FRAMES = 24


def strip_markup(diffusions: Sequence[Diffusion]) -> str:
    """A row of fields for each diffusivity of one layer, all on one colour scale, which stands below."""
    scale, clock = TemperatureScale.of(diffusions), Clock(diffusions)
    rows = []
    for one in diffusions:
        cells = []
        for i in evenly(len(one.times), MOST_TIMES):
            field, moment = one.frames[i], clock.moment(one, i)
            peak = brief(float(field.max() / field.mean()))
            words = f"{k_words(one)}, {', '.join(moment)}: hottest cell {peak} times the mean"
            uri = palette_uri(levels_of(scale.position(coarse(field, MOST_SIDE)[0])), ZERO_COLOUR)
            cells.append(_image(uri, words, field.shape, moment))
        # one row however narrow the page: a strip that wraps is read as two
        rows.append(_headed(k_words(one), cells, _STRIP.format(len(cells)), scrolls=True))
    bar = colour_bar(
        f"≤ {COLDEST:g}, or negative", brief(scale.hottest), "temperature over its mean, one logarithmic scale"
    )
    return str(Markup("").join(rows) + bar)


def film_markup(diffusions: Sequence[Diffusion]) -> str:
    """The fields of one layer in motion, side by side on one colour scale; without script, and still for those who have
    asked for no motion."""
    scale, clock = TemperatureScale.of(diffusions), Clock(diffusions)
    moments = frame_moments(clock, FILM_FRAMES)
    cells = []
    for one in diffusions:
        fields = [field_at(one.coefficients, one.k, moment / clock.rate(one)) for moment in moments]
        frames = [levels_of(scale.position(coarse(field, MOST_SIDE)[0])) for field in fields]
        still = palette_uri(frames[len(frames) // 2])
        height, width = fields[0].shape
        words = f"Heat spreading, {k_words(one)}: from t {brief(moments[0])} to {clock.words(moments[-1])}"
        cells.append(
            Markup(_FILM).format(still, film_uri(frames, FRAME_MS, LAST_MS), words, width, height, k_words(one))
        )
    return str(Markup('<div style="{}">{}</div>').format(_ROW.format("auto-fit", "9rem"), Markup("").join(cells)))


def _image(uri: str, words: str, shape: tuple[int, ...], below: Iterable[str]) -> Markup:
    height, width = shape
    return Markup(_IMAGE).format(uri, words, width, height, Markup("<br>").join(below))


def _headed(name: str, cells: Sequence[Markup], style: str, scrolls: bool = False) -> Markup:
    head = Markup('<p style="margin:.4rem 0 .2rem"><strong>{}</strong></p>').format(name)
    row = Markup('<div style="{}">{}</div>').format(style, Markup("").join(cells))
    if scrolls:
        row = Markup('<div class="scroll" tabindex="0" role="group" aria-label="{}">{}</div>').format(name, row)
    return head + row


def overlay_times(one: Diffusion) -> list[int]:
    """Which times a field is laid over the image at: three after the first, the last among them."""
    return evenly(len(one.times), OVERLAYS + 1)[1:]


def overlay_markup(diffusions: Sequence[Diffusion]) -> str:
    """Fields over the image at :func:`overlay_times`; empty without an image."""
    scale, clock = TemperatureScale.of(diffusions), Clock(diffusions)
    rows = []
    for one in diffusions:
        if one.image is None:
            continue
        cells = []
        for i in overlay_times(one):
            picture, moment = _overlay(one, i, scale), clock.moment(one, i)
            words = f"Field over the image, {k_words(one)}, {', '.join(moment)}"
            cells.append(_image(image_uri(picture, "JPEG"), words, picture.size[::-1], moment))
        rows.append(_headed(k_words(one), cells, _ROW.format("auto-fit", "6rem")))
    return str(Markup("").join(rows))


def _overlay(one: Diffusion, index: int, scale: TemperatureScale) -> Image.Image:
    """The field over the image, its source ringed."""
    pixels = image_of(one)
    shrink = min(1.0, OVERLAY_SIDE / max(pixels.shape[:2]))
    size = (max(1, round(pixels.shape[1] * shrink)), max(1, round(pixels.shape[0] * shrink)))
    below = Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS)
    place = scale.position(one.frames[index])
    above = Image.fromarray(colour_table()[levels_of(place)]).resize(size, Image.Resampling.NEAREST)
    mask = Image.fromarray(np.round(opacity(place) * 255).astype(np.uint8)).resize(size, Image.Resampling.NEAREST)
    below.paste(above, (0, 0), mask)
    y, x = one.source[0] * size[1], one.source[1] * size[0]
    radius = 0.05 * max(size)
    ImageDraw.Draw(below).ellipse((x - radius, y - radius, x + radius, y + radius), outline=(255, 255, 255))
    return below


def k_maps_markup(panels: Iterable[tuple[str, str, Diffusivity]], limits: tuple[float, float], columns: int = 0) -> str:
    """Maps of the mean k by frequency on one logarithmic scale, each with a name; exact zeros have a colour.

    Args:
        panels: name, a second line, and block.
        limits: ends of the scale.
        columns: maps to a row; as many as fit where not given.
    """
    cells = []
    any_zero = False
    for name, more, one in panels:
        levels = _k_levels(one, limits)
        any_zero = any_zero or bool((levels == LEVELS).any())
        least, most = brief(float(one.mean_map.min())), brief(float(one.mean_map.max()))
        words = f"k by frequency, {name}, {more}: mean over channels from {least} to {most} cells²"
        cells.append(_image(palette_uri(levels, ZERO_COLOUR), words, one.mean_map.shape, (name, more)))
    style = _ROW.format(columns or "auto-fill", "1rem" if columns else "7.5rem")
    grid = Markup('<div style="{}">{}</div>').format(style, Markup("").join(cells))
    bar = colour_bar(brief(limits[0]), brief(limits[1]), "k in cells², one logarithmic scale")
    zero = Markup('<p style="font-size:.85rem;margin:.3rem 0 0"><span style="color:{}">■</span> {}</p>').format(
        ZERO_COLOUR, "k exactly 0 in all channels"
    )
    return str(grid + bar + (zero if any_zero else Markup("")))


def _k_levels(one: Diffusivity, limits: tuple[float, float]) -> NDArray[np.uint8]:
    """Palette indices; ``LEVELS`` stands for an exact zero. Of a fine grid every so many frequencies are shown."""
    step = -(-max(one.mean_map.shape) // (2 * MOST_SIDE))
    k = one.mean_map[::step, ::step]  # means would hide exact zeros
    low, high = limits
    levels = levels_of(np.log(np.clip(k, low, high) / low) / np.log(high / low))
    levels[k == 0] = LEVELS
    return levels


def slider_data(diffusions: Sequence[Diffusion]) -> dict[str, object]:
    """What ``diffusion.js`` needs to show the fields of one layer at any time.

    Arrays are little-endian float32 in base64, in rows, colours bytes; ``k`` is a number where it is constant. A
    field's own time is the slider's value over its ``rate``.
    """
    clock = Clock(diffusions)
    height, width = diffusions[0].coefficients.shape
    return {
        "kind": "diffusion",
        "height": height,
        "width": width,
        "coefficients": _floats(diffusions[0].coefficients),
        "k": [float(one.k.flat[0]) if np.ptp(one.k) == 0 else _floats(one.k) for one in diffusions],
        "labels": [k_words(one) for one in diffusions],
        "rates": [clock.rate(one) for one in diffusions],
        "unit": clock.unit,
        "times": list(clock.span),
        "coldest": COLDEST,
        "hottest": TemperatureScale.of(diffusions).hottest,
        "colours": base64.b64encode(colour_table().tobytes()).decode("ascii"),
    }


def _floats(array: NDArray[np.float64]) -> str:
    return base64.b64encode(array.astype("<f4").tobytes()).decode("ascii")
