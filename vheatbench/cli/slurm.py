"""``vheatbench slurm``: runs on a cluster, from submission to the merged file."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from vheatbench.cli import exits
from vheatbench.cli.options import results_option
from vheatbench.errors import UserError, WorkerError

if TYPE_CHECKING:
    from vheatbench.slurm.folder import ClusterFolder
    from vheatbench.slurm.status import RunStatus, ShardStatus

app = typer.Typer(add_completion=False, no_args_is_help=True)

FOLDER = typer.Argument("latest", help="Folder of the run, the beginning of its name in --results, or 'latest'.")
RESULTS = results_option("Where runs are.")
FOLLOW_S = 5.0
"""Seconds between two looks at the files, and six times that between two questions to Slurm."""


@app.callback()
def slurm() -> None:
    """See how a run on a cluster is (``run --slurm``), end it, go on with it."""


@app.command()
def status(
    folder: str = FOLDER,
    results: Path = RESULTS,
    merge_: bool = typer.Option(True, "--merge/--no-merge", help="Merge the shards once all of them are there."),
    json_: bool = typer.Option(False, "--json", help="Print it as JSON on stdout."),
) -> None:
    """How far every shard is, where it is measured, and why it waits."""
    from vheatbench.cli.output import print_json
    from vheatbench.slurm.folder import find_folder

    found = find_folder(folder, results)
    now = _status(found)
    merged = merge_folder(found) if merge_ and now.finished else None
    if json_:
        print_json({"folder": str(found.path), **now.as_json(), "merged": str(merged) if merged else None})
    else:
        _print(now)
        if merged is not None:
            print(f"merged: {merged}\nreport: vheatbench report {shlex.quote(str(merged))}", file=sys.stderr)
        elif now.over and not now.finished:
            print(f"go on with: vheatbench slurm resume {shlex.quote(str(found.path))}", file=sys.stderr)
    if now.over and not now.finished:
        raise typer.Exit(exits.FAILED)


@app.command()
def merge(
    folder: str = FOLDER,
    results: Path = RESULTS,
    allow_mixed: bool = typer.Option(False, help="Merge shards of different environments, marked as such."),
) -> None:
    """Merge what the shards hold now, finished or not."""
    from vheatbench.slurm.folder import find_folder

    print(merge_folder(find_folder(folder, results), allow_mixed, whole=False))


@app.command()
def cancel(folder: str = FOLDER, results: Path = RESULTS) -> None:
    """End the jobs of a run; what is measured is kept, and 'slurm resume' goes on with it."""
    from vheatbench.slurm import cluster
    from vheatbench.slurm.folder import find_folder

    found = find_folder(folder, results)
    jobs = found.jobs()
    found.write_jobs(
        jobs.model_copy(update={"cancelled": True})
    )  # first: what is ended does not go back into the queue
    try:
        for job in [*jobs.merge[-1:], *jobs.array]:
            cluster.cancel(job)
    except WorkerError as error:
        raise UserError(str(error)) from None
    print(f"go on with: vheatbench slurm resume {shlex.quote(str(found.path))}", file=sys.stderr)


@app.command()
def resume(folder: str = FOLDER, results: Path = RESULTS) -> None:
    """Submit the shards again that are not finished and not in the queue."""
    from vheatbench.cli.submit import submit_merge
    from vheatbench.slurm import cluster
    from vheatbench.slurm.folder import find_folder

    found = find_folder(folder, results)
    now = _status(found)
    if not now.asked:
        raise UserError("Slurm does not answer: which shards are in its queue is not known")
    left = [shard.number for shard in now.shards if shard.state in ("not begun", "ended")]
    if not left:
        raise UserError(f"{found.path}: every shard is finished or in the queue")
    tasks = ",".join(f"{a}-{b}" if a < b else f"{a}" for a, b in cluster.ranges(left))
    for number in left:
        found.forget_tries(number)
    jobs = found.jobs()
    jobs.array.append(cluster.submit(str(found.script), f"--array={tasks}"))
    jobs.cancelled = False
    found.write_jobs(jobs)
    notes: list[str] = []
    submit_merge(found, jobs, notes)
    print("\n".join([f"job {jobs.array[-1]}: {len(left)} shards", *notes]), file=sys.stderr)


@app.command()
def logs(
    shard_: int = typer.Argument(min=1, metavar="SHARD", help="Number of the shard."),
    folder: str = FOLDER,
    results: Path = RESULTS,
) -> None:
    """Print what the tries of a shard have said."""
    from vheatbench.slurm.folder import find_folder

    found = find_folder(folder, results)
    count = len(found.plan().shards)
    if shard_ > count:
        raise UserError(f"{found.path} has {count} shards: there is no {shard_}")
    try:
        print(found.log(shard_).read_text(errors="replace"), end="")
    except FileNotFoundError:
        raise UserError(f"shard {shard_} has printed nothing yet") from None


@app.command(hidden=True)
def shard(folder: Path, number: int) -> None:
    """Measure one shard: what a task of the array calls."""
    from vheatbench.cli.shard import measure_shard
    from vheatbench.slurm.folder import ClusterFolder

    raise typer.Exit(measure_shard(ClusterFolder(folder.absolute()), number))


@app.command(hidden=True)
def processes(folder: Path) -> None:
    """Carry out this node's part of a job on several: what its task calls."""
    from vheatbench.cli.processes_job import carry_out
    from vheatbench.slurm.folder import ClusterFolder

    raise typer.Exit(carry_out(ClusterFolder(folder.absolute())))


