"""A receptive field from several images: the mean map, its numbers, and how sure they are."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from vheatbench.store.schema import Metric
from vheatbench.studies.erf import metrics
from vheatbench.studies.erf.metrics import Centre, Estimate, Field

CONFIDENCE = 0.95
MOST_GROUPS = 10
PRECISE = ("erf_a50", "erf_a99", "erf_entropy_area", "erf_radius_px")
"""Whose relative standard error decides when there are enough images."""
NOT_CORRECTED = {"erf_orientation_deg", "erf_major_px", "erf_minor_px", *(f"erf_rect{t}" for t in metrics.RECTANGLES)}
"""An angle has no bias of order 1/n to remove, the larger axis must stay the larger one, and what moves in steps would
leave them."""
LARGEST_BIAS = 0.15
"""Largest correction by the jackknife, relative to the value: beyond it the number jumps between images (A50 of a model
half of whose mass is in the centre's own patch), and correcting makes it worse."""

_HOW = {
    "erf_a50": ("share", "smallest share of the pixels that holds 50 % of the mass"),
    "erf_a99": ("share", "smallest share of the pixels that holds 99 % of the mass"),
    "erf_entropy_area": ("share", "exp(entropy of the mass) over the number of pixels"),
    "erf_radius_px": ("px", "root mean square distance of the mass from the centre"),
    "erf_radius_share": ("share", "root mean square distance from the centre over the image's shorter side"),
    "erf_major_px": ("px", "standard deviation along the major axis, about the centroid"),
    "erf_minor_px": ("px", "standard deviation along the minor axis, about the centroid"),
    "erf_orientation_deg": ("deg", "of the major axis, counterclockwise from the right"),
}


@dataclass
class GroupedMean:
    """The mean map of the images so far, and without each group of them.

    Images of one photograph are in one group, so that views of it do not pass for independent images; there are at
    most MOST_GROUPS groups, whose sums are all that is kept.
    """

    shape: tuple[int, int]
    sources: int
    """Independent photographs; image i shows number ``i % sources``."""
    n: int = 0
    sizes: list[int] = field(default_factory=lambda: [0] * MOST_GROUPS)
    _sums: npt.NDArray[np.float32] | None = None

    def add(self, maps: npt.NDArray[np.float32]) -> None:
        """The maps (B, H, W) of the next B images."""
        if self._sums is None:
            self._sums = np.zeros((MOST_GROUPS, *self.shape), np.float32)
        for one in maps:
            group = self.n % self.sources % MOST_GROUPS
            self._sums[group] += one
            self.sizes[group] += 1
            self.n += 1

    def mean(self) -> npt.NDArray[np.float64]:
        """(H, W), of all images."""
        return self._total() / self.n

    def estimates(self, numbers: Callable[[Field], dict[str, float]]) -> dict[str, Estimate]:
        """Jackknife estimates of every number of the mean map."""
        plain = numbers(self.mean())
        total, used = self._total(), [g for g, size in enumerate(self.sizes) if size]
        assert self._sums is not None
        without = []
        if len(used) > 1:
            without = [numbers((total - self._sums[g]) / (self.n - self.sizes[g])) for g in used]
        sizes = [self.sizes[g] for g in used] if len(used) > 1 else [self.n]
        return {
            name: metrics.jackknife(
                value,
                [numbers_without[name] for numbers_without in without],
                sizes,
                metrics.half_turn if name == "erf_orientation_deg" else None,
            )
            for name, value in plain.items()
        }

    def _total(self) -> npt.NDArray[np.float64]:
        assert self._sums is not None, "no image yet"
        total: npt.NDArray[np.float64] = self._sums.sum(axis=0, dtype=np.float64)
        return total


def numbers_of(field: Field, centre: Centre, replknet: bool = False) -> dict[str, float]:
    """Every number of one map; NaN where RepLKNet's squares hold too little."""
    a50, a99 = metrics.areas(field, (0.5, 0.99))
    distance = metrics.radius(field, centre)
    major, minor, orientation = metrics.axes(field)
    numbers = {
        "erf_a50": a50,
        "erf_a99": a99,
        "erf_entropy_area": metrics.entropy_area(field),
        "erf_radius_px": distance,
        "erf_radius_share": distance / min(field.shape),
        "erf_major_px": major,
        "erf_minor_px": minor,
        "erf_orientation_deg": orientation,
    }
    shares = [t / 100 for t in metrics.RECTANGLES]
    if replknet:
        found = [metrics.replknet_rectangle(field, share) for share in shares]
        squares = [math.nan if r is None else r for r in found]
    else:
        squares = metrics.rectangles(field, centre, shares)
    return numbers | {f"erf_rect{t}": r for t, r in zip(metrics.RECTANGLES, squares, strict=True)}


def worst_error(estimates: dict[str, Estimate], replknet: bool) -> float:
    """The largest relative standard error among the numbers that decide, each over the value that is reported."""
    return max(estimates[name].relative_error(reported(name, estimates[name], replknet)[0]) for name in PRECISE)


def reported(name: str, estimate: Estimate, replknet: bool) -> tuple[float, bool]:
    """The value that a record gives, within what is possible, and whether the bias of few images is removed from it."""
    small = abs(estimate.value - estimate.plain) <= LARGEST_BIAS * abs(estimate.plain)
    corrected = not replknet and name not in NOT_CORRECTED and estimate.groups > 1 and small
    bottom, top = _bounds(name)
    return min(max(estimate.value if corrected else estimate.plain, bottom), top), corrected


def metrics_of(estimates: dict[str, Estimate], shape: tuple[int, int], n: int, replknet: bool) -> dict[str, Metric]:
    """The metrics of a record, each with its 95 % interval where there are at least two groups of images.

    Under RepLKNet's protocol values are those of the mean map, else with the bias of few images removed.
    """
    found = {name: _metric(name, estimate, shape, replknet) for name, estimate in estimates.items()}
    return found | {"erf_images": Metric(value=n, unit="images", how="images averaged, counted")}


def _metric(name: str, estimate: Estimate, shape: tuple[int, int], replknet: bool) -> Metric:
    rectangle = name.startswith("erf_rect")
    unit, how = ("share", _rectangle_how(name, shape, replknet)) if rectangle else _HOW[name]
    if math.isnan(estimate.plain):
        ceiling = metrics.replknet_ceiling(shape)
        return Metric(unit=unit, how=how, unavailable=f"the largest square tried, {ceiling:.4f}, holds less")
    bottom, top = _bounds(name)
    value, corrected = reported(name, estimate, replknet)
    how += "; bias of few images removed by jackknife" if corrected else "; of the mean map"
    half = estimate.half_width(CONFIDENCE)
    if not math.isfinite(half):
        return Metric(value=value, unit=unit, how=how)
    low, high = value - half, value + half
    if rectangle:  # it cannot be known to less than a step of the square
        low, high = min(low, _stepped(value, shape, -2)), max(high, _stepped(value, shape, 2))
    if unit == "deg":  # all directions are within a quarter turn of one
        low, high = max(low, value - 90), min(high, value + 90)
    return Metric(
        value=value,
        unit=unit,
        how=f"{how}; interval by delete-a-group jackknife over {estimate.groups} groups of images",
        low=max(low, bottom),
        high=min(high, top),
        confidence=CONFIDENCE,
    )


def _bounds(name: str) -> tuple[float, float]:
    """The least and the greatest value that a number can have."""
    unit = _HOW[name][0] if name in _HOW else "share"
    top = 1.0 if unit == "share" and name != "erf_radius_share" else math.inf
    return (-math.inf if unit == "deg" else 0.0), top


def _rectangle_how(name: str, shape: tuple[int, int], replknet: bool) -> str:
    t = name.removeprefix("erf_rect")
    if replknet:
        return (
            f"RepLKNet's r: smallest square about pixel (H // 2, W // 2) with more than {t} % of log10(1 + x); "
            f"at most {metrics.replknet_ceiling(shape):.4f}"
        )
    return f"smallest square about the centre that holds {t} % of the mass, cut off at the edges; in steps, at most 1"


def _stepped(share: float, shape: tuple[int, int], pixels: int) -> float:
    """The share of a square whose side is ``pixels`` longer."""
    side = max(math.sqrt(share * shape[0] * shape[1]) + pixels, 0.0)
    return side * side / (shape[0] * shape[1])
