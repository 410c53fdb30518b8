"""scikit-learn's handwritten digits: real images that come with a package, 1797 of 8 x 8 pixels in ten classes."""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from vheatbench.downstream.data import LabelledImages
from vheatbench.errors import UserError

TEST_IMAGES = 360
"""Of the 1797: a fifth."""


def digits_parts() -> tuple[LabelledImages, LabelledImages]:
    """The training part (1437 images) and the test part (360), every class in both in equal share.

    Which image is in which part is drawn once with a fixed seed, so that numbers can be compared; writers are not
    told apart in the data, so both parts have digits of the same hands.

    Raises:
        UserError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError:
        raise UserError("the digits come with scikit-learn, which is not installed: pip install scikit-learn") from None
    found = load_digits()
    pixels = np.round(found.images * (255 / 16)).astype(np.uint8)  # the file has 0 to 16
    train, test = train_test_split(np.arange(len(pixels)), test_size=TEST_IMAGES, stratify=found.target, random_state=0)
    return _part("train", pixels, found.target, train), _part("test", pixels, found.target, test)


def _part(
    name: str, pixels: npt.NDArray[np.uint8], targets: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]
) -> LabelledImages:
    content = pixels[rows].tobytes() + targets[rows].astype("<i8").tobytes()
    return LabelledImages(
        root=Path("scikit-learn", "digits", name),
        classes=tuple("0123456789"),
        names=tuple(f"row {row}" for row in rows),
        targets=tuple(int(target) for target in targets[rows]),
        fingerprint=hashlib.sha256(content).hexdigest(),
        read=partial(_image, pixels[rows]),
    )


def _image(pixels: npt.NDArray[np.uint8], index: int) -> Image.Image:
    return Image.fromarray(pixels[index])
