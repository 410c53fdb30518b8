"""Live workers that take turns on one device: all are warm, one works at a time, the others sleep.

What two processes take one after the other differs by the machine's drift between them; what they take in turns of a
tenth of a second hardly does. See docs/measuring.md for what that gives.
"""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from vheatbench.measure.host import free_memory_bytes
from vheatbench.measure.stopping import StoppedBy, StoppingRule
from vheatbench.run.process import Outcome, Worker
from vheatbench.run.task import Event, MeasureTask, Turn
from vheatbench.suites import SuitePolicy

TURNS = 24
"""Turns of each case in the time that a policy allows it: its ceiling divided by this is the length of a turn."""
MIN_TURNS = 8
"""Turns of each case at least, as long as that takes no longer than the ceiling allows."""
FREE = 0.9
"""Share of the free memory that live workers may want."""


class Sampled(Protocol):
    """What takes turns: what its samples are, and how long they have taken."""

    @property
    def rule(self) -> StoppingRule: ...
    @property
    def sampling_s(self) -> float: ...


class LiveWorker:
    """A worker process that measures one case in turns; waited for without polling."""

    def __init__(self, worker: Worker, task: MeasureTask, limit_s: float) -> None:
        """``limit_s``: seconds of its own that it may take, those of others' turns left out."""
        self.worker = worker
        self.task = task
        self.outcome: Outcome | None = None
        """How it ended; None as long as it lives."""
        self.turns = 0
        self.sampling_s = 0.0
        """Seconds of its turns."""
        self.needs_bytes = 0
        self.rule = StoppingRule(task.policy)
        self._limit_s = limit_s
        self._taken_s = 0.0
        self._events: queue.SimpleQueue[Event | Outcome | BaseException] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def alive(self) -> bool:
        return self.outcome is None

    def start(self) -> None:
        """Start the process."""
        self._thread.start()

    def warm_up(self) -> None:
        """Let it build and warm up when it has imported what it needs; wait until the case is warm, or it ended."""
        if self._next() is not None:
            self.worker.tell(Turn())
            event = self._next()
            self.needs_bytes = event.needs_bytes if event is not None else 0

    def turn(self, seconds: float) -> None:
        """Let it sample for so long, and wait until it has, or ended."""
        started = time.monotonic()
        self.worker.tell(Turn(seconds=seconds))
        event = self._next()
        self.sampling_s += time.monotonic() - started
        if event is not None:
            self.turns += 1
            for sample in event.samples:
                self.rule.add(sample)

    def finish(self, stopped_by: StoppedBy) -> None:
        """Let it do what comes after the samples, and wait for its end."""
        self.worker.tell(Turn(stopped_by=stopped_by))
        while self._next() is not None:
            pass

    def stop(self) -> None:
        """Kill it if it lives, and wait until it is gone."""
        if self.alive:
            self.worker.stop()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            self._events.put(self.worker.run(self.task, None, self._events.put))
        except BaseException as error:  # no more processes, say: handed to the thread that waits
            self._events.put(error)

    def _next(self) -> Event | None:
        """Its next event; None when it has ended."""
        started = time.monotonic()
        try:
            got = self._events.get(timeout=max(0.0, self._limit_s - self._taken_s))
        except queue.Empty:
            self.worker.expire(self._limit_s)
            got = self._events.get()
        self._taken_s += time.monotonic() - started
        if isinstance(got, BaseException):
            raise got
        if isinstance(got, Outcome):
            self.outcome = got
            return None
        return got


def take_turns(
    workers: Sequence[LiveWorker],
    policy: SuitePolicy,
    seed: str,
    until: float | None = None,
    on_turn: Callable[[int, float], None] = lambda number, share: None,
) -> dict[LiveWorker, str]:
    """Start all, let them take turns until each has samples enough, and end them: all have an outcome then.

    They import side by side; from then on one works at a time, so that nothing is built beside another's samples. A
    worker that ends before its time leaves
    the turns to the others.

    Args:
        workers: at least one, not started.
        policy: by whose rules, and in whose time, each samples.
        seed: of the order.
        until: moment of the monotonic clock at which sampling ends, once each has had a turn.
        on_turn: told after each turn of all how many each has had, and that as a share of what there may be.

    Returns:
        Those that were stopped because the memory does not suffice for them beside the others, and why.
    """
    orders = orders_of(len(workers), seed)
    for live in workers:
        live.start()
    for place in next(orders):
        workers[place].warm_up()
    crowded = _crowded([live for live in workers if live.alive])
    for live in crowded:
        live.stop()
    seconds = policy.ceiling_s / TURNS
    number = 0
    while True:
        playing = [live for live in workers if live.alive and live not in crowded]
        ended = [live.rule.finished(live.sampling_s) for live in playing]
        over = enough(playing, number, policy, all(ended))
        if not playing or over or (until is not None and number and time.monotonic() >= until):
            break
        for place in next(orders):
            if workers[place] in playing:
                workers[place].turn(seconds)
        number += 1
        on_turn(number, min(1.0, number / TURNS))
    for live, rule in zip(playing, ended, strict=True):
        live.finish(rule or "ceiling")
    return crowded


def orders_of(count: int, seed: str) -> Iterator[list[int]]:
    """In which order ``count`` have their next turn, for ever: one that is drawn, then the same backwards.

    Of two that is ABBA or BAAB. Each is as often before another as behind it, so that no drift favours anybody.
    """
    chance = random.Random(seed)
    while True:
        order = chance.sample(range(count), count)
        yield order
        yield order[::-1]


def enough(playing: Sequence[Sampled], number: int, policy: SuitePolicy, content: bool) -> bool:
    """Whether sampling may end: all are content after turns enough, or time is up and each has its fewest samples.

    Args:
        playing: who takes turns.
        number: turns that each has had.
        policy: by whose rules.
        content: whether each one's own stopping rule has ended it.
    """
    if content and number >= MIN_TURNS:
        return True
    taken = sum(one.sampling_s for one in playing)
    floors = all(len(one.rule.values) >= one.rule.floor for one in playing)
    return floors and taken >= len(playing) * policy.ceiling_s


def _crowded(workers: Sequence[LiveWorker]) -> dict[LiveWorker, str]:
    """Of live workers those that have to go, the hungriest first, until the memory suffices for each one's step."""
    left = sorted(workers, key=lambda live: live.needs_bytes)
    free, gone = FREE * free_memory_bytes(), {}
    while left and left[-1].needs_bytes > free:
        hungry = left.pop()
        gone[hungry] = (
            f"it needs {hungry.needs_bytes / 2**20:.0f} MiB more at times, and {free / 2**20:.0f} MiB are free"
        )
    return gone
