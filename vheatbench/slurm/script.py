"""The scripts that sbatch is given: for the array of shards, and for the last job, which merges."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Sequence

from vheatbench.slurm.folder import ClusterFolder
from vheatbench.slurm.options import SlurmOptions

WARNING_S = 120
"""Seconds before the end at which a task is told; Slurm may say so up to a minute earlier."""
MERGE_MINUTES = 30
OF_DEVICES = re.compile(
    r"gres.*|gpu.*|cpus-per-gpu|mem-per-gpu|exclusive|mem.*|cpus.*|dependency|nodelist|hold|no-requeue"
)
"""Options that a job which only merges has not."""


def array_script(folder: ClusterFolder, options: SlurmOptions, minutes: int | None, command: Sequence[str]) -> str:
    """The script of the array: one task measures one shard.

    Args:
        folder: of the run.
        options: what the user asks for.
        minutes: the time to ask for, where the user has said none.
        command: that starts vheatbench.
    """
    throttle = f"%{options.throttle}" if options.throttle else ""
    lines = {
        "job-name": _slug(folder.path.name),
        **options.sbatch,
        "array": f"1-{options.shards}{throttle}",
        "ntasks": "1",
        "time": options.time or f"{minutes}",
        "requeue": None,
        "signal": f"TERM@{WARNING_S}",
        "open-mode": "append",
        "output": f"{_pattern(folder)}/%a.log",
    }
    if not options.requeue:
        del lines["requeue"]
    return (
        f"{head(lines)}"
        "# srun: the signal goes to what it starts, which keeps what is measured and goes back into the queue\n"
        'if [ -n "${SLURM_CPUS_PER_TASK:-}" ]; then export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"; fi\n'
        f'exec srun {shlex.join([*command, "slurm", "shard", str(folder.path)])} "$SLURM_ARRAY_TASK_ID"\n'
    )


def merge_script(folder: ClusterFolder, options: SlurmOptions, command: Sequence[str]) -> str:
    """The script of the last job: it merges what the shards have measured, on a core of any node."""
    kept = {name: value for name, value in options.sbatch.items() if not OF_DEVICES.fullmatch(name)}
    lines = {
        "job-name": _slug(f"merge-{folder.path.name}"),
        **kept,
        "ntasks": "1",
        "time": f"{MERGE_MINUTES}",
        "requeue": None,
        "open-mode": "append",
        "output": f"{_pattern(folder)}/merge.log",
    }
    return f"{head(lines)}exec srun {shlex.join([*command, 'slurm', 'status', str(folder.path)])}\n"


def this_program() -> list[str]:
    """The command that starts this program again, the same code by the same interpreter."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is not None:
        return [sys.executable, "-m", str(spec.name).removesuffix(".__main__")]
    return [sys.executable, os.path.abspath(sys.argv[0])]


def head(options: dict[str, str | None]) -> str:
    """The first lines of a script: what is asked of sbatch."""
    lines = [f"#SBATCH --{name}" + ("" if value is None else f"={_quoted(value)}") for name, value in options.items()]
    return "#!/bin/bash\n" + "\n".join(lines) + "\n\n"


def _quoted(value: str) -> str:
    """As sbatch reads it: a blank ends a word, and a # the line."""
    return f'"{value}"' if re.search(r"[\s#;'&|<>()$`]", value) else value


def _pattern(folder: ClusterFolder) -> str:
    """The folder of the logs, in which Slurm replaces nothing."""
    return str(folder.logs).replace("%", "%%")


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text)[:60]
