"""What is seen of a command's progress: the forecast, lines in a log, a bar on a terminal, nothing."""

from __future__ import annotations

import io
import re

import pytest

from support.clock import Clock
from vheatbench.present import progress
from vheatbench.present.progress import Bar, Display, Lines, display


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_the_rest_takes_as_long_as_what_was_done_here_and_counts_down(clock: Clock) -> None:
    shown = Display()
    shown.update(0.2, "2/10")  # done before this command
    assert shown.place == "2/10 0:00"
    clock.now += 60
    shown.update(0.5, "5/10")
    assert shown.place == "5/10 1:00, about 1:40 left"
    clock.now += 30
    assert shown.place == "5/10 1:30, about 1:10 left"
    clock.now += 3600
    assert shown.place == "5/10 1:01:30, about 0:00 left"
    shown.update(1.0, "10/10")
    assert shown.place == "10/10 1:01:30"


def test_time_begins_when_the_work_does(clock: Clock) -> None:
    shown = Display()
    clock.now += 100
    assert not shown.begun
    with shown:
        shown.update(0.0, "0/2")
        clock.now += 5
        assert shown.place == "0/2 0:05"
    assert shown.begun


def test_a_log_gets_what_has_ended_and_every_so_often_what_is_going_on(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    silent_between, often = Lines(None), Lines(10.0)
    for shown in (silent_between, often):
        shown.update(0.1, "1/10", "first")
        shown.update(0.2, "2/10", "at once")
        clock.now += 11
        shown.update(0.3, "3/10", "later")
        shown.line("a case", "timeout: [red]x[/]", "timeout")
        shown.update(1.0, "10/10", "last")
        found = [line.split(" ", 2)[2] for line in capsys.readouterr().err.splitlines()]
        said = [re.sub(r"\[(\S+) .*?\] ", r"\1 ", line, count=1) for line in found]
        ended = "3/10 a case: timeout: [red]x[/]"
        assert said == ([ended] if shown is silent_between else ["1/10 first", "3/10 later", ended, "10/10 last"])


def test_a_terminal_gets_a_bar_and_a_quiet_command_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("COLUMNS", "100")
    with display(quiet=True) as shown:
        shown.update(0.5, "1/2", "one")
        shown.line("one", "2 ms")
    assert screen.getvalue() == ""
    with display(quiet=False) as shown:
        assert isinstance(shown, Bar)
        shown.update(0.25, "1/4", "[b]two[/x]")
        shown.line("one[/x]", "failed: [y]", "failed")
        (row,) = shown._progress.tasks
        assert (row.completed, row.description) == (0.25, "[b]two[/x]")
    seen = screen.getvalue()
    assert "1/4 0:00" in seen
    assert "[b]two[/x]" in seen
    assert "one[/x]  " in seen
    assert "failed: [y]" in seen
