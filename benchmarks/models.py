"""vHeat and its official formulation with the same random weights."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import timm
import torch
from torch import Tensor, nn

import vheatbench.subjects  # noqa: F401  (registers the models)


def pair(name: str, size: int, **kwargs: Any) -> tuple[nn.Module, nn.Module]:
    """Our model and the official formulation of it; every parameter random, so that a wrong fold shows."""
    torch.manual_seed(0)
    ours = timm.create_model(name, img_size=size, **kwargs).eval()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    official = timm.create_model(f"{name}_official", img_size=size, **kwargs).eval()
    official.load_state_dict(ours.state_dict())
    return ours, official


def inference(model: Callable[[Tensor], Tensor], images: Tensor, autocast: bool = False) -> Callable[[], Tensor]:
    """A forward pass without gradients, on request under bfloat16 autocast."""

    def step() -> Tensor:
        with torch.inference_mode(), bfloat16_autocast(autocast):
            return model(images)

    return step


def bfloat16_autocast(enabled: bool) -> AbstractContextManager[object]:
    """Autocast to bfloat16, or nothing."""
    return torch.autocast("cpu", torch.bfloat16) if enabled else contextlib.nullcontext()


def difference(ours: Tensor, theirs: Tensor) -> float:
    """Relative difference in the Euclidean norm."""
    return float((ours.double() - theirs.double()).norm() / theirs.double().norm())
