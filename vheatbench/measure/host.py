"""The host's processor: what it is, how much of it this process may use, and who else uses it."""

from __future__ import annotations

import math
import os
import platform
import sys
from pathlib import Path
from typing import Any

import psutil


def describe_cpu() -> dict[str, Any]:
    """Facts about the processor and what of it is usable here; ``None`` where the system does not say.

    Keys: ``kind``, ``name``, ``physical_cores``, ``logical_cores``, ``affinity_cores`` (the scheduler's
    mask), ``quota_cores`` (the control group's limit, may be a fraction), ``total_memory_bytes``,
    ``memory_limit_bytes`` (the control group's), ``max_frequency_mhz``.
    """
    frequency = _frequency()
    return {
        "kind": "cpu",
        "name": _cpu_name(),
        "physical_cores": psutil.cpu_count(logical=False),
        "logical_cores": psutil.cpu_count(),
        "affinity_cores": len(affinity()),
        "quota_cores": cpu_quota(),
        "total_memory_bytes": psutil.virtual_memory().total,
        "memory_limit_bytes": memory_limit_bytes(),
        # Virtual machines report 0 for a maximum they do not know
        "max_frequency_mhz": (frequency.max or None) if frequency else None,
    }


def affinity() -> list[int]:
    """Numbers of the logical processors this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def usable_cores() -> int:
    """Logical processors this process can keep busy: its affinity, capped by the control group's quota."""
    quota = cpu_quota()
    return len(affinity()) if quota is None else max(1, min(len(affinity()), math.ceil(quota)))


def threads() -> int:
    """Threads that a CPU operator of torch will use: torch's setting, else what OpenMP would take."""
    torch = sys.modules.get("torch")
    if torch is not None:
        return int(torch.get_num_threads())
    requested = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(requested) if requested.isdigit() and int(requested) else len(affinity())


def load_average() -> float | None:
    """Runnable processes on the whole machine, mean over about the last minute (``getloadavg``)."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):  # not every system counts it
        return None


def frequency_mhz() -> float | None:
    """Mean clock of the processors now, MHz (psutil, from sysfs or /proc/cpuinfo)."""
    frequency = _frequency()
    return (frequency.current or None) if frequency else None


def busy_seconds(cores: list[int]) -> float | None:
    """CPU seconds spent on ``cores`` since boot by everybody, and by other guests of the same host (steal).

    From ``/proc/stat`` through psutil, in steps of 10 ms; ``None`` where it is not counted per processor.
    """
    times = psutil.cpu_times(percpu=True)
    if not cores or max(cores) >= len(times):
        return None
    # guest time is part of user time already
    counted = ("user", "nice", "system", "irq", "softirq", "steal")
    return sum(getattr(times[core], field, 0.0) for core in cores for field in counted)


def cpu_quota() -> float | None:
    """Cores' worth of time per second that the control group allows; ``None`` if unlimited."""
    quotas = []
    for folder in _group_folders("cpu"):
        unified = _words(folder / "cpu.max")
        quota = unified or _words(folder / "cpu.cfs_quota_us") + _words(folder / "cpu.cfs_period_us")
        if len(quota) == 2 and quota[0].isdigit() and int(quota[0]) > 0 and int(quota[1]) > 0:
            quotas.append(int(quota[0]) / int(quota[1]))
    return min(quotas, default=None)


def memory_limit_bytes() -> int | None:
    """Bytes that the control group allows; ``None`` if unlimited."""
    return min((limit for limit, _ in _group_memory()), default=None)


def free_memory_bytes() -> int:
    """Bytes that can be taken now: what the machine has available, and what every control group leaves.

    Others in the same group, or in one beside it below the same ancestor, take their part of a limit. Pages of files
    that the kernel gives up before it kills anything are not counted as taken.
    """
    left = [max(limit - used, 0) for limit, used in _group_memory()]
    return min([int(psutil.virtual_memory().available), *left])


def _group_memory() -> list[tuple[int, int]]:
    """Limit and present use, in bytes, of this process's control group and of each ancestor that has a limit."""
    found = []
    for folder in _group_folders("memory"):
        limit = _words(folder / "memory.max") or _words(folder / "memory.limit_in_bytes")
        # Version 1 writes "unlimited" as a number near 2**63
        if limit and limit[0].isdigit() and int(limit[0]) < 1 << 60:
            used = _words(folder / "memory.current") or _words(folder / "memory.usage_in_bytes")
            found.append((int(limit[0]), int(used[0]) - _reclaimable(folder) if used else 0))
    return found


def _reclaimable(folder: Path) -> int:
    """Bytes of file pages that nobody has used lately, of a group with those below it."""
    counts = dict(line.split()[:2] for line in _lines(folder / "memory.stat") if len(line.split()) == 2)
    # version 1 counts the group alone under the plain name
    return int(counts.get("total_inactive_file", counts.get("inactive_file", 0)))


def _group_folders(controller: str, root: Path = Path("/sys/fs/cgroup")) -> list[Path]:
    """Folders of this process's control group and its ancestors, in version 2 or 1 of the interface."""
    folders = []
    for line in _lines(Path("/proc/self/cgroup")):
        hierarchy, controllers, path = line.split(":", 2)
        if hierarchy == "0" or controller in controllers.split(","):
            base = root if hierarchy == "0" else root / controller
            group = base / path.lstrip("/")
            # The limit of an ancestor holds too; in a container the path may lie outside what is mounted
            folders += [group, *(p for p in group.parents if p == base or base in p.parents)]
    return folders


def _cpu_name() -> str:
    for line in _lines(Path("/proc/cpuinfo")):
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()


def _frequency() -> Any:
    try:
        return psutil.cpu_freq()
    except (AttributeError, NotImplementedError, OSError):  # psutil lacks it on some systems
        return None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []


def _words(path: Path) -> list[str]:
    return " ".join(_lines(path)).split()
