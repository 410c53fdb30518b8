"""The exact temperature field of heat that starts in one cell, by the k of one channel or a constant k."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vheatbench.errors import UserError
from vheatbench.studies.heat.numbers import Numbers, conservation, diffusion_length, metric
from vheatbench.studies.heat.response import NEGLIGIBLE, point_source
from vheatbench.subjects.heat.conduct import conduct_heat
from vheatbench.subjects.heat.cosines import cosines_for, dct2, heat_decay

Array = npt.NDArray[np.float64]
MOST_TIMES = 200
LATEST = 1e9
"""Of times as typed."""
STILL = 1e-12
"""Mean k in cells squared below which no multiple of it is worth showing."""

HARDLY = 0.9
"""Share of the heat left in its cell after one conduction above which there is a warning."""


@dataclass(frozen=True)
class Times:
    """When to look: mean k t in cells squared or, ``multiples``, times t itself (t = 1: one conduction)."""

    values: tuple[float, ...]
    multiples: bool = False

    def of(self, mean_k: float) -> Array:
        """Times t, the first 0, then growing, for a field that conducts with ``mean_k`` cells squared on average."""
        values = np.unique(np.array([0.0, *self.values]))
        return values if self.multiples or mean_k < STILL else values / mean_k


def parse_times(text: str) -> Times:
    """``0.3:200:8`` (from, to, how many, evenly spaced in their logarithm) or ``1,5,20``; with x multiples: ``1x,10x``.

    Raises UserError for anything else, and for values that are not positive.
    """
    wrong = UserError(
        f"--times {text!r}: give FROM:TO:COUNT such as 0.3:200:8, or values such as 1,5,20, up to {LATEST:g}"
    )
    words = [word.strip() for word in text.split(":" if ":" in text else ",")]
    if ":" in text and len(words) != 3:
        raise wrong
    count = words.pop() if ":" in text else ""
    multiples = all(word.endswith("x") for word in words)
    try:
        values = [float(word.removesuffix("x") if multiples else word) for word in words]
    except ValueError:
        raise wrong from None
    if not all(0 < value <= LATEST for value in values) or (count and not count.isdecimal()):
        raise wrong
    if count:
        if not 2 <= int(count) <= MOST_TIMES or values[0] >= values[1]:
            raise UserError(f"--times {text!r}: FROM must be below TO, and COUNT from 2 to {MOST_TIMES}")
        values = np.geomspace(values[0], values[1], int(count)).tolist()
    return Times(tuple(values), multiples)


def parse_source(text: str) -> tuple[float, float]:
    """``0.5,0.25``: share of the height, share of the width. Raises UserError outside 0 to 1."""
    words = text.split(",")
    try:
        values = [float(word) for word in words]
    except ValueError:
        values = []
    if len(values) != 2:
        raise UserError(f"--source {text!r}: give the share of height and of width, for example 0.5,0.5")
    if not all(0 <= value <= 1 for value in values):
        raise UserError(f"--source {text} is outside the image: both shares are from 0 (top, left) to 1")
    return values[0], values[1]


def source_cell(source: tuple[float, float], grid: tuple[int, int]) -> tuple[int, int]:
    """Row and column of the cell that a place, given as share of height and of width, lies in."""
    row, column = (min(int(share * n), n - 1) for share, n in zip(source, grid, strict=True))
    return row, column


def temperature_fields(k: Tensor, cell: tuple[int, int], times: Array) -> tuple[Array, Array]:
    """Coefficients of heat 1 in a cell, and the field at every time.

    Args:
        k: (H, W), cells squared per unit of time, of every frequency; float64.
        cell: row and column of the source.
        times: (n,).

    Returns:
        (H, W) orthonormal DCT-II of the source, and (n, H, W) fields: the operator's own core, with a time in
        every channel.
    """
    source = point_source((k.shape[0], k.shape[1]), cell)
    decay = heat_decay(k[:, :, None] * torch.from_numpy(times))
    fields = conduct_heat(source.expand(-1, -1, -1, len(times)).contiguous(), decay)
    coefficients = dct2(source, *cosines_for(source))[0, :, :, 0]
    return coefficients.numpy(), fields[0].permute(2, 0, 1).contiguous().numpy()


def diffusion(
    k: Tensor, source: tuple[float, float], times: Times, cell_px: tuple[float, float], resolution: tuple[int, int]
) -> Numbers:
    """The field of a point source over time, and what to know of it.

    Args:
        k: (H, W), cells squared, of every frequency; float64.
        source: share of height and of width.
        times: when to look.
        cell_px: height and width in pixels of a cell.
        resolution: of the model's input.
    """
    grid = (k.shape[0], k.shape[1])
    cell = source_cell(source, grid)
    mean_k, zeros = float(k.mean()), float((k == 0).double().mean())
    at = times.of(mean_k)
    coefficients, frames = temperature_fields(k, cell, at)
    _, (once,) = temperature_fields(k, cell, np.array([1.0]))
    metrics = {
        "k_mean_cells2": metric(mean_k, "cells^2", "mean over all frequencies of the channel"),
        "k_zero_share": metric(zeros, "share", "frequencies of the channel whose k is exactly 0"),
        **diffusion_length(mean_k, cell_px, resolution, "the mean k of the channel"),
        "source_kept": metric(once[cell], "share", "heat left in the source's cell after one conduction, t = 1"),
        **conservation(frames, "heat 1 in the source's cell, over all times, float64"),
    }
    conditions = {
        "source_cell": list(cell),
        "source": [(cell[0] + 0.5) / grid[0], (cell[1] + 0.5) / grid[1]],
        "grid": list(grid),
        "times": at.tolist(),
        "mean_kt_cells2": (at * mean_k).tolist(),
        "precision": "k in float32 as the model computes it, everything else in float64",
    }
    arrays = {"k": k.numpy(), "coefficients": coefficients, "times": at, "frames": frames}
    return Numbers(metrics, arrays, conditions, _warnings(mean_k, zeros, float(once[cell]), at, float(frames.min())))


def _warnings(mean_k: float, zeros: float, kept: float, times: Array, lowest: float) -> list[str]:
    warnings = []
    if mean_k < STILL:
        warnings.append("k is 0 at every frequency: nothing spreads, at any time")
    elif kept > HARDLY:
        warnings.append(
            f"it hardly conducts: one conduction (t = 1, mean k {mean_k:.2g} cells^2) leaves {kept:.1%} of the heat "
            f"in its cell; shown are times up to {times[-1]:.3g}"
        )
    if zeros > 0 and mean_k >= STILL:
        warnings.append(f"k is exactly 0 at {zeros:.0%} of the frequencies: what these carry never fades")
    if lowest < -NEGLIGIBLE:
        warnings.append(
            "temperatures fall below 0 (see undershoot): a k that differs between frequencies, or k t below about 1, "
            "obeys no maximum principle"
        )
    return warnings
