"""oneDNN's products with bias, activation or residual within them: private operators of torch, tried before use."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils.flop_counter import register_flop_formula

Activation = Literal["none", "gelu", "swish"]


def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    activation: Activation = "none",
    residual: Tensor | None = None,
) -> Tensor:
    """``activation(x @ weight.T + bias)``, or ``x @ weight.T + bias + residual``; without gradients.

    Args:
        x: shape (..., C), of a dtype that :func:`works` accepts.
        weight, bias: shapes (C', C) and (C',); the weight as it is or from :func:`pack`.
        activation: ``swish`` is SiLU; not together with a residual.
        residual: shape (..., C').
    """
    if residual is not None:
        return torch.ops.mkldnn._linear_pointwise.binary(x, residual, weight, bias, "add")
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, activation, [], "none")


def activate_(x: Tensor, activation: Activation) -> Tensor:
    """``x`` after the activation, in place, by torch's own kernels."""
    if activation == "gelu":
        torch.ops.aten.gelu.out(x, out=x)
    elif activation == "swish":
        torch.ops.aten.silu.out(x, out=x)
    return x


def pack(weight: Tensor) -> Tensor:
    """A copy of a linear layer's weight in the layout that oneDNN multiplies by; else every product makes one."""
    return torch.ops.mkldnn._reorder_linear_weight(weight.detach().clone(memory_format=torch.contiguous_format))


def pack_convolution(
    weight: Tensor, stride: Sequence[int], padding: Sequence[int], groups: int, grid: Sequence[int]
) -> Tensor:
    """The same for the weight of a two-dimensional convolution, for :func:`convolution`.

    Args:
        weight: shape (C', C / groups, K, K).
        stride, padding, groups: of the convolution.
        grid: height and width of its input. Without, oneDNN takes a layout in which the convolution was up to 40 times
            slower; that of one image suits any number of them.
    """
    size = [1, weight.shape[1] * groups, *grid]
    weight = weight.detach().clone(memory_format=torch.channels_last)
    return torch.ops.mkldnn._reorder_convolution_weight(weight, list(padding), list(stride), [1, 1], groups, size)


def convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Sequence[int], padding: Sequence[int], groups: int
) -> Tensor:
    """Convolution of x (B, C, H, W) with a weight from :func:`pack_convolution`."""
    return torch.ops.mkldnn._convolution_pointwise(
        x, weight, bias, list(padding), list(stride), [1, 1], groups, "none", [], ""
    )


@functools.lru_cache(maxsize=8)
def works(dtype: torch.dtype) -> bool:
    """Whether the products of a dtype are there and right."""
    if not torch.backends.mkldnn.is_available():
        return False
    # the answer is kept, so nothing around the first question may change it, nor may whoever counts hear of it
    with _disable_current_modes(), torch.inference_mode(False), torch.no_grad(), torch.device("cpu"):
        generator = torch.Generator().manual_seed(0)
        x, residual = torch.randn(2, 6, 64, generator=generator).to(dtype).split(32, -1)
        weight, bias = torch.randn(32, 33, generator=generator).to(dtype).split((32, 1), -1)
        weight, bias = weight.contiguous(), bias.flatten().contiguous()
        x, residual = x.contiguous(), residual.contiguous()
        plain = F.linear(x.float(), weight.float(), bias.float())
        try:
            pairs = (
                (linear(x, weight, bias, "gelu"), F.gelu(plain)),
                (linear(x, weight, bias, "swish"), F.silu(plain)),
                (linear(x, weight, None), plain - bias.float()),
                (linear(x, weight, bias, residual=residual), plain + residual.float()),
            )
        except (AttributeError, RuntimeError, NotImplementedError):
            return False
        return _agree(pairs, dtype)


@functools.lru_cache(maxsize=8)
def packs(dtype: torch.dtype) -> bool:
    """Whether products with packed weights, and such convolutions, are there and right."""
    if not works(dtype):
        return False
    with _disable_current_modes(), torch.inference_mode(False), torch.no_grad(), torch.device("cpu"):
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(1, 5, 5, 32, generator=generator).to(dtype)
        weight, bias = torch.randn(48, 32, generator=generator).to(dtype), torch.ones(48, dtype=dtype)
        image = x.permute(0, 3, 1, 2)
        kernels = {
            1: torch.randn(16, 32, 3, 3, generator=generator).to(dtype),
            32: torch.randn(32, 1, 3, 3, generator=generator).to(dtype),
        }
        try:
            pairs = [(linear(x, pack(weight), bias, "gelu"), F.gelu(F.linear(x.float(), weight.float(), bias.float())))]
            for groups, kernel in kernels.items():
                packed = pack_convolution(kernel, (1, 1), (1, 1), groups, (5, 5))
                ours = convolution(image, packed, None, (1, 1), (1, 1), groups)
                pairs.append((ours, F.conv2d(image.float(), kernel.float(), None, 1, 1, 1, groups)))
        except (AttributeError, RuntimeError, NotImplementedError):
            return False
        return _agree(pairs, dtype)


def _agree(pairs: Sequence[tuple[Tensor, Tensor]], dtype: torch.dtype) -> bool:
    tolerance = 1e-5 if dtype == torch.float32 else 0.1
    return all(torch.allclose(ours.float(), theirs, rtol=tolerance, atol=tolerance) for ours, theirs in pairs)


def _flops(x: Sequence[int], second: Sequence[int], third: Sequence[int] | None, *_: Any, **__: Any) -> int:
    """FLOPs for torch's counter, which knows the product by no other way. With a residual the weight is third."""
    weight = third if third is not None and len(third) == 2 else second
    return 2 * math.prod(x) * weight[0]


def _convolution_flops(x: Sequence[int], weight: Sequence[int], *_: Any, out_shape: Sequence[int], **__: Any) -> int:
    """The same for a convolution: (C', C / groups, K, K) multiply-adds for every position of the result."""
    return 2 * math.prod(weight) * math.prod(out_shape) // out_shape[1]


if hasattr(torch.ops.mkldnn, "_linear_pointwise"):
    register_flop_formula(torch.ops.mkldnn._linear_pointwise)(_flops)
if hasattr(torch.ops.mkldnn, "_convolution_pointwise"):
    register_flop_formula(torch.ops.mkldnn._convolution_pointwise)(_convolution_flops)
