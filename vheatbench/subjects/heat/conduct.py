"""Heat conduction on a grid: DCT-II, decay in frequency, inverse DCT, channels last, by several backends.

Theory: heat conduction du/dt = k (d2u/dx2 + d2u/dy2) on a rectangle whose border lets no heat through
(Neumann) has cosine eigenfunctions. A field transformed by the DCT-II therefore evolves coefficient by
coefficient, each decaying as exp(-k t w^2) with its squared angular frequency w^2. vHeat lets a network
predict k for every frequency and channel (Wang et al., "vHeat: Building Vision Models upon Heat
Conduction", CVPR 2025, sections 3 and 4). With N = H W tokens the four small matrix products cost
2 N (H + W) C multiply-adds, O(N^1.5) on a square grid.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from vheatbench.subjects import fused, lean_autograd, products
from vheatbench.subjects.heat import fft as heat_fft
from vheatbench.subjects.heat import symmetric as heat_symmetric
from vheatbench.subjects.heat import triton as heat_triton
from vheatbench.subjects.heat.cosines import cosines_for, dct2, idct2
from vheatbench.subjects.parts import part
from vheatbench.subjects.paths import path_for

SYMMETRIC_FROM = 256
"""Tokens per side from which the even/odd split pays for its extra passes in 16 bits (docs/performance.md)."""
TURNING_FROM = 40
"""Tokens per side from which float32 products on a CPU may go through :func:`vheatbench.subjects.fused.conduct`."""


def conduct_heat(
    x: Tensor, decay: Tensor, cos_h: Tensor | None = None, cos_w: Tensor | None = None, backend: str = "auto"
) -> Tensor:
    """The core of the operator: transform, decay, transform back.

    Args:
        x: field, shape (B, H, W, C); may be a slice of a wider tensor's channels.
        decay: factor of every coefficient, shape (H, W, C); see :func:`vheatbench.subjects.heat.cosines.heat_decay`.
        cos_h, cos_w: :func:`vheatbench.subjects.heat.cosines.cosine_matrix` of H and of W, if at hand.
        backend: one of :data:`BACKENDS`; ``auto`` chooses by :func:`choose_backend`.

    Returns:
        The field after conduction, shape (B, H, W, C).

    Raises:
        ValueError: an unknown backend, or one that cannot run here: the reason is in the message.
    """
    if backend == "auto":
        backend = choose_backend(x, decay)
    if backend not in _CONDUCT:
        raise ValueError(f"unknown backend {backend!r} of the heat operator: {', '.join(BACKENDS)}")
    if backend in _BY_COSINES and (cos_h is None or cos_w is None):
        cos_h, cos_w = cosines_for(x)
    return _CONDUCT[backend](x, decay, cos_h, cos_w)


def choose_backend(x: Tensor, decay: Tensor) -> str:
    """The backend that ``auto`` takes for ``x`` (B, H, W, C) and ``decay`` (H, W, C).

    On a CUDA device ``triton`` wherever its kernels take the shape; of float32 without TF32, which tensor
    cores do not multiply, only up to 32x32, where one kernel does everything. Otherwise ``symmetric`` in 16
    bits, without gradients, for sides of :data:`SYMMETRIC_FROM` tokens and more; ``matmul`` for the rest.
    """
    height, width = x.shape[1], x.shape[2]
    if x.device.type == "cuda" and heat_triton.unsupported(x, decay) is None:
        exact = x.dtype == torch.float32 and not torch.backends.cuda.matmul.allow_tf32
        if not exact or (height <= 32 and width <= 32):
            return "triton"
    if torch.compiler.is_compiling() or (torch.is_grad_enabled() and (x.requires_grad or decay.requires_grad)):
        return "matmul"
    large = height >= SYMMETRIC_FROM and width >= SYMMETRIC_FROM
    return "symmetric" if large and x.element_size() == 2 else "matmul"


def _by_convolutions(x: Tensor, decay: Tensor, cos_h: Tensor, cos_w: Tensor) -> Tensor:
    """The official formulation, literally: every product a 1-D convolution of kernel size 1.

    The axis to transform stands where convolutions have their channels. Kept as the reference and as the
    baseline of every ratio; its copies are part of it.
    """
    batch, height, width, channels = x.shape

    def rows(x: Tensor, matrix: Tensor) -> Tensor:
        return F.conv1d(x.contiguous().view(batch, height, width * channels), matrix.contiguous()[:, :, None])

    def columns(x: Tensor, matrix: Tensor) -> Tensor:
        return F.conv1d(x.contiguous().view(batch * height, width, channels), matrix.contiguous()[:, :, None])

    with part("dct"):
        spectrum = columns(rows(x, cos_h), cos_w).contiguous().view(batch, height, width, channels)
    with part("decay"):
        spectrum = torch.einsum("bnmc,nmc->bnmc", spectrum, decay)
    with part("idct"):
        x = columns(rows(spectrum, cos_h.t()), cos_w.t())
        return x.contiguous().view(batch, height, width, channels)


def _by_products(x: Tensor, decay: Tensor, cos_h: Tensor, cos_w: Tensor) -> Tensor:
    """Four matrix products; with gradients, a function that saves the spectrum alone."""
    path = path_for(x)
    if path == "lean" and (x.requires_grad or decay.requires_grad):
        return lean_autograd.conduct(x, decay, cos_h, cos_w)
    if path != "fused" or x.dtype != decay.dtype:
        with part("dct"):
            spectrum = dct2(x, cos_h, cos_w)
        with part("decay"):
            spectrum = spectrum * decay
        with part("idct"):
            return idct2(spectrum, cos_h, cos_w)
    batch, height, width, channels = x.shape
    large = x.dtype == torch.float32 and height * width >= TURNING_FROM**2
    if path == "fused" and large and products.transform() == "turned":
        return fused.conduct(x, decay, cos_h, cos_w)
    # two buffers back and forth: fresh memory costs a page fault every 4 KiB
    with part("dct"):
        a = torch.matmul(cos_w, x).view(batch, height, width * channels)
        b = torch.matmul(cos_h, a)
    with part("decay"):
        b.view(batch, height, width, channels).mul_(decay)
    with part("idct"):
        torch.matmul(cos_h.t(), b, out=a)
        out = b.view(batch, height, width, channels)
        return torch.matmul(cos_w.t(), a.view(batch, height, width, channels), out=out)


def _by_kernels(x: Tensor, decay: Tensor, cos_h: Tensor | None, cos_w: Tensor | None) -> Tensor:
    reason = heat_triton.unsupported(x, decay)
    if reason is not None:
        raise ValueError(f"backend 'triton' of the heat operator: {reason}")
    return heat_triton.conduct(x, decay)


_CONDUCT: dict[str, Callable[..., Tensor]] = {
    "official": _by_convolutions,
    "matmul": _by_products,
    "symmetric": heat_symmetric.conduct,
    "fft": heat_fft.conduct,
    "triton": _by_kernels,
}
_BY_COSINES = {"official", "matmul", "symmetric"}
BACKENDS = ("auto", *_CONDUCT)
"""Ways to compute the same: ``official`` (1-D convolutions), ``matmul``, ``symmetric`` (even and odd
frequencies apart, half the multiplications), ``fft`` (O(N log N)), ``triton`` (fused kernels)."""
