"""Live workers that take turns, with stub workers that need no torch: order, fairness, and every way to leave."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from support import forked
from support.runner import a_case, a_run, gone, run_all, wait_for
from support.stub_worker import measured
from vheatbench.run import process
from vheatbench.run.executor import Executor, Seat, StoppedError
from vheatbench.run.progress import Silent
from vheatbench.run.runner import Runner
from vheatbench.run.schedule import Schedule
from vheatbench.run.task import Event, MeasureTask, Turn
from vheatbench.run.turns import MIN_TURNS, orders_of
from vheatbench.store import Record, Run, read_run
from vheatbench.suites import SuitePolicy

QUICK = {"turns": True, "ceiling_s": 0.05, "max_samples": 1000}


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stub workers in this process's runner; the folder where they leave traces."""
    monkeypatch.setattr(process, "WORKER", "support.stub_worker")
    monkeypatch.setattr(process, "_Process", forked.Popen)
    monkeypatch.setenv("STUB", str(tmp_path))
    return tmp_path


def together(folder: Path, *subjects: str, **policy: object) -> dict[str, Record]:
    run = run_all(folder, [a_case(name) for name in subjects], ["cpu"], **{**QUICK, **policy})
    return {record.case.subject: record for record in run.records}


def turns_taken(folder: Path) -> list[str]:
    return [entry[1] for entry in measured(folder) if entry[0] == "turn"]


def test_all_of_a_group_take_turns_one_at_a_time_each_first_as_often_as_last(stub: Path) -> None:
    records = together(stub, "a", "b", "twice")
    (session,) = {record.session for record in records.values()}
    assert session
    for record in records.values():
        assert (record.status, record.warnings) == ("ok", ["noisy: the median is known to ±12% only"])
        assert len(record.samples["latency_s"].turns) >= MIN_TURNS
    taken = turns_taken(stub)
    orders = [tuple(taken[i : i + 3]) for i in range(0, len(taken), 3)]
    assert all(sorted(order) == ["a", "b", "twice"] for order in orders)
    # after the order in which they warmed up, each is followed by itself backwards
    assert all(second == first[::-1] for first, second in zip(orders[1::2], orders[2::2], strict=False))
    events = [(entry[0], entry[1]) for entry in measured(stub)]
    assert {name for _, name in events[:3]} == {"a", "b", "twice"}, "all live before the first turn"
    assert {kind for kind, _ in events[-3:]} == {"end"}, "and until the last"


def test_two_take_turns_as_abba_or_baab() -> None:
    orders = list(itertools.islice(orders_of(2, "seed"), 40))
    assert all(orders[i + 1] == orders[i][::-1] for i in range(0, 40, 2))
    assert len({tuple(order) for order in orders[::2]}) == 2, "which of the two is drawn"
    assert orders != list(itertools.islice(orders_of(2, "other"), 40))


def test_of_many_each_is_as_often_before_another_as_behind_it() -> None:
    before = Counter(
        pair for order in itertools.islice(orders_of(5, "seed"), 100) for pair in itertools.combinations(order, 2)
    )
    assert set(before.values()) == {50}
    assert len(before) == 20


@pytest.mark.parametrize(("subject", "status"), [("dies", "failed"), ("hangs", "timeout")])
def test_one_that_ends_before_its_time_leaves_the_turns_to_the_others(stub: Path, subject: str, status: str) -> None:
    records = together(stub, "a", subject, "b", timeout_s=1.5)
    assert records[subject].status == status
    assert "(in turn 3)" in (records[subject].reason or "")
    for name in ("a", "b"):
        assert records[name].status == "ok"
        assert len(records[name].samples["latency_s"].turns) >= MIN_TURNS
        assert any("from turn 3 on without" in text for text in records[name].warnings)


def test_the_time_limit_is_of_a_case_s_own_turns_together(stub: Path) -> None:
    records = together(stub, "slow", "a", timeout_s=0.9, ceiling_s=60, slow_s=60)
    assert records["slow"].status == "timeout"
    assert "(in turn " in (records["slow"].reason or ""), "each of which is shorter than the limit"
    assert records["a"].status == "ok", "and waiting is no part of it"


