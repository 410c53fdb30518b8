"""What a person sees while a run is carried out: a live line on a terminal, plain lines elsewhere. All on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from vheatbench.case import Case
from vheatbench.store.per_image import compared, compared_name
from vheatbench.store.schema import Record, Status


@dataclass(frozen=True)
class Item:
    """What is carried out in one worker process: a case in one round, or a group of a study's cases."""

    key: str
    label: str
    weight: float
    """Of the time that it is expected to take."""

    @classmethod
    def of(cls, case: Case, round_: int) -> Item:
        """A case in a round."""
        label = case.label if not round_ else f"{case.label} (round {round_ + 1})"
        return cls(f"{case.id}/{round_}", label, weight(case))


class Progress(Protocol):
    """Told by the runner what happens."""

    def __enter__(self) -> Progress: ...
    def __exit__(self, *error: object) -> None: ...
    def started(self, item: Item, device: str) -> None: ...
    def told(self, item: Item, words: str, share: float, device: str) -> None: ...
    def finished(self, item: Item, status: Status, words: str, device: str) -> None: ...


def outcome(record: Record) -> str:
    """A record of a timed case on one line, for people."""
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
        images = values.get("throughput_images_per_s")
        if images is None:  # of a worker of another version
            return ""
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


def weight(case: Case) -> float:
    """Share of the run's time that a case is expected to take: start-up, then work by pixels or tokens."""
    batch = case.batch if isinstance(case.batch, int) else 16
    if case.kind != "model":
        # starting takes most of it; a ceiling's samples take a second or two
        return 1.5 if case.kind == "ceiling" else 1.0 + batch * case.tokens / 96**2 * 0.25
    return 1.0 + batch * case.pixels / 224**2 * 0.25


class Silent:
    """Says nothing."""

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def started(self, item: Item, device: str) -> None:
        """A worker begins an item."""

    def told(self, item: Item, words: str, share: float, device: str) -> None:
        """How far it is, in words and as a share."""

    def finished(self, item: Item, status: Status, words: str, device: str) -> None:
        """Its records are on disk."""


class _Counting(Silent):
    """How much is done, and how long the rest will take."""

    def __init__(self, items: Sequence[Item], done: Collection[str]) -> None:
        # A case's pixels times batch are a fair weight: the last resolutions take most of the time
        self.total = len(items)
        self.weight = sum(item.weight for item in items)
        before = [item for item in items if item.key in done]
        self.count = len(before)
        self.done = self._before = sum(item.weight for item in before)
        self._start = time.monotonic()

    def finished(self, item: Item, status: Status, words: str, device: str) -> None:
        self.count += 1
        self.done += item.weight

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self._start

    @property
    def remaining(self) -> float | None:
        worked = self.done - self._before
        return self.elapsed * (self.weight - self.done) / worked if worked > 0 else None


class PlainProgress(_Counting):
    """A line when an item ends."""

    def finished(self, item: Item, status: Status, words: str, device: str) -> None:
        super().finished(item, status, words, device)
        rest = self.remaining
        left = f", about {clock(rest)} left" if rest is not None and self.count < self.total else ""
        print(
            f"[{self.count}/{self.total} {clock(self.elapsed)}{left}] {item.label}: {words}",
            file=sys.stderr,
            flush=True,
        )


class LiveProgress(_Counting):
    """Finished items scroll by; below them a bar, what is being measured, elapsed and remaining."""

    def __init__(self, items: Sequence[Item], done: Collection[str]) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as RichProgress

        super().__init__(items, done)
        self._now: dict[str, str] = {}
        self._begun: dict[str, float] = {}
        self._console = Console(stderr=True, highlight=False)
        self._progress = RichProgress(
            BarColumn(bar_width=24),
            TextColumn("{task.fields[count]}"),
            TextColumn("{task.fields[times]}"),
            TextColumn("{task.fields[now]}", style="bold", markup=False),
            console=self._console,
            transient=True,
        )
        self._task = self._progress.add_task("", total=self.weight, count="", times="", now="starting")
        self._refresh()

    def __enter__(self) -> LiveProgress:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def started(self, item: Item, device: str) -> None:
        self._now[device] = item.label
        self._refresh()

    def told(self, item: Item, words: str, share: float, device: str) -> None:
        self._now[device] = f"{item.label}: {words}"
        self._begun[device] = share * item.weight
        self._refresh()

    def finished(self, item: Item, status: Status, words: str, device: str) -> None:
        from rich.markup import escape

        super().finished(item, status, words, device)
        self._now.pop(device, None)
        self._begun.pop(device, None)
        colour = "green" if status == "ok" else "yellow" if status in ("oom", "skipped") else "red"
        self._console.print(f"[{colour}]●[/] {escape(item.label)}  [dim]{escape(words)}[/]")
        self._refresh()

    def _refresh(self) -> None:
        rest = self.remaining
        times = clock(self.elapsed) + (f" elapsed, about {clock(rest)} left" if rest is not None else " elapsed")
        self._progress.update(
            self._task,
            completed=self.done + sum(self._begun.values()),
            count=f"{self.count}/{self.total}",
            times=times,
            now="  |  ".join(self._now.values()) or "…",
        )


def make_progress(items: Sequence[Item], done: Collection[str], quiet: bool) -> Progress:
    """The right kind for where stderr goes; ``done`` are the keys of what a resumed run holds."""
    if quiet:
        return Silent()
    return LiveProgress(items, done) if sys.stderr.isatty() else PlainProgress(items, done)
