"""NVIDIA's management library (NVML) through ``pynvml``, made safe: a value or a reason, never an exception.

NVML answers about the driver's own state and needs no CUDA context, so asking it disturbs no measurement.
Its traps are dealt with here: its order of GPUs is not CUDA's, a zero often means "unknown", inside a
container it lists the process ids of the host, and the same process may stand in two lists.
"""

from __future__ import annotations

import os
import re
import sys
from functools import cached_property
from typing import Any

from vheatbench.measure.gpu import Gpu, Unavailable

__all__ = ["Gpu", "Nvml", "Unavailable", "open_nvml"]

_CAUSES = {
    "NVMLError_LibraryNotFound": "no NVIDIA driver here (libnvidia-ml.so.1 was not found)",
    "NVMLError_DriverNotLoaded": "the NVIDIA driver is not loaded",
    "NVMLError_NoPermission": "no permission",
    "NVMLError_NotSupported": "not supported by this GPU or driver",
    "NVMLError_FunctionNotFound": "this driver is too old to know it",
    "NVMLError_GpuIsLost": "the GPU is lost (it fell off the bus or was reset)",
    "NVMLError_LibRmVersionMismatch": "the NVIDIA driver and its library have different versions",
}


def open_nvml() -> Nvml | Unavailable:
    """NVML, initialised (``nvmlInit``), or why it cannot be used. Call ``close`` when done."""
    try:
        import pynvml
    except ImportError:
        return Unavailable("the module pynvml is missing (pip install nvidia-ml-py)")
    nvml = Nvml(pynvml)
    started = nvml.ask("nvmlInit")
    return started if isinstance(started, Unavailable) else nvml


