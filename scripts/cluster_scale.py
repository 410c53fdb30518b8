"""What a run of 1,000 shards costs the machine that watches and merges it, and Slurm where there is one; no GPU.

    python scripts/cluster_scale.py FOLDER [SHARDS] [RECORDS OF A SHARD]
    python scripts/cluster_scale.py --slurm FOLDER [SHARDS] [RECORDS OF A SHARD]

Writes the folder of a run on a cluster, has its shards measured by stubs whose records are made up, asks for its
status, merges it, and prints seconds, bytes and the peak of resident memory. With ``--slurm`` the stubs are the tasks
of a job array that is submitted as ``vheatbench run --slurm`` submits one, and the merge is its last job. FOLDER must
not be there.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from pathlib import Path

from vheatbench.analysis.machines import machines_of, marks_of
from vheatbench.case import Case
from vheatbench.slurm import cluster
from vheatbench.slurm.division import divide
from vheatbench.slurm.folder import ClusterFolder, ClusterPlan, Jobs
from vheatbench.slurm.options import parse_slurm
from vheatbench.slurm.script import array_script, merge_script
from vheatbench.slurm.status import status_of
from vheatbench.store.schema import Header, Metric, Record, Samples
from vheatbench.store.slim import merge_files
from vheatbench.store.write import RunWriter

SAMPLES = 60
"""Of a record: its line takes about 3 KB, as that of a short case."""
COMMON = 2
"""Cases that every shard measures."""
NODES = 50
"""That the records name, where there is no Slurm."""
PATIENCE_S = 3600.0


def record_of(case: Case, round_: int, node: int) -> Record:
    """A record of a case on a node."""
    metric = Metric(value=0.002 + node * 1e-6, low=0.0019, high=0.0021, unit="s", direction="lower", how="made up")
    return Record(
        case=case, case_id=case.id, round=round_, status="ok", metrics={"latency_s": metric},
        samples={"latency_s": Samples(unit="s", values=[0.002 + i * 1e-7 for i in range(SAMPLES)])},
        conditions={"host": f"node{node}", "slurm": {"node": f"node{node}", "job_id": "7"}, "threads": 2},
        started="2026-01-01T00:00:00+00:00",
    )  # fmt: skip


def plan_of(shards: int, records: int) -> ClusterPlan:
    """Two cases for each shard beside those that all have."""
    rounds = max(1, records // (2 + COMMON))
    cases = [Case(subject=name, resolution=32 * (1 + i)) for i in range(shards) for name in ("one", "two")]
    division = divide(cases, [], {}, rounds, shards)
    return ClusterPlan(
        command="", suite="scale", kind="cpu", rounds=rounds, cases=cases, shards=division.shards,
        common=division.common,
    )  # fmt: skip


def measure(folder: ClusterFolder, plan: ClusterPlan, number: int, sync: bool) -> None:
    """What a worker of a shard would leave."""
    header = Header(
        run_id=f"{number:08d}", suite="scale", command="", created="2026-01-01T00:00:00Z",
        environment={"host": "node"}, plan=plan.cases_of(number), rounds=plan.rounds,
        shard=f"{number}/{len(plan.shards)}", common=plan.common,
    )  # fmt: skip
    with RunWriter.create(folder.shard(number), header, sync=sync) as writer:
        for round_ in range(plan.rounds):
            for case in header.plan:
                writer.append(record_of(case, round_, number % NODES))
        writer.finish()


def by_slurm(folder: ClusterFolder, shards: int) -> None:
    """Submit the array and its last job, and wait for both."""
    options = parse_slurm(f"array={shards}")
    this = [sys.executable, str(Path(__file__).resolve()), "--task"]
    folder.script.write_text(array_script(folder, options, 60, this))
    folder.merge_script.write_text(merge_script(folder, options, [sys.executable, "-m", "vheatbench"]))
    with Lap("submitted"):
        job = cluster.submit(str(folder.script))
        merge = cluster.submit(str(folder.merge_script), f"--dependency=afterany:{job}")
    folder.write_jobs(Jobs(array=[job], merge=[merge]))
    with Lap("array"):
        _wait(job, folder, shards)
    with Lap("last job, with the merge"):
        _wait(merge, folder, shards)
    print("merged by the last job:", *(path.name for path in folder.path.parent.glob("*.jsonl")))


def _wait(job: str, folder: ClusterFolder, shards: int) -> None:
    """Until Slurm does not have the job any more; what its queue takes to be asked is said once."""
    began = time.monotonic()
    asked: list[float] = []
    while time.monotonic() - began < PATIENCE_S:
        before = time.monotonic()
        waiting = cluster.task_states(job)
        asked.append(time.monotonic() - before)
        if waiting is not None and not waiting and cluster.job_state(job) in ("COMPLETED", "FAILED", ""):
            print(f"squeue of {shards:,} tasks: at most {1e3 * max(asked):.0f} ms, asked {len(asked)} times")
            return
        time.sleep(2)
    raise SystemExit(f"job {job} has not ended in {PATIENCE_S:g} s: see {folder.logs}")


def main() -> None:
    """Write, look, merge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slurm", action="store_true")
    parser.add_argument("folder", type=Path)
    parser.add_argument("shards", type=int, nargs="?", default=1000)
    parser.add_argument("records", type=int, nargs="?", default=100)
    asked = parser.parse_args()
    plan = plan_of(asked.shards, asked.records)
    folder = ClusterFolder.new(asked.folder, "scale")
    folder.make(plan)
    if asked.slurm:
        by_slurm(folder, asked.shards)
    else:
        with Lap("written"):
            for number in range(1, asked.shards + 1):
                measure(folder, plan, number, sync=False)
    with Lap("status"):
        now = status_of(folder, folder.plan(), {})
    assert now.finished
    paths = [Path(shard.path) for shard in now.shards if shard.path]
    with Lap("merged"):
        merged = merge_files(paths, asked.folder / "again", False, machines_of, marks_of)
    size = sum(path.stat().st_size for path in paths)
    print(f"{sum(shard.done for shard in now.shards):,} records of {asked.shards:,} shards, {size / 2**20:.0f} MiB")
    print(f"merged: {merged.path.stat().st_size / 2**20:.0f} MiB; {len(merged.warnings)} warnings")
    print(f"peak of resident memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


class Lap:
    """Prints how long a block took."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        self._began = time.monotonic()

    def __exit__(self, *error: object) -> None:
        print(f"{self._name}: {time.monotonic() - self._began:.1f} s", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--task"]:  # what the array's script starts: --task slurm shard FOLDER NUMBER
        own = ClusterFolder(Path(sys.argv[-2]))
        measure(own, own.plan(), int(sys.argv[-1]), sync=True)
    else:
        main()
