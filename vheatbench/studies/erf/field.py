"""A map of a receptive field as something to draw: its density, its curves, and one colour scale for several maps.

Scaling is for colours alone: every number comes from the raw mass. NumPy only.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from matplotlib.colors import LogNorm
from numpy.typing import ArrayLike

from vheatbench.present.images import Field, coarse
from vheatbench.present.style import log_ticks

CELLS = 448
"""Cells of a map's longer side that a figure shows: more than 300 dpi resolve in a panel."""

CONTOUR_CELLS = 56
"""Cells of the longer side that the contour is drawn on: single pixels would make it a cloud of specks."""

LEAST_SPAN = 10.0
"""A colour scale spans a decade at least, or an even map would look uneven."""


def density(field: ArrayLike) -> Field:
    """(H, W): mass of every pixel in multiples of a uniform field's, so that the mean is 1; zeros for an empty map."""
    mass = np.asarray(field, dtype=np.float64)
    mean = float(mass.mean()) if mass.size else 0.0
    # a gradient that underflows has a mean that a division would turn into infinities
    return mass / mean if np.isfinite(mean) and mean > np.finfo(np.float64).tiny else np.zeros_like(mass)


def shown_density(field: ArrayLike) -> tuple[Field, int]:
    """The density that a figure draws, and how many pixels a side of its cells has."""
    return coarse(density(field), CELLS)


def contour_of(field: ArrayLike, share: float) -> tuple[Field, int, float]:
    """What the contour of the smallest area holding a share of the mass is drawn from (0.5 for A50): density on coarse
    cells, pixels a side of a cell, and the contour's level."""
    cells, block = coarse(density(field), CONTOUR_CELLS)
    return cells, block, level_of(cells, share)


def level_of(field: Field, share: float) -> float:
    """The value that the fewest pixels holding ``share`` of the mass are at or above; 0 for an empty map."""
    ordered = np.sort(field, axis=None)[::-1]
    mass = np.cumsum(ordered)
    if not mass.size or mass[-1] <= 0:
        return 0.0
    return float(ordered[min(int(np.searchsorted(mass, share * mass[-1])), ordered.size - 1)])


def area_curve(field: ArrayLike) -> tuple[Field, Field]:
    """Shares t of the mass and A_t, the smallest share of the pixels that holds t; empty for an empty map.

    Up to about 400 points that follow the curve closely at its steep start and end.
    """
    ordered = np.sort(np.asarray(field, dtype=np.float64), axis=None)[::-1]
    mass = np.cumsum(ordered)
    if not mass.size or mass[-1] <= 0:
        return np.empty(0), np.empty(0)
    count = ordered.size
    at = np.unique(np.concatenate([np.geomspace(1, count, 200), np.linspace(1, count, 200)]).astype(int))
    return np.append(0.0, mass[at - 1] / mass[-1]), np.append(0.0, at / count)


def radial_profile(field: ArrayLike, centre: tuple[float, float], ring: float | None = None) -> tuple[Field, Field]:
    """Mean density over rings about the centre.

    Args:
        field: (H, W) map in any unit.
        centre: y, x in pixels from the top left corner; pixel i spans [i, i + 1].
        ring: width of a ring in pixels, at least 1; by default a hundredth of the shorter side.

    Returns:
        Mean distance of every ring's pixels from the centre in pixels, and their mean density. Rings without pixels
        are left out.
    """
    mass = density(field)
    height, width = mass.shape
    step = ring if ring is not None else max(1.0, min(height, width) / 100)
    distance = np.hypot(np.arange(height)[:, None] + 0.5 - centre[0], np.arange(width) + 0.5 - centre[1])
    number = (distance / step).astype(int).ravel()
    pixels = np.bincount(number)
    there = pixels > 0
    radius = np.bincount(number, distance.ravel())[there] / pixels[there]
    profile = np.bincount(number, mass.ravel())[there] / pixels[there]
    return radius, profile


@dataclass(frozen=True)
class ColourScale:
    """Logarithmic colours for density, from ``low`` (and below) to ``high``."""

    low: float
    high: float

    @classmethod
    def of(cls, fields: Iterable[ArrayLike]) -> ColourScale:
        """One scale for all maps.

        It ends at the largest density drawn. It starts where the least dense of the pixels that hold 99 % of a map's
        mass is, in the map where that is lowest: what gets no colour of its own is 1 % of the mass at most.
        """
        shown = [cells for cells in (shown_density(field)[0] for field in fields) if cells.any()]
        high = max((float(cells.max()) for cells in shown), default=1.0)
        low = min((level_of(cells, 0.99) for cells in shown), default=1.0)
        return cls(min(low, high / LEAST_SPAN), high)

    @property
    def norm(self) -> LogNorm:
        """For matplotlib."""
        return LogNorm(vmin=self.low, vmax=self.high, clip=True)

    @property
    def ticks(self) -> list[float]:
        """Densities to label."""
        return log_ticks(self.low, self.high)

    def positions(self, cells: Field) -> Field:
        """Places from 0 to 1 on the colour map, shaped like ``cells``."""
        places: Field = np.log(np.clip(cells, self.low, self.high) / self.low) / np.log(self.high / self.low)
        return places
