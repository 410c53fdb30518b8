"""Studies carried out by the runner: every end that a group can have, forked workers, suites that hold studies."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any, get_args

import psutil
import pytest
from typer.testing import CliRunner

from support import stub_study
from vheatbench.case import Mode, TimedMode
from vheatbench.cli import app
from vheatbench.errors import StoreError, UserError, WorkerError
from vheatbench.run.fork import fork_server
from vheatbench.run.process import Worker, calm_threads
from vheatbench.run.progress import Item, RunProgress, Silent
from vheatbench.run.recording import new_header
from vheatbench.run.runner import Runner, inspect_machine, items_of, plan_study
from vheatbench.run.schedule import Schedule
from vheatbench.run.task import Event, StudyTask
from vheatbench.store import Record, Run, RunWriter, read_run
from vheatbench.store.read import begun_runs, list_runs
from vheatbench.studies import STUDIES
from vheatbench.studies.heat.results import point_responses_of
from vheatbench.suites import SuitePolicy


def test_every_mode_is_timed_or_of_a_study() -> None:
    assert {*get_args(TimedMode), *(study.mode for study in STUDIES)} == set(get_args(Mode))


def task_of(name: str, folder: Path) -> StudyTask:
    return StudyTask(
        study="support.stub_study",
        label=name,
        cases=stub_study.cases(name),
        settings={},
        run_path=folder / "run.jsonl.partial",
    )


def carried_out(folder: Path, *names: str, done: int = 0, **policy: Any) -> tuple[Run, list[tuple[str, str]]]:
    """The run of some groups, of which ``done`` cases were there before, and what the progress was told at the end."""
    tasks = [task_of(name, folder) for name in names]
    plan = [case for task in tasks for case in task.cases]
    ends: list[tuple[str, str]] = []

    class Ends(Silent):
        def finished(self, item: Item, status: str, words: str, device: str) -> None:
            ends.append((item.label, words))

    with RunWriter.create(folder, new_header("stub", "", "c", {"host": "h"}, plan=plan)) as writer:
        before = [record for task in tasks for record in stub_study.measure(task, lambda *_: None)] if done else []
        for record in before[:done]:
            writer.append(record)
        Runner(writer, SuitePolicy(**policy), ["cpu"], Ends()).run(Schedule([], 1, tasks, writer.done))
        return read_run(writer.finish()), ends


def test_every_record_of_a_group_is_kept_and_what_is_there_is_not_measured_again(tmp_path: Path) -> None:
    run, ends = carried_out(tmp_path, "well", "fine")
    assert [record.status for record in run.records] == ["ok"] * 4
    assert run.complete
    assert ends == [("well", "all"), ("fine", "all")]
    assert run.records[0].conditions["folder"] == str(Path.cwd())
    run, ends = carried_out(tmp_path / "again", "well", done=1)
    assert [record.case.analysis["part"] for record in run.records] == [1, 2]
    assert len(ends) == 1
    assert carried_out(tmp_path / "all", "well", done=2)[1] == []


@pytest.mark.parametrize(
    ("name", "status", "reason", "policy"),
    [
        ("killed", "failed", "killed by SIGKILL", {}),
        ("noisy", "oom", "MemoryError", {}),
        ("sleeps", "timeout", "over its time limit of 3 s", {"timeout_s": 3.0}),
    ],
)
def test_a_worker_that_ends_loses_only_what_it_had_not_finished(
    tmp_path: Path, name: str, status: str, reason: str, policy: dict[str, Any]
) -> None:
    plan_study("support.stub_study", {"names": ["a"]})  # the process that forks has loaded what it needs
    run, ends = carried_out(tmp_path, name, "well", **policy)
    assert [record.status for record in run.records] == ["ok", status, "ok", "ok"]
    assert reason in (run.records[1].reason or "")
    assert ends[0][1].startswith(f"{status}: ")
    if name == "sleeps":
        child = int((tmp_path / "child").read_text())
        wait_for(lambda: gone(child))
        assert gone(child)


def test_a_disk_that_is_full_ends_the_run_and_stops_the_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    append, refused = RunWriter.append, []

    def full(self: RunWriter, record: Record) -> None:
        if self.count == 1 and not refused:  # there is room again afterwards, which must not hide it
            refused.append(record)
            raise StoreError("no room for the record")
        append(self, record)

    monkeypatch.setattr(RunWriter, "append", full)
    with pytest.raises(StoreError, match="no room for the record"):
        carried_out(tmp_path, "well", "fine")
    (path,) = begun_runs(tmp_path)
    assert len(read_run(path).records) == 1
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize(("name", "error"), [("wrong", UserError), ("full", StoreError)])
def test_what_is_wrong_for_all_of_the_run_ends_it(tmp_path: Path, name: str, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"changed|no room"):
        carried_out(tmp_path, name, "well")
    (path,) = begun_runs(tmp_path)
    assert len(read_run(path).records) == stub_study.HALF


def test_a_worker_that_is_stopped_is_gone_at_once(tmp_path: Path) -> None:
    plan_study("support.stub_study", {"names": ["a"]})  # the process that forks has loaded what it needs
    worker, events = Worker(), []
    timer = threading.Thread(target=lambda: (wait_for(lambda: (tmp_path / "child").exists()), worker.stop()))
    timer.start()
    outcome = worker.run(task_of("sleeps", tmp_path), 60, events.append)
    timer.join()
    assert outcome.end == "stopped"
    assert [type(event) for event in events] == [Event] * 3
    child = int((tmp_path / "child").read_text())
    wait_for(lambda: gone(child))
    assert gone(child)


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def wait_for(condition: Any) -> None:
    end = time.monotonic() + 60
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)


def test_plans_say_what_is_wrong() -> None:
    planned = plan_study("support.stub_study", {"names": ["a", "b"]})
    assert [group.label for group in planned.groups] == ["a", "b"]
    assert planned.notes == ["a note"]
    assert planned.environment["packages"]["torch"]
    with pytest.raises(UserError, match="no such thing"):
        plan_study("support.stub_study", {"names": ["refused"]})
    with pytest.raises(UserError, match="nothing to measure"):
        plan_study("support.stub_study", {"names": []})
    with pytest.raises(WorkerError, match="is broken"):
        plan_study("support.stub_study", {"names": ["broken"]})
    with pytest.raises(WorkerError, match="ValueError: of the model's own"):
        plan_study("support.stub_study", {"names": ["raises"]})


def test_forks_have_the_environment_of_who_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run, _ = carried_out(tmp_path, "well", threads=3)
    conditions = run.records[0].conditions
    assert (conditions["variable"], conditions["folder"]) == ("3", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    run, _ = carried_out(tmp_path / "other", "well")
    assert run.records[0].conditions["variable"] == "1"


def test_workers_leave_the_signals_of_a_job_to_the_runner(tmp_path: Path) -> None:
    run, _ = carried_out(tmp_path, "signalled")
    assert [record.status for record in run.records] == ["ok", "ok"]


def test_the_process_that_forks_is_started_again_when_it_has_died(tmp_path: Path) -> None:
    first = fork_server(calm_threads())
    os.kill(first.pid, signal.SIGKILL)
    wait_for(lambda: not first.alive)
    assert plan_study("support.stub_study", {"names": ["a"]}).groups
    assert fork_server(calm_threads()) is not first


class Shown:
    """What a display was told."""

    def __init__(self) -> None:
        self.last = (0.0, "", "")
        self.lines: list[tuple[str, str, str]] = []

    def update(self, share: float, count: str, now: str = "") -> None:
        self.last = (share, count, now)

    def line(self, label: str, words: str, status: str = "ok") -> None:
        self.lines.append((label, words, status))


def test_progress_counts_groups_and_shows_how_far_they_are(tmp_path: Path) -> None:
    tasks = [task_of(name, tmp_path) for name in ("one", "two")]
    done = {(case.id, 0) for case in tasks[0].cases}
    items, keys = items_of(Schedule([], 1, tasks, done), done)
    assert [item.label for item in items] == ["one", "two"]
    assert keys == {items[0].key}
    shown = Shown()
    progress = RunProgress(items, keys, shown)
    assert shown.last == (0.5, "1/2", "")
    progress.started(items[1], "cpu")
    assert shown.last == (0.5, "1/2", "two")
    progress.told(items[1], "6 of 12", 0.5, "cpu")
    assert shown.last == (0.75, "1/2", "two: 6 of 12")
    assert shown.lines == []
    progress.finished(items[1], "oom", "12 images", "cpu")
    assert shown.last == (1.0, "2/2", "")
    assert shown.lines == [("two", "12 images", "oom")]


# Suites that hold studies

SUITE = """
description: A bit of everything.
studies:
  - heat: {kind: kernel, grid: 6, kt: [1]}
  - heat: {kind: kernel, grid: 8, kt: [1, 5]}
