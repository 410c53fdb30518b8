"""``vheatbench track``: what goes into the history, what comes out of it, and what happens when it is damaged."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from support import forked
from support.records import failed, record
from support.run_files import ENVIRONMENT, entry, write_run
from vheatbench.analysis import changepoint
from vheatbench.analysis.history import entries_of, select, trends_of
from vheatbench.cli import app
from vheatbench.errors import StoreError, UserError
from vheatbench.report.history_section import history_sections
from vheatbench.store import history as store
from vheatbench.store import list_runs, read_run
from vheatbench.store.history import HistoryEntry, add_to_history, history_path, read_history, thinned
from vheatbench.store.pytest_benchmark import read_pytest_benchmark

ROOT = Path(__file__).parents[2]


def wobble(number: int) -> float:
    """Noise of a percent without a generator."""
    return 1 + 0.01 * ((number * 7919) % 101 - 50) / 50


def slower_after(number: int, of: int, factor: float = 1.2) -> list[HistoryEntry]:
    return [entry(i, 0.1 * wobble(i) * (factor if i >= number else 1)) for i in range(of)]


@pytest.fixture
def call(tmp_path, monkeypatch):
    """``vheatbench ARGUMENTS`` in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return lambda *arguments: CliRunner().invoke(app, [*map(str, arguments)])


# A run as an entry


def test_an_entry_holds_what_the_run_measured(tmp_path):
    one, two = record("vheat-t", 224, 0.1), failed("vit-s", 1024, "oom", "out of memory")
    run = read_run(write_run(tmp_path, [one, two]))
    (made,) = entries_of(run)
    assert (made.run_id, made.device, made.file) == ("aaaa0001", "cpu", run.path.name)
    assert (made.commit, made.branch, made.dirty) == ("c0ffee" + "0" * 34, "", False)
    assert made.machine == "A processor (2 cores)"
    case = made.cases[one.case_id]
    assert case.label == one.case.label
    assert case.readings["latency_s"] == (0.1, 0.1 * 0.99, 0.1 * 1.01, 1)
    assert case.readings["macs"][0] == one.metrics["macs"].value
    assert made.metrics["macs"].deterministic
    assert made.metrics["latency_s"].direction == "lower"
    assert (made.cases[two.case_id].status, made.cases[two.case_id].readings) == ("oom", {})


def test_rounds_are_one_reading(tmp_path):
    records = [record("vheat-t", 224, latency, round=i) for i, latency in enumerate((0.1, 0.3, 0.2))]
    (made,) = entries_of(read_run(write_run(tmp_path, records, rounds=3)))
    value, low, high, n = made.cases[records[0].case_id].readings["latency_s"]
    assert (value, n) == (0.2, 3)
    assert low <= 0.1 < 0.3 <= high


def test_one_entry_for_each_device(tmp_path):
    environment = {**ENVIRONMENT, "gpus": [{"name": "A GPU"}, {"name": "A GPU"}]}
    records = [record("vheat-t", 224, 0.1), record("vheat-t", 224, 0.01, case={"device": "cuda"})]
    cpu, cuda = entries_of(read_run(write_run(tmp_path, records, environment=environment)))
    assert (cpu.device, cuda.device) == ("cpu", "cuda")
    assert cuda.machine == "2 x A GPU"
    assert cpu.fingerprint != cuda.fingerprint
    assert list(cuda.cases) == [records[1].case_id]


def test_branch_and_commit_of_options_win(tmp_path):
    dirty = {**ENVIRONMENT, "code": {"commit": "abc", "dirty": True}}
    run = read_run(write_run(tmp_path, [record("vheat-t", 224, 0.1)], environment=dirty))
    (made,) = entries_of(run)
    assert made.dirty
    (made,) = entries_of(run, branch="main", commit="def")
    assert (made.branch, made.commit, made.dirty) == ("main", "def", False)


