"""Forked processes are what subprocess's are: streams, folder, environment, signals, exit codes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support import forked

SAY = (
    "import os, sys; print(sys.stdin.read().upper(), os.getcwd(), os.environ.get('SAID'), sys.argv[1:]); "
    "print('caf\\xe9', file=sys.stderr); sys.exit(int(sys.argv[1]))"
)


@pytest.mark.parametrize("run", [subprocess.run, forked.run])
def test_streams_folder_environment_and_exit_code(run, tmp_path: Path) -> None:
    done = run(
        [sys.executable, "-c", SAY, "7", "two words"],
        cwd=tmp_path, env={"SAID": "yes"}, input="in", capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 7
    assert done.stdout == f"IN {tmp_path} yes ['7', 'two words']\n"
    assert done.stderr == "caf\xe9\n"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import sys; sys.exit('gone')", (1, "", "gone\n")),
        ("import os; os.kill(os.getpid(), 9)", (-9, "", "")),
        ("import atexit; atexit.register(print, 'late'); print('early')", (0, "early\nlate\n", "")),
        ("import threading; print(threading.main_thread() is threading.current_thread())", (0, "True\n", "")),
        ("import os; os._exit(5)", (5, "", "")),
    ],
)
def test_ends(code: str, expected: tuple[int, str, str]) -> None:
    done = forked.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == expected


def test_an_exception_is_a_traceback() -> None:
    done = forked.run([sys.executable, "-c", "1 / 0"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.endswith("ZeroDivisionError: division by zero\n")


def test_what_is_stopped_waited_for_and_asked_meanwhile() -> None:
    code = "import time; print('here', flush=True); time.sleep(600)"
    with forked.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"here\n"
        assert process.poll() is None
        assert os.getsid(process.pid) == process.pid
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.01)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == -signal.SIGTERM
        assert process.poll() == -signal.SIGTERM


def test_two_at_a_time_do_not_wait_for_each_other() -> None:
    code = "import sys; print(sys.stdin.readline())"
    command = [sys.executable, "-c", code]
    options: dict = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with forked.Popen(command, **options) as first, forked.Popen(command, **options) as second:
        assert second.communicate("second")[0] == "second\n"
        assert first.communicate("first")[0] == "first\n"


def raise_the_mask() -> None:
    os.umask(0o77)


def test_a_function_before_the_command() -> None:
    code = "import os; print(oct(os.umask(0)))"
    done = forked.run([sys.executable, "-c", code], capture_output=True, text=True, preexec_fn=raise_the_mask)
    assert done.stdout == "0o77\n"


def test_the_package_as_a_module(tmp_path: Path) -> None:
    done = forked.run([sys.executable, "-m", "vheatbench", "show", "nothing"], cwd=tmp_path, capture_output=True)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"vheatbench: ")
