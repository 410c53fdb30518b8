"""The memory pass: arithmetic on a stubbed CUDA, the real thing on this machine's CPU."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from support.fake_pynvml import GIB, FakeGpu, FakePynvml, Process
from vheatbench.measure import memory
from vheatbench.measure.memory import HostBaseline, host_baseline, measure_memory
from vheatbench.store.schema import Metric

MIB = 1 << 20
CPU = torch.device("cpu")
CUDA = torch.device("cuda", 0)


def allocate(mib: int) -> torch.Tensor:
    return torch.ones(mib * MIB, dtype=torch.uint8)


def on_cpu(step, baseline: HostBaseline | None = None) -> dict[str, Metric]:
    return measure_memory(step, CPU, weights_bytes=10, input_bytes=5, baseline=baseline or host_baseline())


class FakeCuda:
    """The few functions of ``torch.cuda`` that the pass uses, over numbers a step can move."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.allocated = self.peak = 900
        self.reserved = 5000
        self.calls: list[str] = []
        for name in ("synchronize", "empty_cache", "reset_peak_memory_stats"):
            monkeypatch.setattr(torch.cuda, name, lambda *_, name=name: self.call(name))
        monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: self.allocated)
        monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: self.peak)
        monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: self.reserved)

    def call(self, name: str) -> None:
        self.calls.append(name)
        if name == "empty_cache":
            self.reserved = 1000
        if name == "reset_peak_memory_stats":
            self.peak = self.allocated

    def step(self) -> None:
        self.calls.append("step")
        self.peak, self.reserved = 2500, 4096


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    return FakeCuda(monkeypatch)


def on_cuda(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch, gpu: FakeGpu, **options: Any) -> dict[str, Metric]:
    monkeypatch.setitem(sys.modules, "pynvml", FakePynvml([gpu], **options))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return measure_memory(cuda.step, CUDA, weights_bytes=600, input_bytes=200, baseline=None)


