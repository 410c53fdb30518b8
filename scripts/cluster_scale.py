"""What a run of 1,000 shards costs the machine that watches and merges it: no GPU, no Slurm, records are made up.

    python scripts/cluster_scale.py FOLDER [SHARDS] [RECORDS OF A SHARD]

Writes the folder of a run on a cluster whose shards are finished, asks for its status, merges it, and prints seconds,
bytes and the peak of resident memory. FOLDER must not be there.
"""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path

from vheatbench.analysis.machines import machines_of, marks_of
from vheatbench.case import Case
from vheatbench.slurm.division import divide
from vheatbench.slurm.folder import ClusterFolder, ClusterPlan
from vheatbench.slurm.status import status_of
from vheatbench.store.schema import Header, Metric, Record, Samples
from vheatbench.store.slim import merge_files
from vheatbench.store.write import RunWriter

SAMPLES = 60
"""Of a record: its line takes about 3 KB, as that of a short case."""
COMMON = 2
"""Cases that every shard measures."""


def record_of(case: Case, round_: int, node: int) -> Record:
    """A record of a case on a node."""
    metric = Metric(value=0.002 + node * 1e-6, low=0.0019, high=0.0021, unit="s", direction="lower", how="made up")
    return Record(
        case=case, case_id=case.id, round=round_, status="ok", metrics={"latency_s": metric},
        samples={"latency_s": Samples(unit="s", values=[0.002 + i * 1e-7 for i in range(SAMPLES)])},
        conditions={"host": f"node{node}", "slurm": {"node": f"node{node}", "job_id": "7"}, "threads": 2},
        started="2026-01-01T00:00:00+00:00",
    )  # fmt: skip


def main() -> None:
    """Write, look, merge."""
    out = Path(sys.argv[1])
    shards, records = (int(word) for word in (*sys.argv[2:], "1000", "100")[:2])
    rounds = max(1, records // (2 + COMMON))
    cases = [Case(subject=name, resolution=32 * (1 + i)) for i in range(shards) for name in ("one", "two")]
    division = divide(cases, [], {}, rounds, shards)
    folder = ClusterFolder.new(out, "scale")
    plan = ClusterPlan(
        command="",
        suite="scale",
        kind="cpu",
        rounds=rounds,
        cases=cases,
        shards=division.shards,
        common=division.common,
    )
    with Lap("written"):
        folder.make(plan)
        for number in range(1, shards + 1):
            header = Header(
                run_id=f"{number:08d}", suite="scale", command="", created="2026-01-01T00:00:00Z",
                environment={"host": "node"}, plan=plan.cases_of(number), rounds=rounds,
                shard=f"{number}/{shards}", common=division.common,
            )  # fmt: skip
            with RunWriter.create(folder.shard(number), header, sync=False) as writer:
                for round_ in range(rounds):
                    for case in header.plan:
                        writer.append(record_of(case, round_, number % 50))
                writer.finish()
    with Lap("status"):
        now = status_of(folder, folder.plan(), {})
    assert now.finished
    paths = [Path(shard.path) for shard in now.shards if shard.path]
    with Lap("merged"):
        merged = merge_files(paths, out, False, machines_of, marks_of)
    size = sum(path.stat().st_size for path in paths)
    print(f"{sum(shard.done for shard in now.shards):,} records of {shards:,} shards, {size / 2**20:.0f} MiB")
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
    main()
