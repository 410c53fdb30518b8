"""Heat diffusion as a film: frames with a palette, written as APNG and as GIF."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vheatbench.files import write_file
from vheatbench.present.images import block_means, colour_table
from vheatbench.studies.heat.labels import Clock, k_words, place_words, weights_words
from vheatbench.studies.heat.results import Diffusion
from vheatbench.studies.heat.temperature import TemperatureScale, field_at

FRAMES = 32
FRAME_MS, LAST_MS = 120, 1500
MOST_BYTES = 400_000
"""Of one file: what a page or a README carries without harm."""

PANEL = 224
MARGIN, HEAD, FOOT = 12, 46, 50
GREYS = 16
"""Entries of the palette that are kept for text, from black to white."""


def frame_moments(clock: Clock, count: int = FRAMES) -> list[float]:
    """0, then log-spaced moments over those that were asked for."""
    low, high = clock.span
    return [0.0, *np.geomspace(low, high, count - 1).tolist()]


def draw_frames(clock: Clock, moments: Sequence[float], levels: int = 240, block: int = 1) -> list[Image.Image]:
    """Frames in palette mode, the fields side by side on one colour scale.

    Args:
        clock: of fields that spread from one source on one grid; they differ in k.
        moments: of the frames.
        levels: colours of the map, at most 240.
        block: side of the squares of cells that are averaged, which makes a fine grid's film smaller.
    """
    diffusions = clock.diffusions
    scale = TemperatureScale.of(diffusions)
    greys = np.repeat(np.linspace(0, 255, GREYS).round().astype(np.uint8), 3)
    palette = np.concatenate([colour_table(levels).ravel(), greys]).tobytes()
    height, width = diffusions[0].coefficients.shape
    zoom = max(1, round(PANEL / max(height, width)))
    lefts = [MARGIN + i * (width * zoom + MARGIN) for i in range(len(diffusions))]
    frames = []
    for moment in moments:
        paper = _lettering(clock, moment, (height * zoom, width * zoom), lefts, block)
        canvas = levels + np.round(np.asarray(paper) * ((GREYS - 1) / 255)).astype(np.uint8)
        for one, left in zip(diffusions, lefts, strict=True):
            field = field_at(one.coefficients, one.k, moment / clock.rate(one))
            place = scale.position(block_means(field, block))
            panel = np.kron(np.round(place * (levels - 1)).astype(np.uint8), np.ones((zoom * block,) * 2, np.uint8))
            canvas[HEAD : HEAD + height * zoom, left : left + width * zoom] = panel[: height * zoom, : width * zoom]
        frame = Image.fromarray(canvas)
        frame.putpalette(palette)
        frames.append(frame)
    return frames


def save_animation(diffusions: Sequence[Diffusion], stem: Path) -> list[Path]:
    """Write ``stem.png`` (APNG) and ``stem.gif``: 32 frames, looped, the last one held.

    A film of a fine grid loses colours, then cells (averaged), until its file is under 400 kB.

    Args:
        diffusions: that spread from one source on one grid; they differ in k.
        stem: path without suffix.

    Raises:
        UserError, StoreError: a file cannot be written.
    """
    clock = Clock(diffusions)
    moments = frame_moments(clock)
    paths = []
    for suffix in (".png", ".gif"):
        for levels, block in ((240, 1), (64, 1), (32, 1), (64, 2), (32, 2), (32, 4)):
            data = _encoded(draw_frames(clock, moments, levels, block), suffix)
            if len(data) < MOST_BYTES:
                break
        path = stem.with_name(stem.name + suffix)
        write_file(path, data)
        paths.append(path)
    return paths


def _encoded(frames: list[Image.Image], suffix: str) -> bytes:
    buffer = io.BytesIO()
    options: dict[str, Any] = {"format": "PNG"}
    if suffix == ".gif":
        # one palette for all frames: an optimised one would be written with every frame
        options = {"format": "GIF", "optimize": False, "disposal": 1}
    durations = [FRAME_MS] * (len(frames) - 1) + [LAST_MS]
    frames[0].save(buffer, save_all=True, append_images=frames[1:], duration=durations, loop=0, **options)
    return buffer.getvalue()


def _lettering(clock: Clock, moment: float, panel: tuple[int, int], lefts: Sequence[int], block: int) -> Image.Image:
    """Everything but the fields, in greys."""
    diffusions = clock.diffusions
    height, width = panel
    whole = lefts[-1] + width + MARGIN
    paper = Image.new("L", (whole, HEAD + height + FOOT), 255)
    pen = ImageDraw.Draw(paper)
    averaged = f"; mean of every {block}×{block} cells" if block > 1 else ""
    for i, line in enumerate([place_words(diffusions), weights_words(diffusions[0].weights) + averaged]):
        _write(pen, whole // 2, 5 + 19 * i, line, whole - 2 * MARGIN)
    for one, left in zip(diffusions, lefts, strict=True):
        _write(pen, left + width // 2, HEAD + height + 4, k_words(one), width)
    _write(pen, whole // 2, HEAD + height + 26, clock.words(moment), whole - 2 * MARGIN, 14)
    return paper


def _write(pen: ImageDraw.ImageDraw, middle: int, top: int, text: str, room: int, size: int = 12) -> None:
    """One centred line, smaller and then cut where it has no room."""
    while size > 8 and pen.textlength(text, _font(size)) > room:
        size -= 1
    while len(text) > 1 and pen.textlength(text, _font(size)) > room:
        text = text[:-2] + "…"
    pen.text((middle, top), text, fill=0, font=_font(size), anchor="ma")


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    # matplotlib brings it along, so that films and figures have the same letters
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), size)
