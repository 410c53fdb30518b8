"""How long a step takes: clocks, warm-up, and sampling until the stopping rule is content."""

from __future__ import annotations

import contextlib
import gc
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import torch

from vheatbench.measure.stopping import Policy, StoppedBy, StoppingRule, is_warm
from vheatbench.stats import median, median_interval
from vheatbench.store.schema import Metric, Samples

Step = Callable[[], object]
WAKING = 0.2
"""Share of a turn that a step may take which is thrown away at its beginning."""


class Reading(tuple[float, float]):
    """Seconds per step on the device and on the host."""

    __slots__ = ()

    @property
    def device_s(self) -> float:
        return self[0]

    @property
    def host_s(self) -> float:
        return self[1]


class Timer(Protocol):
    """Runs a step ``loops`` times and reads the clocks."""

    name: str

    def __call__(self, step: Step, loops: int) -> Reading: ...


class CpuTimer:
    """Monotonic wall clock around the steps; device and host time are the same."""

    name = "time.perf_counter_ns around the step"

    def __call__(self, step: Step, loops: int = 1) -> Reading:
        start = time.perf_counter_ns()
        for _ in range(loops):
            step()
        seconds = (time.perf_counter_ns() - start) / 1e9 / loops
        return Reading((seconds, seconds))


class CudaTimer:
    """A pair of CUDA events around the steps, and the host's clock until the device is done."""

    name = "CUDA events around the step"

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.start = torch.cuda.Event(enable_timing=True)
        self.end = torch.cuda.Event(enable_timing=True)

    def __call__(self, step: Step, loops: int = 1) -> Reading:
        # earlier work must not be in front of the first event
        torch.cuda.synchronize(self.device)
        host = time.perf_counter_ns()
        self.start.record()
        for _ in range(loops):
            step()
        self.end.record()
        torch.cuda.synchronize(self.device)
        host_s = (time.perf_counter_ns() - host) / 1e9 / loops
        return Reading((self.start.elapsed_time(self.end) / 1e3 / loops, host_s))


def timer_for(device: torch.device) -> Timer:
    """The timer that a device needs."""
    return CudaTimer(device) if device.type == "cuda" else CpuTimer()


@dataclass
class Timing:
    """All readings of one case, in seconds per step."""

    device_s: list[float] = field(default_factory=list)
    host_s: list[float] = field(default_factory=list)
    warmup_s: list[float] = field(default_factory=list)
    """What is not used: of the warm-up, and of the first steps of turns."""
    warmup_steps: int = 0
    """Those of the warm-up alone."""
    turns: list[int] = field(default_factory=list)
    """Samples of each turn; empty where they were taken in one go."""
    loops: int = 1
    stopped_by: StoppedBy = "ceiling"
    warm: bool = True
    clock: str = ""


