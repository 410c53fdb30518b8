"""How far the shards of a run on a cluster are: by their run files, and one question to Slurm."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vheatbench.slurm.cluster import TaskState
from vheatbench.slurm.folder import ClusterFolder, ClusterPlan
from vheatbench.store.read import PARTIAL, parse_line

STATUS = re.compile(rb'"status":"(\w+)"')
GPU = re.compile(rb'"gpu_uuid":"([^"\\]+)"')


@dataclass
class ShardStatus:
    """One shard."""

    number: int
    planned: int
    """Measurements in all."""
    done: int = 0
    failed: int = 0
    """Of those that are done: neither measured nor found out to be too large."""
    state: str = "not begun"
    """``finished``, ``running``, ``waiting``, ``ended``: not in the queue and not finished."""
    reason: str = ""
    """Why it waits, or what its log ends with."""
    node: str = ""
    gpu: str = ""
    """Its name."""
    gpu_uuid: str = ""
    age_s: float | None = None
    """Seconds since its file last grew."""
    tries: int = 0
    path: str | None = None

    @property
    def finished(self) -> bool:
        return self.state == "finished"


@dataclass
class RunStatus:
    """A whole run on a cluster."""

    shards: list[ShardStatus]
    asked: bool
    """Whether Slurm has answered."""
    notes: list[str] = field(default_factory=list)

    @property
    def finished(self) -> bool:
        """Whether every shard is."""
        return all(shard.finished for shard in self.shards)

    @property
    def over(self) -> bool:
        """Whether nothing more comes by itself."""
        return self.asked and all(shard.state in ("finished", "ended") for shard in self.shards)

    def as_json(self) -> dict[str, Any]:
        return {"finished": self.finished, "asked": self.asked, "shards": [asdict(one) for one in self.shards]}


def status_of(folder: ClusterFolder, plan: ClusterPlan, states: Mapping[int, TaskState] | None) -> RunStatus:
    """How far every shard is.

    Args:
        folder, plan: of the run.
        states: what Slurm knows of the tasks; None where it has not answered.
    """
    known = {} if states is None else states
    return RunStatus(
        [
            _shard(folder, plan, number, known.get(number), states is not None)
            for number in range(1, len(plan.shards) + 1)
        ],
        states is not None,
    )


def _shard(folder: ClusterFolder, plan: ClusterPlan, number: int, state: TaskState | None, asked: bool) -> ShardStatus:
    found = ShardStatus(number, plan.measurements(number))
    tries = folder.tries(number)
    found.tries = len(tries)
    path = folder.run_of(number)
    if path is not None:
        found.path = str(path)
        _read(path, found)
    if tries:
        found.node = tries[-1].node or tries[-1].host
    if path is not None and path.suffix != PARTIAL:
        found.state = "finished"
        return found
    if state is not None:
        waits = state.state in ("PENDING", "REQUEUED", "REQUEUE_HOLD", "SUSPENDED")
        found.state = "waiting" if waits else "running"
        found.reason = state.reason if waits else ""
        found.node = state.node if state.node and not waits else found.node
    elif not asked:
        found.state = "unknown"
    else:
        found.state = "ended"
        found.reason = _last_line(folder.log(number))
    return found


def _read(path: Path, found: ShardStatus) -> None:
    """Count the records of a file without understanding them: a run may have thousands."""
    try:
        found.age_s = max(0.0, time.time() - path.stat().st_mtime)
        with path.open("rb") as file:
            header = file.readline()
            for line in file:
                if line.startswith(b'{"line":"record"') and line.endswith(b"\n"):
                    status = STATUS.search(line)
                    found.done += 1
                    found.failed += status is not None and status[1] in (b"failed", b"timeout")
                    gpu = GPU.search(line) if not found.gpu_uuid else None
                    found.gpu_uuid = gpu[1].decode("utf-8", "replace") if gpu else found.gpu_uuid
        environment = parse_line(header).get("environment", {})
        gpus = environment.get("gpus") or [{}]
        found.gpu = str(gpus[0].get("name") or "")
    except (OSError, ValueError, AttributeError, TypeError, LookupError):
        return


def _last_line(path: Path) -> str:
    """What a log ends with, for people."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - 8192))
            lines = [line.strip() for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
    except OSError:
        return "it left no log"
    return lines[-1][:200] if lines else "its log is empty"
