"""Parts of the vHeat backbone: stem, heat block, stage. Channels last inside a stage."""

from __future__ import annotations

from typing import cast

import torch
from timm.layers import DropPath, Mlp
from timm.models import checkpoint, register_notrace_module
from torch import Tensor, nn

from vheatbench.subjects import fused, lean_autograd
from vheatbench.subjects.heat_operator import FrequencyResize, HeatOperator, frequency_embedding, resize_frequencies
from vheatbench.subjects.parts import part
from vheatbench.subjects.paths import Path, has_hooks, path_for


class ConvNorm(nn.Module):
    """Stride-2 3x3 convolution, then LayerNorm over channels: (B, C, H, W) to (B, C', H/2, W/2)."""

    def __init__(self, in_chans: int, out_chans: int, eps: float, bias: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_chans, out_chans, 3, stride=2, padding=1, bias=bias)
        self.norm = nn.LayerNorm(out_chans, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        x = fused.convolution(x, self.conv) if path_for(x, self.conv) == "fused" else self.conv(x)
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


@register_notrace_module  # what is inside depends on mode and device: traced through, a graph would keep one way of it
class HeatBlock(nn.Module):
    """Heat operator and MLP, each with a residual; norms before them or, ``post_norm``, after.

    x + path(op(norm(x))), then x + path(mlp(norm(x))); post-norm puts the norm, times the layer scale,
    after op and MLP (Swin V2's arrangement; vHeat-S and -B).
    """

    operator: type[HeatOperator] = HeatOperator

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
        self.op = self.operator(dim, grid)
        self.ls1 = LayerScale(dim, layer_scale) if layer_scale is not None else nn.Identity()
        self.drop_path1 = DropPath(drop_path) if drop_path else nn.Identity()
        self.norm2 = nn.LayerNorm(dim, eps=1e-5)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), act_layer=nn.GELU)
        self.ls2 = LayerScale(dim, layer_scale) if layer_scale is not None else nn.Identity()
        self.drop_path2 = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor | None) -> Tensor:
        if self.post_norm:
            x = x + self.drop_path1(self.ls1(self.norm1(self.op(x, embedding))))
            return x + self.drop_path2(self.ls2(self.norm2(self._mlp(x))))
        # without anything between layer and residual, the layer's last product may add it
        if _is_nothing(self.ls1, self.drop_path1) and not has_hooks(self.op):
            x = self.op(x, embedding, self.norm1, residual=x)
        else:
            x = x + self.drop_path1(self.ls1(self._op(x, embedding)))
        if _is_nothing(self.ls2, self.drop_path2):
            return self._mlp(x, self.norm2, residual=x)
        return x + self.drop_path2(self.ls2(self._mlp(x, self.norm2)))

    def _op(self, x: Tensor, embedding: Tensor | None) -> Tensor:
        """``op(norm1(x))``; whoever listens to the operator hears its input, not the norm's."""
        return self.op(self.norm1(x), embedding) if has_hooks(self.op) else self.op(x, embedding, self.norm1)

    def _mlp(self, x: Tensor, norm: nn.LayerNorm | None = None, residual: Tensor | None = None) -> Tensor:
        """``mlp(norm(x)) + residual`` by the path that suits."""
        # the layers are used without calling the MLP: only where that leaves nothing out
        own = (
            type(self.mlp) is Mlp
            and not has_hooks(self.mlp)
            and _is_nothing(self.mlp.drop1, self.mlp.norm, self.mlp.drop2)
        )
        path: Path = "plain"
        if own:
            fc1, fc2 = cast(nn.Linear, self.mlp.fc1), cast(nn.Linear, self.mlp.fc2)
            path = path_for(x, *(() if norm is None else (norm,)), fc1, fc2, self.mlp.act)
        if path == "lean":
            with part("mlp"):
                layers = cast("tuple[Tensor, Tensor, Tensor, Tensor]", (fc1.weight, fc1.bias, fc2.weight, fc2.bias))
                if norm is None:
                    out = lean_autograd.mlp(x, *layers)
                else:
                    out = lean_autograd.norm_mlp(x, norm.weight, norm.bias, norm.eps, *layers)
                return out if residual is None else out + residual
        if norm is not None:
            with part("block norm"):
                x = fused.layer_norm(x, norm) if path == "fused" else norm(x)
        with part("mlp"):
            if path == "fused":
                return fused.mlp(x, fc1, fc2, residual)
            if own and torch.compiler.is_compiling():
                out = fused.traced_linear(fc2, self.mlp.act(fused.traced_linear(fc1, x)))
            else:
                out = self.mlp(x)
            return out if residual is None else out + residual

    @torch.no_grad()
    def fold(self) -> None:
        """Move layer scales, and the affine part of the norm before the MLP, into their neighbours; in place.

        Exact up to rounding. A norm before the operator stays: its bias would have to pass the zero padding
        of the depthwise convolution.
        """
        norms, layers = (self.norm1, self.norm2), (self.op.out_linear, cast(nn.Linear, self.mlp.fc2))
        for i, scale in enumerate((self.ls1, self.ls2)):
            if isinstance(scale, LayerScale):
                target: nn.LayerNorm | nn.Linear = norms[i] if self.post_norm else layers[i]
                gamma = scale.gamma.double()
                target.weight.copy_(target.weight.double() * (gamma if self.post_norm else gamma[:, None]))
                target.bias.copy_(target.bias.double() * gamma)
        self.ls1 = self.ls2 = nn.Identity()
        if not self.post_norm:
            norm, linear = self.norm2, cast(nn.Linear, self.mlp.fc1)
            weight = linear.weight.double()
            linear.bias.add_((weight @ norm.bias.double()).to(linear.bias.dtype))
            linear.weight.copy_(weight * norm.weight.double())
            self.norm2 = nn.LayerNorm(norm.normalized_shape, eps=norm.eps, elementwise_affine=False)


def _is_nothing(*modules: nn.Module) -> bool:
    """Whether none of the modules changes anything now, and nobody listens to them."""
    return not has_hooks(*modules) and all(
        isinstance(m, nn.Identity)
        or (isinstance(m, DropPath) and not m.training)
        or (isinstance(m, nn.Dropout) and (m.p == 0 or not m.training))
        for m in modules
    )


class HeatStage(nn.Module):
    """An optional downsampling, then blocks that share one frequency embedding."""

    conv_norm: type[ConvNorm] = ConvNorm
    block: type[HeatBlock] = HeatBlock

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
        self.downsample = nn.Identity() if in_dim == dim else self.conv_norm(in_dim, dim, eps=1e-5, bias=False)
        self.freq_embed: nn.Parameter | None = frequency_embedding(grid, dim)
        self.blocks = nn.ModuleList(
            self.block(dim, grid, mlp_ratio, rate, post_norm, layer_scale) for rate in drop_path
        )

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

    def deploy(self, grid: tuple[int, int], fold: bool) -> None:
        """Every block keeps its decay for this grid instead of k and the embedding; ``fold``: see there."""
        embedding = self.embedding(*grid)
        assert embedding is not None
        for block in self._blocks():
            block.op.deploy(embedding, fold)
            if fold:
                block.fold()
        self.freq_embed = None
