"""Memory of one step, in a pass of its own after the timing, from a clean allocator.

Several instruments, side by side, each saying in ``how`` what it sees: torch's allocator (exact, the same
on every run), NVML (context and libraries included, process or whole device), the host's resident set.
"""

from __future__ import annotations

import ctypes
import gc
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import torch

from vheatbench.measure.nvml import Nvml, Unavailable, open_nvml
from vheatbench.store.schema import Metric

SAMPLING_S = 0.002
"""Seconds between two readings of the resident set where the kernel's own peak cannot be reset."""
RESET_TOLERANCE_BYTES = 16 << 20
"""How far above the resident set a freshly reset peak may stand before the reset counts as ignored."""

Step = Callable[[], object]


@dataclass(frozen=True)
class HostBaseline:
    """Resident set of this process before anything ran."""

    rss_bytes: int
    since: str = "right after the model was built: weights excluded"
    """When it was taken, in words."""

    def without(self, released_bytes: int) -> HostBaseline:
        """The baseline, had it been taken without what was resident then and has been given back since."""
        return replace(self, rss_bytes=self.rss_bytes - released_bytes)


def host_baseline() -> HostBaseline:
    """Take the baseline: garbage collected, freed memory given back (``malloc_trim``), then RSS by psutil."""
    _trim()
    return HostBaseline(_rss())


def session_baseline() -> HostBaseline:
    """The same before an engine builds its session, which may keep of it what the step needs later."""
    return replace(host_baseline(), since="right before the engine's session was built: its weights included")


def measure_memory(
    step: Step,
    device: torch.device,
    *,
    weights_bytes: int,
    input_bytes: int,
    baseline: HostBaseline | None,
) -> dict[str, Metric]:
    """Metrics of running ``step`` on ``device``, all in bytes; see the module for what each instrument sees.

    Both kinds of device: ``peak_memory_bytes`` (the headline: torch's peak on CUDA, growth of the resident
    set on a CPU), ``peak_allocated_bytes``, ``activation_peak_bytes``, ``weights_bytes``, ``input_bytes``.
    CUDA: ``peak_reserved_bytes``, ``nvml_process_bytes``, ``nvml_device_bytes``. CPU:
    ``peak_rss_growth_bytes``, which needs ``baseline``. ``step`` runs once on CUDA, twice on a CPU.

    Whatever ``step`` raises, running out of memory included, is left to the caller. ``ValueError`` for a
    device that is neither CPU nor CUDA.
    """
    given = {
        "weights_bytes": _exact(weights_bytes, "size of parameters and buffers"),
        "input_bytes": _exact(input_bytes, "size of the input batch", direction="neutral"),
    }
    if device.type == "cuda":
        return given | _measure_cuda(step, device)
    if device.type == "cpu":
        return given | _measure_cpu(step, weights_bytes + input_bytes, baseline)
    raise ValueError(f"memory can be measured on cpu and cuda, not on {device.type}")


def unmeasured_memory(reason: str) -> dict[str, Metric]:
    """The metrics of both kinds of device where the pass could not be made, with the reason."""
    how = "in a pass of its own after the timing"
    names = ("peak_memory_bytes", "peak_allocated_bytes", "activation_peak_bytes")
    return {name: _known(Unavailable(reason), how) for name in names}


def without_value(metric: Metric, reason: str) -> Metric:
    """The metric as one that has no value, and why."""
    return metric.model_copy(update={"value": None, "unavailable": reason, "deterministic": False})


def _measure_cuda(step: Step, device: torch.device) -> dict[str, Metric]:
    gc.collect()
    torch.cuda.synchronize(device)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    live_before = torch.cuda.memory_allocated(device)
    step()
    torch.cuda.synchronize(device)
    peak = torch.cuda.max_memory_allocated(device)
    reserved = torch.cuda.max_memory_reserved(device)
    allocated = _exact(peak, "torch's CUDA allocator, most bytes alive at once (max_memory_allocated)")
    return {
        "peak_memory_bytes": allocated,
        "peak_allocated_bytes": allocated,
        "activation_peak_bytes": _exact(
            peak - live_before,
            "torch's CUDA allocator, peak during the step less what was alive before it"
            " (weights, input, gradients and optimiser state kept from earlier steps)",
        ),
        "peak_reserved_bytes": Metric(
            value=reserved,
            unit="bytes",
            direction="lower",
            how="torch's CUDA allocator, most bytes held from the driver, cache emptied first (max_memory_reserved)",
        ),
        # After the step, before the cache is emptied: what torch reserved at its peak it still holds
        **_nvml_metrics(device),
    }


def _nvml_metrics(device: torch.device) -> dict[str, Metric]:
    index = torch.cuda.current_device() if device.index is None else device.index
    nvml = open_nvml()
    gpu = nvml.device(index) if isinstance(nvml, Nvml) else nvml
    process = gpu if isinstance(gpu, Unavailable) else gpu.process_bytes(os.getpid())
    whole = gpu if isinstance(gpu, Unavailable) else gpu.used_memory_bytes()
    if isinstance(nvml, Nvml):
        nvml.close()
    return {
        "nvml_process_bytes": _known(
            process,
            "NVML, this process's memory right after the step, CUDA context and loaded kernels included"
            " (nvmlDeviceGetComputeRunningProcesses)",
        ),
        "nvml_device_bytes": _known(
            whole,
            "NVML, the whole device right after the step: the driver and all other processes included"
            " (nvmlDeviceGetMemoryInfo)",
        ),
    }


