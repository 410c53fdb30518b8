"""The core of the heat operator by Triton kernels, as operators of torch that compile and differentiate.

The kernels are in :mod:`vheatbench.subjects.heat.kernels` and their tiles in
:mod:`vheatbench.subjects.heat.launches`; here is what surrounds them: which tensors they take, how launches
make up an operator, its gradients, and the formula for the FLOP counter. This module needs no Triton to be
imported: only a launch does.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from vheatbench.subjects.heat.cosines import cosine_matrix
from vheatbench.subjects.heat.launches import (
    PADS,
    Launch,
    column_launch,
    norm_gate_launch,
    pad_to,
    row_launch,
    row_norm_gate_launch,
    spectrum_product_launch,
    whole_grid_launch,
)

INSTALLED = importlib.util.find_spec("triton") is not None
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""Whether Triton's interpreter stands in for a GPU: for tests, thousands of times slower than anything else."""

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def unsupported(x: Tensor, decay: Tensor) -> str | None:
    """Why the kernels cannot run on ``x`` (B, H, W, C) and ``decay`` (H, W, C): one line, or None when they can.

    Tensors of the meta device are judged by shape and dtype alone.
    """
    for tensor, name in ((x, "x"), (decay, "decay")):
        if tensor.dtype not in DTYPES:
            return f"the Triton kernels take float32, float16 and bfloat16, and {name} is {tensor.dtype}"
    if x.shape[1] > PADS[-1] or x.shape[2] > PADS[-1]:
        return f"the Triton kernels take up to {PADS[-1]} tokens per side, not {x.shape[1]} x {x.shape[2]}"
    if x.device.type == "meta":
        return None
    if not INSTALLED:
        return "Triton is not installed"
    if x.device.type == "cuda":
        properties = torch.cuda.get_device_properties(x.device)
        if properties.major < 8:
            return f"the Triton kernels need compute capability 8.0, not {properties.major}.{properties.minor}"
        return None
    if not (INTERPRETED and x.device.type == "cpu"):
        return f"the Triton kernels run on CUDA devices, not on {x.device.type}"
    return None


def conduct(x: Tensor, decay: Tensor) -> Tensor:
    """IDCT(decay * DCT(x)): the core of the heat operator, differentiable in both arguments.

    The core is self-adjoint, so the gradient of x is the core of the gradient, by the same kernels; that of
    the decay is the product of two spectra summed over the batch. Only the spectrum of x is kept for it, and
    only where the decay asks for a gradient. The first call with a grid builds its cosine matrices: make one
    before a CUDA graph is captured.

    Args:
        x: field, shape (B, H, W, C), contiguous in C; may be a slice of a wider tensor's channels. float32
            products use TF32 where ``torch.backends.cuda.matmul`` allows it; all accumulate in float32.
        decay: factor of every coefficient, shape (H, W, C).

    Returns:
        The field after conduction, shape (B, H, W, C), contiguous, dtype of x.

    Raises:
        ValueError: shapes or devices that do not belong together. What :func:`unsupported` names is not checked.
    """
    keep_spectrum = torch.is_grad_enabled() and decay.requires_grad
    return _conduct_heat(x, decay, keep_spectrum)[0]


