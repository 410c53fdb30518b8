"""Images for analyses: photographs shipped here, a folder of the user's, or noise; cut to size, not normalised."""

from __future__ import annotations

import hashlib
import math
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from vheatbench.errors import UserError
from vheatbench.image_file import by, naming, opened, read_header

PHOTOGRAPHS = Path(__file__).parent / "photographs"
SINGLE = "views of a single photograph: no interval"
SMALLEST = 8
"""Pixels a side under which a file holds no picture."""
LEAST_AREA = 0.35
"""Of the photograph, in a further view of it."""
RESAMPLING = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "nearest": Image.Resampling.NEAREST,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Cut:
    """How a photograph becomes an image of a model's size.

    ``crop``: shorter side to ``size / crop_pct``, then the middle of it, as timm evaluates. ``squash``: the whole
    photograph whatever its aspect, as RepLKNet's script does.
    """

    size: tuple[int, int]
    """Height and width in pixels."""
    interpolation: str = "bicubic"
    crop_pct: float = 0.9
    how: Literal["crop", "squash"] = "crop"

    def __post_init__(self) -> None:
        if self.interpolation not in RESAMPLING:
            raise UserError(f"unknown interpolation {self.interpolation!r}: {', '.join(RESAMPLING)}")

    @property
    def words(self) -> str:
        if self.how == "squash":
            return f"resized to {self.size[0]}x{self.size[1]} whole ({self.interpolation})"
        return f"middle {self.crop_pct:.4g} of the shorter side ({self.interpolation})"


@dataclass(frozen=True)
class ImageSet:
    """A fixed sequence of images, equal for equal ``source``, ``count`` and ``seed``, of any size.

    Where there are more images than sources, image ``i`` shows source ``i % sources``: its first view is the plain
    cut, every further one a random resized crop, mirrored or not.
    """

    words: str
    """Which images, for people."""
    names: list[str]
    """Of the sources, in the order they are used."""
    seed: int
    count: int
    """Images in the sequence."""
    views: bool
    """Whether a source has further views; of noise every image is drawn anew."""
    _load: Callable[[int], Image.Image] = field(repr=False, compare=False)
    _digest: str = ""
    """Of the pixels of every source."""

    @property
    def sources(self) -> int:
        """Independent photographs, or images of noise."""
        return len(self.names) if self.views else self.count

    @property
    def single(self) -> bool:
        """Whether all images are views of one photograph, from which no error can be told."""
        return self.views and self.sources == 1 < self.count

    def image(self, index: int, cut: Cut) -> Pixels:
        """Image ``index``, shape (H, W, 3), values 0 to 255."""
        if not self.views:
            return _noise(self.names[0], cut.size, (self.seed, index))
        source, view = index % self.sources, index // self.sources
        photograph = self._load(source)
        box = plain_box(photograph.size, cut) if view == 0 else _random_box(photograph.size, cut, (self.seed, index))
        height, width = cut.size
        image = photograph.resize((width, height), RESAMPLING[cut.interpolation], box=box)
        if view and np.random.default_rng((self.seed, index, 1)).random() < 0.5:
            image = ImageOps.mirror(image)
        return np.asarray(image)

    def batch(self, indices: Sequence[int], cut: Cut) -> Pixels:
        """Several images, shape (B, H, W, 3)."""
        return np.stack([self.image(index, cut) for index in indices])

    def digest(self, cut: Cut) -> str:
        """64 hexadecimal digits: of the pixels of every source and of all that makes images of them.

        Equal digests mean equal images, whatever the model and however many of them it took.
        """
        recipe = (self._digest, self.sources, "" if self.views else self.names[0], self.seed, LEAST_AREA, cut)
        return hashlib.sha256(repr(recipe).encode()).hexdigest()


def open_images(source: str | None, count: int, seed: int = 0) -> ImageSet:
    """The images that ``--images`` names.

    Args:
        source: None for the shipped photographs; ``noise`` (white), ``noise:1/f``; else a folder, searched with
            its subfolders for files of formats that Pillow knows, or one file.
        count: images wanted.
        seed: of noise, of further views, and of which files of a folder are taken first.

    Raises:
        UserError: no such folder, nothing in it, or a file that is no picture; it is named.
    """
    if source in ("noise", "noise:white", "noise:1/f"):
        kind = "1/f" if source == "noise:1/f" else "white"
        return ImageSet(f"{kind} noise", [kind], seed, count, False, _no_file)
    if source is not None and source.startswith("noise:"):
        raise UserError(f"--images {source}: noise is 'noise' (white) or 'noise:1/f'")
    if source is None:
        paths = sorted(PHOTOGRAPHS.glob("*.jpg"))
        words = f"{len(paths)} photographs shipped with vheatbench"
    else:
        paths, found = _files(Path(source), count, seed)
        name = Path(source).name or source
        words = f"1 image, {name}" if Path(source).is_file() else f"{len(paths)} of {found} images in {name}"
    # every file is read once here: a broken one is to be found before anything is measured
    digest = hashlib.sha256()
    for path in paths:
        photograph = read_photograph(path)
        digest.update(repr(photograph.size).encode() + photograph.tobytes())
    load = lru_cache(maxsize=16)(lambda index: read_photograph(paths[index]))
    return ImageSet(words, [path.name for path in paths], seed, count, True, load, digest.hexdigest())


