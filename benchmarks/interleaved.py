"""Peers timed in turns within one process, compared as ratios of the same round.

A shared machine drifts by tens of percent in minutes: times taken one after the other cannot be compared,
times of the same round can. The order turns round from round to round (A B C, C B A), so that a steady
drift cancels.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from vheatbench.stats import median, median_interval

Step = Callable[[], Any]


@dataclass
class Rounds:
    """Wall and processor seconds of every peer, round by round."""

    wall: dict[str, list[float]] = field(default_factory=dict)
    cpu: dict[str, list[float]] = field(default_factory=dict)
    """Over all threads: less disturbed by other processes than the wall clock."""

    def ratio(self, name: str, baseline: str) -> dict[str, Any]:
        """How many times as fast ``name`` is as ``baseline``: median of the rounds' ratios and its interval."""
        found: dict[str, Any] = {}
        for clock in ("wall", "cpu"):
            times = getattr(self, clock)
            ratios = [b / a for a, b in zip(times[name], times[baseline], strict=True)]
            interval = median_interval(ratios)
            found[clock] = interval.value
            found[f"{clock}_low"], found[f"{clock}_high"] = interval.low, interval.high
            found["confidence"] = interval.confidence
        found["rounds"] = len(self.wall[name])
        found["ms"] = 1e3 * median(self.wall[name])
        found["baseline_ms"] = 1e3 * median(self.wall[baseline])
        return found


def run_interleaved(peers: dict[str, Step], least: int = 3, most: int = 15, seconds: float = 12.0) -> Rounds:
    """Time every peer once a round: at least ``least`` rounds, at most ``most``, none begun after ``seconds``."""
    names = list(peers)
    for name in names:  # warm up; twice where it is cheap, for the second call still settles the allocator
        begun = time.monotonic()
        peers[name]()
        if time.monotonic() - begun < 2:
            peers[name]()
    rounds = Rounds({name: [] for name in names}, {name: [] for name in names})
    gc.collect()
    gc.disable()
    started = time.monotonic()
    try:
        for i in range(most):
            if i >= least and time.monotonic() - started > seconds:
                break
            for name in names if i % 2 == 0 else reversed(names):
                wall, cpu = time.perf_counter(), time.process_time()
                peers[name]()
                rounds.cpu[name].append(time.process_time() - cpu)
                rounds.wall[name].append(time.perf_counter() - wall)
    finally:
        gc.enable()
    return rounds
