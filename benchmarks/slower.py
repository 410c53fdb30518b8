"""The heat operator computed 40 times, and the same a little more often: what is slower by a known share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vheatbench.case import Case
from vheatbench.subjects.catalog import build

CALLS = 40
GRID = 28


class Repeated(nn.Module):
    """So many calls of the heat operator on a fixed input, whatever the images are."""

    def __init__(self, calls: int) -> None:
        super().__init__()
        with torch.device("cpu"):  # also where sizes are tried out, on the meta device
            self.operator = build(Case(subject="op/heat", resolution=GRID, part="layer", mode="infer")).model.eval()
            self.register_buffer("x", torch.randn(1, GRID, GRID, 96), persistent=False)
        self.calls = calls

    def forward(self, images: Tensor) -> Tensor:
        out = self.operator(self.x)
        for _ in range(self.calls - 1):
            out = self.operator(self.x)
        return out.mean((1, 2))


def as_it_is() -> nn.Module:
    """The operator as it is."""
    return Repeated(CALLS)


def again() -> nn.Module:
    """The same."""
    return Repeated(CALLS)


def more_5() -> nn.Module:
    """Computes 5 % more."""
    return Repeated(CALLS + CALLS // 20)


def more_10() -> nn.Module:
    """Computes 10 % more."""
    return Repeated(CALLS + CALLS // 10)


def more_20() -> nn.Module:
    """Computes 20 % more."""
    return Repeated(CALLS + CALLS // 5)
