"""The images of a recipe: a part to learn from and a part to measure on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vheatbench.errors import UserError
from vheatbench.studies.images.labelled import LabelledImages, open_labelled
from vheatbench.studies.training.recipe import Recipe
from vheatbench.text import some

TEST_FOLDERS = ("val", "validation", "test")


@dataclass(frozen=True)
class Parts:
    """Images to learn from and images to measure on, of the same classes."""

    train: LabelledImages
    test: LabelledImages

    @property
    def fingerprint(self) -> str:
        """12 hexadecimal digits of the training images' and of the test images' fingerprint."""
        return f"{self.train.fingerprint[:12]}-{self.test.fingerprint[:12]}"


def open_parts(recipe: Recipe, data: str | None) -> Parts:
    """The data of a recipe.

    Args:
        recipe: says which kind, and how many classes.
        data: the folder with class folders in ``train`` and in ``val`` (or ``validation``, ``test``).

    Raises:
        UserError: no such folder, no images, parts of other classes, not the recipe's number of classes.
    """
    if recipe.data != "folder":
        from vheatbench.studies.images.packaged import PACKAGED

        if data is not None:
            raise UserError(f"--data {data}: the recipe {recipe.name!r} has its own images (data: {recipe.data})")
        parts = Parts(*PACKAGED[recipe.data]())
    else:
        parts = _folders(recipe, data)
    train, test = parts.train, parts.test
    if train.classes != test.classes:
        only = sorted(set(train.classes) ^ set(test.classes))
        raise UserError(f"{train.root} and {test.root} have not the same classes: {some(only)} in one of them only")
    if train.empty_classes:
        raise UserError(f"{train.root}: no images of {some(train.empty_classes)}")
    if recipe.num_classes not in (None, len(train.classes)):
        raise UserError(
            f"{train.root} has {len(train.classes)} classes, the recipe {recipe.num_classes}: give the right folder or "
            f"--override num_classes={len(train.classes)}"
        )
    return parts


def _folders(recipe: Recipe, data: str | None) -> Parts:
    if data is None:
        raise UserError(
            f"the recipe {recipe.name!r} needs images: --data DIR with class folders in DIR/train and DIR/val"
        )
    root = Path(data)
    if not root.is_dir():
        raise UserError(f"--data {root}: no such folder")
    test = next((name for name in TEST_FOLDERS if (root / name).is_dir()), None)
    if test is None or not (root / "train").is_dir():
        there = some(sorted(path.name for path in root.iterdir() if path.is_dir())) or "no folders"
        raise UserError(f"--data {root}: needs the folders train and val with class folders in each; it has {there}")
    return Parts(open_labelled(root / "train"), open_labelled(root / test))
