"""One colour scale for several maps. It is for colour only: every number comes from the raw mass."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from matplotlib.colors import LogNorm, Normalize, PowerNorm

from vheatbench.studies.erf.curves import Field, coarse, density, level_of
from vheatbench.studies.erf.results import ErfResult

PIXELS = 448
"""Cells of a map's longer side that a figure shows: more than 300 dpi resolve in a panel."""

POWER = 0.25

LEAST_SPAN = 10.0
"""A logarithmic scale spans a decade at least, or an even map would look uneven."""


@dataclass(frozen=True)
class ColourScale:
    """Density (mass of a pixel in multiples of a uniform spread) to a place from 0 to 1 on a colour map."""

    kind: Literal["log", "power"]
    low: float
    """What is below has the colour of ``low``; 0 for ``power``."""
    high: float

    @property
    def norm(self) -> Normalize:
        """For matplotlib."""
        if self.kind == "power":
            return PowerNorm(POWER, vmin=self.low, vmax=self.high, clip=True)
        return LogNorm(vmin=self.low, vmax=self.high, clip=True)

    def positions(self, field: Field) -> Field:
        """Places on the colour map, shaped like ``field``."""
        bounded = np.clip(field, self.low, self.high)
        if self.kind == "power":
            places: Field = (bounded / self.high) ** POWER
        else:
            places = np.log(bounded / self.low) / np.log(self.high / self.low)
        return places

    @property
    def words(self) -> str:
        """How mass becomes colour, for the figure."""
        how = "logarithmic" if self.kind == "log" else f"mass to the power {POWER:g}"
        return f"mass per pixel (1 = uniform), colour {how}"

    @property
    def ticks(self) -> list[float]:
        """Densities to label: powers of ten within a logarithmic scale, with 2 and 5 where there are few."""
        if self.kind == "power":
            return [self.high * share**4 for share in (0.0, 0.25, 0.5, 0.75, 1.0)]
        steps = (1, 2, 5) if self.high / self.low < 100 else (1,)
        decades = range(int(np.floor(np.log10(self.low))), int(np.ceil(np.log10(self.high))) + 1)
        return [tick for e in decades for m in steps if self.low <= (tick := m * 10.0**e) <= self.high]


def shown_density(result: ErfResult, most: int = PIXELS) -> tuple[Field, int]:
    """The density that a figure draws, and how many pixels a side of its cells has."""
    return coarse(density(result), most)


def colour_scale(results: Iterable[ErfResult], kind: Literal["log", "power"] = "log") -> ColourScale:
    """One scale for all of them.

    It ends at the largest density drawn. A logarithmic one starts where the least dense of the pixels that hold 99 %
    of a map's mass is, in the map where that is lowest: what gets no colour of its own is 1 % of the mass at most.
    """
    fields = [field for field in (shown_density(result)[0] for result in results) if field.any()]
    high = max((float(field.max()) for field in fields), default=1.0)
    if kind == "power":
        return ColourScale("power", 0.0, high)
    low = min((level_of(field, 0.99) for field in fields), default=1.0)
    return ColourScale("log", min(low, high / LEAST_SPAN), high)
