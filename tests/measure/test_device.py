"""NVML wrapper, device description, snapshots, watch and energy: on a fake pynvml, no GPU needed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import types
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pynvml as real
import pytest

from support.fake_pynvml import CONSTANTS, FUNCTIONS, GIB, FakeGpu, FakePynvml, Process
from vheatbench.measure import device, host, watch
from vheatbench.measure.device import DeviceState, describe_device, energy_metrics
from vheatbench.measure.nvml import Gpu, Nvml, Unavailable, open_nvml
from vheatbench.measure.watch import DeviceWatch
from vheatbench.run.device import memory_limit

OTHER = "GPU-bbbbbbbb-1111-2222-3333-444444444444"


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch):
    def install(*gpus: FakeGpu, **options: Any) -> FakePynvml:
        fake = FakePynvml(list(gpus), **options)
        monkeypatch.setitem(sys.modules, "pynvml", fake)
        return fake

    return install


@pytest.fixture
def cuda_torch(monkeypatch: pytest.MonkeyPatch):
    """A torch that has initialised CUDA and reports these UUIDs, in CUDA's order."""

    def install(*uuids: str) -> None:
        def properties(index: int) -> types.SimpleNamespace:
            if index >= len(uuids):
                raise AssertionError("Invalid device id")
            return types.SimpleNamespace(
                uuid=uuids[index], name="from torch", total_memory=5, major=9, minor=0, multi_processor_count=132
            )

        cuda = types.SimpleNamespace(is_initialized=lambda: True, get_device_properties=properties)
        fake = types.SimpleNamespace(cuda=cuda, get_num_threads=lambda: 3)
        monkeypatch.setitem(sys.modules, "torch", fake)

    return install


def opened() -> Nvml:
    nvml = open_nvml()
    assert isinstance(nvml, Nvml)
    return nvml


def gpu(which: int | str = 0) -> Gpu:
    found = opened().device(which)
    assert isinstance(found, Gpu), found
    return found


def reason(answer: object) -> str:
    assert isinstance(answer, Unavailable), answer
    return answer.reason


def two_gpus() -> list[FakeGpu]:
    """NVML's first GPU sits behind its second on the bus."""
    return [FakeGpu(bus=0x4D), FakeGpu(name="NVIDIA A100", uuid=OTHER, bus=0x0A)]


# The fake and the real module


def test_the_fake_has_only_what_the_real_module_has() -> None:
    for name in [*FUNCTIONS, *CONSTANTS]:
        assert hasattr(real, name), name
    fake = FakePynvml([])
    for name in [n for n in vars(fake) if n.startswith("NVMLError")]:
        assert issubclass(getattr(real, name), real.NVMLError)
        if name != "NVMLError":
            assert getattr(real, name)().value == getattr(fake, name)().value
    assert {"pid", "usedGpuMemory"} <= {f[0] for f in real.c_nvmlProcessInfo_v3_t._fields_}
    assert {"total", "used"} <= {f[0] for f in real.c_nvmlMemory_t._fields_}
    assert {"domain", "bus", "device"} <= {f[0] for f in real.nvmlPciInfo_t._fields_}
    assert "gpu" in {f[0] for f in real.c_nvmlUtilization_t._fields_}


def test_every_name_the_code_asks_for_is_in_the_real_module() -> None:
    folder = Path(device.__file__).parent
    source = (folder / "nvml.py").read_text() + (folder / "gpu.py").read_text()
    names = re.findall(r'"(nvml[A-Z]\w+|NVML_[A-Z_]+[A-Z])"', source)
    assert len(set(names)) > 20
    assert [name for name in names if not hasattr(real, name)] == []
    assert {n for n in names if n.startswith("nvml")} - FUNCTIONS.keys() == set()


# Opening


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("LibraryNotFound", "libnvidia-ml.so.1 was not found"),
        ("DriverNotLoaded", "driver is not loaded"),
        ("NoPermission", "no permission"),
        ("Unknown", "NVMLError_Unknown NVML Error with code 999"),
    ],
)
def test_open_says_why_not(install, error: str, words: str) -> None:
    install(init_error=error)
    assert words in reason(open_nvml())


def test_open_without_the_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert "pip install nvidia-ml-py" in reason(open_nvml())


def test_a_missing_function_is_a_reason(install) -> None:
    install(FakeGpu(), without=("nvmlDeviceGetName",))
    assert reason(gpu().name()) == "this nvidia-ml-py has no nvmlDeviceGetName"


