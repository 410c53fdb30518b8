"""Detection and segmentation as two records of what differs between them, and the one training that both take."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from vheatbench.run.distributed import Group
from vheatbench.studies.dense.ade import AdeFolder
from vheatbench.studies.dense.coco import CocoFolder
from vheatbench.studies.dense.files import write_trained
from vheatbench.studies.dense.fit import Schedule, fit
from vheatbench.subjects.backbone import Beginning, published_drop_path, timm_name

About = dict[str, Any]
"""What a trained file says of its model: see :func:`about_of`."""
DataFolder = CocoFolder | AdeFolder


@dataclass(frozen=True)
class Task:
    """What training and testing need to know of detection or segmentation."""

    model: str
    """What stands before the backbone in a subject's name, and in trained files: ``maskrcnn``."""
    command: str
    """``detect``; its runs are called ``detect-eval``."""
    measures: str
    """What a test measures, as a sentence."""
    build: Callable[[About], nn.Module]
    """The model with random weights."""
    body: Callable[[Any], nn.Module]
    """The timm backbone in it."""
    samples: Callable[[Any, About], Dataset[Any]]
    """Training samples of a folder, by :data:`vheatbench.studies.dense.fit.SampleKey`."""
    collate: Callable[[list[Any]], Any]
    losses: Callable[[nn.Module, Any, torch.device], dict[str, Tensor]]
    """Model, batch and device to named losses."""
    image_size: Callable[[About], tuple[int, int]]
    """Shorter side that test images are resized to, and the most that the longer may have."""
    earlier: Callable[[About], Mapping[str, Any]] = lambda about: {}
    """What of ``about`` checkpoints mean that do not say it."""
    synced_norms: bool = False
    """Whether batch norms see the images of all GPUs."""


def about_of(model: str, backbone: str, schedule: str, drop_path: float | None, **own: Any) -> About:
    """What a trained file says of its model.

    Args:
        model: :attr:`Task.model`.
        backbone: as it was typed.
        schedule: ``1x``, ``160k``, ...
        drop_path: stochastic depth; None for that of the published training.
        own: what else the model is built with and learns by.

    Raises:
        UserError: a backbone without the maps of a pyramid.
    """
    full_name = timm_name(backbone)
    rate = published_drop_path(full_name, schedule) if drop_path is None else drop_path
    return {
        "task": model, "model": backbone, "backbone": full_name, "drop_path": rate, "schedule": schedule, **own
    }  # fmt: skip


def train(
    task: Task,
    folder: DataFolder,
    about: About,
    schedule: Schedule,
    group: Group,
    out: Path,
    *,
    beginning: Beginning | None = None,
    resume: bool = False,
    **options: Any,
) -> Path:
    """Train and write ``out/<backbone>.safetensors``; returns its path.

    Args:
        about: from :func:`about_of`.
        beginning: classification weights for the backbone; None for random ones.
        resume: go on from the checkpoint in ``out``.
        options: of :func:`vheatbench.studies.dense.fit.fit`.

    Raises:
        UserError, DivergedError, StoreError: see :func:`vheatbench.studies.dense.fit.fit`.
    """

    def built() -> tuple[nn.Module, Dataset[Any], str | None]:
        torch.manual_seed(schedule.seed)
        model = task.build(about)
        if beginning is not None and not resume:
            beginning.load_into(task.body(model), about["backbone"])
        return model, task.samples(folder, about), None if beginning is None else str(beginning)

    model, data, initial = group.together(built)
    if task.synced_norms and group.size > 1 and group.device.type == "cuda":
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    training = fit(
        model.to(group.device), data, schedule, task.losses, task.collate, group, out,
        about={**about, "data": folder.fingerprint}, earlier=task.earlier(about), initial=initial, resume=resume,
        **options,
    )  # fmt: skip
    path = out / f"{about['model'].replace('-', '_')}.safetensors"
    group.on_main(lambda: write_trained(path, model, {**about, "training": {**training, **folder.facts}}))
    return path
