"""What one map of gradient magnitude says about a receptive field. Pure functions of arrays (H, W)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vheatbench.stats import student_t_quantile

Field = npt.NDArray[np.floating]
Centre = tuple[float, float]
RECTANGLES = (20, 30, 50, 99)
"""Percent of the mass in RepLKNet's rectangles (Ding et al. 2022, table 10)."""


def areas(field: Field, shares: Sequence[float]) -> list[float]:
    """A_t for every t of ``shares``: smallest share of the pixels that holds t of the mass. Needs no centre."""
    values = np.sort(np.asarray(field, np.float32), axis=None)[::-1]
    held = np.cumsum(values, dtype=np.float64)
    return [(_reached(held, share) + 1) / values.size for share in shares]


def entropy_area(field: Field) -> float:
    """exp(entropy) over the number of pixels: share of the pixels of a uniform map of the same entropy."""
    mass = np.asarray(field, np.float64).ravel()
    p = mass[mass > 0] / mass.sum()
    return float(math.exp(-(p * np.log(p)).sum()) / mass.size)


def centroid(field: Field) -> Centre:
    """Mean position (y, x) of the mass in pixels from the corner; pixel i counts at i + 1/2."""
    rows, columns = _marginals(field)
    return float((rows * _middles(len(rows))).sum()), float((columns * _middles(len(columns))).sum())


def radius(field: Field, centre: Centre) -> float:
    """Root mean square distance of the mass from ``centre`` (y, x), in pixels."""
    total = 0.0
    for marginal, middle in zip(_marginals(field), centre, strict=True):
        total += float((marginal * (_middles(len(marginal)) - middle) ** 2).sum())
    return math.sqrt(total)


def axes(field: Field) -> tuple[float, float, float]:
    """Major and minor axis (standard deviations in pixels) and orientation of the mass about its centroid.

    Eigenvectors of the covariance. The orientation is the major axis's, in degrees from the rightward direction
    counterclockwise as seen on the picture, in [0, 180); 0 where both axes are equal.
    """
    rows, columns = _marginals(field)
    y, x = centroid(field)
    dy, dx = _middles(len(rows)) - y, _middles(len(columns)) - x
    var_y, var_x = float((rows * dy**2).sum()), float((columns * dx**2).sum())
    mass = np.asarray(field, np.float64)
    cov = float(dy @ mass @ dx / mass.sum())
    half = math.hypot((var_x - var_y) / 2, cov)
    middle = (var_x + var_y) / 2
    # y grows downwards on a picture
    angle = math.degrees(0.5 * math.atan2(-2 * cov, var_x - var_y)) if half > 1e-12 * middle else 0.0
    return math.sqrt(middle + half), math.sqrt(max(middle - half, 0.0)), angle % 180 % 180.0  # -1e-15 % 180 is 180


def rectangles(field: Field, centre: Centre, shares: Sequence[float]) -> list[float]:
    """RepLKNet's r on raw mass for every t of ``shares``: the smallest square about ``centre`` that holds t of it.

    Given as share of the pixels. A pixel is inside if its middle is. The square is cut off at the image's edges, so
    every share is reached and r is at most 1. It grows by whole pixels: r moves in steps.
    """
    dy, dx = (np.abs(_middles(n) - middle) for n, middle in zip(field.shape, centre, strict=True))
    # distances that differ by rounding alone are one
    sides = np.unique(np.round(np.concatenate([dy, dx]), 6))
    rings = [np.searchsorted(sides, np.round(distance, 6)) for distance in (dy, dx)]
    ring = np.maximum(rings[0][:, None], rings[1][None, :]).ravel()
    held = np.cumsum(np.bincount(ring, np.asarray(field, np.float64).ravel(), len(sides)), dtype=np.float64)
    pixels = np.cumsum(np.bincount(ring, minlength=len(sides)))
    return [float(pixels[_reached(held, share)] / field.size) for share in shares]


def replknet_rectangle(field: Field, share: float) -> float | None:
    """RepLKNet's r by its own rule: about pixel (H // 2, W // 2), on log10(1 + x) divided by its maximum.

    Squares of 3, 5, ... pixels a side, the largest 2 (H // 2) - 1; None where that holds no more than ``share``.
    """
    scaled = np.log10(np.asarray(field, np.float64) + 1)
    scaled = scaled / scaled.max()
    total = scaled.sum()
    height, width = scaled.shape
    y, x = height // 2, width // 2
    for i in range(1, height // 2):
        if scaled[y - i : y + 1 + i, max(x - i, 0) : x + 1 + i].sum() / total > share:
            side = 2 * i + 1
            return side / height * side / width
    return None


def replknet_ceiling(shape: tuple[int, int]) -> float:
    """The largest r that :func:`replknet_rectangle` can give."""
    side = 2 * (shape[0] // 2 - 1) + 1
    return side / shape[0] * side / shape[1]


@dataclass(frozen=True)
class Estimate:
    """A jackknife estimate."""

    plain: float
    """Of the mean of all images."""
    value: float
    """With the bias of order 1/n removed."""
    error: float
    """Standard error; infinite with fewer than two groups."""
    groups: int

    def relative_error(self, value: float) -> float:
        """Standard error over the magnitude of the value that is reported; 0 where both are 0."""
        return self.error / abs(value) if value else (0.0 if self.error == 0 else math.inf)

    def half_width(self, confidence: float = 0.95) -> float:
        """Of Student's t interval with one degree of freedom less than there are groups."""
        if self.groups < 2:
            return math.inf
        return student_t_quantile((1 + confidence) / 2, self.groups - 1) * self.error


def jackknife(
    plain: float, left_out: Sequence[float], sizes: Sequence[int], wrap: Callable[[float], float] | None = None
) -> Estimate:
    """Delete-a-group jackknife for groups of unequal size (Busing, Meijer and van der Leeden 1999).

    Args:
        plain: the statistic of all observations.
        left_out: the statistic without each group.
        sizes: observations in each group.
        wrap: of a circular statistic, maps a difference to its shortest way round.
    """
    n, groups = sum(sizes), len(sizes)
    if groups < 2:
        return Estimate(plain, plain, math.inf, groups)
    deleted = np.asarray([plain + (wrap(value - plain) if wrap else value - plain) for value in left_out])
    m = np.asarray(sizes, np.float64)
    value = groups * plain - float(((1 - m / n) * deleted).sum())
    h = n / m
    pseudo = h * plain - (h - 1) * deleted
    error = math.sqrt(float(((pseudo - value) ** 2 / (h - 1)).sum()) / groups)
    return Estimate(plain, value, error, groups)


def half_turn(degrees: float) -> float:
    """The shortest difference between two directions of an axis, in (-90, 90]."""
    return 90 - (90 - degrees) % 180


def _reached(held: npt.NDArray[np.float64], share: float) -> int:
    """Index of the first cumulative sum that is ``share`` of the whole; rounding is not to cost a step."""
    return min(int(np.searchsorted(held, share * held[-1] * (1 - 1e-12))), len(held) - 1)


def _marginals(field: Field) -> tuple[Field, Field]:
    """Shares of the mass in every row and in every column."""
    mass = np.asarray(field, np.float64)
    total = float(mass.sum())
    return mass.sum(axis=1) / total, mass.sum(axis=0) / total


def _middles(n: int) -> npt.NDArray[np.float64]:
    return np.arange(n, dtype=np.float64) + 0.5
