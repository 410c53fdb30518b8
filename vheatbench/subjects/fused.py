"""Linear layers whose bias, activation and residual are added inside the product, on CPUs.

oneDNN adds them while a tile of the result is still in cache; ``F.linear`` writes the bias first and reads
and writes the map again for everything else. torch gives these products out as private operators, which is
why they are tried once on a small problem, and left alone where they are missing or wrong.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils.flop_counter import register_flop_formula

from vheatbench.subjects.parts import part

Activation = Literal["none", "gelu", "swish"]

HIDDEN_BYTES = 8 * 2**20
"""Of an MLP's hidden map at a time: measured 2, 4, 8 and 16 MiB within 3 %, whole maps up to 7 % slower."""

_FLOATS = (torch.float32, torch.bfloat16, torch.float16)
_exporting = getattr(torch.compiler, "is_exporting", lambda: False)  # torch 2.7


def fuses(x: Tensor) -> bool:
    """Whether :func:`linear` takes a product with ``x`` without gradients to oneDNN."""
    return x.device.type == "cpu" and x.dtype in _FLOATS and _works(x.dtype)


def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    activation: Activation = "none",
    residual: Tensor | None = None,
) -> Tensor:
    """``activation(x @ weight.T + bias)``, or ``x @ weight.T + bias + residual``; without gradients.

    Args:
        x: shape (..., C), of a dtype and device that :func:`fuses` accepts.
        weight, bias: shapes (C', C) and (C',).
        activation: ``swish`` is SiLU; not together with a residual.
        residual: shape (..., C').
    """
    if residual is not None:
        return torch.ops.mkldnn._linear_pointwise.binary(x, residual, weight, bias, "add")
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, activation, [], "none")


def conduct(x: Tensor, decay: Tensor, cos_h: Tensor, cos_w: Tensor) -> Tensor:
    """Heat conduction of x (B, H, W, C) by linear layers, without gradients and without moving data.

    A linear layer contracts the last axis of its input with the last of its weight, and each may be the data.
    With the transposed image as input the first axis is transformed and comes out last: two such products
    lead from (H, W, C) to the spectrum in (C, H, W). With the image as the weight the last axis is
    transformed and comes out first: two lead back. In float32 that is up to twice as fast as batched products,
    which torch hands to MKL.

    Args:
        x: shape (B, H, W, C).
        decay: shape (H, W, C).
        cos_h, cos_w: cosine matrices of H and of W.
    """
    batch, height, width, channels = x.shape
    decay = decay.permute(2, 0, 1)
    decay = decay.contiguous() if batch > 1 else decay
    back_h, back_w = cos_h.t().contiguous(), cos_w.t().contiguous()
    results = []
    for image in x:
        with part("dct"):
            turned = linear(image.reshape(height, width * channels).t(), cos_h, None)
            spectrum = linear(turned.view(width, channels * height).t(), cos_w, None)
        with part("decay"):
            spectrum.view(channels, height, width).mul_(decay)
        with part("idct"):
            turned = linear(back_w, spectrum, None).view(width * channels, height)
            results.append(linear(back_h, turned, None).view(1, height, width, channels))
    return results[0] if batch == 1 else torch.cat(results)


def mlp(
    x: Tensor, w1: Tensor, b1: Tensor | None, w2: Tensor, b2: Tensor | None, residual: Tensor | None = None
) -> Tensor:
    """``linear2(gelu(linear1(x))) + residual``, as many tokens at a time as :data:`HIDDEN_BYTES` hold.

    The widest map of the model then never exists as a whole: it would be its peak of memory, and a map of
    tens of MiB is new memory in every call, at a page fault for every 4 KiB.

    Args:
        x: shape (..., C), see :func:`linear`.
        w1, b1, w2, b2: shapes (R, C), (R,), (C', R) and (C',).
        residual: shape (..., C').
    """
    step = max(HIDDEN_BYTES // (w1.shape[0] * x.element_size()), 1)
    rows = x.reshape(-1, x.shape[-1])
    if len(rows) <= step:
        return linear(linear(x, w1, b1, "gelu"), w2, b2, residual=residual)
    added = None if residual is None else residual.reshape(len(rows), -1)
    out = rows.new_empty(len(rows), w2.shape[0])
    for i in range(0, len(rows), step):
        hidden = linear(rows[i : i + step], w1, b1, "gelu")
        out[i : i + step] = linear(hidden, w2, b2, residual=None if added is None else added[i : i + step])
    return out.view(*x.shape[:-1], -1)


def traced_linear(layer: nn.Module, x: Tensor) -> Tensor:
    """``layer(x)`` for x (B, H, W, C), in the form that the compiler at work makes the most of.

    Of float32 inference on a CPU, inductor with freezing fuses activations and sums into a 1x1 convolution
    (oneDNN), but not into a linear layer, which it hands to MKL: measured 0.65 times the time of a vHeat-T.
    """
    if (
        torch.compiler.is_compiling()
        and not _exporting()
        and not torch.is_grad_enabled()
        and type(layer) is nn.Linear
        and (x.device.type, x.dtype, x.ndim) == ("cpu", torch.float32, 4)
    ):
        return F.conv2d(x.permute(0, 3, 1, 2), layer.weight[:, :, None, None], layer.bias).permute(0, 2, 3, 1)
    return layer(x)


def _flops(x: Sequence[int], second: Sequence[int], third: Sequence[int] | None, *_: Any, **__: Any) -> int:
    """FLOPs for torch's counter, which knows the product by no other way. With a residual the weight is third."""
    weight = third if third is not None and len(third) == 2 else second
    return 2 * math.prod(x) * weight[0]


if hasattr(torch.ops.mkldnn, "_linear_pointwise"):
    register_flop_formula(torch.ops.mkldnn._linear_pointwise)(_flops)


@functools.lru_cache(maxsize=8)
def _works(dtype: torch.dtype) -> bool:
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
        tolerance = 1e-5 if dtype == torch.float32 else 0.1
        return all(torch.allclose(ours.float(), theirs, rtol=tolerance, atol=tolerance) for ours, theirs in pairs)
