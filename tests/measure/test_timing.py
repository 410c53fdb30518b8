"""The sampling loop with clocks under the test's control: nothing here asserts a real duration."""

from __future__ import annotations

import gc

import pytest
import torch

from support.clock import Clock
from vheatbench.measure import timing as module
from vheatbench.measure.stopping import Policy
from vheatbench.measure.timing import CpuTimer, Reading, Sampler, Timing, measure_time, timer_for, timing_metrics


class ScriptedTimer:
    """Gives the readings of a list, and repeats the last."""

    name = "a scripted clock"

    def __init__(self, readings):
        self.readings = list(readings)
        self.calls = []

    def __call__(self, step, loops=1):
        for _ in range(loops):
            step()
        self.calls.append(loops)
        value = self.readings.pop(0) if len(self.readings) > 1 else self.readings[0]
        return Reading((value, value * 1.5))


def test_warmup_is_kept_apart_and_ends_when_warm():
    timer = ScriptedTimer([5.0, 3.0, 1.1, 1.0, 1.0, 1.0, 1.0, 1.0])
    timing = measure_time(lambda: None, timer, Policy(min_samples=5, max_samples=10))
    assert timing.warmup_s[:3] == [5.0, 3.0, 1.1]
    assert max(timing.device_s) == 1.0
    assert timing.warm
    assert timing.host_s == [1.5] * len(timing.device_s)


def test_short_steps_are_looped():
    timer = ScriptedTimer([0.0003])
    steps = []
    timing = measure_time(lambda: steps.append(1), timer, Policy(min_sample_s=0.002))
    assert timing.loops == 7
    assert timer.calls[-1] == 7
    assert len(steps) == sum(timer.calls)


def test_between_runs_between_samples_and_the_collector_is_off_only_meanwhile():
    seen = []
    measure_time(lambda: seen.append(gc.isenabled()), ScriptedTimer([0.1]), Policy())
    assert seen[-1] is False
    assert gc.isenabled()
    ticks = []
    timing = measure_time(lambda: None, ScriptedTimer([0.1]), Policy(), between=lambda: ticks.append(1))
    assert len(ticks) == len(timing.device_s)


def test_a_step_that_fails_leaves_the_collector_on():
    def fail():
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        measure_time(fail, CpuTimer(), Policy())
    assert gc.isenabled()


@pytest.mark.parametrize(
    ("step_s", "thrown_away", "samples"),
    [
        (1 / 64, 1, 7),  # what wakes up fills the caches first; the rest of an eighth of a second is for samples
        (1 / 16, 0, 2),  # half a turn is too much to throw away
        (7.0, 0, 1),  # one step, however long
    ],
)
def test_a_turn_goes_by_time_and_throws_its_first_step_away_where_that_is_short(
    monkeypatch, step_s, thrown_away, samples
):
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    timer, taken = ScriptedTimer([step_s]), []

    def step():
        taken.append(1)
        clock.now += step_s

    sampler = Sampler(step, timer, Policy(min_sample_s=0))
    sampler.warm_up()
    warm, before = len(sampler.timing.warmup_s), len(taken)
    assert sampler.turn(0.125) == [step_s] * samples
    assert sampler.turn(0.125) == [step_s] * samples
    assert sampler.timing.turns == [samples] * 2
    assert len(sampler.timing.device_s) == 2 * samples
    assert len(sampler.timing.warmup_s) - warm == 2 * thrown_away
    assert sampler.timing.warmup_steps == warm
    assert len(taken) - before == 2 * (samples + thrown_away)


def test_metrics_of_known_samples():
    timing = Timing(device_s=[0.5, 0.4, 0.6] * 4, host_s=[0.7] * 12, warmup_s=[1.0], clock="c")
    metrics, samples, warnings = timing_metrics(timing, batch=8)
    assert metrics["latency_s"].value == 0.5
    assert metrics["throughput_images_per_s"].value == 16
    assert metrics["throughput_images_per_s"].low == 8 / metrics["latency_s"].high
    assert metrics["host_latency_s"].value == 0.7
    assert samples["latency_s"].values == timing.device_s
    assert samples["latency_s"].warmup == [1.0]
    assert warnings == ["noisy: the median is known to ±20% only"]


def test_few_samples_are_said_to_be_few():
    _, _, warnings = timing_metrics(Timing(device_s=[1.0] * 3, host_s=[1.0] * 3, warm=False), batch=1)
    assert warnings[0].startswith("only 3 samples in the time allowed")
    assert warnings[0].endswith("covers 75%")
    assert "still getting faster" in warnings[1]


def test_a_real_clock_counts_up():
    reading = CpuTimer()(lambda: sum(range(1000)), 3)
    assert reading.device_s > 0
    assert reading.device_s == reading.host_s
    assert isinstance(timer_for(torch.device("cpu")), CpuTimer)