@pytest.mark.parametrize(
    ("project", "expected"),
    [({"commit": "abc", "dirty": True}, ("abc", True)), ({"commit": "abc", "dirty": False}, ("abc", False)),
     (None, ("", False))],
)  # fmt: skip
def test_the_measured_projects_commit_counts_and_not_vheatbenchs(tmp_path, project, expected):
    for name in ("vheatbench", "code"):  # whatever else the environment says
        environment = {**ENVIRONMENT, "project": project, name: {"commit": "its own", "dirty": True}}
        run = read_run(write_run(tmp_path / name, [record("vheat-t", 224, 0.1)], environment=environment))
        (made,) = entries_of(run)
        assert (made.commit, made.dirty) == expected
    (old,) = entries_of(read_run(write_run(tmp_path / "old", [record("vheat-t", 224, 0.1)])))
    assert old.commit == ENVIRONMENT["code"]["commit"], "runs from before it was recorded read as they did"


def test_other_machine_other_fingerprint(tmp_path):
    other = {**ENVIRONMENT, "cpu": {"name": "Another", "affinity_cores": 2}}
    runs = [
        read_run(write_run(tmp_path / name, [record("vheat-t", 224, 0.1)], environment=environment))
        for name, environment in (("a", ENVIRONMENT), ("b", other), ("c", {**ENVIRONMENT, "host": "elsewhere"}))
    ]
    a, b, c = (entries_of(run)[0].fingerprint for run in runs)
    assert a == c != b


def test_what_cannot_be_an_entry(tmp_path):
    unfinished = read_run(write_run(tmp_path, [record("vheat-t", 224, 0.1)], finish=False))
    with pytest.raises(UserError, match=r"unfinished.*--resume"):
        entries_of(unfinished)
    empty = read_run(write_run(tmp_path / "empty", []))
    with pytest.raises(UserError, match="no records"):
        entries_of(empty)
    mixed = write_run(tmp_path / "m", [record("vheat-t", 224, 0.1)], environment={**ENVIRONMENT, "mixed": {"cpu": 1}})
    with pytest.raises(UserError, match="merged from"):
        entries_of(read_run(mixed))
    records = [record("vheat-t", 224, 0.1), record("vheat-t", 448, 0.1)]
    records[1].metrics["latency_s"].unit = "ms"
    with pytest.raises(UserError, match="in s and in ms"):
        entries_of(read_run(write_run(tmp_path / "units", records)))


# The file


def test_entries_come_back_as_they_went_in_and_by_time(tmp_path):
    entries = slower_after(5, 9)
    for one in reversed(entries):
        add_to_history(tmp_path, [one])
    history = read_history(tmp_path)
    assert history.path == tmp_path / "history.jsonl"
    assert history.entries == entries
    assert history.problems == []


def test_adding_twice_does_nothing(tmp_path):
    first = add_to_history(tmp_path, [entry(1, 0.1)])
    before = (tmp_path / "history.jsonl").read_bytes()
    again = add_to_history(tmp_path, [entry(1, 0.2), entry(2, 0.1), entry(2, 0.1)])
    assert [one.run_id for one in first.entries] == ["run00001"]
    assert [one.run_id for one in again.entries] == ["run00002"]
    assert [one.run_id for one in again.known] == ["run00001", "run00002"]
    assert (tmp_path / "history.jsonl").read_bytes().startswith(before)
    assert len(read_history(tmp_path).entries) == 2


def test_times_are_utc_whatever_was_written():
    for text in ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05.678901", "2026-01-02T04:04:05+01:00"):
        assert entry(1, 0.1, when=text).when == "2026-01-02T03:04:05+00:00"


DAMAGED = [
    (b'{"line":"history","run_id":"x"', "Invalid JSON"),
    (b"\xff\xfe", "Invalid JSON"),
    (b"[]", "Input should be an object"),
    (b'{"line":"header"}', "line"),
    (b'{"line":"history","version":99,"new":1}', "newer vheatbench (history version 99)"),
    (b"[" * 100_000, "Invalid JSON"),
    (entry(7, 0.1).model_dump_json().replace("0.1,", "NaN,", 1).encode(), "finite"),
    (entry(7, 0.1).model_dump_json().replace("0.1,", "1e999,", 1).encode(), "finite"),
    (entry(7, 0.1).model_dump_json().replace("T00:00", "T99:00", 1).encode(), "when"),
    (
        entry(7, 0.1).model_dump_json().replace('"metrics":{"latency_s"', '"metrics":{"other"').encode(),
        "without a unit",
    ),
    (entry(7, 0.1).model_dump_json().replace('"ok"', '"fine"').encode(), "status"),
]


