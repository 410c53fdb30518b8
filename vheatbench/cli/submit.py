"""``vheatbench run --slurm``: plan and check where the user is, then hand it to the cluster."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vheatbench.cli.output import command_line, print_json
from vheatbench.cli.parse import device_kind
from vheatbench.errors import UserError, WorkerError

if TYPE_CHECKING:
    from vheatbench.cli.suite_plan import SuitePlan
    from vheatbench.slurm.division import Division
    from vheatbench.slurm.folder import ClusterFolder, ClusterPlan
    from vheatbench.slurm.options import SlurmOptions


@dataclass(frozen=True)
class How:
    """What the command line says beside the suite."""

    slurm: str
    device: str
    devices: str | None
    out: Path
    dry_run: bool
    wait: bool
    json: bool
    quiet: bool


def refuse_beside_slurm(given: Mapping[str, object]) -> None:
    """Raise UserError where an option is given that ``--slurm`` decides."""
    for option, value in given.items():
        if value is not None:
            more = ": 'vheatbench slurm resume' goes on with a run on a cluster" if option == "--resume" else ""
            raise UserError(f"--slurm divides the run and goes on with it by itself: leave {option} out{more}")


def submit_suite(suite: str, overrides: dict[str, Any], how: How) -> None:
    """Submit a suite; with ``--dry-run``, print the script.

    Raises:
        UserError: something is wrong with what was asked for. Nothing is submitted then.
        Exit: after ``--wait``, with the code of the run.
    """
    from vheatbench.run.whereabouts import TRUST_CUDA
    from vheatbench.slurm import cluster
    from vheatbench.slurm.options import parse_slurm

    options = parse_slurm(how.slurm)
    there = cluster.installed()
    if not there and not how.dry_run:
        raise UserError("--slurm: there is no sbatch here: submit where Slurm is, or see the script with --dry-run")
    limit_s = check_cluster(options, how.out) if there else None
    kind, index = device_kind(how.device)
    if index is not None:
        raise UserError(f"--slurm: Slurm says which GPU a task has: give --device cuda, not {how.device}")
    if kind == "auto":
        kind = "cuda" if options.gpus or how.devices is not None else "cpu"
    from vheatbench.cli.suite_plan import plan_suite
    from vheatbench.suite_file import load_suite

    overrides = {"ceilings": True, **overrides}

    os.environ[TRUST_CUDA] = "1"
    try:
        plan = plan_suite(lambda device: load_suite(suite, device, overrides), kind, foresee=True, elsewhere=True)
    finally:
        del os.environ[TRUST_CUDA]
    _submit(plan, options, limit_s, how, there)


def check_cluster(options: SlurmOptions, out: Path) -> float | None:
    """Raise UserError for what this cluster has not; the longest time of a job in seconds, None where any."""
    from vheatbench.slurm import cluster
    from vheatbench.slurm.shared import local_file_system

    partition = options.sbatch.get("partition")
    try:
        cluster.check_partition(partition)
        cluster.check_gres(options.sbatch.get("gres"), partition)
        most = cluster.max_array_size()
        if most is not None and options.shards > most:
            raise UserError(
                f"--slurm: array={options.shards}: this cluster takes arrays of at most {most} tasks (MaxArraySize)"
            )
        local = None if options.shared else local_file_system(out)
        if local is not None and (hosts := cluster.other_hosts()):
            raise UserError(
                f"--slurm: {out} is on a file system of this machine ({local}), which {hosts[0]} does not see: give a "
                "folder that all nodes have with --out, or say shared=yes where they have this one"
            )
        limits = cluster.partitions()
        asked = [limits.get(name) for name in (partition or cluster.default_partition() or "").split(",")]
    except WorkerError as error:
        raise UserError(f"--slurm: Slurm does not answer: {error}") from None
    known = [limit for limit in asked if limit is not None]
    return min(known, default=None)


def _submit(plan: SuitePlan, options: SlurmOptions, limit_s: float | None, how: How, there: bool) -> None:
    from vheatbench.numbers import clock
    from vheatbench.slurm.division import divide, minutes_for
    from vheatbench.slurm.folder import ClusterFolder
    from vheatbench.slurm.script import array_script, merge_script, this_program

    groups = [group for _, one, _ in plan.studies for group in one.groups]
    forecasts = {forecast.case_id: forecast for forecast in plan.inspection.forecasts}
    policy = plan.suite.policy
    division = divide(plan.cases, groups, forecasts, policy.rounds, options.shards)
    minutes = minutes_for(division.foreseen_s, policy.budget_s)
    notes = []
    if limit_s is not None and minutes * 60 > limit_s:
        minutes = max(1, int(limit_s // 60))
        notes.append("the partition allows less than that: what is not done in time goes back into the queue")
    folder = ClusterFolder.new(how.out, plan.suite.name)
    made = _cluster_plan(plan, division, minutes, options, how)
    script = array_script(folder, options, minutes, this_program())
    time = options.time or clock(minutes * 60)
    guess = "" if all(one.seconds is not None for one in plan.inspection.forecasts) else ", of a GPU that is not here"
    words = (
        f"{options.shards} shards, the longest about {clock(max(division.foreseen_s))} (rough{guess}); "
        f"{time} {'is' if options.time else 'are'} asked for"
    )
    if how.dry_run:
        print(script, end="", flush=True)
        print("\n".join([words, *notes]), file=sys.stderr)
        if not there:
            print(
                "there is no sbatch here: partition, GPUs and the size of the array were not checked", file=sys.stderr
            )
        return
    _hand_over(folder, made, script, merge_script(folder, options, this_program()), notes)
    jobs = folder.jobs()
    if how.json:
        print_json(
            {"folder": str(folder.path), "job": jobs.array[-1], "merge_job": jobs.merge[-1] if jobs.merge else None}
        )
    else:
        print(folder.path)
    name = shlex.quote(os.path.relpath(folder.path))
    notes = [
        f"job {jobs.array[-1]}: {words}",
        *notes,
        f"watch: vheatbench slurm status {name}",
        f"end: vheatbench slurm cancel {name}",
        "the shards are merged by a last job" if jobs.merge else "'slurm status' merges the shards when all are there",
    ]
    print("\n".join(notes), file=sys.stderr)
    if how.wait:
        from vheatbench.cli.slurm import follow

        follow(folder, how.quiet)


def _cluster_plan(plan: SuitePlan, division: Division, minutes: int, options: SlurmOptions, how: How) -> ClusterPlan:
    from vheatbench.slurm.folder import ClusterPlan, StudyPlan

    suite = plan.suite
    return ClusterPlan(
        command=command_line(),
        suite=suite.name,
        description=suite.description,
        kind=plan.kind,
        device=plan.kind if how.devices is None else "auto",
        devices=how.devices,
        rounds=suite.policy.rounds,
        policy=suite.policy.model_dump(mode="json"),
        reference=suite.reference.model_dump(mode="json") if suite.reference else {},
        cases=plan.cases,
        studies=[StudyPlan(study=name, settings=settings, groups=one.groups) for name, one, settings in plan.studies],
        shards=division.shards,
        common=division.common,
        foreseen_s=division.foreseen_s,
        minutes=minutes if options.time is None else None,
        requeue=options.requeue,
    )


def _hand_over(folder: ClusterFolder, plan: ClusterPlan, script: str, merge: str, notes: list[str]) -> None:
    """Write the folder and submit; what Slurm refuses leaves nothing behind."""
    from vheatbench.files import write_file
    from vheatbench.slurm import cluster
    from vheatbench.slurm.folder import Jobs

    try:
        folder.make(plan)
        write_file(folder.script, script)
        write_file(folder.merge_script, merge)
        jobs = Jobs(array=[cluster.submit(str(folder.script))])
    except OSError as error:
        shutil.rmtree(folder.path, ignore_errors=True)
        raise UserError(f"--out {folder.path.parent}: cannot be written ({error.strerror or error})") from None
    except BaseException:
        shutil.rmtree(folder.path, ignore_errors=True)
        raise
    folder.write_jobs(jobs)
    submit_merge(folder, jobs, notes)


def submit_merge(folder: ClusterFolder, jobs: Any, notes: list[str]) -> None:
    """Submit the last job, which waits for the array; a cluster that refuses it is no reason to stop."""
    from vheatbench.slurm import cluster

    try:
        after = f"--dependency=afterany:{jobs.array[-1]}"
        jobs.merge.append(cluster.submit(str(folder.merge_script), after))
    except UserError as error:
        notes.append(f"no last job: {error}")
        return
    folder.write_jobs(jobs)
