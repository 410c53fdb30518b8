"""Parts of carrying a case out that no CPU run reaches."""

from __future__ import annotations

import resource

import pytest

from support.records import record
from vheatbench.case import Case
from vheatbench.errors import UserError
from vheatbench.run import measure_case as module
from vheatbench.run.device import classify, device_for
from vheatbench.run.measure_case import Nobody, _energy, measure_case
from vheatbench.run.task import Event, Interim, MeasureTask, Turn
from vheatbench.store import Metric, Record, Samples
from vheatbench.subjects.input_size import fit_input_size
from vheatbench.suites import SuitePolicy

QUICK = SuitePolicy(min_samples=3, ceiling_s=0.05, warmup_ceiling_s=0.05, fvcore=True, memory_limit_gib=64)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (RuntimeError("could not create a primitive"), "oom"),
        (RuntimeError("could not create a primitive descriptor for a convolution"), "failed"),
        (RuntimeError("can't start new thread"), "oom"),
        (RuntimeError("Resource temporarily unavailable"), "oom"),
        (BlockingIOError(11, "Resource temporarily unavailable"), "failed"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), "oom"),
        (OSError(12, "Cannot allocate memory"), "oom"),
        (UserError("no such size"), "skipped"),
        (MemoryError(), "oom"),
    ],
)
def test_running_out_of_memory_is_known_whatever_says_it(error: BaseException, status: str) -> None:
    assert classify(error)[0] == status
    wrapped = UserError("cannot be built")
    wrapped.__cause__ = error
    assert classify(wrapped)[0] == ("oom" if status == "oom" else "skipped")


@pytest.mark.parametrize(
    ("asked", "there", "found"),
    [
        ("auto", False, "cpu"),
        ("auto", True, "cuda"),
        ("cpu", True, "cpu"),
        ("cuda", True, "cuda"),
        ("cuda", False, None),
    ],
)
def test_a_device_is_one_that_is_there(
    monkeypatch: pytest.MonkeyPatch, asked: str, there: bool, found: str | None
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: there)
    if found is not None:
        assert device_for(asked, "float32") == found  # type: ignore[arg-type]
        return
    with pytest.raises(UserError, match="torch sees no CUDA device"):
        device_for(asked, "float32")  # type: ignore[arg-type]


def test_memory_that_runs_out_while_a_model_is_built_is_no_refusal_of_its_size() -> None:
    def hungry() -> None:
        raise MemoryError

    with pytest.raises(MemoryError):
        fit_input_size("m", hungry, None, (32, 32), {})  # type: ignore[arg-type]


@pytest.mark.parametrize(("subject", "size"), [("test_vit", 64), ("op/attention", 4)])
@pytest.mark.usefixtures("one_thread")
def test_what_comes_after_the_measurement_changes_no_status(
    monkeypatch: pytest.MonkeyPatch, subject: str, size: int
) -> None:
    def no_memory(*arguments: object, **options: object) -> None:
        raise RuntimeError("out of memory")

    for name in ("cross_check", "measure_memory", "attention_kernels"):
        monkeypatch.setattr(module, name, no_memory)
    left: list[Interim] = []
    limit = resource.getrlimit(resource.RLIMIT_DATA)
    runner = Nobody()
    monkeypatch.setattr(runner, "left", left.append)
    one = measure_case(MeasureTask(case=Case(subject=subject, resolution=size), policy=QUICK), runner)
    assert resource.getrlimit(resource.RLIMIT_DATA) == limit
    assert (one.status, one.reason) == ("ok", None)
    assert one.metrics["latency_s"].value > 0
    assert one.metrics["peak_memory_bytes"].unavailable == "out of memory: out of memory"
    assert sum("out of memory" in text for text in one.warnings) == 2
    assert left[0].memory_limit_bytes == 64 * 2**30
    assert left[-1].record is one


