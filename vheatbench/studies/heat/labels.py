"""What stands beside heat results: names of layers and diffusivities, numbers in few characters, a common clock."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vheatbench.present.style import shorten, size_words
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

    def moment(self, diffusion: Diffusion, index: int) -> tuple[str, str]:
        """One of a field's times in words: what the fields share first, then its own t or kt."""
        t, kt = f"t {brief(diffusion.times[index])}", f"kt {brief(diffusion.mean_kt[index])}"
        return (t, kt) if self.by_time else (kt, t)

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
    """Three significant digits in few characters: ``0.38``, ``7880``, ``1.28e5``."""
    text = f"{value:.3g}"
    if "e" not in text:
        return text
    rounded = float(text)
    return f"{rounded:.0f}" if 1 <= abs(rounded) < 1e5 else re.sub(r"e([-+])0*", lambda e: f"e{e[1].strip('+')}", text)


def is_constant(diffusion: Diffusion) -> bool:
    """Whether k is a number given by the user, not the model's own."""
    return diffusion.k_kind.startswith("constant")


def k_words(diffusion: Diffusion) -> str:
    """Which diffusivity it is: ``learned k``, ``constant k = 5``."""
    return f"constant k = {diffusion.k_kind.split()[-1]}" if is_constant(diffusion) else f"{diffusion.k_kind} k"


def place_words(diffusions: Sequence[Diffusion]) -> str:
    """Of which model, at which size, in which layer and channel heat is conducted, on one line."""
    first = diffusions[0]
    layers = list(dict.fromkeys(one.layer for one in diffusions))
    channels = [one.channel for one in diffusions if one.channel]
    where = [f"{len(layers)} layers"] if len(layers) > 1 else [shorten(layers[0]), *channels[:1]]
    return ", ".join([f"{shorten(first.subject)} at {size_words(first.resolution)}", *where])


def weights_words(weights: str) -> str:
    """The weights that k comes from; random ones are always named so."""
    return "random weights" if weights == "random" else f"weights {shorten(weights)}"


def block_words(layer: str) -> str:
    """``stage 2, block 5`` of ``stages.2.blocks.5``; other names as they are."""
    numbers = re.fullmatch(r"stages\.(\d+)\.blocks\.(\d+)", layer)
    return shorten(layer, 20) if numbers is None else f"stage {numbers[1]}, block {numbers[2]}"
