"""Detectors and segmenters as subjects of suites: ``maskrcnn:vheat-t``, ``upernet:swin-t``.

They take a batch of images of one size, without the resizing and padding of a data set, and always have
something to do: with random weights a detector finds nothing at the usual score threshold, so it keeps
whatever scores best. Their backbones stay in the training form, as in the published detectors, whose images
have every size: vHeat's frequency embeddings are resized and its k predicted on every pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList

from vheatbench.subjects.backbone import timm_name
from vheatbench.subjects.detector import BOX_REGIONS, MASK_REGIONS, forward_fixed, mask_rcnn
from vheatbench.subjects.segmenter import UperNet


class MaskRCNNSubject(nn.Module):
    """Mask R-CNN on images of one size; ``img_size`` is that size, other arguments are those of ``mask_rcnn``.

    On the meta device, where nothing can depend on data, it is
    :func:`vheatbench.subjects.detector.forward_fixed`.
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
