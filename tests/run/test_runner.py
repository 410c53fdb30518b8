"""The runner and its worker processes, with stub workers that need no torch: every way to end, on every device."""

from __future__ import annotations

import itertools
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from support import forked, stub_worker
from support.fake_pynvml import FakeGpu, FakePynvml
from support.runner import PATIENCE_S, a_case, gone, run_all, wait_for
from support.stub_worker import PYTHONPATH, a_suite, measured
from vheatbench.errors import StoreError, WorkerError
from vheatbench.run import executor as executor_module
from vheatbench.run import process
from vheatbench.run.executor import Executor, Seat, StoppedError, worker_environment
from vheatbench.run.process import Worker
from vheatbench.run.runner import inspect_machine
from vheatbench.run.task import MeasureTask
from vheatbench.store import Record, Run, RunWriter, read_run
from vheatbench.suites import SuitePolicy


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stub workers in this process's runner; the folder where they leave traces."""
    monkeypatch.setattr(process, "WORKER", "support.stub_worker")
    monkeypatch.setattr(process, "_Process", forked.Popen)
    monkeypatch.setenv("STUB", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tmp_path


# How a worker ends


@pytest.mark.parametrize(
    ("subject", "end", "reason"),
    [
        ("killed", "crashed", "the worker process was killed by SIGKILL: last words"),
        ("exits", "crashed", "the worker process ended with code 3: rubbish on stdout"),
        ("leaves", "crashed", "the worker process ended with code 1: gone fishing"),
        ("silent", "crashed", "the worker process ended with code 0: rubbish on stdout"),
        ("raises", "crashed", "the worker process ended with code 1: RuntimeError: no such luck"),
        ("well", "answered", ""),
    ],
)
def test_every_end_of_a_worker_has_its_reason(stub: Path, subject: str, end: str, reason: str) -> None:
    outcome = Worker().run(MeasureTask(case=a_case(subject)), PATIENCE_S)
    assert (outcome.end, outcome.reason) == (end, reason)
    if end == "answered":
        assert Record.model_validate_json(outcome.answer).status == "ok"


def test_what_a_signal_ended_from_outside_is_not_done(stub: Path) -> None:
    with pytest.raises(WorkerError, match=r"told 32 .* killed by SIGTERM.* does not count as measured"):
        run_all(stub, [a_case("well"), a_case("told")], ["cpu"])
    (partial,) = stub.glob("*.partial")
    assert [record.case.subject for record in read_run(partial).records] == ["well"]


def test_who_sees_a_worker_killed_in_a_job_waits_whether_the_job_is_meant(
    stub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(process, "_outlive", waits.append)
    assert Worker().run(MeasureTask(case=a_case("killed")), PATIENCE_S).end == "crashed"
    assert waits == []
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert Worker().run(MeasureTask(case=a_case("killed")), PATIENCE_S).end == "crashed"
    assert waits == [process.LAST_MOMENT_S]


def test_what_fails_while_its_job_is_ended_is_not_done(stub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    executor = Executor(SuitePolicy(), "cpu")
    failed = executor.measure(Seat(a_case("fails"), 0))
    monkeypatch.setattr(executor_module.time, "sleep", lambda seconds: executor.stop())
    with pytest.raises(StoppedError):
        executor.check_still_wanted([failed])


def test_every_record_says_where_it_was_measured(stub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VHEATBENCH_HOST", "a-host")
    monkeypatch.setitem(sys.modules, "pynvml", FakePynvml([FakeGpu(uuid="GPU-b", bus=2), FakeGpu(uuid="GPU-a", bus=1)]))
    plan = [a_case("well").model_copy(update={"device": "cuda"}), a_case("exits").model_copy(update={"device": "cuda"})]
    for record in run_all(stub / "1", plan, ["cuda:1"]).records:
        assert record.conditions["host"] == "a-host"
        assert record.conditions["gpu_uuid"] == "GPU-b"
        assert "slurm" not in record.conditions
    for name, value in (("JOB_ID", "7"), ("ARRAY_JOB_ID", "5"), ("ARRAY_TASK_ID", "2"), ("RESTART_COUNT", "1")):
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setenv("SLURMD_NODENAME", "node3")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    for record in run_all(stub / "2", plan, ["cuda:0"]).records:
        assert record.conditions["gpu_uuid"] == "GPU-a"
        assert record.conditions["slurm"] == {
            "node": "node3", "job_id": "7", "array_job_id": "5", "array_task_id": "2", "restart_count": "1"
        }  # fmt: skip


def test_killed_while_the_kernel_ran_out_of_memory_is_out_of_memory(
    stub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kills = itertools.count()
    monkeypatch.setattr(process, "_oom_kills", lambda: next(kills))
    record = run_all(stub, [a_case("killed")], ["cpu"]).records[0]
    assert (record.status, record.reason) == ("oom", "killed by the kernel: out of host memory")
    # A crash of its own making is not the kernel's doing, whatever happens elsewhere on the machine.
    outcome = Worker().run(MeasureTask(case=a_case("exits")), PATIENCE_S)
    assert outcome.end == "crashed"


def test_memory_that_runs_out_beside_the_allocator_is_out_of_memory(stub: Path) -> None:
    plan = [a_case(name) for name in ("threadless", "full", "roomy")]
    threadless, full, roomy = run_all(stub, plan, ["cpu"]).records
    assert (threadless.status, full.status, roomy.status) == ("oom", "oom", "failed")
    assert threadless.reason == "out of memory: the worker process ended with code 1: bye"
    assert full.reason is not None
    assert "SIGSEGV" in full.reason


def test_a_worker_that_ends_after_the_measurement_leaves_the_measurement(
    stub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kills = itertools.count()
    monkeypatch.setattr(process, "_oom_kills", lambda: next(kills))
    measured, dawdles = run_all(stub, [a_case("measured"), a_case("dawdles")], ["cpu"], timeout_s=8.0).records
    for record, why in ((measured, "out of host memory"), (dawdles, "over its time limit")):
        assert (record.status, record.reason) == ("ok", None)
        assert record.metrics["latency_s"].value == 0.002
        assert why in record.warnings[-1]


@pytest.mark.parametrize(("subject", "limit", "warning"), [("dies", 20, "SIGSEGV"), ("grows", 10, "as asked")])
def test_the_largest_batch_is_one_that_lets_the_measurement_end(
    stub: Path, subject: str, limit: int, warning: str
) -> None:
    case = a_case(subject).model_copy(update={"batch": "largest"})
    (record,) = run_all(stub, [case], ["cpu"], max_batch=limit).records
    assert record.status == "ok"
    assert record.metrics["largest_batch"].value == 8
    assert sum(warning in text for text in record.warnings) >= 1


def test_over_its_time_a_worker_goes_with_everything_it_started(stub: Path) -> None:
    for timeout_s in (2.0, 10.0, PATIENCE_S):  # until it was quick enough to start its child
        outcome = Worker().run(MeasureTask(case=a_case("sleeps")), timeout_s)
        assert (outcome.end, outcome.reason) == ("timeout", f"over its time limit of {timeout_s:g} s")
        if (stub / "child").exists():
            break
    wait_for(lambda: gone(int((stub / "child").read_text())))


def test_what_a_worker_left_running_is_ended_after_its_answer(stub: Path) -> None:
    outcome = Worker().run(MeasureTask(case=a_case("orphan")), PATIENCE_S)
    assert outcome.end == "answered"
    wait_for(lambda: gone(int((stub / "child").read_text())))


def test_stop_ends_a_worker_now_or_before_it_starts(stub: Path) -> None:
    (stub / "hold").touch()
    worker, ends = Worker(), []
    thread = threading.Thread(target=lambda: ends.append(worker.run(MeasureTask(case=a_case("held"))).end))
    thread.start()
    wait_for(lambda: list(stub.glob("pid-*")))
    worker.stop()
    thread.join(PATIENCE_S)
    assert ends == ["stopped"]
    assert worker.run(MeasureTask(case=a_case("well"))).end == "stopped"
    assert [entry[1] for entry in measured(stub)] == ["held"]


def test_a_module_in_the_working_directory_does_not_replace_pythons(
    stub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("random", "inspect", "typing", "vheatbench"):
        (stub / f"{name}.py").write_text("raise SystemExit('not me')")
    monkeypatch.chdir(stub)
    assert Worker().run(MeasureTask(case=a_case("well")), PATIENCE_S).end == "answered"


def test_a_machine_that_cannot_be_inspected_is_one_line(stub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "WORKER", "no_such_module")
    with pytest.raises(WorkerError, match=r"cannot|could not be inspected: .*ModuleNotFoundError.*no_such_module"):
        inspect_machine([])


# Records


def test_whatever_a_worker_answers_the_run_goes_on(stub: Path) -> None:
    subjects = ["garbage", "well", "holes", "unkeepable", "stranger", "exits"]
    run = run_all(stub, [a_case(subject) for subject in subjects], ["cpu"])
    assert run.complete
    assert not run.problems
    statuses = {record.case.subject: record.status for record in run.records}
    assert statuses == dict.fromkeys(subjects, "failed") | {"well": "ok"}
    for record in run.records:
        assert record.reason is None or "\n" not in record.reason
        assert record.elapsed_s > 0
        assert not record.metrics or record.status == "ok"


def test_a_short_time_limit_makes_every_case_a_timeout(stub: Path) -> None:
    (stub / "hold").touch()
    run = run_all(stub, [a_case("held"), a_case("held", batch=2)], ["cpu"], timeout_s=0.3)
    assert [record.status for record in run.records] == ["timeout", "timeout"]
    assert run.records[0].reason == "over its time limit of 0.3 s"


def test_a_run_that_cannot_be_written_ends_and_takes_its_workers_along(
    stub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (stub / "hold").touch()

    def full(self: RunWriter, record: Record) -> None:
        wait_for(lambda: list(stub.glob("pid-*")))
        raise StoreError("no space")

    monkeypatch.setattr(RunWriter, "append", full)
    plan = [a_case("held", device="cuda"), a_case("well", device="cuda"), a_case("exits", device="cuda")]
    with pytest.raises(StoreError, match="no space"):
        run_all(stub, plan, ["cuda:0", "cuda:1"])
    (pid,) = [int(path.name.split("-")[1]) for path in stub.glob("pid-*")]
    wait_for(lambda: gone(pid))
    assert {entry[1] for entry in measured(stub)} == {"held", "well"}


# Order and devices


def test_one_device_keeps_the_order_and_runs_odd_rounds_backwards(stub: Path) -> None:
    plan = [a_case("well", batch=batch) for batch in (1, 2, 3)]
    run_all(stub, plan, ["cpu"], rounds=2)
    order = [(case_id, int(round_)) for event, _, case_id, round_, _ in measured(stub) if event == "start"]
    forwards = [case.id for case in plan]
    assert order == [(i, 0) for i in forwards] + [(i, 1) for i in reversed(forwards)]


def test_two_devices_work_side_by_side_and_never_two_on_one(stub: Path) -> None:
    plan = [a_case("meet", device="cuda"), a_case("meet", device="cuda", batch=2)]
    plan += [a_case("well", device="cuda", batch=batch) for batch in range(1, 7)]
    run = run_all(stub, plan, ["cuda:0", "cuda:2"])
    assert run.complete
    busy: dict[str, str] = {}
    used = set()
    for event, _, case_id, _, gpu in measured(stub):
        if event == "start":
            assert gpu not in busy
            busy[gpu] = case_id
            used.add(gpu)
        else:
            assert busy.pop(gpu) == case_id
    assert used == {"0", "2"}
    assert {r.conditions["device_index"] for r in run.records} == {"0", "2"}
    assert {r.conditions["devices_side_by_side"] for r in run.records} == {2}


@pytest.mark.parametrize(
    ("visible", "device", "expected"),
    [
        (None, "cuda:1", "1"),
        ("", "cuda:1", "1"),
        ("3,5", "cuda:0", "3"),
        ("3,5", "cuda:1", "5"),
        ("3, 5,", "cuda:1", "5"),
        ("GPU-8f6d,GPU-11aa", "cuda:1", "GPU-11aa"),
        ("MIG-41b3d9f1-0000-5d2b-8b67-17f8c1a6ae07", "cuda:0", "MIG-41b3d9f1-0000-5d2b-8b67-17f8c1a6ae07"),
    ],
)
def test_a_worker_sees_only_its_gpu(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, device: str, expected: str
) -> None:
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert worker_environment(device, SuitePolicy()) == {
        "CUDA_VISIBLE_DEVICES": expected,
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    }
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
    assert worker_environment(device, SuitePolicy())["CUDA_DEVICE_ORDER"] == "FASTEST_FIRST"


def test_threads_reach_every_library(monkeypatch: pytest.MonkeyPatch) -> None:
    assert worker_environment("cpu", SuitePolicy()) == {}
    assert worker_environment("cpu", SuitePolicy(threads=3)) == {"OMP_NUM_THREADS": "3", "MKL_NUM_THREADS": "3"}


# Cut short and taken up again, through the command line


class Command:
    """``vheatbench`` with stub workers as a process of its own, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.suite = a_suite(folder, "well", "held")
        self.environment = {**os.environ, "STUB": str(folder), "PYTHONPATH": PYTHONPATH}

    def start(self, *arguments: str, **options: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "support.stub_worker", "run", "--device", "cpu", *arguments]
        return forked.Popen(
            command,
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # a job of its own, as a shell makes it
            **options,  # type: ignore[call-overload]
        )

    def until_held(self) -> tuple[subprocess.Popen[str], int]:
        """A run of its suite that hangs in the first case of ``held``, and the worker's pid."""
        (self.folder / "hold").touch()
        run = self.start("--suite", self.suite)
        wait_for(lambda: list(self.folder.glob("pid-*")) or run.poll() is not None)
        assert run.poll() is None, run.communicate()
        (path,) = self.folder.glob("pid-*")
        return run, int(path.name.split("-")[1])

    def end(self, run: subprocess.Popen[str]) -> tuple[int, str, str]:
        out, err = run.communicate(timeout=PATIENCE_S)
        return run.returncode, out, err

    @property
    def partial(self) -> Path:
        (path,) = (self.folder / "results").glob("*.partial")
        return path

    def resume(self, name: str = "latest") -> Run:
        """Resume without obstacles; the finished run, in which nothing was measured twice."""
        before = read_run(self.partial).done
        (self.folder / "log").unlink(missing_ok=True)
        (self.folder / "hold").unlink(missing_ok=True)
        code, _, err = self.end(self.start("--resume", name))
        assert code == 0, err
        (path,) = (self.folder / "results").iterdir()
        run = read_run(path)
        assert run.complete
        assert not run.problems
        measured_now = {(entry[2], int(entry[3])) for entry in measured(self.folder) if entry[0] == "start"}
        assert measured_now == run.done - before
        assert len(run.records) == len(run.done) == 4
        return run


@pytest.fixture
def command(tmp_path: Path) -> Command:
    folder = tmp_path / "a folder with spaces"
    folder.mkdir()
    return Command(folder)


def test_a_killed_runner_leaves_no_worker_and_a_run_that_resumes(command: Command) -> None:
    command.environment["SPAWN"] = "so that the kernel ends the worker, not what forks in tests"
    run, worker = command.until_held()
    run.kill()
    assert command.end(run)[0] == -signal.SIGKILL
    wait_for(lambda: gone(worker))
    kept = read_run(command.partial)
    assert len(kept.problems) == 1
    assert "unfinished run" in kept.problems[0]
    assert len(kept.done) < 4
    resumed = command.resume()
    assert [r for r in resumed.records if (r.case_id, r.round) in kept.done] == kept.records


# Ctrl-C goes to the whole job, as does the end of its terminal; a cluster's end of job to its first process
@pytest.mark.parametrize(
    ("number", "send"), [(signal.SIGINT, os.killpg), (signal.SIGTERM, os.kill), (signal.SIGHUP, os.killpg)]
)
def test_a_stopped_run_says_how_to_go_on(
    command: Command, number: signal.Signals, send: Callable[[int, int], None]
) -> None:
    run, worker = command.until_held()
    send(run.pid, number)
    send(run.pid, number)  # `timeout` and shells send it twice
    code, out, err = command.end(run)
    assert code == 128 + number
    assert out == ""
    assert "Traceback" not in err
    done = len(read_run(command.partial).done)
    hint = err.splitlines()[-2:]
    assert hint[0].startswith(f"interrupted: {done} of 4 cases are safe in results/")
    assert hint[1] == f"continue with: vheatbench run --resume results/{command.partial.name}"
    wait_for(lambda: gone(worker))
    command.resume(f"results/{command.partial.name}")


def ignore_hangup() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def test_nohup_keeps_a_run_from_stopping_with_its_terminal(command: Command) -> None:
    (command.folder / "hold").touch()
    run = command.start("--suite", command.suite, preexec_fn=ignore_hangup)
    wait_for(lambda: list(command.folder.glob("pid-*")) or run.poll() is not None)
    os.kill(run.pid, signal.SIGHUP)
    (command.folder / "hold").unlink()
    assert command.end(run)[0] == 0


def test_ctrl_c_before_the_first_case_leaves_nothing(command: Command) -> None:
    (command.folder / "hold-inspection").touch()
    run = command.start("--suite", command.suite)
    wait_for(lambda: list(command.folder.glob("pid-*")))
    os.killpg(run.pid, signal.SIGINT)
    code, out, err = command.end(run)
    assert (code, out) == (130, "")
    assert "Traceback" not in err
    (path,) = command.folder.glob("pid-*")
    wait_for(lambda: gone(int(path.name.split("-")[1])))
    assert not (command.folder / "results").exists()


def test_a_run_has_one_writer_at_a_time(command: Command) -> None:
    run, _ = command.until_held()
    code, out, err = command.end(command.start("--resume", "latest"))
    assert (code, out) == (2, "")
    assert err.startswith("vheatbench: ")
    assert "is being written by another process" in err
    assert err.count("\n") == 1
    (command.folder / "hold").unlink()
    assert command.end(run)[0] == 0


def limit_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, resource.RLIM_INFINITY))


def test_a_full_disk_ends_the_run_and_keeps_its_records(command: Command) -> None:
    code, out, err = command.end(command.start("--suite", command.suite, "--quiet", preexec_fn=limit_files))
    assert (code, out) == (6, "")
    assert err.count("\n") == 1
    assert err.startswith("vheatbench: cannot write ")
    assert "File too large" in err
    kept = read_run(command.partial)
    assert 0 < len(kept.records) < 4
    assert f"the {len(kept.records)} records before are safe" in err
    command.resume()


def test_a_run_whose_folder_is_removed_stops_and_says_so(command: Command) -> None:
    run, _ = command.until_held()
    done = len(read_run(command.partial).done)
    shutil.rmtree(command.folder / "results")
    (command.folder / "hold").unlink()
    code, out, err = command.end(run)
    assert (code, out) == (6, "")
    assert err.splitlines()[-1].startswith("vheatbench: results/")
    assert f"was removed while the run was written: its {done} records are lost" in err
    assert "safe" not in err
    assert len([entry for entry in measured(command.folder) if entry[0] == "start"]) == done + 1, "it stops at once"


def test_ctrl_c_calls_no_record_safe_that_was_removed(command: Command) -> None:
    run, _ = command.until_held()
    command.partial.unlink()
    os.killpg(run.pid, signal.SIGINT)
    code, out, err = command.end(run)
    assert (code, out) == (6, "")
    assert "was removed while the run was written" in err
    assert "safe" not in err
    assert "Traceback" not in err


def test_resume_refuses_another_environment_and_other_options(command: Command) -> None:
    run, _ = command.until_held()
    run.kill()
    command.end(run)
    for arguments, words in [
        (("--suite", "smoke"), "leave --suite out"),
        (("--batch", "4"), "leave --batch out"),
        (("--shard", "1/2"), "leave --shard out"),
        (("--dry-run",), "leave --dry-run out"),
        (("--fused-attention", "true"), "leave --fused-attention out"),
        (("--devices", "0"), "--devices names GPUs"),
    ]:
        code, out, err = command.end(command.start("--resume", "latest", *arguments))
        assert (code, out, err.count("\n")) == (2, "", 1), err
        assert err.startswith("vheatbench: ")
        assert words in err
    command.environment["STUB_TORCH"] = "2.7"
    code, out, err = command.end(command.start("--resume", "latest"))
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert "was begun in another environment (packages.torch differs)" in err
    del command.environment["STUB_TORCH"]
    command.resume()


def test_a_failed_case_is_exit_code_6_and_a_whole_run(command: Command) -> None:
    code, out, err = command.end(command.start("--model", "well,exits", "--resolution", "32"))
    assert code == 6
    assert "failed: the worker process ended with code 3" in out
    assert "failed: the worker process ended with code 3" in err
    (path,) = (command.folder / "results").glob("*.jsonl")
    assert not read_run(path).problems


def test_gpus_side_by_side_through_the_command_line(tmp_path: Path) -> None:
    command = Command(tmp_path)
    command.environment |= {"STUB_GPUS": "2", "CUDA_VISIBLE_DEVICES": "GPU-a,GPU-b"}
    base = [sys.executable, "-m", "support.stub_worker", "run", "--quiet"]
    options: dict = {"cwd": tmp_path, "env": command.environment, "capture_output": True, "text": True}
    done = forked.run([*base, "--model", "meet", "--resolution", "32,64", "--devices", "all"], **options)
    assert done.returncode == 0, done.stderr
    assert {entry[4] for entry in measured(tmp_path)} == {"GPU-a", "GPU-b"}
    for arguments, words in [
        (("--device", "cuda:2"), "GPU 2 does not exist: torch sees 2 (0 to 1)"),
        (("--devices", "0,7"), "GPU 7 does not exist"),
    ]:
        done = forked.run([*base, "--model", "well", *arguments], **options)
        assert (done.returncode, done.stdout) == (2, "")
        assert words in done.stderr


def test_the_stub_is_as_strict_as_the_worker() -> None:
    """Stub answers pass the same schema, or the tests above would prove little."""
    record = stub_worker.answer_record(a_case("well"), 0)
    assert Record.model_validate_json(record.model_dump_json()) == record


def test_threads_sleep_while_they_wait_unless_the_user_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"):
        monkeypatch.delenv(name, raising=False)
    assert process.calm_threads() == {"OMP_WAIT_POLICY": "PASSIVE"}
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert process.calm_threads() == {}
