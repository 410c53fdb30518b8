"""One command in several processes on the nodes of one allocation: torchrun under srun, and going on after a requeue.

For what is one long job on several GPUs: training, and evaluations of many images.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from vheatbench.errors import UserError
from vheatbench.files import MIB, append, read_bytes, reason_of
from vheatbench.slurm.folder import ClusterFolder
from vheatbench.slurm.options import SlurmOptions, parse_slurm
from vheatbench.slurm.script import WARNING_S, head
from vheatbench.store.read import PARTIAL, list_runs

CHECKPOINT = "checkpoint.pt"
CHECKPOINTS = ("--checkpoints", "--out")
"""What the folder of checkpoints is called on the command line, and what it was called before."""
FIRST_PORT, PORTS = 20000, 30000
"""Where the processes of a job meet: nodes may have several jobs, so that each has a port by its number."""


class Processes(BaseModel):
    """What a job on several nodes carries out."""

    model_config = ConfigDict(extra="ignore")

    words: list[str]
    """The command line, without ``vheatbench``."""
    processes: int
    """On each node."""
    requeue: bool = True


@dataclass(frozen=True)
class Place:
    """A node's part in an allocation, as Slurm tells its tasks."""

    nodes: int
    number: int
    """Of this node, from 0."""
    meeting: str
    """Address of the first node."""
    port: int


def processes_options(text: str) -> tuple[SlurmOptions, int]:
    """``nodes=2,gres=gpu:h100:4`` to options and processes of each node: one for a GPU, or what ``processes=`` says.

    Raises:
        UserError: it is not of that form.
    """
    options = parse_slurm(text)
    if options.shards > 1:
        raise UserError("--slurm: array divides a suite: this command is one job; give nodes=2")
    given = dict(options.sbatch)
    said = given.pop("processes", None)
    if said is not None and not re.fullmatch(r"[1-9][0-9]{0,3}", said):
        raise UserError(f"--slurm: processes={said}: give how many there are on each node")
    gpus = re.search(r"(?:^|,)gpu(?::[A-Za-z][^:,]*)?(?::(\d+))?", given.get("gres") or "")
    per_node = given.get("gpus-per-node") or ""
    counted = per_node.split(":")[-1] if per_node else (gpus[1] or "1" if gpus else "1")
    count = int(said or (counted if counted.isdigit() else "1"))
    return SlurmOptions(given, 1, None, options.time, options.shared), count


def processes_script(folder: ClusterFolder, options: SlurmOptions, command: Sequence[str]) -> str:
    """The script of the job: srun starts one torchrun on each node."""
    lines: dict[str, str | None] = {
        "job-name": folder.path.name[:60],
        **options.sbatch,
        **({"time": options.time} if options.time else {}),
        "ntasks-per-node": "1",
        "requeue": None,
        "signal": f"TERM@{WARNING_S}",
        "open-mode": "append",
        "output": str(folder.path / "job.log").replace("%", "%%"),
    }
    if not options.requeue:
        del lines["requeue"]
    return (
        f"{head(lines)}"
        'if [ -n "${SLURM_CPUS_PER_TASK:-}" ]; then export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"; fi\n'
        f"exec srun {shlex.join([*command, 'slurm', 'processes', str(folder.path)])}\n"
    )


def place_of(environment: Mapping[str, str]) -> Place:
    """This task's part, from what Slurm puts into its environment.

    Raises:
        UserError: this is no task of Slurm.
    """
    try:
        nodes, number, job = (int(environment[f"SLURM_{name}"]) for name in ("NNODES", "NODEID", "JOB_ID"))
        listed = environment.get("SLURM_STEP_NODELIST") or environment["SLURM_JOB_NODELIST"]
    except (KeyError, ValueError):
        raise UserError("this command is for the tasks of a job of Slurm: submit with --slurm") from None
    restart = int(environment.get("SLURM_RESTART_COUNT", "0"))
    return Place(nodes, number, _address(listed), FIRST_PORT + (job * 7 + restart) % PORTS)