@pytest.mark.usefixtures("one_thread")
def test_packed_copies_of_weights_count_as_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    held = 7 * 2**20
    task = MeasureTask(case=Case(subject="test_vit", resolution=64), policy=QUICK, count=False)
    growth = 9.0 * 2**20

    def measured(copies: int) -> Record:
        metric = Metric(value=growth, unit="bytes", how="RSS")
        taken = {"peak_memory_bytes": metric, "weights_bytes": metric.model_copy(update={"how": "size"})}
        monkeypatch.setattr(module, "measure_memory", lambda *a, **b: taken)
        monkeypatch.setattr(module, "held_bytes", lambda model: copies)
        return measure_case(task)

    assert measured(0).metrics["peak_memory_bytes"].value == growth
    moved = measured(held).metrics
    assert (moved["peak_memory_bytes"].value, moved["weights_bytes"].value) == (growth - held, growth + held)
    assert "7 MiB of packed weights are counted as weights" in moved["peak_memory_bytes"].how
    too_much = measured(2 * held).metrics["peak_memory_bytes"]
    assert too_much.value is None, "what is not known is not 0"
    assert "packed weights" in str(too_much.unavailable)


def test_a_round_that_is_there_for_the_ratios_has_no_memory_and_no_counts() -> None:
    case = Case(subject="test_vheat", resolution=32)
    whole, further = (
        measure_case(MeasureTask(case=case, policy=QUICK.model_copy(update={"fvcore": False}), count=more, memory=more))
        for more in (True, False)
    )
    assert {"macs", "peak_memory_bytes"} <= whole.metrics.keys()
    assert further.status == "ok"
    assert set(further.metrics) == {"latency_s", "throughput_images_per_s", "params"}


class Takes:
    """A runner that lets a case take so many turns."""

    def __init__(self, turns: int) -> None:
        self.left_over = turns
        self.events: list[Event] = []

    def left(self, interim: Interim) -> None:
        """Not needed."""

    def turn(self, event: Event) -> Turn:
        self.events.append(event)
        # the first is for building and warming up
        self.left_over -= len(self.events) > 1
        return Turn(seconds=0.001 if self.left_over >= 0 else None, stopped_by="plateau")


@pytest.mark.usefixtures("one_thread")
def test_a_case_samples_when_it_is_told_to() -> None:
    runner = Takes(3)
    task = MeasureTask(case=Case(subject="test_vit", resolution=64), policy=QUICK, others=1, count=False, round=2)
    one = measure_case(task, runner)
    assert (one.status, one.reason, one.round) == ("ok", None, 2)
    samples = one.samples["latency_s"]
    assert len(samples.turns) == 3
    assert sum(samples.turns) == len(samples.values)
    assert samples.stopped_by == "plateau"
    imported, warm, *turns = runner.events
    assert imported.samples == []
    assert warm.samples[0] in samples.warmup
    assert [value for event in turns for value in event.samples] == samples.values
    assert {"wait", "build", "warm-up", "samples", "memory"} <= one.spent_s.keys()
    assert sum(one.spent_s.values()) == pytest.approx(one.elapsed_s, rel=0.05)
    assert "macs" not in one.metrics, "they were counted in the first round"
    assert one.metrics["params"].value is not None


def conditions(start, end, **unavailable):
    return {"energy_start_j": start, "energy_end_j": end, "elapsed_s": 4.0, "unavailable": unavailable}


def test_energy_is_shared_by_warm_up_and_samples():
    one = record("vheat-t", 224, 0.1)
    one.samples["latency_s"] = Samples(unit="s", values=[0.1] * 6, warmup=[0.1] * 3, loops=2)
    one.conditions = conditions(100.0, 400.0)
    _energy(one, loops=2, batch=10)
    # 3 steps of warm-up and 6 samples of 2 steps, 10 images each: 300 J over 150 images in 4 s
    assert one.metrics["energy_per_image_j"].value == pytest.approx(2.0)
    assert one.metrics["mean_power_w"].value == pytest.approx(75.0)


def test_missing_energy_gives_its_reason():
    one = record("vheat-t", 224, 0.1)
    one.conditions = conditions(None, None, nvml="no NVIDIA driver here")
    _energy(one, loops=1, batch=1)
    assert one.metrics["energy_per_image_j"].value is None
    assert "no NVIDIA driver here" in one.metrics["energy_per_image_j"].unavailable