def follow(folder: ClusterFolder, quiet: bool) -> None:
    """Wait for the end of a run, with progress, and merge it.

    Raises:
        Exit: with the code of the run: 6 where a shard did not come to its end.
    """
    from vheatbench.cli.execute import exit_code
    from vheatbench.present.progress import display
    from vheatbench.stop import stoppable
    from vheatbench.store.read import read_run

    name = shlex.quote(str(folder.path))
    with stoppable(lambda: f"the cluster goes on\nwatch: vheatbench slurm status {name}"), display(quiet) as shown:
        looks = 0
        now = _status(folder)
        while not now.over:
            time.sleep(FOLLOW_S)
            looks += 1
            now = _status(folder, ask=looks % 6 == 0 or now.finished)
            planned = sum(shard.planned for shard in now.shards)
            done = sum(min(shard.done, shard.planned) for shard in now.shards)
            shown.update(done / max(planned, 1), f"{done}/{planned}", _counts(now))
    _print(now)
    if not now.finished:
        print(f"go on with: vheatbench slurm resume {name}", file=sys.stderr)
        raise typer.Exit(exits.FAILED)
    merged = merge_folder(folder)
    print(f"{merged}\nreport: vheatbench report {shlex.quote(str(merged))}", file=sys.stderr)
    raise typer.Exit(exit_code(read_run(merged).records))


def merge_folder(folder: ClusterFolder, allow_mixed: bool = False, whole: bool = True) -> Path:
    """Merge the shards of a run into one file beside its folder; where that was done, the file.

    Args:
        folder: of the run.
        allow_mixed: also what was measured in different environments.
        whole: whether all shards are there; a merged part is not kept in mind.

    Raises:
        UserError: they cannot be merged.
    """
    from vheatbench.analysis.machines import machines_of, marks_of
    from vheatbench.files import lock, write_file
    from vheatbench.present.terminal import print_warnings
    from vheatbench.store.slim import merge_files

    with (folder.path / "merge.lock").open("ab") as held:
        lock(held, wait=True)  # the last job and a user may come at the same time
        if whole and (before := folder.merged()) is not None:
            return before
        paths = [folder.run_of(number) for number in range(1, len(folder.plan().shards) + 1)]
        begun = [path for path in paths if path is not None]
        merged = merge_files(begun, folder.path.parent, allow_mixed, machines_of, marks_of)
        print_warnings(merged.warnings)
        if whole:
            write_file(folder.path / "merged.txt", f"{merged.path.name}\n")
        return merged.path


def _status(folder: ClusterFolder, ask: bool = True) -> RunStatus:
    from vheatbench.slurm import cluster
    from vheatbench.slurm.status import status_of

    plan, jobs = folder.plan(), folder.jobs()
    states: dict[int, cluster.TaskState] | None = {} if ask else None
    for job in jobs.array if ask else []:
        answer = cluster.task_states(job)
        states = None if answer is None or states is None else {**states, **answer}
    return status_of(folder, plan, states)


def _print(now: RunStatus) -> None:
    from vheatbench.numbers import MISSING, clock
    from vheatbench.present.terminal import Column, print_line, print_table

    def row(one: ShardStatus) -> tuple[str, ...]:
        age = clock(one.age_s) if one.age_s is not None and not one.finished else MISSING
        gpu = f"{one.gpu} {one.gpu_uuid[:12]}".strip()
        return (
            f"{one.number}", one.state, f"{one.done}/{one.planned}", f"{one.failed}", age, f"{one.tries}",
            one.node or MISSING, gpu or MISSING, one.reason,
        )  # fmt: skip

    columns = (
        Column("shard"), Column("state", "name"), Column("done"), Column("failed"), Column("last record"),
        Column("tries"), Column("node", "name"), Column("GPU", "name"), Column("notes", "notes"),
    )  # fmt: skip
    print_table(columns, [row(one) for one in now.shards], title="")
    print_line(_counts(now) + ("" if now.asked else " (Slurm does not answer: what runs and waits is not known)"))


def _counts(now: RunStatus) -> str:
    counted: dict[str, int] = {}
    for one in now.shards:
        counted[one.state] = counted.get(one.state, 0) + 1
    return f"{len(now.shards)} shards: " + ", ".join(f"{count} {state}" for state, count in counted.items())