@pytest.mark.parametrize(("text", "reason"), DAMAGED)
def test_a_damaged_line_is_set_aside_and_named(tmp_path, text, reason):
    path = tmp_path / "history.jsonl"
    add_to_history(path, [entry(1, 0.1)])
    with path.open("ab") as file:
        file.write(text + b"\n")
    add_to_history(path, [entry(2, 0.1)])
    history = read_history(path)
    assert [one.run_id for one in history.entries] == ["run00001", "run00002"]
    (problem,) = history.problems
    assert problem.startswith(f"{path}:2: ")
    assert reason in problem
    assert "\n" not in problem
    assert len(problem) < 500 + len(str(path))


def test_a_line_that_a_crash_cut_off_costs_no_other(tmp_path):
    path = tmp_path / "history.jsonl"
    add_to_history(path, [entry(1, 0.1), entry(2, 0.1)])
    path.write_bytes(path.read_bytes()[:-40])
    done = add_to_history(path, [entry(2, 0.1), entry(3, 0.1)])
    assert [one.run_id for one in done.entries] == ["run00002", "run00003"]
    history = read_history(path)
    assert [one.run_id for one in history.entries] == ["run00001", "run00002", "run00003"]
    assert [problem.startswith(f"{path}:2: ") for problem in history.problems] == [True]


def test_the_same_run_twice_in_a_file_is_named(tmp_path):
    path = tmp_path / "history.jsonl"
    add_to_history(path, [entry(1, 0.1)])
    path.write_bytes(path.read_bytes() * 2)  # two branches that both added it, merged
    history = read_history(path)
    assert len(history.entries) == 1
    assert "run00001 on cpu again" in history.problems[0]