# From CUDA's index to NVML's handle


def test_torchs_uuid_decides_whatever_the_order(install, cuda_torch) -> None:
    install(*two_gpus())
    cuda_torch(OTHER.removeprefix("GPU-"), "aaaaaaaa-1111-2222-3333-444444444444")
    assert [gpu(0).name(), gpu(1).name()] == ["NVIDIA A100", "NVIDIA H200"]


def test_several_gpus_without_any_hint_are_undecidable(install) -> None:
    install(*two_gpus())
    assert "CUDA_DEVICE_ORDER=PCI_BUS_ID" in reason(opened().device(0))


def test_pci_order_is_the_buses_not_nvmls(install, monkeypatch: pytest.MonkeyPatch) -> None:
    install(*two_gpus())
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    assert gpu(0).name() == "NVIDIA A100"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")
    assert gpu(0).name() == "NVIDIA H200"
    assert "2 visible" in reason(opened().device(2))


def test_visible_devices_by_uuid_prefix(install, monkeypatch: pytest.MonkeyPatch) -> None:
    install(*two_gpus())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-bbbb, GPU-aaaa")
    assert [gpu(0).name(), gpu(1).name()] == ["NVIDIA A100", "NVIDIA H200"]


@pytest.mark.parametrize(("visible", "count"), [("", 0), ("-1", 0), ("0,9,0", 1), ("GPU-aaaa,GPU-cccc", 1)])
def test_the_first_invalid_entry_ends_the_list(install, monkeypatch, visible: str, count: int) -> None:
    install(FakeGpu())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    devices = opened().cuda_devices()
    assert isinstance(devices, list)
    assert len(devices) == count


def test_ambiguous_and_unknown_uuids(install) -> None:
    install(FakeGpu(), FakeGpu(uuid="GPU-aaaacccc"))
    assert "2 GPUs have a UUID" in reason(opened().device("GPU-aaaa"))
    assert "NVML sees no GPU" in reason(opened().device("GPU-ffff"))


def test_an_instance_of_a_divided_gpu(install, cuda_torch, monkeypatch: pytest.MonkeyPatch) -> None:
    board = FakeGpu(mig=True)
    board.instances = [FakeGpu(name="NVIDIA H200 MIG 1g.18gb", uuid="MIG-cccc", board=board, memory_total=18 * GIB)]
    install(board)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-cccc")
    assert gpu(0).name() == "NVIDIA H200 MIG 1g.18gb"
    cuda_torch("cccc")
    instance = gpu(0)
    assert instance.total_memory_bytes() == 18 * GIB
    assert instance.sm_clock_mhz() == 1980
    assert instance.mig() is True
    assert "MIG is enabled" in reason(instance.energy_j())


