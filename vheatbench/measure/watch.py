"""Watching the device while samples are taken: conditions for the record, warnings where they were bad."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any, NamedTuple

from vheatbench.measure import host
from vheatbench.measure.device import DeviceState, Kind
from vheatbench.measure.nvml import Gpu, Nvml, Unavailable, open_nvml
from vheatbench.stats import median

HARMLESS_REASONS = frozenset({"gpu idle", "applications clocks setting"})
"""Throttle reasons that are no disturbance: between samples a GPU idles; a fixed clock is a choice."""
CLOCK_DROP = 0.9
"""Share of the highest clock seen below which a reading counts as a drop."""
NEAR_SLOWDOWN_C = 5
"""Degrees Celsius below the hardware's slowdown temperature from which a warning is due."""
CROWDING_CORES = 0.25
"""Cores' worth of foreign work beyond the free cores that still passes as background."""
SHORTEST_BUSY_S = 1.0
"""Seconds from which the 10 ms steps of ``/proc/stat`` are fine enough."""

_SUMMARISED = (
    "cpu_frequency_mhz",
    "sm_clock_mhz",
    "memory_clock_mhz",
    "temperature_c",
    "power_w",
    "utilisation",
)


class DeviceWatch:
    """Snapshots of the device before, between and after samples; never in a thread of its own.

    Call ``start()``, then ``tick()`` after each sample, then ``stop()``; ``warnings`` is filled by
    ``stop()``. Between ``pause()`` and ``resume()`` others may work without being noticed. Of ``tick()``'s calls only
    those ``every_s`` seconds apart take a snapshot, which costs about a millisecond and falls between two samples.
    ``threads`` is how many this process computes with, by default torch's setting on a CPU and 1 beside a GPU,
    ``companions`` how many processes there are that work on the device while this one is paused. Nothing here raises
    for want of NVML.
    """

    def __init__(
        self, kind: Kind, index: int = 0, every_s: float = 0.5, *, threads: int | None = None, companions: int = 0
    ) -> None:
        self.kind = kind
        self.index = index
        self.every_s = every_s
        self.threads = threads if threads is not None else host.threads() if kind == "cpu" else 1
        self.companions = companions
        self.warnings: list[str] = []
        self._nvml: Nvml | Unavailable | None = None
        self._gpu: Gpu | None = None
        self._no_gpu: str | None = None
        self._readings: list[DeviceState] = []

    def start(self) -> None:
        """Open NVML for a GPU and take the first snapshot."""
        if self.kind == "cuda":
            self._nvml = open_nvml()
            gpu = self._nvml.device(self.index) if isinstance(self._nvml, Nvml) else self._nvml
            if isinstance(gpu, Unavailable):
                self._no_gpu = gpu.reason
            else:
                self._gpu = gpu
        self._cores = host.affinity()
        self._first = DeviceState.now(self._gpu)
        self._watched = _Span()
        self._since: _Span | None = None
        self.resume()

    def pause(self) -> None:
        """From now on it is others' turn."""
        if self._since is not None:
            self._watched = self._watched.plus(self._since, _Span.now(self._cores, self._gpu))
            self._since = None

    def resume(self) -> None:
        """It is this process's turn again."""
        if self._since is None:
            self._since = _Span.now(self._cores, self._gpu)

    def tick(self) -> None:
        """Take a snapshot, unless the last one is younger than ``every_s``. Call it between samples."""
        if not self._readings or time.monotonic() - self._readings[-1].time_s >= self.every_s:
            self._readings.append(DeviceState.now(self._gpu))

    def stop(self) -> dict[str, Any]:
        """Conditions of the measurement, JSON-able; fills ``warnings`` and closes NVML.

        Always: ``device``, ``readings``, ``elapsed_s``, ``threads``, ``usable_cores``,
        ``load_average_before``, ``load_average_after``, ``other_cpu_cores`` (cores' worth of work by
        others on our processors), ``cpu_frequency_mhz``, ``unavailable`` (name -> reason). On a GPU also
        ``sm_clock_mhz``, ``memory_clock_mhz``, ``temperature_c``, ``power_w`` and ``utilisation``, each
        ``{"min", "median", "max"}`` or ``None``, ``throttle_reasons`` (words -> readings),
        ``energy_start_j``, ``energy_end_j`` (without what was used while it was paused), ``other_processes`` (the
        most seen).
        """
        self.pause()
        watched, last = self._watched, DeviceState.now(self._gpu)
        elapsed = watched.seconds
        # Without a reading between samples, those at both ends are better than none
        readings = self._readings or [self._first, last]
        others = _other_cores(watched.busy_s, watched.own_s, elapsed)
        conditions: dict[str, Any] = {
            "device": self.kind,
            "readings": len(self._readings),
            "elapsed_s": elapsed,
            "threads": self.threads,
            "usable_cores": host.usable_cores(),
            "load_average_before": self._first.load_average,
            "load_average_after": last.load_average,
            "other_cpu_cores": others,
        }
        fields = _SUMMARISED if self.kind == "cuda" else _SUMMARISED[:1]
        conditions |= {field: _summary([getattr(r, field) for r in readings]) for field in fields}
        conditions["unavailable"] = {k: v for r in [self._first, *readings, last] for k, v in r.unavailable.items()}
        self.warnings = _host_warnings(conditions)
        if self.kind == "cuda":
            foreign = [r.other_processes - self.companions for r in readings if r.other_processes is not None]
            start, used = self._first.energy_j, watched.energy_j
            conditions |= {
                "throttle_reasons": dict(Counter(w for r in readings for w in r.throttle_reasons or [])),
                "energy_start_j": start,
                "energy_end_j": start + used if start is not None and used is not None else None,
                "other_processes": max(0, *foreign) if foreign else None,
            }
            if self._no_gpu is not None:
                conditions["unavailable"]["nvml"] = self._no_gpu
            self.warnings += self._gpu_warnings(conditions, readings, last)
        if isinstance(self._nvml, Nvml):
            self._nvml.close()
        return conditions

    def _gpu_warnings(self, conditions: dict[str, Any], readings: list[DeviceState], last: DeviceState) -> list[str]:
        if self._gpu is None:
            return [f"the GPU's clocks, temperature and throttling were not watched: {self._no_gpu}"]
        warnings = []
        reasons = {w: n for w, n in conditions["throttle_reasons"].items() if w not in HARMLESS_REASONS}
        if reasons:
            held = sum(1 for r in readings if reasons.keys() & set(r.throttle_reasons or []))
            listed = ", ".join(f"{word} ({count})" for word, count in reasons.items())
            warnings.append(f"clocks were held down in {held} of {len(readings)} readings: {listed}")
        # An idle GPU lowers its clock by itself: such readings say nothing about the samples
        clocks = [
            r.sm_clock_mhz
            for r in readings
            if r.sm_clock_mhz is not None and "gpu idle" not in (r.throttle_reasons or [])
        ]
        low = [clock for clock in clocks if clock < CLOCK_DROP * max(clocks)]
        if low:
            warnings.append(
                f"the SM clock fell below {CLOCK_DROP:.0%} of its highest in {len(low)} of {len(clocks)}"
                f" readings ({max(clocks)} to {min(low)} MHz)"
            )
        limit = self._gpu.slowdown_temperature_c()
        heat = conditions["temperature_c"]
        if heat and not isinstance(limit, Unavailable) and heat["max"] >= limit - NEAR_SLOWDOWN_C:
            warnings.append(f"the GPU reached {heat['max']} °C; its hardware slows down at {limit} °C")
        if conditions["other_processes"]:
            warnings.append(f"up to {conditions['other_processes']} other processes used the GPU")
        if self._gpu.mig() is True:
            warnings.append("MIG is enabled: clocks, power and temperature are the whole GPU's")
        silent = last.unavailable.keys() - self._first.unavailable.keys()
        if silent:
            name = min(silent)
            warnings.append(f"NVML stopped answering during the measurement ({name}): {last.unavailable[name]}")
        return warnings