def test_a_worker_that_speaks_before_its_start_returns_is_answered(stub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class SlowToReturn(forked.Popen):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            wait_for(lambda: measured(stub))
            time.sleep(0.1)

    monkeypatch.setattr(process, "_Process", SlowToReturn)
    records = together(stub, "a", "b", timeout_s=5)
    assert {record.status for record in records.values()} == {"ok"}


def test_one_that_never_gets_warm_is_a_failure_of_its_own(stub: Path) -> None:
    records = together(stub, "a", "exits", "b")
    assert records["exits"].reason == "the worker process ended with code 3: rubbish on stdout"
    assert [records[name].status for name in ("a", "b")] == ["ok", "ok"]
    assert len(records["a"].warnings) == 1


@pytest.mark.parametrize("subject", ["hungry", "crowds"])
def test_what_does_not_fit_beside_the_others_is_measured_alone_and_says_so(stub: Path, subject: str) -> None:
    run = run_all(stub, [a_case(name) for name in ("a", subject, "b")], ["cpu"], rounds=2, **QUICK)
    alone = [record for record in run.records if record.case.subject == subject]
    assert [(record.status, record.session) for record in alone] == [("ok", None)] * 2
    assert all("measured alone, not in turns with its group" in record.warnings[-1] for record in alone)
    others = [record for record in run.records if record.case.subject != subject]
    assert len({record.session for record in others}) == 2
    starts = Counter(entry[1] for entry in measured(stub) if entry[0] == "start")
    assert starts[subject] == 3, "once beside the others, then alone in both rounds"


@pytest.mark.parametrize(("subjects", "policy"), [(("a",), {}), (("a", "b"), {"turns": False})])
def test_one_alone_and_what_is_not_to_take_turns_samples_in_one_go(
    stub: Path, subjects: tuple[str, ...], policy: dict[str, object]
) -> None:
    records = together(stub, *subjects, **policy)
    assert {record.session for record in records.values()} == {None}
    assert turns_taken(stub) == []


def test_a_slow_one_sets_no_pace_and_needs_no_more_than_its_fewest_samples(stub: Path) -> None:
    records = together(stub, "slow", "a", slow_s=0.1, slow_min_samples=3, min_samples=9)
    slow, quick = (records[name].samples["latency_s"] for name in ("slow", "a"))
    assert slow.turns == [1, 1, 1]
    assert quick.turns == [3, 3, 3]


def test_a_round_that_is_stopped_is_not_there_at_all(stub: Path) -> None:
    (stub / "hold").touch()
    plan = [a_case(name) for name in ("a", "held")]
    with a_run(stub, plan) as writer:
        runner = Runner(writer, SuitePolicy(**QUICK), ["cpu"], Silent())
        halter = threading.Thread(target=lambda: (wait_for(lambda: list(stub.glob("pid-*"))), runner._halt()))
        halter.start()
        assert runner.run(Schedule([plan], 1)) == []
        halter.join()
        assert writer.count == 0
        (pid,) = stub.glob("pid-*")
        wait_for(lambda: gone(int(pid.name.removeprefix("pid-"))))


def test_rounds_count_once_and_have_a_session_each(stub: Path) -> None:
    run = run_all(stub, [a_case("a"), a_case("b")], ["cpu"], rounds=3, **QUICK)
    sessions = Counter(record.session for record in run.records)
    assert sorted(sessions.values()) == [2, 2, 2]
    assert [record.round for record in run.records] == [0, 0, 1, 1, 2, 2]
    assert ["macs" in record.metrics for record in run.records] == [True, True, False, False, False, False]


def test_what_took_turns_is_read_back(stub: Path, tmp_path: Path) -> None:
    together(stub, "a", "b")
    (path,) = tmp_path.glob("*.jsonl")
    run: Run = read_run(path)
    assert run.problems == []
    assert all(sum(r.samples["latency_s"].turns) == len(r.samples["latency_s"].values) for r in run.records)


def test_an_executor_that_was_stopped_starts_nothing(stub: Path) -> None:
    executor = Executor(SuitePolicy(**QUICK), "cpu")
    executor.stop()
    with pytest.raises(StoppedError):
        executor.measure_group([Seat(a_case("a"), 0), Seat(a_case("b"), 0)], "seed")
    assert not os.path.exists(stub / "log")


@pytest.mark.parametrize(
    ("fresh", "device", "forks"), [(False, "cpu", True), (True, "cpu", False), (False, "cuda", False)]
)
def test_timed_cases_are_forked_on_a_cpu_and_never_where_processes_have_to_differ(
    monkeypatch: pytest.MonkeyPatch, fresh: bool, device: str, forks: bool
) -> None:
    monkeypatch.delenv(process.FORK_ALL)
    case = a_case("a", device=device)
    assert process.Worker(fresh=fresh)._forks(MeasureTask(case=case)) is forks
    assert process.Worker(launch=process.Launch(python="other"))._forks(MeasureTask(case=case)) is False


def test_a_worker_that_ends_without_having_heard_all_has_said_what_it_said() -> None:
    events: list[Event] = []
    with process._Line(events.append) as line:
        line.send(Turn(seconds=1.0))
        os.write(line.fileno(), Event(samples=[0.5]).model_dump_json().encode() + b"\n")
    assert [event.samples for event in events] == [[0.5]]
    line.send(Turn())  # to one that is gone
