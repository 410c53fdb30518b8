"""Peak memory of a training while it runs: no step can be repeated to be measured."""

from __future__ import annotations

import torch

from vheatbench.measure.memory import high_water, host_baseline, reset_high_water


class PeakMemory:
    """The peak since its making: torch's allocator on CUDA, growth of the resident set on a CPU."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            return
        self._before = host_baseline().rss_bytes
        self._reset = reset_high_water()

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
        if not self._reset:
            return None
        return max(high_water() - self._before, 0) or None
