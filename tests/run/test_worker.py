"""Real worker processes on this machine's CPU: what a record holds, and what a bad model becomes.

A worker takes seconds to start, so one run holds nearly all of it.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from support import forked
from support.runner import PATIENCE_S, gone, run_all, wait_for
from vheatbench.case import Case
from vheatbench.run.process import FORK_ALL, Worker
from vheatbench.run.task import Inspection, InspectTask, MeasureTask
from vheatbench.store import Record, Run
from vheatbench.suites import SuitePolicy

BAD_MODELS = """
    import contextlib, os, signal, sys, time
    from pathlib import Path

    import torch
    from torch import nn


    class Tiny(nn.Module):
        # Counting runs a model on the meta device first: what it does wrong, it does to real images.
        def __init__(self, **options):
            super().__init__()
            self.linear = nn.Linear(3, 10)

        def misbehave(self, images, logits):
            return logits

        def forward(self, images):
            logits = self.linear(images.mean((2, 3)))
            return logits if images.is_meta else self.misbehave(images, logits)


    class Raises(Tiny):
        def misbehave(self, images, logits):
            raise RuntimeError("first line \\x1b[31m of it" + "\\nsecond line")


    class Nan(Tiny):
        def misbehave(self, images, logits):
            return logits * float("nan")


    class Hungry(Tiny):
        def misbehave(self, images, logits):
            return logits + torch.empty(2**36, dtype=torch.uint8)[0]


    class HungryPerImage(Tiny):
        def misbehave(self, images, logits):
            return logits + torch.empty(len(images), 2**27, dtype=torch.uint8)[:, :1]


    class Killed(Tiny):
        def misbehave(self, images, logits):
            os.kill(os.getpid(), signal.SIGKILL)


    class Leaves(Tiny):
        def misbehave(self, images, logits):
            sys.exit("no more")


    class Noisy(Tiny):
        def __init__(self, **options):
            super().__init__()
            print('{"line": "record"}', "rubbish " * 10_000)
            sys.stderr.close()
            with contextlib.suppress(OSError):
                os.close(2)


    class Sleeps(Tiny):
        def misbehave(self, images, logits):
            Path(f"pid-{os.getpid()}").touch()
            time.sleep(600)
"""
LIMIT_GIB = 3.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's working directory: a module of models, and a file that is named like one of Python's."""
    folder = tmp_path_factory.mktemp("my models")
    (folder / "bad_models.py").write_text(textwrap.dedent(BAD_MODELS))
    (folder / "random.py").write_text("raise SystemExit('this is not the random of Python')")
    return folder


def own(name: str, **axes: object) -> Case:
    return Case(subject=f"bad_models:{name}", resolution=32, **axes)  # type: ignore[arg-type]


def known(name: str, **axes: object) -> Case:
    return Case(subject=name, resolution=64, **axes)  # type: ignore[arg-type]


CASES = {
    "vheat": known("test_vheat", batch=2),
    "train": known("test_vheat", mode="train", dtype="bfloat16", batch=2),
    "bfloat16": known("test_vit", dtype="bfloat16", memory_format="channels_last"),
    "tf32": known("test_vit", dtype="tf32"),
    "Raises": own("Raises"),
    "Nan": own("Nan"),
    "Hungry": own("Hungry"),
    "HungryPerImage": own("HungryPerImage", batch="largest"),
    "Killed": own("Killed"),
    "Leaves": own("Leaves"),
    "Noisy": own("Noisy"),
}


