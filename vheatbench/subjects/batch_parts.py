"""A batch that goes through modules a few images at a time, on a CPU.

Maps of some MiB lie in memory that is used again; larger ones are new memory each, at a page fault for every 4 KiB. It
is for inference: with gradients all of it has to be kept anyway.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

PART_BYTES = 16 * 2**20
"""Of a map that a module works on at a time: the C library maps anew what is larger than 32 MiB, whatever else it has
learnt, and smaller parts than need be are smaller products."""


def by_parts(x: Tensor, modules: Sequence[nn.Module], values: float) -> Tensor:
    """The modules one after the other, each on as many images at a time as :data:`PART_BYTES` hold.

    Args:
        x: images, shape (B, ...).
        modules: any number of them.
        values: in the largest map of one image in the first module; every later module's has half as many.

    Returns:
        What the last module gives for the whole batch.
    """
    if not modules:
        return x
    *before, last = modules
    image_bytes = values / 2 ** len(before) * x.element_size()
    outs = [last(by_parts(part, before, values)) for part in x.split(max(1, int(PART_BYTES / image_bytes)))]
    return outs[0] if len(outs) == 1 else torch.cat(outs)
