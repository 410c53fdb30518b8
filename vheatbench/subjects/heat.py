"""The heat conduction operator: DCT-II, decay in frequency, inverse DCT, channels last.

Theory: heat conduction du/dt = k (d2u/dx2 + d2u/dy2) on a rectangle whose border lets no heat through
(Neumann) has cosine eigenfunctions. A field transformed by the DCT-II therefore evolves coefficient by
coefficient, each decaying as exp(-k t w^2) with its squared angular frequency w^2. vHeat lets a network
predict k for every frequency and channel (Wang et al., "vHeat: Building Vision Models upon Heat
Conduction", CVPR 2025, sections 3 and 4). With N = H W tokens the four small matrix products cost
2 N (H + W) C multiply-adds, O(N^1.5) on a square grid.
"""

from __future__ import annotations

import functools
import math
from typing import Literal

import torch
import torch.nn.functional as F
from timm.layers import trunc_normal_
from timm.models import register_notrace_function, register_notrace_module
from torch import Tensor, nn

FrequencyResize = Literal["bicubic", "zeropad"]


def cosine_matrix(n: int, dtype: torch.dtype = torch.float64, device: torch.device | str | None = None) -> Tensor:
    """Orthonormal DCT-II matrix D of shape (n, n): ``D @ u`` transforms, ``D.T @ U`` transforms back.

    D[f, i] = sqrt(2/n) cos(pi f (i + 1/2) / n), row 0 divided by sqrt 2. Built in float64 whatever
    ``dtype`` it is returned in, so that rounding happens once.
    """
    frequency = torch.arange(n, dtype=torch.float64, device=device)[:, None]
    position = torch.arange(n, dtype=torch.float64, device=device)[None, :]
    matrix = torch.cos(math.pi / n * frequency * (position + 0.5)) * math.sqrt(2 / n)
    return torch.where(frequency == 0, matrix * math.sqrt(0.5), matrix).to(dtype)


def squared_frequency(
    height: int, width: int, dtype: torch.dtype = torch.float64, device: torch.device | str | None = None
) -> Tensor:
    """Squared angular frequency (n pi / H)^2 + (m pi / W)^2 of every coefficient, shape (H, W)."""
    rows = torch.arange(height, dtype=torch.float64, device=device) * (math.pi / height)
    columns = torch.arange(width, dtype=torch.float64, device=device) * (math.pi / width)
    return (rows[:, None] ** 2 + columns[None, :] ** 2).to(dtype)


def heat_decay(k: Tensor) -> Tensor:
    """Decay of every coefficient, exp(-k w^2), for diffusivities ``k`` of shape (H, W, C)."""
    height, width = k.shape[0], k.shape[1]
    # float32 at least: in bfloat16 the exponent of the highest frequencies would be off by 8 %
    exponent = squared_frequency(height, width, torch.promote_types(k.dtype, torch.float32), k.device)
    return torch.exp(-exponent[:, :, None] * k).to(k.dtype)


def dct2(x: Tensor, cos_h: Tensor, cos_w: Tensor) -> Tensor:
    """Two-dimensional DCT-II of ``x`` (B, H, W, C) over H and W."""
    batch, height, width, channels = x.shape
    x = torch.matmul(cos_h, x.reshape(batch, height, width * channels))
    return torch.matmul(cos_w, x.view(batch, height, width, channels))


def idct2(x: Tensor, cos_h: Tensor, cos_w: Tensor) -> Tensor:
    """Inverse of :func:`dct2`: the matrices are orthonormal, so their transposes undo them."""
    return dct2(x, cos_h.t(), cos_w.t())


def conduct_heat(x: Tensor, decay: Tensor, cos_h: Tensor, cos_w: Tensor) -> Tensor:
    """The core of the operator: transform, decay, transform back.

    Args:
        x: field, shape (B, H, W, C).
        decay: factor of every coefficient, shape (H, W, C); see :func:`heat_decay`.
        cos_h, cos_w: :func:`cosine_matrix` of H and of W.

    Returns:
        The field after conduction, shape (B, H, W, C).
    """
    return idct2(dct2(x, cos_h, cos_w) * decay, cos_h, cos_w)


