"""A folder in ADE20K's format: ``images/<split>/*.jpg`` and label maps ``annotations/<split>/*.png``."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2 import functional

from vheatbench.errors import UserError
from vheatbench.image_file import (
    NONE_TURNED,
    ImageHeader,
    Size,
    Turned,
    in_threads,
    read_header,
    read_image,
    turned_by,
)
from vheatbench.studies.dense.fit import SampleKey
from vheatbench.studies.dense.labels import IGNORED, LabelCounts, Numbering, counted, summed
from vheatbench.text import some

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NAMED = 3
"""Files that an error names."""
SHARE, TRIES = 0.75, 10
"""Another crop is drawn while one class has this share of it or more, so many times."""


@dataclass(frozen=True)
class AdeFolder:
    """One split of a data set: every image has a label map."""

    images: tuple[Path, ...]
    labels: tuple[Path, ...]
    numbering: Numbering
    fingerprint: str
    """12 digits of the SHA-256 of the files' names and sizes, and of the names of images that EXIF turns."""
    counts: LabelCounts
    turned: Turned = NONE_TURNED
    """Images that EXIF turns."""

    @property
    def classes(self) -> int:
        """Of the model, whether they occur or not."""
        return self.numbering.classes

    @property
    def image_folder(self) -> Path:
        """Where the images are."""
        return self.images[0].parent

    @property
    def summary(self) -> str:
        """Which labels occur and how often."""
        return str(self.counts)

    @property
    def warnings(self) -> list[str]:
        """Which classes never occur."""
        return self.counts.warnings

    @property
    def facts(self) -> dict[str, Any]:
        """What a record says of the label maps: their numbering, and pixels by number."""
        pixels = {str(number): count for number, count in self.counts.pixels.items()}
        turned = {"turned": str(self.turned)} if str(self.turned) else {}
        return {**self.numbering.settings, "labels": pixels, **turned}

    def image(self, index: int) -> Tensor:
        """Colours 0 to 1, shape (3, H, W). Raises UserError for a file that is no image."""
        path = self.images[index]
        image = read_image(path, upright=path not in self.turned.as_stored)
        return functional.pil_to_tensor(image.convert("RGB")).float() / 255

    def label(self, index: int) -> Tensor:
        """Classes from 0, :data:`IGNORED` where there is none, shape (H, W).

        Raises:
            UserError: a file that is no label map, or a number that is no class.
        """
        path = self.labels[index]
        classes = self.numbering.classes_of(read_label_map(path))
        if classes.max(initial=IGNORED) >= self.classes:
            raise UserError(
                f"{path}: has labels beyond the {self.classes} classes: it was changed since it was counted"
            )
        return torch.from_numpy(classes)

    def pair(self, index: int) -> tuple[Tensor, Tensor]:
        """Image and labels. Raises UserError where their sizes differ."""
        image, label = self.image(index), self.label(index)
        if image.shape[-2:] != label.shape:
            height, width = image.shape[-2:]
            raise UserError(
                f"{self.labels[index]}: is {label.shape[1]}x{label.shape[0]} pixels, its image "
                f"{self.images[index].name} is {width}x{height}"
            )
        return image, label


def read_label_map(path: Path) -> npt.NDArray[np.int64]:
    """Numbers as the file has them, shape (H, W), turned as EXIF says. Raises UserError for what is no label map."""
    values = np.asarray(read_image(path, upright=True))
    if values.ndim != 2:
        raise UserError(f"{path}: a label map has one channel of class numbers, this one has {values.shape[2]}")
    if values.dtype.kind == "f" or values.min(initial=0) < 0:
        raise UserError(f"{path}: a label map has whole numbers from 0, this one has others")
    return values.astype(np.int64)


