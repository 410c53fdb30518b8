"""Mask R-CNN of torchvision over a timm backbone, sized as in the vHeat and Swin papers."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

from vheatbench.subjects.backbone import StageMaps

COCO_CLASSES = 81
"""80 and the background."""
CHANNELS = 256
"""Of every level of the pyramid."""
BOX_REGIONS, MASK_REGIONS = 1000, 100
"""Per image: what the box head and the mask head are given where nothing may depend on data."""
BOX_SIDE, MASK_SIDE = 7, 14
"""Cells of an aligned region."""
ANCHORS = (32, 64, 128, 256, 512)
"""Side in pixels of the square anchor of each level."""


class Pyramid(nn.Module):
    """Normed stage maps, then a feature pyramid: five levels at strides 4 to 64."""

    def __init__(self, maps: StageMaps) -> None:
        super().__init__()
        self.maps = maps
        self.fpn = FeaturePyramidNetwork(maps.channels, CHANNELS, extra_blocks=LastLevelMaxPool())
        self.out_channels = CHANNELS

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Images (B, 3, H, W) to levels (B, 256, H / stride, W / stride) by name: "0" to "3" and "pool"."""
        return self.fpn(OrderedDict((str(i), x) for i, x in enumerate(self.maps(images))))


def mask_rcnn(
    name: str,
    classes: int = COCO_CLASSES,
    size: tuple[int, int] | None = None,
    backbone: dict[str, Any] | None = None,
    anchors: tuple[int, ...] = ANCHORS,
    **options: Any,
) -> MaskRCNN:
    """Mask R-CNN (He et al., 2017) with a feature pyramid of 256 channels, random weights.

    Args:
        name: backbone, an alias such as ``vheat-t`` or a timm name.
        classes: the background included.
        size: height and width of all images, if they have one.
        backbone: further arguments of the timm model, e.g. ``{"drop_path_rate": 0.1}``.
        anchors: sides of the anchors in pixels, one for each level.
        options: of torchvision's ``MaskRCNN``: ``min_size`` (800), ``max_size`` (1333), score thresholds, ...

    Raises:
        UserError: a backbone that is unknown or has no maps at strides 4, 8, 16, 32.
    """
    pyramid = Pyramid(StageMaps(name, size, **(backbone or {})))
    generator = AnchorGenerator(tuple((side,) for side in anchors), ((0.5, 1.0, 2.0),) * len(anchors))
    return MaskRCNN(pyramid, num_classes=classes, rpn_anchor_generator=generator, **options)


def forward_fixed(model: MaskRCNN, images: Tensor) -> tuple[Tensor, ...]:
    """Backbone, pyramid and every head once: box logits and deltas, mask logits, proposals' logits and deltas.

    Args:
        model: from :func:`mask_rcnn`.
        images: normed, shape (B, 3, H, W).
    """
    levels = list(model.backbone(images).values())
    objectness, deltas = model.rpn.head(levels)
    heads: Any = model.roi_heads
    boxes = images.new_empty(len(images) * BOX_REGIONS, CHANNELS, BOX_SIDE, BOX_SIDE)
    masks = images.new_empty(len(images) * MASK_REGIONS, CHANNELS, MASK_SIDE, MASK_SIDE)
    logits, regression = heads.box_predictor(heads.box_head(boxes))
    return logits, regression, heads.mask_predictor(heads.mask_head(masks)), *objectness, *deltas
