"""What people see on stderr while a command works: nothing, a line for all that ends, or a bar below these lines."""

from __future__ import annotations

import sys
from types import TracebackType


class Display:
    """Shows nothing: for commands that are told to be quiet, and for all processes but one."""

    def __enter__(self) -> Display:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def update(self, done: float, words: str) -> None:
        """So much is done, and this is going on."""

    def line(self, text: str, good: bool = True) -> None:
        """Something has ended, well or not."""


class Lines(Display):
    """For logs and pipes."""

    def line(self, text: str, good: bool = True) -> None:
        print(text, file=sys.stderr, flush=True)


class Bar(Display):
    """For terminals."""

    def __init__(self, total: float) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self._progress = Progress(
            BarColumn(bar_width=24),
            TextColumn("{task.description}", markup=False),
            TimeElapsedColumn(),
            console=Console(stderr=True, highlight=False),
            transient=True,
        )
        self._task = self._progress.add_task("starting", total=total)

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def update(self, done: float, words: str) -> None:
        self._progress.update(self._task, completed=done, description=words)

    def line(self, text: str, good: bool = True) -> None:
        from rich.text import Text

        self._progress.console.print(Text.assemble(("● ", "green" if good else "red"), text))


def display(total: float, quiet: bool) -> Display:
    """The one for where stderr goes.

    Args:
        total: of what is done, in any unit.
        quiet: whether nothing is to be shown.
    """
    if quiet:
        return Display()
    return Bar(total) if sys.stderr.isatty() else Lines()