def read_ade(root: Path, split: str, numbering: Numbering) -> AdeFolder:
    """Find the images of a split and their label maps, and count the labels of all of them.

    Images that EXIF turns are taken as their label maps have them, see :func:`vheatbench.image_file.turned_by`.

    Raises:
        UserError: no such folders, no images, images without label map, label maps without image, files that are no
            images, sizes that differ, numbers that are no class, or fewer than two classes that occur.
    """
    folder, labels = root / "images" / split, root / "annotations" / split
    for path in (folder, labels):
        if not path.is_dir():
            raise UserError(f"{path}: no such folder; ADE20K's format is images/{split} and annotations/{split}")
    images = sorted(path for path in folder.iterdir() if path.suffix.lower() in EXTENSIONS)
    if not images:
        raise UserError(f"{folder}: no images ({', '.join(EXTENSIONS)})")
    maps = [labels / f"{path.stem}.png" for path in images]
    missing = [path.name for path in maps if not path.is_file()]
    if missing:
        raise UserError(f"{len(missing)} of {len(images)} images have no label map in {labels}: {some(missing)}")
    known = {path.stem for path in images}
    alone = sorted(path.name for path in labels.glob("*.png") if path.stem not in known)
    if alone:
        raise UserError(f"{len(alone)} label maps in {labels} have no image in {folder}: {some(alone)}")
    listing = "\n".join(f"{path.name} {path.stat().st_size}" for path in (*images, *maps))
    found = in_threads(_surveyed, zip(images, maps, strict=True))
    headers = {path: header for path, (header, _, _) in zip(images, found, strict=True)}
    turned = turned_by(headers, {path: size for path, (_, size, _) in zip(images, found, strict=True)})
    counts = LabelCounts(numbering, summed(part for _, _, part in found), len(maps), str(labels))
    counts.check()
    digest = hashlib.sha256(listing.encode() + turned.key(folder)).hexdigest()[:12]
    return AdeFolder(tuple(images), tuple(maps), numbering, digest, counts, turned)


def _surveyed(pair: tuple[Path, Path]) -> tuple[ImageHeader, Size, dict[int, int]]:
    """Header of an image; size of its label map and pixels by number there."""
    image, label = pair
    values = read_label_map(label)
    return read_header(image), (values.shape[1], values.shape[0]), counted(values)


def normed(images: Tensor) -> Tensor:
    """Colours 0 to 1 to what backbones take, shape (..., 3, H, W)."""
    return functional.normalize(images, list(MEAN), list(STD))


class SegmentationCrops(Dataset[tuple[Tensor, Tensor]]):
    """Square crops for training: image and labels resized by 0.5 to 2, cropped, mirrored, colours changed.

    As in mmsegmentation's configuration for ADE20K, which the published models were trained by.

    Args:
        folder: from :func:`read_ade`.
        crop: side of the crop. An image is resized to it by its shorter side, and to at most four times it by its
            longer, before it is resized by chance.
    """

    def __init__(self, folder: AdeFolder, crop: int) -> None:
        self.folder, self.crop = folder, crop

    def __len__(self) -> int:
        return len(self.folder.images)

    def __getitem__(self, key: SampleKey) -> tuple[Tensor, Tensor]:
        """Normed image (3, crop, crop) and labels (crop, crop)."""
        index, seed = key
        chance = random.Random(seed)
        image, label = self.folder.pair(index)
        height, width = image.shape[-2:]
        scale = min(self.crop / min(height, width), 4 * self.crop / max(height, width)) * chance.uniform(0.5, 2.0)
        size = [max(1, round(height * scale)), max(1, round(width * scale))]
        image = functional.resize(image, size, antialias=True)
        label = functional.resize(label[None], size, interpolation=functional.InterpolationMode.NEAREST)[0]
        image, label = self._cropped(image, label, chance)
        if chance.random() < 0.5:
            image, label = image.flip(-1), label.flip(-1)
        low = [max(0, self.crop - side) for side in label.shape]
        image = functional.pad(normed(_recoloured(image, chance)), [0, 0, low[1], low[0]])
        return image, functional.pad(label[None], [0, 0, low[1], low[0]], fill=IGNORED)[0]

    def _cropped(self, image: Tensor, label: Tensor, chance: random.Random) -> tuple[Tensor, Tensor]:
        """A crop at random, smaller where the image is; drawn again while it is of one class nearly alone."""
        for _ in range(TRIES):
            high, wide = (min(self.crop, side) for side in label.shape)
            top, left = chance.randint(0, label.shape[0] - high), chance.randint(0, label.shape[1] - wide)
            area = (slice(top, top + high), slice(left, left + wide))
            counts = torch.bincount(label[area][label[area] != IGNORED])
            if counts.numel() and counts.max() < SHARE * counts.sum():
                break
        return image[:, area[0], area[1]], label[area]


def _recoloured(image: Tensor, chance: random.Random) -> Tensor:
    """Brightness, contrast, saturation and hue, each changed half of the time; contrast first or last."""
    contrast = chance.uniform(0.5, 1.5) if chance.random() < 0.5 else 1.0
    early = chance.random() < 0.5
    if chance.random() < 0.5:
        image = (image + chance.uniform(-32, 32) / 255).clamp(0, 1)
    if early:
        image = (image * contrast).clamp(0, 1)
    if chance.random() < 0.5:
        image = functional.adjust_saturation(image, chance.uniform(0.5, 1.5))
    if chance.random() < 0.5:
        image = functional.adjust_hue(image, chance.uniform(-0.1, 0.1))
    return image if early else (image * contrast).clamp(0, 1)
