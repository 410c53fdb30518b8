"""Labelled images on disk: class folders as torchvision's ImageFolder reads them, or a saved Hugging Face data set."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from vheatbench.errors import UserError
from vheatbench.image_file import opened
from vheatbench.text import did_you_mean, first_line_of

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""Of image files, as torchvision's ImageFolder has them."""


@dataclass(frozen=True)
class LabelledImages:
    """Images with a class each, in an order that depends on nothing but their names."""

    root: Path
    classes: tuple[str, ...]
    """Names of the classes; a target is a position in it."""
    names: tuple[str, ...]
    """Of the images: paths below ``root``, or ``row 17``."""
    targets: tuple[int, ...]
    fingerprint: str
    """64 hexadecimal digits, of names, sizes in bytes and classes: equal for equal copies of a folder."""
    read: Callable[[int], Image.Image] = field(repr=False, compare=False)
    """Opens an image by its position and may raise whatever the file's format does."""

    def __len__(self) -> int:
        return len(self.names)

    @property
    def empty_classes(self) -> list[str]:
        """Classes without an image."""
        seen = set(self.targets)
        return [name for i, name in enumerate(self.classes) if i not in seen]

    def limited(self, count: int | None) -> LabelledImages:
        """``count`` of the images, evenly spread over their order, so that every class keeps its share."""
        if count is None or count >= len(self):
            return self
        kept = [i * len(self) // count for i in range(count)]
        return replace(
            self,
            names=tuple(self.names[i] for i in kept),
            targets=tuple(self.targets[i] for i in kept),
            fingerprint=hashlib.sha256(f"{self.fingerprint} {kept}".encode()).hexdigest(),
            read=lambda index: self.read(kept[index]),
        )


def open_labelled(root: str | Path, split: str | None = None) -> LabelledImages:
    """The labelled images in a folder, or the test part of a set that comes inside a package.

    Args:
        root: ``digits``, ``mnist_5k``, ``textures`` or ``photographs``, where no folder has that name; class folders
            with images (at any depth) in them, their names sorted as ``torchvision``'s ImageFolder does; or a folder
            that Hugging Face ``datasets`` saved, or one of Parquet or Arrow files.
        split: of a saved data set that has several.

    Raises:
        UserError: no such folder, no images, or a data set that cannot be read.
    """
    from vheatbench.studies.images.packaged import PACKAGED

    if str(root) in PACKAGED and not Path(root).exists():
        if split is not None:
            raise UserError(f"--split {split}: {root} is tested on its test part")
        return PACKAGED[str(root)]()[1]
    root = Path(root)
    if not root.is_dir():
        hint = did_you_mean(str(root), PACKAGED)
        raise UserError(f"--data {root}: no such folder{f' ({hint})' if hint else ''}")
    try:
        if _is_saved(root):
            from vheatbench.studies.images.saved import open_saved

            return open_saved(root, split)
        if split is not None:
            raise UserError(f"--split {split}: only for a saved data set with splits; give the folder of the split")
        return _open_folders(root)
    except OSError as error:
        raise UserError(f"--data {root}: cannot be read ({error.strerror}: {error.filename})") from None


def fingerprint_of(entries: Sequence[tuple[object, ...]]) -> str:
    """SHA-256 of a list of entries, each line by line."""
    digest = hashlib.sha256()
    for entry in entries:
        digest.update(repr(entry).encode(errors="surrogateescape") + b"\n")
    return digest.hexdigest()


class ImageTensors(Dataset[tuple[int, "Tensor | str"]]):
    """Images as tensors, to be batched by :func:`collate`; an image that cannot be read is not an exception.

    Read as timm and torchvision do for the published accuracies: EXIF orientation is not applied, transparency is
    dropped, 16 bits are clipped.
    """

    def __init__(self, images: LabelledImages, transform: Callable[[Image.Image], Tensor], mode: str = "RGB") -> None:
        """``transform`` turns an image of Pillow's ``mode`` (RGB, L) into a tensor of shape (C, H, W)."""
        self._images, self._transform, self._mode = images, transform, mode

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[int, Tensor | str]:
        """Position and tensor, or position and the reason why there is none."""
        try:
            image = self._images.read(index)
            # before the transform: its errors are not the image's
            image = image.convert(self._mode)
        except Exception as error:  # every format's decoder raises its own for damaged files
            reason = getattr(error, "strerror", None) or first_line_of(error)
            return index, str(reason).replace(str(self._images.root) + os.sep, "")
        return index, self._transform(image)


@dataclass(frozen=True)
class Batch:
    """Images that could be read, and those that could not."""

    indices: list[int]
    images: Tensor | None
    """(B, C, H, W), in the order of ``indices``; None where none could be read."""
    broken: dict[int, str]
    """Position to reason."""

    def pin_memory(self) -> Batch:
        """In memory that a GPU can copy from while it computes; torch's DataLoader calls it."""
        return self if self.images is None else replace(self, images=self.images.pin_memory())


def collate(items: Sequence[tuple[int, Any]]) -> Batch:
    """A batch of what :class:`ImageTensors` gives."""
    good = [(index, image) for index, image in items if isinstance(image, Tensor)]
    images = torch.stack([image for _, image in good]) if good else None
    broken = {index: reason for index, reason in items if isinstance(reason, str)}
    return Batch([index for index, _ in good], images, broken)


def _is_saved(root: Path) -> bool:
    names = {path.name for path in root.iterdir()}
    return bool({"dataset_info.json", "dataset_dict.json"} & names) or bool(_tables(root))


def _tables(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.suffix in (".parquet", ".arrow"))


def _open_folders(root: Path) -> LabelledImages:
    folders = sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith("."))
    paths: list[Path] = []
    targets: list[int] = []
    for target, folder in enumerate(folders):
        for parent, _, files in sorted(os.walk(root / folder, onerror=_refused, followlinks=True)):
            found = [Path(parent, file) for file in sorted(files) if file.lower().endswith(EXTENSIONS)]
            paths += found
            targets += [target] * len(found)
    if not paths:
        loose = any(path.suffix.lower() in EXTENSIONS for path in root.iterdir())
        why = "its images are in no class folders" if loose else "no images in class folders (CLASS/IMAGE.jpg)"
        raise UserError(f"--data {root}: {why}; image files end in {' '.join(EXTENSIONS)}")
    names = tuple(path.relative_to(root).as_posix() for path in paths)
    entries = [(name, path.stat().st_size) for name, path in zip(names, paths, strict=True)]
    fingerprint = fingerprint_of([*entries, ("classes", folders)])
    return LabelledImages(
        root, tuple(folders), names, tuple(targets), fingerprint, lambda index: opened(paths[index], upright=False)
    )


def _refused(error: OSError) -> None:
    """A folder that may not be read must not make the data silently smaller."""
    raise error
