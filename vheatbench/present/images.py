"""Small pictures of fields for figures and pages: cells averaged, palette pictures as data URIs, their colour bar."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib import colormaps
from matplotlib.colors import to_rgb
from numpy.typing import NDArray
from PIL import Image

from vheatbench.present.style import MAP_COLOURS

Field = NDArray[np.float64]

LEVELS = 64
"""Colours of a picture on a page: a field that looks like noise then takes 6 bits a pixel, not 8."""

_BAR = (
    '<p style="display:flex;flex-wrap:wrap;gap:.3rem .6rem;align-items:center;font-size:.85rem;margin:.7rem 0 0">'
    '<span>{}</span><img src="{}" alt="" width="160" height="12" '
    'style="height:.75rem;flex:1 1 6rem;min-width:4rem;max-width:16rem"><span>{}</span><span>{}</span></p>'
)


def evenly(count: int, most: int) -> list[int]:
    """At most ``most`` of the indices 0 to count - 1, evenly spaced, first and last among them."""
    return sorted({round(i) for i in np.linspace(0, count - 1, min(count, most))})


def block_means(field: Field, block: int) -> Field:
    """Means over squares of cells; squares cut off at the lower and right edge are means over the cells they have."""
    if block == 1:
        return field
    height, width = field.shape
    rows, columns = np.arange(0, height, block), np.arange(0, width, block)
    sums = np.add.reduceat(np.add.reduceat(field, rows, axis=0), columns, axis=1)
    tall, wide = np.diff(np.append(rows, height)), np.diff(np.append(columns, width))
    means: Field = sums / (tall[:, None] * wide)
    return means


def coarse(field: Field, most: int) -> tuple[Field, int]:
    """:func:`block_means` with at most ``most`` cells to a side, and how many old cells a side of a new one has."""
    block = max(1, -(-max(field.shape) // most))
    return block_means(field, block), block


def levels_of(place: Field) -> NDArray[np.uint8]:
    """Palette indices of places from 0 to 1 on a colour scale."""
    return np.round(place * (LEVELS - 1)).astype(np.uint8)


def colour_table(levels: int = LEVELS) -> NDArray[np.uint8]:
    """The colours of maps, darkest first, as (levels, 3) bytes."""
    rgb = np.asarray(colormaps[MAP_COLOURS](np.linspace(0, 1, levels)))[:, :3]
    return np.round(rgb * 255).astype(np.uint8)


def palette_uri(indices: NDArray[np.uint8], *further: str) -> str:
    """A picture of the map's colours, index 0 the darkest; from ``LEVELS`` on stand the ``further`` colours."""
    return image_uri(_palette_picture(indices, *further))


def film_uri(frames: Sequence[NDArray[np.uint8]], frame_ms: int, last_ms: int) -> str:
    """Such pictures one after the other as an APNG that plays for ever, the last one held longer."""
    first, *rest = map(_palette_picture, frames)
    durations = [frame_ms] * len(rest) + [last_ms]
    return image_uri(first, save_all=True, append_images=rest, duration=durations, loop=0)


def _palette_picture(indices: NDArray[np.uint8], *further: str) -> Image.Image:
    picture = Image.fromarray(np.ascontiguousarray(indices))
    colours = [round(255 * channel) for colour in further for channel in to_rgb(colour)]
    picture.putpalette([*colour_table().ravel().tolist(), *colours])
    return picture


def image_uri(picture: Image.Image, kind: str = "PNG", **options: Any) -> str:
    """The picture as a ``data:`` URI, ``PNG`` or ``JPEG``."""
    buffer = io.BytesIO()
    picture.save(buffer, format=kind, optimize=True, **({"quality": 80} if kind == "JPEG" else {}), **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def colour_bar(low: str, high: str, words: str) -> Markup:
    """The map's colours between the numbers at their ends, and what they stand for."""
    ramp = np.arange(LEVELS, dtype=np.uint8)[None, :].repeat(2, axis=0)
    return Markup(_BAR).format(low, palette_uri(ramp), high, words)
