"""Parameters and multiply-adds of Mask R-CNN with a fixed number of regions, on the meta device.

What the heads cost depends on how many regions they are given, and a model with random weights finds
none at the usual threshold: its mask head would count nothing. The papers' counter runs the heads on 1000
regions for boxes and 100 for masks, and so does this one. Aligning regions and suppressing overlaps, which
no counter counts, are left out, and with them everything that depends on the data.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchvision.models.detection import MaskRCNN

from vheatbench.studies.dense.cost import Cost, cost_of
from vheatbench.subjects.detector import CHANNELS, mask_rcnn

BOX_REGIONS, MASK_REGIONS = 1000, 100
"""Per image: what the box head and the mask head are given."""
BOX_SIDE, MASK_SIDE = 7, 14
"""Cells of an aligned region."""
PAPER_SIZE = (800, 1280)
"""Height and width at which the papers count."""
META = torch.device("meta")


def forward_fixed(model: MaskRCNN, images: Tensor) -> tuple[Tensor, ...]:
    """Backbone, pyramid and every head once: box logits and deltas, mask logits, proposals' logits and deltas.

    Args:
        model: from :func:`vheatbench.subjects.detector.mask_rcnn`.
        images: normed, shape (B, 3, H, W).
    """
    levels = list(model.backbone(images).values())
    objectness, deltas = model.rpn.head(levels)
    heads: Any = model.roi_heads
    boxes = images.new_empty(len(images) * BOX_REGIONS, CHANNELS, BOX_SIDE, BOX_SIDE)
    masks = images.new_empty(len(images) * MASK_REGIONS, CHANNELS, MASK_SIDE, MASK_SIDE)
    logits, regression = heads.box_predictor(heads.box_head(boxes))
    return logits, regression, heads.mask_predictor(heads.mask_head(masks)), *objectness, *deltas


def count_detector(name: str, size: tuple[int, int] = PAPER_SIZE, **options: Any) -> Cost:
    """Count a Mask R-CNN in its training form at one size (height, width), batch 1.

    Raises:
        UserError: see :func:`vheatbench.subjects.detector.mask_rcnn`.
    """
    with META:
        model = mask_rcnn(name, size=size, **options).eval()
    return cost_of(model, lambda: forward_fixed(model, torch.empty(1, 3, *size, device=META)))
