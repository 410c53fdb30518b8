"""vHeat, its official formulation and, where its file is at hand, the official code, with the same random weights.

``OFFICIAL_VHEAT`` is the path of the authors' ``classification/models/vHeat.py``.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import timm
import torch
from torch import Tensor, nn

import vheatbench.subjects  # noqa: F401  (registers the models)
from vheatbench.subjects.weights import convert_official

LOW = os.environ.get("BENCH_DTYPE", "") != "float32"
"""Whether bfloat16 is measured too, which takes most of the time where it is emulated."""
ARRANGEMENTS: dict[str, dict[str, Any]] = {
    "vheat_tiny": {"dims": 96, "depths": [2, 2, 6, 2], "post_norm": False, "layer_scale": None},
    "vheat_small": {"dims": 96, "depths": [2, 2, 18, 2], "post_norm": True, "layer_scale": 1e-5},
    "vheat_base": {"dims": 128, "depths": [2, 2, 18, 2], "post_norm": True, "layer_scale": 1e-5},
}
"""Arguments of the official class, as in its configuration files."""


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


def original(ours: nn.Module, name: str, size: int) -> nn.Module | None:
    """The official code's own model in its deploy form, with the weights of ``ours``; None without its file.

    Args:
        ours: in its training form, which has every weight.
        name: one of :data:`ARRANGEMENTS`.
        size: height and width.

    Raises:
        ValueError: the path is not a Python file's.
        RuntimeError: its keys are not those of the published checkpoints.
    """
    path = os.environ.get("OFFICIAL_VHEAT")
    if not path:
        return None
    spec = importlib.util.spec_from_file_location("official_vheat", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"OFFICIAL_VHEAT={path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model: Any = module.vHeat(img_size=size, mlp_ratio=4.0, infer_mode=True, **ARRANGEMENTS[name])
    model.load_state_dict(official_state(model.state_dict(), ours.state_dict()))
    model.infer_init()
    return model.eval()  # type: ignore[no-any-return]


def official_state(theirs: dict[str, Tensor], ours: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our weights under the official names and in the official shapes, which ``theirs`` gives."""
    state = {}
    for key, value in theirs.items():
        (own,) = convert_official({key: value})
        state[key] = ours[own].view(value.shape)
    return state


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
