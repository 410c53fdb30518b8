"""Starting a worker process and waiting for its answer, whatever becomes of it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from vheatbench.run.fork import Forked, fork_server
from vheatbench.run.task import Event, MeasureTask
from vheatbench.run.whereabouts import in_slurm_job
from vheatbench.text import one_line

WORKER = "vheatbench.run.worker"
"""Module whose ``main`` is the worker process."""
FORK_ALL = "VHEATBENCH_FORK_ALL"
"""Environment variable with which timed cases are forked too: for tests, whose timings nobody reads."""

TOLD_TO_END = frozenset({signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2})
"""Signals that a process gets because somebody wants its end, not because of what it does."""
LAST_MOMENT_S = 2.0
"""A job of a cluster that is ended is killed as a whole: who lives this long after its worker was not meant."""

End = Literal["answered", "timeout", "killed", "crashed", "ended", "stopped"]
"""``killed`` for memory by the kernel, ``ended`` by a signal that says so and that this program did not send."""


@dataclass(frozen=True)
class Outcome:
    """How a worker ended."""

    end: End
    answer: str
    """Its JSON, empty unless it answered."""
    reason: str
    """One line, empty if it answered."""
    elapsed_s: float
    signal: int | None = None
    """That killed it, unless it was this program's."""
    left: str = ""
    """What a worker that did not answer had written by then."""
    last_words: str = ""
    """The end of what a worker that did not answer printed."""
    peak_rss_bytes: int | None = None
    """Most memory that it had resident at once, where the system says so."""


class _Process(subprocess.Popen[bytes]):
    """A process whose end also tells how much memory it had resident at most."""

    peak_rss_bytes: int | None = None

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        # subprocess has no way to ask for the usage of one child; without this hook it is unknown
        try:
            pid, status, usage = os.wait4(self.pid, wait_flags)
        except ChildProcessError:
            return self.pid, 0
        if pid and sys.platform == "linux":
            self.peak_rss_bytes = usage.ru_maxrss * 1024
        return pid, status