def torchrun(place: Place, processes: int, program: Sequence[str]) -> list[str]:
    """The command that starts the processes of this node.

    Args:
        place: of the node.
        processes: on it.
        program: module and its words.
    """
    return [
        *(
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--nnodes",
            f"{place.nodes}",
            "--node-rank",
            f"{place.number}",
        ),
        *("--nproc-per-node", f"{processes}", "--master-addr", place.meeting, "--master-port", f"{place.port}"),
        *("-m", *program),
    ]


def with_folder(words: Sequence[str], folder: Path) -> list[str]:
    """The command with a place of its own for what it goes on from, where the user has given none."""
    words = list(words)
    if words[0] == "train" and not _has(words, *CHECKPOINTS, "--resume"):
        words += [CHECKPOINTS[0], str(folder / "checkpoints")]
    if words[0] == "eval" and not _has(words, "--resume", "--results"):
        words += ["--results", str(folder / "run")]
    return words


def going_on(words: Sequence[str], results: Path | None = None) -> list[str]:
    """The command that goes on where an earlier try was ended; the same where there is nothing to go on from.

    Args:
        words: the command of the first try.
        results: where an evaluation's unfinished file is.
    """
    words = list(words)
    if _has(words, "--resume"):
        return words
    if words[0] == "train":
        return [*words, "--resume", "auto"]
    if words[:2] in (["detect", "train"], ["segment", "train"]):
        out = Path(value_of(words, *CHECKPOINTS) or words[0])
        return [*words, "--resume"] if (out / CHECKPOINT).exists() else words
    if words[0] == "eval" and results is not None:
        begun = [path for path in list_runs(results) if path.suffix == PARTIAL]
        kept = ("--trust-pickle", "--quiet", "-q", "--json")
        if begun:
            return ["eval", "--resume", str(begun[0]), "--results", str(results), *(w for w in words if w in kept)]
    return words


def progress_of(folders: Sequence[Path]) -> str:
    """What changes where a job gets on: the newest checkpoint or run file; empty where there is none."""
    newest = ""
    for folder in folders:
        for pattern in (f"**/{CHECKPOINT}", f"**/*{PARTIAL}", "**/*.jsonl", "**/answers*"):
            for path in folder.glob(pattern):
                try:
                    stamp = f"{path.stat().st_mtime_ns:020d}"
                except OSError:
                    continue
                newest = max(newest, stamp)
    return newest


def in_vain(folder: ClusterFolder, progress: str, most: int) -> bool:
    """Note a try that ended early; whether the last ``most`` have all found and left the same."""
    path = folder.path / "tries.txt"
    with path.open("ab") as file:
        append(
            file.fileno(), json.dumps({"job": os.environ.get("SLURM_JOB_ID"), "progress": progress}).encode() + b"\n"
        )
    lines = [json.loads(line)["progress"] for line in path.read_bytes().splitlines()]
    return len(lines) >= most and len(set(lines[-most:])) == 1


def read_processes(folder: ClusterFolder) -> Processes:
    """Raises UserError where it cannot be read."""
    path = folder.path / "processes.json"
    try:
        return Processes.model_validate_json(read_bytes(path, MIB))
    except OSError as error:
        raise UserError(f"cannot read {path}: {reason_of(error)}") from None
    except ValidationError:
        raise UserError(f"{path} is damaged") from None


def _address(listed: str) -> str:
    """The address of the first of several nodes, ``node[1-3]``: what Slurm's daemons use, which every node reaches."""
    first = _said(["scontrol", "show", "hostnames", listed]).split()
    if not first:
        return listed
    found = re.search(r"NodeAddr=(\S+)", _said(["scontrol", "show", "node", "-o", first[0]]))
    return found[1] if found else first[0]


def _said(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def value_of(words: Sequence[str], *options: str) -> str | None:
    """What a command line gives one of these options, the first that is there; None where it gives none."""
    for place, word in enumerate(words):
        if word in options:
            return next(iter(words[place + 1 :]), "")
        name, sign, value = word.partition("=")
        if sign and name in options:
            return value
    return None


def _has(words: Sequence[str], *options: str) -> bool:
    return value_of(words, *options) is not None
