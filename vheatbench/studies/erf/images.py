"""Maps of receptive fields for a page: small palette pictures as data URIs, with their scale."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup
from matplotlib import colormaps
from matplotlib.colors import to_rgb
from PIL import Image

from vheatbench import numbers
from vheatbench.present.style import MAP_COLOURS
from vheatbench.studies.erf.colours import ColourScale, colour_scale
from vheatbench.studies.erf.curves import Field, coarse, density, level_of
from vheatbench.studies.erf.labels import labels, words
from vheatbench.studies.erf.maps import CELLS, CENTRE, CONTOUR, panel_text
from vheatbench.studies.erf.results import ErfResult

LEVELS = 64
"""Colours of a map: a step is a sixty-fourth of the scale, and a map of noise needs 6 bits a pixel, not 8."""

SIDES = (224, 192, 160, 128, 96, 64, 48)
"""Longest side of a picture in pixels: the first that stays under the limit."""

MAP_BYTES, PAGE_BYTES, LEAST_BYTES = 60_000, 400_000, 8_000
"""Most of one map's data URI, of all maps of a page, and what a map may take however many there are."""


def maps_markup(results: Sequence[ErfResult]) -> str:
    """All maps on one colour scale, each an ``<img>`` with its name and numbers, and the scale below."""
    scale = colour_scale(results)
    limit = max(LEAST_BYTES, min(MAP_BYTES, PAGE_BYTES // max(1, len(results))))
    panels = Markup("").join(
        _panel(result, label, scale, limit) for result, label in zip(results, labels(results), strict=True)
    )
    grid = "display:grid;grid-template-columns:repeat(auto-fill,minmax(min(13rem,100%),1fr));gap:.9rem"
    return str(Markup('<div style="{}">{}</div>{}').format(grid, panels, _bar(scale)))


def _panel(result: ErfResult, label: str, scale: ColourScale, limit: int) -> Markup:
    uri = map_uri(result, scale, limit)
    height, width = result.resolution
    layer = words(result, "layer")
    said = Markup("<br>").join(
        [line for line in (layer if layer not in label else "", *panel_text(result).split("\n")) if line]
    )
    return Markup(
        '<div><img src="{}" alt="{}" width="{}" height="{}" '
        'style="display:block;width:100%;height:auto;image-rendering:pixelated">'
        '<p style="margin:.3rem 0 0;font-size:.8rem;overflow-wrap:anywhere"><strong>{}</strong><br>{}</p></div>'
    ).format(uri, described(result, label), width, height, label, said)


def described(result: ErfResult, label: str) -> str:
    """A map in words: for those who cannot see it."""
    y, x = result.centre
    said = ", ".join(panel_text(result).split("\n"))
    what = [text for part in ("subject", "layer") if (text := words(result, part)) not in label]
    return f"Map of {', '.join([label, *what])}, about pixel {x:.0f} across and {y:.0f} down: {said}"


def _bar(scale: ColourScale) -> Markup:
    table = np.arange(LEVELS, dtype=np.uint8)[None, :].repeat(2, axis=0)
    ends = f"{'≤ ' if scale.low else ''}{numbers.plain(scale.low, 2)}", numbers.plain(scale.high, 2)
    return Markup(
        '<p style="display:flex;flex-wrap:wrap;gap:.3rem .6rem;align-items:center;font-size:.85rem;margin:.7rem 0 0">'
        '<span>{}</span><img src="{}" alt="" width="160" height="12" '
        'style="height:.75rem;flex:1 1 6rem;min-width:4rem;max-width:16rem"><span>{}</span><span>{}</span></p>'
    ).format(ends[0], _uri(_png(table)), ends[1], scale.words)


def map_uri(result: ErfResult, scale: ColourScale, limit: int = MAP_BYTES) -> str:
    """The map as a ``data:image/png`` URI of at most ``limit`` bytes where :data:`SIDES` allow."""
    uri = ""
    for most in SIDES:
        uri = _uri(_png(_indices(result, scale, most)))
        if len(uri) <= limit:
            break
    return uri


def _indices(result: ErfResult, scale: ColourScale, most: int) -> np.ndarray:
    """Palette indices (H', W'): colours, then the A50 contour, then the centre's cross."""
    spread = density(result)
    field, block = coarse(spread, most)
    indices = np.round(scale.positions(field) * (LEVELS - 1)).astype(np.uint8)
    indices[_border(spread, field.shape, block)] = LEVELS
    row, column = (
        min(max(int(place / block), 0), size - 1) for place, size in zip(result.centre, field.shape, strict=True)
    )
    arm = max(2, max(field.shape) // 48)
    indices[max(0, row - arm) : row + arm + 1, column] = LEVELS + 1
    indices[row, max(0, column - arm) : column + arm + 1] = LEVELS + 1
    return indices


def _border(spread: Field, shape: tuple[int, ...], block: int) -> np.ndarray:
    """Where, in a picture of this shape and block, the smallest area on coarse cells ends that holds half the mass."""
    cells, side = coarse(spread, CELLS)
    level = level_of(cells, 0.5)
    if level <= 0:
        return np.zeros(shape, dtype=bool)
    down, across = (
        _interpolation((np.arange(size) + 0.5) * block, (np.arange(count) + 0.5) * side)
        for size, count in zip(shape, cells.shape, strict=True)
    )
    inside = down @ cells @ across.T >= level
    around = np.pad(inside, 1, mode="edge")
    kept = around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
    border: np.ndarray = inside & ~kept
    return border


def _interpolation(at: np.ndarray, places: np.ndarray) -> Field:
    """(len(at), len(places)) weights of linear interpolation."""
    return np.stack([np.interp(at, places, row) for row in np.eye(len(places))], axis=1)


def _png(indices: np.ndarray) -> bytes:
    colours = [colormaps[MAP_COLOURS](i / (LEVELS - 1))[:3] for i in range(LEVELS)] + [to_rgb(CONTOUR), to_rgb(CENTRE)]
    picture = Image.fromarray(indices).convert("P")
    picture.putpalette([round(255 * channel) for colour in colours for channel in colour])
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _uri(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode("ascii")
