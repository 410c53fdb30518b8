"""``train``, ``eval``, ``detect`` and ``segment`` with ``--slurm``: one job on several nodes, by torchrun."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from vheatbench.errors import UserError, WorkerError

if TYPE_CHECKING:
    from vheatbench.slurm.folder import ClusterFolder

SLURM = typer.Option(
    "--slurm", help="As a job on a cluster: nodes=2,gres=gpu:h100:4 and any option of sbatch. Submits and returns."
)
MOST_IN_VAIN = 3
"""Tries in a row that left no new checkpoint or record after which a job is given up."""


def submit_processes(slurm: str | None, out: Path = Path("results")) -> None:
    """Submit the command that is being carried out as a job and end; nothing for None.

    Args:
        slurm: what ``--slurm`` is given.
        out: where the folder of the job goes.

    Raises:
        UserError: something is wrong with it. Nothing is submitted then.
        Exit: it was submitted.
    """
    if slurm is None:
        return
    from vheatbench.cli.submit import check_cluster
    from vheatbench.files import write_file
    from vheatbench.slurm import cluster
    from vheatbench.slurm.folder import ClusterFolder
    from vheatbench.slurm.processes import Processes, processes_options, processes_script, with_folder
    from vheatbench.slurm.script import this_program

    options, processes = processes_options(slurm)
    if not cluster.installed():
        raise UserError("--slurm: there is no sbatch here: submit where Slurm is")
    check_cluster(options, out)
    words = _without_slurm(sys.argv[1:])
    folder = ClusterFolder.new(out, "-".join(word for word in words[:2] if not word.startswith("-")))
    script = processes_script(folder, options, this_program())
    wanted = Processes(words=with_folder(words, folder.path), processes=processes, requeue=options.requeue)
    try:
        write_file(folder.path / "processes.json", wanted.model_dump_json())
        write_file(folder.script, script)
        job = cluster.submit(str(folder.script))
    except BaseException:
        shutil.rmtree(folder.path, ignore_errors=True)
        raise
    print(folder.path)
    log = shlex.quote(os.path.relpath(folder.path / "job.log"))
    print(f"job {job}\nwatch: squeue -j {job}; tail -F {log}\nend: scancel {job}", file=sys.stderr)
    raise typer.Exit


def carry_out(folder: ClusterFolder) -> int:
    """The processes of this node, and on the first one what becomes of the job; the exit code."""
    from vheatbench.slurm.processes import going_on, place_of, read_processes, torchrun

    wanted = read_processes(folder)
    place = place_of(os.environ)
    words = going_on(wanted.words, folder.path / "run")
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    module = str(spec.name).removesuffix(".__main__") if spec is not None else "vheatbench"
    command = torchrun(place, wanted.processes, [module, *words])
    print(shlex.join(command), file=sys.stderr, flush=True)
    # torchrun and what it starts are told too: they keep what there is, and this process waits for them
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, frame: None)
    code = subprocess.run(command, stdin=subprocess.DEVNULL).returncode
    if code and place.number == 0:
        _back_into_the_queue(folder, wanted.requeue, words)
    return code if code >= 0 else 128 - code


def _back_into_the_queue(folder: ClusterFolder, wanted: bool, words: list[str]) -> None:
    from vheatbench.slurm import cluster
    from vheatbench.slurm.processes import CHECKPOINTS, in_vain, progress_of, value_of

    job = os.environ.get("SLURM_JOB_ID")
    outs = [Path(value_of(words, *options) or ".") for options in (CHECKPOINTS, ("--resume",), ("--results",))]
    progress = progress_of([folder.path, *(out for out in outs if out != Path() and out.is_dir())])
    if in_vain(folder, progress, MOST_IN_VAIN):
        print(f"given up: the last {MOST_IN_VAIN} tries left nothing new", file=sys.stderr)
        return
    if job is None or not wanted or cluster.job_state(job) != "RUNNING":
        return
    print("back into the queue", file=sys.stderr, flush=True)
    try:
        cluster.requeue(job)
    except WorkerError as error:
        print(f"vheatbench: it cannot: {error}", file=sys.stderr)


def _without_slurm(words: list[str]) -> list[str]:
    """A command line without ``--slurm`` and what it is given."""
    kept: list[str] = []
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word == "--slurm":
            skip = True
        elif not word.startswith("--slurm="):
            kept.append(word)
    return kept
