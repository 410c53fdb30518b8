"""One shard in its job: begin it or go on with it, and go back into the queue where its end came too early."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from vheatbench.cli import exits
from vheatbench.errors import StoreError, UserError, WorkerError
from vheatbench.stop import stoppable

if TYPE_CHECKING:
    from vheatbench.slurm.folder import ClusterFolder, ClusterPlan

MOST_IN_VAIN = 3
"""Tries in a row without a new record after which a shard is given up."""


def measure_shard(folder: ClusterFolder, number: int) -> int:
    """Measure what a shard still lacks; the exit code: 0 once it is finished, whatever its cases gave."""
    from vheatbench.run.whereabouts import whereabouts
    from vheatbench.store.read import PARTIAL

    plan = folder.plan()
    if not 1 <= number <= len(plan.shards):
        raise UserError(f"{folder.path} has {len(plan.shards)} shards: there is no {number}")
    before = folder.run_of(number)
    if before is not None and before.suffix != PARTIAL:
        print(f"shard {number} is finished: {before}", file=sys.stderr)
        return exits.OK
    folder.begin_try(number, folder.records(number), whereabouts())
    code = _try(folder, plan, number, before)
    after = folder.run_of(number)
    if after is not None and after.suffix != PARTIAL:
        _ask_for_less(folder, plan, number, after)
        return exits.OK
    _back_into_the_queue(folder, plan, number)
    return code or exits.FAILED


def _try(folder: ClusterFolder, plan: ClusterPlan, number: int, partial: Path | None) -> int:
    """Begin or resume, and say what went wrong; the exit code."""
    from vheatbench.cli.resume import resume

    try:
        with stoppable(lambda: "nothing was measured yet" if partial is None else f"nothing new in {partial}"):
            if partial is None:
                _begin(folder, plan, number)
            else:
                device = "auto" if plan.devices is not None else plan.kind
                resume(str(partial), folder.shard(number), device, plan.devices, quiet=False)
    except SystemExit as stopped:
        return stopped.code if isinstance(stopped.code, int) else exits.FAILED
    except typer.Exit as ended:
        return ended.exit_code
    except (UserError, StoreError, WorkerError) as error:
        print(f"vheatbench: {error}", file=sys.stderr)
        return exits.code_of(error)
    return exits.OK


def _begin(folder: ClusterFolder, plan: ClusterPlan, number: int) -> None:
    from vheatbench.cli.execute import execute, served_devices, tasks_of
    from vheatbench.run.recording import new_header
    from vheatbench.run.runner import inspect_machine
    from vheatbench.run.task import Planned
    from vheatbench.store.write import RunWriter

    cases, studies = plan.cases_of(number), plan.studies_of(number)
    inspection = inspect_machine([])
    if plan.kind == "cuda" and inspection.cuda_devices == 0:
        note = inspection.environment.get("gpus_note") or "torch sees no CUDA device"
        raise UserError(f"this task has no GPU ({note}): ask for one, as in --slurm gres=gpu:1")
    served = served_devices(plan.kind, plan.device, plan.devices, inspection.cuda_devices)
    header = new_header(
        plan.suite,
        plan.description,
        plan.command,
        inspection.environment,
        plan=[*cases, *(case for study in studies for group in study.groups for case in group.cases)],
        studies=[{"study": study.study, "settings": study.settings} for study in studies],
        rounds=plan.rounds,
        policy=plan.policy,
        reference=plan.reference,
        shard=f"{number}/{len(plan.shards)}",
        common=plan.common,
    )
    writer = RunWriter.create(folder.shard(number), header)
    tasks = [
        task
        for study in studies
        for task in tasks_of(study.study, Planned(groups=study.groups), study.settings, writer.path)
    ]
    execute(writer, served, tasks, quiet=False)


def _back_into_the_queue(folder: ClusterFolder, plan: ClusterPlan, number: int) -> None:
    """Put this task back into the queue, unless that was not wanted or the last tries gave nothing."""
    from vheatbench.slurm import cluster

    job = os.environ.get("SLURM_JOB_ID")
    if job is None or not plan.requeue or folder.jobs().cancelled:
        return
    now = folder.records(number)
    tries = folder.tries(number)
    if len(tries) >= MOST_IN_VAIN and all(one.records == now for one in tries[-MOST_IN_VAIN:]):
        print(f"shard {number} is given up: its last {MOST_IN_VAIN} tries gave no record", file=sys.stderr)
        return
    # what was cancelled, preempted or is over its time is Slurm's to decide on
    if cluster.job_state(job) != "RUNNING":
        return
    print(f"shard {number} goes back into the queue, with {now} records", file=sys.stderr, flush=True)
    try:
        cluster.requeue(job)
    except WorkerError as error:
        print(f"vheatbench: it cannot: {error}", file=sys.stderr)


def _ask_for_less(folder: ClusterFolder, plan: ClusterPlan, number: int, path: Path) -> None:
    """Of the first shard that is finished in one go: with what it took, ask for less time for those that wait."""
    from vheatbench.slurm import cluster
    from vheatbench.slurm.division import minutes_for
    from vheatbench.store.read import read_run

    job = os.environ.get("SLURM_ARRAY_JOB_ID")
    if job is None or plan.minutes is None or len(folder.tries(number)) > 1:
        return
    try:
        (folder.path / "calibrated").touch(exist_ok=False)
    except OSError:  # another was first
        return
    footer = read_run(path).footer
    foreseen = plan.foreseen_s[number - 1]
    if footer is None or not footer.elapsed_s or not foreseen:
        return
    factor = footer.elapsed_s / foreseen
    minutes = minutes_for([seconds * factor for seconds in plan.foreseen_s])
    if minutes < plan.minutes:
        try:
            waiting = cluster.shorten(job, minutes)
        except WorkerError as error:
            print(f"vheatbench: what waits keeps its time: {error}", file=sys.stderr)
            return
        if waiting:
            print(f"{waiting} shards that wait are given {minutes} minutes instead of {plan.minutes}", file=sys.stderr)
