"""Multiply-adds of the known families and operators written out by hand: the independent check of the counters.

Counted are convolutions, linear layers and the matrix products of attention and of the heat operator;
norms, activations, softmax and the decay factor are not, as is usual. Of operators also the least bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from timm.layers import Mlp, PatchEmbed
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import Attention, VisionTransformer
from torch import nn

from vheatbench.subjects.token_mixers import KERNEL, WINDOW
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


def conduction_macs(height: int, width: int, channels: int, backend: str) -> float:
    """Multiply-adds of transform and inverse on one image's (height, width, channels), by formulation.

    The dense products take n^2 for a transform of length n, ``symmetric``, which splits it into its even and odd
    half, ceil(n^2 / 2). ``fft`` has no multiply-adds to count: half of the usual 5 N log2 N FLOPs of a complex
    transform of N = H W points, which two real transforms (there and back) cost.

    Raises:
        KeyError: a backend whose formulation is not known here.
    """
    return _CONDUCTION[backend](height, width, channels)


def _dense(height: int, width: int, channels: int) -> float:
    return 2 * channels * (width * height**2 + height * width**2)


def _symmetric(height: int, width: int, channels: int) -> float:
    return 2 * channels * (width * -(-(height**2) // 2) + height * -(-(width**2) // 2))


def _fft(height: int, width: int, channels: int) -> float:
    return 2.5 * height * width * channels * math.log2(height * width)


_CONDUCTION: dict[str, Callable[[int, int, int], float]] = {
    **dict.fromkeys(("matmul", "official", "triton"), _dense),
    "symmetric": _symmetric,
    "fft": _fft,
}


@dataclass(frozen=True)
class OperatorMacs:
    """Multiply-adds of an operator's forward pass by part, on a grid of one image."""

    core: dict[str, float]
    """Mixing tokens."""
    around: dict[str, float]
    """What the layer adds to its core."""
    once: dict[str, float] = field(default_factory=dict)
    """What the layer's training form adds, once per pass and not per image."""


def heat_macs(grid: tuple[int, int], channels: int, backend: str) -> OperatorMacs:
    """Of heat conduction by ``backend``, see :func:`conduction_macs`."""
    parts = heat_operator_macs(1, *grid, channels, train_form=True)
    return OperatorMacs(
        core={"dct_idct": conduction_macs(*grid, channels, backend)},
        around={name: parts[name] for name in ("dwconv", "linear", "out_linear")},
        once={"to_k": parts["to_k"]},
    )


def attention_macs(grid: tuple[int, int], channels: int) -> OperatorMacs:
    """Of global softmax attention: the two products of tokens x tokens."""
    tokens = math.prod(grid)
    return OperatorMacs({"attention": 2 * tokens**2 * channels}, _projections(tokens, channels))


def window_attention_macs(grid: tuple[int, int], channels: int) -> OperatorMacs:
    """Of attention in windows; padded cells pass the projections and attention too."""
    padded = math.prod(-(-side // WINDOW) * WINDOW for side in grid)
    return OperatorMacs({"attention": 2 * padded * WINDOW**2 * channels}, _projections(padded, channels))


def linear_attention_macs(grid: tuple[int, int], channels: int, head_dim: int) -> OperatorMacs:
    """Of linear attention: two products with the d x d context of every head, and the normaliser."""
    tokens = math.prod(grid)
    return OperatorMacs({"attention": (2 * head_dim + 1) * tokens * channels}, _projections(tokens, channels))


def depthwise_conv_macs(grid: tuple[int, int], channels: int) -> OperatorMacs:
    """Of the depthwise convolution, and of the gated layer around it."""
    tokens = math.prod(grid)
    around: dict[str, float] = {"linear": 2 * tokens * channels**2, "proj": tokens * channels**2}
    return OperatorMacs({"dwconv": KERNEL**2 * tokens * channels}, around)


def _projections(tokens: int, channels: int) -> dict[str, float]:
    return {"qkv": 3 * tokens * channels**2, "proj": tokens * channels**2}


def operator_step_macs(forward: dict[str, float], backward: bool) -> float:
    """Multiply-adds of a step from those of its forward pass by part (``operators.operator_macs``).

    The backward of a product is two products of its size, for the gradients of both factors. That of heat
    conduction is conduction once more: the cosine matrices get no gradient, and the gradient of the decay
    takes the two spectra only. What a kernel computes again (flash attention its scores) is not counted.
    """
    if not backward:
        return sum(forward.values())
    return sum(macs * (2 if name == "dct_idct" else 3) for name, macs in forward.items())


def operator_min_bytes(inputs: int, constants: int, outputs: int, itemsize: int, backward: bool = False) -> int:
    """Least traffic of a step, in bytes, from numbers of values: what any implementation must move.

    Forward reads inputs and constants (weights, decay map) and writes outputs, each once, as if everything
    between stayed on chip. Backward is a pass of its own: it reads inputs, constants and the gradient of the
    outputs, and writes the gradients of inputs and constants. Heat core: 2 B N C + N C values, or
    5 B N C + 3 N C with backward; attention core: 4 B N C, or 11 B N C.
    """
    values = inputs + constants + outputs
    if backward:
        values += 2 * (inputs + constants) + outputs
    return values * itemsize


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
