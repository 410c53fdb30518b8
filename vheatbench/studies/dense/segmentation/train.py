"""Training UperNet by the 160k schedule of the Swin and vHeat papers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vheatbench.run.distributed import Group
from vheatbench.studies.dense.files import write_trained
from vheatbench.studies.dense.fit import Schedule, Step, fit
from vheatbench.studies.dense.segmentation.ade import AdeFolder, SegmentationCrops
from vheatbench.studies.dense.segmentation.labels import IGNORED, Numbering
from vheatbench.subjects.backbone import Beginning, drop_path_argument, published_drop_path, timm_name
from vheatbench.subjects.segmenter import UperNet

SCHEDULES = {"160k": 160_000, "80k": 80_000}
BATCH, LR, WEIGHT_DECAY, WARMUP = 16, 6e-5, 0.01, 1500
CROP = 512
AUXILIARY_WEIGHT = 0.4


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


def about_of(
    backbone: str, folder: AdeFolder, schedule: str, crop: int, channels: int, drop_path: float | None = None
) -> dict[str, Any]:
    """What a trained file says of its model. ``drop_path``: None for that of the published training."""
    full_name = timm_name(backbone)
    return {
        "task": "upernet",
        "model": backbone,
        "backbone": full_name,
        "drop_path": published_drop_path(full_name, schedule) if drop_path is None else drop_path,
        "classes": folder.classes,
        **folder.numbering.settings,
        "schedule": schedule,
        "crop": crop,
        "channels": channels,
    }


def build_segmenter(about: dict[str, Any]) -> UperNet:
    """The model that :func:`about_of` describes, random weights. Raises UserError."""
    backbone = drop_path_argument(about.get("drop_path"))
    return UperNet(about["backbone"], about["classes"], channels=about["channels"], backbone=backbone)


def train_segmenter(
    folder: AdeFolder,
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

    Batch norms see the images of all GPUs, as in the papers; on CPUs those of their own process.

    Args:
        about: from :func:`about_of`.
        beginning: classification weights for the backbone; None for random ones.

    Raises:
        UserError, DivergedError, StoreError: see :func:`vheatbench.studies.dense.fit.fit`.
    """

    def built() -> tuple[nn.Module, str | None]:
        torch.manual_seed(schedule.seed)
        model = build_segmenter(about)
        if beginning is not None and not resume:
            beginning.load_into(model.net.encoder.model, about["backbone"])
        return model, None if beginning is None else str(beginning)

    model, initial = group.together(built)
    if group.size > 1 and group.device.type == "cuda":
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    model.to(group.device)
    data = SegmentationCrops(folder, about["crop"])
    training = fit(
        model, data, len(data), schedule, segmentation_losses, collate, group, out,
        about={**about, "data": folder.fingerprint}, resume=resume, workers=workers, autocast=autocast,
        save_every=save_every, told=told, initial=initial, earlier=Numbering.of(folder.classes).settings,
    )  # fmt: skip
    training["labels"] = {str(number): pixels for number, pixels in folder.counts.pixels.items()}
    path = out / f"{name}.safetensors"
    group.on_main(lambda: write_trained(path, model, {**about, "training": training}))
    return path