def _host_warnings(conditions: dict[str, Any]) -> list[str]:
    """Too few processors for our threads, or other work on them."""
    threads, cores = conditions["threads"], conditions["usable_cores"]
    warnings = []
    if threads > cores:
        warnings.append(f"{threads} threads share {cores} usable cores")
    others, source = conditions["other_cpu_cores"], "counted in /proc/stat"
    if others is None:
        loads = [conditions["load_average_before"], conditions["load_average_after"]]
        # Our own threads are in the load, before the samples too: they warmed up
        others = max((load - threads for load in loads if load is not None), default=0.0)
        source, crowded = "by the load average", others > 0.5 * cores
    else:
        background = max(CROWDING_CORES, 0.05 * cores)
        crowded = others > 0.5 * cores or threads + others - cores > background
    if crowded:
        warnings.append(
            f"another {others:.1f} cores' worth of work ran beside the measurement ({source};"
            f" our threads: {threads}, usable cores: {cores})"
        )
    return warnings


class _Span(NamedTuple):
    """Readings of clocks and counters, or what they grew by over some spans of time. ``None`` means unknown."""

    seconds: float = 0.0
    busy_s: float | None = 0.0
    """Of our processors, whoever kept them busy."""
    own_s: float = 0.0
    energy_j: float | None = 0.0

    @classmethod
    def now(cls, cores: list[int], gpu: Gpu | None) -> _Span:
        energy = gpu.energy_j() if gpu is not None else None
        known = None if isinstance(energy, Unavailable) else energy
        return cls(time.monotonic(), host.busy_seconds(cores), time.process_time(), known)

    def plus(self, begin: _Span, end: _Span) -> _Span:
        """Longer by the span between two readings."""

        def grown(total: float | None, before: float | None, after: float | None) -> float | None:
            return None if total is None or before is None or after is None else total + after - before

        busy, energy = (grown(*values) for values in zip(self[1::2], begin[1::2], end[1::2], strict=True))
        return _Span(self.seconds + end.seconds - begin.seconds, busy, self.own_s + end.own_s - begin.own_s, energy)


def _other_cores(busy: float | None, own: float, elapsed: float) -> float | None:
    """Cores' worth of work by others on our processors, or ``None`` if the counters cannot tell."""
    if busy is None or elapsed < SHORTEST_BUSY_S:
        return None
    # Some sandboxes leave /proc/stat at zero; then our own time is missing from it as well
    return None if busy < 0.5 * own else max(0.0, busy - own) / elapsed


def _summary(values: list[Any]) -> dict[str, float] | None:
    known = [value for value in values if value is not None]
    return {"min": min(known), "median": median(known), "max": max(known)} if known else None