def test_a_full_disk_leaves_the_history_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "history.jsonl"
    add_to_history(path, [entry(1, 0.1)])
    before = path.read_bytes()
    write = os.write

    def half(fd, data):
        if len(data) < 100:
            raise OSError(28, "No space left on device")
        return write(fd, data[: len(data) // 2])

    monkeypatch.setattr(store.os, "write", half)
    with pytest.raises(StoreError, match="No space left"):
        add_to_history(path, [entry(2, 0.1)])
    assert path.read_bytes() == before


def test_names_that_are_not_utf8_are_kept_readable(tmp_path):
    one = entry(1, 0.1, suite="a\udc80b \u202e \n <x>")
    add_to_history(tmp_path, [one])
    history = read_history(tmp_path)
    assert history.problems == []
    assert history.entries[0].suite == "a?b \u202e \n <x>"


def test_no_history_and_no_place_for_one(tmp_path):
    with pytest.raises(UserError, match="track add"):
        read_history(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write the history"):
        add_to_history(tmp_path / "file" / "history.jsonl", [entry(1, 0.1)])
    assert history_path(tmp_path) == history_path(tmp_path / "history.jsonl")
    assert history_path("new") == Path("new/history.jsonl")


def test_writers_take_turns(tmp_path):
    path = tmp_path / "history.jsonl"
    add_to_history(path, [entry(0, 0.1)])
    with path.open("rb") as holder:
        fcntl.flock(holder, fcntl.LOCK_SH)  # others may read, nobody may write
        other = threading.Thread(target=add_to_history, args=(path, [entry(1, 0.1)]))
        other.start()
        time.sleep(0.2)
        assert len(read_history(path).entries) == 1
        fcntl.flock(holder, fcntl.LOCK_UN)
        other.join(10)
    assert len(read_history(path).entries) == 2


def test_processes_at_once_lose_nothing(tmp_path):
    code = (
        "import sys; from vheatbench.store.history import *; from support.run_files import entry\n"
        "first = int(sys.argv[2])\n"
        "for i in range(first, first + 40): add_to_history(sys.argv[1], [entry(i, 0.1), entry(1000, 0.1)])"
    )
    variables = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
    }
    running = [
        forked.Popen([sys.executable, "-c", code, str(tmp_path), str(first)], env=variables) for first in (0, 100)
    ]
    assert [process.wait(120) for process in running] == [0, 0]
    history = read_history(tmp_path)
    assert history.problems == []
    assert sorted(one.run_id for one in history.entries) == sorted(
        f"run{i:05}" for i in [*range(40), *range(100, 140), 1000]
    )


def test_the_history_is_no_run(tmp_path):
    run = write_run(tmp_path, [record("vheat-t", 224, 0.1)])
    add_to_history(tmp_path, [entry(1, 0.1)])
    assert list_runs(tmp_path) == [run]


def test_many_readings_are_thinned_evenly():
    assert thinned([3.0, 1.0, 2.0]).model_dump() == {"of": 3, "values": [3.0, 1.0, 2.0]}
    kept = thinned(list(range(1000)), most=10)
    assert kept.of == 1000
    assert kept.values == [0, 111, 222, 333, 444, 555, 666, 777, 888, 999]


# Trends


def test_trends_are_by_branch_machine_case_and_metric():
    entries = [
        entry(0, 0.1), entry(1, 0.2), entry(2, 0.3, branch="other"), entry(3, 0.4, fingerprint="e" * 12),
        entry(4, 0.5, metrics={"latency_s": {"unit": "ms", "direction": "lower"}}),
    ]  # fmt: skip
    found = trends_of(entries)
    assert [trend.values for trend in found] == [[0.1, 0.2], [0.3], [0.4], [0.5]]
    assert [trend.branch for trend in found] == ["main", "other", "main", "main"]
    assert found[3].unit == "ms"


def test_filters():
    entries = [entry(0, 0.1), entry(1, 0.2, branch="other"), entry(2, 0.3, fingerprint="e" * 12, machine="Big GPU")]

    def values(**filters):
        return [value for trend in trends_of(entries, **filters) for value in trend.values]

    assert values(branch="other") == [0.2]
    assert values(machine="eee") == values(machine="big gpu") == [0.3]
    assert values(case="heat-t") == values(case="vheat*224") == values(case="case00000001") == [0.1, 0.2, 0.3]
    assert values(case="heat-t*448") == values(metrics=["macs"]) == values(branch="") == []
    assert values(metrics=["peak_*", "lat*"]) == [0.1, 0.2, 0.3]
    assert [one.run_id for one in select(entries, branch="main", machine="A proc")] == ["run00000"]


def test_the_usual_value_forgets_what_was_before_a_change():
    (trend,) = trends_of(slower_after(20, 40))
    (change,) = trend.changes
    assert change.index == 20
    assert trend.worsens(change)
    assert trend.usual == pytest.approx(0.12, rel=0.01)
    assert abs(trend.against_usual) < 0.02
    (fresh,) = trends_of(slower_after(39, 40))
    assert fresh.changes == []
    assert fresh.against_usual == pytest.approx(0.2, abs=0.03)
    assert trends_of([entry(0, 0.1)])[0].against_usual is None


def test_directions_of_changes():
    faster = slower_after(20, 40, factor=0.8)
    for one in faster:
        one.metrics["latency_s"].direction = "lower"
    (trend,) = trends_of(faster)
    assert not trend.worsens(trend.changes[0])
    (trend,) = trends_of([_with_direction(one, "higher") for one in faster])
    assert trend.worsens(trend.changes[0])
    (trend,) = trends_of([_with_direction(one, "neutral") for one in faster])
    assert not trend.worsens(trend.changes[0])


def _with_direction(one: HistoryEntry, direction: str) -> HistoryEntry:
    return one.model_copy(update={"metrics": {"latency_s": store.TrackedMetric(unit="s", direction=direction)}})


def test_one_multiply_add_more_is_a_change_at_once():
    exact = {"macs": {"unit": "MAC/image", "direction": "lower", "deterministic": True}}
    entries = [
        entry(i, 0.1, metrics=exact, cases={"c": {"label": "x", "readings": {"macs": (1e9 + (i == 3), None, None, 1)}}})
        for i in range(4)
    ]
    (trend,) = trends_of(entries)
    assert [change.index for change in trend.changes] == [3]
    assert trend.worsens(trend.changes[0])


def test_a_failure_is_a_result():
    oom = {"case00000001": {"label": "vheat-t 224", "status": "oom"}}
    (trend,) = trends_of([entry(0, 0.1), entry(1, 0.1, cases=oom)])
    assert (trend.status, len(trend.points)) == ("oom", 1)
    (never,) = trends_of([entry(1, 0.1, cases=oom)])
    assert (never.status, never.points, never.usual) == ("oom", (), None)


# The command


def test_add_and_show(call, tmp_path):
    for i in range(3):
        write_run(
            tmp_path / "results", [record("vheat-t", 224, 0.1 + i / 100)], f"run{i}", f"2026-01-0{i + 1}T00:00:00Z"
        )
    done = call("track", "add", "run0", "run1", "--branch", "main")
    assert done.exit_code == 0, done.output
    assert done.stdout == "results/history.jsonl\n"
    assert "added 20260101T000000Z-smoke-h-run0.jsonl: 1 cases, branch main, c0ffee000000" in done.stderr
    again = call("track", "add", "run1", "latest", "--branch", "main")
    assert again.exit_code == 0
    assert "run1.jsonl (cpu) is in the history already: nothing added" in again.stderr
    assert "run2.jsonl" in again.stderr
    shown = call("track", "show")
    assert shown.exit_code == 0
    assert "branch main on A processor (2 cores)" in shown.stdout
    assert "120.0 ms" in shown.stdout
    assert "105.0 ms" in shown.stdout
    assert "+14.3 %" in shown.stdout
    assert call("show", "latest").exit_code == 0  # the history is no run


def test_show_warns_of_a_change_and_exits_0(call, tmp_path):
    add_to_history(tmp_path / "results", slower_after(20, 40))
    shown = call("track", "show")
    assert shown.exit_code == 0
    assert shown.stderr.startswith("! vheat-t 224 on A processor (2 cores): latency_s +2")
    assert f"at {20:08x}00 (" in shown.stderr
    faster = call("track", "show", "--results", _history(tmp_path / "faster", slower_after(20, 40, 0.8)))
    assert faster.stderr == ""
    assert "−19.9 %" in faster.stdout


def _history(folder: Path, entries) -> Path:
    folder.mkdir()
    add_to_history(folder, entries)
    return folder / "history.jsonl"


def test_show_as_json(call, tmp_path):
    add_to_history(tmp_path / "results", slower_after(20, 40))
    (tmp_path / "results" / "history.jsonl").open("a").write("damaged\n")
    shown = call("track", "show", "--json", "--case", "vheat-t", "--machine", "ffff", "--branch", "main")
    content = json.loads(shown.stdout)
    (trend,) = content["trends"]
    assert len(trend["points"]) == 40
    assert trend["points"][3]["value"] == pytest.approx(0.1 * wobble(3))
    assert [change["index"] for change in trend["changes"]] == [20]
    assert trend["changes"][0]["worse"]
    assert trend["changes"][0]["commit"] == f"{20:08x}" + "0" * 32
    assert "history.jsonl:41" in content["problems"][0]
    assert "! " in shown.stderr
    assert "history.jsonl:41" in shown.stderr


def test_show_what_is_not_there(call, tmp_path):
    result = call("track", "show")
    assert isinstance(result.exception, UserError)
    add_to_history(tmp_path / "results", slower_after(20, 40))
    for wrong in (["--branch", "nope"], ["--metric", "nope"], ["--case", "nope"], ["--machine", "nope"]):
        result = call("track", "show", *wrong)
        assert isinstance(result.exception, UserError), wrong
        assert "40 entries; branches: main; machines: A processor (2 cores)" in str(result.exception)
    assert "latency_s" in call("track", "show", "--metric", "all").stdout


def test_show_failures(call, tmp_path):
    oom = {"case00000001": {"label": "vheat-t 224", "status": "oom"}}
    add_to_history(tmp_path / "results", [entry(0, 0.1), entry(1, 0.1, cases=oom)])
    assert "oom (before: 100.0 ms)" in call("track", "show").stdout


def test_add_bad_input(call, tmp_path):
    write_run(tmp_path / "results", [record("vheat-t", 224, 0.1)])
    for arguments, words in (
        ((), "nothing to add"),
        (("nope",), "no run named 'nope'"),
        (("--pytest-benchmark", "nope.json"), "cannot read nope.json"),
    ):
        result = call("track", "add", *arguments)
        assert isinstance(result.exception, UserError), arguments
        assert words in str(result.exception)
    assert not (tmp_path / "results" / "history.jsonl").exists()


def test_branch_of_the_checkout_if_it_is_the_commit(call, tmp_path):
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org", "-C", str(tmp_path)]
    subprocess.run(["git", "init", "-q", "-b", "topic", str(tmp_path)], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "one"], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    here = {**ENVIRONMENT, "project": {"commit": commit, "dirty": False}}
    write_run(tmp_path / "results", [record("vheat-t", 224, 0.1)], "here", environment=here)
    write_run(tmp_path / "results", [record("vheat-t", 224, 0.1)], "elsewhere")
    done = call("track", "add", "here", "elsewhere")
    assert "here.jsonl: 1 cases, branch topic" in done.stderr
    assert "elsewhere.jsonl: 1 cases, no branch (name one with --branch)" in done.stderr
    assert [one.branch for one in read_history("results").entries] == ["topic", ""]


def test_as_a_process(tmp_path):
    write_run(tmp_path / "results", [record("vheat-t", 224, 0.1)])
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}

    def vheatbench(*arguments):
        command = [sys.executable, "-m", "vheatbench", *arguments]
        return forked.run(command, env=variables, cwd=tmp_path, capture_output=True, text=True, timeout=120)

    assert vheatbench("track", "add", "latest", "--branch", "main").returncode == 0
    assert vheatbench("track", "show", "--json").returncode == 0
    wrong = vheatbench("track", "show", "--results", "nowhere")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.count("\n") == 1
    assert "Traceback" not in wrong.stderr


# pytest-benchmark


def benchmark_file(path: Path, benchmarks=None, **changes) -> Path:
    content = {
        "machine_info": {
            "node": "host", "processor": "x86_64", "machine": "x86_64", "system": "Linux", "release": "6.1",
            "python_implementation": "CPython", "python_version": "3.11.7",
            "cpu": {"brand_raw": "A processor", "count": 2, "arch": "X86_64", "hz_actual": [2_600_000_000, 0]},
        },
        "commit_info": {"id": "c" * 40, "time": "2026-01-01T00:00:00Z", "dirty": True, "branch": "main"},
        "benchmarks": [a_benchmark()] if benchmarks is None else benchmarks,
        "datetime": "2026-01-02T03:04:05.678901+00:00", "version": "5.1.0", **changes,
    }  # fmt: skip
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def a_benchmark(name="test_a[1]", data=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6), **changes):
    stats = {"median": 0.35, "rounds": 6, "iterations": 1, "min": 0.1, **({"data": list(data)} if data else {})}
    return {"name": name, "fullname": f"benchmarks/test_x.py::{name}", "stats": stats, "extra_info": {}, **changes}


