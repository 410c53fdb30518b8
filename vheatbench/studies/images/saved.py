"""Folders saved by Hugging Face ``datasets``, or of Parquet and Arrow files: rows with an image and a class."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from vheatbench.errors import UserError
from vheatbench.files import MOST_IMAGE_BYTES, check_regular, read_bytes
from vheatbench.image_file import opened
from vheatbench.studies.images.labelled import LabelledImages, fingerprint_of
from vheatbench.text import one_line

EVALUATED = ("validation", "val", "test")
"""Names of splits that are taken where none is asked for and one of them is there."""


def open_saved(root: Path, split: str | None = None) -> LabelledImages:
    """The rows of a saved data set.

    Args:
        root: what ``Dataset.save_to_disk`` or ``DatasetDict.save_to_disk`` wrote, or a folder of ``.parquet`` or
            ``.arrow`` files of one split.
        split: of a ``DatasetDict``; default the only one, or the only one of validation, val and test.

    Raises:
        UserError: the library is not installed, the folder cannot be read, no such split, or no column of images
            and no column of class labels.
    """
    try:
        import datasets
    except ImportError:
        raise UserError(
            f"--data {root}: a saved data set is read by Hugging Face's library: pip install datasets, "
            "or give class folders of image files"
        ) from None
    try:
        table = _load(datasets, root)
    except Exception as error:  # the library raises its own for whatever is wrong with the folder
        raise UserError(
            f"--data {root}: not a readable data set ({type(error).__name__}: {one_line(str(error))})"
        ) from None
    if hasattr(table, "keys"):
        table = _chosen(table, root, split)
    elif split is not None:
        raise UserError(f"--data {root}: one split only, leave --split out")
    image, label = _columns(datasets, table, root)
    classes = tuple(str(name) for name in table.features[label].names)
    targets = tuple(int(value) for value in table[label])
    if not targets:
        raise UserError(f"--data {root}: the data set has no rows")
    if min(targets) < 0 or max(targets) >= len(classes):
        raise UserError(f"--data {root}: rows without a class in column {label!r}: a test split without labels?")
    rows = table.select_columns([image]).cast_column(image, datasets.Image(decode=False))
    files = sorted(path for path in root.rglob("*") if path.is_file())
    entries = [(path.relative_to(root).as_posix(), path.stat().st_size) for path in files]
    return LabelledImages(
        root,
        classes,
        tuple(f"row {i}" for i in range(len(targets))),
        targets,
        fingerprint_of([*entries, ("split", split), ("classes", classes)]),
        _reader(rows, image),
    )


def _load(datasets: Any, root: Path) -> Any:
    if (root / "dataset_info.json").is_file() or (root / "dataset_dict.json").is_file():
        return datasets.load_from_disk(os.fspath(root))
    for path in (*root.glob("*.parquet"), *root.glob("*.arrow")):
        check_regular(path)
    kind = "parquet" if any(root.glob("*.parquet")) else "arrow"
    if kind == "parquet":
        return datasets.Dataset.from_parquet([os.fspath(path) for path in sorted(root.glob("*.parquet"))])
    parts = [datasets.Dataset.from_file(os.fspath(path)) for path in sorted(root.glob("*.arrow"))]
    return datasets.concatenate_datasets(parts)


def _chosen(tables: Any, root: Path, split: str | None) -> Any:
    names = list(tables.keys())
    wanted = [split] if split is not None else names if len(names) == 1 else [n for n in EVALUATED if n in names]
    if len(wanted) != 1 or wanted[0] not in names:
        asked = f"no split {split!r}" if split is not None else "which split is meant"
        raise UserError(f"--data {root}: {asked}: give --split, one of {', '.join(names)}")
    return tables[wanted[0]]


def _columns(datasets: Any, table: Any, root: Path) -> tuple[str, str]:
    """Names of the columns of images and of classes."""
    images = [name for name, kind in table.features.items() if isinstance(kind, datasets.Image)]
    labels = [name for name, kind in table.features.items() if isinstance(kind, datasets.ClassLabel)]
    if len(images) != 1 or len(labels) != 1:
        found = ", ".join(f"{name} ({type(kind).__name__})" for name, kind in table.features.items())
        raise UserError(
            f"--data {root}: wanted one column of type Image and one of type ClassLabel, there are: {found}"
        )
    return images[0], labels[0]


def _reader(rows: Any, column: str) -> Callable[[int], Image.Image]:
    # decoded here, not by the library: an image is read as from a file, and a broken one raises here
    def read(index: int) -> Image.Image:
        stored = rows[index][column]
        content = stored["bytes"] if stored["bytes"] is not None else read_bytes(stored["path"], MOST_IMAGE_BYTES)
        return opened(io.BytesIO(content), upright=False)

    return read
