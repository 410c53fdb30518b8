"""What figures draw of a map: density, profile over the distance, area against threshold. NumPy only."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vheatbench.studies.erf.results import ErfResult

Field = NDArray[np.float64]


def density(result: ErfResult) -> Field:
    """(H, W): mass of every pixel in multiples of a uniform spread, so that the mean is 1; zeros for an empty map."""
    return density_of(result.map)


def density_of(field: ArrayLike) -> Field:
    """The same of a bare map; its unit cancels."""
    mass = np.asarray(field, dtype=np.float64)
    mean = float(mass.mean()) if mass.size else 0.0
    # a gradient that underflows has a mean that a division would turn into infinities
    return mass / mean if np.isfinite(mean) and mean > np.finfo(np.float64).tiny else np.zeros_like(mass)


def coarse(field: Field, most: int) -> tuple[Field, int]:
    """Means over square blocks, so that no side has more than ``most`` cells, and the side of a block in pixels.

    Blocks cut off at the lower and right edge are means over the pixels they have: the total is kept up to these.
    """
    height, width = field.shape
    block = max(1, -(-max(height, width) // most))
    if block == 1:
        return field, 1
    rows, columns = np.arange(0, height, block), np.arange(0, width, block)
    sums = np.add.reduceat(np.add.reduceat(field, rows, axis=0), columns, axis=1)
    tall, wide = np.diff(np.append(rows, height)), np.diff(np.append(columns, width))
    means: Field = sums / (tall[:, None] * wide)
    return means, block


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
        Mean distance of every ring's pixels from the centre in pixels, and their mean mass in multiples of a uniform
        spread. Rings without pixels are left out.
    """
    spread = density_of(field)
    height, width = spread.shape
    step = ring if ring is not None else max(1.0, min(height, width) / 100)
    distance = np.hypot(np.arange(height)[:, None] + 0.5 - centre[0], np.arange(width) + 0.5 - centre[1])
    number = (distance / step).astype(int).ravel()
    pixels = np.bincount(number)
    there = pixels > 0
    radius = np.bincount(number, distance.ravel())[there] / pixels[there]
    profile = np.bincount(number, spread.ravel())[there] / pixels[there]
    return radius, profile
