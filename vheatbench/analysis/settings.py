"""How two sides are compared: margins, confidence, what stands for a round."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from vheatbench.analysis.noise_floor import NoiseFloor
from vheatbench.errors import UserError

Location = Literal["p25", "min", "p10", "median"]
QUANTILES: dict[Location, float] = {"min": 0.0, "p10": 0.1, "p25": 0.25, "median": 0.5}


@dataclass(frozen=True)
class Settings:
    """How two sides are compared. Raises UserError where a value makes no sense."""

    margin: float = 0.05
    """Relative worsening that is tolerated in a timing."""
    margins: Mapping[str, float] = field(default_factory=lambda: {"peak_memory_bytes": 0.10})
    """Of single metrics, instead of ``margin``."""
    confidence: float = 0.99
    """Of the two-sided intervals."""
    location: Location = "p25"
    """Which quantile of its samples stands for a round. Contention only ever adds time: low ones vary least."""
    metrics: tuple[str, ...] | None = None
    """Names of the only metrics to be compared; None for all exact ones and ``GATED``."""
    floor: NoiseFloor | None = None
    """What this machine's noise was measured to be; margins below it are refused."""
    allow_missing: bool = False
    """Whether cases that only the base has leave the comparison whole."""

    def __post_init__(self) -> None:
        for margin in (self.margin, *self.margins.values()):
            if not 0 <= margin <= 10:
                raise UserError(f"a margin of {margin:g} makes no sense: give one between 0 and 10, for example 0.05")
        if not 0.5 <= self.confidence < 1:
            raise UserError(f"a confidence of {self.confidence:g} makes no sense: give one between 0.5 and 1")
        if self.location not in get_args(Location):
            raise UserError(f"unknown location {self.location!r}: {', '.join(get_args(Location))}")

    def margin_of(self, metric: str) -> float:
        """The margin of a metric."""
        return self.margins.get(metric, self.margin)

    def wants(self, metric: str) -> bool:
        """Whether a metric was asked for, as far as its name tells."""
        return self.metrics is None or metric in self.metrics