def _measure_cpu(step: Step, resident_bytes: int, baseline: HostBaseline | None) -> dict[str, Metric]:
    growth = _rss_growth(step, baseline)
    activations = _allocator_peak(step)
    allocated = activations if isinstance(activations, Unavailable) else activations + resident_bytes
    how = "torch's CPU allocator, by the profiler's memory events: most bytes alive at once during the step"
    return {
        "peak_memory_bytes": growth,
        "peak_rss_growth_bytes": growth,
        "peak_allocated_bytes": _known(
            allocated,
            f"{how}, plus weights and input; gradients and optimiser state from earlier steps are not seen",
            deterministic=True,
        ),
        "activation_peak_bytes": _known(activations, f"{how}, of what the step itself allocated", deterministic=True),
    }


def _rss_growth(step: Step, baseline: HostBaseline | None) -> Metric:
    if baseline is None:
        return _known(
            Unavailable("no baseline was taken after the model was built"),
            "peak resident set over a baseline",
        )
    # Memory that the timing pass freed and malloc kept would otherwise take up the step's growth unseen
    _trim()
    if reset_high_water():
        step()
        peak, instrument = high_water(), "the kernel's own peak (VmHWM, reset before the step)"
    else:
        peak = _sampled_peak(step)
        instrument = f"highest of readings every {SAMPLING_S * 1000:g} ms, so short peaks may be missed"
    how = (
        f"resident set of the process during the step, {instrument}, over its value {baseline.since}, input and the"
        " libraries' own buffers included"
    )
    growth = peak - baseline.rss_bytes
    if growth <= 0:
        return _known(Unavailable("the step stayed within memory resident before it: growth too small for RSS"), how)
    return _known(growth, how)


def _allocator_peak(step: Step) -> int | Unavailable:
    """Most bytes that the step itself had alive at once in torch's CPU allocator.

    The sum over allocations and releases, in order of time, of blocks allocated during this very step:
    torch also reports the release of blocks that an earlier profile saw being allocated, which would make
    the number depend on what was profiled before. The averaged tables only give operators' net growth.
    """
    # Not torch.profiler.profile, the wrapper around this one: it first imports inductor, for seconds
    with torch.autograd.profiler.profile(profile_memory=True) as profile:
        step()
    try:
        events = _memory_events(profile.kineto_results)
    except AttributeError as error:
        return Unavailable(f"torch {torch.__version__} does not give out its memory events ({error})")
    alive: dict[int, int] = {}
    total = peak = 0
    for _, pointer, size in events:
        if size > 0:
            alive[pointer] = size
            total += size
            peak = max(peak, total)
        else:
            total -= alive.pop(pointer, 0)
    return peak or Unavailable("the profiler saw no allocation: this build of torch does not report them")


def _memory_events(results: Any) -> list[tuple[int, int, int]]:
    """(time, address, bytes, negative for a release) of each event of the CPU allocator, by time.

    From the event tree that torch's own memory timeline reads; the flat list of events has no addresses.
    """
    events = []
    nodes = list(results.experimental_event_tree())
    while nodes:
        node = nodes.pop()
        nodes.extend(node.children)
        if node.name == "[memory]" and node.extra_fields.device.type == "cpu":
            events.append((node.start_time_ns, node.extra_fields.ptr, node.extra_fields.alloc_size))
    return sorted(events, key=lambda event: event[0])


def _trim() -> None:
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:  # only glibc has it
        trim(0)


def _rss() -> int:
    return int(psutil.Process().memory_info().rss)


def reset_high_water() -> bool:
    """Set the kernel's peak back to the present resident set; ``False`` where that has no effect."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return high_water() - _rss() < RESET_TOLERANCE_BYTES
    except (OSError, LookupError):  # not Linux, not permitted, or a sandbox without the field
        return False


def high_water() -> int:
    """Peak of the resident set in bytes, from /proc/self/status. ``LookupError`` if it is not there."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise LookupError("no VmHWM in /proc/self/status")


def released_bytes() -> int:
    """What this process once had resident and has given back: the most that it may want again; 0 if not known."""
    try:
        return max(0, high_water() - _rss())
    except (OSError, LookupError):
        return 0


def _sampled_peak(step: Step) -> int:
    process = psutil.Process()
    peak = _rss()
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(SAMPLING_S):
            peak = max(peak, process.memory_info().rss)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        step()
    finally:
        done.set()
        thread.join()
    return max(peak, _rss())


def _exact(value: int, how: str, direction: Any = "lower") -> Metric:
    return Metric(value=value, unit="bytes", direction=direction, how=how, deterministic=True)


def _known(answer: int | Unavailable, how: str, deterministic: bool = False) -> Metric:
    reason = answer.reason if isinstance(answer, Unavailable) else None
    value = None if isinstance(answer, Unavailable) else answer
    return Metric(
        value=value,
        unit="bytes",
        direction="lower",
        how=how,
        deterministic=deterministic and value is not None,
        unavailable=reason,
    )
