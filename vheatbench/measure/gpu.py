"""What NVML says about one GPU: each question returns a value or :class:`Unavailable`, none raises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vheatbench.measure.nvml import Nvml


@dataclass(frozen=True)
class Unavailable:
    """Why there is no value, in words that can stand in a record."""

    reason: str


class Gpu:
    """One GPU (``board``), or one instance (``handle``) of a GPU that MIG divides."""

    def __init__(self, nvml: Nvml, handle: Any, board: Any) -> None:
        self.nvml = nvml
        self.handle = handle
        self.board = board

    def name(self) -> str | Unavailable:
        """Marketing name, e.g. ``NVIDIA H200`` (``nvmlDeviceGetName``)."""
        return self.nvml.ask("nvmlDeviceGetName", self.handle)  # type: ignore[no-any-return]

    def uuid(self) -> str | Unavailable:
        """``GPU-...`` or ``MIG-...`` (``nvmlDeviceGetUUID``)."""
        return self.nvml.ask("nvmlDeviceGetUUID", self.handle)  # type: ignore[no-any-return]

    def total_memory_bytes(self) -> int | Unavailable:
        """Memory of the device in bytes (``nvmlDeviceGetMemoryInfo``)."""
        return self._memory("total")

    def used_memory_bytes(self) -> int | Unavailable:
        """Bytes in use on the device by everybody, driver included (``nvmlDeviceGetMemoryInfo``)."""
        return self._memory("used")

    def compute_capability(self) -> str | Unavailable:
        """E.g. ``9.0`` (``nvmlDeviceGetCudaComputeCapability``)."""
        answer = self.nvml.ask("nvmlDeviceGetCudaComputeCapability", self.board)
        return answer if isinstance(answer, Unavailable) else f"{answer[0]}.{answer[1]}"

    def sm_clock_mhz(self) -> int | Unavailable:
        """Clock of the multiprocessors now, MHz (``nvmlDeviceGetClockInfo``)."""
        return self._number("nvmlDeviceGetClockInfo", "NVML_CLOCK_SM")

    def memory_clock_mhz(self) -> int | Unavailable:
        """Memory clock now, MHz (``nvmlDeviceGetClockInfo``)."""
        return self._number("nvmlDeviceGetClockInfo", "NVML_CLOCK_MEM")

    def max_sm_clock_mhz(self) -> int | Unavailable:
        """Highest clock of the multiprocessors, MHz (``nvmlDeviceGetMaxClockInfo``)."""
        return self._number("nvmlDeviceGetMaxClockInfo", "NVML_CLOCK_SM")

    def max_memory_clock_mhz(self) -> int | Unavailable:
        """Highest memory clock, MHz (``nvmlDeviceGetMaxClockInfo``)."""
        return self._number("nvmlDeviceGetMaxClockInfo", "NVML_CLOCK_MEM")

    def temperature_c(self) -> int | Unavailable:
        """Temperature of the chip, degrees Celsius (``nvmlDeviceGetTemperature``)."""
        return self._number("nvmlDeviceGetTemperature", "NVML_TEMPERATURE_GPU")

    def slowdown_temperature_c(self) -> int | Unavailable:
        """Degrees Celsius at which the hardware slows down (``nvmlDeviceGetTemperatureThreshold``)."""
        return self._number("nvmlDeviceGetTemperatureThreshold", "NVML_TEMPERATURE_THRESHOLD_SLOWDOWN")

    def power_w(self) -> float | Unavailable:
        """Power of the whole board, W (``nvmlDeviceGetPowerUsage``; on recent boards a mean over 1 s)."""
        milliwatts = self._number("nvmlDeviceGetPowerUsage")
        return milliwatts if isinstance(milliwatts, Unavailable) else milliwatts / 1000

    def power_limit_w(self) -> float | Unavailable:
        """Power limit in force, W (``nvmlDeviceGetEnforcedPowerLimit``)."""
        milliwatts = self._number("nvmlDeviceGetEnforcedPowerLimit")
        return milliwatts if isinstance(milliwatts, Unavailable) else milliwatts / 1000

    def energy_j(self) -> float | Unavailable:
        """Energy since the driver was loaded, J, counted in mJ (``nvmlDeviceGetTotalEnergyConsumption``)."""
        if self.mig() is True:
            return Unavailable("MIG is enabled: the energy counter is the whole GPU's, not this instance's")
        millijoules = self._number("nvmlDeviceGetTotalEnergyConsumption")
        return millijoules if isinstance(millijoules, Unavailable) else millijoules / 1000

    def utilisation(self) -> float | Unavailable:
        """Share of the driver's last sampling period in which a kernel ran, from 0 to 1
        (``nvmlDeviceGetUtilizationRates``)."""
        rates = self.nvml.ask("nvmlDeviceGetUtilizationRates", self.handle)
        return rates if isinstance(rates, Unavailable) else rates.gpu / 100

    def throttle_reasons(self) -> list[str] | Unavailable:
        """What holds the clocks down now, in words (``nvmlDeviceGetCurrentClocksEventReasons``, on older
        drivers ``...ThrottleReasons``); the empty list if nothing does."""
        mask = self.nvml.ask("nvmlDeviceGetCurrentClocksEventReasons", self.board)
        if isinstance(mask, Unavailable):
            mask = self.nvml.ask("nvmlDeviceGetCurrentClocksThrottleReasons", self.board)
        if isinstance(mask, Unavailable):
            return mask
        names = self.nvml.throttle_names
        bits = [1 << shift for shift in range(mask.bit_length()) if mask >> shift & 1]
        return [names.get(bit, f"unknown reason {bit:#x}") for bit in bits]

    def mig(self) -> bool | Unavailable:
        """Whether the board is divided into instances (``nvmlDeviceGetMigMode``)."""
        return self._switch("nvmlDeviceGetMigMode")

    def ecc(self) -> bool | Unavailable:
        """Whether error correction is on (``nvmlDeviceGetEccMode``)."""
        return self._switch("nvmlDeviceGetEccMode")

    def persistence_mode(self) -> bool | Unavailable:
        """Whether the driver stays loaded with no client (``nvmlDeviceGetPersistenceMode``)."""
        return self._switch("nvmlDeviceGetPersistenceMode")

    def pcie_max_generation(self) -> int | Unavailable:
        """Highest PCIe generation of GPU and slot (``nvmlDeviceGetMaxPcieLinkGeneration``); the current one
        drops whenever the GPU idles, so it says nothing about the machine."""
        return self._number("nvmlDeviceGetMaxPcieLinkGeneration")

    def pcie_width(self) -> int | Unavailable:
        """PCIe lanes in use (``nvmlDeviceGetCurrPcieLinkWidth``)."""
        return self._number("nvmlDeviceGetCurrPcieLinkWidth")

    def processes(self) -> dict[int, int | None] | Unavailable:
        """Process id -> bytes (``None`` where NVML does not say) of everybody using the device.

        From ``nvmlDeviceGetComputeRunningProcesses`` and ``...GraphicsRunningProcesses``: a process in both
        lists has the same number in each and counts once. In a container the ids are usually the host's.
        """
        found: dict[int, int | None] = {}
        compute = self.nvml.ask("nvmlDeviceGetComputeRunningProcesses", self.handle)
        if isinstance(compute, Unavailable):
            return compute
        graphics = self.nvml.ask("nvmlDeviceGetGraphicsRunningProcesses", self.handle)
        for process in [*compute, *([] if isinstance(graphics, Unavailable) else graphics)]:
            known = [b for b in (found.get(process.pid), process.usedGpuMemory) if b is not None]
            found[process.pid] = max(known) if known else None
        return found

    def process_bytes(self, pid: int) -> int | Unavailable:
        """Bytes that one process holds on the device, its CUDA context included (see :meth:`processes`)."""
        processes = self.processes()
        if isinstance(processes, Unavailable):
            return processes
        if pid not in processes:
            if not processes:
                return Unavailable("NVML lists no process on this GPU (usual in containers)")
            return Unavailable(f"NVML lists host process ids; this container's id {pid} is not among them")
        used = processes[pid]
        if used is None:
            return Unavailable("NVML lists the process but not its memory (no permission, or driver mode)")
        return used or Unavailable("NVML reports 0 bytes for a process that uses the GPU (seen in containers)")

    def _memory(self, field: str) -> int | Unavailable:
        info = self.nvml.ask("nvmlDeviceGetMemoryInfo", self.handle)
        if isinstance(info, Unavailable):
            return info
        return self._not_zero("nvmlDeviceGetMemoryInfo", getattr(info, field))

    def _number(self, function: str, *arguments: str) -> int | Unavailable:
        return self._not_zero(function, self.nvml.ask(function, self.board, *arguments))

    def _not_zero(self, function: str, answer: Any) -> int | Unavailable:
        # None of the quantities asked for this way can be 0 on a running GPU: a zero means unknown
        return Unavailable(f"{function} reports 0, which means unknown") if answer == 0 else answer

    def _switch(self, function: str) -> bool | Unavailable:
        # Some functions answer the state now, others now and after the next reboot
        answer = self.nvml.ask(function, self.board)
        if isinstance(answer, Unavailable):
            return answer
        return bool(answer[0] if isinstance(answer, (list, tuple)) else answer)
