"""Pictures that int8 is calibrated with, and others to measure its error: cuts of the photographs that are shipped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import vheatbench
from vheatbench.errors import UserError
from vheatbench.image_file import opened

FOLDER = Path(vheatbench.__file__).parent / "studies" / "images" / "photographs"
HELD_OUT = ("cat", "coffee", "rocket")
"""Photographs that nothing is calibrated with."""
CUTS = 4
"""Of each photograph: the whole, and three corners of two thirds of its sides."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""ImageNet's, of each channel; a model of grey images gets their averages."""


def pictures(shape: tuple[int, ...], held_out: bool) -> Tensor:
    """Normalised pictures of a model's input shape (C, H, W): those to calibrate with, or those that are held out.

    Raises:
        UserError: a model of neither 3 channels nor 1.
    """
    channels, height, width = shape
    if channels not in (1, 3):
        raise UserError(f"int8 is calibrated with photographs of 3 channels or 1, and the model takes {channels}")
    found = []
    for path in sorted(FOLDER.glob("*.jpg")):
        if (path.stem in HELD_OUT) == held_out:
            image = opened(path, upright=True).convert("RGB" if channels == 3 else "L")
            for box in _boxes(*image.size):
                cut = image.resize((width, height), Image.Resampling.BICUBIC, box)
                found.append(np.asarray(cut, dtype=np.float32).reshape(height, width, channels))
    pixels = torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2) / 255
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    if channels == 1:
        mean, std = mean.mean(0, keepdim=True), std.mean(0, keepdim=True)
    return ((pixels - mean.view(-1, 1, 1)) / std.view(-1, 1, 1)).contiguous()


def _boxes(width: int, height: int) -> list[tuple[float, float, float, float]]:
    w, h = width * 2 / 3, height * 2 / 3
    return [(0, 0, width, height), (0, 0, w, h), (width - w, 0, width, h), (0, height - h, w, height)][:CUTS]


def batches(images: Tensor, batch: int, most: int) -> list[Tensor]:
    """Images in batches of one size, at most so many; the first images stand in for what is missing of the last."""
    count = min(most, -(-len(images) // batch))
    places = torch.arange(count * batch) % len(images)
    return list(images[places].split(batch))
