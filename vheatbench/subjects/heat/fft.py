"""Heat conduction by the fast Fourier transform: O(N log N) multiplications instead of O(N^1.5).

A DCT-II of length n is a real FFT of the same length over the reordered sequence x0 x2 x4 ... x5 x3 x1,
followed by a rotation of every coefficient (Makhoul, "A fast cosine transform in one and two dimensions",
IEEE Transactions on Acoustics, Speech and Signal Processing, 1980).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vheatbench.subjects.parts import part


def conduct(x: Tensor, decay: Tensor, cos_h: object = None, cos_w: object = None) -> Tensor:
    """As :func:`vheatbench.subjects.heat.conduct.conduct_heat`, for x (B, H, W, C) and decay (H, W, C).

    Low precision is transformed in float32: there is no FFT in bfloat16. The cosine matrices are not used.
    """
    if not x.numel():
        return x.clone()  # MKL refuses an empty transform
    wide = torch.promote_types(x.dtype, torch.float32)
    with part("dct"):
        spectrum = dct(dct(x.to(wide), 2), 1)
    with part("decay"):
        spectrum = spectrum * decay.to(wide)
    with part("idct"):
        return idct(idct(spectrum, 1), 2).to(x.dtype)


def dct(x: Tensor, dim: int) -> Tensor:
    """Orthonormal DCT-II along one dimension of a float32 or float64 tensor."""
    n = x.shape[dim]
    x = x.movedim(dim, -1)
    v = torch.fft.rfft(torch.cat([x[..., ::2], x[..., 1::2].flip(-1)], dim=-1))
    v = v * _rotation(n, v.shape[-1], -1, v)
    # coefficient n - k is minus the imaginary part of coefficient k
    tail = -v.imag[..., 1 : n - v.shape[-1] + 1].flip(-1)
    return (torch.cat([v.real, tail], dim=-1) * _norm(n, x)).movedim(-1, dim)


def idct(x: Tensor, dim: int) -> Tensor:
    """Inverse of :func:`dct`."""
    n = x.shape[dim]
    x = x.movedim(dim, -1) / _norm(n, x)
    half = n // 2 + 1
    # X[n - k] for k = 0 ... n // 2, with X[n] = 0
    mirrored = torch.cat([torch.zeros_like(x[..., :1]), x[..., n - half + 1 :].flip(-1)], dim=-1)
    v = torch.complex(x[..., :half], -mirrored)
    v = torch.fft.irfft(v * _rotation(n, half, 1, v), n=n)
    out = torch.empty_like(v)
    out[..., ::2] = v[..., : (n + 1) // 2]
    out[..., 1::2] = v[..., (n + 1) // 2 :].flip(-1)
    return out.movedim(-1, dim)


def _rotation(n: int, length: int, sign: int, like: Tensor) -> Tensor:
    """exp(sign i pi k / 2n) for k = 0 ... length - 1."""
    angle = torch.arange(length, dtype=torch.float64, device=like.device) * (sign * math.pi / (2 * n))
    return torch.polar(torch.ones_like(angle), angle).to(like.dtype)


def _norm(n: int, like: Tensor) -> Tensor:
    scale = torch.full((n,), math.sqrt(2 / n), dtype=torch.float64, device=like.device)
    scale[0] = math.sqrt(1 / n)
    return scale.to(like.dtype)
