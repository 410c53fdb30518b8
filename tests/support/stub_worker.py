"""A worker process without torch, which does what its case's subject says: ``run.process.WORKER`` for tests.

``python -m support.stub_worker ARGUMENTS`` is the command line with such workers. The folder ``STUB`` in the
environment holds what is known of them: ``log`` with a line for every start and end, pid files; while the
file ``hold`` is in it, the subject ``held`` does not end. Forked, it forks its workers, unless ``SPAWN`` is in the
environment.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from pydantic import TypeAdapter

from support import forked
from vheatbench.case import Case
from vheatbench.run.task import Event, Forecast, Inspection, InspectTask, Interim, MeasureTask
from vheatbench.run.worker import _Runner, _write, die_with_parent
from vheatbench.store.schema import Metric, Record, Samples

PYTHONPATH = os.pathsep.join([str(Path(__file__).parents[1]), str(Path(__file__).parents[2])])
"""For processes that shall find this module, and the vheatbench beside it."""
HERE = Path()
"""The folder ``STUB``."""


def main() -> None:
    """Like ``vheatbench.run.worker.main``."""
    global HERE
    HERE = Path(os.environ.get("STUB", "."))
    answer_fd, parent = int(sys.argv[1]), int(sys.argv[2])
    if not forked.inside:
        die_with_parent(parent)
    task = TypeAdapter(MeasureTask | InspectTask).validate_json(sys.stdin.buffer.read())
    if isinstance(task, InspectTask):
        while (HERE / "hold-inspection").exists():
            (HERE / f"pid-{os.getpid()}").touch()
            time.sleep(0.01)
        os.write(answer_fd, inspection(task).model_dump_json().encode())
        return
    case = task.case
    log("start", case, task.round)
    print("rubbish on stdout", flush=True)
    if task.others:
        _write(answer_fd, in_turns(task))
        log("end", case, task.round)
        return
    answer = deed(case, answer_record(case, task.round), task.policy.max_batch)
    log("end", case, task.round)
    _write(answer_fd, answer)


def inspection(task: InspectTask) -> Inspection:
    unknown = [f"unknown model {case.subject!r}" for case in task.cases if case.subject == "unknown"]
    environment = {"host": "stub", "packages": {"torch": os.environ.get("STUB_TORCH", "2.6")}}
    # of the nodes of a cluster, which the machine that plans has not
    names, node = json.loads(os.environ.get("STUB_NODES", "{}")), os.environ.get("SLURMD_NODENAME", "")
    gpus = int(os.environ.get("STUB_GPUS", "1" if node in names else "0"))
    if node in names:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        environment["gpus"] = [{"name": names[node], "uuid": f"GPU-{node}-{visible}", "index": 0}]
        environment["variables"] = {"CUDA_VISIBLE_DEVICES": visible}
    forecasts = [Forecast(case_id=case.id, macs=1e9, peak_bytes=2**30, seconds=7.0) for case in task.cases]
    return Inspection(
        environment=environment,
        cuda_devices=gpus,
        problems=unknown[:1],
        forecasts=forecasts if task.foresee else [],
        memory_bytes={"cpu": 2**31, "cuda": 2**31},
    )


def answer_record(case: Case, round_: int) -> Record:
    def metric(value: float, unit: str) -> Metric:
        return Metric(value=value, low=value * 0.99, high=value * 1.01, unit=unit, how="made up")

    return Record(
        case=case,
        case_id=case.id,
        round=round_,
        status="ok",
        metrics={
            "latency_s": metric(0.002, "s"),
            "throughput_images_per_s": metric(1234.5, "images/s"),
            "macs": Metric(value=1e9, unit="MAC/image", how="made up", deterministic=True),
        },
        samples={"latency_s": Samples(unit="s", values=[0.002] * 2000)},
        warnings=["noisy: the median is known to ±12% only"],
        started="2026-01-01T00:00:00+00:00",
    )


def in_turns(task: MeasureTask) -> str:
    """Take turns with others, each of which gives three samples; the subject says what goes wrong."""
    runner = _Runner(int(sys.argv[1]), int(sys.argv[3]))
    kind, record = task.case.subject, answer_record(task.case, task.round)
    runner.turn(Event())
    if kind == "crowds":
        record.status, record.reason = "oom", "out of memory: as asked"
        return record.model_dump_json()
    if kind == "exits":
        os._exit(3)
    seconds = {"slow": 0.2, "twice": 0.004}.get(kind, 0.002)
    told = runner.turn(Event(samples=[seconds], needs_bytes=2**60 if kind == "hungry" else 0))
    samples = Samples(unit="s", values=[])
    while told.seconds is not None:
        log("turn", task.case, task.round)
        if kind == "dies" and len(samples.turns) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "hangs" and len(samples.turns) == 2:
            time.sleep(600)
        if kind == "slow":
            time.sleep(seconds)
        while kind == "held" and (HERE / "hold").exists():
            (HERE / f"pid-{os.getpid()}").touch()
            time.sleep(0.01)
        new = [seconds] * (1 if kind == "slow" else 3)
        samples.values += new
        samples.turns.append(len(new))
        told = runner.turn(Event(samples=new))
    samples.stopped_by = told.stopped_by
    record.samples["latency_s"] = samples
    if not task.count:
        del record.metrics["macs"]
    record.spent_s = {"samples": 0.02, "wait": 0.01}
    return record.model_dump_json()


def largest(kind: str, record: Record, limit: int) -> str:
    """A search that doubles up to the limit; more than 8 ends the process, or fits alone but not in the measurement."""
    batch = 1
    while batch * 2 <= limit and (batch < 16 or kind == "dies"):
        batch *= 2
        _write(int(sys.argv[1]), Interim(batch=batch).model_dump_json())
        if batch > 8 and kind == "dies":
            os.kill(os.getpid(), signal.SIGSEGV)
    record.metrics["largest_batch"] = Metric(value=limit if kind == "grows" else batch, unit="images", how="made up")
    if kind == "grows" and limit > 8:
        record.status, record.reason = "oom", "out of memory: as asked"
    return record.model_dump_json()


def deed(case: Case, record: Record, max_batch: int) -> str:
    """What the subject says, then the answer."""
    kind = case.subject
    if case.batch == "largest":
        return largest(kind, record, max_batch)
    if kind == "held":
        (HERE / f"pid-{os.getpid()}").touch()
        while (HERE / "hold").exists():
            time.sleep(0.01)
    elif kind == "meet":
        while (HERE / "log").read_text().count("start meet") < 2:
            time.sleep(0.01)
    elif kind == "killed":
        print("last words", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    elif kind == "told":
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)
    elif kind == "threadless":
        print("libgomp: Thread creation failed: Resource temporarily unavailable\nbye", file=sys.stderr)
        os._exit(1)
    elif kind in ("full", "roomy"):
        limit = 2**20 if kind == "full" else 2**50
        _write(int(sys.argv[1]), Interim(memory_limit_bytes=limit).model_dump_json())
        os.kill(os.getpid(), signal.SIGSEGV)
    elif kind in ("measured", "dawdles"):
        _write(int(sys.argv[1]), Interim(record=record).model_dump_json())
        if kind == "measured":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(600)
    elif kind == "exits":
        os._exit(3)
    elif kind == "leaves":
        sys.exit("\x1b[31mgone fishing\x1b[0m\n\n")
    elif kind == "silent":
        os._exit(0)
    elif kind == "raises":
        raise RuntimeError("no such luck")
    elif kind in ("sleeps", "orphan"):
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        (HERE / "child").write_text(str(child.pid))
        time.sleep(600 if kind == "sleeps" else 0)
    elif kind == "garbage":
        return '{"line": "rec'
    elif kind == "holes":  # NaN has no JSON form: pydantic writes null
        return record.model_dump_json().replace("0.002", "null")
    elif kind == "unkeepable":
        return record.model_copy(update={"conditions": {"threads": 1}}).model_dump_json().replace(
            '"threads":1', '"threads":1e999'
        )  # fmt: skip
    elif kind == "stranger":
        return record.model_copy(update={"case_id": "0" * 12}).model_dump_json()
    elif kind == "skips":
        return record.model_copy(update={"status": "skipped", "reason": "no such size"}).model_dump_json()
    elif kind == "fails":
        return record.model_copy(update={"status": "failed", "reason": "ValueError: as asked"}).model_dump_json()
    return record.model_dump_json()


def log(event: str, case: Case, round_: int) -> None:
    entry = [event, case.subject, case.id, str(round_), os.environ.get("CUDA_VISIBLE_DEVICES", "-")]
    with (HERE / "log").open("a") as file:
        file.write(" ".join(entry) + "\n")


def measured(folder: Path) -> list[list[str]]:
    """The log of a folder, split: event, subject, case id, round, visible GPUs."""
    path = folder / "log"
    return [line.split(" ") for line in path.read_text().splitlines()] if path.exists() else []


def a_suite(folder: Path, *subjects: str, **policy: object) -> str:
    """A suite file in ``folder``; its path."""
    path = folder / "stub.yaml"
    axes = {"resolution": [32, 64]}
    path.write_text(json.dumps({"subjects": list(subjects), "axes": axes, "policy": {"turns": False, **policy}}))
    return str(path)


if __name__ == "__main__":
    from vheatbench import __main__ as command_line
    from vheatbench.run import process

    process.WORKER = "support.stub_worker"
    if forked.inside and "SPAWN" not in os.environ:
        process._Process = forked.Popen  # type: ignore[misc, assignment]
    command_line.main()
