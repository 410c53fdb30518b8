"""The cosines of heat conduction: matrices of the DCT-II, their products with a map, and how frequencies decay."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from vheatbench.subjects.paths import is_traced


def cosine_matrix(n: int, dtype: torch.dtype = torch.float64, device: torch.device | str | None = None) -> Tensor:
    """Orthonormal DCT-II matrix D of shape (n, n): ``D @ u`` transforms, ``D.T @ U`` transforms back.

    D[f, i] = sqrt(2/n) cos(pi f (i + 1/2) / n), row 0 divided by sqrt 2. Built in float64 whatever
    ``dtype`` it is returned in, so that rounding happens once.
    """
    frequency = torch.arange(n, dtype=torch.float64, device=device)[:, None]
    position = torch.arange(n, dtype=torch.float64, device=device)[None, :]
    # n may be a symbol of a traced graph: it only divides tensors, because arithmetic with floats would fix it
    squared_scale = (1 + frequency.clamp(max=1)) / n  # 1/n for frequency 0, 2/n for the others
    return (torch.cos(frequency * (position + 0.5) * math.pi / n) * squared_scale.sqrt()).to(dtype)


@functools.lru_cache(maxsize=64)
def _cached_cosine_matrix(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    # a tensor made in inference mode could never be used in training, and this one outlives the call
    with torch.inference_mode(False):
        return cosine_matrix(n, dtype, device)


def cosines_for(x: Tensor) -> tuple[Tensor, Tensor]:
    """The cosine matrices of the grid of ``x`` (B, H, W, C), kept from call to call unless ``x`` is traced."""
    # a traced size is a symbol and a cached tensor a constant of the graph; and a fake or wrapped matrix
    # must not be kept for later calls
    build = cosine_matrix if is_traced(x) else _cached_cosine_matrix
    return build(x.shape[1], x.dtype, x.device), build(x.shape[2], x.dtype, x.device)


def squared_frequency(
    height: int, width: int, dtype: torch.dtype = torch.float64, device: torch.device | str | None = None
) -> Tensor:
    """Squared angular frequency (n pi / H)^2 + (m pi / W)^2 of every coefficient, shape (H, W)."""
    rows = torch.arange(height, dtype=torch.float64, device=device) * math.pi / height
    columns = torch.arange(width, dtype=torch.float64, device=device) * math.pi / width
    return (rows[:, None] ** 2 + columns[None, :] ** 2).to(dtype)


def heat_decay(k: Tensor) -> Tensor:
    """Decay of every coefficient, exp(-k w^2), for diffusivities ``k`` of shape (H, W, C)."""
    height, width = k.shape[0], k.shape[1]
    # float32 at least: in bfloat16 the exponent of the highest frequencies would be off by 8 %
    exponent = squared_frequency(height, width, torch.promote_types(k.dtype, torch.float32), k.device)
    return torch.exp(-exponent[:, :, None] * k).to(k.dtype)


def dct2(x: Tensor, cos_h: Tensor, cos_w: Tensor) -> Tensor:
    """Two-dimensional DCT-II of ``x`` (B, H, W, C) over H and W, by the cosine matrices of H and of W."""
    batch, height, width, channels = x.shape
    # W first: a batch of (W, C) matrices may have any row stride, so half of a wider map needs no copy
    x = torch.matmul(cos_w.to(x.dtype), x).reshape(batch, height, width * channels)
    return torch.matmul(cos_h.to(x.dtype), x).reshape(batch, height, width, channels)


def idct2(x: Tensor, cos_h: Tensor, cos_w: Tensor) -> Tensor:
    """Inverse of :func:`dct2`: the matrices are orthonormal, so their transposes undo them."""
    # transposed in memory: bfloat16 products with a transposed view take a quarter longer
    return dct2(x, cos_h.t().contiguous(), cos_w.t().contiguous())
