"""Mask R-CNN and UperNet over timm backbones, sized as in the vHeat and Swin papers.

As subjects of suites, ``maskrcnn:vheat-t`` and ``upernet:swin-t``, they take a batch of images of one size,
without the resizing and padding of a data set, and always have something to do: with random weights a detector
finds nothing at the usual score threshold, so it keeps whatever scores best. Their backbones stay in the training
form, as in the published detectors, whose images have every size: vHeat's frequency embeddings are resized and its
k predicted on every pass.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import LayerNorm2d
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

from vheatbench.errors import UserError
from vheatbench.subjects.backbone import STRIDES, StageMaps, backbone_arguments, timm_name

COCO_CLASSES = 81
"""80 and the background."""
PYRAMID_CHANNELS = 256
"""Of every level of the pyramid."""
BOX_REGIONS, MASK_REGIONS = 1000, 100
"""Per image: what the box head and the mask head are given where nothing may depend on data."""
BOX_SIDE, MASK_SIDE = 7, 14
"""Cells of an aligned region."""
ANCHORS = (32, 64, 128, 256, 512)
"""Side in pixels of the square anchor of each level."""
ADE20K_CLASSES = 150
DECODER_CHANNELS = 512
"""Of the decoder; segmentation-models-pytorch's default of 256 is a third of the cost."""
AUXILIARY_CHANNELS = 256


class Pyramid(nn.Module):
    """Normed stage maps, then a feature pyramid: five levels at strides 4 to 64."""

    def __init__(self, maps: StageMaps) -> None:
        super().__init__()
        self.maps = maps
        self.fpn = FeaturePyramidNetwork(maps.channels, PYRAMID_CHANNELS, extra_blocks=LastLevelMaxPool())
        self.out_channels = PYRAMID_CHANNELS

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
    boxes = images.new_empty(len(images) * BOX_REGIONS, PYRAMID_CHANNELS, BOX_SIDE, BOX_SIDE)
    masks = images.new_empty(len(images) * MASK_REGIONS, PYRAMID_CHANNELS, MASK_SIDE, MASK_SIDE)
    logits, regression = heads.box_predictor(heads.box_head(boxes))
    return logits, regression, heads.mask_predictor(heads.mask_head(masks)), *objectness, *deltas


class UperNet(nn.Module):
    """UperNet (Xiao et al., 2018), and while training a small convolutional head on the map at stride 16.

    Each of the backbone's maps passes a LayerNorm of its own first, as in the official segmenters.

    Args:
        name: backbone, an alias such as ``vheat-t`` or a timm name.
        classes: without a background.
        size: height and width of all images; None for images of any size.
        channels: of the decoder.
        backbone: further arguments of the timm model.

    Raises:
        UserError: a backbone that is unknown or has no maps at strides 4, 8, 16, 32;
            segmentation-models-pytorch is not installed.
    """

    def __init__(
        self,
        name: str,
        classes: int = ADE20K_CLASSES,
        size: tuple[int, int] | None = None,
        channels: int = DECODER_CHANNELS,
        backbone: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        try:
            from segmentation_models_pytorch import UPerNet
        except ImportError:
            raise UserError("UperNet needs segmentation-models-pytorch: pip install 'vheatbench[downstream]'") from None
        full_name = timm_name(name)
        arguments = {**backbone_arguments(full_name, size), **(backbone or {})}
        self.net = UPerNet(
            f"tu-{full_name}", encoder_weights=None, decoder_channels=channels, classes=classes, **arguments
        )
        self.norms = nn.ModuleList(
            LayerNorm2d(width, eps=1e-5) for width in self.net.encoder.out_channels[-len(STRIDES) :]
        )
        self.auxiliary = nn.Sequential(
            nn.Conv2d(self.net.encoder.out_channels[-2], AUXILIARY_CHANNELS, 3, padding=1, bias=False),
            nn.BatchNorm2d(AUXILIARY_CHANNELS),
            nn.ReLU(inplace=True),
            nn.Dropout2d(0.1),
            nn.Conv2d(AUXILIARY_CHANNELS, classes, 1),
        )

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Images (B, 3, H, W) to logits (B, classes, H, W); while training also the auxiliary ones, at H / 16."""
        *finer, s4, s8, s16, s32 = self.net.encoder(images)
        maps = [norm(x) for norm, x in zip(self.norms, (s4, s8, s16, s32), strict=True)]
        features = [*finer, *maps]
        logits = self.net.segmentation_head(self.net.decoder(features))
        if logits.shape[-2:] != images.shape[-2:]:  # sides that 4 does not divide
            logits = F.interpolate(logits, images.shape[-2:], mode="bilinear", align_corners=False)
        return (logits, self.auxiliary(maps[2])) if self.training else logits


class MaskRCNNSubject(nn.Module):
    """Mask R-CNN on images of one size; ``img_size`` is that size, other arguments are those of ``mask_rcnn``.

    On the meta device, where nothing can depend on data, it is :func:`forward_fixed`.
    """

    sized_when_built = True
    autocast_only = True
    """Suppressing overlaps compares coordinates: low precision is autocast's, which leaves those alone."""
    form = f"training form, heads on {BOX_REGIONS} box and {MASK_REGIONS} mask regions per image"
    task = (
        f"Mask R-CNN, pyramid of 256 channels; score threshold 0, at most {BOX_REGIONS} proposals and {MASK_REGIONS} "
        "detections per image, so that the heads work with random weights too"
    )

    def __init__(self, name: str, img_size: tuple[int, int] | None = None, **options: Any) -> None:
        super().__init__()
        options = {
            "box_score_thresh": 0.0,
            "rpn_post_nms_top_n_test": BOX_REGIONS,
            "box_detections_per_img": MASK_REGIONS,
            **options,
        }
        self.detector = mask_rcnn(name, size=img_size, **options)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Normed images (B, 3, H, W) to boxes (N, 4), scores (N) and masks (N, 1, 28, 28), of all images together."""
        if images.is_meta:
            return forward_fixed(self.detector, images)
        sizes = [(images.shape[-2], images.shape[-1])] * len(images)
        levels = self.detector.backbone(images)
        proposals, _ = self.detector.rpn(ImageList(images, sizes), levels)
        found, _ = self.detector.roi_heads(levels, proposals, sizes)
        return tuple(torch.cat([one[key] for one in found]) for key in ("boxes", "scores", "masks"))


class UperNetSubject(UperNet):
    """UperNet on images of one size; ``img_size`` is that size, other arguments are those of ``UperNet``."""

    sized_when_built = True
    form = "training form, without the auxiliary head's products"
    task = "UperNet, 512 channels; logits at the size of the image; the auxiliary head runs in training only"

    def __init__(self, name: str, img_size: tuple[int, int] | None = None, **options: Any) -> None:
        super().__init__(name, size=img_size, **options)


def downstream_subject(name: str) -> tuple[str, Callable[..., nn.Module], str, str]:
    """Full name, factory, form and task of ``maskrcnn:BACKBONE`` or ``upernet:BACKBONE``.

    Raises:
        UserError: an unknown backbone, or one without maps at strides 4, 8, 16, 32.
    """
    prefix, _, backbone = name.partition(":")
    kind: type[MaskRCNNSubject] | type[UperNetSubject] = MaskRCNNSubject if prefix == "maskrcnn" else UperNetSubject
    full_name = timm_name(backbone)

    def factory(**arguments: Any) -> nn.Module:
        return kind(full_name, **arguments)

    return f"{prefix}:{full_name}", factory, kind.form, kind.task
