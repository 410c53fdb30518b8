"""Segmentation: UperNet by the schedules of the Swin and vHeat papers, its mean intersection over union."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vheatbench.run.distributed import Group
from vheatbench.studies.dense.ade import AdeFolder, SegmentationCrops, normed
from vheatbench.studies.dense.answers import Answers, OnProgress, answer_all, silent
from vheatbench.studies.dense.fit import Schedule
from vheatbench.studies.dense.labels import IGNORED, Numbering
from vheatbench.studies.dense.task import About, Task, about_of
from vheatbench.subjects.backbone import drop_path_argument
from vheatbench.subjects.dense import UperNet

SCHEDULES = {"160k": 160_000, "80k": 80_000}
BATCH, LR, WEIGHT_DECAY, WARMUP = 16, 6e-5, 0.01, 1500
CROP = 512
AUXILIARY_WEIGHT = 0.4
SIDE, LONGEST = 512, 2048
"""An image is resized so that its shorter side is at most the first and its longer at most the second."""
SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
"""Of the multi-scale test."""


def segmentation_schedule(
    name: str, batch: int = BATCH, lr: float = LR, steps: int | None = None, seed: int = 0
) -> Schedule:
    """``160k`` or ``80k`` steps: AdamW, 1500 steps of warm-up, then a linear fall to 0.

    ``steps`` cuts it short or draws it out, the warm-up with it.
    """
    total = steps or SCHEDULES[name]
    warmup = min(WARMUP, total // 10)
    return Schedule(name, total, batch, lr, WEIGHT_DECAY, warmup, seed=seed, published=SCHEDULES[name])


def segmentation_losses(model: nn.Module, batch: tuple[Tensor, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Cross entropy of the decoder and, at 0.4 of its weight, of the auxiliary head; 0 where all is ignored."""
    images, labels = (part.to(device, non_blocking=True) for part in batch)
    logits, auxiliary = model(images)
    auxiliary = F.interpolate(auxiliary, labels.shape[-2:], mode="bilinear", align_corners=False)
    known = (labels != IGNORED).sum().clamp(min=1)
    return {
        name: weight * F.cross_entropy(part, labels, ignore_index=IGNORED, reduction="sum") / known
        for name, part, weight in (("decoder", logits, 1.0), ("auxiliary", auxiliary, AUXILIARY_WEIGHT))
    }


def collate(items: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Crops of one size: images (B, 3, crop, crop) and labels (B, crop, crop)."""
    images, labels = zip(*items, strict=True)
    return torch.stack(images), torch.stack(labels)


def build_segmenter(about: About) -> nn.Module:
    """The model that :func:`about_segmenter` describes, random weights. Raises UserError."""
    backbone = drop_path_argument(about.get("drop_path"))
    return UperNet(about["backbone"], about["classes"], channels=about["channels"], backbone=backbone)


def about_segmenter(
    backbone: str, folder: AdeFolder, schedule: str, crop: int, channels: int, drop_path: float | None = None
) -> About:
    """See :func:`vheatbench.studies.dense.task.about_of`."""
    own = {**folder.numbering.settings, "crop": crop, "channels": channels}
    return about_of("upernet", backbone, schedule, drop_path, classes=folder.classes, **own)


SEGMENTATION = Task(
    model="upernet",
    command="segment",
    measures="Mean intersection over union.",
    build=build_segmenter,
    body=lambda model: model.net.encoder.model,
    samples=lambda folder, about: SegmentationCrops(folder, about["crop"]),
    collate=collate,
    losses=segmentation_losses,
    image_size=lambda about: (about["crop"], about["crop"] * LONGEST // SIDE),
    earlier=lambda about: Numbering.of(about["classes"]).settings,
    synced_norms=True,
)


@dataclass(frozen=True)
class SegmentationResult:
    """Counts of pixels, and what follows from them."""

    confusion: Tensor
    """Pixels by true class (rows) and answer, shape (classes, classes)."""
    images: int
    model_s: float
    """Seconds of the model alone, of the slowest process at each chunk of images."""
    multi_scale: bool = False
    window: int | None = None

    @property
    def scores(self) -> dict[str, float]:
        """Shares by metric."""
        return {"miou_multi_scale" if self.multi_scale else "miou": self.miou, "pixel_accuracy": self.accuracy}

    @property
    def how(self) -> str:
        """How the scores were taken."""
        present = sum(value is not None for value in self.ious)
        scales = "scales 0.5 to 1.75 and mirror images" if self.multi_scale else "one scale"
        window = self.window
        seen = f"in windows of {window} pixels every {2 * window // 3}" if window else "whole images"
        return f"mean over {present} classes that are there or answered, of {self.images} images, {scales}, {seen}"

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
    on_progress: OnProgress = silent,
    window: int | None = None,
    kept: Answers | None = None,
) -> SegmentationResult:
    """Answer every image once, divided among the processes; compared at the size of its label map.

    Args:
        model: in evaluation mode, on the group's device.
        side: of the resized image's shorter side; the longer is at most four times that.
        scales: the mean of the probabilities over these multiples of that size is taken.
        mirror: and over the mirrored image at each.
        on_progress: how many images are done, see :data:`vheatbench.studies.dense.answers.OnProgress`.
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

    parts, seconds = answer_all(len(folder.images), group, answer, kept, on_progress)
    total = torch.zeros(folder.classes**2, dtype=torch.int64)
    for pairs, counts in parts:
        total[torch.tensor(pairs, dtype=torch.int64)] += torch.tensor(counts, dtype=torch.int64)
    total = total.reshape(folder.classes, folder.classes)
    return SegmentationResult(total, len(folder.images), seconds, mirror, window)


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