@pytest.fixture(scope="module")
def run(folder: Path) -> Run:
    """All cases in one run. Two at a time, to save time: nothing here is about how fast they are."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        return run_all(
            folder,
            list(CASES.values()),
            ["cpu", "cpu"],
            memory_limit_gib=LIMIT_GIB,
            threads=1,
            min_samples=7,
            ceiling_s=0.2,
            warmup_ceiling_s=0.2,
        )
    finally:
        os.chdir(before)


def test_every_case_has_its_record(run: Run) -> None:
    assert run.complete
    assert not run.problems
    assert len(run.records) == len(CASES)
    for record in run.records:
        assert record.elapsed_s > 0
        assert (record.reason is None) == (record.status == "ok")
        assert record.reason is None or record.reason.isprintable()


def find(run: Run, name: str) -> Record:
    return next(record for record in run.records if record.case == CASES[name])


@pytest.mark.parametrize(
    ("name", "status", "reason"),
    [
        ("tf32", "skipped", "tf32 is a mode of NVIDIA GPUs: use float32 or bfloat16 on a CPU"),
        ("Raises", "failed", "RuntimeError: first line  [31m of it"),
        ("Nan", "failed", "FloatingPointError: the output is not finite in weights and input in float32"),
        ("Killed", "failed", "the worker process was killed by SIGKILL"),
        ("Leaves", "failed", "SystemExit: no more"),
    ],
)
def test_a_bad_model_is_a_result_with_a_reason(run: Run, name: str, status: str, reason: str) -> None:
    record = find(run, name)
    assert (record.status, record.reason) == (status, reason)
    assert "latency_s" not in record.metrics


def test_over_the_memory_limit_is_out_of_memory(run: Run) -> None:
    record = find(run, "Hungry")
    assert record.status == "oom"
    assert record.reason is not None
    assert record.reason.startswith("out of memory: ")
    # What was found before it ended is kept.
    assert record.metrics["macs"].value == 30
    assert record.metrics["params"].value == 40


def test_an_ok_record_holds_every_metric_and_where_it_comes_from(run: Run) -> None:
    record = find(run, "vheat")
    assert record.status == "ok", record.reason
    metrics = record.metrics
    for name in (
        "latency_s", "throughput_images_per_s", "macs", "flops", "params", "peak_memory_bytes",
        "peak_allocated_bytes", "activation_peak_bytes", "weights_bytes", "input_bytes", "peak_rss_growth_bytes",
    ):  # fmt: skip
        assert metrics[name].value is not None, metrics[name].unavailable
        assert metrics[name].value > 0 or name == "peak_rss_growth_bytes"  # type: ignore[operator]
        assert metrics[name].how
    latency, throughput = metrics["latency_s"], metrics["throughput_images_per_s"]
    assert latency.low <= latency.value <= latency.high  # type: ignore[operator]
    assert throughput.value == pytest.approx(2 / latency.value)  # type: ignore[operator]
    assert metrics["flops"].value == pytest.approx(2 * metrics["macs"].value)  # type: ignore[operator]
    assert metrics["input_bytes"].value == 2 * 3 * 64 * 64 * 4
    assert metrics["weights_bytes"].value >= 4 * metrics["params"].value  # type: ignore[operator]
    for name in ("macs", "flops", "params", "peak_allocated_bytes"):
        assert metrics[name].deterministic
    assert "compile_time_s" not in metrics
    assert "largest_batch" not in metrics


def test_samples_are_kept_warm_up_included(run: Run) -> None:
    samples = find(run, "vheat").samples["latency_s"]
    assert len(samples.values) >= 7
    assert len(samples.warmup) >= 1
    assert all(value > 0 and math.isfinite(value) for value in samples.values + samples.warmup)
    assert samples.unit == "s"
    assert samples.stopped_by in ("precision", "plateau", "ceiling")


def test_a_record_says_what_was_built_and_around_it(run: Run) -> None:
    record = find(run, "vheat")
    assert record.subject["name"] == "test_vheat"
    assert record.subject["form"] == "deploy form"
    assert record.subject["weights"].startswith("random")
    assert record.subject["precision"] == "weights and input in float32"
    assert record.conditions["threads"] == 1
    coverage = record.conditions["flops_coverage"]
    assert coverage["counted"]
    assert coverage["closed_form_macs"] > 0
    assert coverage["disagreement with the closed form"] == pytest.approx(0, abs=0.01)


def test_training_and_low_precision(run: Run) -> None:
    train, low = find(run, "train"), find(run, "bfloat16")
    assert (train.status, low.status) == ("ok", "ok"), (train.reason, low.reason)
    assert train.subject["form"] == "training form"
    assert train.subject["precision"] == "float32 weights, bfloat16 autocast"
    assert low.subject["precision"] == "weights and input in bfloat16"
    assert low.metrics["input_bytes"].value == 3 * 64 * 64 * 2
    # the gradients, as large as the weights, are in the peak of what the step allocates
    assert train.metrics["activation_peak_bytes"].value > train.metrics["weights_bytes"].value  # type: ignore[operator]


def test_the_largest_batch_is_found_within_the_memory_limit(run: Run) -> None:
    record = find(run, "HungryPerImage")
    assert record.status == "ok", record.reason
    largest = record.metrics["largest_batch"]
    # 128 MiB an image; libraries, weights and stacks of threads take their part of the limit
    assert 4 <= largest.value <= LIMIT_GIB * 8  # type: ignore[operator]
    throughput, latency = record.metrics["throughput_images_per_s"], record.metrics["latency_s"]
    assert throughput.value == pytest.approx(largest.value / latency.value)  # type: ignore[operator]


def test_noise_on_stdout_and_no_stderr_do_no_harm(run: Run) -> None:
    assert find(run, "Noisy").status == "ok", find(run, "Noisy").reason


@pytest.mark.parametrize("forks", [False, True])
def test_a_real_worker_dies_with_a_killed_runner(folder: Path, forks: bool) -> None:
    for left in folder.glob("pid-*"):
        left.unlink()
    environment = {name: value for name, value in os.environ.items() if name != FORK_ALL}
    code = (
        "import sys\n"
        "sys.path.remove('')\n"  # the working directory, where a random.py lies
        "from vheatbench.run.process import Worker\n"
        "from vheatbench.run.task import MeasureTask\n"
        "Worker().run(MeasureTask.model_validate_json(sys.argv[1]))\n"
    )
    task = MeasureTask(case=own("Sleeps")).model_dump_json()
    runner = forked.Popen(
        [sys.executable, "-c", code, task],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        env=environment | ({FORK_ALL: "1"} if forks else {}),
    )
    wait_for(lambda: list(folder.glob("pid-*")) or runner.poll() is not None)
    (path,) = folder.glob("pid-*")
    runner.kill()
    runner.wait()
    wait_for(lambda: gone(int(path.name.split("-")[1])))


def test_an_inspection_finds_what_cannot_be(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "broken.py").write_text("import torch\nundefined_name\n")
    monkeypatch.chdir(folder)
    cases = [
        Case(subject="test_vheat", resolution=(225, 225)),
        Case(subject="swni-t", resolution=(224, 224)),
        Case(subject="broken:model", resolution=(64, 64)),
        Case(subject="bad_models:nothing", resolution=(64, 64)),
        Case(subject="no_module:model", resolution=(64, 64)),
        own("Raises"),
        known("test_vit"),
    ]
    outcome = Worker().run(InspectTask(cases=cases, foresee=True), PATIENCE_S)
    assert outcome.end == "answered", outcome.reason
    inspection = Inspection.model_validate_json(outcome.answer)
    assert len(inspection.problems) == 5, inspection.problems
    for problem, words in zip(
        inspection.problems,
        [
            "225",
            "unknown model 'swni-t' (did you mean ",
            "NameError: name 'undefined_name' is not defined",
            "has no function or class 'nothing'",
            "cannot import 'no_module'",
        ],
        strict=True,
    ):
        assert words in problem
        assert problem.isprintable()
    assert inspection.memory_bytes["cpu"] > 0
    assert inspection.environment["packages"]["torch"]


@pytest.mark.slow
def test_compilation_is_a_metric_of_its_own(tmp_path: Path) -> None:
    policy = SuitePolicy(min_samples=7, ceiling_s=0.2, warmup_ceiling_s=0.2)
    outcome = Worker().run(MeasureTask(case=known("test_vit", compile=True), policy=policy), 300)
    assert outcome.end == "answered", outcome.reason
    record = Record.model_validate_json(outcome.answer)
    assert record.status == "ok", record.reason
    assert record.metrics["compile_time_s"].value > 0  # type: ignore[operator]
    assert record.metrics["compile_time_s"].value > max(record.samples["latency_s"].values)  # type: ignore[operator]
