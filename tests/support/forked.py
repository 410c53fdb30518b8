"""Python processes that start at once: ``forked.run`` and ``forked.Popen`` in place of subprocess's.

A command such as ``[sys.executable, "-m", "vheatbench", "show"]`` takes seconds, most of them to import torch. Here a
fork of the test process as it was before the first test (:func:`prepare`) carries it out: a process of its own, with
its own streams, working directory, environment, signals and exit code, but with everything imported. What the start
of the interpreter itself decides (its flags, what a command imports, how the streams are encoded at a closed
terminal) needs the real one.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import fcntl
import io
import json
import os
import pickle
import runpy
import select
import signal
import socket
import subprocess
import sys
import traceback
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from vheatbench.run.worker import PR_SET_PDEATHSIG

_server: socket.socket | None = None
_LARGEST = 2**20
inside = False
"""Whether this process is a fork."""


def prepare() -> None:
    """Fork the process that all others are forked from: called once, when all tests are collected and none has run."""
    global _server
    if _server is not None:
        return
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _LARGEST)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads of pytest-xdist, which hold no lock of ours
        pid = os.fork()
    if not pid:
        try:
            _serve(theirs, ours)
        finally:
            os._exit(1)
    theirs.close()
    _server = ours


class Popen(subprocess.Popen):
    """``subprocess.Popen`` of a command that begins with ``sys.executable`` and goes on with ``-m``, ``-c`` or a file.

    ``preexec_fn`` is a function of a module. The process ends when the one that has started it does.
    """

    peak_rss_bytes: int | None = None

    def _execute_child(  # type: ignore[override]
        self, args: Any, executable: Any, preexec_fn: Any, close_fds: Any, pass_fds: Any, cwd: Any, env: Any,
        startupinfo: Any, creationflags: Any, shell: Any,
        p2cread: int, p2cwrite: int, c2pread: int, c2pwrite: int, errread: int, errwrite: int,
        restore_signals: Any, *others: Any,
    ) -> None:  # fmt: skip
        assert _server is not None, "forked.prepare was not called"
        python, *words = map(os.fsdecode, args)
        assert python == sys.executable, args
        request = {
            "words": words,
            "folder": os.fsdecode(cwd or os.getcwd()),
            "environment": dict(os.environ if env is None else env),
            "session": bool(others[4]),
            "fds": [0, 1, 2, *pass_fds],
            "first": pickle.dumps(preexec_fn).hex(),
        }
        self._status, theirs = os.pipe()
        streams = [0 if p2cread == -1 else p2cread, 1 if c2pwrite == -1 else c2pwrite]
        streams.append(2 if errwrite == -1 else errwrite)
        try:
            socket.send_fds(_server, [json.dumps(request).encode()], [*streams, *pass_fds, theirs])
        finally:
            os.close(theirs)
            self._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)  # type: ignore[attr-defined]
        self.pid = int(self._read())
        self._child_created = True

    def _read(self) -> bytes:
        """The next line that the process which waits for this one has written."""
        line = b""
        while not line.endswith(b"\n"):
            data = os.read(self._status, 1)
            assert data, "the process that forks has ended"
            line += data
        return line

    def _internal_poll(self, _deadstate: int | None = None, **_: Any) -> int | None:  # type: ignore[override]
        if self.returncode is None and self._child_created:  # type: ignore[has-type]
            pid, status = self._try_wait(os.WNOHANG)
            if pid:
                self._handle_exitstatus(status)  # type: ignore[attr-defined]
        return self.returncode

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        if wait_flags & os.WNOHANG and not select.select([self._status], [], [], 0)[0]:
            return 0, 0
        status, peak = map(int, self._read().split())
        self.peak_rss_bytes = peak * 1024
        os.close(self._status)
        return self.pid, status


def run(
    command: list[Any],
    *,
    input: Any = None,
    capture_output: bool = False,
    timeout: float | None = None,
    check: bool = False,
    **options: Any,
) -> subprocess.CompletedProcess:
    """As ``subprocess.run``."""
    if capture_output:
        options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    if input is not None:
        options["stdin"] = subprocess.PIPE
    with Popen(command, **options) as process:
        try:
            out, err = process.communicate(input, timeout=timeout)
        except BaseException:
            process.kill()
            raise
    done = subprocess.CompletedProcess(command, process.returncode, out, err)
    if check:
        done.check_returncode()
    return done


# In the process that forks


def _serve(requests: socket.socket, asks: socket.socket) -> NoReturn:
    """Fork one process for every request, until the tests end; the forks may ``ask`` too."""
    global _server, inside
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.setsid()
    _server, inside = asks, True
    _close_but({0, 1, 2, requests.fileno(), asks.fileno()})
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    atexit._clear()
    if "multiprocessing.util" in sys.modules:
        atexit.register(sys.modules["multiprocessing.util"]._exit_function)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that wait
    while True:
        message, fds, _, _ = socket.recv_fds(requests, _LARGEST, 16)
        request = json.loads(message)
        if not os.fork():
            requests.close()
            _wait_for_one(request, fds)
        for fd in fds:
            os.close(fd)


def _wait_for_one(request: Mapping[str, Any], fds: list[int]) -> NoReturn:
    """Fork the process, tell its number, wait for it and tell how it ended."""
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        *given, told = fds
        pid = os.fork()
        if not pid:
            _be(request, given, told)
        for fd in given:
            os.close(fd)
        ends = select.poll()
        ends.register(os.pidfd_open(pid), select.POLLIN)
        ends.register(told, 0)  # only whether nobody reads it any more
        if any(fd == told for fd, _ in ends.poll()):
            os.kill(pid, signal.SIGKILL)
        _, status, usage = os.wait4(pid, 0)
        with contextlib.suppress(BrokenPipeError):
            os.write(told, f"{status} {usage.ru_maxrss}\n".encode())
    finally:
        os._exit(0)


def _be(request: Mapping[str, Any], given: list[int], told: int) -> NoReturn:
    """Be the process that was asked for, and end as it ends."""
    global _server
    code = 1
    try:
        if request["session"]:
            os.setsid()
        os.write(told, f"{os.getpid()}\n".encode())
        # out of the way first: what one is to be called another may be called still
        assert _server is not None
        _server = socket.socket(fileno=fcntl.fcntl(_server.detach(), fcntl.F_DUPFD_CLOEXEC, 900))
        above = [fcntl.fcntl(fd, fcntl.F_DUPFD, 900) for fd in given]
        for target, fd in zip(request["fds"], above, strict=True):
            os.dup2(fd, target)
        _close_but({*request["fds"], _server.fileno()})
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        os.environ.clear()
        os.environ.update(request["environment"])
        os.chdir(request["folder"])
        _open_streams()
        _use_threads()
        if first := pickle.loads(bytes.fromhex(request["first"])):
            first()
        if request["words"][:2] == ["-m", "torch.distributed.run"]:
            from torch.distributed.elastic.multiprocessing.subprocess_handler import subprocess_handler

            subprocess_handler.Popen = Popen  # the processes that it starts are forks too
        code = _code_of(request["words"])
    finally:
        os._exit(code)


def _code_of(words: list[str]) -> int:
    """Carry out what stands behind ``python``; the exit code."""
    if words[0] == "-u":
        words = words[1:]
    own = [folder for folder in sys.path if not folder.startswith(str(Path(__file__).parents[1]))]
    sys.path[:] = [*filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)), *own]
    code: object = 0
    try:
        if words[0] == "-m":
            sys.path.insert(0, os.getcwd())
            sys.argv = words[1:]
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        elif words[0] == "-c":
            sys.path.insert(0, "")
            sys.argv = ["-c", *words[2:]]
            exec(compile(words[1], "<string>", "exec"), {"__name__": "__main__"})
        else:
            sys.path.insert(0, str(Path(words[0]).parent))
            sys.argv = words
            runpy.run_path(words[0], run_name="__main__")
    except SystemExit as end:
        code = end.code
        if code is not None and not isinstance(code, int):
            print(code, file=sys.stderr)
            code = 1
    except KeyboardInterrupt:
        code = 130
    except BaseException:
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
    except OSError:
        code = 120
    return int(code or 0) & 255


def _close_but(kept: set[int]) -> None:
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in kept:
            with contextlib.suppress(OSError):
                os.close(int(name))


def _open_streams() -> None:
    """As Python opens them when it starts."""
    encoding, _, errors = os.environ.get("PYTHONIOENCODING", "").partition(":")
    for fd, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        wanted = "backslashreplace" if fd == 2 else errors or "strict"
        raw = open(fd, mode + "b", closefd=False)  # noqa: SIM115
        stream = io.TextIOWrapper(raw, encoding or "utf-8", wanted, line_buffering=fd == 2 or os.isatty(fd))
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _use_threads() -> None:
    """OpenMP has read its variable in the process that forks."""
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if "torch" in sys.modules and threads.isdecimal():
        sys.modules["torch"].set_num_threads(int(threads))
