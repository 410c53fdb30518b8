"""Training Mask R-CNN by the schedules of the Swin and vHeat papers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN

from vheatbench.run.distributed import Group
from vheatbench.studies.dense.detection.coco import CocoFolder, DetectionImages
from vheatbench.studies.dense.files import write_trained
from vheatbench.studies.dense.fit import Schedule, Step, fit
from vheatbench.subjects.backbone import Beginning, drop_path_argument, published_drop_path, timm_name
from vheatbench.subjects.detector import mask_rcnn

EPOCHS = {"1x": (12, (8, 11)), "3x": (36, (27, 33))}
"""Passes over the data, and those after which the rate is a tenth."""
SIDES = {"1x": (800,), "3x": tuple(range(480, 801, 32))}
"""Shorter side of a training image, drawn for every image."""
BATCH, LR, WEIGHT_DECAY, WARMUP = 16, 1e-4, 0.05, 1000


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


def build_detector(about: dict[str, Any]) -> MaskRCNN:
    """The model that :func:`about_of` describes, random weights. Raises UserError."""
    options = {"min_size": tuple(about["sides"]), "max_size": about["max_side"]}
    backbone = drop_path_argument(about.get("drop_path"))
    return mask_rcnn(about["backbone"], about["classes"], backbone=backbone, anchors=tuple(about["anchors"]), **options)


def about_of(
    backbone: str,
    folder: CocoFolder,
    schedule: str,
    sides: tuple[int, ...],
    max_side: int,
    anchors: tuple[int, ...],
    drop_path: float | None = None,
) -> dict[str, Any]:
    """What a trained file says of its model. ``drop_path``: None for that of the published training."""
    full_name = timm_name(backbone)
    return {
        "task": "maskrcnn",
        "model": backbone,
        "backbone": full_name,
        "drop_path": published_drop_path(full_name, schedule) if drop_path is None else drop_path,
        "classes": len(folder.categories) + 1,
        "categories": list(folder.categories),
        "schedule": schedule,
        "sides": list(sides),
        "max_side": max_side,
        "anchors": list(anchors),
    }


def train_detector(
    folder: CocoFolder,
    about: dict[str, Any],
    schedule: Schedule,
    group: Group,
    out: Path,
    name: str,
    *,
    beginning: Beginning | None = None,
    resume: bool = False,
    workers: int = 0,
    autocast: torch.dtype | None = None,
    save_every: int = 1000,
    told: Callable[[Step], None] = lambda step: None,
) -> Path:
    """Train and write ``out/<name>.safetensors``; returns its path.

    Args:
        about: from :func:`about_of`.
        beginning: classification weights for the backbone; None for random ones.

    Raises:
        UserError, DivergedError, StoreError: see :func:`vheatbench.studies.dense.fit.fit`.
    """

    def built() -> tuple[MaskRCNN, DetectionImages, str | None]:
        torch.manual_seed(schedule.seed)
        model = build_detector(about)
        if beginning is not None and not resume:
            beginning.load_into(model.backbone.maps.body, about["backbone"])
        words = None if beginning is None else str(beginning)
        return model.to(group.device), DetectionImages(folder, parts=schedule.name == "3x"), words

    model, data, initial = group.together(built)
    training = fit(
        model, data, len(data), schedule, detection_losses, collate, group, out,
        about={**about, "data": folder.fingerprint}, resume=resume, workers=workers, autocast=autocast,
        save_every=save_every, told=told, initial=initial,
    )  # fmt: skip
    path = out / f"{name}.safetensors"
    group.on_main(lambda: write_trained(path, model, {**about, "training": training}))
    return path