def test_a_lost_neighbour_leaves_uuids_usable(install, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = two_gpus()
    first.errors = {"nvmlDeviceGetUUID": "GpuIsLost", "nvmlDeviceGetPciInfo": "GpuIsLost"}
    install(first, second)
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    assert gpu(OTHER).name() == "NVIDIA A100"
    assert "GPU is lost" in reason(opened().device(0))


# Queries


def test_units(install) -> None:
    install(FakeGpu())
    found = gpu()
    assert found.power_w() == 650.0
    assert found.power_limit_w() == 700.0
    assert found.energy_j() == 5_000_030.0
    assert found.utilisation() == 0.97
    assert opened().cuda_driver_version() == "12.8"


@pytest.mark.parametrize(
    ("field", "query"),
    [
        ("sm_clock", "sm_clock_mhz"),
        ("power_mw", "power_w"),
        ("temperature", "temperature_c"),
        ("memory_used", "used_memory_bytes"),
        ("memory_total", "total_memory_bytes"),
    ],
)
def test_a_zero_that_means_unknown_is_no_value(install, field: str, query: str) -> None:
    install(FakeGpu(**{field: 0}))
    assert "reports 0, which means unknown" in reason(getattr(gpu(), query)())


def test_no_query_raises_whatever_nvml_does(install) -> None:
    everything = dict.fromkeys(FUNCTIONS, "NotSupported")
    install(FakeGpu(errors=everything))
    nvml = opened()
    found = Gpu(nvml, nvml.ask("nvmlDeviceGetHandleByIndex", 0), nvml.ask("nvmlDeviceGetHandleByIndex", 0))
    queries = [n for n in vars(Gpu) if not n.startswith("_") and n != "process_bytes"]
    assert len(queries) > 15
    for query in queries:
        assert "not supported" in reason(getattr(found, query)()), query
    assert "not supported" in reason(found.process_bytes(1))


def test_throttle_reasons_in_words(install) -> None:
    fake = install(FakeGpu())
    cap, thermal = fake.nvmlClocksEventReasonSwPowerCap, fake.nvmlClocksEventReasonHwThermalSlowdown
    fake.gpus[0].reasons = cap | thermal | fake.nvmlClocksEventReasonApplicationsClocksSetting | 1 << 40
    assert gpu().throttle_reasons() == [
        "applications clocks setting",
        "sw power cap",
        "hw thermal slowdown",
        "unknown reason 0x10000000000",
    ]
    fake.gpus[0].reasons = 0
    assert gpu().throttle_reasons() == []


def test_throttle_reasons_of_an_older_driver(install) -> None:
    fake = install(FakeGpu(errors={"nvmlDeviceGetCurrentClocksEventReasons": "FunctionNotFound"}))
    fake.gpus[0].reasons = fake.nvmlClocksThrottleReasonSwPowerCap
    assert gpu().throttle_reasons() == ["sw power cap"]


def test_a_process_in_both_lists_counts_once(install) -> None:
    install(FakeGpu(compute=[Process(7, GIB), Process(8, None)], graphics=[Process(7, GIB), Process(8, 2 * GIB)]))
    assert gpu().processes() == {7: GIB, 8: 2 * GIB}
    assert gpu().process_bytes(7) == GIB


@pytest.mark.parametrize(
    ("processes", "words"),
    [
        ([Process(4001, GIB)], "host process ids; this container's id 7 is not among them"),
        ([Process(7, None)], "not its memory"),
        ([Process(7, 0)], "reports 0 bytes"),
        ([], "lists no process"),
    ],
)
def test_process_memory_that_is_not_there(install, processes: list[Process], words: str) -> None:
    install(FakeGpu(compute=processes))
    assert words in reason(gpu().process_bytes(7))


# Description


def test_describe_a_gpu(install, cuda_torch) -> None:
    install(FakeGpu())
    assert describe_device("cuda")["sm_count"] is None
    cuda_torch("aaaaaaaa-1111-2222-3333-444444444444")
    described = describe_device("cuda", 0)
    assert json.loads(json.dumps(described)) == described
    assert described == {
        "kind": "cuda",
        "index": 0,
        "name": "NVIDIA H200",
        "uuid": "GPU-aaaaaaaa-1111-2222-3333-444444444444",
        "total_memory_bytes": 141 * GIB,
        "driver_version": "570.86.15",
        "cuda_driver_version": "12.8",
        "compute_capability": "9.0",
        "sm_count": 132,
        "mig": False,
        "ecc": True,
        "persistence_mode": True,
        "power_limit_w": 700.0,
        "max_sm_clock_mhz": 1980,
        "max_memory_clock_mhz": 3201,
        "pcie_max_generation": 5,
        "pcie_width": 16,
        "unavailable": {},
    }


def test_describe_a_gpu_without_nvml(install, cuda_torch) -> None:
    install(init_error="LibraryNotFound")
    cuda_torch("x")
    described = describe_device("cuda")
    assert described["name"] == "from torch"
    assert described["total_memory_bytes"] == 5
    assert "not found" in described["unavailable"]["nvml"]


def test_describe_says_what_is_unsupported_and_closes_nvml(install) -> None:
    fake = install(FakeGpu(errors={"nvmlDeviceGetEccMode": "NotSupported"}))
    described = describe_device("cuda")
    assert described["ecc"] is None
    assert described["unavailable"] == {"ecc": "nvmlDeviceGetEccMode: not supported by this GPU or driver"}
    assert fake.initialised == 0


def test_describe_the_cpu() -> None:
    described = describe_device("cpu")
    assert described["kind"] == "cpu"
    assert described["name"]
    assert 1 <= described["affinity_cores"] <= described["logical_cores"]
    assert described["total_memory_bytes"] > 1 << 28
    assert host.usable_cores() >= 1
    json.dumps(described)


def test_quota_and_limit_of_the_control_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    (inner / "cpu.max").write_text("max 100000\n")
    (inner / "memory.max").write_text("1073741824\n")
    monkeypatch.setattr(host, "_group_folders", lambda controller: [inner, tmp_path])
    monkeypatch.setattr(host, "affinity", lambda: [0, 1, 2, 3])
    assert host.cpu_quota() == 1.5
    assert host.usable_cores() == 2
    assert host.memory_limit_bytes() == GIB


@pytest.mark.parametrize(
    ("limit", "use", "cached"),
    [
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ],
)
def test_a_worker_may_take_what_the_control_groups_leave_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, use: str, cached: str
) -> None:
    inner, outer = tmp_path / "inner", tmp_path
    inner.mkdir()
    monkeypatch.setattr(host, "_group_folders", lambda controller: [inner, outer])
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=100 * GIB))

    def group(folder: Path, allowed: str, used: int, files: int = 0) -> None:
        (folder / limit).write_text(allowed)
        (folder / use).write_text(str(used))
        (folder / "memory.stat").write_text(f"inactive_file {min(files, 1)}\n{cached} {files}\nanon 7\n")

    group(inner, str(8 * GIB), 2 * GIB)
    group(outer, str(40 * GIB), 36 * GIB)
    assert host.memory_limit_bytes() == 8 * GIB
    assert host.free_memory_bytes() == 4 * GIB, "the others below the same ancestor hold the rest"
    assert memory_limit("cpu") == int(0.9 * 4 * GIB)
    group(outer, str(40 * GIB), 36 * GIB, files=3 * GIB)
    assert host.free_memory_bytes() == 6 * GIB, "pages of files are given up"
    group(inner, str(8 * GIB), 9 * GIB)
    assert host.free_memory_bytes() == 0
    group(inner, "max" if limit == "memory.max" else str(2**63 - 4096), 9 * GIB)
    group(outer, str(400 * GIB), 0)
    assert host.free_memory_bytes() == 100 * GIB


