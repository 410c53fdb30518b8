"""What a person sees while a suite runs: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Protocol

from vheatbench.case import Case
from vheatbench.store.per_image import compared, compared_name
from vheatbench.store.schema import Record


class Progress(Protocol):
    """Told by the runner what happens; everything goes to stderr."""

    def __enter__(self) -> Progress: ...
    def __exit__(self, *error: object) -> None: ...
    def started(self, case: Case, round_: int, device: str) -> None: ...
    def finished(self, record: Record, device: str) -> None: ...


def outcome(record: Record) -> str:
    """A record on one line, for people."""
    if record.status != "ok":
        return f"{record.status}: {record.reason}"
    values = {name: metric.value for name, metric in record.metrics.items() if metric.value is not None}
    text = f"{step_time(record)}  {_speed(record.case, values)}"
    memory = values.get("peak_memory_bytes")
    if memory is not None:
        text += f"  {memory / 2**20:.0f} MiB"
    return text + (f"  [{len(record.warnings)} warnings]" if record.warnings else "")


def step_time(record: Record) -> str:
    """``12.3 ms``; of the largest batch that fits, whose steps are of unequal size, ``0.12 ms/image``."""
    metric = compared(record).metrics[compared_name(record.case, "latency_s")]
    return f"{(metric.value or 0) * 1e3:.4g} m{metric.unit}"


def _speed(case: Case, values: dict[str, float]) -> str:
    """Images of a model, FLOPs of an operator, bytes or FLOPs of a ceiling, per second."""
    if case.kind == "model":
        images = values["throughput_images_per_s"]
        return f"{images:.0f} images/s" if images >= 1000 else f"{images:.3g} images/s"
    if "bandwidth_bytes_per_s" in values:
        return f"{values['bandwidth_bytes_per_s'] / 1e9:.3g} GB/s"
    rate = values.get("rate_flop_per_s", values.get("flops_per_step", 0.0) / values["latency_s"])
    return f"{rate / 1e9:.3g} GFLOP/s"


def clock(seconds: float) -> str:
    """Seconds as ``1:05`` or ``2:03:04``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class _Clock:
    """Elapsed and remaining time of a run whose cases take unequal time."""

    def __init__(self, weights: dict[str, float], done: float) -> None:
        # A case's pixels times batch are a fair weight: the last resolutions take most of the time
        self.weights = weights
        self.total = sum(weights.values())
        self.before = done
        self.done = done
        self.start = time.monotonic()

    def add(self, key: str) -> None:
        self.done += self.weights.get(key, 0.0)

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.start

    @property
    def remaining(self) -> float | None:
        worked = self.done - self.before
        return self.elapsed * (self.total - self.done) / worked if worked > 0 else None


def weight(case: Case) -> float:
    """Share of the run's time that a case is expected to take: start-up, then work by pixels or tokens."""
    batch = case.batch if isinstance(case.batch, int) else 16
    if case.kind != "model":
        # starting takes most of it; a ceiling's samples take a second or two
        return 1.5 if case.kind == "ceiling" else 1.0 + batch * case.tokens / 96**2 * 0.25
    return 1.0 + batch * case.pixels / 224**2 * 0.25


def _key(case: Case, round_: int) -> str:
    return f"{case.id}/{round_}"


class Silent:
    """Says nothing."""

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def started(self, case: Case, round_: int, device: str) -> None:
        """A worker begins a case."""

    def finished(self, record: Record, device: str) -> None:
        """A record is on disk."""


class PlainProgress(Silent):
    """A line when a case ends."""

    def __init__(self, schedule: list[tuple[Case, int]], done: set[tuple[str, int]]) -> None:
        self._total = len(schedule)
        self._count = len(done)
        weights = {_key(case, round_): weight(case) for case, round_ in schedule}
        self._clock = _Clock(weights, sum(weights.get(f"{i}/{r}", 0.0) for i, r in done))

    def finished(self, record: Record, device: str) -> None:
        self._count += 1
        self._clock.add(_key(record.case, record.round))
        rest = self._clock.remaining
        left = f", about {clock(rest)} left" if rest is not None and self._count < self._total else ""
        print(
            f"[{self._count}/{self._total} {clock(self._clock.elapsed)}{left}] {record.case.label}: {outcome(record)}",
            file=sys.stderr,
            flush=True,
        )


class LiveProgress:
    """Finished cases scroll by; below them a bar, what is being measured, elapsed and remaining."""

    def __init__(self, schedule: list[tuple[Case, int]], done: set[tuple[str, int]]) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as RichProgress

        weights = {_key(case, round_): weight(case) for case, round_ in schedule}
        self._clock = _Clock(weights, sum(weights.get(f"{i}/{r}", 0.0) for i, r in done))
        self._total, self._count = len(schedule), len(done)
        self._now: dict[str, str] = {}
        self._console = Console(stderr=True, highlight=False)
        self._progress = RichProgress(
            BarColumn(bar_width=24),
            TextColumn("{task.fields[count]}"),
            TextColumn("{task.fields[times]}"),
            TextColumn("{task.fields[now]}", style="bold", markup=False),
            console=self._console,
            transient=True,
        )
        self._task = self._progress.add_task("", total=self._clock.total, count="", times="", now="starting")
        self._refresh()

    def __enter__(self) -> LiveProgress:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def started(self, case: Case, round_: int, device: str) -> None:
        self._now[device] = case.label if not round_ else f"{case.label} (round {round_ + 1})"
        self._refresh()

    def finished(self, record: Record, device: str) -> None:
        from rich.markup import escape

        self._now.pop(device, None)
        self._count += 1
        self._clock.add(_key(record.case, record.round))
        colour = "green" if record.status == "ok" else "yellow" if record.status in ("oom", "skipped") else "red"
        self._console.print(f"[{colour}]●[/] {escape(record.case.label)}  [dim]{escape(outcome(record))}[/]")
        self._refresh()

    def _refresh(self) -> None:
        rest = self._clock.remaining
        times = clock(self._clock.elapsed) + (f" elapsed, about {clock(rest)} left" if rest is not None else " elapsed")
        self._progress.update(
            self._task,
            completed=self._clock.done,
            count=f"{self._count}/{self._total}",
            times=times,
            now="  |  ".join(self._now.values()) or "…",
        )


def make_progress(schedule: list[tuple[Case, int]], done: set[tuple[str, int]], quiet: bool) -> Progress:
    """The right kind for where stderr goes."""
    if quiet:
        return Silent()
    return LiveProgress(schedule, done) if sys.stderr.isatty() else PlainProgress(schedule, done)