class Nvml:
    """An initialised NVML. Every method returns a value or :class:`Unavailable`."""

    def __init__(self, module: Any) -> None:
        self._module = module

    def close(self) -> None:
        """Give NVML back (``nvmlShutdown``)."""
        self.ask("nvmlShutdown")

    def ask(self, function: str, *arguments: Any) -> Any:
        """Answer of one NVML function; arguments of the form ``NVML_...`` name its constants."""
        try:
            call = getattr(self._module, function)
            values = [getattr(self._module, a) if _is_constant(a) else a for a in arguments]
        except AttributeError as error:
            return Unavailable(f"this nvidia-ml-py has no {error.name}")
        try:
            answer = call(*values)
        except Exception as error:  # whatever NVML does, it must not end a measurement: the reason is kept
            kind = type(error).__name__
            return Unavailable(f"{function}: {_CAUSES.get(kind, f'{kind} {error}'.strip())}")
        return answer.decode(errors="replace") if isinstance(answer, bytes) else answer

    def driver_version(self) -> str | Unavailable:
        """Version of the kernel driver (``nvmlSystemGetDriverVersion``)."""
        return self.ask("nvmlSystemGetDriverVersion")  # type: ignore[no-any-return]

    def cuda_driver_version(self) -> str | Unavailable:
        """Highest CUDA version the driver supports, e.g. ``12.8`` (``nvmlSystemGetCudaDriverVersion_v2``)."""
        version = self.ask("nvmlSystemGetCudaDriverVersion_v2")
        return version if isinstance(version, Unavailable) else f"{version // 1000}.{version % 1000 // 10}"

    def boards(self) -> list[Gpu | Unavailable] | Unavailable:
        """Every GPU that NVML sees, in NVML's order (``nvmlDeviceGetHandleByIndex``)."""
        count = self.ask("nvmlDeviceGetCount")
        if isinstance(count, Unavailable):
            return count
        handles = [self.ask("nvmlDeviceGetHandleByIndex", index) for index in range(count)]
        return [h if isinstance(h, Unavailable) else Gpu(self, h, h) for h in handles]

    def device(self, which: int | str) -> Gpu | Unavailable:
        """The GPU with a CUDA index (as torch counts) or a UUID (``GPU-...`` or its beginning, ``MIG-...``).

        An index is resolved by the UUID that torch reports, once CUDA is initialised in this process, else
        by ``CUDA_VISIBLE_DEVICES`` and ``CUDA_DEVICE_ORDER`` where these settle it. torch is not made to
        initialise CUDA, which would put a context on the GPU of whoever merely asks.
        """
        if isinstance(which, str):
            return self._by_uuid(which)
        uuid = _uuid_from_torch(which)
        if uuid is not None:
            return self._by_uuid(uuid)
        devices = self.cuda_devices()
        if isinstance(devices, Unavailable):
            return devices
        if not 0 <= which < len(devices):
            return Unavailable(f"CUDA has no device {which}: {len(devices)} visible")
        return devices[which]

    def cuda_devices(self) -> list[Gpu] | Unavailable:
        """GPUs that CUDA will see, in its order, by the environment alone; or why that is undecidable.

        Without ``CUDA_DEVICE_ORDER=PCI_BUS_ID`` CUDA puts the GPU it takes for the fastest first, which
        NVML cannot tell; so numbers then settle nothing on a machine with several GPUs, UUIDs do.
        """
        boards = self.boards()
        if isinstance(boards, Unavailable):
            return boards
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        entries = [str(i) for i in range(len(boards))] if visible is None else visible.split(",")
        numbered: list[Gpu] | Unavailable | None = None
        found: list[Gpu] = []
        for entry in map(str.strip, entries):
            if entry.isdigit():
                numbered = self._numbered(boards) if numbered is None else numbered
                if isinstance(numbered, Unavailable):
                    return numbered
                gpu = numbered[int(entry)] if int(entry) < len(numbered) else None
            else:
                match = self._by_uuid(entry) if entry.startswith(("GPU-", "MIG-")) else None
                gpu = match if isinstance(match, Gpu) else None
            if gpu is None:
                break  # CUDA, too, ignores everything from the first invalid entry on
            found.append(gpu)
        return found

    def _numbered(self, boards: list[Gpu | Unavailable]) -> list[Gpu] | Unavailable:
        """Boards in the order of CUDA's numbers, where it is defined."""
        if len(boards) > 1 and os.environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
            return Unavailable(
                f"{len(boards)} GPUs and CUDA not initialised: which one CUDA counts first is not known"
                " (set CUDA_DEVICE_ORDER=PCI_BUS_ID, or name GPUs by UUID in CUDA_VISIBLE_DEVICES)"
            )
        return self._ordered(boards)

    def by_bus(self) -> list[Gpu] | Unavailable:
        """Every GPU that NVML sees, by bus: CUDA's numbers under ``CUDA_DEVICE_ORDER=PCI_BUS_ID``."""
        boards = self.boards()
        return boards if isinstance(boards, Unavailable) else self._ordered(boards)

    def _ordered(self, boards: list[Gpu | Unavailable]) -> list[Gpu] | Unavailable:
        keyed = []
        for board in boards:
            if isinstance(board, Unavailable):
                return board
            pci = self.ask("nvmlDeviceGetPciInfo", board.handle)
            if isinstance(pci, Unavailable):
                return pci
            keyed.append((pci.domain, pci.bus, pci.device, board))
        return [entry[3] for entry in sorted(keyed, key=lambda entry: entry[:3])]

    def _by_uuid(self, uuid: str) -> Gpu | Unavailable:
        # torch writes a UUID without the prefix, and on an instance of a divided GPU it is the instance's
        named = uuid.startswith(("GPU-", "MIG-"))
        boards = self.boards()
        if isinstance(boards, Unavailable):
            return boards
        wanted = (uuid if named else f"GPU-{uuid}").lower()
        matches = []
        for board in boards:
            own = board if isinstance(board, Unavailable) else board.uuid()
            if isinstance(board, Gpu) and isinstance(own, str) and own.lower().startswith(wanted):
                matches.append(board)
        if len(matches) == 1:
            return matches[0]
        if matches:
            return Unavailable(f"{len(matches)} GPUs have a UUID that begins with {uuid}")
        if not named or uuid.startswith("MIG-"):
            instance = self.ask("nvmlDeviceGetHandleByUUID", uuid if named else f"MIG-{uuid}")
            if not isinstance(instance, Unavailable):
                board = self.ask("nvmlDeviceGetDeviceHandleFromMigDeviceHandle", instance)
                return board if isinstance(board, Unavailable) else Gpu(self, instance, board)
        return Unavailable(f"NVML sees no GPU with the UUID {uuid}")

    @cached_property
    def throttle_names(self) -> dict[int, str]:
        """Bit -> words for every throttle reason that this ``pynvml`` names."""
        names: dict[int, str] = {}
        for name in sorted(dir(self._module)):
            match = re.fullmatch(r"nvmlClocks(?:Event|Throttle)Reason([A-Z]\w+)", name)
            bit = getattr(self._module, name) if match else 0
            # All and None are no reasons; UserDefinedClocks is the old name of ApplicationsClocksSetting
            if match and bit and bit & (bit - 1) == 0 and match[1] != "UserDefinedClocks":
                names[bit] = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", match[1]).lower()
        return names


def _is_constant(argument: Any) -> bool:
    return isinstance(argument, str) and argument.startswith("NVML_")


def _uuid_from_torch(index: int) -> str | None:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    try:
        return str(torch.cuda.get_device_properties(index).uuid)
    except (AttributeError, AssertionError, RuntimeError):  # a build without uuid, or no such device
        return None
