"""UperNet of segmentation-models-pytorch over a timm backbone, with the auxiliary head of the papers."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from vheatbench.errors import UserError
from vheatbench.subjects.backbone import STRIDES, backbone_arguments, timm_name

ADE20K_CLASSES = 150
CHANNELS = 512
"""Of the decoder; segmentation-models-pytorch's default of 256 is a third of the cost."""
AUXILIARY_CHANNELS = 256


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
        channels: int = CHANNELS,
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
