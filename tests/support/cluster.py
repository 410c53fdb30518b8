"""A real Slurm with three virtual nodes and fake GPUs on this machine, and runs of stub workers on it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.stub_worker import PYTHONPATH

SCRIPTS = Path(__file__).parent / "slurm"
NEEDED = ("slurmctld", "slurmd", "sbatch", "munged")
PATIENCE_S = 90.0


def missing() -> str | None:
    """Why there can be no cluster here; None where there can."""
    lacking = [name for name in NEEDED if shutil.which(name) is None]
    if lacking:
        return f"no Slurm here ({', '.join(lacking)}: apt-get install slurmctld slurmd slurm-client munge)"
    if os.getuid() != 0:
        return "Slurm's daemons were only tried as root"
    return None


@dataclass
class Cluster:
    """Nodes ``node1`` to ``node3`` with two GPUs each, h100 on the first two and a100 on the third."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        return {"SLURM_CONF": str(self.folder / "slurm.conf")}

    def start(self) -> None:
        self._script("start.sh", str(self.folder), GPU_TYPES="h100 h100 a100", PYTHON=sys.executable)

    def stop(self) -> None:
        self._script("stop.sh", str(self.folder))

    def kill(self, node: str) -> None:
        """Take a node its power."""
        self._script("kill_node.sh", node, str(self.folder))

    def revive(self, node: str) -> None:
        """Start it again, and wait until it takes jobs."""
        self.ask("slurmd", "-N", node)
        self.until(lambda: "idle" in self.ask("sinfo", "-h", "-N", "-n", node, "-p", "gpu", "-o", "%t"))

    def ask(self, *command: str) -> str:
        """What a command of Slurm prints."""
        done = subprocess.run(
            command, env={**os.environ, **self.environment}, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def queue(self) -> list[str]:
        """Task and state of everything in the queue: ``5_1 RUNNING node2``."""
        return self.ask("squeue", "-h", "-r", "-o", "%i %T %N").splitlines()

    def until(self, condition: Any, patience_s: float = PATIENCE_S) -> Any:
        """Wait for something, which is returned."""
        end = time.monotonic() + patience_s
        while not (found := condition()):
            assert time.monotonic() < end, self._trouble()
            time.sleep(0.2)
        return found

    def _trouble(self) -> str:
        return "waited in vain: " + "; ".join(self.queue())

    def _script(self, name: str, *arguments: str, **variables: str) -> None:
        done = subprocess.run(
            ["bash", str(SCRIPTS / name), *arguments],
            env={**os.environ, **variables}, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr


class Submitted:
    """A run of stub workers on a cluster, in a folder of its own."""

    def __init__(self, cluster: Cluster, folder: Path, **variables: str) -> None:
        self.cluster = cluster
        self.folder = folder
        self.variables = {"STUB": str(folder), "PYTHONPATH": PYTHONPATH, "NO_COLOR": "1", **variables}

    def call(self, *words: str, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        """The command line, whose workers, also those on the cluster, are stubs."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM", "COLUMNS"))}
        done = subprocess.run(
            [sys.executable, "-m", "support.stub_worker", *words],
            cwd=self.folder, env={**kept, **self.cluster.environment, **self.variables},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=180,
        )  # fmt: skip
        assert code is None or done.returncode == code, done.stdout + done.stderr
        return done

    def submit(self, slurm: str, *words: str, subjects: tuple[str, ...] = ("one",), sizes: int = 2) -> Path:
        """Submit a suite of so many groups; the folder of the run."""
        suite = {
            "subjects": list(subjects),
            "axes": {"resolution": [32 * (1 + i) for i in range(sizes)]},
            "policy": {"turns": False},
        }
        (self.folder / "suite.yaml").write_text(json.dumps(suite))
        done = self.call("run", "--suite", "./suite.yaml", "--no-ceilings", "--slurm", slurm, *words)
        return Path(done.stdout.splitlines()[0])

    def status(self, folder: Path, code: int | None = 0) -> dict[str, Any]:
        """``slurm status`` as JSON."""
        return json.loads(self.call("slurm", "status", str(folder), "--json", "--no-merge", code=code).stdout)

    def hold(self) -> None:
        """Let the subject ``held`` wait."""
        (self.folder / "hold").touch()

    def release(self) -> None:
        (self.folder / "hold").unlink()

    def held(self) -> list[Path]:
        """One file for every worker that waits or has waited."""
        return list(self.folder.glob("pid-*"))