@register_notrace_function
def resize_frequencies(embedding: Tensor, grid: tuple[int, int], how: FrequencyResize) -> Tensor:
    """Frequency embedding (H, W, C) for another grid.

    ``bicubic`` interpolates over frequency, as the official detection code does at run time. ``zeropad``
    keeps every learned low frequency where it is and pads zeros at the high end (or cuts the high end
    off for a smaller grid), as the official ``interpolate4downstream`` prepares its weights.
    """
    height, width = embedding.shape[0], embedding.shape[1]
    new_height, new_width = int(grid[0]), int(grid[1])
    if (height, width) == (new_height, new_width):
        return embedding
    if how == "zeropad":
        return F.pad(embedding, (0, 0, 0, new_width - width, 0, new_height - height))
    if how != "bicubic":
        raise ValueError(f"unknown frequency resizing {how!r}: 'bicubic' or 'zeropad'")
    image = embedding.permute(2, 0, 1)[None]
    resized = F.interpolate(image.float(), size=(new_height, new_width), mode="bicubic", align_corners=False)
    return resized[0].permute(1, 2, 0).to(embedding.dtype)


@functools.lru_cache(maxsize=32)
def _cached_cosine_matrix(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    # a tensor made in inference mode could never be used in training, and this one outlives the call
    with torch.inference_mode(False):
        return cosine_matrix(n, dtype, device)


@register_notrace_module
class HeatOperator(nn.Module):
    """Heat conduction operator of vHeat (paper, section 4.2), channels last.

    depthwise conv 3x3 -> linear C to 2C, split into field u and gate z -> heat conduction of u with
    k = relu(linear(frequency embedding)) -> LayerNorm -> times silu(z) -> linear C to C.
    """

    cos_h: Tensor
    cos_w: Tensor

    def __init__(self, dim: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.linear = nn.Linear(dim, 2 * dim)
        self.to_k: nn.Module | None = nn.Sequential(nn.Linear(dim, dim), nn.ReLU())
        self.decay: nn.Parameter | None = None
        self.out_norm = nn.LayerNorm(dim, eps=1e-5)
        self.out_linear = nn.Linear(dim, dim)
        self.set_grid(grid)

    def set_grid(self, grid: tuple[int, int]) -> None:
        """Keep the cosine matrices of this grid at hand; other grids build theirs when they come."""
        weight = self.out_norm.weight
        self.grid = (int(grid[0]), int(grid[1]))
        for name, n in zip(("cos_h", "cos_w"), self.grid, strict=True):
            self.register_buffer(name, cosine_matrix(n, weight.dtype, weight.device), persistent=False)

    def _apply(self, fn, recurse=True):  # type: ignore[no-untyped-def]
        super()._apply(fn, recurse)
        # A cosine rounded to float32 and widened again is no float64 cosine, and ``to_empty`` leaves
        # non-persistent buffers undefined: build them anew instead of converting them.
        self.set_grid(self.grid)
        return self

    def diffusivity(self, embedding: Tensor) -> Tensor:
        """k >= 0 for every frequency and channel, shape (H, W, C), in cells squared."""
        assert self.to_k is not None, "the deploy form keeps the decay, not k"
        return self.to_k(embedding)

    def deploy(self, embedding: Tensor) -> None:
        """Replace k by the decay it leads to on the embedding's grid (H, W, C); in place."""
        if self.to_k is None:
            return
        with torch.no_grad():
            decay = heat_decay(self.diffusivity(embedding))
        self.decay = nn.Parameter(decay, requires_grad=False)
        self.to_k = None
        self.set_grid((embedding.shape[0], embedding.shape[1]))

    def cosines(self, height: int, width: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """The two cosine matrices of a grid, from the buffers where they fit."""
        if (height, width) == self.grid:
            return self.cos_h, self.cos_w
        return (
            _cached_cosine_matrix(height, self.cos_h.dtype, like.device),
            _cached_cosine_matrix(width, self.cos_w.dtype, like.device),
        )

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        """Map x (B, H, W, C) to (B, H, W, C); ``embedding`` (H, W, C) is unused in the deploy form."""
        x = self.dwconv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        field, gate = self.linear(x).chunk(2, dim=-1)
        decay: Tensor | None = self.decay
        if decay is None:
            assert embedding is not None
            decay = heat_decay(self.diffusivity(embedding))
        cos_h, cos_w = self.cosines(x.shape[1], x.shape[2], x)
        field = conduct_heat(field, decay, cos_h, cos_w)
        return self.out_linear(self.out_norm(field) * F.silu(gate))


def frequency_embedding(grid: tuple[int, int], dim: int) -> nn.Parameter:
    """A fresh frequency embedding of shape (H, W, C), truncated normal with standard deviation 0.02."""
    return nn.Parameter(trunc_normal_(torch.zeros(*grid, dim), std=0.02))
