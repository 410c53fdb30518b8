"""What stands beside heat results in figures: names of layers and diffusivities, numbers, ticks, a common clock."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axis import Axis
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from vheatbench.present.style import shorten
from vheatbench.store.schema import Record
from vheatbench.studies.heat.results import Diffusion


@dataclass(frozen=True)
class Clock:
    """What fields that are shown beside each other have in common at a moment: t, or the mean of k times t."""

    diffusions: Sequence[Diffusion]

    @property
    def by_time(self) -> bool:
        """Whether all have the same times; if not, they are compared at the same mean kt."""
        first = self.diffusions[0].times
        return all(one.times.shape == first.shape and np.allclose(one.times, first) for one in self.diffusions)

    @property
    def unit(self) -> str:
        """Name of what is shared, with its unit."""
        return "t" if self.by_time else "mean kt (cells²)"

    def words(self, moment: float) -> str:
        """A moment in words: ``t = 5``, ``mean kt = 5 cells²``."""
        return f"t = {brief(moment)}" if self.by_time else f"mean kt = {brief(moment)} cells²"

    def rate(self, diffusion: Diffusion) -> float:
        """Moment per unit of the field's own time."""
        mean = float(diffusion.k.mean())
        return mean if not self.by_time and mean > 0 else 1.0

    @property
    def span(self) -> tuple[float, float]:
        """First and last moment after the start, two decades apart where there is only one."""
        moments = [float(t) * self.rate(one) for one in self.diffusions for t in one.times if t > 0]
        low, high = (min(moments), max(moments)) if moments else (1.0, 1.0)
        return (low, high) if low < high else (high / 100, high)


def number(record: Record, metric: str) -> float:
    """A metric's value; nan where the record has none."""
    found = record.metrics.get(metric)
    return math.nan if found is None or found.value is None else found.value


def brief(value: float) -> str:
    """Three significant digits in few signs: ``0.38``, ``7880``, ``1.28e5``."""
    text = f"{value:.3g}"
    if "e" not in text:
        return text
    rounded = float(text)
    return f"{rounded:.0f}" if 1 <= abs(rounded) < 1e5 else re.sub(r"e([-+])0*", lambda e: f"e{e[1].strip('+')}", text)


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten from low to high, at most eight or so; with 2 and 5 times those where there are few."""
    first, last = int(np.floor(np.log10(low))), int(np.ceil(np.log10(high)))
    steps = (1, 2, 5) if high / low < 100 else (1,)
    every = max(1, -(-(last - first) // 8))
    ticks = [m * 10.0**e for e in range(first, last + 1, every) for m in steps]
    return [tick for tick in ticks if low <= tick <= high]


def label_log(axis: Axis, low: float, high: float) -> None:
    """Plain numbers on a logarithmic axis: matplotlib's own are formulas, which are off as names may hold dollars."""
    axis.set_major_locator(FixedLocator(log_ticks(low, high)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def is_constant(diffusion: Diffusion) -> bool:
    """Whether k is a number given by the user, not the model's own."""
    return diffusion.k_kind.startswith("constant")


def called(diffusion: Diffusion) -> str:
    """Which diffusivity it is, in words: ``learned k``, ``constant k = 5``."""
    return f"constant k = {diffusion.k_kind.split()[-1]}" if is_constant(diffusion) else f"{diffusion.k_kind} k"


def seen_in(diffusions: Sequence[Diffusion]) -> str:
    """Of which model, at which size, in which layer and channel heat is conducted, on one line."""
    first = diffusions[0]
    layers = list(dict.fromkeys(one.layer for one in diffusions))
    channels = [one.channel for one in diffusions if one.channel]
    where = [f"{len(layers)} layers"] if len(layers) > 1 else [shorten(layers[0]), *channels[:1]]
    return ", ".join([f"{shorten(first.subject)} at {size_words(first.resolution)}", *where])


def size_words(resolution: tuple[int, int]) -> str:
    """``224 px``, or ``224×320 px``."""
    height, width = resolution
    return f"{height} px" if height == width else f"{height}×{width} px"


def weights_words(weights: str) -> str:
    """The weights that k comes from; random ones are always named so."""
    return "random weights" if weights == "random" else f"weights {shorten(weights)}"


def block_words(layer: str, short: bool = False) -> str:
    """``stage 2, block 5`` (short: ``2.5``) of ``stages.2.blocks.5``; other names as they are."""
    numbers = re.fullmatch(r"stages\.(\d+)\.blocks\.(\d+)", layer)
    if numbers is None:
        return shorten(layer, 20)
    return f"{numbers[1]}.{numbers[2]}" if short else f"stage {numbers[1]}, block {numbers[2]}"
