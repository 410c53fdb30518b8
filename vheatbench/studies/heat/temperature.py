"""Temperature over space as something to draw: the exact field at any time, and one colour scale for all fields."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vheatbench.studies.heat.results import Diffusion

COLDEST = 0.1
"""Lowest temperature that has a colour of its own, in multiples of the mean; what is colder, or negative, shares it."""


def cosine_matrix(n: int) -> NDArray[np.float64]:
    """Orthonormal DCT-II of length ``n``: (n, n), row = frequency, so that its transpose is the inverse."""
    frequency, cell = np.arange(n)[:, None], np.arange(n)
    matrix: NDArray[np.float64] = np.sqrt(2 / n) * np.cos(np.pi * frequency * (cell + 0.5) / n)
    matrix[0] /= np.sqrt(2)
    return matrix


def field_at(coefficients: ArrayLike, k: ArrayLike, t: float) -> NDArray[np.float64]:
    """The exact solution of the heat equation with insulated walls at time ``t``.

    Args:
        coefficients: (H, W) orthonormal DCT-II of the field at time 0.
        k: diffusivity in cells² per unit of time, per frequency (H, W) or one number.
        t: time, at least 0.

    Returns:
        (H, W) temperatures.
    """
    start = np.asarray(coefficients, dtype=np.float64)
    height, width = start.shape
    rows, columns = np.pi * np.arange(height) / height, np.pi * np.arange(width) / width
    cooled = start * np.exp(-np.asarray(k, dtype=np.float64) * t * (rows[:, None] ** 2 + columns**2))
    field: NDArray[np.float64] = cosine_matrix(height).T @ cooled @ cosine_matrix(width)
    return field


def source_cell(diffusion: Diffusion) -> tuple[int, int]:
    """Row and column of the cell that the heat begins in."""
    row, column = np.unravel_index(int(np.argmax(diffusion.frames[0])), diffusion.frames[0].shape)
    return int(row), int(column)


def held_at_source(diffusion: Diffusion) -> float:
    """Share of the heat that is still in the source's cell at the last time."""
    last = diffusion.frames[-1]
    return float(last[source_cell(diffusion)] / last.sum())


@dataclass(frozen=True)
class TemperatureScale:
    """Logarithmic colours for temperature over its mean, which walls and conduction leave alone: 1 is the final state.

    Logarithmic because a source that fills one of N cells cools from N times the mean to the mean.
    """

    hottest: float
    """Temperature of the last colour, in multiples of the mean."""

    @classmethod
    def of(cls, diffusions: Iterable[Diffusion]) -> TemperatureScale:
        """One scale for all of them: up to the hottest cell."""
        hottest = max(float(one.frames.max() / one.frames[0].mean()) for one in diffusions)
        return cls(max(hottest, 10 * COLDEST))

    def position(self, field: NDArray[np.floating]) -> NDArray[np.float64]:
        """Place of every temperature of a field on the scale, 0 (coldest and below) to 1."""
        over_mean = np.maximum(field / field.mean(), COLDEST)
        place: NDArray[np.float64] = np.log(over_mean / COLDEST) / np.log(self.hottest / COLDEST)
        return np.clip(place, 0, 1)
