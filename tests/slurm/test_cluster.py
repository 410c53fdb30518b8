"""Runs on a real Slurm: what is submitted comes back whole, whatever becomes of its jobs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from support.cluster import Cluster, Submitted
from support.stub_worker import measured
from vheatbench.store import Run, read_run

NODES = json.dumps({"node1": "NVIDIA H100", "node2": "NVIDIA H100", "node3": "NVIDIA A100"})


def runs_of(folder: Path) -> dict[int, Run]:
    """The run file of every shard that has one, finished or not."""
    found = {}
    for path in folder.glob("shards/*/*.jsonl*"):
        found[int(path.parent.name)] = read_run(path)
    return found


def merged(submitted: Submitted, folder: Path) -> Run:
    """The one run that the shards were merged into; the last job does that, or whoever asks first."""
    submitted.call("slurm", "status", str(folder))
    return read_run(folder.parent / (folder / "merged.txt").read_text().strip())


def assert_nothing_lost_or_wrong(run: Run, before: dict[int, Run]) -> None:
    assert run.complete, run.problems
    assert {record.status for record in run.records} == {"ok"}
    kept = {(record.case_id, record.round): record for one in before.values() for record in one.records}
    now = {(record.case_id, record.round): record for record in run.records}
    assert {key: now[key] for key in kept} == kept


def jobs_of(run: Run) -> list[dict[str, Any]]:
    return [record.conditions["slurm"] for record in run.records]


def array_of(folder: Path) -> str:
    """The id of the array of jobs."""
    return str(json.loads((folder / "jobs.json").read_text())["array"][-1])


def test_an_array_is_measured_and_merged(submitted: Submitted) -> None:
    folder = submitted.submit(
        "partition=gpu,array=3%2,exclude=node3", "--wait", "--rounds", "2", subjects=("one", "two"), sizes=4
    )
    run = merged(submitted, folder)
    assert run.complete
    assert not run.problems
    assert run.header.shard is None
    assert len(run.records) == len(run.done) == 16
    assert {job["node"] for job in jobs_of(run)} <= {"node1", "node2"}
    assert {job["array_task_id"] for job in jobs_of(run)} == {"1", "2", "3"}
    assert {job["array_job_id"] for job in jobs_of(run)} == {array_of(folder)}
    # what all shards measured is known of every machine, and stands in the run once
    shards = runs_of(folder)
    (common,) = {tuple(one.header.common) for one in shards.values()}
    assert all(set(common) <= {record.case_id for record in one.records} for one in shards.values())
    times = [len(machine.common[case]) for machine in run.header.machines for case in common]
    assert sum(times) == 3 * 2 * len(common)
    # every other group is measured by one shard, whole
    for one in shards.values():
        own = [record for record in one.records if record.case_id not in common]
        assert {record.case.subject for record in own} in ({"one", "two"}, set())
    assert len(list(folder.parent.glob("*.jsonl"))) == 1
    again = submitted.call("slurm", "shard", str(folder), "1")
    assert "is finished" in again.stderr


def test_tasks_of_a_node_have_gpus_of_their_own_and_other_kinds_are_refused(submitted: Submitted) -> None:
    submitted.variables["STUB_NODES"] = NODES
    submitted.hold()
    kinds = "partition=gpu,gres=gpu:1,array=6"
    folder = submitted.submit(kinds, subjects=("held",), sizes=6)
    submitted.cluster.until(lambda: len(submitted.held()) == 6)
    submitted.release()
    submitted.cluster.until(lambda: not submitted.cluster.queue())
    status = submitted.status(folder)
    places = [(shard["node"], entry) for shard in status["shards"] for entry in [shard["gpu"]]]
    assert sorted(places) == [
        ("node1", "NVIDIA H100"), ("node1", "NVIDIA H100"), ("node2", "NVIDIA H100"), ("node2", "NVIDIA H100"),
        ("node3", "NVIDIA A100"), ("node3", "NVIDIA A100"),
    ]  # fmt: skip
    visible = {(run.header.environment["gpus"][0]["uuid"]) for run in runs_of(folder).values()}
    assert visible == {f"GPU-node{node}-{gpu}" for node in (1, 2, 3) for gpu in (0, 1)}
    assert {entry[4] for entry in measured(submitted.folder)} == {"0", "1"}
    refused = submitted.call("slurm", "status", str(folder), code=2)
    assert "gpus: NVIDIA" in refused.stderr
    assert refused.stderr.startswith("vheatbench: ")
    mixed = submitted.call("slurm", "merge", str(folder), "--allow-mixed").stdout.strip()
    assert "gpus" in read_run(mixed).header.environment["mixed"]


def test_a_task_that_is_told_to_end_goes_back_into_the_queue(submitted: Submitted, cluster: Cluster) -> None:
    submitted.hold()
    folder = submitted.submit("partition=gpu,array=1", subjects=("held",), sizes=3)
    cluster.until(lambda: len(submitted.held()) == 1)
    cluster.ask("scancel", "--signal=TERM", array_of(folder))
    cluster.until(lambda: "goes back into the queue" in (folder / "logs/1.log").read_text())
    before = runs_of(folder)
    assert "failed" not in {record.status for record in before[1].records}
    submitted.release()
    cluster.until(lambda: not cluster.queue())
    run = merged(submitted, folder)
    assert_nothing_lost_or_wrong(run, before)
    assert {job["restart_count"] for job in jobs_of(run)} == {"1"}
    (shard,) = submitted.status(folder)["shards"]
    assert shard["tries"] == 2


def test_what_is_cancelled_stays_so_until_it_is_resumed(submitted: Submitted, cluster: Cluster) -> None:
    folder = submitted.submit("partition=gpu,array=2", subjects=("one", "held"), sizes=2)
    cluster.until(lambda: folder.exists())
    submitted.hold()
    cluster.until(lambda: submitted.held())
    submitted.call("slurm", "cancel", str(folder))
    cluster.until(lambda: not cluster.queue())
    before = runs_of(folder)
    assert before
    status = submitted.status(folder, code=6)
    assert "ended" in {shard["state"] for shard in status["shards"]}
    assert {record.status for run in before.values() for record in run.records} <= {"ok"}
    submitted.release()
    submitted.call("slurm", "resume", str(folder))
    cluster.until(lambda: not cluster.queue())
    run = merged(submitted, folder)
    unlike = {number: one for number, one in before.items() if number != 1}
    assert_nothing_lost_or_wrong(run, {1: before[1]} if 1 in before else unlike)


def test_a_lost_node_and_a_preempted_task_go_on_elsewhere(submitted: Submitted, cluster: Cluster) -> None:
    submitted.hold()
    folder = submitted.submit("partition=gpu,array=2,exclusive", subjects=("held",), sizes=4)
    cluster.until(lambda: len(submitted.held()) == 2)
    nodes = {line.split()[0].split("_")[1]: line.split()[2] for line in cluster.queue() if "RUNNING" in line}
    cluster.kill(nodes["1"])
    # the other one has to make room for whoever is more urgent, who takes all that is left
    cluster.ask("sbatch", "-p", "urgent", "-w", nodes["2"], "--exclusive", "-o", os.devnull, "--wrap", "sleep 3")
    cluster.until(lambda: (folder / "shards/0002/tries.txt").read_text().count("\n") == 2)
    before = runs_of(folder)
    submitted.release()
    try:
        cluster.until(lambda: not cluster.queue())
    finally:
        cluster.revive(nodes["1"])
    run = merged(submitted, folder)
    assert_nothing_lost_or_wrong(run, before)
    tries = {shard["number"]: shard["tries"] for shard in submitted.status(folder)["shards"]}
    assert tries == {1: 2, 2: 2}
    assert nodes["1"] not in {job["node"] for job in jobs_of(run) if job["array_task_id"] == "1"}


@pytest.mark.parametrize(
    ("slurm", "words"),
    [
        ("partition=nosuch,array=2", "there is no partition 'nosuch'; there are gpu, "),
        ("partition=gpu,gres=gpu:b200:1,array=2", "no node has gres=gpu:b200:1: there are gpu:a100:2, gpu:h100:2"),
        ("partition=gpu,array=2000", "arrays of at most 1000 tasks"),
        ("partition=gpu,array=3", "3 shards are more than there are groups: 2"),
        ("partition=gpu,array=2,nodelist=node9", "Slurm refuses the job"),
        ("partition=gpu,no-such-option=3", "unrecognized option '--no-such-option=3'"),
        ("array=2,output=x", "leave output out"),
        ("partition", "'partition' is no option"),
    ],
)
def test_what_the_cluster_has_not_is_said_and_nothing_is_submitted(
    submitted: Submitted, slurm: str, words: str
) -> None:
    (submitted.folder / "suite.yaml").write_text(
        json.dumps({"subjects": ["one"], "axes": {"resolution": [32, 64]}, "policy": {"turns": False}})
    )
    before = submitted.cluster.queue()
    refused = submitted.call("run", "--suite", "./suite.yaml", "--slurm", slurm, code=2)
    assert words in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert submitted.cluster.queue() == before
    assert not list(submitted.folder.glob("results/slurm-*"))
