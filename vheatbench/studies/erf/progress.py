"""What ``vheatbench erf`` shows while it measures: a bar on a terminal, lines elsewhere. All on stderr."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vheatbench.store.schema import Record
    from vheatbench.studies.erf.plan import Job


class Silent:
    """Says nothing."""

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def begun(self, job: Job, images: int) -> None:
        """A job begins."""

    def measured(self, images: int, error: float) -> None:
        """A batch of images is done."""

    def ended(self, job: Job, records: list[Record]) -> None:
        """The job's records are on disk."""


class Lines(Silent):
    """A line when a job ends."""

    def __init__(self, jobs: int) -> None:
        self._jobs, self._done = jobs, 0

    def ended(self, job: Job, records: list[Record]) -> None:
        self._done += 1
        print(f"[{self._done}/{self._jobs}] {job.label}: {outcome(records)}", file=sys.stderr, flush=True)


class Bar(Silent):
    """Finished jobs scroll by; below them a bar over images, and how precise the numbers are."""

    def __init__(self, jobs: int, target: float) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self._jobs, self._done, self._target, self._most = jobs, 0, target, 0
        self._console = Console(stderr=True, highlight=False)
        self._progress = Progress(
            BarColumn(bar_width=24),
            TextColumn("{task.fields[count]}", markup=False),
            TimeElapsedColumn(),
            TextColumn("{task.description}", markup=False),
            console=self._console,
            transient=True,
        )
        self._task = self._progress.add_task("starting", total=jobs, count="")

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def begun(self, job: Job, images: int) -> None:
        self._most = images
        self._progress.update(
            self._task, description=job.label, completed=self._done, count=f"{self._done}/{self._jobs}"
        )

    def measured(self, images: int, error: float) -> None:
        known = f", error {error:.1%} of {self._target:.1%} wanted" if math.isfinite(error) else ""
        self._progress.update(
            self._task,
            completed=self._done + images / self._most,
            count=f"{self._done}/{self._jobs}  {images} of at most {self._most} images{known}",
        )

    def ended(self, job: Job, records: list[Record]) -> None:
        from rich.markup import escape

        self._done += 1
        colour = "green" if all(record.status == "ok" for record in records) else "red"
        self._console.print(f"[{colour}]●[/] {escape(job.label)}  [dim]{escape(outcome(records))}[/]")
        self._progress.update(self._task, completed=self._done)


def outcome(records: list[Record]) -> str:
    """A job on one line."""
    failed = [record for record in records if record.status != "ok"]
    if failed:
        return f"{failed[0].status}: {failed[0].reason}"
    conditions = records[0].conditions
    n = conditions["n_images"]
    layers = f", {len(records)} layers" if len(records) > 1 else ""
    return f"{n} image{'s' * (n != 1)}{layers}, {conditions['seconds']:.1f} s ({conditions['stopped_by']})"


def make_progress(jobs: int, target: float, quiet: bool) -> Silent:
    """The right kind for where stderr goes."""
    if quiet:
        return Silent()
    return Bar(jobs, target) if sys.stderr.isatty() else Lines(jobs)
