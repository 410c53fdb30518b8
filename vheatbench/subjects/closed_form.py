"""Multiply-adds of the known families written out by hand: the independent check of the counters.

Counted are convolutions, linear layers and the matrix products of attention and of the heat operator;
norms, activations, softmax and the decay factor are not, as is usual.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from timm.layers import Mlp, PatchEmbed
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import Attention, VisionTransformer
from torch import nn

from vheatbench.subjects.vheat import VHeat


def closed_form_macs(model: nn.Module, batch: int, size: tuple[int, int]) -> int | None:
    """Multiply-adds of one forward pass over a batch, or None for a family with no formula here."""
    for family, formula in _FORMULAS:
        if isinstance(model, family):
            return formula(model, batch, size)
    return None


def heat_operator_macs(batch: int, height: int, width: int, channels: int, train_form: bool = False) -> dict[str, int]:
    """Multiply-adds of one heat operator by part, on (batch, height, width, channels).

    The transform and its inverse take ``2 H W C (H + W)``: O(N^1.5) for N = H W. Predicting k, in the
    training form, is paid once per forward pass, not per image.
    """
    tokens = height * width
    return {
        "dwconv": batch * 9 * tokens * channels,
        "linear": batch * 2 * tokens * channels**2,
        "dct_idct": batch * 2 * tokens * channels * (height + width),
        "out_linear": batch * tokens * channels**2,
        "to_k": tokens * channels**2 if train_form else 0,
    }


def _vheat(model: Any, batch: int, size: tuple[int, int]) -> int:
    height, width = size[0] // 4, size[1] // 4
    dim = model.stem.conv2.norm.normalized_shape[0]
    macs = batch * height * width * (4 * model.in_chans * 9 * dim // 2 + 9 * dim // 2 * dim)
    for i, stage in enumerate(model.stages):
        if i:
            height, width, dim = height // 2, width // 2, dim * 2
            macs += batch * height * width * 9 * dim // 2 * dim
        operator = heat_operator_macs(batch, height, width, dim, train_form=stage.freq_embed is not None)
        hidden = stage.blocks[0].mlp.fc1.out_features
        mlp = batch * 2 * height * width * dim * hidden
        macs += len(stage.blocks) * (sum(operator.values()) + mlp)
    return int(macs + batch * dim * model.num_classes)


def _vit(model: Any, batch: int, size: tuple[int, int]) -> int | None:
    if not _is_plain(model):
        return None
    patch, dim = model.patch_embed.patch_size, model.embed_dim
    patches = (size[0] // patch[0]) * (size[1] // patch[1])
    tokens = patches + model.num_prefix_tokens
    macs = patches * dim * patch[0] * patch[1] * model.patch_embed.proj.in_channels
    for block in model.blocks:
        hidden = block.mlp.fc1.out_features
        macs += tokens * dim * (4 * dim + 2 * hidden) + 2 * tokens**2 * dim
    heads = 2 if getattr(model, "head_dist", None) is not None else 1
    return int(batch * (macs + heads * dim * model.num_classes))


def _is_plain(model: Any) -> bool:
    """Whether a ViT is the one of the paper: no gated MLP, parallel block, convolutional stem, ..."""
    return (
        type(model.patch_embed) is PatchEmbed
        and model.attn_pool is None
        and all(
            type(getattr(block, "attn", None)) is Attention and type(getattr(block, "mlp", None)) is Mlp
            for block in model.blocks
        )
    )


def _swin(model: Any, batch: int, size: tuple[int, int]) -> int:
    patch = model.patch_embed.patch_size
    height, width = size[0] // patch[0], size[1] // patch[1]
    dim = model.embed_dim
    macs = height * width * dim * patch[0] * patch[1] * model.patch_embed.proj.in_channels
    for i, stage in enumerate(model.layers):
        if i:
            # odd grids are padded before 2x2 cells are merged
            height, width = -(-height // 2), -(-width // 2)
            macs += height * width * 4 * dim * 2 * dim
            dim *= 2
        for block in stage.blocks:
            window = block.window_size
            # the grid is padded to whole windows; attention runs on the padding too
            padded = (-(-height // window[0]) * window[0]) * (-(-width // window[1]) * window[1])
            macs += padded * 4 * dim**2 + 2 * padded * window[0] * window[1] * dim
            macs += 2 * height * width * dim * block.mlp.fc1.out_features
    return int(batch * (macs + dim * model.num_classes))


_FORMULAS: tuple[tuple[type[nn.Module], Callable[[Any, int, tuple[int, int]], int | None]], ...] = (
    (VHeat, _vheat),
    (VisionTransformer, _vit),
    (SwinTransformer, _swin),
)