def test_control_groups_of_both_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["4:cpu,cpuacct:/a/b", "0::/c"]
    monkeypatch.setattr(host, "_lines", lambda path: lines if path == Path("/proc/self/cgroup") else [])
    folders = host._group_folders("cpu", root=tmp_path)
    assert folders == [tmp_path / "cpu/a/b", tmp_path / "cpu/a", tmp_path / "cpu", tmp_path / "c", tmp_path]
    assert host._group_folders("memory", root=tmp_path) == [tmp_path / "c", tmp_path]


# Watch


class Clock:
    """Time, processors and load as the test wants them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = self.own = self.busy = 0.0
        self.load: float | None = 0.0
        monkeypatch.setattr("time.monotonic", lambda: self.now)
        monkeypatch.setattr("time.process_time", lambda: self.own)
        monkeypatch.setattr(host, "busy_seconds", lambda cores: self.busy)
        monkeypatch.setattr(host, "load_average", lambda: self.load)
        monkeypatch.setattr(host, "usable_cores", lambda: 8)

    def work(self, seconds: float, own: float, others: float) -> None:
        self.now += seconds
        self.own += own * seconds
        self.busy += (own + others) * seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_watch_a_healthy_gpu(install, clock: Clock) -> None:
    fake = install(FakeGpu(compute=[Process(os.getpid(), GIB)]))
    watched = DeviceWatch("cuda")
    watched.start()
    for step in range(40):
        fake.gpus[0].sm_clock = 1980 - step
        clock.work(0.125, own=1, others=0)  # every fourth tick is half a second apart
        watched.tick()
    conditions = watched.stop()
    assert json.loads(json.dumps(conditions)) == conditions
    assert watched.warnings == []
    assert conditions["readings"] == 10
    assert conditions["sm_clock_mhz"] == {"min": 1944, "median": 1962, "max": 1980}
    assert conditions["temperature_c"] == {"min": 45, "median": 45, "max": 45}
    assert conditions["energy_end_j"] - conditions["energy_start_j"] == pytest.approx(11 * 30)
    assert conditions["elapsed_s"] == pytest.approx(5)
    assert conditions["throttle_reasons"] == {}
    assert conditions["other_processes"] == 0
    assert conditions["unavailable"] == {}
    assert fake.initialised == 0


def test_watch_a_throttled_hot_shared_gpu(install, clock: Clock) -> None:
    fake = install(FakeGpu(compute=[Process(os.getpid(), GIB), Process(1, GIB)], temperature=88))
    cap, idle = fake.nvmlClocksEventReasonSwPowerCap, fake.nvmlClocksEventReasonGpuIdle
    watched = DeviceWatch("cuda", every_s=0)
    watched.start()
    for clock_mhz, mask in [(1980, 0), (1410, cap), (1400, cap), (300, idle)]:
        fake.gpus[0].sm_clock, fake.gpus[0].reasons = clock_mhz, mask
        watched.tick()
    conditions = watched.stop()
    assert conditions["throttle_reasons"] == {"sw power cap": 2, "gpu idle": 1}
    assert watched.warnings == [
        "clocks were held down in 2 of 4 readings: sw power cap (2)",
        "the SM clock fell below 90% of its highest in 2 of 3 readings (1980 to 1400 MHz)",
        "the GPU reached 88 °C; its hardware slows down at 92 °C",
        "up to 1 other processes used the GPU",
    ]


def test_harmless_reasons_are_no_warning(install, clock: Clock) -> None:
    fake = install(FakeGpu(compute=[Process(os.getpid(), GIB)]))
    fake.gpus[0].reasons = fake.nvmlClocksEventReasonGpuIdle | fake.nvmlClocksEventReasonApplicationsClocksSetting
    watched = DeviceWatch("cuda")
    watched.start()
    watched.tick()
    assert set(watched.stop()["throttle_reasons"]) == watch.HARMLESS_REASONS
    assert watched.warnings == []


def test_a_gpu_lost_in_the_middle(install, clock: Clock) -> None:
    fake = install(FakeGpu(compute=[Process(os.getpid(), GIB)]))
    watched = DeviceWatch("cuda", every_s=0)
    watched.start()
    watched.tick()
    fake.gpus[0].lost = True
    watched.tick()
    conditions = watched.stop()
    assert conditions["sm_clock_mhz"] == {"min": 1980, "median": 1980, "max": 1980}
    assert conditions["energy_end_j"] is None
    assert "GPU is lost" in conditions["unavailable"]["energy_j"]
    assert len(watched.warnings) == 1
    assert watched.warnings[0].startswith("NVML stopped answering during the measurement")


def test_a_divided_gpu_is_said_to_be_one(install, clock: Clock) -> None:
    install(FakeGpu(mig=True))
    watched = DeviceWatch("cuda")
    watched.start()
    assert watched.stop()["energy_start_j"] is None
    assert any("MIG is enabled" in warning for warning in watched.warnings)


def test_a_watch_without_nvml_still_reports_the_host(install, clock: Clock) -> None:
    install(init_error="DriverNotLoaded")
    watched = DeviceWatch("cuda")
    watched.start()
    watched.tick()
    conditions = watched.stop()
    assert "not loaded" in conditions["unavailable"]["nvml"]
    assert conditions["sm_clock_mhz"] is None
    assert conditions["load_average_after"] == 0
    assert len(watched.warnings) == 1


@pytest.mark.parametrize(
    ("own_threads", "others", "warned"), [(8, 0.1, False), (8, 1.0, True), (1, 3.0, False), (1, 5.0, True)]
)
def test_foreign_work_on_our_processors(clock: Clock, own_threads: int, others: float, warned: bool) -> None:
    watched = DeviceWatch("cpu", threads=own_threads)
    watched.start()
    clock.work(2.0, own=own_threads, others=others)
    assert watched.stop()["other_cpu_cores"] == pytest.approx(others)
    assert [f"another {others:.1f} cores' worth" in w for w in watched.warnings] == ([True] if warned else [])


@pytest.mark.parametrize(("load", "warned"), [(12.5, True), (11.5, False), (None, False)])
def test_a_short_measurement_goes_by_the_load_average(clock: Clock, load: float | None, warned: bool) -> None:
    clock.load = load
    watched = DeviceWatch("cpu", threads=8)
    watched.start()
    clock.work(0.2, own=8, others=0)
    assert watched.stop()["other_cpu_cores"] is None
    assert ["by the load average" in w for w in watched.warnings] == ([True] if warned else [])


def test_what_others_do_while_it_is_paused_is_not_noticed(clock: Clock) -> None:
    watched = DeviceWatch("cpu", threads=8)
    watched.start()
    clock.work(2.0, own=8, others=0.5)
    watched.pause()
    clock.work(50.0, own=0, others=8)
    watched.resume()
    clock.work(2.0, own=8, others=0.5)
    seen = watched.stop()
    assert (seen["elapsed_s"], seen["other_cpu_cores"]) == pytest.approx((4.0, 0.5))


def test_energy_is_that_of_its_own_turns_and_its_companions_are_no_strangers(install, clock: Clock) -> None:
    board = FakeGpu(energy_step_mj=0, compute=[Process(11, GIB), Process(12, GIB)])
    install(board)
    watched = DeviceWatch("cuda", every_s=0, companions=2)
    watched.start()
    start = board.energy_mj
    for joules, own in ((30, True), (500, False), (12, True)):
        (watched.resume if own else watched.pause)()
        board.energy_mj += joules * 1000
        clock.work(1.0, own=1, others=0)
    seen = watched.stop()
    assert seen["energy_end_j"] - seen["energy_start_j"] == pytest.approx(42)
    assert seen["energy_start_j"] == pytest.approx(start / 1000)
    assert not seen["other_processes"]


def test_counters_that_miss_our_own_work_are_not_believed(clock: Clock) -> None:
    watched = DeviceWatch("cpu", threads=8)
    watched.start()
    clock.now, clock.own = 5.0, 40.0
    assert watched.stop()["other_cpu_cores"] is None


def test_more_threads_than_cores(clock: Clock) -> None:
    watched = DeviceWatch("cpu", threads=9)
    watched.start()
    watched.stop()
    assert watched.warnings == ["9 threads share 8 usable cores"]


def test_threads_are_torchs_else_openmps(cuda_torch, monkeypatch: pytest.MonkeyPatch) -> None:
    cuda_torch("x")
    assert DeviceWatch("cpu").threads == 3
    assert DeviceWatch("cuda").threads == 1
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setenv("OMP_NUM_THREADS", "5,2")
    assert DeviceWatch("cpu").threads == 5


def test_a_real_snapshot_of_this_host() -> None:
    state = DeviceState.now(None).as_dict()
    assert "time_s" not in state
    assert state["sm_clock_mhz"] is None
    json.dumps(state)
    assert (host.busy_seconds(host.affinity()) or 0) >= 0


def test_processes_in_a_container_include_this_one(install, cuda_torch) -> None:
    fake = install(FakeGpu(compute=[Process(4001, GIB), Process(4002, GIB)]))
    assert DeviceState.now(gpu()).other_processes == 2
    cuda_torch("aaaaaaaa-1111-2222-3333-444444444444")
    assert DeviceState.now(gpu()).other_processes == 1
    fake.gpus[0].compute.clear()
    state = DeviceState.now(gpu())
    assert state.other_processes is None
    assert "lists no process" in state.unavailable["other_processes"]


# Energy


def test_energy_per_image_and_mean_power() -> None:
    metrics = energy_metrics(100.0, 700.0, images=200, seconds=2.0)
    assert metrics["energy_per_image_j"].value == pytest.approx(3.0)
    assert metrics["energy_per_image_j"].direction == "lower"
    assert metrics["mean_power_w"].value == pytest.approx(300.0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((None, 1.0, 8, 1.0, "nvmlX: not supported"), "nvmlX: not supported"),
        ((None, None, 8, 1.0), "no energy counter"),
        ((1.0, 2.0, 8, 0.05), "too short"),
        ((2.0, 1.0, 8, 1.0), "went backwards"),
        ((2.0, 2.0, 8, 1.0), "did not move"),
    ],
)
def test_energy_that_cannot_be_known(arguments: tuple[Any, ...], words: str) -> None:
    for metric in energy_metrics(*arguments).values():
        assert metric.value is None
        assert words in str(metric.unavailable)


def test_power_is_known_without_images() -> None:
    metrics = energy_metrics(0.0, 30.0, images=0, seconds=1.0)
    assert metrics["mean_power_w"].value == 30.0
    assert metrics["energy_per_image_j"].unavailable == "no image was processed"


@pytest.mark.parametrize("stuck", [True, False])
def test_energy_by_way_of_the_watch(install, clock: Clock, stuck: bool) -> None:
    install(
        FakeGpu(energy_step_mj=0) if stuck else FakeGpu(errors={"nvmlDeviceGetTotalEnergyConsumption": "NotSupported"})
    )
    watched = DeviceWatch("cuda")
    watched.start()
    clock.work(2.0, own=1, others=0)
    seen = watched.stop()
    metric = energy_metrics(
        seen["energy_start_j"], seen["energy_end_j"], 10, seen["elapsed_s"], seen["unavailable"].get("energy_j")
    )["energy_per_image_j"]
    assert ("did not move" if stuck else "not supported") in str(metric.unavailable)


def test_these_modules_do_not_import_torch() -> None:
    names = "vheatbench.measure.watch, vheatbench.measure.environment"
    code = f"import sys, {names}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
