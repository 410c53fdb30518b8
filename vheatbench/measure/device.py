"""What the device is and the state it is in: description, snapshots around the samples, energy."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from vheatbench.measure import host
from vheatbench.measure.nvml import Gpu, Nvml, Unavailable, open_nvml
from vheatbench.store.schema import Metric

Kind = Literal["cpu", "cuda"]

SHORTEST_ENERGY_S = 0.1
"""Seconds below which the energy counter, which the driver moves every 20 to 100 ms, says nothing."""


def describe_device(kind: Kind, index: int = 0) -> dict[str, Any]:
    """What the device is, for the record. JSON-able; asks NVML or the operating system, no table of names.

    For ``cuda`` the keys are those of :func:`describe_gpu` and ``index`` (as CUDA counts); if NVML cannot
    be used there is what torch knows. For ``cpu`` see :func:`vheatbench.measure.host.describe_cpu`.
    """
    if kind == "cpu":
        return host.describe_cpu()
    nvml = open_nvml()
    gpu = nvml if isinstance(nvml, Unavailable) else nvml.device(index)
    found = _without_nvml(gpu.reason) if isinstance(gpu, Unavailable) else describe_gpu(gpu)
    if isinstance(nvml, Nvml):
        nvml.close()
    return {"kind": "cuda", "index": index, **found, **_torch_properties(index, found)}


def describe_gpu(gpu: Gpu) -> dict[str, Any]:
    """What NVML says of one GPU; ``None`` where it says nothing, with the reason under ``unavailable``.

    Keys: ``name``, ``uuid``, ``total_memory_bytes``, ``driver_version``, ``cuda_driver_version``,
    ``compute_capability``, ``mig``, ``ecc``, ``persistence_mode``, ``power_limit_w``, ``max_sm_clock_mhz``,
    ``max_memory_clock_mhz``, ``pcie_max_generation``, ``pcie_width``, ``unavailable``.
    """
    return _split(
        {
            "name": gpu.name(),
            "uuid": gpu.uuid(),
            "total_memory_bytes": gpu.total_memory_bytes(),
            "driver_version": gpu.nvml.driver_version(),
            "cuda_driver_version": gpu.nvml.cuda_driver_version(),
            "compute_capability": gpu.compute_capability(),
            "mig": gpu.mig(),
            "ecc": gpu.ecc(),
            "persistence_mode": gpu.persistence_mode(),
            "power_limit_w": gpu.power_limit_w(),
            "max_sm_clock_mhz": gpu.max_sm_clock_mhz(),
            "max_memory_clock_mhz": gpu.max_memory_clock_mhz(),
            "pcie_max_generation": gpu.pcie_max_generation(),
            "pcie_width": gpu.pcie_width(),
        }
    )


@dataclass(frozen=True)
class DeviceState:
    """The device and its host at one moment. ``None`` means unknown, and ``unavailable`` says why."""

    time_s: float
    """Monotonic clock, for differences only."""
    load_average: float | None = None
    cpu_frequency_mhz: float | None = None
    sm_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    temperature_c: int | None = None
    power_w: float | None = None
    throttle_reasons: list[str] | None = None
    """In words; an empty list means that nothing held the clocks down."""
    utilisation: float | None = None
    """Share of time with a kernel running, from 0 to 1."""
    energy_j: float | None = None
    """Since the driver was loaded."""
    other_processes: int | None = None
    """Processes other than this one that use the device."""
    unavailable: dict[str, str] = field(default_factory=dict)

    @classmethod
    def now(cls, gpu: Gpu | None) -> DeviceState:
        """Snapshot of the host and, if there is one, the GPU (the NVML functions are named in ``Gpu``)."""
        readings: dict[str, Any] = {}
        if gpu is not None:
            readings = {
                "sm_clock_mhz": gpu.sm_clock_mhz(),
                "memory_clock_mhz": gpu.memory_clock_mhz(),
                "temperature_c": gpu.temperature_c(),
                "power_w": gpu.power_w(),
                "throttle_reasons": gpu.throttle_reasons(),
                "utilisation": gpu.utilisation(),
                "energy_j": gpu.energy_j(),
                "other_processes": _other_processes(gpu),
            }
        return cls(
            time_s=time.monotonic(),
            load_average=host.load_average(),
            cpu_frequency_mhz=host.frequency_mhz(),
            **_split(readings),
        )

    def as_dict(self) -> dict[str, Any]:
        """JSON-able, without the clock, which means nothing outside this process."""
        return {key: value for key, value in asdict(self).items() if key != "time_s"}


def energy_metrics(
    start_j: float | None, end_j: float | None, images: int, seconds: float, reason: str | None = None
) -> dict[str, Metric]:
    """``energy_per_image_j`` (J) and ``mean_power_w`` (W) from two readings of the GPU's energy counter.

    ``start_j`` and ``end_j`` enclose ``images`` images and ``seconds`` seconds, pauses between samples
    included; ``reason`` says why a reading is ``None``. A counter that is missing, did not move or was
    reset, and an interval under 0.1 s, give unavailable metrics. Raises nothing.
    """
    how = (
        "NVML's counter of the whole board's energy (nvmlDeviceGetTotalEnergyConsumption, in mJ) over"
        f" {seconds:.3g} s and {images} images, pauses between samples included"
    )
    problem: str | None = None
    power = 0.0
    if start_j is None or end_j is None:
        problem = reason or "this device has no energy counter"
    elif seconds < SHORTEST_ENERGY_S:
        problem = f"{seconds:.3g} s is too short: the energy counter moves only every 0.02 to 0.1 s"
    elif end_j < start_j:
        problem = "the energy counter went backwards (driver reloaded or GPU reset)"
    elif end_j == start_j:
        problem = f"the energy counter did not move in {seconds:.3g} s"
    else:
        power = (end_j - start_j) / seconds
    per_image_problem = problem or (None if images > 0 else "no image was processed")
    return {
        "energy_per_image_j": Metric(
            value=None if per_image_problem else power * seconds / images,
            unit="J",
            direction="lower",
            how=how,
            unavailable=per_image_problem,
        ),
        "mean_power_w": Metric(value=None if problem else power, unit="W", how=how, unavailable=problem),
    }


def _other_processes(gpu: Gpu) -> int | Unavailable:
    listed = gpu.processes()
    if isinstance(listed, Unavailable):
        return listed
    if os.getpid() in listed:
        return len(listed) - 1
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return len(listed)
    # This process uses the GPU and is not listed under its own id, as in a container, where ids are the
    # host's: then one of the entries is this process
    return len(listed) - 1 if listed else Unavailable("NVML lists no process on this GPU (usual in containers)")


def _torch_properties(index: int, found: dict[str, Any]) -> dict[str, Any]:
    """``sm_count``, and what NVML left open, from torch if it has initialised CUDA in this process.

    It is not made to: that would put a context on the GPU of whoever only asks what is there.
    """
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return {"sm_count": None}
    properties = torch.cuda.get_device_properties(index)
    known = {
        "name": properties.name,
        "total_memory_bytes": properties.total_memory,
        "compute_capability": f"{properties.major}.{properties.minor}",
    }
    gaps = {key: value for key, value in known.items() if found.get(key) is None}
    return {"sm_count": properties.multi_processor_count, **gaps}


def _without_nvml(reason: str) -> dict[str, Any]:
    return {"name": None, "unavailable": {"nvml": reason}}


def _split(answers: dict[str, Any]) -> dict[str, Any]:
    """Values as they are, ``None`` for what is unavailable, and the reasons under ``unavailable``."""
    reasons = {key: value.reason for key, value in answers.items() if isinstance(value, Unavailable)}
    return {**answers, **dict.fromkeys(reasons), "unavailable": reasons}