def conduct_norm_gate(
    x: Tensor, decay: Tensor, gate: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> Tensor:
    """LayerNorm over C of the core's output, times silu(gate), fused into its last pass.

    Where gradients are recorded, or one program cannot hold all channels of 16 tokens, norm and gate are
    torch's own, after :func:`conduct`.

    Args:
        x, gate: shape (B, H, W, C), contiguous in C; may be the two halves of one tensor.
        decay: shape (H, W, C).
        weight, bias: affine of the LayerNorm, shape (C,), or None.
        eps: epsilon of the LayerNorm.

    Returns:
        Shape (B, H, W, C), dtype of x; where norm and gate are torch's own, the dtype that they promote to.
    """
    tensors = [x, decay, gate, *(t for t in (weight, bias) if t is not None)]
    gradients = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    if gradients or not _norm_fits(x):
        return F.layer_norm(conduct(x, decay), x.shape[3:], weight, bias, eps) * F.silu(gate)
    return _conduct_norm_gate(x, decay, gate, weight, bias, eps)


def _norm_fits(x: Tensor) -> bool:
    return row_norm_gate_launch(PADS[0], x.shape[3], x.element_size()) is not None


@functools.lru_cache(maxsize=64)
def _cosines(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The DCT-II matrix of size n and its transpose, padded with zeros: shape (2, P, P)."""

    def build() -> Tensor:
        matrix = cosine_matrix(n, device="cpu")
        padding = (0, pad_to(n) - n) * 2
        return torch.stack([F.pad(matrix, padding), F.pad(matrix.t(), padding)]).to(device, dtype)

    # These tensors outlive the call, so they must be made in no inference mode and not in the memory pool of
    # a CUDA graph, which torch.compile's warm-up allocates from. Both are states of the calling thread.
    with ThreadPoolExecutor(max_workers=1) as executor:
        return executor.submit(build).result()


def _float32_precision() -> str:
    """``tf32`` or ``ieee``: what torch's own float32 matrix products use on a GPU."""
    matmul = torch.backends.cuda.matmul
    precision = getattr(matmul, "fp32_precision", None)  # before torch 2.9 there is only allow_tf32
    allowed = matmul.allow_tf32 if precision is None else precision == "tf32"
    return "tf32" if allowed else "ieee"


def _launch(
    kernel: Any, programs: tuple[int, ...], arguments: tuple[Any, ...], launch: Launch, **switches: Any
) -> None:
    """Run a kernel on the device of its first argument, which is a tensor."""
    with torch.cuda.device_of(arguments[0]):  # Triton launches on the current device
        kernel[programs](*arguments, **launch.tiles, **switches, **launch.options)


def _arithmetic() -> dict[str, Any]:
    """The switches of every kernel that multiplies."""
    return {"PRECISION": _float32_precision(), "WIDEN": INTERPRETED}


def _blocks(size: int, block: int) -> int:
    return -(-size // block)


def _check_sizes(x: Tensor, decay: Tensor) -> None:
    # a kernel would read past the end of a smaller map
    if x.ndim != 4 or decay.shape != x.shape[1:] or decay.device != x.device:
        raise ValueError(
            f"heat conduction of x {tuple(x.shape)} on {x.device} takes a decay (H, W, C) on the same device,"
            f" not {tuple(decay.shape)} on {decay.device}"
        )


def _channels_together(x: Tensor) -> Tensor:
    return x if x.stride(3) == 1 else x.contiguous()


def _whole_grid(x: Tensor, decay: Tensor, y: Tensor, spectrum: Tensor | None, launch: Launch) -> None:
    from vheatbench.subjects.heat.kernels import whole_grid_kernel

    batch, height, width, channels = x.shape
    cosines = (_cosines(n, x.dtype, x.device) for n in (height, width))
    sizes = (height, width, channels, *x.stride()[:3])
    arguments = (x, decay, *cosines, y, y if spectrum is None else spectrum, *sizes)
    programs = (batch * _blocks(channels, launch.tiles["CHANNELS"]),)
    _launch(whole_grid_kernel, programs, arguments, launch, **_arithmetic(), KEEP_SPECTRUM=spectrum is not None)


def _rows(x: Tensor, y: Tensor, inverse: bool) -> None:
    """DCT of every row, or its inverse; y may be x, because a program reads its rows before it writes them."""
    from vheatbench.subjects.heat.kernels import row_kernel

    batch, height, width, channels = x.shape
    launch = row_launch(pad_to(width), x.element_size())
    arguments = (x, _cosines(width, x.dtype, x.device), y, height, width, channels, *x.stride()[:3])
    programs = (batch * _blocks(height * channels, launch.tiles["BLOCK"]),)
    _launch(row_kernel, programs, arguments, launch, **_arithmetic(), INVERSE=inverse)


def _columns(x: Tensor, decay: Tensor, spectrum: Tensor | None) -> None:
    """DCT of every column, decay, inverse DCT, in place on a contiguous x."""
    from vheatbench.subjects.heat.kernels import column_kernel

    batch, height, width, channels = x.shape
    launch = column_launch(pad_to(height), x.element_size())
    cosines = _cosines(height, x.dtype, x.device)
    arguments = (x, decay, cosines, x, x if spectrum is None else spectrum, batch, height, width * channels)
    programs = (batch * _blocks(width * channels, launch.tiles["BLOCK"]),)
    _launch(column_kernel, programs, arguments, launch, **_arithmetic(), KEEP_SPECTRUM=spectrum is not None)


# Custom operators rather than traced kernels: opaque to torch.compile and torch.export, which therefore see
# one operator with a FLOP formula, and never symbolic sizes where a kernel wants numbers.


@torch.library.custom_op(
    "vheatbench::conduct_heat",
    mutates_args=(),
    schema="(Tensor x, Tensor decay, bool keep_spectrum) -> (Tensor, Tensor)",
)
def _conduct_heat(x: Tensor, decay: Tensor, keep_spectrum: bool) -> tuple[Tensor, Tensor]:
    """The field after conduction, and the spectrum of x or an empty tensor."""
    _check_sizes(x, decay)
    x, decay = _channels_together(x), decay.contiguous()
    y = x.new_empty(x.shape)
    spectrum = torch.empty_like(y) if keep_spectrum else None
    on_chip = whole_grid_launch(pad_to(x.shape[1]), pad_to(x.shape[2]), x.element_size())
    if on_chip is not None:
        _whole_grid(x, decay, y, spectrum, on_chip)
    else:
        _rows(x, y, inverse=False)
        _columns(y, decay, spectrum)
        _rows(y, y, inverse=True)
    return y, x.new_empty(0) if spectrum is None else spectrum


@_conduct_heat.register_fake
def _(x: Tensor, decay: Tensor, keep_spectrum: bool) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(x.shape if keep_spectrum else 0)


@torch.library.custom_op("vheatbench::spectrum_product", mutates_args=(), schema="(Tensor a, Tensor b) -> Tensor")
def _spectrum_product(a: Tensor, b: Tensor) -> Tensor:
    """Sum of a * b over the batch, float32: (B, H, W, C) twice to (H, W, C)."""
    from vheatbench.subjects.heat.kernels import spectrum_product_kernel

    a, b = a.contiguous(), b.contiguous()
    total = a.new_empty(a.shape[1:], dtype=torch.float32)
    launch = spectrum_product_launch()
    programs = (_blocks(total.numel(), launch.tiles["BLOCK"]),)
    _launch(spectrum_product_kernel, programs, (a, b, total, a.shape[0], total.numel()), launch)
    return total


@_spectrum_product.register_fake
def _(a: Tensor, b: Tensor) -> Tensor:
    return a.new_empty(a.shape[1:], dtype=torch.float32)


@torch.library.custom_op(
    "vheatbench::conduct_norm_gate",
    mutates_args=(),
    schema="(Tensor x, Tensor decay, Tensor gate, Tensor? weight, Tensor? bias, float eps) -> Tensor",
)
def _conduct_norm_gate(
    x: Tensor, decay: Tensor, gate: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> Tensor:
    from vheatbench.subjects.heat.kernels import norm_gate_kernel, row_norm_gate_kernel

    _check_sizes(x, decay)
    x, decay, gate = _channels_together(x), decay.contiguous(), _channels_together(gate)
    batch, height, width, channels = x.shape
    pad_h, pad_w, itemsize = pad_to(height), pad_to(width), x.element_size()
    field, y = x.new_empty(x.shape), x.new_empty(x.shape)
    sizes = (height, width, channels, *gate.stride()[:3], eps)
    affine = (x if weight is None else weight, x if bias is None else bias)
    switches: dict[str, Any] = {"WEIGHT": weight is not None, "BIAS": bias is not None}
    on_chip = whole_grid_launch(pad_h, pad_w, itemsize)
    if on_chip is not None:
        _whole_grid(x, decay, field, None, on_chip)
        launch = norm_gate_launch(channels, itemsize)
        programs = (batch * height, _blocks(width, launch.tiles["ROWS"]))
        _launch(norm_gate_kernel, programs, (field, gate, *affine, y, *sizes), launch, **switches)
    else:
        _rows(x, field, inverse=False)
        _columns(field, decay, None)
        fused = row_norm_gate_launch(pad_w, channels, itemsize)
        assert fused is not None, "conduct_norm_gate asked before"
        programs = (batch * height, _blocks(width, fused.tiles["ROWS"]))
        arguments = (field, _cosines(width, x.dtype, x.device), gate, *affine, y, *sizes)
        _launch(row_norm_gate_kernel, programs, arguments, fused, **_arithmetic(), **switches)
    return y


@_conduct_norm_gate.register_fake
def _(x: Tensor, decay: Tensor, gate: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    return x.new_empty(x.shape)


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, bool], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(inputs[1], output[1])


def _gradients(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, Tensor | None, None]:
    decay, spectrum = ctx.saved_tensors
    wanted = ctx.needs_input_grad[1]
    grad_x, grad_spectrum = _conduct_heat(grad, decay, wanted)
    grad_decay = _spectrum_product(spectrum, grad_spectrum).to(decay.dtype) if wanted else None
    return grad_x, grad_decay, None


_conduct_heat.register_autograd(_gradients, setup_context=_keep)


@register_flop_formula([torch.ops.vheatbench.conduct_heat, torch.ops.vheatbench.conduct_norm_gate])
def _conduct_flops(x_shape: Sequence[int], *args: Any, **kwargs: Any) -> int:
    """Four products with cosine matrices, 2 FLOPs per multiply-add; the decay and the norm are not products."""
    batch, height, width, channels = x_shape
    return 4 * batch * height * width * channels * (height + width)


@register_flop_formula(torch.ops.vheatbench.spectrum_product)
def _spectrum_product_flops(a_shape: Sequence[int], *args: Any, **kwargs: Any) -> int:
    batch, height, width, channels = a_shape
    return 2 * batch * height * width * channels
