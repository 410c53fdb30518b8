"""How far a run is: what the runner tells, what it is expected to take, and what of it is seen on a display."""

from __future__ import annotations

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

    def started(self, item: Item, device: str) -> None: ...
    def told(self, item: Item, words: str, share: float, device: str) -> None: ...
    def finished(self, item: Item, status: Status, words: str, device: str) -> None: ...


class Display(Protocol):
    """Where progress is seen: :mod:`vheatbench.present.progress` has them."""

    def update(self, share: float, count: str, now: str = "") -> None: ...
    def line(self, label: str, words: str, status: str = "ok") -> None: ...


def outcome(record: Record) -> str:
    """A record of a timed case on one line, for people."""
    if record.status != "ok":
        return f"{record.status}: {record.reason}"
    values = {name: metric.value for name, metric in record.metrics.items() if metric.value is not None}
    text = "  ".join(filter(None, (step_time(record), _speed(record.case, values))))
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
    if "rate_flop_per_s" not in values and "flops_per_step" not in values:  # of a round that counts nothing
        return ""
    rate = values.get("rate_flop_per_s", values.get("flops_per_step", 0.0) / values["latency_s"])
    return f"{rate / 1e9:.3g} GFLOP/s"


def weight(case: Case) -> float:
    """Share of the run's time that a case is expected to take: start-up, then work by pixels or tokens.

    Pixels times batch are fair: the last resolutions take most of the time.
    """
    batch = case.batch if isinstance(case.batch, int) else 16
    if case.kind != "model":
        # starting takes most of it; a ceiling's samples take a second or two
        return 1.5 if case.kind == "ceiling" else 1.0 + batch * case.tokens / 96**2 * 0.25
    return 1.0 + batch * case.pixels / 224**2 * 0.25


class Silent:
    """Says nothing."""

    def started(self, item: Item, device: str) -> None:
        """A worker begins an item."""

    def told(self, item: Item, words: str, share: float, device: str) -> None:
        """How far it is, in words and as a share."""

    def finished(self, item: Item, status: Status, words: str, device: str) -> None:
        """Its records are on disk."""


class RunProgress:
    """How much of a run is done, and what every device is at, told to a display."""

    def __init__(
        self, items: Sequence[Item], done: Collection[str], display: Display, seconds: float | None = None
    ) -> None:
        """``done`` are the keys of what a resumed run holds, ``seconds`` what is left of its budget."""
        self._begun, self._seconds = time.monotonic(), seconds
        self._total, self._weight = len(items), sum(item.weight for item in items)
        before = [item.weight for item in items if item.key in done]
        self._count, self._done = len(before), sum(before)
        self._at: dict[str, tuple[str, float]] = {}
        """What every device is at, and what of its weight is done."""
        self._display = display
        self._update()

    def started(self, item: Item, device: str) -> None:
        self._at[device] = item.label, 0.0
        self._update()

    def told(self, item: Item, words: str, share: float, device: str) -> None:
        self._at[device] = f"{item.label}: {words}", share * item.weight
        self._update()

    def finished(self, item: Item, status: Status, words: str, device: str) -> None:
        self._at.pop(device, None)
        self._count, self._done = self._count + 1, self._done + item.weight
        self._update()
        self._display.line(item.label, words, status)

    def _update(self) -> None:
        done = self._done + sum(part for _, part in self._at.values())
        now = "  |  ".join(label for label, _ in self._at.values())
        share, count = done / (self._weight or 1.0), f"{self._count}/{self._total}"
        if self._seconds is not None:  # how many rounds it will be is not known, but when it ends
            share = min(1.0, (time.monotonic() - self._begun) / self._seconds)
            count = count if self._count < self._total else f"{self._count}"
        self._display.update(share, count, now)
