"""Parameters and multiply-adds of UperNet, on the meta device.

As the papers have them: parameters with the auxiliary head, multiply-adds without it. By fvcore's rules they
are 0.8 G over the same count of mmsegmentation's UperNet, because this one also enlarges the logits to the size of
the image and passes the finest map through a resizing to its own size.
"""

from __future__ import annotations

from typing import Any

import torch

from vheatbench.studies.dense.cost import Cost, cost_of
from vheatbench.subjects.segmenter import UperNet

PAPER_SIZE = (512, 2048)
"""Height and width at which the papers count."""
META = torch.device("meta")


def count_segmenter(name: str, size: tuple[int, int] = PAPER_SIZE, **options: Any) -> Cost:
    """Count an UperNet in its training form at one size (height, width), batch 1.

    Raises:
        UserError: see :class:`vheatbench.subjects.segmenter.UperNet`.
    """
    with META:
        model = UperNet(name, size=size, **options).eval()
    return cost_of(model, lambda: model(torch.empty(1, 3, *size, device=META)))