def test_pytest_benchmark_as_an_entry(tmp_path):
    made = read_pytest_benchmark(benchmark_file(tmp_path / "a.json")).entry
    assert (made.branch, made.commit, made.dirty, made.device) == ("main", "c" * 40, True, "cpu")
    assert (made.when, made.machine) == ("2026-01-02T03:04:05+00:00", "A processor (2 cores)")
    name = "pytest:benchmarks/test_x.py::test_a[1]"
    assert list(made.cases) == [name]
    value, low, high, n = made.cases[name].readings["latency_s"]
    assert (value, low, high, n) == (pytest.approx(0.35), 0.1, 0.6, 6)
    assert made.cases[name].samples["latency_s"].values == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]


def test_pytest_benchmark_without_raw_data_and_with_extras(tmp_path):
    extra = {"ratio": {"wall": 1.5, "wall_low": 1.4, "wall_high": 1.6, "name": "x"}, "size": 224, "ok": True, "m": "t"}
    made = read_pytest_benchmark(benchmark_file(tmp_path / "a.json", [a_benchmark(data=None, extra_info=extra)])).entry
    (case,) = made.cases.values()
    assert case.readings == {
        "latency_s": (0.35, None, None, 6),
        "extra:ratio.wall": (1.5, 1.4, 1.6, 1),
        "extra:size": (224.0, None, None, 1),
    }
    assert case.samples == {}
    assert made.metrics["extra:size"].direction == "neutral"