class Sampler:
    """Takes the samples of one case: warms the step up, then measures in one go or in turns with other processes."""

    def __init__(self, step: Step, timer: Timer, policy: Policy, between: Callable[[], object] = lambda: None) -> None:
        """
        Args:
            step: one forward pass, training step, ... Its result is thrown away.
            timer: see :func:`timer_for`.
            policy: floors, targets and ceilings.
            between: called between samples, outside the timed part (reading clocks and temperatures).
        """
        self.timing = Timing(clock=timer.name)
        self._step = step
        self._timer = timer
        self._policy = policy
        self._between = between

    def warm_up(self) -> None:
        """Run until recent samples agree, and find out how many steps a sample needs."""
        timing = self.timing
        timing.warm = self._get_warm()
        timing.warmup_steps = len(timing.warmup_s)
        typical = median(timing.warmup_s[-3:])
        timing.loops = max(1, math.ceil(self._policy.min_sample_s / typical)) if typical > 0 else 1

    def _get_warm(self) -> bool:
        """True when recent samples agreed before the ceiling."""
        start, taken = time.monotonic(), self.timing.warmup_s
        while True:
            taken.append(self._timer(self._step, 1).device_s)
            if is_warm(taken):
                return True
            # one step alone cannot show whether the next is faster
            if time.monotonic() - start >= self._policy.warmup_ceiling_s and len(taken) >= 2:
                return taken[-1] > 0.9 * taken[-2]

    def sample(self) -> float:
        """One sample: seconds per step."""
        reading = self._timer(self._step, self.timing.loops)
        self.timing.device_s.append(reading.device_s)
        self.timing.host_s.append(reading.host_s)
        self._between()
        return reading.device_s

    def run(self) -> None:
        """Sample until the policy's stopping rule ends it."""
        rule = StoppingRule(self._policy)
        with uncollected():
            start = time.monotonic()
            while (ended := rule.finished(time.monotonic() - start)) is None:
                rule.add(self.sample())
        self.timing.stopped_by = ended

    def turn(self, seconds: float) -> list[float]:
        """The samples of a turn of so many seconds, at least one.

        Another process has worked since the last turn: a first step, which fills the caches again, is thrown away,
        unless it would take a large part of the turn. Such steps find the caches full of their own data anyway.
        """
        start = time.monotonic()
        if self.timing.warmup_s[-1] <= WAKING * seconds:
            self.timing.warmup_s.append(self._timer(self._step, 1).device_s)
        before = len(self.timing.device_s)
        while not self.timing.device_s[before:] or time.monotonic() - start < seconds:
            self.sample()
        self.timing.turns.append(len(self.timing.device_s) - before)
        return self.timing.device_s[before:]


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """No garbage collection as long as the block lasts: inside a sample it would be charged to the model."""
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def measure_time(step: Step, timer: Timer, policy: Policy, between: Callable[[], object] = lambda: None) -> Timing:
    """Warm ``step`` up, then sample it until the policy's stopping rule ends it; see :class:`Sampler`."""
    sampler = Sampler(step, timer, policy, between)
    sampler.warm_up()
    sampler.run()
    return sampler.timing


def timing_metrics(timing: Timing, batch: int) -> tuple[dict[str, Metric], dict[str, Samples], list[str]]:
    """``latency_s`` and ``throughput_images_per_s`` with intervals, the samples, and warnings.

    Latency is the time of a whole batch; throughput is the batch over it.
    """
    interval = median_interval(timing.device_s)
    n = len(timing.device_s)
    how = f"median of {n} samples, {timing.clock}"
    if timing.loops > 1:
        how += f", {timing.loops} steps a sample"
    if timing.turns:
        how += f", in {len(timing.turns)} turns with the others of its group"
    how += f"; {interval.confidence:.0%} order-statistic interval within one process"
    metrics = {
        "latency_s": Metric(
            value=interval.value, low=interval.low, high=interval.high, confidence=interval.confidence,
            unit="s", direction="lower", how=how,
        ),
        "throughput_images_per_s": Metric(
            value=batch / interval.value, low=batch / interval.high, high=batch / interval.low,
            confidence=interval.confidence, unit="images/s", direction="higher", how=f"batch {batch} / latency; {how}",
        ),
    }  # fmt: skip
    samples = {
        "latency_s": Samples(
            unit="s",
            values=timing.device_s,
            warmup=timing.warmup_s,
            loops=timing.loops,
            stopped_by=timing.stopped_by,
            turns=timing.turns,
        )
    }
    if timing.host_s != timing.device_s:
        host = median_interval(timing.host_s)
        metrics["host_latency_s"] = Metric(
            value=host.value, low=host.low, high=host.high, confidence=host.confidence, unit="s",
            direction="lower", how=f"median of {n} samples, host clock until the device is done",
        )  # fmt: skip
        samples["host_latency_s"] = Samples(unit="s", values=timing.host_s, loops=timing.loops)
    return metrics, samples, timing_warnings(timing)


def timing_warnings(timing: Timing) -> list[str]:
    """What a reader must know about these samples, one line each."""
    warnings = []
    n = len(timing.device_s)
    interval = median_interval(timing.device_s)
    if interval.confidence < 0.95:
        warnings.append(f"only {n} samples in the time allowed: the interval covers {interval.confidence:.0%}")
    if not timing.warm:
        warnings.append(f"still getting faster when the warm-up of {timing.warmup_steps} steps ended")
    if interval.relative_half_width > 0.1:
        warnings.append(f"noisy: the median is known to ±{interval.relative_half_width:.0%} only")
    return warnings
