"""Heat conduction by the symmetry of cosines: half the multiplications of the plain products.

Even cosines are symmetric about the middle of the interval, odd ones antisymmetric. With s = u + reversed u
and d = u - reversed u over the first half, the even coefficients come from s alone and the odd ones from d:
two products of a quarter of the size instead of one (the first step of every fast cosine transform).
"""

from __future__ import annotations

import torch
from torch import Tensor

from vheatbench.subjects.parts import part


def conduct(x: Tensor, decay: Tensor, cos_h: Tensor, cos_w: Tensor) -> Tensor:
    """As :func:`vheatbench.subjects.heat.conduct.conduct_heat`, for x (B, H, W, C), decay (H, W, C), the cosine
    matrices of H and of W."""
    even_h, odd_h = _halves(cos_h)
    even_w, odd_w = _halves(cos_w)
    with part("dct"):
        spectra = [_forward(half, 1, even_h, odd_h) for half in _forward(x, 2, even_w, odd_w)]
    # spectra[m][n]: parity of the frequency over W, then over H; the decay is read where it lies
    with part("decay"):
        spectra = [
            [spectrum * decay[n::2, m::2] for n, spectrum in enumerate(by_height)]
            for m, by_height in enumerate(spectra)
        ]
    with part("idct"):
        halves = [_backward(even, odd, 1, even_h, odd_h) for even, odd in spectra]
        return _backward(halves[0], halves[1], 2, even_w, odd_w)


def _halves(cosines: Tensor) -> tuple[Tensor, Tensor]:
    """Even rows over the first half (with the middle), odd rows over the first half (without it)."""
    n = cosines.shape[0]
    return cosines[0::2, : (n + 1) // 2], cosines[1::2, : n // 2]


def _forward(x: Tensor, dim: int, even: Tensor, odd: Tensor) -> list[Tensor]:
    """Even and odd coefficients along H (dim 1) or W (dim 2)."""
    n = x.shape[dim]
    half = n // 2
    front, back = x.narrow(dim, 0, half), x.narrow(dim, n - half, half).flip(dim)
    total = front + back
    if n % 2:
        total = torch.cat([total, x.narrow(dim, half, 1)], dim)
    return [_product(even, total, dim), _product(odd, front - back, dim)]


def _backward(even_part: Tensor, odd_part: Tensor, dim: int, even: Tensor, odd: Tensor) -> Tensor:
    total, difference = _product(even.t(), even_part, dim), _product(odd.t(), odd_part, dim)
    half = odd.shape[1]
    front = total.narrow(dim, 0, half)
    # total may hold one value more than difference: the middle, which is its own mirror image
    middle = total.narrow(dim, half, total.shape[dim] - half)
    return torch.cat([front + difference, middle, (front - difference).flip(dim)], dim)


def _product(matrix: Tensor, x: Tensor, dim: int) -> Tensor:
    """``matrix`` times x (B, H, W, C) along H or W."""
    if dim == 2:
        return torch.matmul(matrix, x)
    batch, height, width, channels = x.shape
    out = torch.matmul(matrix, x.reshape(batch, height, width * channels))
    return out.view(batch, matrix.shape[0], width, channels)
