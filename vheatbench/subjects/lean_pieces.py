"""What the functions of :mod:`vheatbench.subjects.lean_autograd` are made of: plain tensors in, plain tensors out."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vheatbench.subjects import onednn, products

aten = torch.ops.aten

BLOCK_BYTES = 16384
"""Bytes of one channel that are taken at a time on a CPU (4096 tokens in float32)."""


def autocast_dtype(x: Tensor) -> torch.dtype:
    """What autocast would multiply matrices in here; the input's dtype without autocast."""
    return torch.get_autocast_dtype(x.device.type) if x.dtype != torch.float64 and _autocasting(x) else x.dtype


def _autocasting(x: Tensor) -> bool:
    kind = x.device.type  # asking about a device that knows no autocast, such as meta, is an error
    return torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)


def without_autocast(method: Callable[..., Any]) -> Callable[..., Any]:
    """Run a function's forward or backward in the dtypes that it chose; autocast would cast again."""

    @functools.wraps(method)
    def wrapped(ctx: Any, first: Tensor, *rest: Any) -> Any:
        if not _autocasting(first):
            return method(ctx, first, *rest)
        with torch.autocast(first.device.type, enabled=False):
            return method(ctx, first, *rest)

    return wrapped


def working_dtype(x: Tensor) -> torch.dtype:
    """Dtype of norms and sums over tokens for maps of the dtype of ``x``.

    On CPUs at least float32: the norms of bfloat16 are slower there and sum in bfloat16. The kernels of
    GPUs widen by themselves.
    """
    return torch.float32 if x.itemsize < 4 and x.device.type == "cpu" else x.dtype


def product(a: Tensor, b: Tensor, bias: Tensor | None = None, out: Tensor | None = None) -> Tensor:
    """``a @ b`` of (N, K) and (K, M), plus ``bias`` (M,), in ``out`` if given; for tensors without gradients.

    In float32 on a CPU by whichever library is faster there: on AMD's cores oneDNN took half the time of the MKL that
    torch calls.
    """
    if a.dtype == torch.float32 and a.device.type == "cpu" and products.training_product() == "onednn":
        result = onednn.linear(a, b.t(), bias)
        return result if out is None else out.copy_(result)
    return torch.mm(a, b, out=out) if bias is None else torch.addmm(bias, a, b, out=out)


def blocks(x: Tensor) -> Iterator[slice]:
    """Slices that cover the rows of ``x``, (N, C).

    Whole on GPUs. In even blocks on CPUs, where what is made and used up within a block stays in the cache,
    and where a large map made anew costs a page fault every 4 KiB.
    """
    count = max(1, round(len(x) * x.itemsize / BLOCK_BYTES)) if x.device.type == "cpu" else 1
    step = max(1, -(-len(x) // count))
    return (slice(i, i + step) for i in range(0, len(x), step))


def add(total: Any, part: Any) -> Tensor:
    """Sum of the blocks' parts, None before the first, in their :func:`working_dtype`."""
    return part if total is None else total.to(working_dtype(part)).add_(part)


def rows(x: Tensor) -> Tensor:
    """(..., C) as (N, C)."""
    return x.reshape(-1, x.shape[-1])


def sum_rows(x: Tensor) -> Tensor:
    """Sum of (N, M) over N; on CPUs as a matrix product, which is twice as fast in bfloat16."""
    return x.new_ones(1, x.shape[0]).mm(x)[0] if x.device.type == "cpu" else x.sum(0)


def normalise(x: Tensor, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """``x`` less its mean over its deviation, over the last axis, in ``dtype``; and 1 / deviation, (..., 1).

    This is what a LayerNorm needs for its gradient. Keeping the input in ``dtype`` instead could lose all
    of it where the mean is large.
    """
    wide = working_dtype(x)
    ones = x.new_ones(x.shape[-1], dtype=wide)  # with them the CPU's kernel takes half the time that it takes without
    zeros = torch.zeros_like(ones)
    if x.dtype == wide == dtype:
        normed, _, rstd = torch.native_layer_norm(x, ones.shape, ones, zeros, eps)
        return normed, rstd
    normed = torch.empty_like(x, dtype=dtype, memory_format=torch.contiguous_format)
    rstd = torch.empty_like(normed[..., :1], dtype=torch.promote_types(wide, torch.float32))
    ins, outs, rstds = rows(x), rows(normed), rows(rstd)
    for block in blocks(ins):
        outs[block], _, rstds[block] = torch.native_layer_norm(ins[block].to(wide), ones.shape, ones, zeros, eps)
    return normed, rstd


def affine(normed: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A LayerNorm's weight and bias applied, rounded as a linear layer's are."""
    return torch.addcmul(bias.to(normed.dtype), normed, weight.to(normed.dtype))


def norm_backward(
    grad: Tensor, normed: Tensor, rstd: Tensor, weight: Tensor, need: tuple[bool, ...], dx: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of a LayerNorm's input, written to ``dx``, and of its weight and bias, where needed.

    All but the weight are (N, C), ``rstd`` (N, 1).
    """
    wide = working_dtype(normed)
    weight = weight.to(wide)
    d_weight = d_bias = None
    for block in blocks(grad):
        hat, scale = normed[block].to(wide), rstd[block]
        # what was normalised has mean 0 and deviation 1; its gradient over the input's deviation is the input's
        mean, one = torch.zeros_like(scale), torch.ones_like(scale)
        inner, *affines = aten.native_layer_norm_backward(
            grad[block].to(wide), hat, weight.shape, mean, one, weight, torch.zeros_like(weight), list(need)
        )
        if dx is not None:
            torch.mul(inner, scale, out=dx[block])
        d_weight = add(d_weight, affines[0]) if need[1] else None
        d_bias = add(d_bias, affines[1]) if need[2] else None
    return d_weight, d_bias


def depthwise(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Depthwise convolution of (B, H, W, C) with (C, 1, K, K), zeros around."""
    padding = [side // 2 for side in weight.shape[2:]]
    image = x.permute(0, 3, 1, 2)
    return F.conv2d(image, weight.to(x.dtype), bias.to(x.dtype), 1, padding, 1, x.shape[-1]).permute(0, 2, 3, 1)


def depthwise_backward(grad: Tensor, x: Tensor, weight: Tensor, need: tuple[bool, ...]) -> tuple[Any, Any, Any]:
    """Gradients of the input, weight and bias of :func:`depthwise`, None for those not needed."""
    padding = [side // 2 for side in weight.shape[2:]]
    grad, image, weight = grad.permute(0, 3, 1, 2), x.permute(0, 3, 1, 2), weight.to(x.dtype)
    dx, d_weight, d_bias = aten.convolution_backward(
        grad, image, weight, weight.shape[:1], [1, 1], padding, [1, 1], False, [0, 0], x.shape[-1], list(need)
    )
    return (dx.permute(0, 2, 3, 1) if need[0] else None), d_weight, d_bias
