"""Temperature fields and maps of k for a page: small palette pictures as data URIs, with their colour scales."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence

import numpy as np
from markupsafe import Markup
from matplotlib.colors import to_rgb
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from vheatbench.studies.heat.diffusivity_figures import ZERO_COLOUR
from vheatbench.studies.heat.figures import MOST_TIMES, image_of, opacity
from vheatbench.studies.heat.labels import Clock, brief, called
from vheatbench.studies.heat.results import Diffusion, Diffusivity
from vheatbench.studies.heat.temperature import COLDEST, TemperatureScale, colour_table, evenly

LEVELS = 64
"""Colours of a map: a field that looks like noise then needs 6 bits a cell, not 8."""

MOST_SIDE = 64
"""Cells to a side of a field in a film strip; finer grids are shown as means over squares of cells."""

OVERLAYS, OVERLAY_SIDE = 3, 160

_GRID = "display:grid;grid-template-columns:repeat({},minmax(min({},100%),1fr));gap:.6rem"
_STRIP = "display:grid;grid-template-columns:repeat({},minmax(3.6rem,1fr));gap:.4rem"
_IMAGE = (
    '<div><img src="{}" alt="{}" width="{}" height="{}" style="display:block;width:100%;height:auto;'
    'image-rendering:pixelated"><small>{}</small></div>'
)


def strip_markup(diffusions: Sequence[Diffusion]) -> str:
    """A row of fields for each diffusivity of one layer, all on one colour scale, which stands below."""
    scale, clock = TemperatureScale.of(diffusions), Clock(diffusions)
    rows = [_row(one, scale, clock) for one in diffusions]
    ends = f"≤ {COLDEST:g}, or negative", brief(scale.hottest)
    return str(Markup("").join(rows) + _bar(ends, "temperature over its mean, one logarithmic scale"))


def _row(one: Diffusion, scale: TemperatureScale, clock: Clock) -> Markup:
    cells = []
    for i in evenly(len(one.times), MOST_TIMES):
        field = one.frames[i]
        said = _moment(one, i, clock)
        peak = brief(float(field.max() / field.mean()))
        words = f"{called(one)}, {', '.join(said)}: hottest cell {peak} times the mean"
        levels = np.round(scale.position(_coarse(field)) * (LEVELS - 1)).astype(np.uint8)
        cells.append(Markup(_IMAGE).format(_palette_uri(levels), words, *field.shape[::-1], _lines(said)))
    # one row however narrow the page: a strip that wraps is read as two
    return _headed(called(one), cells, _STRIP.format(len(cells)), scrolls=True)


def _headed(name: str, cells: Sequence[Markup], style: str, scrolls: bool = False) -> Markup:
    head = Markup('<p style="margin:.4rem 0 .2rem"><strong>{}</strong></p>').format(name)
    row = Markup('<div style="{}">{}</div>').format(style, Markup("").join(cells))
    if scrolls:
        row = Markup('<div class="scroll" tabindex="0" role="group" aria-label="{}">{}</div>').format(name, row)
    return head + row


def _moment(one: Diffusion, i: int, clock: Clock) -> tuple[str, str]:
    t, kt = f"t {brief(one.times[i])}", f"kt {brief(one.mean_kt[i])}"
    return (t, kt) if clock.by_time else (kt, t)


def _lines(texts: Iterable[str]) -> Markup:
    return Markup("<br>").join(texts)


def overlay_markup(diffusions: Sequence[Diffusion]) -> str:
    """Fields over the image at three times after the first, the last among them; empty without an image."""
    shown = [one for one in diffusions if one.image is not None]
    scale = TemperatureScale.of(diffusions)
    clock = Clock(diffusions)
    rows = []
    for one in shown:
        cells = []
        for i in evenly(len(one.times), OVERLAYS + 1)[1:]:
            said = _moment(one, i, clock)
            picture = _overlay(one, i, scale)
            words = f"Field over the image, {called(one)}, {', '.join(said)}"
            cells.append(Markup(_IMAGE).format(_uri(picture, "JPEG"), words, *picture.size, _lines(said)))
        rows.append(_headed(called(one), cells, _GRID.format("auto-fit", "6rem")))
    return str(Markup("").join(rows))


def _overlay(one: Diffusion, index: int, scale: TemperatureScale) -> Image.Image:
    """The field over the image, its source ringed."""
    pixels = image_of(one)
    shrink = min(1.0, OVERLAY_SIDE / max(pixels.shape[:2]))
    size = (max(1, round(pixels.shape[1] * shrink)), max(1, round(pixels.shape[0] * shrink)))
    below = Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS)
    place = scale.position(one.frames[index])
    levels = np.round(place * (LEVELS - 1)).astype(np.uint8)
    above = Image.fromarray(colour_table(LEVELS)[levels]).resize(size, Image.Resampling.NEAREST)
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
        height, width = one.mean_map.shape
        cells.append(Markup(_IMAGE).format(_palette_uri(levels), words, width, height, _lines((name, more))))
    style = _GRID.format(columns or "auto-fill", "1rem" if columns else "6rem")
    grid = Markup('<div style="{}">{}</div>').format(style, Markup("").join(cells))
    bar = _bar((brief(limits[0]), brief(limits[1])), "k in cells², one logarithmic scale")
    zero = Markup('<p style="font-size:.85rem;margin:.3rem 0 0"><span style="color:{}">■</span> {}</p>').format(
        ZERO_COLOUR, "k exactly 0 in all channels"
    )
    return str(grid + bar + (zero if any_zero else Markup("")))


def _k_levels(one: Diffusivity, limits: tuple[float, float]) -> NDArray[np.uint8]:
    """Palette indices; ``LEVELS`` stands for an exact zero."""
    k = _thinned(one.mean_map)
    low, high = limits
    place = np.log(np.clip(k, low, high) / low) / np.log(high / low)
    levels = np.round(place * (LEVELS - 1)).astype(np.uint8)
    levels[k == 0] = LEVELS
    return levels


def slider_data(diffusions: Sequence[Diffusion]) -> dict[str, object]:
    """What ``diffusion.js`` needs to show the fields of one layer at any time.

    Arrays are little-endian float32 in base64, in rows, colours bytes; ``k`` is a number where it is constant. A
    field's own time is the slider's value over its ``rate``.
    """
    clock = Clock(diffusions)
    height, width = diffusions[0].coefficients.shape
    constant = [bool(np.ptp(one.k) == 0) for one in diffusions]
    return {
        "kind": "diffusion",
        "height": height,
        "width": width,
        "coefficients": _floats(diffusions[0].coefficients),
        "k": [float(one.k.flat[0]) if same else _floats(one.k) for one, same in zip(diffusions, constant, strict=True)],
        "labels": [called(one) for one in diffusions],
        "rates": [clock.rate(one) for one in diffusions],
        "unit": clock.unit,
        "times": list(clock.span),
        "coldest": COLDEST,
        "hottest": TemperatureScale.of(diffusions).hottest,
        "colours": base64.b64encode(colour_table(LEVELS).tobytes()).decode("ascii"),
    }


def _floats(array: NDArray[np.float64]) -> str:
    return base64.b64encode(array.astype("<f4").tobytes()).decode("ascii")


def _coarse(field: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means over squares of cells, at most :data:`MOST_SIDE` to a side; what is over at the walls is cut."""
    block = -(-max(field.shape) // MOST_SIDE)
    rows, columns = max(1, field.shape[0] // block), max(1, field.shape[1] // block)
    cut = field[: rows * block, : columns * block]
    means: NDArray[np.float64] = cut.reshape(rows, cut.shape[0] // rows, columns, cut.shape[1] // columns).mean((1, 3))
    return means


def _thinned(k: NDArray[np.float64]) -> NDArray[np.float64]:
    """Every so many frequencies of a fine grid: means would hide exact zeros."""
    step = -(-max(k.shape) // (2 * MOST_SIDE))
    return k[::step, ::step]


def _bar(ends: tuple[str, str], words: str) -> Markup:
    ramp = np.arange(LEVELS, dtype=np.uint8)[None, :].repeat(2, axis=0)
    return Markup(
        '<p style="display:flex;flex-wrap:wrap;gap:.3rem .6rem;align-items:center;font-size:.85rem;margin:.7rem 0 0">'
        '<span>{}</span><img src="{}" alt="" width="160" height="12" '
        'style="height:.75rem;flex:1 1 6rem;min-width:4rem;max-width:16rem"><span>{}</span><span>{}</span></p>'
    ).format(ends[0], _palette_uri(ramp), ends[1], words)


def _palette_uri(levels: NDArray[np.uint8]) -> str:
    picture = Image.fromarray(np.ascontiguousarray(levels))
    zero = [round(255 * channel) for channel in to_rgb(ZERO_COLOUR)]
    picture.putpalette([*colour_table(LEVELS).ravel().tolist(), *zero])
    return _uri(picture, "PNG")


def _uri(picture: Image.Image, kind: str) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, format=kind, optimize=True, **({"quality": 80} if kind == "JPEG" else {}))
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