def calm_threads() -> dict[str, str]:
    """Let threads that wait for each other sleep instead of spin, unless the user has decided otherwise.

    OpenMP's threads spin at the end of every parallel region. With as many threads as cores, one other
    busy process then makes a step 10 to 30 times slower instead of up to twice.
    """
    if any(name in os.environ for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")):
        return {}
    return {"OMP_WAIT_POLICY": "PASSIVE"}


@dataclass(frozen=True)
class Launch:
    """Whose code a worker process runs: by default what the runner would import."""

    python: str = sys.executable
    path: tuple[str, ...] | None = None
    """Its ``sys.path``; the runner's if None."""
    folder: Path | None = None
    """Its working directory; the runner's if None."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """Environment variables that go with the code."""
    leave_out: Mapping[str, Any] = field(default_factory=dict)
    """Fields of a task that an older worker does not know, as pydantic's ``exclude``; they are at their default."""

    def command(self, answer_fd: int, events_fd: int) -> list[str]:
        """The worker finds the modules that the runner finds, in the same order.

        With ``-m`` the working directory would come first, and a ``random.py`` in it would pass for Python's.
        """
        path = list(sys.path if self.path is None else self.path)
        code = f"import sys; sys.path[:] = {path!r}; from {WORKER} import main; main()"
        return [self.python, "-c", code, str(answer_fd), str(os.getpid()), str(events_fd)]


class Worker:
    """One worker process, waited for without polling; ``stop`` may be called from another thread."""

    def __init__(
        self, environment: dict[str, str] | None = None, launch: Launch | None = None, fresh: bool = False
    ) -> None:
        """``fresh``: never forked, so that what hangs on memory layout differs from that of any other process."""
        self._fresh = fresh
        self._launch = launch or Launch()
        self._environment = {**calm_threads(), **self._launch.variables, **(environment or {})}
        self._process: _Process | Forked | None = None
        self._line: _Line | None = None
        self._lock = threading.Lock()
        self._stopped = False
        self._expired_s: float | None = None

    def run(
        self, task: BaseModel, timeout_s: float | None = None, on_event: Callable[[Event], None] = lambda event: None
    ) -> Outcome:
        """Start the process, give it the task, and wait for its end.

        ``on_event`` is called with every event, in another thread, and for the last time before this returns.
        """
        oom_kills = _oom_kills()
        started = time.monotonic()
        with (
            tempfile.TemporaryFile() as answer,
            tempfile.TemporaryFile() as log,
            _Line(on_event) as line,
        ):
            message = task.model_dump_json(exclude=dict(self._launch.leave_out) or None).encode()
            with self._lock:
                if self._stopped:
                    return Outcome("stopped", "", "stopped before it started", 0.0)
                self._line = line  # before the start: it may be answered before the start returns
                start = self._fork if self._forks(task) else self._spawn
                self._process = start(message, answer.fileno(), log.fileno(), line.fileno())
            try:
                self._process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self._expired_s = timeout_s
            finally:
                # also after an answer: what a worker left running would disturb the next case
                self._signal_group()
                self._process.wait()
            elapsed = time.monotonic() - started
            answer.seek(0)
            text = answer.read().decode("utf-8", "replace")
            log.seek(0, os.SEEK_END)
            log.seek(max(0, log.tell() - 16384))
            tail = log.read().decode("utf-8", "replace")
        if self._process.returncode == -signal.SIGKILL and in_slurm_job() and not self._stopped:
            _outlive(LAST_MOMENT_S)
        outcome = self._outcome(text, tail, elapsed, _oom_kills() > oom_kills)
        if outcome.end == "answered":
            return outcome
        return replace(outcome, left=text, last_words=tail, peak_rss_bytes=self._process.peak_rss_bytes)

    def _forks(self, task: BaseModel) -> bool:
        """Whether the task's worker is forked: where the code is the runner's own, and no GPU is timed."""
        own = self._launch == Launch() and WORKER == "vheatbench.run.worker" and sys.platform == "linux"
        timed_there = isinstance(task, MeasureTask) and (self._fresh or task.case.device != "cpu")
        return own and (not timed_there or FORK_ALL in os.environ)

    def _spawn(self, message: bytes, answer: int, log: int, events: int) -> _Process:
        with tempfile.TemporaryFile() as task:
            task.write(message)
            task.seek(0)
            return _Process(
                self._launch.command(answer, events),
                stdin=task,
                stdout=log,
                stderr=log,
                pass_fds=(answer, events),
                env={**os.environ, **self._environment},
                cwd=self._launch.folder,
                # Ctrl-C is the runner's to handle: it reaches the worker as a kill, never half-way
                start_new_session=True,
            )

    def _fork(self, message: bytes, answer: int, log: int, events: int) -> Forked:
        server = fork_server(calm_threads())
        return server.start(message, answer, log, events, {**os.environ, **self._environment})

    def stop(self) -> None:
        """Kill the worker, now or as soon as it starts."""
        with self._lock:
            self._stopped = True
            if self._process is not None and self._process.returncode is None:
                self._signal_group()

    def expire(self, limit_s: float) -> None:
        """Kill the worker, for it has taken more of its time than it may."""
        with self._lock:
            if self._process is not None and self._process.returncode is None:
                self._expired_s = limit_s
                self._signal_group()

    def tell(self, message: BaseModel) -> None:
        """Say something to the worker while it works."""
        if self._line is not None:
            self._line.send(message)

    def _signal_group(self) -> None:
        """Kill the worker and what it started (compile workers, data loaders)."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if isinstance(self._process, Forked):
                self._process.kill()
            else:
                os.killpg(self._process.pid, signal.SIGKILL)

    def _outcome(self, text: str, tail: str, elapsed: float, oom_killed: bool) -> Outcome:
        assert self._process is not None
        code = self._process.returncode
        if self._expired_s is not None:
            return Outcome("timeout", "", f"over its time limit of {self._expired_s:g} s", elapsed)
        if code == 0 and text:
            return Outcome("answered", text, "", elapsed)
        if self._stopped:
            return Outcome("stopped", "", "stopped", elapsed)
        if code is not None and code < 0:
            name = signal.Signals(-code).name if -code in list(signal.Signals) else f"signal {-code}"
            if oom_killed:
                return Outcome("killed", "", "killed by the kernel: out of host memory", elapsed)
            reason = f"the worker process was killed by {name}{_last_words(tail)}"
            if -code in TOLD_TO_END:
                return Outcome("ended", "", reason, elapsed, signal=-code)
            return Outcome("crashed", "", reason, elapsed, signal=-code)
        return Outcome("crashed", "", f"the worker process ended with code {code}{_last_words(tail)}", elapsed)


class _Line:
    """The line to a worker: its events come in, and what it is told goes out; open as long as the block lasts."""

    def __init__(self, on_event: Callable[[Event], None]) -> None:
        self._on_event = on_event
        self._errors: list[Exception] = []
        self._ours, self._theirs = socket.socketpair()
        self._listener = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> _Line:
        self._listener.start()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        """When this returns, all events have been handed on. Raises what handing them on has raised."""
        self._theirs.close()
        self._listener.join(timeout=5)  # a process that left the worker's session may hold the other end
        if self._errors and error is None:
            raise self._errors[0]

    def fileno(self) -> int:
        """The worker's end."""
        return self._theirs.fileno()

    def send(self, message: BaseModel) -> None:
        """Tell the worker something; of one that is gone, nobody hears it."""
        with contextlib.suppress(OSError):
            self._ours.sendall(message.model_dump_json().encode() + b"\n")

    def _listen(self) -> None:
        # an error closes the line, which ends the worker when it has the next thing to say
        with self._ours, self._ours.makefile("rb") as file:
            try:
                for line in _until_gone(file):
                    # what is no event was cut off with its writer, or holds a value that cannot be stored
                    with contextlib.suppress(ValidationError):
                        self._on_event(Event.model_validate_json(line))
            except Exception as error:  # handed to the thread that waits
                self._errors.append(error)


def _until_gone(lines: Iterable[bytes]) -> Iterator[bytes]:
    """The lines of a socket; one whose other end has not heard all that it was told ends in an error."""
    with contextlib.suppress(ConnectionResetError):
        yield from lines


def _last_words(tail: str) -> str:
    """The last line of a log that says something: usually the exception."""
    lines = [line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", tail).splitlines() if line.strip()]
    return f": {one_line(lines[-1])}" if lines else ""


def _outlive(seconds: float) -> None:
    """Wait: where the whole job is being killed, this does not return."""
    time.sleep(seconds)


def _oom_kills() -> int:
    """Processes that the kernel has killed for memory so far, in this control group or on this machine."""
    total = 0
    for path, key in (("/sys/fs/cgroup/memory.events", "oom_kill"), ("/proc/vmstat", "oom_kill")):
        with contextlib.suppress(OSError, ValueError, IndexError):
            for line in Path(path).read_text().splitlines():
                if line.split()[0] == key:
                    total += int(line.split()[1])
    return total
