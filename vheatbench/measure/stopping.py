"""When to stop sampling: a floor of samples, then a precision target, then a ceiling on time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from vheatbench.stats import Interval, median, median_interval

StoppedBy = Literal["precision", "plateau", "ceiling"]


class Policy(BaseModel):
    """How long to measure one case. The order of the three rules is nvbench's."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    min_samples: int = Field(default=10, ge=1)
    """Samples every case gets, unless one takes longer than ``slow_s``."""
    slow_min_samples: int = Field(default=3, ge=1)
    slow_s: float = Field(default=2.0, gt=0)
    """A step slower than this many seconds is content with ``slow_min_samples``."""
    relative_precision: float = Field(default=0.01, gt=0)
    """Stop when the interval of the median is this narrow: half its width over the median."""
    ceiling_s: float = Field(default=15.0, gt=0)
    """Stop after this many seconds of sampling whatever the precision, once the floor is reached."""
    max_samples: int = Field(default=1000, ge=1)
    warmup_ceiling_s: float = Field(default=5.0, ge=0)
    """Longest time spent on getting warm."""
    min_sample_s: float = Field(default=0.002, ge=0)
    """Steps shorter than this are repeated within a sample, so that the clock does not dominate."""

    @model_validator(mode="after")
    def _consistent(self) -> Policy:
        if self.max_samples < self.min_samples:
            raise ValueError("sample counts must be at least 1, and max_samples at least min_samples")
        return self


@dataclass
class StoppingRule:
    """Takes samples one by one and says when they are enough, and why.

    ``precision``: the interval of the median is narrower than the target. ``plateau``: it has not
    narrowed by a tenth while the number of samples doubled, so more would only take time (noise that
    comes in slow waves never reaches a target). ``ceiling``: time is up.
    """

    policy: Policy
    values: list[float] = field(default_factory=list)
    _widths: dict[int, float] = field(default_factory=dict)

    def add(self, seconds: float) -> None:
        """Take one sample, in seconds per step."""
        self.values.append(seconds)
        self._widths[len(self.values)] = self.interval.relative_half_width

    @property
    def interval(self) -> Interval:
        """Median so far with its 95 % interval."""
        return median_interval(self.values)

    @property
    def floor(self) -> int:
        """Fewest samples that this case needs."""
        slow = bool(self.values) and median(self.values) > self.policy.slow_s
        return self.policy.slow_min_samples if slow else self.policy.min_samples

    def finished(self, elapsed_s: float) -> StoppedBy | None:
        """Which rule ends the sampling after ``elapsed_s`` seconds of it, or None to go on."""
        n = len(self.values)
        if n < self.floor:
            return None
        interval = self.interval
        # under 6 samples no interval covers 95 %, so its width proves nothing
        if interval.confidence >= 0.95 and interval.relative_half_width <= self.policy.relative_precision:
            return "precision"
        if elapsed_s >= self.policy.ceiling_s or n >= self.policy.max_samples:
            return "ceiling"
        if n >= 4 * self.policy.min_samples and self._widths[n] > 0.9 * self._widths[n // 2]:
            return "plateau"
        return None


def is_warm(recent: Sequence[float], window: int = 3, tolerance: float = 0.05) -> bool:
    """True when the last ``window`` samples are no longer falling against the ``window`` before them.

    Compared are their medians: a machine that is warming up (caches, allocator, clocks, autotuning)
    gets faster; one that is warm goes up and down.
    """
    if len(recent) < 2 * window:
        return False
    before = median(recent[-2 * window : -window])
    now = median(recent[-window:])
    return now > before * (1 - tolerance)
