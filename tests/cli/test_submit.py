"""``run --slurm`` without a cluster: what is shown, what is refused, and what a shard does in its job."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from support.command import Called, assert_refused
from support.stub_worker import a_suite, measured
from vheatbench.errors import UserError, WorkerError
from vheatbench.run.device import device_for
from vheatbench.run.whereabouts import TRUST_CUDA
from vheatbench.slurm import cluster
from vheatbench.slurm.folder import ClusterFolder, Jobs, find_folder
from vheatbench.store import read_run

Call = Callable[..., Called]


@pytest.fixture
def no_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "installed", lambda: False)


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """A cluster that takes everything; what it was given."""
    given: list[tuple[str, ...]] = []

    def submit(script: str, *options: str) -> str:
        given.append((Path(script).name, *options))
        return f"{40 + len(given)}"

    monkeypatch.setattr(cluster, "installed", lambda: True)
    monkeypatch.setattr(cluster, "submit", submit)
    monkeypatch.setattr(cluster, "partitions", lambda: {"gpu": None, "short": 300})
    monkeypatch.setattr(cluster, "default_partition", lambda: "gpu")
    monkeypatch.setattr(cluster, "generic_resources", lambda partition: ["gpu:h100:2"])
    monkeypatch.setattr(cluster, "max_array_size", lambda: 1000)
    monkeypatch.setattr(cluster, "other_hosts", list)
    monkeypatch.setattr(cluster, "task_states", lambda job: {})
    return given


def folder_of(called: Called) -> ClusterFolder:
    code, out, err = called
    assert code == 0, err
    return ClusterFolder(Path(out.strip()))


def test_the_script_is_shown_where_there_is_no_slurm(call: Call, tmp_path: Path, no_slurm: None) -> None:
    words = ("run", "--suite", a_suite(tmp_path, "one", "two"), "--slurm", "gres=gpu:1,array=2")
    code, out, err = call(*words, "--dry-run")
    assert code == 0, err
    assert out.startswith("#!/bin/bash\n")
    assert "#SBATCH --array=1-2\n" in out
    # a forecast of 7 s for each of two ceilings and four cases at most, three times and ten minutes
    assert "#SBATCH --time=13\n" in out or "#SBATCH --time=12\n" in out
    assert "were not checked" in err
    assert not list(tmp_path.glob("results/*"))
    assert_refused(call(*words), "no sbatch here")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--slurm", "array=2", "--shard", "1/2"), "leave --shard out"),
        (("--slurm", "array=2", "--resume", "latest"), "slurm resume"),
        (("--slurm", "array=2", "--device", "cuda:1"), "give --device cuda"),
        (("--slurm", "array=9"), "9 shards are more than there are groups: 2"),
        (("--slurm", "array=1001"), "at most 1000 tasks"),
        (("--slurm", "partition=gpus"), "no partition 'gpus'; there are gpu, short"),
        (("--slurm", "gres=gpu:a100:1"), "no node has gres=gpu:a100:1: there are gpu:h100:2"),
        (("--wait",), "give --slurm too"),
    ],
)
def test_what_does_not_go_is_one_line(
    call: Call, tmp_path: Path, taken: list[tuple[str, ...]], options: tuple[str, ...], words: str
) -> None:
    assert_refused(call("run", "--suite", a_suite(tmp_path, "one"), *options), words)
    assert taken == []
    assert not list(tmp_path.glob("results/*"))


def test_a_folder_that_other_machines_do_not_see_is_refused(
    call: Call, tmp_path: Path, taken: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "other_hosts", lambda: ["node7"])
    words = ("run", "--suite", a_suite(tmp_path, "one"), "--slurm")
    assert_refused(call(*words, "array=2"), "which node7 does not see")
    assert taken == []
    folder_of(call(*words, "array=2,shared=yes"))
    assert [one[0] for one in taken] == ["job.sh", "merge.sh"]


def test_what_slurm_refuses_leaves_nothing(
    call: Call, tmp_path: Path, taken: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(script: str, *options: str) -> str:
        raise UserError("Slurm refuses the job: sbatch: no such account")

    monkeypatch.setattr(cluster, "submit", refuse)
    assert_refused(call("run", "--suite", a_suite(tmp_path, "one"), "--slurm", "account=me"), "no such account")
    assert not list(tmp_path.glob("results/*"))


def test_the_partition_s_limit_is_kept(call: Call, tmp_path: Path, taken: list[tuple[str, ...]]) -> None:
    folder = folder_of(call("run", "--suite", a_suite(tmp_path, "one"), "--slurm", "partition=short"))
    assert "#SBATCH --time=5\n" in folder.script.read_text()
    assert taken[1] == ("merge.sh", "--dependency=afterany:41")


def test_shards_are_measured_go_on_and_are_merged(
    call: Call, tmp_path: Path, taken: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_of(
        call(
            "run", "--suite", a_suite(tmp_path, "one", "two"), "--slurm", "array=2", "--no-ceilings", "--device", "cpu"
        )
    )
    Path(a_suite(tmp_path, "other")).unlink()  # what was planned is what is measured
    code, _, err = call("slurm", "shard", folder.path, 1)
    assert code == 0, err
    code, out, _ = call("slurm", "status", "latest", "--json")
    assert code == 6  # nobody works on the second, and it is not there
    states = [shard["state"] for shard in json.loads(out)["shards"]]
    assert states == ["finished", "ended"]
    assert call("slurm", "shard", folder.path, 2)[0] == 0
    before = len(measured(tmp_path))
    assert call("slurm", "shard", folder.path, 2)[0] == 0
    assert len(measured(tmp_path)) == before
    code, _, err = call("slurm", "status", folder.path)
    assert code == 0
    merged = list((tmp_path / "results").glob("*.jsonl"))
    assert [str(path) in err for path in merged] == [True]
    run = read_run(merged[0])
    assert run.complete
    assert len(run.records) == 4
    assert_refused(call("slurm", "resume", folder.path), "every shard is finished")
    assert_refused(call("slurm", "logs", 3, folder.path), "has 2 shards: there is no 3")


def test_a_shard_that_gets_nowhere_is_given_up(
    call: Call, tmp_path: Path, taken: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_of(call("run", "--suite", a_suite(tmp_path, "told"), "--slurm", "array=1", "--no-ceilings"))
    asked: list[str] = []
    monkeypatch.setenv("SLURM_JOB_ID", "41")
    monkeypatch.setattr(cluster, "requeue", asked.append)
    monkeypatch.setattr(cluster, "job_state", lambda job: "RUNNING")
    for tries, requeues in ((1, 1), (2, 2), (3, 2), (4, 2)):
        code, _, err = call("slurm", "shard", folder.path, 1)
        assert code == 6
        assert len(folder.tries(1)) == tries
        assert len(asked) == requeues, err
    assert folder.records(1) == 0
    folder.forget_tries(1)
    for state, cancelled in (("CANCELLED", False), ("RUNNING", True)):
        monkeypatch.setattr(cluster, "job_state", lambda job, state=state: state)
        folder.write_jobs(Jobs(array=["41"], cancelled=cancelled))
        call("slurm", "shard", folder.path, 1)
    assert len(asked) == 2


def test_slurm_that_does_not_answer_is_said(
    call: Call, tmp_path: Path, taken: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_of(call("run", "--suite", a_suite(tmp_path, "one"), "--slurm", "array=2"))
    monkeypatch.setattr(cluster, "task_states", lambda job: None)
    code, out, _ = call("slurm", "status", folder.path)
    assert code == 0
    assert "Slurm does not answer" in out

    def silent() -> dict[str, int | None]:
        raise WorkerError("sinfo: Unable to contact slurm controller")

    monkeypatch.setattr(cluster, "partitions", silent)
    assert_refused(call("run", "--suite", a_suite(tmp_path, "one"), "--slurm", "array=2"), "Unable to contact")


def test_a_gpu_of_other_machines_is_taken_on_trust(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UserError, match="torch sees no CUDA"):
        device_for("cuda", "float32")
    monkeypatch.setenv(TRUST_CUDA, "1")
    assert device_for("cuda", "float32") == "cuda"


def test_runs_on_a_cluster_are_found_by_name(tmp_path: Path) -> None:
    for name in ("slurm-1-a-x1", "slurm-2-a-x2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "plan.json").touch()
    assert find_folder("latest", tmp_path).path.name == "slurm-2-a-x2"
    assert find_folder("x1", tmp_path).path.name == "slurm-1-a-x1"
    assert find_folder("slurm-1", tmp_path).path.name == "slurm-1-a-x1"
    for wrong, words in (("slurm", "means 2 runs"), ("nothing", "there are slurm-1-a-x1")):
        with pytest.raises(UserError, match=words):
            find_folder(wrong, tmp_path)
