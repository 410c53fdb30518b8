"""Stopping: the three signals, from the first moment of a process to its last, and what libraries make of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from support.runner import a_run, gone, wait_for
from vheatbench import stop
from vheatbench.ab import interpreter
from vheatbench.errors import StoreError, UserError

ROOT = Path(__file__).parents[1]


def sent(number: int) -> None:
    """To this process; when this returns, its handler has run."""
    os.kill(os.getpid(), number)
    time.sleep(0.01)


def ended(work: Callable[[], object], kept: str = "") -> int:
    """The exit code of what is carried out as a command is."""
    with pytest.raises(SystemExit) as end, stop.heeded(), stop.stoppable(lambda: kept):
        work()
    assert isinstance(end.value.code, int)
    return end.value.code


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_every_signal_ends_with_its_code_and_one_line(
    capsys: pytest.CaptureFixture[str], number: signal.Signals, code: int
) -> None:
    before = [signal.getsignal(one) for one in stop.SIGNALS]
    assert ended(lambda: sent(number), "3 of 4 are safe") == code
    assert capsys.readouterr().err == "interrupted: 3 of 4 are safe\n"
    assert [signal.getsignal(one) for one in stop.SIGNALS] == before


def test_what_nobody_answers_is_answered_last(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end, stop.heeded():
        sent(signal.SIGTERM)
    assert end.value.code == 143
    assert capsys.readouterr().err == "interrupted\n"


def test_an_error_that_a_library_makes_of_it_is_it() -> None:
    def pybind() -> None:
        try:
            sent(signal.SIGTERM)
        except KeyboardInterrupt:
            raise ImportError("initialization failed") from None

    assert ended(pybind) == 143


@pytest.mark.parametrize("error", [UserError("bad"), StoreError("no space"), ValueError("own")])
def test_other_errors_pass(error: Exception) -> None:
    with pytest.raises(type(error)), stop.heeded(), stop.stoppable(lambda: "kept"):
        raise error


def test_a_disk_that_fills_while_it_ends_is_said() -> None:
    def full() -> None:
        try:
            sent(signal.SIGINT)
        except KeyboardInterrupt:
            raise StoreError("no space") from None

    with pytest.raises(StoreError), stop.heeded(), stop.stoppable():
        full()


def test_the_same_signal_twice_is_one_wish_and_later_another(monkeypatch: pytest.MonkeyPatch) -> None:
    now, stops = [100.0], []
    monkeypatch.setattr(stop.time, "monotonic", lambda: now[0])

    def stubborn() -> None:
        for after in (0.0, 0.1, 5.0):
            now[0] = 100.0 + after
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                for _ in range(1000):
                    pass
            except KeyboardInterrupt:
                stops.append(after)

    with stop.heeded():
        stubborn()
    assert stops == [0.0, 5.0]


def test_one_of_several_processes_speaks(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    assert ended(lambda: sent(signal.SIGTERM), "checkpoint kept") == 143
    assert capsys.readouterr().err == ""


def test_a_forked_process_ends_without_a_word(capfd: pytest.CaptureFixture[str]) -> None:
    """As those of torch's data loader."""
    with stop.heeded():
        child = os.fork()
        if not child:
            try:
                sent(signal.SIGHUP)
            finally:
                os._exit(0)
        status = os.waitpid(child, 0)[1]
    assert os.waitstatus_to_exitcode(status) == 129
    assert capfd.readouterr().err == ""


def test_a_signal_of_the_same_wish_changes_nothing_at_the_end(tmp_path: Path) -> None:
    code = (
        "import os, signal, time\nfrom vheatbench import stop\nstop.leave_quietly()\n"
        "try:\n    with stop.heeded():\n        os.kill(os.getpid(), signal.SIGTERM)\n        time.sleep(5)\n"
        "finally:\n    os.kill(os.getpid(), signal.SIGHUP)\n    time.sleep(0.05)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (143, "interrupted\n")


def test_a_run_gets_its_name_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = a_run(tmp_path, [])
    link = os.link

    def stopped(source: Path, target: Path) -> None:
        link(source, target)
        sent(signal.SIGTERM)

    monkeypatch.setattr(os, "link", stopped)
    assert ended(writer.finish) == 143
    assert [path.suffix for path in tmp_path.iterdir()] == [".jsonl"]
    assert writer.path.suffix == ".jsonl"


def test_what_an_installation_started_ends_with_it(tmp_path: Path) -> None:
    def install() -> None:
        script = f"sleep 600 & echo $! > {tmp_path}/child.new; mv {tmp_path}/child.new {tmp_path}/child; wait"
        threading.Thread(target=stop_once_there).start()
        interpreter._run(["sh", "-c", script])

    def stop_once_there() -> None:
        while not (tmp_path / "child").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    assert ended(install) == 130
    wait_for(lambda: gone(int((tmp_path / "child").read_text())))


def test_ignored_signals_stay_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop.heeded(), stop.deferred():
            sent(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def stopped_while_importing(module: str, number: int, folder: Path, *arguments: str) -> tuple[int, str]:
    """Exit code and stderr of the command that is stopped in the import of a module, which makes an error of it."""
    (folder / f"{module}.py").write_text(
        f"import os, time\ntry:\n    os.kill(os.getpid(), {int(number)})\n    time.sleep(10)\n"
        "except BaseException:\n    raise ImportError('initialization failed') from None\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "vheatbench", *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("module", "number", "arguments"),
    [
        ("typer", signal.SIGINT, ["show"]),  # nothing of the command line is there yet
        ("torch", signal.SIGTERM, ["train", "--config", "digits"]),  # a library that takes seconds to be imported
        ("torch", signal.SIGHUP, ["train", "--config", "digits"]),
    ],
)
def test_the_first_moments_too(tmp_path: Path, module: str, number: signal.Signals, arguments: list[str]) -> None:
    assert stopped_while_importing(module, number, tmp_path, *arguments) == (128 + number, "interrupted\n")
