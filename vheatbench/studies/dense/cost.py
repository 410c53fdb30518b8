"""What detectors and segmenters cost by counting: parameters and multiply-adds of one image, on the meta device.

What the heads of Mask R-CNN cost depends on how many regions they are given, and a model with random weights finds
none at the usual threshold: its mask head would count nothing. The papers' counter runs the heads on 1000
regions for boxes and 100 for masks, and so does this one. Aligning regions and suppressing overlaps, which
no counter counts, are left out, and with them everything that depends on the data.

Of UperNet the parameters are counted with the auxiliary head, the multiply-adds without it, as the papers have them. By
fvcore's rules they are 0.8 G over the count of mmsegmentation's UperNet, because this one also enlarges the logits to
the size of the image and passes the finest map through a resizing to its own size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from vheatbench.measure.fvcore_rules import count_by_rules
from vheatbench.subjects.dense import UperNet, forward_fixed, mask_rcnn
from vheatbench.subjects.meta import on_meta

META = torch.device("meta")
DETECTION_SIZE = (800, 1280)
"""Height and width at which the papers count detectors."""
SEGMENTATION_SIZE = (512, 2048)
"""Height and width at which the papers count segmenters."""


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


def count_detector(name: str, size: tuple[int, int] = DETECTION_SIZE, **options: Any) -> Cost:
    """Count a Mask R-CNN in its training form at one size (height, width), batch 1.

    Raises:
        UserError: see :func:`vheatbench.subjects.dense.mask_rcnn`.
    """
    with on_meta():
        model = mask_rcnn(name, size=size, **options).eval()
    return cost_of(model, lambda: forward_fixed(model, torch.empty(1, 3, *size, device=META)))


def count_segmenter(name: str, size: tuple[int, int] = SEGMENTATION_SIZE, **options: Any) -> Cost:
    """Count an UperNet in its training form at one size (height, width), batch 1.

    Raises:
        UserError: see :class:`vheatbench.subjects.dense.UperNet`.
    """
    with on_meta():
        model = UperNet(name, size=size, **options).eval()
    return cost_of(model, lambda: model(torch.empty(1, 3, *size, device=META)))
