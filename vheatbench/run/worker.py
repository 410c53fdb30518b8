"""The worker process: arguments are the answer's file descriptor and the runner's id, the task is JSON on stdin.

The answer goes to a file of its own, because models and libraries print what they like on stdout. A third argument is
the descriptor of a socket: events go out on it, and the turns of a live worker come in.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import signal
import sys

from pydantic import TypeAdapter

from vheatbench.run.task import Event, InspectTask, Interim, MeasureTask, PlanTask, StudyTask, Turn

PR_SET_PDEATHSIG = 1


JOB_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""What a cluster sends to every process of a job that it will end."""


def leave_signals_to_runner() -> None:
    """Ignore what a cluster sends to all processes of a job: the runner heeds it, and kills this one."""
    for number in JOB_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def die_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process when the runner dies, however it dies (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _write(fd: int, text: str) -> None:
    """Replace what stands in the file of the answer."""
    data = text.encode()
    os.ftruncate(fd, 0)
    written = 0
    while written < len(data):
        written += os.pwrite(fd, data[written:], written)


class _Runner:
    """The runner, as a worker that measures a case sees it."""

    def __init__(self, answer_fd: int, events_fd: int | None) -> None:
        self._answer_fd = answer_fd
        self._events_fd = events_fd

    def left(self, interim: Interim) -> None:
        """Leave something for the case that this process dies."""
        _write(self._answer_fd, interim.model_dump_json())

    def turn(self, event: Event) -> Turn:
        """Hand a turn's samples over, and sleep until the next."""
        assert self._events_fd is not None
        send(self._events_fd, event)
        line = b""
        while not line.endswith(b"\n"):
            got = os.read(self._events_fd, 4096)
            if not got:  # nobody will say anything more
                os._exit(1)
            line += got
        return Turn.model_validate_json(line)


def send(fd: int, event: Event) -> None:
    """Write an event, whole."""
    data = event.model_dump_json().encode() + b"\n"
    while data:
        data = data[os.write(fd, data) :]


def main() -> None:
    """Read the task, do it, write the answer."""
    leave_signals_to_runner()
    answer_fd, parent = int(sys.argv[1]), int(sys.argv[2])
    events_fd = int(sys.argv[3]) if len(sys.argv) > 3 else None
    die_with_parent(parent)
    work(sys.stdin.buffer.read(), answer_fd, events_fd)


def work(text: bytes, answer_fd: int, events_fd: int | None = None) -> None:
    """Do a task, write the answer, and end the process with code 0; without an answer, whatever the task raises."""
    task = TypeAdapter(MeasureTask | InspectTask | PlanTask | StudyTask).validate_json(text)
    if isinstance(task, MeasureTask):
        from vheatbench.run.measure_case import measure_case

        # a million objects of the libraries need not be looked at in every collection
        gc.freeze()

        answer = measure_case(task, _Runner(answer_fd, events_fd)).model_dump_json()
    elif isinstance(task, InspectTask):
        from vheatbench.run.inspect import inspect

        answer = inspect(task).model_dump_json()
    else:
        from vheatbench.run import study

        if isinstance(task, PlanTask):
            answer = study.plan(task).model_dump_json()
        else:
            assert events_fd is not None
            answer = study.carry_out(task, events_fd).model_dump_json()
    _write(answer_fd, answer)
    # tearing down CUDA, thread pools and compile workers can hang or crash after the work is done
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # a model may have closed or replaced it
            stream.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
