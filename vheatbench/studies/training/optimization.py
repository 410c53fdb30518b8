"""What a recipe means in timm's parts: optimizer, schedule, mixing, loss, precision."""

from __future__ import annotations

from typing import Any

import torch
from timm.data import Mixup
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from torch import nn

from vheatbench.studies.training.recipe import Recipe


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """timm's, whose weight decay leaves out biases, norms and what the model names in ``no_weight_decay``."""
    extra: dict[str, Any] = {"betas": recipe.betas} if recipe.betas is not None else {}
    rate = recipe.scaled(recipe.learning_rate)
    return create_optimizer_v2(model, opt=recipe.optimizer, lr=rate, weight_decay=recipe.weight_decay, **extra)


def make_schedule(optimizer: torch.optim.Optimizer, recipe: Recipe, updates: int) -> CosineLRScheduler:
    """Linear warm-up, then half a cosine to the last update. ``updates``: of an epoch."""
    warmup = round(recipe.warmup_epochs * updates)
    return CosineLRScheduler(
        optimizer,
        t_initial=max(recipe.epochs * updates - warmup, 1),
        lr_min=recipe.scaled(recipe.min_learning_rate),
        warmup_t=warmup,
        warmup_lr_init=recipe.scaled(recipe.warmup_learning_rate),
        warmup_prefix=True,
        t_in_epochs=False,
    )


def make_mixup(recipe: Recipe, classes: int) -> Mixup:
    """Mixes images and smooths labels; its targets are shares of classes."""
    return Mixup(
        mixup_alpha=recipe.mixup,
        cutmix_alpha=recipe.cutmix,
        switch_prob=recipe.mixup_switch,
        label_smoothing=recipe.label_smoothing,
        num_classes=classes,
    )


def make_criterion(recipe: Recipe) -> nn.Module:
    """Cross entropy, of shares where images are mixed, of smoothed labels where the recipe smooths."""
    if recipe.mixes:
        return SoftTargetCrossEntropy()
    return LabelSmoothingCrossEntropy(recipe.label_smoothing) if recipe.label_smoothing else nn.CrossEntropyLoss()


def precision_of(recipe: Recipe, device: torch.device) -> str:
    """float32, bfloat16 or float16: what the recipe's ``auto`` means on a device."""
    if recipe.precision != "auto":
        return recipe.precision
    return "float16" if device.type == "cuda" else "float32"
