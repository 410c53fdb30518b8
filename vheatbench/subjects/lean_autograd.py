"""Parts of a heat block as autograd functions that save less for backward than plain autograd.

Plain autograd keeps every operation's input. What an elementwise operation, a norm or the depthwise
convolution made is cheap to make again, so these functions keep what went into them and make it again in
backward; matrix products are never repeated. The heat conduction itself (Wang et al., "vHeat: Building
Vision Models upon Heat Conduction", CVPR 2025, section 4.2) is y = C^T D C x with orthonormal cosines C and
a diagonal decay D. It is self-adjoint, so its backward is the same operator, and the spectrum C x alone
gives the gradient of D.

All maps are channels last, (B, H, W, C). Saved per call, in units of B H W C elements, parameters apart:

=========================  ====================================  ==============
function                   saved                                 plain autograd
=========================  ====================================  ==============
:func:`conduct`            spectrum 1                            1
:func:`conv_linear`        input 1                               2
:func:`norm_conv_linear`   input 1                               3
:func:`norm_gate_linear`   field 1, gate 1                       5
:func:`mlp`                input 1, hidden r                     1 + 2 r
:func:`norm_mlp`           input 1, hidden r                     2 + 2 r
=========================  ====================================  ==============

with r the MLP ratio; a norm adds one number per token, 1 / deviation. What is kept for a norm is its input
normalised, without weight and bias: rounding the input itself could lose all of it where its mean is large.

Under autocast, products and saved maps are in autocast's dtype, weights and biases rounded to it and, unlike
in autocast, rounded anew in backward instead of kept; norms take their statistics in float32. Gradients have
the parameters' dtypes. Second derivatives are refused. A compiler plans its own
recomputation: give it plain operations instead.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from vheatbench.subjects.heat.cosines import dct2, idct2
from vheatbench.subjects.lean_pieces import (
    add,
    affine,
    aten,
    autocast_dtype,
    blocks,
    depthwise,
    depthwise_backward,
    norm_backward,
    normalise,
    product,
    rows,
    sum_rows,
    without_autocast,
)
from vheatbench.subjects.parts import part


def conduct(x: Tensor, decay: Tensor, cos_h: Tensor, cos_w: Tensor) -> Tensor:
    """Heat conduction: DCT-II over H and W, decay, inverse DCT.

    Args:
        x: field, shape (B, H, W, C); half of a (B, H, W, 2 C) map is taken as it lies, without a copy.
        decay: factor of every coefficient, shape (H, W, C).
        cos_h, cos_w: orthonormal DCT-II matrices of H and of W; they get no gradient.

    Returns:
        The field after conduction, shape (B, H, W, C).
    """
    return _Conduct.apply(x, decay, cos_h, cos_w, autocast_dtype(x))


def conv_linear(
    x: Tensor, conv_weight: Tensor, conv_bias: Tensor, weight: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor]:
    """Depthwise convolution, then a linear layer C to 2 C, in two halves that share no memory.

    Args:
        x: shape (B, H, W, C).
        conv_weight, conv_bias: shapes (C, 1, K, K) with K odd, and (C,); zero padding keeps H and W.
        weight, bias: shapes (2 C, C) and (2 C,).

    Returns:
        Field and gate, each (B, H, W, C): the outputs of the first and of the second half of ``weight``.
    """
    return _ConvLinear.apply(x, None, None, 0.0, conv_weight, conv_bias, weight, bias, autocast_dtype(x))


def norm_conv_linear(
    x: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    eps: float,
    conv_weight: Tensor,
    conv_bias: Tensor,
    weight: Tensor,
    bias: Tensor,
) -> tuple[Tensor, Tensor]:
    """:func:`conv_linear` of the LayerNorm of ``x`` over channels, with weight and bias of shape (C,)."""
    return _ConvLinear.apply(x, norm_weight, norm_bias, eps, conv_weight, conv_bias, weight, bias, autocast_dtype(x))


def norm_gate_linear(
    y: Tensor, gate: Tensor, norm_weight: Tensor, norm_bias: Tensor, eps: float, weight: Tensor, bias: Tensor
) -> Tensor:
    """``linear(layer_norm(y) * silu(gate))``, what follows conduction in the operator.

    Args:
        y, gate: shape (B, H, W, C). A gate that is half of a larger map keeps that whole map alive:
            :func:`conv_linear` returns one that does not.
        norm_weight, norm_bias, eps: of the LayerNorm over channels.
        weight, bias: shapes (C', C) and (C',).

    Returns:
        Shape (B, H, W, C').
    """
    return _NormGateLinear.apply(y, gate, norm_weight, norm_bias, eps, weight, bias, autocast_dtype(y))


def mlp(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
    """``linear2(gelu(linear1(x)))``.

    Args:
        x: shape (..., C).
        w1, b1: shapes (R, C) and (R,).
        w2, b2: shapes (C', R) and (C',).

    Returns:
        Shape (..., C').
    """
    return _Mlp.apply(x, None, None, 0.0, w1, b1, w2, b2, autocast_dtype(x))


def norm_mlp(
    x: Tensor, norm_weight: Tensor, norm_bias: Tensor, eps: float, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor
) -> Tensor:
    """:func:`mlp` of the LayerNorm of ``x`` over channels, with weight and bias of shape (C,)."""
    return _Mlp.apply(x, norm_weight, norm_bias, eps, w1, b1, w2, b2, autocast_dtype(x))


class _Conduct(Function):
    @staticmethod
    @without_autocast
    def forward(ctx: Any, x: Tensor, decay: Tensor, cos_h: Tensor, cos_w: Tensor, dtype: torch.dtype) -> Tensor:
        with part("dct"):
            spectrum = dct2(x.to(dtype), cos_h, cos_w)
        # the decay as it came: whoever made it keeps it, and rounding it again costs little
        ctx.save_for_backward(spectrum if ctx.needs_input_grad[1] else None, decay, cos_h, cos_w)
        with part("decay"):
            decayed = spectrum * decay.to(dtype)
        with part("idct"):
            return idct2(decayed, cos_h, cos_w)

    @staticmethod
    @without_autocast
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        spectrum, decay, cos_h, cos_w = ctx.saved_tensors
        d_spectrum = dct2(grad, cos_h, cos_w)
        dx = d_decay = None
        if ctx.needs_input_grad[1]:
            d_decay = sum_rows((spectrum * d_spectrum).flatten(1)).view(decay.shape)
        if ctx.needs_input_grad[0]:
            dx = idct2(d_spectrum.mul_(decay.to(grad.dtype)), cos_h, cos_w)
        return dx, d_decay, None, None, None


class _ConvLinear(Function):
    @staticmethod
    @without_autocast
    def forward(ctx: Any, x: Tensor, norm_weight: Any, norm_bias: Any, eps: float, *rest: Any) -> Any:
        conv_weight, conv_bias, weight, bias, dtype = rest
        ctx.x_dtype = x.dtype
        kept, rstd = (x.to(dtype).contiguous(), None) if norm_weight is None else normalise(x, eps, dtype)
        ctx.save_for_backward(kept, rstd, norm_weight, norm_bias, conv_weight, conv_bias, weight)
        n = kept if norm_weight is None else affine(kept, norm_weight, norm_bias)
        with part("dwconv"):
            c = depthwise(n, conv_weight, conv_bias)
        # two products: halves of one would keep each other's memory, and backward would have to join them
        half = weight.shape[0] // 2
        weight, bias = weight.to(dtype), bias.to(dtype)
        with part("linear"):
            field, gate = (
                product(rows(c), part_weight.t(), part_bias)
                for part_weight, part_bias in ((weight[:half], bias[:half]), (weight[half:], bias[half:]))
            )
            return field.view(*c.shape[:-1], half), gate.view(*c.shape[:-1], half)

    @staticmethod
    @without_autocast
    @once_differentiable
    def backward(ctx: Any, d_field: Tensor, d_gate: Tensor) -> Any:
        kept, rstd, norm_weight, norm_bias, conv_weight, conv_bias, weight = ctx.saved_tensors
        need_norm, need_conv, need_weight = ctx.needs_input_grad[:3], ctx.needs_input_grad[4:6], ctx.needs_input_grad[6]
        dx = d_norm_weight = d_norm_bias = d_conv_weight = d_conv_bias = d_weight = d_bias = None
        n = kept
        if norm_weight is not None and (need_weight or need_conv[0]):
            n = affine(kept, norm_weight, norm_bias)
        halves = rows(d_field), rows(d_gate)
        if need_weight:
            c = rows(depthwise(n, conv_weight, conv_bias))
            d_weight = torch.cat([product(half.t(), c) for half in halves])
        if ctx.needs_input_grad[7]:
            d_bias = torch.cat([sum_rows(half) for half in halves])
        if any(need_norm) or any(need_conv):
            upper, lower = weight.to(kept.dtype).chunk(2)
            dc = product(halves[0], upper).add_(product(halves[1], lower)).view(kept.shape)
            dx, d_conv_weight, d_conv_bias = depthwise_backward(dc, n, conv_weight, (any(need_norm), *need_conv))
            if norm_weight is not None and any(need_norm):
                dn, dx = dx, torch.empty_like(kept, dtype=ctx.x_dtype) if need_norm[0] else None
                into = None if dx is None else rows(dx)
                d_norm_weight, d_norm_bias = norm_backward(
                    rows(dn), rows(kept), rows(rstd), norm_weight, need_norm, into
                )
        return dx, d_norm_weight, d_norm_bias, None, d_conv_weight, d_conv_bias, d_weight, d_bias, None


class _NormGateLinear(Function):
    @staticmethod
    @without_autocast
    def forward(
        ctx: Any, y: Tensor, gate: Tensor, norm_weight: Tensor, norm_bias: Tensor, eps: float, *rest: Any
    ) -> Any:
        weight, bias, dtype = rest
        ctx.y_dtype = y.dtype
        with part("norm"):
            normed, rstd = normalise(y, eps, dtype)
        gate = gate.to(dtype)
        ctx.save_for_backward(normed, rstd, gate, norm_weight, norm_bias, weight)
        z, hat, turned, bias = rows(gate), rows(normed), weight.to(dtype).t(), bias.to(dtype)
        out = hat.new_empty(len(hat), weight.shape[0])
        for block in blocks(hat):
            with part("norm"):
                n = affine(hat[block], norm_weight, norm_bias)
            with part("gate"):
                gated = n.mul_(F.silu(z[block]))
            with part("out"):
                product(gated, turned, bias, out=out[block])
        return out.view(*y.shape[:-1], -1)

    @staticmethod
    @without_autocast
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        normed, rstd, gate, norm_weight, norm_bias, weight = ctx.saved_tensors
        need_y, need_gate, *need_affine, _, need_weight, need_bias, _ = ctx.needs_input_grad
        need_norm = (need_y, *need_affine)
        dtype = normed.dtype
        low_weight = weight.to(dtype)
        dy = torch.empty_like(normed, dtype=ctx.y_dtype) if need_y else None
        d_gate = torch.empty_like(normed) if need_gate else None
        d_norm_weight = d_norm_bias = d_weight = None
        g, hats, gates, rstds = rows(grad), rows(normed), rows(gate), rows(rstd)
        for block in blocks(g):
            n, opening = affine(hats[block], norm_weight, norm_bias), F.silu(gates[block])
            if need_weight:
                d_weight = add(d_weight, product(g[block].t(), n * opening))
            if need_gate or any(need_norm):
                d_gated = product(g[block], low_weight)
            if d_gate is not None:
                aten.silu_backward.grad_input(n.mul_(d_gated), gates[block], grad_input=rows(d_gate)[block])
            if any(need_norm):
                into = None if dy is None else rows(dy)[block]
                parts = norm_backward(d_gated.mul_(opening), hats[block], rstds[block], norm_weight, need_norm, into)
                d_norm_weight = add(d_norm_weight, parts[0]) if need_norm[1] else None
                d_norm_bias = add(d_norm_bias, parts[1]) if need_norm[2] else None
        d_bias = sum_rows(g) if need_bias else None
        return dy, d_gate, d_norm_weight, d_norm_bias, None, d_weight, d_bias, None


class _Mlp(Function):
    @staticmethod
    @without_autocast
    def forward(ctx: Any, x: Tensor, norm_weight: Any, norm_bias: Any, eps: float, *rest: Any) -> Any:
        w1, b1, w2, b2, dtype = rest
        ctx.x_dtype = dtype if norm_weight is None else x.dtype
        kept, rstd = (x.to(dtype).contiguous(), None) if norm_weight is None else normalise(x, eps, dtype)
        turned1, turned2, b1, b2 = w1.to(dtype).t(), w2.to(dtype).t(), b1.to(dtype), b2.to(dtype)
        ins = rows(kept)
        hidden = ins.new_empty(len(ins), len(b1))
        out = ins.new_empty(len(ins), len(b2))
        for block in blocks(ins):
            n = ins[block] if norm_weight is None else affine(ins[block], norm_weight, norm_bias)
            product(n, turned1, b1, out=hidden[block])
            product(F.gelu(hidden[block]), turned2, b2, out=out[block])
        ctx.save_for_backward(kept, rstd, hidden, norm_weight, norm_bias, w1, w2)
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    @without_autocast
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        kept, rstd, hidden, norm_weight, norm_bias, w1, w2 = ctx.saved_tensors
        need_norm, (need_w1, need_b1, need_w2, need_b2) = ctx.needs_input_grad[:3], ctx.needs_input_grad[4:8]
        dtype = kept.dtype
        low1, low2 = w1.to(dtype), w2.to(dtype)
        dx = torch.empty_like(kept, dtype=ctx.x_dtype) if need_norm[0] else None
        d_norm_weight = d_norm_bias = dw1 = db1 = dw2 = None
        g, ins = rows(grad), rows(kept)
        for block in blocks(g):
            h = hidden[block]
            # one buffer is the activation, then its gradient, then the gradient before GELU
            buffer = torch.empty_like(h)
            if need_w2:
                dw2 = add(dw2, product(g[block].t(), aten.gelu.out(h, out=buffer)))
            if not (any(need_norm) or need_w1 or need_b1):
                continue
            dh = product(g[block], low2)
            aten.gelu_backward.grad_input(dh, h, grad_input=dh)
            if need_b1:
                db1 = add(db1, sum_rows(dh))
            if need_w1:
                n = ins[block] if norm_weight is None else affine(ins[block], norm_weight, norm_bias)
                dw1 = add(dw1, product(dh.t(), n))
            if norm_weight is None and dx is not None:
                product(dh, low1, out=rows(dx)[block])
            elif any(need_norm):
                into = None if dx is None else rows(dx)[block]
                parts = norm_backward(product(dh, low1), ins[block], rows(rstd)[block], norm_weight, need_norm, into)
                d_norm_weight = add(d_norm_weight, parts[0]) if need_norm[1] else None
                d_norm_bias = add(d_norm_bias, parts[1]) if need_norm[2] else None
        db2 = sum_rows(g) if need_b2 else None
        return dx, d_norm_weight, d_norm_bias, None, dw1, db1, dw2, db2, None
