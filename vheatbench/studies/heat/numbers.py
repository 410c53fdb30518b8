"""What an analysis of heat found, on its way into a record."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from vheatbench.store.schema import Metric


@dataclass
class Numbers:
    """Metrics and arrays of one record, with their conditions and warnings."""

    metrics: dict[str, Metric]
    arrays: dict[str, npt.NDArray[Any]]
    conditions: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def metric(value: float | None, unit: str, how: str, missing: str = "") -> Metric:
    """A metric without a better direction; ``missing`` is the reason where the value is None."""
    if value is None:
        return Metric(unit=unit, how=how, unavailable=missing)
    return Metric(value=float(value), unit=unit, how=how)


def diffusion_length(
    mean_k: float, cell_px: tuple[float, float], resolution: tuple[int, int], how: str
) -> dict[str, Metric]:
    """sqrt(2 k), the standard deviation per axis of the heat of a point after one conduction, in three units.

    Args:
        mean_k: in cells squared.
        cell_px: height and width in pixels of a cell; of oblong ones the geometric mean counts.
        resolution: height and width in pixels; the share is of the shorter side.
        how: whose k it is.
    """
    cells = math.sqrt(2 * mean_k)
    px = cells * math.sqrt(cell_px[0] * cell_px[1])
    how = f"sqrt(2 k) with {how}"
    return {
        "diffusion_length_cells": metric(cells, "cells", how),
        "diffusion_length_px": metric(px, "px", how),
        "diffusion_length_share": metric(px / min(resolution), "share of the shorter side", how),
    }


def conservation(fields: npt.NDArray[np.float64], how: str) -> dict[str, Metric]:
    """How far fields (n, H, W) of heat 1 in one cell leave what real heat keeps: their total, and the range 0 to 1."""
    return {
        "mass_error": metric(np.abs(fields.sum((1, 2)) - 1).max(), "share", f"largest |sum - 1|, {how}"),
        "undershoot": metric(max(0.0, -fields.min()), "share", f"how far below zero the lowest value is, {how}"),
        "overshoot": metric(
            max(0.0, fields.max() - 1), "share", f"how far above the source's 1 the highest value is, {how}"
        ),
    }
