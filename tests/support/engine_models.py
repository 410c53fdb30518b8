"""Models for engines, found by ``module:function``: exported in a second, wrong in one way each."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vheatbench.subjects.packed import packed_linear, settle


class Tiny(nn.Module):
    """A convolution, a mean, a layer."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, padding=1)
        self.head = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.conv(x).relu().mean((2, 3)))


class Two(Tiny):
    """Two outputs, by name."""

    def forward(self, x: Tensor) -> Any:
        maps = self.conv(x)
        return {"maps": maps, "logits": self.head(maps.mean((2, 3)))}


class Noisy(Tiny):
    """Never the same twice."""

    def forward(self, x: Tensor) -> Any:
        return super().forward(x) + torch.randn(5, device=x.device)


class Undecided(Tiny):
    """Goes another way by what it sees, which no graph holds."""

    def forward(self, x: Tensor) -> Any:
        return super().forward(x if x.is_meta or x.sum() > 0 else -x)


class Heavy(Tiny):
    """64 MiB of weights, and maps of 4 MiB."""

    def __init__(self) -> None:
        super().__init__(width=4096)
        self.middle = nn.Linear(4096, 4096)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.middle(self.conv(x).relu().mean((2, 3))))


class Packed(Heavy):
    """With a second copy of its largest weight, once it has run."""

    def __init__(self) -> None:
        super().__init__()
        settle(self.eval())

    def forward(self, x: Tensor) -> Any:
        features = self.conv(x).relu().mean((2, 3))
        if not (x.is_meta or torch.compiler.is_compiling()):
            packed_linear(self.middle)
        return self.head(self.middle(features))


def tiny(**options: Any) -> nn.Module:
    return Tiny(**options)


def two() -> nn.Module:
    return Two()


def noisy() -> nn.Module:
    return Noisy()


def heavy() -> nn.Module:
    return Heavy()


def packed() -> nn.Module:
    return Packed()


def undecided() -> nn.Module:
    return Undecided()
