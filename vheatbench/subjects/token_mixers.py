"""The token mixers beside heat conduction: global, window and linear attention, depthwise convolution.

Each has a core, which mixes tokens and nothing else, and a layer around it that maps
(B, H, W, C) to (B, H, W, C) with its projections, as the whole heat operator does.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from timm.layers import trunc_normal_
from torch import Tensor, nn

WINDOW = 7
"""Side of a window, Swin's (Liu et al., ICCV 2021, section 3.2)."""
KERNEL = 7
"""Side of the depthwise kernel, ConvNeXt's (Liu et al., CVPR 2022, section 2.5)."""
HEAD_DIM = 32
"""Channels of a head, Swin's; used for global and linear attention too, for like with like."""


class SoftmaxAttention(nn.Module):
    """softmax(q k^T / sqrt(d)) v by torch's scaled_dot_product_attention: 2 N^2 C multiply-adds.

    q, k, v and the result are (B, heads, N, d).
    """

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v)


class LinearAttention(nn.Module):
    """phi(q) (phi(k)^T v) / (phi(q) sum phi(k)) with phi(x) = elu(x) + 1: (2 d + 1) N C multiply-adds.

    Katharopoulos et al., "Transformers are RNNs", ICML 2020, section 3.2, not causal. Both sums over tokens
    are divided by N, which the quotient cancels, so that float16 does not overflow on large grids. q, k, v
    and the result are (B, heads, N, d).
    """

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        # half of the division before the sums, in the pass that computes phi, and half after them
        root = k.shape[-2] ** -0.5
        q, k = F.elu(q) + 1, torch.ops.aten.elu(k, 1.0, root) + root
        context = k.transpose(-2, -1) @ v * root
        # phi is positive, but underflows for very negative inputs
        normaliser = q @ (k.sum(dim=-2) * root).unsqueeze(-1) + 1e-6
        return q @ context / normaliser


class WindowAttention(nn.Module):
    """Softmax attention within windows of 7 x 7 cells: (B, H, W, 3 C) of q, k, v to (B, H, W, C).

    Cutting the grid into windows and putting it together again belong to the operator and are measured with
    it. As in Swin, a grid that is no multiple of the window is padded with zeros at its far ends, and
    attention runs on the padding too, unmasked: padded cells are keys of zeros here. Windows are not shifted.
    """

    def __init__(self, head_dim: int, window: int = WINDOW) -> None:
        super().__init__()
        self.head_dim, self.window = head_dim, window

    def forward(self, qkv: Tensor) -> Tensor:
        windows = to_windows(qkv, self.window)
        mixed = merge_heads(F.scaled_dot_product_attention(*split_heads(windows, self.head_dim)))
        return from_windows(mixed, self.window, (qkv.shape[1], qkv.shape[2]))


class DepthwiseConv(nn.Module):
    """7 x 7 convolution of every channel on its own, zero padding: 49 N C multiply-adds.

    Maps (B, H, W, C) to (B, H, W, C); torch sees it as a channels-last image.
    """

    def __init__(self, dim: int, bias: bool, kernel: int = KERNEL) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, kernel, padding=kernel // 2, groups=dim, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class AttentionLayer(nn.Module):
    """Linear C to 3 C, attention over all cells, linear C to C: ViT's layer (Dosovitskiy et al., ICLR 2021).

    ``core`` takes and returns (B, heads, N, d): softmax or linear attention.
    """

    def __init__(self, dim: int, head_dim: int, core: nn.Module) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.qkv = nn.Linear(dim, 3 * dim)
        self.core = core
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = split_heads(self.qkv(x.flatten(1, 2)), self.head_dim)
        return self.proj(merge_heads(self.core(q, k, v))).view(x.shape)


class WindowAttentionLayer(nn.Module):
    """Swin's window attention (section 3.2): cut, linear C to 3 C, attention with a learned bias for every
    relative position, linear C to C, put together.

    As in Swin the grid is padded and cut before the first linear layer, so padded cells pass both.
    """

    relative_position: Tensor

    def __init__(self, dim: int, head_dim: int, window: int = WINDOW) -> None:
        super().__init__()
        self.head_dim, self.window = head_dim, window
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.bias_table = nn.Parameter(trunc_normal_(torch.zeros((2 * window - 1) ** 2, dim // head_dim), std=0.02))
        self.register_buffer("relative_position", relative_position(window), persistent=False)

    def position_bias(self) -> Tensor:
        """The bias of every pair of cells of a window, (1, heads, cells, cells)."""
        return self.bias_table[self.relative_position].permute(2, 0, 1).contiguous().unsqueeze(0)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = split_heads(self.qkv(to_windows(x, self.window)), self.head_dim)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=self.position_bias())
        return from_windows(self.proj(merge_heads(mixed)), self.window, (x.shape[1], x.shape[2]))


class GatedConvLayer(nn.Module):
    """Linear C to 2 C, depthwise convolution of one half, times silu of the other, linear C to C.

    What is left of the heat operator's layer when a convolution takes the place of conduction and its norm; with
    another gate function it is the gated CNN of MambaOut (Yu and Wang, CVPR 2025, section 3.4).
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, 2 * dim)
        self.core = DepthwiseConv(dim, bias=True)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        field, gate = self.linear(x).chunk(2, dim=-1)
        return self.proj(self.core(field) * F.silu(gate))


def split_heads(qkv: Tensor, head_dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """(B, N, 3 C) to q, k, v of shape (B, heads, N, d): views, no copy."""
    batch, tokens, width = qkv.shape
    q, k, v = qkv.view(batch, tokens, 3, width // (3 * head_dim), head_dim).permute(2, 0, 3, 1, 4).unbind(0)
    return q, k, v


def merge_heads(x: Tensor) -> Tensor:
    """(B, heads, N, d) to (B, N, C); no copy where tokens lie before heads in memory."""
    return x.transpose(1, 2).flatten(2)


def to_windows(x: Tensor, window: int) -> Tensor:
    """(B, H, W, C), padded with zeros at the far ends, to (B windows, window^2, C)."""
    batch, height, width, channels = x.shape
    rows, columns = -(-height // window), -(-width // window)
    if (rows * window, columns * window) != (height, width):
        x = F.pad(x, (0, 0, 0, columns * window - width, 0, rows * window - height))
    x = x.view(batch, rows, window, columns, window, channels).transpose(2, 3)
    return x.reshape(batch * rows * columns, window * window, channels)


def from_windows(x: Tensor, window: int, grid: tuple[int, int]) -> Tensor:
    """Undo :func:`to_windows` for a grid of (height, width); the padding is cut off, without a copy."""
    height, width = grid
    rows, columns = -(-height // window), -(-width // window)
    x = x.view(-1, rows, columns, window, window, x.shape[-1]).transpose(2, 3)
    return x.reshape(-1, rows * window, columns * window, x.shape[-1])[:, :height, :width]


def relative_position(window: int) -> Tensor:
    """Row of the bias table for every pair of cells of a window, (window^2, window^2): 2 w - 1 offsets a side."""
    cells = torch.cartesian_prod(torch.arange(window), torch.arange(window))
    offset = cells[:, None] - cells[None, :] + window - 1
    return offset[..., 0] * (2 * window - 1) + offset[..., 1]
