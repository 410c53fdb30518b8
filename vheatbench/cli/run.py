"""``vheatbench run``: carry a suite out."""

from __future__ import annotations

import shlex
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from vheatbench.cli.execute import check_devices, execute, exit_code, plan_of, say_skipped, served_devices, tasks_of
from vheatbench.cli.options import DEVICE_OR_INDEX, JSON, OLD, QUIET, results_option
from vheatbench.cli.output import command_line, print_records
from vheatbench.cli.parse import booleans, comma_list, device_kind, duration, numbers_or_words, shard
from vheatbench.cli.resume import BESIDE_RESUME, refuse_beside_resume
from vheatbench.cli.resume import resume as go_on
from vheatbench.errors import UserError
from vheatbench.stop import stoppable

if TYPE_CHECKING:
    from vheatbench.case import Case
    from vheatbench.run.task import Inspection, Planned
    from vheatbench.store.schema import Header
    from vheatbench.suites import Suite


def run(
    context: typer.Context,
    suite: str = typer.Option("overview", help="Name of a suite, or the path of a YAML file."),
    model: str | None = typer.Option(
        None,
        help="Instead of the suite's subjects, and without its studies: aliases, timm names or package.module:name, "
        "by commas; or operators such as op/heat,op/attention.",
    ),
    resolution: str | None = typer.Option(None, help="For example 224,512 or 480x640 (height x width)."),
    grid: str | None = typer.Option(None, help="Of operators, in tokens: for example 14,56 or 14x28."),
    channels: str | None = typer.Option(None, help="Of operators, by commas (96)."),
    part: str | None = typer.Option(None, help="Of operators: core (mixing tokens alone), layer, by commas."),
    batch: str | None = typer.Option(None, help="Images per step, by commas; 'largest' for the largest that fits."),
    dtype: str | None = typer.Option(None, help="float32, tf32, bfloat16, float16, int8, by commas."),
    mode: str | None = typer.Option(
        None,
        help="infer (deploy form), forward (training form), forward_backward, train (with optimizer), by commas.",
    ),
    memory_format: str | None = typer.Option(None, help="contiguous, channels_last, by commas."),
    engine: str | None = typer.Option(
        None,
        help="How models are run: eager, compiled, compiled-freezing, compiled-cudagraphs, compiled-max-autotune, "
        "onnxruntime, openvino, tensorrt, by commas.",
    ),
    compile: str | None = typer.Option(
        None, help="The older name of some engines: false is eager, true compiled; freezing, cudagraphs."
    ),
    dynamic: str | None = typer.Option(
        None, help="Whether compiled and exported models leave their sizes open: true, false, or both by commas."
    ),
    fused_attention: str | None = typer.Option(None, help="Fused attention: true, false, or both by commas."),
    ceilings: bool | None = typer.Option(
        None, "--ceilings/--no-ceilings", help="Also measure a large copy and a large matrix product."
    ),
    device: str = DEVICE_OR_INDEX,
    devices: str | None = typer.Option(None, help="GPUs to use side by side: 0,1 or all. One worker each."),
    rounds: int | None = typer.Option(None, help="Repeat every case in this many fresh processes, interleaved."),
    budget: str | None = typer.Option(
        None, help="Time for it all (3m): every case once, then further rounds where the ratios are known worst."
    ),
    turns: bool | None = typer.Option(
        None, "--turns/--no-turns", help="Whether what is compared is sampled in turns, a tenth of a second each."
    ),
    timeout: float | None = typer.Option(None, help="Seconds that a case may take."),
    memory_limit: float | None = typer.Option(None, help="GiB of host memory that a worker may take."),
    threads: int | None = typer.Option(None, help="CPU threads of a worker."),
    shard_: str | None = typer.Option(None, "--shard", help="i/n: only the i-th of n parts; see 'merge'."),
    resume: str | None = typer.Option(None, help="Continue this unfinished run (a .partial file, or 'latest')."),
    out: Path = results_option("Folder for the run's file.", OLD),
    slurm: str | None = typer.Option(
        None,
        help="On a cluster: partition=gpu,gres=gpu:h100:1,array=8 and any option of sbatch. Submits and returns; "
        "see 'slurm'.",
    ),
    wait: bool = typer.Option(False, "--wait", help="With --slurm: follow it to its end."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Show the cases, their cost and which cannot fit."),
    json_: bool = JSON,
    quiet: bool = QUIET,
) -> None:
    """Measure a suite: throughput, latency, FLOPs, peak memory of every case, each in a fresh process."""
    began = time.monotonic()
    check_devices(device, devices)
    budget_s = duration(budget, "--budget")
    overrides = {
        "subjects": comma_list(model),
        "resolution": comma_list(resolution),
        "grid": comma_list(grid),
        "channels": numbers_or_words(channels),
        "part": comma_list(part),
        "batch": numbers_or_words(batch),
        "dtype": comma_list(dtype),
        "mode": comma_list(mode),
        "memory_format": comma_list(memory_format),
        "engine": comma_list(engine),
        "compile": booleans(compile, "--compile", ("freezing", "cudagraphs")),
        "dynamic": booleans(dynamic, "--dynamic"),
        "fused_attention": booleans(fused_attention, "--fused-attention"),
        "ceilings": ceilings,
        "rounds": rounds,
        "budget_s": budget_s,
        "turns": turns,
        "timeout_s": timeout,
        "memory_limit_gib": memory_limit,
        "threads": threads,
    }
    overrides = {key: value for key, value in overrides.items() if value is not None}
    if slurm is not None:
        from vheatbench.cli.submit import How, refuse_beside_slurm, submit_suite

        refuse_beside_slurm({"--shard": shard_, "--resume": resume})
        submit_suite(suite, overrides, How(slurm, device, devices, out, dry_run, wait, json_, quiet))
        return
    if wait:
        raise UserError("--wait follows what --slurm has submitted: give --slurm too")
    if resume is not None:
        refuse_beside_resume(context, BESIDE_RESUME | {"budget"})
        _finish(go_on(resume, out, device, devices, quiet, budget=budget_s), json_)
        return
    plan = plan_suite(suite, device, devices, overrides, shard(shard_), dry_run)
    if dry_run:
        _show_plan(plan, json_)
        return
    served = served_devices(plan.kind, device, devices, plan.inspection.cuda_devices)
    from vheatbench.store.write import RunWriter

    try:
        writer = RunWriter.create(out, _header(plan, shard_))
    except ValueError as error:  # an infinite time limit, say
        raise UserError(f"suite {plan.suite.name!r} cannot be kept: {error}") from None
    tasks = [task for study in plan.studies for task in tasks_of(*study, writer.path)]
    budget_s = plan.suite.policy.budget_s
    left = budget_s - (time.monotonic() - began) if budget_s is not None else None
    _finish(execute(writer, served, tasks, quiet, left), json_)


@dataclass(frozen=True)
class SuitePlan:
    """A suite for the device that is there, its timed cases and studies, and what the machine says of them."""

    suite: Suite
    kind: str
    cases: list[Case]
    studies: list[tuple[str, Planned, dict[str, Any]]]
    """Name, plan and settings."""
    inspection: Inspection

    @property
    def all_cases(self) -> list[Case]:
        groups = [group for _, planned, _ in self.studies for group in planned.groups]
        return self.cases + [case for group in groups for case in group.cases]


def plan_suite(
    name: str,
    device: str,
    devices: str | None,
    overrides: dict[str, Any],
    part: tuple[int, int] | None,
    foresee: bool,
    elsewhere: bool = False,
) -> SuitePlan:
    """A suite for the device that is there, or with ``elsewhere`` for one that other machines have."""
    from vheatbench.run.runner import inspect_machine
    from vheatbench.suite_file import load_suite
    from vheatbench.suites import groups_of

    wanted, _ = device_kind(device)
    kind = likely_kind() if wanted == "auto" and devices is None else "cpu" if wanted == "cpu" else "cuda"
    while True:
        suite = load_suite(name, kind, overrides)  # type: ignore[arg-type]
        cases = suite.plan(kind)  # type: ignore[arg-type]
        groups = groups_of(cases)
        of = len(groups)
        if part is not None:  # what is compared stays together
            cases = [case for group in groups[part[0] - 1 :: part[1]] for case in group]
        inspection = inspect_machine(cases, foresee)
        if kind == "cuda" and inspection.cuda_devices == 0 and not elsewhere:
            if wanted == "auto" and devices is None:
                print("torch sees no CUDA device (is it a CPU build?): measuring on the CPU", file=sys.stderr)
                kind = "cpu"
                continue
            note = inspection.environment.get("gpus_note") or "torch sees no CUDA device"
            raise UserError(f"CUDA was asked for, but there is none here: {note}")
        break
    if inspection.problems:
        more = f" (and {len(inspection.problems) - 1} more)" if len(inspection.problems) > 1 else ""
        raise UserError(inspection.problems[0] + more)
    studies = _studies(suite, kind)
    if part is not None:
        for _, planned, _ in studies:
            here = [group for i, group in enumerate(planned.groups, start=of) if i % part[1] == part[0] - 1]
            of += len(planned.groups)
            planned.groups = here
        if not cases and not any(planned.groups for _, planned, _ in studies):
            raise UserError(f"--shard {part[0]}/{part[1]}: the suite has only {of} groups of cases")
    return SuitePlan(suite, kind, cases, studies, inspection)


def _studies(suite: Suite, kind: str) -> list[tuple[str, Planned, dict[str, Any]]]:
    """The studies of a suite as they were planned."""
    found = []
    for i, entry in enumerate(suite.studies):
        where = f"suite {suite.name!r}, studies.{i}.{entry.study}"
        try:
            planned, settings = plan_of(entry.study, {"device": kind, **entry.settings})
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
        found.append((entry.study, planned, settings))
    return found


def likely_kind() -> str:
    """``cuda`` if NVML knows a GPU, else ``cpu``, without importing torch."""
    from vheatbench.measure.nvml import Nvml, open_nvml

    nvml = open_nvml()
    if not isinstance(nvml, Nvml):
        return "cpu"
    boards = nvml.boards()
    nvml.close()
    return "cuda" if isinstance(boards, list) and boards else "cpu"


def _header(plan: SuitePlan, part: str | None) -> Header:
    from vheatbench.run.recording import new_header

    suite = plan.suite
    return new_header(
        suite.name,
        suite.description,
        command_line(),
        plan.inspection.environment,
        plan=plan.all_cases,
        studies=[{"study": name, "settings": settings} for name, _, settings in plan.studies],
        rounds=suite.policy.rounds,
        policy=suite.policy.model_dump(mode="json"),
        reference=suite.reference.model_dump(mode="json") if suite.reference else {},
        shard=part,
    )


def _finish(path: Path, json_: bool) -> None:
    """Print the run, and say by the exit code whether every case was measured."""
    from vheatbench.cli.show import print_parts
    from vheatbench.report.story import story_of_run
    from vheatbench.store.read import read_run

    run = read_run(path)
    with stoppable(lambda: f"the run is finished: {path}"):
        if json_:
            print_records(run)
        else:
            for sentence in story_of_run(run).sentences:
                print(sentence.text)
            print_parts(run)
    print(f"{path}\nreport: vheatbench report {shlex.quote(str(path))}", file=sys.stderr)
    say_skipped(run.records)
    raise typer.Exit(exit_code(run.records))


def _show_plan(plan: SuitePlan, json_: bool) -> None:
    from vheatbench.cli.output import print_json
    from vheatbench.cli.plan import print_plan

    if json_:
        print_json(
            {
                "cases": [case.model_dump(mode="json") for case in plan.all_cases],
                "forecasts": [forecast.model_dump() for forecast in plan.inspection.forecasts],
            }
        )
        return
    groups = [(name, group) for name, planned, _ in plan.studies for group in planned.groups]
    print_plan(plan.suite, plan.cases, plan.inspection, groups)
