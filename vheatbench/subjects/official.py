"""The official formulation of vHeat, operation by operation: the baseline that every ratio is taken against.

The same mathematics and parameters as :class:`vheatbench.subjects.vheat.VHeat`, computed the way the
official implementation does it: maps in (B, C, H, W) with every norm and every operator between two
permutations and copies, the MLP as 1x1 convolutions, the transforms as 1-D convolutions. Written from the
description of the model; state dicts go from one to the other.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import torch.nn.functional as F
from timm.models import (
    checkpoint,
    generate_default_cfgs,
    model_entrypoint,
    register_model,
    register_notrace_module,
)
from torch import Tensor, nn

from vheatbench.subjects import vheat
from vheatbench.subjects.heat_operator import HeatOperator
from vheatbench.subjects.heat_stage import ConvNorm, HeatBlock, HeatStage, LayerScale, Stem
from vheatbench.subjects.parts import part


def _norm(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    """LayerNorm over the channels of x (B, C, H, W), through a copy in (B, H, W, C)."""
    x = norm(x.permute(0, 2, 3, 1).contiguous())
    return x.permute(0, 3, 1, 2).contiguous()


class OfficialConvNorm(ConvNorm):
    """Downsampling between stages, (B, C, H, W) to (B, C', H/2, W/2)."""

    def forward(self, x: Tensor) -> Tensor:
        return _norm(self.conv(x), self.norm)


@register_notrace_module
class OfficialOperator(HeatOperator):
    """The heat conduction operator on (B, C, H, W), by 1-D convolutions."""

    def __init__(self, dim: int, grid: tuple[int, int]) -> None:
        super().__init__(dim, grid, backend="official")

    def forward(self, x: Tensor, embedding: Tensor | None = None, *_: Any) -> Tensor:
        """Map x (B, C, H, W) to (B, C, H, W); ``embedding`` (H, W, C) is unused in the deploy form."""
        with part("dwconv"):
            x = self.dwconv(x)
        with part("linear"):
            field, gate = self.linear(x.permute(0, 2, 3, 1).contiguous()).chunk(2, dim=-1)
        with part("decay"):
            decay = self.decay_map(embedding)
        field = self.conduct(field, decay)
        with part("norm"):
            field = self.out_norm(field)
        with part("gate"):
            field = field * F.silu(gate)
        with part("out"):
            return self.out_linear(field).permute(0, 3, 1, 2).contiguous()

    def cosines(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The buffers wherever they fit: under autocast in float32 too, as the official code keeps them."""
        return (self.cos_h, self.cos_w) if (x.shape[1], x.shape[2]) == self.grid else super().cosines(x)


class OfficialBlock(HeatBlock):
    """Heat operator and MLP on (B, C, H, W), each with a residual."""

    operator = OfficialOperator

    def forward(self, x: Tensor, embedding: Tensor | None) -> Tensor:
        if self.post_norm:
            x = x + self.drop_path1(self._scaled(_norm(self.op(x, embedding), self.norm1), self.ls1))
            return x + self.drop_path2(self._scaled(_norm(self._convolved(x), self.norm2), self.ls2))
        x = x + self.drop_path1(self._scaled(self.op(_norm(x, self.norm1), embedding), self.ls1))
        return x + self.drop_path2(self._scaled(self._convolved(_norm(x, self.norm2)), self.ls2))

    @staticmethod
    def _scaled(x: Tensor, scale: nn.Module) -> Tensor:
        return x * scale.gamma[:, None, None] if isinstance(scale, LayerScale) else x

    def _convolved(self, x: Tensor) -> Tensor:
        """The MLP by 1x1 convolutions."""
        with part("mlp"):
            for layer in (self.mlp.fc1, self.mlp.fc2):
                x = F.conv2d(x, layer.weight[:, :, None, None], layer.bias)
                if layer is self.mlp.fc1:
                    x = self.mlp.act(x)
            return x


class OfficialStage(HeatStage):
    """Downsampling and blocks on (B, C, H, W)."""

    block = OfficialBlock
    conv_norm = OfficialConvNorm

    def forward(self, x: Tensor) -> Tensor:
        x = self.downsample(x)
        embedding = self.embedding(x.shape[2], x.shape[3])
        for block in self.blocks:
            x = checkpoint(block, x, embedding) if self.grad_checkpointing else block(x, embedding)
        return x

    def deploy(self, grid: tuple[int, int], fold: bool) -> None:
        """Every block keeps its decay; nothing is folded, as in the official code."""
        super().deploy(grid, fold=False)


class OfficialStem(Stem):
    """The stem in whatever memory format the images come."""

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.act(self.conv1(x)))


class OfficialVHeat(vheat.VHeat):
    """vHeat in the official formulation; takes and gives the state dicts of the others."""

    stem_type = OfficialStem
    stage_type = OfficialStage
    packs = False
    in_parts = False
    autocast_only = True
    """The official cosine maps stay float32 whatever the model is cast to, so that low precision works under
    autocast alone; it is measured that way."""

    def _norm(self, x: Tensor) -> Tensor:
        return _norm(x, self.norm) if isinstance(self.norm, nn.LayerNorm) else x


_NAMES = ("vheat_tiny", "vheat_small", "vheat_base", "test_vheat")

default_cfgs = generate_default_cfgs(
    {f"{name}_official.untrained": replace(vheat.default_cfgs[name].default) for name in _NAMES}
)


def _register(name: str) -> None:
    """Register ``{name}_official`` in timm, built as ``name`` is."""

    def create(pretrained: bool = False, **kwargs: Any) -> vheat.VHeat:
        return model_entrypoint(name)(pretrained=pretrained, cls=OfficialVHeat, **kwargs)

    create.__name__ = f"{name}_official"
    create.__module__ = __name__
    create.__doc__ = f"{name} in the official formulation, operation by operation: the baseline of ratios."
    setattr(sys.modules[__name__], create.__name__, create)
    register_model(create)


for _name in _NAMES:
    _register(_name)
