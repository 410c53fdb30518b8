"""Which class a number in a label map stands for, and which numbers occur: what can be learned and scored."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vheatbench.errors import UserError

IGNORED = -1
"""Label of pixels that count for nothing."""
DEFAULT_IGNORE_INDEX = 255
"""mmsegmentation's, where it is not one of the classes."""
NAMED = 8
"""Labels that an error names."""
LINE = 120
"""Characters of a line of the list of labels."""


@dataclass(frozen=True)
class Numbering:
    """How label maps number the classes, by mmsegmentation's two settings."""

    classes: int
    reduce_zero_label: bool = True
    """0 counts for nothing and 1 stands for the first class; else 0 does."""
    ignore_index: int | None = DEFAULT_IGNORE_INDEX
    """Counts for nothing; a number after the reduction, except that 255 stays 255 in it."""

    @classmethod
    def of(cls, classes: int, reduce_zero_label: bool = True, ignore_index: int | None = None) -> Numbering:
        """``ignore_index`` None: 255, or no number where that is one of more than 255 classes."""
        if ignore_index is None and classes <= DEFAULT_IGNORE_INDEX:
            ignore_index = DEFAULT_IGNORE_INDEX
        return cls(classes, reduce_zero_label, ignore_index)

    @classmethod
    def trained(cls, about: Mapping[str, Any]) -> Numbering:
        """That of a training; one that does not say had the defaults."""
        default = cls.of(about["classes"])
        return cls(
            about["classes"],
            about.get("reduce_zero_label", default.reduce_zero_label),
            about.get("ignore_index", default.ignore_index),
        )

    @property
    def settings(self) -> dict[str, Any]:
        """What a training and a record say of it beside the classes."""
        return {"reduce_zero_label": self.reduce_zero_label, "ignore_index": self.ignore_index}

    @property
    def first(self) -> int:
        """Number of the first class in the files."""
        return int(self.reduce_zero_label)

    def classes_of(self, numbers: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """Classes from 0 of numbers from 0, of any shape; :data:`IGNORED`, and numbers beyond stay beyond."""
        table = np.arange(numbers.max(initial=0) + 1, dtype=np.int64) - self.first
        if self.ignore_index is not None:
            table[table == self.ignore_index] = IGNORED
        if self.ignore_index == DEFAULT_IGNORE_INDEX:
            table[DEFAULT_IGNORE_INDEX : DEFAULT_IGNORE_INDEX + 1] = IGNORED
        return table[numbers]


@dataclass(frozen=True)
class LabelCounts:
    """How often every number occurs in the label maps of a split."""

    numbering: Numbering
    pixels: dict[int, int]
    """By number in the files, ascending."""
    maps: int
    where: str
    """Folder of the label maps."""

    @property
    def absent(self) -> list[int]:
        """Numbers of the classes that never occur."""
        own = self.numbering
        numbers = np.arange(own.first, own.first + own.classes)
        can_be = own.classes_of(numbers) != IGNORED
        return [number for number in numbers[can_be].tolist() if number not in self.pixels]

    @property
    def warnings(self) -> list[str]:
        """What limits a model that learns from these label maps, and a score on them."""
        absent, classes = self.absent, self.numbering.classes
        return [f"{len(absent)} of {classes} classes never occur in the labels: {ranges(absent)}"] if absent else []

    def __str__(self) -> str:
        return textwrap.fill(f"labels of {self.maps} maps: {self._shares()}", LINE, subsequent_indent="  ")

    def check(self) -> None:
        """Raises UserError where a number is no class, or where fewer than two classes can be told apart."""
        own, classes = self.numbering, self._classes
        beyond = [number for number, class_ in classes.items() if class_ >= own.classes]
        all_ = ranges(range(own.first, own.first + own.classes))
        if beyond:
            raise UserError(
                f"{self.where}: {'label' if len(beyond) == 1 else 'labels'} {ranges(beyond)} beyond the "
                f"{own.classes} classes, which are {all_}: {self._shares(NAMED)}; "
                "give --classes of the training, or renumber the maps"
                + (f"; --ignore-index {beyond[0] - own.first} leaves it out" if len(beyond) == 1 else "")
            )
        known = {class_ for class_ in classes.values() if class_ != IGNORED}
        if len(known) < 2:
            found = "no pixel of any label map has a class" if not known else "one class alone occurs"
            hints = ["give --no-reduce-zero-label where 0 is a class"] if own.reduce_zero_label and 0 in classes else []
            hints.append(f"classes are numbered {all_}: renumber maps that are not")
            raise UserError(
                f"{self.where}: {found}, so there is nothing to tell apart and no score: {self._shares(NAMED)}; "
                + "; ".join(hints)
            )

    @property
    def _classes(self) -> dict[int, int]:
        """Class of every number that occurs."""
        numbers = np.array([*self.pixels], dtype=np.int64)
        return dict(zip(self.pixels, self.numbering.classes_of(numbers).tolist(), strict=True))

    def _shares(self, most: int | None = None) -> str:
        total = max(1, sum(self.pixels.values()))
        parts = [
            f"{number}{' (ignored)' if class_ == IGNORED else ''} {_percent(self.pixels[number] / total)}"
            for number, class_ in self._classes.items()
        ]
        left = len(parts[most:]) if most else 0
        return ", ".join(parts[:most]) + (f" and {left} more" if left else "")


def counted(values: npt.NDArray[Any]) -> dict[int, int]:
    """Pixels by number."""
    counts = np.bincount(values.ravel())
    return {int(number): int(counts[number]) for number in counts.nonzero()[0]}


def summed(parts: Iterable[dict[int, int]]) -> dict[int, int]:
    """Pixels by number, ascending, of several label maps."""
    total: dict[int, int] = {}
    for part in parts:
        for number, count in part.items():
            total[number] = total.get(number, 0) + count
    return dict(sorted(total.items()))


def ranges(numbers: Iterable[int]) -> str:
    """``1, 4 to 150``."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(low) if low == high else f"{low} to {high}" for low, high in runs)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= 0.001 else "< 0.1 %"