def given_images(pictures: Sequence[Image.Image], count: int, seed: int = 0) -> ImageSet:
    """Pictures that are in memory, as :func:`open_images` gives those in a folder.

    Raises:
        UserError: there is none, or one is smaller than 8 pixels a side.
    """
    found = [_rgb(picture) for picture in pictures]
    if not found or any(min(picture.size) < SMALLEST for picture in found):
        raise UserError(f"images: give at least one picture, each of {SMALLEST} pixels a side or more")
    digest = hashlib.sha256()
    for picture in found:
        digest.update(repr(picture.size).encode() + picture.tobytes())
    words = f"{len(found)} picture{'s' * (len(found) != 1)} given in Python"
    names = [f"picture {place}" for place in range(len(found))]
    return ImageSet(words, names, seed, count, True, found.__getitem__, digest.hexdigest())


def read_photograph(path: Path) -> Image.Image:
    """An image file of any kind as RGB of 8 bits, upright.

    Transparency is laid onto white, 16 bits are scaled to 8, grey becomes three equal colours; of an animation the
    first frame is taken.

    Raises:
        UserError: it cannot be read, is larger than Pillow's limit, or smaller than 8 pixels a side.
    """
    with naming(path), warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        # refused by its header, before anything is decoded
        size = read_header(path).stored
        if min(size) < SMALLEST:
            raise UserError(f"{path}: {by(size)} pixels are no picture (at least {SMALLEST} a side)")
        return _rgb(opened(path, upright=True))


def plain_box(size: tuple[int, int], cut: Cut) -> tuple[float, float, float, float]:
    """Left, top, right, bottom in a photograph of ``size`` (width, height) of the plain cut."""
    width, height = size
    if cut.how == "squash":
        return 0.0, 0.0, float(width), float(height)
    # photograph pixels per image pixel: the image over crop_pct just fits into the photograph
    scale = min(width / cut.size[1], height / cut.size[0]) * cut.crop_pct
    return _box(width, height, cut.size[1] * scale, cut.size[0] * scale, 0.5, 0.5)


def _random_box(size: tuple[int, int], cut: Cut, seed: tuple[int, int]) -> tuple[float, float, float, float]:
    """A random part of a photograph: between LEAST_AREA and all of it, aspect within 3:4 and 4:3 of the image's."""
    rng = np.random.default_rng((*seed, 0))
    width, height = size
    area = rng.uniform(LEAST_AREA, 1) * width * height
    aspect = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3))) * cut.size[1] / cut.size[0]
    part_width, part_height = math.sqrt(area * aspect), math.sqrt(area / aspect)
    fit = min(1.0, width / part_width, height / part_height)
    across, down = rng.random(2)
    return _box(width, height, part_width * fit, part_height * fit, across, down)


def _box(
    width: int, height: int, part_width: float, part_height: float, across: float, down: float
) -> tuple[float, float, float, float]:
    """A part of a photograph at the given share of the room there is; rounding leaves it inside."""
    left, top = max(width - part_width, 0.0) * across, max(height - part_height, 0.0) * down
    return left, top, min(left + part_width, float(width)), min(top + part_height, float(height))


def _files(source: Path, count: int, seed: int) -> tuple[list[Path], int]:
    """At most ``count`` image files below ``source`` in an order drawn by ``seed``, and how many there are."""
    if source.is_file():
        return [source], 1
    if source.exists() and not source.is_dir():
        raise UserError(f"--images {source}: neither a folder nor a regular file")
    if not source.is_dir():
        raise UserError(f"--images {source}: no such folder (or 'noise', 'noise:1/f')")
    known = Image.registered_extensions()
    found = []
    for folder, subfolders, files in os.walk(source, onerror=_cannot_list):
        subfolders.sort()
        found += [
            Path(folder, name) for name in files if not name.startswith(".") and Path(name).suffix.lower() in known
        ]
    if not found:
        raise UserError(f"--images {source}: no image in this folder (of a format that Pillow reads)")
    found.sort()
    # the first files of a folder by classes would all show one class
    order = np.random.default_rng((seed, len(found))).permutation(len(found))
    return [found[i] for i in order[:count]], len(found)


def _cannot_list(error: OSError) -> None:
    raise UserError(f"--images {error.filename}: cannot be listed ({error.strerror})")


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return _eight_bits(image).convert("RGB")
    if image.mode == "P" or "transparency" in image.info or image.mode in ("LA", "PA", "La", "RGBa"):
        image = image.convert("RGBA")
    if image.mode == "RGBA":
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 or 32 bits or of real numbers, as grey of 8 bits; real numbers up to 1 count as shares."""
    values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("values that are not finite")
    real = image.mode == "F"
    top = 1.0 if real and values.max() <= 1 else 255.0 if values.max() <= 255 and real else 65535.0
    return Image.fromarray(np.clip(values / top * 255 + 0.5, 0, 255).astype(np.uint8))


def _noise(kind: str, size: tuple[int, int], seed: tuple[int, int]) -> Pixels:
    """Independent colours with mean 127.5 and standard deviation 51; ``1/f`` in amplitude, as photographs have."""
    rng = np.random.default_rng((*seed, *size))
    values = rng.standard_normal((3, *size))
    if kind == "1/f":
        rows, columns = np.fft.fftfreq(size[0])[:, None], np.fft.rfftfreq(size[1])[None, :]
        frequency = np.hypot(rows, columns)
        frequency[0, 0] = np.inf  # no mean: it would be the largest component by far
        values = np.fft.irfft2(np.fft.rfft2(values) / frequency, s=size)
        values /= values.std(axis=(1, 2), keepdims=True)
    return np.clip(127.5 + 51 * values.transpose(1, 2, 0), 0, 255).astype(np.uint8)


def _no_file(index: int) -> Image.Image:
    raise ValueError(f"noise has no file {index}")
