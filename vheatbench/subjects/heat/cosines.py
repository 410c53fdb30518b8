"""The two-dimensional DCT-II and its inverse as matrix products, channels last."""

from __future__ import annotations

import torch
from torch import Tensor


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
