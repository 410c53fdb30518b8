"""What people see on stderr while a command works: nothing, dated lines, or a bar below what has ended."""

from __future__ import annotations

import sys
import time
from datetime import datetime

from vheatbench.numbers import clock

COLOURS = {"ok": "green", "oom": "yellow", "skipped": "yellow"}
"""Of what has ended; red for all else."""


class Display:
    """Shows nothing: for commands that are told to be quiet, and for all processes but one. The others count by it."""

    def __init__(self) -> None:
        self._start = self._last = time.monotonic()
        self._share, self._count = 0.0, ""
        self._first: tuple[float, float] | None = None
        """When work went on, and from which share: what was there before took no time of this command."""

    def __enter__(self) -> Display:
        self._start = time.monotonic()
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def update(self, share: float, count: str, now: str = "") -> None:
        """This share of all work is done, ``count`` says how much that is, and ``now`` what is going on."""
        self._last, self._share, self._count = time.monotonic(), share, count
        self._first = self._first or (self._last, share)

    def line(self, label: str, words: str, status: str = "ok") -> None:
        """Something has ended, with the status of its record."""

    @property
    def begun(self) -> bool:
        """Whether work went on at all."""
        return self._first is not None

    @property
    def place(self) -> str:
        """``3/12 1:05, about 4:00 left``."""
        now = time.monotonic()
        text = f"{self._count} {clock(now - self._start)}"
        begun, before = self._first or (now, self._share)
        if before < self._share < 1:
            left = (self._last - begun) * (1 - self._share) / (self._share - before)
            text += f", about {clock(max(0.0, left - (now - self._last)))} left"
        return text


class Lines(Display):
    """For logs and pipes."""

    def __init__(self, every_s: float | None) -> None:
        super().__init__()
        self._every_s, self._said = every_s, -float("inf")

    def update(self, share: float, count: str, now: str = "") -> None:
        super().update(share, count, now)
        if self._every_s is not None and (self._last - self._said > self._every_s or share == 1):
            self._say(now)

    def line(self, label: str, words: str, status: str = "ok") -> None:
        self._say(f"{label}: {words}")

    def _say(self, text: str) -> None:
        self._said = time.monotonic()
        print(f"{datetime.now():%Y-%m-%d %H:%M:%S} [{self.place}] {text}", file=sys.stderr, flush=True)


class Bar(Display):
    """For terminals."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        super().__init__()
        self._progress = Progress(
            BarColumn(bar_width=24),
            # asked at every drawing, so that the clock runs on
            TextColumn("{task.fields[display].place}", markup=False),
            TextColumn("{task.description}", style="bold", markup=False),
            console=Console(stderr=True, highlight=False),
            transient=True,
        )
        self._task = self._progress.add_task("starting", total=1.0, display=self)

    def __enter__(self) -> Display:
        self._progress.start()
        return super().__enter__()

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def update(self, share: float, count: str, now: str = "") -> None:
        super().update(share, count, now)
        self._progress.update(self._task, completed=share, description=now or "…")

    def line(self, label: str, words: str, status: str = "ok") -> None:
        from rich.text import Text

        dot = ("● ", COLOURS.get(status, "red"))
        self._progress.console.print(Text.assemble(dot, f"{label}  ", (words, "dim")))


def display(quiet: bool, every_s: float | None = None) -> Display:
    """The one for where stderr goes.

    Args:
        quiet: whether nothing is to be shown.
        every_s: seconds after which a log is told what is going on; never where not given, only what has ended.
    """
    if quiet:
        return Display()
    return Bar() if sys.stderr.isatty() else Lines(every_s)
