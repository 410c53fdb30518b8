"""Image files: the one place that opens them, and which way up they are.

A camera that is held sideways stores its pixels sideways, and in EXIF an orientation by which viewers turn them.
Boxes and label maps are drawn on what a viewer shows, so readers of these ask for images as shown.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

from PIL import ExifTags, Image, ImageOps

from vheatbench.errors import UserError
from vheatbench.files import MOST_IMAGE_BYTES, check_regular
from vheatbench.text import first_line_of, one_line

THREADS = 8
"""That read many files: decoders run beside each other."""
Size = tuple[int, int]
"""Width and height in pixels."""
T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True)
class ImageHeader:
    """What is known of an image file without its pixels."""

    stored: Size
    orientation: int
    """Of EXIF: 1 upright, 2 to 4 mirrored or upside down, 5 to 8 turned by a quarter."""

    @property
    def shown(self) -> Size:
        """Size in a viewer, which turns the image as EXIF says."""
        return self.stored[::-1] if self.orientation >= 5 else self.stored


@dataclass(frozen=True)
class Turned:
    """The files of a data set whose EXIF orientation is not upright, by what their annotations were drawn on."""

    as_shown: frozenset[Path] = frozenset()
    as_stored: frozenset[Path] = frozenset()

    def __str__(self) -> str:
        parts = [(len(self.as_shown), "as viewers show them"), (len(self.as_stored), "as stored")]
        taken = " and ".join(f"{count} {how}" for count, how in parts if count)
        return f"images that EXIF turns: {taken}, as the sizes of their annotations have it" if taken else ""

    def key(self, root: Path) -> bytes:
        """For fingerprints of a data set in ``root``: empty where nothing is turned."""
        names = [sorted(os.path.relpath(path, root) for path in paths) for paths in (self.as_shown, self.as_stored)]
        return json.dumps(names).encode() if any(names) else b""


NONE_TURNED = Turned()


def opened(source: Path | IO[bytes], *, upright: bool) -> Image.Image:
    """An image with its pixels, in its own mode; may raise whatever the decoder of its format does.

    Args:
        source: a file, or the bytes of one.
        upright: turned as EXIF says; else as stored (TIFF files are always turned, by Pillow).
    """
    if isinstance(source, Path):
        check_regular(source, MOST_IMAGE_BYTES)
    with Image.open(source) as file:
        turned = upright and _orientation(file) != 1
        file.load()
        return ImageOps.exif_transpose(file) if turned else file


def read_image(path: Path, *, upright: bool) -> Image.Image:
    """As :func:`opened`. Raises UserError for a file that is no image."""
    with naming(path):
        return opened(path, upright=upright)


def read_header(path: Path) -> ImageHeader:
    """Size and orientation of an image. Raises UserError for a file that is no image."""
    with naming(path):
        check_regular(path, MOST_IMAGE_BYTES)
        with Image.open(path) as file:
            return ImageHeader(file.size, _orientation(file))


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turn whatever a decoder raises into UserError with the file's name."""
    try:
        yield
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UserError(f"{path}: too large: {one_line(str(error))}; make it smaller first") from None
    except UserError:
        raise
    except Exception as error:  # every format's decoder raises its own for damaged files
        reason = getattr(error, "strerror", None) or first_line_of(error)
        raise UserError(f"{path}: cannot be read as an image ({reason})") from None


def in_threads(function: Callable[[T], U], items: Iterable[T]) -> list[U]:
    """``function`` of every item, in order; the first that raises ends it."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(function, items))


def turned_by(headers: Mapping[Path, ImageHeader], annotated: Mapping[Path, Size]) -> Turned:
    """Which images are to be taken as shown and which as stored, decided by the size that annotations have.

    A size that fits both ways (turned by 180 degrees, mirrored, square) decides nothing: such an image goes with the
    others of its data set, and where none of them decides, it is taken as shown.

    Args:
        headers: of all images of a data set.
        annotated: size of what was annotated, by image.

    Raises:
        UserError: a size that fits neither way; or images of both kinds, and others that decide nothing.
    """
    shown, stored, open_ = set[Path](), set[Path](), set[Path]()
    for path, header in headers.items():
        size = annotated[path]
        if size not in (header.shown, header.stored):
            raise UserError(f"{path}: is {sizes_of(header)} pixels, its annotations are for {by(size)}")
        if header.orientation != 1:
            (open_ if header.shown == header.stored else shown if size == header.shown else stored).add(path)
    if open_ and shown and stored:
        raise UserError(
            f"{min(open_)}: EXIF turns it, and whether its annotations follow cannot be told: by their sizes those of "
            f"{min(shown).name} do, those of {min(stored).name} do not; store the pixels of turned images upright"
        )
    return Turned(frozenset(shown if stored else shown | open_), frozenset(stored | open_ if stored else ()))


def sizes_of(header: ImageHeader) -> str:
    """``64x96``, or how it is stored and shown where that differs."""
    if header.orientation == 1:
        return by(header.stored)
    return f"{by(header.stored)} as stored and {by(header.shown)} as its EXIF orientation {header.orientation} shows it"


def by(size: Size) -> str:
    """``96x64``."""
    return f"{size[0]}x{size[1]}"


def _orientation(file: Image.Image) -> int:
    if file.format == "TIFF":  # Pillow turns these itself
        return 1
    try:
        value = file.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged metadata are no reason to refuse an image: viewers show it as stored
        return 1
    return value if type(value) is int and 2 <= value <= 8 else 1
