"""Being stopped: by Ctrl-C, by the end of a cluster's job (SIGTERM), by the end of a terminal (SIGHUP); all alike.

Standard library only, so that a process can heed the signals before it imports anything else.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import NoReturn

from vheatbench.errors import StoreError, UserError

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SAME_WISH_S = 1.0
"""Signals within this time are one wish: ``timeout`` and shells send theirs twice."""


class Stopped(KeyboardInterrupt):
    """A signal asked to stop. What lets KeyboardInterrupt pass lets it pass too."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@dataclass
class _Heeding:
    """What is known of the signals of this process."""

    process: int
    number: int | None = None
    """Of the first signal."""
    acted: float = -SAME_WISH_S
    """When a signal was last acted on, by the monotonic clock."""
    answered: bool = False
    """Whether it was said what is kept: nothing is left to be done but to end."""


_heeding = _Heeding(0)


def leave_quietly() -> None:
    """From now on a signal ends the process at once, with one line: where nothing has been begun, or all has ended.

    Signals that were ignored when the process started, as ``nohup`` does with SIGHUP, stay ignored.
    """
    for number in _heeded():
        signal.signal(number, _leave)


def leave_undisturbed() -> None:
    """For the end of the process: all is said, and the exit code is known, so that no signal changes anything.

    Python gives signals their default meaning while it ends, and one that came late would end it otherwise.
    """
    for number in _heeded():
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def heeded() -> Iterator[None]:
    """As long as the block lasts, signals raise :class:`Stopped` in it; outside of the main thread they cannot.

    Raises:
        SystemExit: stopped, and no :func:`stoppable` in the block has answered it. The code is 128 and the signal's.
    """
    global _heeding
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before, _heeding = _heeding, _Heeding(os.getpid())
    handlers = {number: signal.signal(number, _stop) for number in _heeded()}
    try:
        with stoppable():
            yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        before.acted = _heeding.acted
        _heeding = before


@contextlib.contextmanager
def stoppable(kept: Callable[[], str] = lambda: "") -> Iterator[None]:
    """Where the block is stopped, say what of it is kept and how it goes on, and end.

    Args:
        kept: that in words, one or several lines; asked once the block has been left.

    Raises:
        SystemExit: stopped; the code is 128 and the signal's.
    """
    try:
        yield
    except BaseException as error:
        if not _means_stop(error):
            raise
        end(kept())


def end(kept: str) -> NoReturn:
    """End what was stopped, with one line that says what of it is kept and how it goes on. Raises SystemExit."""
    if os.environ.get("RANK", "0") == "0":  # one voice where torchrun started several processes
        print(f"interrupted: {kept}" if kept else "interrupted", file=sys.stderr, flush=True)
    _heeding.answered = True
    raise SystemExit(_code()) from None


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Signals wait until the block is left.

    They are blocked, which processes started in the block inherit, and noted, for another thread of this process
    may take what this one blocks.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # handlers run in the main thread
        return
    arrived: list[int] = []
    handlers = {number: signal.signal(number, lambda number, _: arrived.append(number)) for number in _heeded()}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in handlers.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        for taken in dict.fromkeys(arrived):
            signal.raise_signal(taken)


def _heeded() -> list[signal.Signals]:
    return [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]


def _leave(number: int, frame: FrameType | None) -> None:
    if time.monotonic() - _heeding.acted < SAME_WISH_S:  # it is ending
        return
    with contextlib.suppress(OSError):
        os.write(2, b"interrupted\n")
    os._exit(128 + number)


def _stop(number: int, frame: FrameType | None) -> None:
    if os.getpid() != _heeding.process:  # forked, to load images: its parent speaks
        os._exit(128 + number)
    now = time.monotonic()
    if now - _heeding.acted < SAME_WISH_S:
        return
    _heeding.acted = now
    if _heeding.answered:  # what is left hangs
        os._exit(_code())
    _heeding.number = _heeding.number or number
    raise Stopped(number)


def _code() -> int:
    """The exit code; that of SIGINT where a KeyboardInterrupt came without a signal."""
    return 128 + (_heeding.number or signal.SIGINT)


def _means_stop(error: BaseException) -> bool:
    """Whether an error comes from a signal.

    Libraries turn what is raised inside of their callbacks and imports into errors of their own, and where the other
    processes of a group were stopped too, they may be gone before this one knows why.
    """
    stopped = _heeding.number is not None and not isinstance(error, (UserError, StoreError))
    return isinstance(error, KeyboardInterrupt) or (isinstance(error, Exception) and stopped)
