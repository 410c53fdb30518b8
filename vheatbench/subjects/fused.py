"""Layers of a heat block on CPUs, without gradients, by the products that are fastest on this processor.

oneDNN adds bias, residual and, where that pays, the activation while a tile of the result is still in cache;
``F.linear`` writes the bias first and reads and writes the map again for everything else. Which way is taken
:mod:`vheatbench.subjects.products` says.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vheatbench.subjects import onednn, products
from vheatbench.subjects.onednn import Activation
from vheatbench.subjects.packed import packed_convolution, packed_linear
from vheatbench.subjects.parts import part

HIDDEN_BYTES = 8 * 2**20
"""Of an MLP's hidden map at a time: measured 2, 4, 8 and 16 MiB within 3 %, whole maps up to 7 % slower."""

_FLOATS = (torch.float32, torch.bfloat16, torch.float16)
_exporting = getattr(torch.compiler, "is_exporting", lambda: False)  # torch 2.7


def fuses(x: Tensor) -> bool:
    """Whether the functions here take ``x``, without gradients."""
    return x.device.type == "cpu" and x.dtype in _FLOATS and onednn.works(x.dtype)


def linear(
    x: Tensor,
    layer: nn.Linear,
    activation: Activation = "none",
    residual: Tensor | None = None,
    start: int = 0,
    stop: int | None = None,
) -> Tensor:
    """``activation(layer(x))``, or ``layer(x) + residual``; without gradients.

    Args:
        x: shape (..., C), of a dtype and device that :func:`fuses` accepts.
        layer: C to C' channels, with a bias.
        activation: ``swish`` is SiLU; not together with a residual.
        residual: shape (..., C').
        start, stop: which of the layer's outputs to compute; default all.
    """
    bias = layer.bias[start:stop]
    way = products.inference_linear() if x.dtype == torch.float32 else "inside"
    if way == "torch":
        out = onednn.activate_(F.linear(x, layer.weight[start:stop], bias), activation)
        return out if residual is None else out.add_(residual)
    weight = packed_linear(layer, start, stop)
    if residual is not None or way == "inside":
        return onednn.linear(x, weight, bias, activation, residual)
    return onednn.activate_(onednn.linear(x, weight, bias), activation)


def halves(x: Tensor, layer: nn.Linear) -> tuple[Tensor, Tensor]:
    """The first half of the outputs of ``layer(x)``, and SiLU of the second; without gradients.

    One product is faster than two, but the first half then has the strides of the whole, which only the batched
    transform of float32 takes without a copy.
    """
    half = layer.out_features // 2
    if x.dtype == torch.float32 and products.transform() == "batched":
        field, gate = linear(x, layer).chunk(2, dim=-1)
        return field, F.silu(gate)
    return linear(x, layer, stop=half), linear(x, layer, "swish", start=half)


def convolution(x: Tensor, layer: nn.Conv2d) -> Tensor:
    """``layer(x)`` of x (B, C, H, W), with a packed weight where the layer has one; without gradients."""
    weight = packed_convolution(layer, x.shape[2], x.shape[3])
    if weight is None:
        return cast(Tensor, layer(x))
    padding = cast("tuple[int, ...]", layer.padding)
    return onednn.convolution(x, weight, layer.bias, layer.stride, padding, layer.groups)


def layer_norm(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    """``norm(x)``; a norm without weights, as deploying leaves some, takes a third of the time with ones and zeros."""
    if norm.weight is not None:
        return cast(Tensor, norm(x))
    ones = x.new_ones(norm.normalized_shape)
    return F.layer_norm(x, norm.normalized_shape, ones, torch.zeros_like(ones), norm.eps)


def conduct(x: Tensor, decay: Tensor, cos_h: Tensor, cos_w: Tensor) -> Tensor:
    """Heat conduction of x (B, H, W, C) by linear layers, without gradients and without moving data.

    A linear layer contracts the last axis of its input with the last of its weight, and each may be the data.
    With the transposed image as input the first axis is transformed and comes out last: two such products
    lead from (H, W, C) to the spectrum in (C, H, W). With the image as the weight the last axis is
    transformed and comes out first: two lead back. In float32 that is up to twice as fast as batched products on
    processors that oneDNN suits better than MKL, and takes up to three times as long on others.

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
            turned = onednn.linear(image.reshape(height, width * channels).t(), cos_h, None)
            spectrum = onednn.linear(turned.view(width, channels * height).t(), cos_w, None)
        with part("decay"):
            spectrum.view(channels, height, width).mul_(decay)
        with part("idct"):
            turned = onednn.linear(back_w, spectrum, None).view(width * channels, height)
            results.append(onednn.linear(back_h, turned, None).view(1, height, width, channels))
    return results[0] if batch == 1 else torch.cat(results)


def mlp(x: Tensor, fc1: nn.Linear, fc2: nn.Linear, residual: Tensor | None = None) -> Tensor:
    """``fc2(gelu(fc1(x))) + residual``, as many tokens at a time as :data:`HIDDEN_BYTES` hold.

    The widest map of the model then never exists as a whole: it would be its peak of memory, and a map of
    tens of MiB is new memory in every call, at a page fault for every 4 KiB.

    Args:
        x: shape (..., C), see :func:`linear`.
        fc1, fc2: C to R and R to C' channels.
        residual: shape (..., C').
    """
    step = max(HIDDEN_BYTES // (fc1.out_features * x.element_size()), 1)
    rows = x.reshape(-1, x.shape[-1])
    if len(rows) <= step:
        return linear(linear(x, fc1, "gelu"), fc2, residual=residual)
    step = -(-len(rows) // -(-len(rows) // step))  # in even parts: a short last one would multiply at half the speed
    added = None if residual is None else residual.reshape(len(rows), -1)
    out = rows.new_empty(len(rows), fc2.out_features)
    for i in range(0, len(rows), step):
        hidden = linear(rows[i : i + step], fc1, "gelu")
        out[i : i + step] = linear(hidden, fc2, residual=None if added is None else added[i : i + step])
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