def test_pytest_benchmark_fingerprint(tmp_path):
    one = json.loads(benchmark_file(tmp_path / "a.json").read_text())

    def fingerprint(**machine):
        return read_pytest_benchmark(
            benchmark_file(tmp_path / "b.json", machine_info={**one["machine_info"], **machine})
        ).entry.fingerprint

    same = fingerprint()
    assert same == fingerprint(node="other", release="7", python_version="3.11.9")
    assert same == fingerprint(cpu={**one["machine_info"]["cpu"], "hz_actual": [1, 0]})
    others = [fingerprint(python_version="3.12.1"), fingerprint(cpu={"brand_raw": "B"}), fingerprint(torch="2.15")]
    assert len({same, *others}) == 4


def test_pytest_benchmark_detached_or_unversioned(tmp_path):
    info = {"id": "unversioned", "time": None, "dirty": False, "branch": "(unknown)"}
    made = read_pytest_benchmark(benchmark_file(tmp_path / "a.json", commit_info=info)).entry
    assert (made.branch, made.commit) == ("", "")
    made = read_pytest_benchmark(tmp_path / "a.json", branch="main", commit="abc").entry
    assert (made.branch, made.commit) == ("main", "abc")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not JSON"), ("{}", "not written by pytest-benchmark"), ("[]", "not written by pytest-benchmark"),
        ('{"benchmarks": []}', "no benchmark"), ('{"benchmarks": [1]}', "benchmark 0 cannot be read"),
        ('{"benchmarks": [{"fullname": "a", "stats": {"median": 0, "rounds": 1}}]}', "a time of 0"),
        ('{"benchmarks": [{"fullname": "a", "stats": {"median": NaN, "rounds": 1}}]}', "a time of nan"),
        ('{"benchmarks": [{"fullname": "a", "stats": {"data": [1, NaN, 2]}}]}', "a cannot be read"),
        ('{"benchmarks": [{"fullname": "a", "stats": {"data": [1' + "0" * 400 + "]}}]}", "a cannot be read"),
        ('{"benchmarks": [{"fullname": "a", "stats": {"median": 1, "rounds": 1}}]}', "isoformat"),
    ],
)  # fmt: skip
def test_bad_pytest_benchmark_files(tmp_path, text, words):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(UserError, match=words) as raised:
        read_pytest_benchmark(path)
    assert "\n" not in str(raised.value)


