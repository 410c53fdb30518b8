"""Parts of the vHeat backbone: stem, heat block, stage. Channels last inside a stage."""

from __future__ import annotations

from typing import cast

import torch
from timm.layers import DropPath, Mlp
from timm.models import checkpoint
from torch import Tensor, nn

from vheatbench.subjects.heat import FrequencyResize, HeatOperator, frequency_embedding, resize_frequencies


class ConvNorm(nn.Module):
    """Stride-2 3x3 convolution, then LayerNorm over channels: (B, C, H, W) to (B, C', H/2, W/2)."""

    def __init__(self, in_chans: int, out_chans: int, eps: float, bias: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_chans, out_chans, 3, stride=2, padding=1, bias=bias)
        self.norm = nn.LayerNorm(out_chans, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Stem(nn.Module):
    """Two :class:`ConvNorm` with a GELU between: images to (B, C, H/4, W/4)."""

    def __init__(self, in_chans: int, dim: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(in_chans, dim // 2, eps=1e-6, bias=True)
        self.act = nn.GELU()
        self.conv2 = ConvNorm(dim // 2, dim, eps=1e-6, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        # one small copy here keeps every later map channels last
        x = x.contiguous(memory_format=torch.channels_last)
        return self.conv2(self.act(self.conv1(x)))


class LayerScale(nn.Module):
    """A learned factor per channel, as timm's, kept here so that deploying can fold it."""

    def __init__(self, dim: int, init: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), init))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class HeatBlock(nn.Module):
    """Heat operator and MLP, each with a residual; norms before them or, ``post_norm``, after.

    x + path(op(norm(x))), then x + path(mlp(norm(x))); post-norm puts the norm, times the layer scale,
    after op and MLP (Swin V2's arrangement; vHeat-S and -B).
    """

    def __init__(
        self,
        dim: int,
        grid: tuple[int, int],
        mlp_ratio: float,
        drop_path: float,
        post_norm: bool,
        layer_scale: float | None,
    ) -> None:
        super().__init__()
        self.post_norm = post_norm
        self.norm1 = nn.LayerNorm(dim, eps=1e-5)
        self.op = HeatOperator(dim, grid)
        self.ls1 = LayerScale(dim, layer_scale) if layer_scale is not None else nn.Identity()
        self.drop_path1 = DropPath(drop_path) if drop_path else nn.Identity()
        self.norm2 = nn.LayerNorm(dim, eps=1e-5)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), act_layer=nn.GELU)
        self.ls2 = LayerScale(dim, layer_scale) if layer_scale is not None else nn.Identity()
        self.drop_path2 = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor | None) -> Tensor:
        if self.post_norm:
            x = x + self.drop_path1(self.ls1(self.norm1(self.op(x, embedding))))
            return x + self.drop_path2(self.ls2(self.norm2(self.mlp(x))))
        x = x + self.drop_path1(self.ls1(self.op(self.norm1(x), embedding)))
        return x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))


class HeatStage(nn.Module):
    """An optional downsampling, then blocks that share one frequency embedding."""

    def __init__(
        self,
        in_dim: int,
        dim: int,
        grid: tuple[int, int],
        drop_path: list[float],
        mlp_ratio: float,
        post_norm: bool,
        layer_scale: float | None,
        freq_resize: FrequencyResize,
    ) -> None:
        super().__init__()
        self.freq_resize: FrequencyResize = freq_resize
        self.grad_checkpointing = False
        self.downsample = nn.Identity() if in_dim == dim else ConvNorm(in_dim, dim, eps=1e-5, bias=False)
        self.freq_embed: nn.Parameter | None = frequency_embedding(grid, dim)
        self.blocks = nn.ModuleList(HeatBlock(dim, grid, mlp_ratio, rate, post_norm, layer_scale) for rate in drop_path)

    def _blocks(self) -> list[HeatBlock]:
        return cast("list[HeatBlock]", list(self.blocks))

    def embedding(self, height: int, width: int) -> Tensor | None:
        """The frequency embedding for a grid, shape (H, W, C); None in the deploy form."""
        if self.freq_embed is None:
            return None
        return resize_frequencies(self.freq_embed, (height, width), self.freq_resize)

    def forward(self, x: Tensor) -> Tensor:
        x = self.downsample(x).permute(0, 2, 3, 1)
        embedding = self.embedding(x.shape[1], x.shape[2])
        for block in self.blocks:
            if self.grad_checkpointing and not torch.jit.is_scripting():
                x = checkpoint(block, x, embedding)
            else:
                x = block(x, embedding)
        return x.permute(0, 3, 1, 2)

    def set_grid(self, grid: tuple[int, int]) -> None:
        """Resize the frequency embedding for good, so that no call has to."""
        assert self.freq_embed is not None
        with torch.no_grad():
            resized = resize_frequencies(self.freq_embed, grid, self.freq_resize)
        self.freq_embed = nn.Parameter(resized.clone(), requires_grad=self.freq_embed.requires_grad)
        for block in self._blocks():
            block.op.set_grid(grid)

    def deploy(self, grid: tuple[int, int]) -> None:
        """Every block keeps its decay for this grid instead of k and the embedding."""
        embedding = self.embedding(*grid)
        assert embedding is not None
        for block in self._blocks():
            block.op.deploy(embedding)
        self.freq_embed = None
