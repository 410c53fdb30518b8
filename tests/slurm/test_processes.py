"""One training and one evaluation in processes on two nodes, by torchrun inside an allocation."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support import forked
from support.cluster import Cluster
from support.eval_models import write_colours, write_levels
from support.shapes import write_ade
from support.stub_worker import PYTHONPATH
from vheatbench.errors import UserError
from vheatbench.slurm.folder import ClusterFolder
from vheatbench.slurm.processes import (
    going_on,
    in_vain,
    place_of,
    processes_options,
    processes_script,
    torchrun,
    with_folder,
)
from vheatbench.store import Record, list_runs, read_run

RECIPE = {
    "name": "small",
    "models": [{"model": "test_vheat", "options": {"img_size": 32, "dim": 8, "depths": [1, 1]}}],
    "resolution": 32, "epochs": 30, "warmup_epochs": 1, "batch": 12, "learning_rate": 0.08, "ema_decay": None,
    "label_smoothing": 0, "mixup": 0, "cutmix": 0, "random_crop": None, "horizontal_flip": 0, "color_jitter": None,
    "auto_augment": None, "random_erasing": 0, "workers": 0, "log_every": 1, "precision": "float32",
}  # fmt: skip


def called(cluster: Cluster, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The command line itself, in a folder."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("SLURM")}
    environment = {**kept, **cluster.environment, "PYTHONPATH": PYTHONPATH, "OMP_NUM_THREADS": "1"}
    done = forked.run(
        [sys.executable, "-m", "vheatbench", *words],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done


def losses_in(folder: Path) -> list[float]:
    with next(folder.glob("*/losses.csv")).open(newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def record_in(folder: Path) -> Record:
    (path,) = list_runs(folder)
    (record,) = read_run(path).records
    return record


@pytest.mark.slow
def test_a_training_on_two_nodes_is_that_of_one_process_also_after_a_requeue(cluster: Cluster, tmp_path: Path) -> None:
    for part in ("train", "val"):
        write_colours(tmp_path / "data" / part, per_class=8)
    (tmp_path / "recipe.yaml").write_text(json.dumps(RECIPE))
    words = ["train", "--config", "./recipe.yaml", "--data", "data", "--device", "cpu", "--override"]
    # of one and of two processes alike: a step's images are dealt out to them
    words += ["seed=3"]
    done = called(
        cluster,
        tmp_path,
        *words,
        "--out",
        "two",
        "--results",
        "results2",
        "--slurm",
        "partition=gpu,nodes=2,exclude=node3",
    )
    folder = Path(done.stdout.strip())
    job = done.stderr.split()[1]
    cluster.until(lambda: list((tmp_path / "two").glob("*/checkpoint.pt")))
    cluster.ask("scancel", "--signal=TERM", job)
    cluster.until(lambda: "back into the queue" in (folder / "job.log").read_text())
    called(cluster, tmp_path, *words, "--out", "one", "--results", "results1")
    cluster.until(lambda: not cluster.queue())
    assert losses_in(tmp_path / "two") == pytest.approx(losses_in(tmp_path / "one"), abs=1e-5, rel=0)
    one, two = record_in(tmp_path / "results1"), record_in(tmp_path / "results2")
    assert two.conditions["processes"] == 2
    assert two.metrics["top1_accuracy"].value == one.metrics["top1_accuracy"].value


@pytest.mark.slow
def test_an_evaluation_on_two_nodes_counts_every_image_once(cluster: Cluster, tmp_path: Path) -> None:
    write_levels(tmp_path / "levels")
    words = ["eval", "--model", "support.eval_models:levels", "--data", "levels", "--resolution", "32", "--batch", "4"]
    words += ["--device", "cpu"]
    done = called(cluster, tmp_path, *words, "--slurm", "partition=gpu,nodes=2")
    cluster.until(lambda: not cluster.queue())
    called(cluster, tmp_path, *words, "--results", "one")
    folder = Path(done.stdout.strip())
    one, two = record_in(tmp_path / "one"), record_in(folder / "run")
    for name in ("top1_accuracy", "top5_accuracy"):
        assert two.metrics[name].value == one.metrics[name].value
    assert two.metrics["top1_accuracy"].how == one.metrics["top1_accuracy"].how


@pytest.mark.slow
def test_a_segmenter_is_trained_and_tested_on_two_nodes(cluster: Cluster, tmp_path: Path) -> None:
    write_ade(tmp_path, "training", 6, seed=0)
    write_ade(tmp_path, "validation", 4, seed=1)
    train = ["segment", "train", "--model", "test_vheat", "--data", ".", "--classes", "3", "--batch", "4"]
    train += ["--steps", "3", "--crop", "64", "--channels", "16", "--device", "cpu", "--checkpoints", "out"]
    done = called(cluster, tmp_path, *train, "--slurm", "partition=gpu,nodes=2")
    cluster.until(lambda: not cluster.queue(), 240)
    log = (Path(done.stdout.strip()) / "job.log").read_text()
    assert "--nnodes 2" in log
    assert (tmp_path / "out" / "test_vheat.safetensors").exists(), log
    test = ["segment", "eval", "--weights", "out/test_vheat.safetensors", "--data", ".", "--device", "cpu"]
    done = called(cluster, tmp_path, *test, "--results", "two", "--slurm", "partition=gpu,nodes=2")
    cluster.until(lambda: not cluster.queue(), 240)
    assert "--nnodes 2" in (Path(done.stdout.strip()) / "job.log").read_text()
    called(cluster, tmp_path, *test, "--results", "one")
    one, two = record_in(tmp_path / "one"), record_in(tmp_path / "two")
    assert two.metrics["miou"].value == one.metrics["miou"].value
    assert two.metrics["miou"].how == one.metrics["miou"].how


def test_processes_of_a_node_are_its_gpus_or_what_is_said() -> None:
    assert processes_options("nodes=2,gres=gpu:h100:4")[1] == 4
    assert processes_options("nodes=2,gres=gpu:4")[1] == 4
    assert processes_options("nodes=2,gres=gpu:h100")[1] == 1
    assert processes_options("nodes=2,gpus-per-node=h100:8")[1] == 8
    options, count = processes_options("nodes=2,processes=3,time=1:00:00")
    assert (options.sbatch, options.time, count) == ({"nodes": "2"}, "1:00:00", 3)
    for wrong in ("nodes=2,array=4", "processes=many", "processes=0"):
        with pytest.raises(UserError):
            processes_options(wrong)


def test_the_command_of_a_node(tmp_path: Path) -> None:
    facts = {"SLURM_NNODES": "2", "SLURM_NODEID": "1", "SLURM_JOB_ID": "70", "SLURM_JOB_NODELIST": "host7"}
    place = place_of(facts)
    again = place_of({**facts, "SLURM_RESTART_COUNT": "1"})
    assert place.port != again.port
    command = torchrun(place, 4, ["vheatbench", "train"])
    assert command[3:7] == ["--nnodes", "2", "--node-rank", "1"]
    assert command[-3:] == ["-m", "vheatbench", "train"]
    with pytest.raises(UserError, match="submit with --slurm"):
        place_of({})
    script = processes_script(ClusterFolder(tmp_path), processes_options("nodes=2,time=9")[0], ["vheatbench"])
    assert "#SBATCH --nodes=2\n#SBATCH --time=9\n#SBATCH --ntasks-per-node=1\n#SBATCH --requeue\n" in script


def test_what_goes_on_goes_on_from_what_there_is(tmp_path: Path) -> None:
    assert going_on(["train", "--config", "x"]) == ["train", "--config", "x", "--resume", "auto"]
    assert going_on(["train", "--resume", "there"]) == ["train", "--resume", "there"]
    detect = ["detect", "train", "--out", str(tmp_path / "d")]
    assert going_on(detect) == detect
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "checkpoint.pt").touch()
    assert going_on(detect) == [*detect, "--resume"]
    named = ["detect", "train", "--checkpoints=" + str(tmp_path / "d")]
    assert going_on(named) == [*named, "--resume"]
    evaluation = ["eval", "--data", "x", "--trust-pickle"]
    assert going_on(evaluation, tmp_path / "run") == evaluation
    partial = tmp_path / "run" / "20260101T000000Z-eval-h-1.jsonl.partial"
    partial.parent.mkdir()
    partial.write_text("{}\n")
    expected = ["eval", "--resume", str(partial), "--results", str(partial.parent), "--trust-pickle"]
    assert going_on(evaluation, tmp_path / "run") == expected


def test_a_job_has_a_place_of_its_own_where_none_is_given(tmp_path: Path) -> None:
    for given in ("--checkpoints", "--out"):
        assert with_folder(["train", given, "mine"], tmp_path) == ["train", given, "mine"]
    assert with_folder(["train"], tmp_path) == ["train", "--checkpoints", str(tmp_path / "checkpoints")]
    assert with_folder(["eval"], tmp_path) == ["eval", "--results", str(tmp_path / "run")]
    assert with_folder(["eval", "--results=x"], tmp_path) == ["eval", "--results=x"]


def test_tries_that_leave_nothing_new_are_ended(tmp_path: Path) -> None:
    folder = ClusterFolder(tmp_path)
    assert [in_vain(folder, progress, 3) for progress in ("", "", "1", "1", "2", "2", "2")] == [False] * 6 + [True]
