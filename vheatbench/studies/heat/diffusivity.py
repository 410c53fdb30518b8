"""What k a block has learned: over frequencies, over channels, and how fast each frequency fades."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from torch import Tensor

from vheatbench.studies.heat.numbers import Numbers, diffusion_length, metric
from vheatbench.subjects.heat.cosines import heat_decay, squared_frequency

Array = npt.NDArray[np.float64]
EDGES: Array = np.geomspace(1e-6, 1e3, 73)
"""Of the histogram of k in cells squared, the same for every block: eight bins per factor of ten."""
MOST_BINS = 32
"""Of |w|; less on grids with fewer cells to a side."""
HARDLY = 0.95
"""Mean decay above which conduction changes a field by less than a twentieth."""


def diffusivity(k: Tensor, cell_px: tuple[float, float], resolution: tuple[int, int], random: bool) -> Numbers:
    """Statistics of k over frequencies and channels of one block.

    Args:
        k: (H, W, C), cells squared; float64.
        cell_px: height and width in pixels of a cell.
        resolution: of the model's input.
        random: whether k comes from random weights.
    """
    decay = heat_decay(k)
    per_channel = _quantiles(k.flatten(0, 1), (0, 0.25, 0.5, 0.75, 1)).T
    least, q25, median, q75, most = _quantiles(k.flatten()[:, None], (0, 0.25, 0.5, 0.75, 1))[:, 0]
    frequency, spectrum = decay_spectrum(decay)
    zeros = k == 0
    mean_k, mean_decay = float(k.mean()), float(decay.mean())
    over = "over all frequencies and channels"
    metrics = {
        "k_mean_cells2": metric(mean_k, "cells^2", f"mean {over}"),
        "k_min_cells2": metric(least, "cells^2", f"least {over}"),
        "k_q25_cells2": metric(q25, "cells^2", f"lower quartile {over}"),
        "k_median_cells2": metric(median, "cells^2", f"median {over}"),
        "k_q75_cells2": metric(q75, "cells^2", f"upper quartile {over}"),
        "k_max_cells2": metric(most, "cells^2", f"largest {over}"),
        "k_zero_share": metric(float(zeros.double().mean()), "share", f"k exactly 0 {over}"),
        **diffusion_length(mean_k, cell_px, resolution, "the mean k of the block"),
        "decay_mean": metric(mean_decay, "factor", f"mean of exp(-k w^2) {over}"),
        "half_decay_frequency_rad_per_cell": metric(
            half_decay_frequency(frequency, spectrum[:, 1]),
            "rad/cell",
            "lowest |w| at which the median of exp(-k w^2) is 1/2",
            f"the median of exp(-k w^2) stays above 1/2 up to the grid's highest |w|, {frequency[-1]:.3g} rad/cell",
        ),
    }
    warnings = []
    if mean_decay > HARDLY:
        cause = "as with random weights in general" if random else "although its weights are from a file"
        warnings.append(f"it hardly conducts, {cause}: coefficients keep more than {HARDLY:.0%} on average")
    arrays = {
        "mean_map": k.mean(-1).numpy(),
        "zero_map": zeros.double().mean(-1).numpy(),
        "channel_quantiles": per_channel,
        "edges": EDGES,
        "counts": histogram(k),
        "radial_frequency": frequency,
        "decay_quantiles": spectrum,
    }
    return Numbers(metrics, arrays, {"precision": "k in float32 as the model computes it"}, warnings)


def histogram(k: Tensor) -> Array:
    """Counts of positive k between :data:`EDGES`; what is smaller or larger counts at the ends, 0 nowhere."""
    positive = k[k > 0].numpy().clip(EDGES[0], EDGES[-1])
    return np.histogram(positive, EDGES)[0].astype(np.float64)


def decay_spectrum(decay: Tensor) -> tuple[Array, Array]:
    """Quartiles of the decay by |w|.

    Args:
        decay: exp(-k w^2), (H, W, C).

    Returns:
        Mean |w| of every bin that holds a frequency, (bins,), in radians per cell, and quartiles over the bin's
        frequencies and all channels, (bins, 3).
    """
    height, width = decay.shape[0], decay.shape[1]
    w = squared_frequency(height, width).sqrt().flatten()
    count = min(MOST_BINS, max(height, width))
    bins = (w / (math.sqrt(2) * math.pi) * count).long().clamp(max=count - 1)
    flat = decay.flatten(0, 1)
    frequency, quartiles = [], []
    for number in range(count):
        inside = bins == number
        if inside.any():
            frequency.append(float(w[inside].mean()))
            quartiles.append(_quantiles(flat[inside].flatten()[:, None], (0.25, 0.5, 0.75))[:, 0])
    return np.array(frequency), np.array(quartiles)


def half_decay_frequency(frequency: Array, median: Array) -> float | None:
    """Lowest |w| at which ``median`` (bins,) falls to 1/2, between bins by straight lines; None if it never does."""
    below = np.flatnonzero(median <= 0.5)
    if not len(below):
        return None
    i = int(below[0])
    if i == 0:
        return float(frequency[0])
    before, after = float(median[i - 1]), float(median[i])
    share = (before - 0.5) / (before - after)
    return float(frequency[i - 1] + share * (frequency[i] - frequency[i - 1]))


def _quantiles(values: Tensor, shares: tuple[float, ...]) -> Array:
    """Quantiles of every column of ``values`` (n, columns): (len(shares), columns)."""
    # torch.quantile refuses more than 16 million values
    found: Array = np.quantile(values.numpy(), shares, axis=0)
    return found
