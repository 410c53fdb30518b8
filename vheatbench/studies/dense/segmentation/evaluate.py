"""Mean intersection over union of a segmenter, at one scale or several with mirror images, whole or in windows."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vheatbench.run.distributed import Group
from vheatbench.studies.dense.answers import Answers, Told, answer_all, silent
from vheatbench.studies.dense.segmentation.ade import AdeFolder, normed
from vheatbench.studies.dense.segmentation.labels import IGNORED

SIDE, LONGEST = 512, 2048
"""An image is resized so that its shorter side is at most the first and its longer at most the second."""
SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
"""Of the multi-scale test."""


@dataclass(frozen=True)
class SegmentationResult:
    """Counts of pixels, and what follows from them."""

    confusion: Tensor
    """Pixels by true class (rows) and answer, shape (classes, classes)."""
    images: int
    model_s: float
    """Seconds of the model alone, of the slowest process at each chunk of images."""

    @property
    def ious(self) -> list[float | None]:
        """Intersection over union by class; None for one that is neither there nor answered."""
        both = self.confusion.diagonal().double()
        union = self.confusion.sum(0) + self.confusion.sum(1) - self.confusion.diagonal()
        return [float(a / b) if b else None for a, b in zip(both.tolist(), union.double().tolist(), strict=True)]

    @property
    def miou(self) -> float:
        """Mean over the classes that are there or answered."""
        known = [value for value in self.ious if value is not None]
        return sum(known) / len(known)

    @property
    def accuracy(self) -> float:
        """Share of pixels that are right."""
        return float(self.confusion.diagonal().sum() / self.confusion.sum())


def evaluate_segmenter(
    model: nn.Module,
    folder: AdeFolder,
    group: Group,
    side: int = SIDE,
    scales: Sequence[float] = (1.0,),
    mirror: bool = False,
    told: Told = silent,
    window: int | None = None,
    kept: Answers | None = None,
) -> SegmentationResult:
    """Answer every image once, divided among the processes; compared at the size of its label map.

    Args:
        model: in evaluation mode, on the group's device.
        side: of the resized image's shorter side; the longer is at most four times that.
        scales: the mean of the probabilities over these multiples of that size is taken.
        mirror: and over the mirrored image at each.
        told: how many images are done, see :data:`vheatbench.studies.dense.answers.Told`.
        window: see :func:`predict`.
        kept: where answers are kept, to go on with if it is stopped.

    Raises:
        UserError: an image or label map that cannot be used.
    """

    def answer(numbers: Sequence[int]) -> tuple[list[list[int]], float]:
        confusion = torch.zeros(folder.classes, folder.classes, dtype=torch.int64)
        seconds = 0.0
        for index in numbers:
            image, label = folder.pair(index)
            image = image.to(group.device)
            started = time.perf_counter()
            with torch.inference_mode():
                predicted = predict(model, image, side, scales, mirror, window).cpu()
            seconds += time.perf_counter() - started
            confusion += confusion_of(predicted, label, folder.classes)
        pairs = confusion.flatten().nonzero()[:, 0]
        return [pairs.tolist(), confusion.flatten()[pairs].tolist()], seconds

    parts, seconds = answer_all(len(folder.images), group, answer, kept, told)
    total = torch.zeros(folder.classes**2, dtype=torch.int64)
    for pairs, counts in parts:
        total[torch.tensor(pairs, dtype=torch.int64)] += torch.tensor(counts, dtype=torch.int64)
    return SegmentationResult(total.reshape(folder.classes, folder.classes), len(folder.images), seconds)


def predict(
    model: nn.Module,
    image: Tensor,
    side: int = SIDE,
    scales: Sequence[float] = (1.0,),
    mirror: bool = False,
    window: int | None = None,
) -> Tensor:
    """Class of every pixel, shape (H, W), of an image (3, H, W) with colours 0 to 1.

    Args:
        window: side of the windows in which the resized image is answered, see :func:`windows`; logits are averaged
            where they overlap. None: the image is answered whole.
    """
    height, width = image.shape[-2:]
    base = min(side / min(height, width), LONGEST / SIDE * side / max(height, width))
    total: Tensor | None = None
    for scale in scales:
        size = [max(32, round(height * base * scale)), max(32, round(width * base * scale))]
        resized = normed(F.interpolate(image[None], size, mode="bilinear", align_corners=False, antialias=True))
        for flipped in (False, True) if mirror else (False,):
            logits = _answer(model, resized.flip(-1) if flipped else resized, window)
            logits = logits.flip(-1) if flipped else logits
            logits = F.interpolate(logits, (height, width), mode="bilinear", align_corners=False)
            probabilities = logits.softmax(1)
            total = probabilities if total is None else total + probabilities
    assert total is not None
    return total[0].argmax(0)


def windows(height: int, width: int, side: int) -> Iterator[tuple[int, int]]:
    """Top and left of the windows that cover an image, two thirds of their side apart, the last ones at its edges."""
    stride = 2 * side // 3

    def starts(length: int) -> list[int]:
        return [min(start, max(length - side, 0)) for start in range(0, max(length - side, 0) + stride, stride)]

    return ((top, left) for top in starts(height) for left in starts(width))


def _answer(model: nn.Module, images: Tensor, window: int | None) -> Tensor:
    """Logits of images (1, 3, H, W), shape (1, classes, H, W)."""
    if window is None:
        return model(images)
    height, width = images.shape[-2:]
    total: Tensor | None = None
    times = images.new_zeros(1, 1, height, width)
    for top, left in windows(height, width, window):
        area = (..., slice(top, top + window), slice(left, left + window))
        logits = model(images[area])
        if total is None:
            total = images.new_zeros(1, logits.shape[1], height, width)
        total[area] += logits
        times[area] += 1
    assert total is not None
    return total / times


def confusion_of(answer: Tensor, label: Tensor, classes: int) -> Tensor:
    """Pixels by true class and answer, shape (classes, classes); ignored ones left out."""
    known = label != IGNORED
    pairs = label[known] * classes + answer[known]
    return torch.bincount(pairs, minlength=classes**2).reshape(classes, classes)