def test_what_cannot_be_read_is_left_out_by_name(tmp_path, call):
    bad = [
        a_benchmark("test_zero", data=[0.0], extra_info={"only_here": 1}), {"name": "x"}, 7,
        a_benchmark("test_huge", extra_info={"n": 10**400}),
    ]  # fmt: skip
    path = benchmark_file(tmp_path / "a.json", [bad[0], a_benchmark("test_b"), *bad[1:], a_benchmark("test_c")])
    made, problems = read_pytest_benchmark(path)
    assert [label.split("::")[1] for label in made.cases] == ["test_b", "test_c"]
    assert list(made.metrics) == ["latency_s"]
    assert len(problems) == 4
    assert "benchmarks/test_x.py::test_zero cannot be read and is left out: a time of 0.0 s" in problems[0]
    assert "benchmark 2 cannot be read" in problems[1]
    added = call("track", "add", "--pytest-benchmark", path)
    assert added.exit_code == 0
    assert added.stderr.count("is left out") == 4
    assert "2 cases" in added.stderr


@pytest.mark.parametrize(("id_", "commit"), [("c" * 40, "c" * 40), ("unversioned", ""), ("unknown", "")])
def test_the_commit_of_pytest_benchmark_needs_no_time(tmp_path, id_, commit):
    path = benchmark_file(tmp_path / "a.json", commit_info={"id": id_, "time": None, "branch": "main"})
    assert read_pytest_benchmark(path).entry.commit == commit


