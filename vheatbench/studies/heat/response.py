"""The operator's response to heat in one cell, beside the heat kernel of the rectangle and finite differences."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vheatbench.errors import UserError
from vheatbench.studies.heat.numbers import Numbers, conservation, metric
from vheatbench.subjects.heat.conduct import conduct_heat
from vheatbench.subjects.heat.cosines import heat_decay

Array = npt.NDArray[np.float64]
NEGLIGIBLE = 1e-6
"""Share of the source's heat below which an undershoot is not worth a warning; constant k t >= 1 stays under it."""


def point_source(grid: tuple[int, int], cell: tuple[int, int]) -> Tensor:
    """Heat 1 in one cell and 0 elsewhere: (1, H, W, 1), float64."""
    field = torch.zeros(1, *grid, 1, dtype=torch.float64)
    field[0, cell[0], cell[1], 0] = 1
    return field


def operator_response(grid: tuple[int, int], cell: tuple[int, int], kt: float) -> Array:
    """The heat operator's core on a point source with the same k t (cells squared) everywhere, (H, W)."""
    decay = heat_decay(torch.full((*grid, 1), kt, dtype=torch.float64))
    return conduct_heat(point_source(grid, cell), decay)[0, :, :, 0].numpy()


def finite_difference_response(grid: tuple[int, int], cell: tuple[int, int], kt: float) -> Array:
    """exp(k t L) on a point source, L the 5-point Laplacian with insulated walls, (H, W).

    The DCT-II diagonalises L with eigenvalues 2 cos(n pi / H) - 2 + 2 cos(m pi / W) - 2, so this is no scheme in
    time but the exact solution of the differences in space.
    """
    height, width = grid
    rows = 2 - 2 * torch.cos(torch.arange(height, dtype=torch.float64) * math.pi / height)
    columns = 2 - 2 * torch.cos(torch.arange(width, dtype=torch.float64) * math.pi / width)
    decay = torch.exp(-kt * (rows[:, None] + columns[None, :]))[:, :, None]
    return conduct_heat(point_source(grid, cell), decay)[0, :, :, 0].numpy()


def neumann_response(grid: tuple[int, int], cell: tuple[int, int], kt: float) -> Array:
    """Heat kernel of the rectangle H x W with insulated walls, source and values at the cells' centres, (H, W)."""
    return np.outer(_neumann_rod(grid[0], cell[0], kt), _neumann_rod(grid[1], cell[1], kt))


def _neumann_rod(length: int, cell: int, kt: float) -> Array:
    """Heat kernel of a rod with insulated ends by the method of images: mirrored sources at 2 n L ± x."""
    # past this the rod is uniform to the last bit, and the images would only grow in number
    kt = min(kt, 25.0 * length**2)
    reach = math.ceil(math.sqrt(4 * kt * 745) / (2 * length)) + 1  # exp(-745) is the smallest double
    shifts = 2.0 * length * np.arange(-reach, reach + 1)
    source, places = cell + 0.5, np.arange(length) + 0.5
    distances = places[:, None] - np.concatenate([shifts + source, shifts - source])
    with np.errstate(over="ignore"):  # of a kt next to nothing
        kernel: Array = np.exp(-(distances**2) / (4 * kt)).sum(axis=1) / math.sqrt(4 * math.pi * kt)
    return kernel


def point_response(grid: tuple[int, int], cell: tuple[int, int], kt: float) -> Numbers:
    """All three responses and how far the operator is from the other two.

    Args:
        grid: height and width in cells.
        cell: row and column of the source.
        kt: k times t in cells squared, positive.

    Raises:
        UserError: the cell is not on the grid, or kt is not positive and finite.
    """
    if not (0 <= cell[0] < grid[0] and 0 <= cell[1] < grid[1]):
        raise UserError(
            f"--source: cell {cell[0]},{cell[1]} is not on a grid of {grid[0]}x{grid[1]}: "
            f"rows 0 to {grid[0] - 1}, columns 0 to {grid[1] - 1}"
        )
    if not (math.isfinite(kt) and kt > 0):
        raise UserError(f"--kt {kt:g}: k t must be positive, in cells squared")
    operator = operator_response(grid, cell, kt)
    neumann = neumann_response(grid, cell, kt)
    differences = finite_difference_response(grid, cell, kt)

    def deviation(other: Array) -> float:
        return float(np.abs(operator - other).max() / other.max())

    where = "of the response to heat 1 in one cell, float64"
    metrics = {
        **conservation(operator[None], where),
        "peak": metric(operator.max(), "share", f"highest value {where}"),
        "neumann_error": metric(
            deviation(neumann), "share of the peak", "largest difference from the rectangle's heat kernel"
        ),
        "finite_difference_error": metric(
            deviation(differences),
            "share of the peak",
            "largest difference from the exponential of the 5-point Laplacian",
        ),
    }
    warnings = []
    if operator.min() < -NEGLIGIBLE:
        warnings.append(
            "the response falls below 0 (see undershoot): the grid cuts the spectrum off, and below k t of about 1 "
            "the operator obeys no maximum principle"
        )
    return Numbers(
        metrics,
        {"operator": operator, "neumann": neumann, "finite_difference": differences},
        {"precision": "float64", "boundary": "insulated walls (Neumann)"},
        warnings,
    )
