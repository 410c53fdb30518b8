"""A stand-in for ``pynvml`` with GPUs that can be made to misbehave the way real drivers do.

It has the real module's exception hierarchy, function names, struct fields and constants (copied by name,
so that a rename in ``nvidia-ml-py`` breaks the tests, not the users). Handles are the fake GPUs themselves.
"""

from __future__ import annotations

import string
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pynvml as real

GIB = 1 << 30
CONSTANTS = sorted(
    name
    for name in dir(real)
    if name.startswith(("NVML_ERROR_", "NVML_CLOCK_", "NVML_TEMPERATURE_", "nvmlClocks"))
    and isinstance(getattr(real, name), int)
)


@dataclass
class Process:
    pid: int
    usedGpuMemory: int | None
    gpuInstanceId: int = 0xFFFFFFFF
    computeInstanceId: int = 0xFFFFFFFF


@dataclass
class FakeGpu:
    """A healthy, busy H200 unless told otherwise. ``errors`` maps a function to the error it raises."""

    name: str = "NVIDIA H200"
    uuid: str = "GPU-aaaaaaaa-1111-2222-3333-444444444444"
    bus: int = 0x0F
    memory_total: int = 141 * GIB
    memory_used: int = 3 * GIB
    compute: list[Process] = field(default_factory=list)
    graphics: list[Process] = field(default_factory=list)
    sm_clock: int = 1980
    memory_clock: int = 3201
    temperature: int = 45
    slowdown_temperature: int = 92
    power_mw: int = 650_000
    reasons: int = 0
    energy_mj: int = 5_000_000_000
    energy_step_mj: int = 30_000
    mig: bool = False
    board: FakeGpu | None = None
    instances: list[FakeGpu] = field(default_factory=list)
    lost: bool = False
    errors: dict[str, str] = field(default_factory=dict)


class FakePynvml(types.ModuleType):
    """``sys.modules["pynvml"] = FakePynvml([FakeGpu()])``; ``init_error`` names the error of ``nvmlInit``."""

    def __init__(self, gpus: list[FakeGpu], init_error: str | None = None, without: tuple[str, ...] = ()) -> None:
        super().__init__("pynvml")
        self.gpus = gpus
        self.initialised = 0
        self.init_error = init_error
        for name in CONSTANTS:
            setattr(self, name, getattr(real, name))
        self._define_errors()
        for name, function in FUNCTIONS.items():
            if name not in without:
                setattr(self, name, self._guarded(name, function))

    def _define_errors(self) -> None:
        class NVMLError(Exception):
            value = real.NVML_ERROR_UNKNOWN

            def __str__(self) -> str:
                return f"NVML Error with code {self.value}"

        self.NVMLError = NVMLError
        for constant in CONSTANTS:
            if constant.startswith("NVML_ERROR_"):
                words = constant.replace("NVML_ERROR_", "")
                name = "NVMLError_" + string.capwords(words, "_").replace("_", "")
                setattr(self, name, type(name, (NVMLError,), {"value": getattr(real, constant)}))

    def fail(self, error: str) -> None:
        raise getattr(self, f"NVMLError_{error}")()

    def _guarded(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            if name != "nvmlInit" and not self.initialised:
                self.fail("Uninitialized")
            gpu = arguments[0] if arguments and isinstance(arguments[0], FakeGpu) else None
            if gpu is not None and gpu.lost:
                self.fail("GpuIsLost")
            if gpu is not None and name in gpu.errors:
                self.fail(gpu.errors[name])
            return function(self, *arguments)

        return call


def _init(nvml: FakePynvml) -> None:
    if nvml.init_error:
        nvml.fail(nvml.init_error)
    nvml.initialised += 1


def _shutdown(nvml: FakePynvml) -> None:
    nvml.initialised -= 1


def _by_index(nvml: FakePynvml, index: int) -> FakeGpu:
    if index >= len(nvml.gpus):
        nvml.fail("InvalidArgument")
    return nvml.gpus[index]


def _by_uuid(nvml: FakePynvml, uuid: str) -> FakeGpu:
    for gpu in [g for board in nvml.gpus for g in (board, *board.instances)]:
        if gpu.uuid == uuid:
            return gpu
    nvml.fail("NotFound")
    raise AssertionError


def _clock(nvml: FakePynvml, gpu: FakeGpu, kind: int) -> int:
    return {nvml.NVML_CLOCK_SM: gpu.sm_clock, nvml.NVML_CLOCK_MEM: gpu.memory_clock}[kind]


def _energy(nvml: FakePynvml, gpu: FakeGpu) -> int:
    gpu.energy_mj += gpu.energy_step_mj
    return gpu.energy_mj


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "nvmlInit": _init,
    "nvmlShutdown": _shutdown,
    "nvmlSystemGetDriverVersion": lambda nvml: "570.86.15",
    "nvmlSystemGetCudaDriverVersion_v2": lambda nvml: 12080,
    "nvmlDeviceGetCount": lambda nvml: len(nvml.gpus),
    "nvmlDeviceGetHandleByIndex": _by_index,
    "nvmlDeviceGetHandleByUUID": _by_uuid,
    "nvmlDeviceGetDeviceHandleFromMigDeviceHandle": lambda nvml, gpu: gpu.board,
    "nvmlDeviceGetName": lambda nvml, gpu: gpu.name,
    "nvmlDeviceGetUUID": lambda nvml, gpu: gpu.uuid,
    "nvmlDeviceGetPciInfo": lambda nvml, gpu: types.SimpleNamespace(domain=0, bus=gpu.bus, device=0),
    "nvmlDeviceGetMemoryInfo": lambda nvml, gpu: types.SimpleNamespace(
        total=gpu.memory_total, used=gpu.memory_used, free=gpu.memory_total - gpu.memory_used
    ),
    "nvmlDeviceGetCudaComputeCapability": lambda nvml, gpu: (9, 0),
    "nvmlDeviceGetClockInfo": _clock,
    "nvmlDeviceGetMaxClockInfo": _clock,
    "nvmlDeviceGetTemperature": lambda nvml, gpu, sensor: gpu.temperature,
    "nvmlDeviceGetTemperatureThreshold": lambda nvml, gpu, threshold: gpu.slowdown_temperature,
    "nvmlDeviceGetPowerUsage": lambda nvml, gpu: gpu.power_mw,
    "nvmlDeviceGetEnforcedPowerLimit": lambda nvml, gpu: 700_000,
    "nvmlDeviceGetTotalEnergyConsumption": _energy,
    "nvmlDeviceGetUtilizationRates": lambda nvml, gpu: types.SimpleNamespace(gpu=97, memory=40),
    "nvmlDeviceGetCurrentClocksEventReasons": lambda nvml, gpu: gpu.reasons,
    "nvmlDeviceGetCurrentClocksThrottleReasons": lambda nvml, gpu: gpu.reasons,
    "nvmlDeviceGetMigMode": lambda nvml, gpu: [int(gpu.mig), int(gpu.mig)],
    "nvmlDeviceGetEccMode": lambda nvml, gpu: [1, 1],
    "nvmlDeviceGetPersistenceMode": lambda nvml, gpu: 1,
    "nvmlDeviceGetMaxPcieLinkGeneration": lambda nvml, gpu: 5,
    "nvmlDeviceGetCurrPcieLinkWidth": lambda nvml, gpu: 16,
    "nvmlDeviceGetComputeRunningProcesses": lambda nvml, gpu: list(gpu.compute),
    "nvmlDeviceGetGraphicsRunningProcesses": lambda nvml, gpu: list(gpu.graphics),
}