def test_two_benchmarks_of_one_name(tmp_path):
    with pytest.raises(UserError, match="two benchmarks are named"):
        read_pytest_benchmark(benchmark_file(tmp_path / "a.json", [a_benchmark(), a_benchmark()]))


def test_what_pytest_benchmark_really_writes(tmp_path, call):
    (tmp_path / "test_b.py").write_text(
        "def test_sum(benchmark):\n    benchmark.pedantic(sum, args=(range(1000),), rounds=300)\n"
    )
    options = ["-q", "-p", "no:cacheprovider", "--benchmark-json=b.json"]
    command = [sys.executable, "-m", "pytest", *options, "test_b.py"]
    # a benchmark that believes itself within a parallel test run measures nothing
    alone = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    done = subprocess.run(command, cwd=tmp_path, env=alone, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout
    added = call("track", "add", "--pytest-benchmark", "b.json", "--branch", "main")
    assert added.exit_code == 0, added.output
    shown = call("track", "show", "--case", "test_sum")
    assert "pytest:test_b.py::test_sum" in shown.stdout
    (only,) = read_history("results").entries
    (case,) = only.cases.values()
    assert 0 < case.readings["latency_s"][0] < 1
    assert len(case.samples["latency_s"].values) <= 200 < case.samples["latency_s"].of
    again = call("track", "add", "--pytest-benchmark", "b.json", "--branch", "main")
    assert "nothing added" in again.stderr


# On the page


def test_the_section_shows_every_trend_and_marks_changes(tmp_path):
    add_to_history(tmp_path, [*slower_after(20, 40), entry(50, 0.1, branch="lonely")])
    (tmp_path / "history.jsonl").open("a").write("damaged\n")
    (section,) = history_sections(read_history(tmp_path), "r0")
    assert section.title == "History of branch main on A processor (2 cores)"
    (chart,) = section.charts
    assert chart.svg.startswith("<svg")
    assert len(chart.rows) == 40
    assert "with changes of +2" in chart.text
    assert f"at {20:08x}00" in chart.text
    every, changes = section.tables
    assert every.rows[0][:2] == ("vheat-t 224, latency (ms)", "40")
    assert changes.rows[0][2] == "worse"
    assert any("history.jsonl:42" in note for note in section.notes)
    ids = [section.id, chart.id, every.id, changes.id]
    assert len(set(ids)) == 4
    assert all(id_.startswith("r0") for id_ in ids)


def test_a_section_of_many_cases_draws_those_that_changed_first(tmp_path):
    def cases(i):
        return {
            f"c{k:011}": {"label": f"model-{k} <b>$x$</b>", "readings": {
                "latency_s": (0.1 * wobble(i + k) * (1.3 if k == 29 and i >= 20 else 1), None, None, 1)}}
            for k in range(30)
        }  # fmt: skip

    add_to_history(tmp_path, [entry(i, 0.1, cases=cases(i)) for i in range(40)])
    (section,) = history_sections(read_history(tmp_path), "r0")
    assert [len({row[0] for row in chart.rows}) for chart in section.charts] == [6, 6, 6, 6]
    assert section.charts[0].rows[0][0].startswith("model-29")
    assert len(section.tables[0].rows) == 30
    assert any("24 of 30 cases" in note for note in section.notes)
    assert "<b>" not in "".join(chart.svg for chart in section.charts)


def test_no_section_of_a_single_run(tmp_path):
    add_to_history(tmp_path, [entry(0, 0.1)])
    assert history_sections(read_history(tmp_path), "r0") == []


def test_series_of_one_length_share_one_null(monkeypatch):
    # what makes hundreds of trends cheap
    lengths = []
    maxima = changepoint._maxima
    monkeypatch.setattr(changepoint, "_maxima", lambda ranks, seed: lengths.append(len(ranks)) or maxima(ranks, seed))
    changepoint._null.cache_clear()
    for k in range(20):
        generator = np.random.default_rng(k)
        values = generator.standard_normal(60) * 0.01 + np.where(np.arange(60) < 30, 1, 1.2)
        assert len(changepoint.change_points(list(values))) >= 1
    assert lengths.count(60) == 1
