"""Detection: Mask R-CNN by the schedules of the Swin and vHeat papers, its box and mask mAP by pycocotools."""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.transforms.v2.functional import pil_to_tensor

from vheatbench.run.distributed import Group
from vheatbench.studies.dense.answers import Answers, OnProgress, answer_all, silent
from vheatbench.studies.dense.coco import CocoFolder, DetectionImages
from vheatbench.studies.dense.fit import Schedule
from vheatbench.studies.dense.task import About, Task, about_of
from vheatbench.subjects.backbone import drop_path_argument
from vheatbench.subjects.dense import mask_rcnn

EPOCHS = {"1x": (12, (8, 11)), "3x": (36, (27, 33))}
"""Passes over the data, and those after which the rate is a tenth."""
SIDES = {"1x": (800,), "3x": tuple(range(480, 801, 32))}
"""Shorter side of a training image, drawn for every image."""
BATCH, LR, WEIGHT_DECAY, WARMUP = 16, 1e-4, 0.05, 1000
MASK_THRESHOLD = 0.5
STATISTICS = ("map", "map_50", "map_75", "map_small", "map_medium", "map_large")
"""The first six of pycocotools' summary: over overlaps 0.5 to 0.95, at 0.5 and 0.75, and by area."""


def detection_schedule(
    name: str, images: int, batch: int = BATCH, lr: float = LR, steps: int | None = None, seed: int = 0
) -> Schedule:
    """``1x`` or ``3x`` over so many images: AdamW, a tenth of the rate at two milestones, 1000 steps of warm-up.

    ``steps`` cuts it short or draws it out, milestones and warm-up with it.
    """
    epochs, milestones = EPOCHS[name]
    whole = max(1, round(epochs * images / batch))
    total = steps or whole
    return Schedule(
        name=name,
        steps=total,
        batch=batch,
        lr=lr,
        weight_decay=WEIGHT_DECAY,
        warmup=min(WARMUP, total // 10),
        milestones=tuple(round(total * milestone / epochs) for milestone in milestones),
        seed=seed,
        published=whole,
    )


def detection_losses(
    model: nn.Module, batch: tuple[list[Tensor], list[dict[str, Tensor]]], device: torch.device
) -> dict[str, Tensor]:
    """The five losses of Mask R-CNN: proposals' two, classes, boxes, masks."""
    images, targets = batch
    return model(
        [image.to(device, non_blocking=True) for image in images],
        [{key: value.to(device, non_blocking=True) for key, value in target.items()} for target in targets],
    )


def collate(items: list[tuple[Tensor, dict[str, Tensor]]]) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Images of different sizes stay a list."""
    images, targets = zip(*items, strict=True)
    return list(images), list(targets)


def build_detector(about: About) -> nn.Module:
    """The model that :func:`about_detector` describes, random weights. Raises UserError."""
    options = {"min_size": tuple(about["sides"]), "max_size": about["max_side"]}
    backbone = drop_path_argument(about.get("drop_path"))
    return mask_rcnn(about["backbone"], about["classes"], backbone=backbone, anchors=tuple(about["anchors"]), **options)


def about_detector(
    backbone: str,
    folder: CocoFolder,
    schedule: str,
    sides: tuple[int, ...],
    max_side: int,
    anchors: tuple[int, ...],
    drop_path: float | None = None,
) -> About:
    """See :func:`vheatbench.studies.dense.task.about_of`; ``sides``: shorter sides of training images."""
    own = {"sides": list(sides), "max_side": max_side, "anchors": list(anchors)}
    categories = list(folder.categories)
    return about_of(
        "maskrcnn", backbone, schedule, drop_path, classes=len(categories) + 1, categories=categories, **own
    )


DETECTION = Task(
    model="maskrcnn",
    command="detect",
    measures="Box and mask mAP.",
    build=build_detector,
    body=lambda model: model.backbone.maps.body,
    samples=lambda folder, about: DetectionImages(folder, parts=about["schedule"] == "3x"),
    collate=collate,
    losses=detection_losses,
    image_size=lambda about: (max(about["sides"]), about["max_side"]),
)


@dataclass(frozen=True)
class DetectionResult:
    """What was found in all images."""

    scores: dict[str, float]
    """``box_map``, ``mask_map`` and the others of :data:`STATISTICS`, 0 to 1; those without an object are left out."""
    images: int
    detections: int
    model_s: float
    """Seconds of the model alone, of the slowest process at each chunk of images."""

    @property
    def how(self) -> str:
        """How the scores were taken."""
        return f"pycocotools on {self.images} images, {self.detections} detections"


def evaluate_detector(
    model: nn.Module,
    folder: CocoFolder,
    group: Group,
    on_progress: OnProgress = silent,
    kept: Answers | None = None,
) -> DetectionResult:
    """Run a detector on every image once, divided among the processes, and score it as COCO does.

    Args:
        model: Mask R-CNN in evaluation mode, on the group's device.
        folder: from :func:`vheatbench.studies.dense.coco.read_coco`.
        on_progress: how many images are done, see :data:`vheatbench.studies.dense.answers.OnProgress`.
        kept: where answers are kept, to go on with if it is stopped.

    Raises:
        UserError: an image that cannot be read or does not fit its annotations.
    """

    def answer(numbers: Sequence[int]) -> tuple[list[dict[str, Any]], float]:
        found, seconds = [], 0.0
        for id_ in (folder.ids[number] for number in numbers):
            image = (pil_to_tensor(folder.image(id_)).float() / 255).to(group.device)
            started = time.perf_counter()
            with torch.inference_mode():
                output = model([image])[0]
                output = {key: value.cpu() for key, value in output.items()}
            seconds += time.perf_counter() - started
            found += detections_of(output, id_, folder)
        return found, seconds

    parts, seconds = answer_all(len(folder.ids), group, answer, kept, on_progress)
    detections = [one for found in parts for one in found]
    # the order of processes must not decide between equal scores
    detections.sort(key=lambda one: (one["image_id"], -one["score"], one["category_id"], one["bbox"]))
    scores = {**score(folder, detections, "bbox"), **score(folder, detections, "segm")}
    return DetectionResult(scores, len(folder.ids), len(detections), seconds)


def detections_of(output: dict[str, Tensor], image_id: int, folder: CocoFolder) -> list[dict[str, Any]]:
    """A model's output for one image as COCO's results: boxes as corner and size, masks run-length encoded."""
    from pycocotools import mask as coding

    boxes = output["boxes"].clone()
    boxes[:, 2:] -= boxes[:, :2]
    found = []
    for box, label, confidence, mask in zip(
        boxes.tolist(), output["labels"].tolist(), output["scores"].tolist(), output["masks"], strict=True
    ):
        coded = coding.encode(np.asfortranarray((mask[0] > MASK_THRESHOLD).numpy().astype(np.uint8)))
        found.append(
            {
                "image_id": image_id,
                "category_id": folder.categories[label - 1],
                "bbox": box,
                "score": confidence,
                "segmentation": {"size": coded["size"], "counts": coded["counts"].decode("ascii")},
            }
        )
    return found


def score(folder: CocoFolder, detections: list[dict[str, Any]], kind: str) -> dict[str, float]:
    """COCO's statistics of ``bbox`` or ``segm``, 0 to 1; those that no object belongs to are left out."""
    from pycocotools.cocoeval import COCOeval

    prefix = "box" if kind == "bbox" else "mask"
    if not detections:  # pycocotools takes no empty list
        return {f"{prefix}_{name}": 0.0 for name in STATISTICS[:3]} if folder.coco.anns else {}
    # with a box given, pycocotools would take the box's area for a mask's
    left_out = "bbox" if kind == "segm" else "segmentation"
    results = [{key: value for key, value in one.items() if key != left_out} for one in detections]
    with contextlib.redirect_stdout(io.StringIO()):
        judge = COCOeval(folder.coco, folder.coco.loadRes(results), kind)
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    values = zip(STATISTICS, judge.stats, strict=False)
    # -1 stands for "no such object"
    return {f"{prefix}_{name}": float(value) for name, value in values if value >= 0}
