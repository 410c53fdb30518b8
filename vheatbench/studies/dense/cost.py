"""What a detector or segmenter costs by counting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from vheatbench.measure.fvcore_rules import count_by_rules


@dataclass(frozen=True)
class Cost:
    """Parameters and multiply-adds of one image."""

    params: int
    """Of everything that is trained, auxiliary heads included."""
    macs: float
    """As torch counts: convolutions and matrix products."""
    macs_fvcore: float
    """As fvcore counts: also norms, resizing and pooling. What papers print, as "FLOPs"."""
    attention_macs: float
    """The products of attention within both; 0 for a model without."""


def cost_of(model: nn.Module, forward: Callable[[], object]) -> Cost:
    """Count one forward pass of one image, on the meta device and in evaluation mode."""
    count = count_by_rules(model, forward)
    params = sum(p.numel() for p in model.parameters())
    return Cost(params, count.macs, count.macs_fvcore, count.attention_macs)
