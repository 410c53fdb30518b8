"""Workers forked from a process that has loaded torch and timm: one begins in a tenth of a second instead of seconds.

For plans, the cases of studies, and timed cases on a CPU. Memory layout and allocators differ between processes that
were started anew, and rounds are how that is seen; forks of one process begin alike. So the rounds of ``ab`` are never
forked. Torch's thread pools and CUDA are started in the forks, never in the process that forks.

The process that forks, one for each process that asks, ends when its socket is closed: when that process ends. Every
fork has a keeper, which waits for it and says how it ended.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from vheatbench.run.worker import die_with_parent, leave_signals_to_runner, work

PRELOADED = ("torch", "timm", "vheatbench.run.study", "vheatbench.run.inspect", "vheatbench.run.measure_case")
"""Modules that most tasks need."""


class Forked:
    """A forked worker; its interface is the part of ``subprocess.Popen`` that waiting for it needs."""

    def __init__(self, status_fd: int) -> None:
        """``status_fd``: a pipe that gives the worker's id, then its exit code and its resident memory in bytes."""
        os.set_blocking(status_fd, False)
        self._status = status_fd
        self._reading = threading.Lock()
        self._said = b""
        self.returncode: int | None = None
        self.peak_rss_bytes: int | None = None
        self.pid = 0
        """0 until it is known; after that, the worker leads a session of its own."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end. Raises ``subprocess.TimeoutExpired``."""
        end = None if timeout is None else time.monotonic() + timeout
        while self.returncode is None:
            left = None if end is None else max(0.0, end - time.monotonic())
            self._read(left)
        return self.returncode

    def _read(self, timeout: float | None) -> None:
        if not select.select([self._status], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired("a forked worker", timeout or 0)
        with self._reading, contextlib.suppress(BlockingIOError):  # another thread was first
            if self.returncode is not None:
                return
            data = os.read(self._status, 4096)
            self._said += data
            pid, newline, rest = self._said.partition(b"\n")
            if newline:
                self.pid = int(pid)
            if not data:
                self._end(rest.split())

    def kill(self) -> None:
        """Kill the worker and what it started, now or as soon as its id is known. Raises ``ProcessLookupError``."""
        while self.returncode is None and not self.pid:
            self._read(None)
        if self.pid:
            os.killpg(self.pid, signal.SIGKILL)

    def _end(self, said: list[bytes]) -> None:
        if len(said) == 2:
            self.returncode, self.peak_rss_bytes = int(said[0]), int(said[1])
        else:  # the keeper was killed, and the worker with it; or there never was one
            self.returncode = -signal.SIGKILL if self.pid else 1

    def __del__(self) -> None:
        os.close(self._status)


class ForkServer:
    """The process that forks, from the side of who asks it."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        """``variables``: of the environment, where libraries read them when they are loaded."""
        mine, its = socket.socketpair()
        code = f"import sys; sys.path[:] = {sys.path!r}; from vheatbench.run.fork import serve; serve()"
        with its:
            self._process = subprocess.Popen(
                [sys.executable, "-c", code, str(its.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(its.fileno(),),
                env={**os.environ, **variables},
                start_new_session=True,
            )
        self._socket = mine
        self._lock = threading.Lock()

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        return self._process.pid

    def start(self, task: bytes, answer: int, log: int, events: int, environment: Mapping[str, str]) -> Forked:
        """Have a worker forked that does ``task``.

        Args:
            task: JSON, as on a worker's stdin.
            answer, log, events: descriptors of files and a pipe; they stay open here.
            environment: all of the worker's variables.

        Raises:
            OSError: the process that forks has ended.
        """
        request = {"environment": dict(environment), "path": sys.path, "folder": str(Path.cwd())}
        ours, theirs = os.pipe()
        with tempfile.TemporaryFile() as file:
            file.write(json.dumps(request).encode() + b"\n" + task)
            file.flush()
            try:
                with self._lock:
                    socket.send_fds(self._socket, [b"!"], [file.fileno(), answer, log, events, theirs])
            except OSError:
                os.close(ours)
                raise
            finally:
                os.close(theirs)
        return Forked(ours)


_servers: dict[int, ForkServer] = {}
_lock = threading.Lock()


def fork_server(variables: Mapping[str, str]) -> ForkServer:
    """The one of this process, started when it is first asked for."""
    with _lock:
        server = _servers.get(os.getpid())
        if server is None or not server.alive:
            server = _servers[os.getpid()] = ForkServer(variables)
        return server


def serve() -> None:
    """The process that forks: load, then fork a keeper and a worker for every request, until there is nobody to ask."""
    leave_signals_to_runner()  # which keepers and workers inherit
    requests = socket.socket(fileno=int(sys.argv[1]))
    trouble = ""
    try:
        for name in PRELOADED:
            importlib.import_module(name)
    except BaseException:
        trouble = traceback.format_exc()
    gc.collect()
    gc.freeze()  # no fork looks at these objects again, which would copy their pages
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # keepers are waited for by nobody
    while True:
        word, descriptors, _, _ = socket.recv_fds(requests, 1, 5)
        if not word:
            os._exit(0)
        server = os.getpid()
        if trouble:
            os.write(descriptors[2], trouble.encode())
        elif os.fork() == 0:
            requests.close()
            _keep(server, *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def _keep(server: int, request: int, answer: int, log: int, events: int, status: int) -> NoReturn:
    """Fork a worker, wait for its end, and say how it was."""
    die_with_parent(server)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    keeper = os.getpid()
    pid = os.fork()
    if pid == 0:
        _work(keeper, request, answer, log, events, status)
    for descriptor in (request, answer, log, events):
        os.close(descriptor)
    _, code, usage = os.wait4(pid, 0)
    # Linux counts in KiB
    os.write(status, b"%d %d" % (os.waitstatus_to_exitcode(code), usage.ru_maxrss * 1024))
    os._exit(0)


def _work(keeper: int, request: int, answer: int, log: int, events: int, status: int) -> NoReturn:
    code = 1
    try:
        os.setsid()  # whoever kills the worker kills what it started
        die_with_parent(keeper)
        os.write(status, b"%d\n" % os.getpid())
        os.close(status)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.lseek(request, 0, os.SEEK_SET)
        with os.fdopen(request, "rb") as file:
            about, task = json.loads(file.readline()), file.read()
        os.environ.clear()
        os.environ.update(about["environment"])
        sys.path[:] = about["path"]
        os.chdir(about["folder"])
        work(task, answer, events)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stderr.flush()
        os._exit(code)
