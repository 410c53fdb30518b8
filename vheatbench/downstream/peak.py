"""Peak memory of a training while it runs: no step can be repeated to be measured."""

from __future__ import annotations

import contextlib
from pathlib import Path

import torch

from vheatbench.measure.memory import host_baseline


class PeakMemory:
    """The peak since its making: torch's allocator on CUDA, growth of the resident set on a CPU."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            return
        self._before = host_baseline().rss_bytes
        with contextlib.suppress(OSError):  # not Linux, or a sandbox: then the peak is checked below
            Path("/proc/self/clear_refs").write_text("5")
        self._reset = _high_water() is not None and (_high_water() or 0) < self._before + (16 << 20)

    @property
    def how(self) -> str:
        """How it is taken."""
        if self._device.type == "cuda":
            return "torch's allocator: most bytes alive at once on the GPU of the first process"
        return (
            "growth of the first process's resident set over its value right after the model was built, by the "
            "kernel's own peak (VmHWM): weights excluded, optimizer and images included"
        )

    def bytes(self) -> int | None:
        """None where it cannot be known, or nothing grew."""
        if self._device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self._device))
        peak = _high_water()
        return peak - self._before if self._reset and peak is not None and peak > self._before else None


def _high_water() -> int | None:
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return None
