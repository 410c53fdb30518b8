"""The gradient of a feature map's centre with respect to the image: one map of magnitude per image.

Luo et al. 2016, "Understanding the Effective Receptive Field in Deep Convolutional Neural Networks"; the
rectified form is that of RepLKNet (Ding et al. 2022, section 4) and VMamba.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from vheatbench.case import DType
from vheatbench.run.device import classify
from vheatbench.run.step import DTYPES
from vheatbench.studies.erf.centre import central_cells
from vheatbench.studies.erf.features import Layer, read_features

Protocol = Literal["centre", "replknet"]
Maps = npt.NDArray[np.float32]


def chosen_cells(layer: Layer, protocol: Protocol) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Rows and columns of the cells whose features are taken.

    ``centre``: the middle cell, of an even side the two middle ones. ``replknet``: cell (H // 2, W // 2).
    """
    height, width = layer.grid
    if protocol == "replknet":
        return (height // 2,), (width // 2,)
    return central_cells(height), central_cells(width)


def centre_of(layer: Layer, protocol: Protocol, image: tuple[int, int]) -> tuple[float, float]:
    """Where the chosen cells look: y and x in pixels from the top left corner, pixel i spanning [i, i + 1].

    ``centre``: the mean of the cells' own centres. ``replknet``: pixel (H // 2, W // 2), as its script assumes.
    """
    if protocol == "replknet":
        return image[0] // 2 + 0.5, image[1] // 2 + 0.5
    rows, columns = chosen_cells(layer, protocol)
    down, across = layer.axes
    return down.at(sum(rows) / len(rows)), across.at(sum(columns) / len(columns))


def input_gradients(
    model: nn.Module, images: Tensor, layers: Sequence[Layer], protocol: Protocol = "centre", dtype: DType = "float32"
) -> list[Tensor]:
    """Maps (B, H, W) of every layer, from one forward pass over ``images`` (B, C, H, W) as the model takes them.

    The layer's chosen cells, rectified, summed over channels and averaged over cells; the gradient of that with
    respect to the image, rectified and summed over colours. Images do not see each other in evaluation mode, so the
    gradient of the sum over the batch is that of every image.

    Args:
        model: in evaluation mode, its parameters without gradients.
        dtype: below 32 bits the forward pass runs under autocast; weights and gradients stay float32.
    """
    images = images.detach().requires_grad_()
    with torch.enable_grad(), _autocast(images.device.type, dtype):
        features = read_features(model, images, [(layer.name, layer.index) for layer in layers])
    maps = []
    for i, (layer, feature) in enumerate(zip(layers, features, strict=True)):
        rows, columns = chosen_cells(layer, protocol)
        cells = feature[:, :, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        score = cells.float().relu().sum() / (len(rows) * len(columns))
        (gradient,) = torch.autograd.grad(score, images, retain_graph=i + 1 < len(layers))
        maps.append(gradient.float().relu().sum(1))
    return maps


class GradientBatches:
    """Computes maps batch by batch; where memory runs out, in smaller ones, which changes no result."""

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[Layer],
        device: torch.device,
        mean: Sequence[float],
        std: Sequence[float],
        protocol: Protocol = "centre",
        dtype: DType = "float32",
    ) -> None:
        """``mean`` and ``std``: of the model's preprocessing, per colour, for values from 0 to 1."""
        self.model, self.layers, self.device = model, layers, device
        self.protocol, self.dtype = protocol, dtype
        self.largest: int | None = None
        """Images at once that memory allows; None while nothing has shown a limit."""
        self._mean = torch.tensor(mean, device=device).view(-1, 1, 1)
        self._std = torch.tensor(std, device=device).view(-1, 1, 1)

    def __call__(self, pixels: npt.NDArray[np.uint8]) -> list[Maps]:
        """Maps (B, H, W) of every layer for images (B, H, W, 3), values 0 to 255.

        Raises:
            torch.OutOfMemoryError, MemoryError, RuntimeError: one image alone does not fit.
            FloatingPointError: a gradient is not finite.
        """
        images = self._normalised(pixels)
        parts: list[list[Maps]] = []
        done = 0
        while done < len(images):
            size = min(self.largest or len(images), len(images) - done)
            maps = self._try(images[done : done + size])
            if maps is None:
                self.largest = max(size // 2, 1)
                gc.collect()
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()
            else:
                parts.append(maps)
                done += size
        return [np.concatenate(layer) for layer in zip(*parts, strict=True)]

    def _try(self, images: Tensor) -> list[Maps] | None:
        """The maps, or None where memory ran out and fewer images may fit."""
        try:
            maps = [
                m.cpu().numpy() for m in input_gradients(self.model, images, self.layers, self.protocol, self.dtype)
            ]
        except Exception as error:  # torch has no one class for it on CPUs
            if len(images) == 1 or classify(error)[0] != "oom":
                raise
            return None
        for layer, found in zip(self.layers, maps, strict=True):
            if not np.isfinite(found).all():
                raise FloatingPointError(f"the gradient of {layer.name} is not finite in {self.dtype}")
        return maps

    def _normalised(self, pixels: npt.NDArray[np.uint8]) -> Tensor:
        images = torch.from_numpy(pixels).to(self.device).permute(0, 3, 1, 2).float() / 255
        if len(self._mean) == 1:
            images = images.mean(1, keepdim=True)
        return ((images - self._mean) / self._std).contiguous()


def _autocast(device: str, dtype: DType) -> AbstractContextManager[object]:
    kind = DTYPES[dtype]
    return contextlib.nullcontext() if kind == torch.float32 else torch.autocast(device, kind)