def test_cuda_from_a_clean_allocator(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    cuda.peak = 99_999  # of the timing pass
    found = on_cuda(cuda, monkeypatch, FakeGpu(compute=[Process(os.getpid(), 2 * GIB)], memory_used=3 * GIB))
    assert cuda.calls == ["synchronize", "empty_cache", "reset_peak_memory_stats", "step", "synchronize"]
    assert {name: metric.value for name, metric in found.items()} == {
        "peak_memory_bytes": 2500,
        "peak_allocated_bytes": 2500,
        "peak_reserved_bytes": 4096,
        "activation_peak_bytes": 1600,  # 100 bytes of the 900 alive before were neither weights nor input
        "nvml_process_bytes": 2 * GIB,
        "nvml_device_bytes": 3 * GIB,
        "weights_bytes": 600,
        "input_bytes": 200,
    }
    assert {name for name, metric in found.items() if metric.deterministic} == {
        "peak_memory_bytes",
        "peak_allocated_bytes",
        "activation_peak_bytes",
        "weights_bytes",
        "input_bytes",
    }
    assert all(metric.unit == "bytes" for metric in found.values())
    assert "all other processes included" in found["nvml_device_bytes"].how


@pytest.mark.parametrize(
    ("processes", "words"),
    [([Process(1, GIB)], "host process ids"), ([Process(os.getpid(), 0)], "0 bytes"), ([], "lists no process")],
)
def test_nvml_process_memory_in_a_container(cuda, monkeypatch, processes, words: str) -> None:
    found = on_cuda(cuda, monkeypatch, FakeGpu(compute=processes))
    assert words in str(found["nvml_process_bytes"].unavailable)
    assert found["nvml_process_bytes"].value is None
    assert found["nvml_device_bytes"].value == 3 * GIB


def test_cuda_without_nvml(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    found = on_cuda(cuda, monkeypatch, FakeGpu(), init_error="LibraryNotFound")
    assert "not found" in str(found["nvml_process_bytes"].unavailable)
    assert "not found" in str(found["nvml_device_bytes"].unavailable)
    assert found["peak_memory_bytes"].value == 2500


def test_out_of_memory_reaches_the_caller(cuda: FakeCuda) -> None:
    def step() -> None:
        raise torch.cuda.OutOfMemoryError("too big")

    with pytest.raises(torch.cuda.OutOfMemoryError):
        measure_memory(step, CUDA, weights_bytes=1, input_bytes=1, baseline=None)

    def host_step() -> None:
        raise MemoryError

    with pytest.raises(MemoryError):
        on_cpu(host_step)


def test_other_devices_are_refused() -> None:
    with pytest.raises(ValueError, match="not on meta"):
        measure_memory(lambda: None, torch.device("meta"), weights_bytes=1, input_bytes=1, baseline=None)


def test_cpu_allocator_peak_is_exact_and_repeatable() -> None:
    alive = allocate(8)

    def step() -> torch.Tensor:
        first = allocate(32)
        second = allocate(32)
        del first
        third = allocate(16)  # fits below the peak
        del second
        return third

    found = on_cpu(step)
    assert found["activation_peak_bytes"].value == 64 * MIB
    assert found["peak_allocated_bytes"].value == 64 * MIB + 15
    assert found["activation_peak_bytes"].deterministic
    assert on_cpu(step)["activation_peak_bytes"].value == 64 * MIB
    assert alive.numel() == 8 * MIB


def test_cpu_allocator_sees_backward_and_ignores_what_was_alive() -> None:
    weight = torch.ones(MIB, requires_grad=True)  # 4 MiB
    kept = [allocate(32)]

    def step() -> None:
        kept.clear()  # releasing what was alive before must not offset what the step allocates
        weight.grad = None
        weight.exp().sum().backward()

    # exp's output and the gradients of sum (expanded, no memory) and exp: two tensors of 4 MiB at the least
    value = on_cpu(step)["activation_peak_bytes"].value
    assert value is not None
    assert 8 * MIB <= value <= 13 * MIB


def test_cpu_allocator_peak_does_not_depend_on_earlier_profiles() -> None:
    kept: list[torch.Tensor] = []

    def step() -> None:
        kept.clear()  # from the second profile on torch knows this block and reports its release
        kept.append(allocate(32))

    assert [on_cpu(step)["activation_peak_bytes"].value for _ in range(3)] == [32 * MIB] * 3


def test_cpu_allocator_without_events(monkeypatch: pytest.MonkeyPatch) -> None:
    found = on_cpu(lambda: None)
    assert "no allocation" in str(found["activation_peak_bytes"].unavailable)
    assert found["peak_allocated_bytes"].value is None
    assert not found["peak_allocated_bytes"].deterministic

    class Profile:
        kineto_results = None

        def __init__(self, **_: Any) -> None: ...
        def __enter__(self) -> Profile:
            return self

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(torch.autograd.profiler, "profile", Profile)
    found = on_cpu(lambda: None)
    assert "does not give out its memory events" in str(found["peak_allocated_bytes"].unavailable)


def test_rss_growth_by_the_kernels_peak() -> None:
    if not memory.reset_high_water():
        pytest.skip("the kernel's peak cannot be reset here")
    baseline = host_baseline()
    high = allocate(200)  # a peak before the pass must not count
    del high
    growth = on_cpu(lambda: allocate(64), baseline)["peak_memory_bytes"]
    assert growth.value is not None
    assert 60 * MIB < growth.value < 100 * MIB
    assert "VmHWM" in growth.how
    assert "weights excluded" in growth.how
    assert not growth.deterministic


def test_rss_growth_where_the_peak_cannot_be_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "reset_high_water", lambda: False)
    baseline = host_baseline()

    def step() -> None:
        held = allocate(64)
        assert not memory.threading.Event().wait(0.1)  # long enough for the 2 ms readings
        del held

    growth = on_cpu(step, baseline)["peak_rss_growth_bytes"]
    assert growth.value is not None
    assert 60 * MIB < growth.value < 100 * MIB
    assert "every 2 ms" in growth.how


def test_a_reset_that_is_refused_or_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, text: str) -> int:
        raise PermissionError(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", refuse)
        assert memory.reset_high_water() is False
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", lambda path, text: 1)
        patch.setattr(memory, "high_water", lambda: memory._rss() + 100 * MIB)
        assert memory.reset_high_water() is False
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", lambda path: "Name: x\n")
        assert memory.reset_high_water() is False


def test_no_growth_and_no_baseline_are_reasons_not_zeros() -> None:
    found = on_cpu(lambda: None, HostBaseline(1 << 50))
    assert "too small for RSS" in str(found["peak_memory_bytes"].unavailable)
    found = measure_memory(lambda: allocate(1), CPU, weights_bytes=1, input_bytes=1, baseline=None)
    assert "no baseline" in str(found["peak_memory_bytes"].unavailable)
    assert found["activation_peak_bytes"].value == MIB
