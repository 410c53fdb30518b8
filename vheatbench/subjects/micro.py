"""Small models of like size for images of 64 pixels, and the weights that this package ships of them.

``vheat_micro``, ``swin_micro`` and ``vit_micro`` have about 175,000 parameters, ``vheat_mini`` 1.4 million: small
enough to be trained on two processor cores in minutes (``make trained``). Their trained weights are tags of timm's,
such as ``vheat_micro.photographs``, with the file beside this one; ``docs/learned.md`` says how they were trained.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.swin_transformer import SwinTransformer
from timm.models.swin_transformer import checkpoint_filter_fn as swin_filter
from timm.models.vision_transformer import VisionTransformer
from timm.models.vision_transformer import checkpoint_filter_fn as vit_filter
from torch import nn

from vheatbench.subjects.heat_operator import HeatOperator
from vheatbench.subjects.vheat import VHeat, create_vheat

TRAINED = Path(__file__).parent / "trained"
"""Folder of the shipped weights: float16, NAME.TAG.safetensors."""
CLASSES = {"photographs": 10}
"""Of the image sets that weights were trained on."""
SHIPPED = ("vheat_micro.photographs", "swin_micro.photographs", "vit_micro.photographs", "vheat_mini.photographs")
"""timm's names of the models whose weights are here."""

_MICRO = {"img_size": 64, "dim": 16, "depths": (2, 3, 2)}
_NAMES = ("vheat_micro", "vheat_micro_still", "swin_micro", "vit_micro", "vheat_mini")


def _cfg(name: str, tag: str) -> dict[str, Any]:
    first, last = {"vheat": ("stem.conv1.conv", "head.fc"), "swin_": ("patch_embed.proj", "head.fc")}.get(
        name[:5], ("patch_embed.proj", "head")
    )
    file = str(TRAINED / f"{name}.{tag}.safetensors")
    trained = {"file": file, "num_classes": CLASSES[tag]} if tag else {}
    return {
        "url": "",
        "num_classes": 10,
        "input_size": (3, 64, 64),
        "pool_size": None,
        "crop_pct": 1.0,
        "interpolation": "bicubic",
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
        "first_conv": first,
        "classifier": last,
        "license": "apache-2.0",
        **trained,
    }


_CFGS: dict[str, Any] = {f"{name}.untrained": _cfg(name, "") for name in _NAMES}
default_cfgs = generate_default_cfgs(_CFGS | {name: _cfg(*name.split(".")) for name in SHIPPED})


def trained_name(name: str) -> str | None:
    """timm's name of a shipped model, written ``vheat-micro:photographs`` or as timm does; None if it is none."""
    written = name.lower().replace("-", "_").replace(":", ".")
    return written if written in SHIPPED else None


@register_model
def vheat_micro(pretrained: bool = False, **kwargs: Any) -> VHeat:
    """A vHeat of 16 to 64 channels, 2-3-2 blocks on grids of 16, 8 and 4 cells a side."""
    return create_vheat("vheat_micro", pretrained, **{**_MICRO, **kwargs})


@register_model
def vheat_micro_still(pretrained: bool = False, **kwargs: Any) -> VHeat:
    """The same with k = 0 at every frequency, which no training changes: the operator passes its field on as it is.

    What conduction is worth is the difference in accuracy from ``vheat_micro``; everything else is alike.
    """
    return hold_still(create_vheat("vheat_micro_still", pretrained, **{**_MICRO, **kwargs}))


@register_model
def vheat_mini(pretrained: bool = False, **kwargs: Any) -> VHeat:
    """A vHeat of 48 to 192 channels, 2-2-2 blocks on the same grids."""
    args = {"img_size": 64, "dim": 48, "depths": (2, 2, 2)}
    return create_vheat("vheat_mini", pretrained, **{**args, **kwargs})


@register_model
def swin_micro(pretrained: bool = False, **kwargs: Any) -> SwinTransformer:
    """A Swin Transformer on the same grids, with windows of 4 cells."""
    args = {
        "img_size": 64, "patch_size": 4, "window_size": 4, "embed_dim": 16, "depths": (2, 4, 2), "num_heads": (2, 4, 8),
    }  # fmt: skip
    return build_model_with_cfg(  # type: ignore[no-any-return]
        SwinTransformer,
        "swin_micro",
        pretrained,
        pretrained_filter_fn=swin_filter,
        feature_cfg={"out_indices": (0, 1, 2), "flatten_sequential": True},
        **{**args, **kwargs},
    )


@register_model
def vit_micro(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    """A ViT of 8 x 8 tokens and 48 channels; timm's default initial weights are too small for so few."""
    args = {
        "img_size": 64, "patch_size": 8, "embed_dim": 48, "depth": 6, "num_heads": 3, "class_token": False,
        "global_pool": "avg", "weight_init": "jax",
    }  # fmt: skip
    return build_model_with_cfg(  # type: ignore[no-any-return]
        VisionTransformer,
        "vit_micro",
        pretrained,
        pretrained_filter_fn=vit_filter,
        feature_cfg={"out_indices": 3, "feature_cls": "getter"},
        **{**args, **kwargs},
    )


@torch.no_grad()
def hold_still(model: VHeat) -> VHeat:
    """Give every heat operator k = relu(-1) = 0 at all frequencies and let no training change it; the model."""
    for module in model.modules():
        if isinstance(module, HeatOperator) and module.to_k is not None:
            linear = next(layer for layer in module.to_k.modules() if isinstance(layer, nn.Linear))
            linear.weight.zero_()
            linear.bias.fill_(-1)
            module.to_k.requires_grad_(False)
    for stage in model.stages:
        if stage.freq_embed is not None:
            stage.freq_embed.requires_grad_(False)
    return model
