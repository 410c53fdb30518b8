"""The worker process: arguments are the answer's file descriptor and the runner's id, the task is JSON on stdin.

The answer goes to a file of its own, because models and libraries print what they like on stdout. A third argument is
the descriptor of a pipe for events.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import signal
import sys

from pydantic import TypeAdapter

from vheatbench.run.task import InspectTask, Interim, MeasureTask, PlanTask, StudyTask

PR_SET_PDEATHSIG = 1


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


def main() -> None:
    """Read the task, do it, write the answer."""
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

        def leave(interim: Interim) -> None:
            _write(answer_fd, interim.model_dump_json())

        answer = measure_case(task, leave).model_dump_json()
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
