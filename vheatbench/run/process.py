"""Starting a worker process and waiting for its answer, whatever becomes of it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from vheatbench.text import one_line

WORKER = "vheatbench.run.worker"
"""Module whose ``main`` is the worker process."""

End = Literal["answered", "timeout", "killed", "crashed", "stopped"]


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

    def command(self, answer_fd: int) -> list[str]:
        """The worker finds the modules that the runner finds, in the same order.

        With ``-m`` the working directory would come first, and a ``random.py`` in it would pass for Python's.
        """
        path = list(sys.path if self.path is None else self.path)
        code = f"import sys; sys.path[:] = {path!r}; from {WORKER} import main; main()"
        return [self.python, "-c", code, str(answer_fd), str(os.getpid())]


class Worker:
    """One worker process, waited for without polling; ``stop`` may be called from another thread."""

    def __init__(self, environment: dict[str, str] | None = None, launch: Launch | None = None) -> None:
        self._launch = launch or Launch()
        self._environment = {**calm_threads(), **self._launch.variables, **(environment or {})}
        self._process: _Process | None = None
        self._lock = threading.Lock()
        self._stopped = False

    def run(self, task: BaseModel, timeout_s: float | None = None) -> Outcome:
        """Start the process, give it the task, and wait for its end."""
        oom_kills = _oom_kills()
        started = time.monotonic()
        with tempfile.TemporaryFile() as answer, tempfile.TemporaryFile() as log:
            with self._lock:
                if self._stopped:
                    return Outcome("stopped", "", "stopped before it started", 0.0)
                self._process = _Process(
                    self._launch.command(answer.fileno()),
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    pass_fds=(answer.fileno(),),
                    env={**os.environ, **self._environment},
                    cwd=self._launch.folder,
                    # Ctrl-C is the runner's to handle: it reaches the worker as a kill, never half-way
                    start_new_session=True,
                )
            timed_out = False
            try:
                message = task.model_dump_json(exclude=dict(self._launch.leave_out) or None)
                self._process.communicate(message.encode(), timeout=timeout_s)
            except subprocess.TimeoutExpired:
                timed_out = True
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
        outcome = self._outcome(timed_out, timeout_s, text, tail, elapsed, _oom_kills() > oom_kills)
        if outcome.end == "answered":
            return outcome
        return replace(outcome, left=text, last_words=tail, peak_rss_bytes=self._process.peak_rss_bytes)

    def stop(self) -> None:
        """Kill the worker, now or as soon as it starts."""
        with self._lock:
            self._stopped = True
            if self._process is not None and self._process.returncode is None:
                self._signal_group()

    def _signal_group(self) -> None:
        """Kill the worker and what it started (compile workers, data loaders)."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _outcome(
        self, timed_out: bool, timeout_s: float | None, text: str, tail: str, elapsed: float, oom_killed: bool
    ) -> Outcome:
        assert self._process is not None
        code = self._process.returncode
        if timed_out:
            return Outcome("timeout", "", f"over its time limit of {timeout_s:g} s", elapsed)
        if code == 0 and text:
            return Outcome("answered", text, "", elapsed)
        if self._stopped:
            return Outcome("stopped", "", "stopped", elapsed)
        if code is not None and code < 0:
            name = signal.Signals(-code).name if -code in list(signal.Signals) else f"signal {-code}"
            if oom_killed:
                return Outcome("killed", "", "killed by the kernel: out of host memory", elapsed)
            reason = f"the worker process was killed by {name}{_last_words(tail)}"
            return Outcome("crashed", "", reason, elapsed, signal=-code)
        return Outcome("crashed", "", f"the worker process ended with code {code}{_last_words(tail)}", elapsed)


def _last_words(tail: str) -> str:
    """The last line of a log that says something: usually the exception."""
    lines = [line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", tail).splitlines() if line.strip()]
    return f": {one_line(lines[-1])}" if lines else ""


def _oom_kills() -> int:
    """Processes that the kernel has killed for memory so far, in this control group or on this machine."""
    total = 0
    for path, key in (("/sys/fs/cgroup/memory.events", "oom_kill"), ("/proc/vmstat", "oom_kill")):
        with contextlib.suppress(OSError, ValueError, IndexError):
            for line in Path(path).read_text().splitlines():
                if line.split()[0] == key:
                    total += int(line.split()[1])
    return total