"""


def vheatbench(*words: str) -> Any:
    return CliRunner().invoke(app, list(words))


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_process: None) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "heats.yaml"
    path.write_text(SUITE)
    return path


def test_a_suite_of_studies_is_one_run(suite: Path) -> None:
    shown = vheatbench("run", "--suite", "heats.yaml", "--dry-run")
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.count("heat: point response") == 2
    done = vheatbench("run", "--suite", "heats.yaml")
    assert done.exit_code == 0, done.output
    (path,) = list_runs("results")
    run = read_run(path)
    assert [record.case.size for record in run.records] == ["6", "8", "8"]
    assert [entry.study for entry in run.header.studies] == ["heat", "heat"]
    assert "Heat 1 in one cell" in vheatbench("show", str(path)).stdout


def test_a_suite_of_studies_is_cut_into_shards_and_merged(suite: Path) -> None:
    for part in ("1/2", "2/2"):
        assert vheatbench("run", "--suite", "heats.yaml", "--shard", part).exit_code == 0
    paths = list_runs("results")
    assert sorted(len(read_run(path).records) for path in paths) == [1, 2]
    merged = vheatbench("merge", *map(str, paths), "--out", "merged")
    assert merged.exit_code == 0, merged.output
    (path,) = list_runs("merged")
    run = read_run(path)
    assert len(run.records) == 3
    assert point_responses_of(run)[1] == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("heat kernel --timeout inf", "--timeout: give a finite number"),
        ("heat kernel --memory-limit nan", "--memory-limit: give a finite number"),
        ("run --suite heats.yaml --timeout inf", "--timeout"),
        ("heat kernel --shard 2/2", "--shard 2/2: there are only 1 parts"),
        ("heat kernel --resume latest", "there is no unfinished run of 'heat-kernel'"),
        ("erf --resume heats", "a run of 'heats', not of 'erf'"),
        ("profile --resume heats", "a run of 'heats', not of 'profile'"),
        ("run --resume heats", "there is no study 'heats of old'"),
    ],
)
def test_wrong_input_is_one_line(suite: Path, words: str, message: str) -> None:
    entry = {"study": "heats of old", "settings": {}}
    plan = stub_study.cases("well")
    environment = inspect_machine([]).environment
    with RunWriter.create("results", new_header("heats", "", "c", environment, plan=plan, studies=[entry])) as writer:
        path = writer.path
    done = vheatbench(*words.replace("--resume heats", f"--resume {path}").split())
    assert isinstance(done.exception, UserError), done.output
    assert message in str(done.exception)
    assert "\n" not in str(done.exception)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("studies: [erv: {models: [a]}]", "studies.0.erv: there is no study 'erv'"),
        ("studies: [heat: {kind: kernel, grit: 8}]", "grit is no setting: did you mean 'grid'?"),
        ("studies: [heat: {kind: kernels}]", "kind: Input should be 'diffuse', 'diffusivity' or 'kernel'"),
        ("studies: [heat: {kind: kernel, kt: [-1]}]", "numbers from 0 to 1e+09"),
        ("studies: [erf: {models: []}]", "models: Tuple should have at least 1 item"),
        ("studies: [erf: {models: [test_vheat], resolutions: []}]", "resolutions: Tuple should have at least 1 item"),
        ("studies: [heat: {kind: kernel, kt: []}]", "kt: Tuple should have at least 1 item"),
        ("studies: [heat: {kind: diffusivity, model: test_vheat, rules: []}]", "rules: Tuple should have at least 1"),
        ("studies: [heat: {kind: diffuse, model: test_vheat, k: []}]", "k: Tuple should have at least 1 item"),
        ("studies: [erf: {models: [vheat-x]}]", "unknown model"),
        ("description: nothing", "subjects, studies, or both"),
    ],
)
def test_a_study_that_cannot_be_is_one_line(suite: Path, text: str, message: str) -> None:
    suite.write_text(text)
    done = vheatbench("run", "--suite", "heats.yaml")
    assert isinstance(done.exception, UserError), done.output
    assert message in str(done.exception)
    assert "\n" not in str(done.exception)
    assert not Path("results").exists()
