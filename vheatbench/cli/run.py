"""``vheatbench run``: carry a suite out."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path

import typer

from vheatbench.cli.execute import check_devices, exit_code, say_skipped
from vheatbench.cli.options import DEVICE_OR_INDEX, JSON, OLD, QUIET, results_option
from vheatbench.cli.output import command_line, print_records
from vheatbench.cli.parse import booleans, comma_list, duration, numbers_or_words, shard
from vheatbench.cli.resume import BESIDE_RESUME, refuse_beside_resume
from vheatbench.cli.resume import resume as go_on
from vheatbench.cli.suite_plan import SuitePlan, carry_out, plan_suite
from vheatbench.errors import UserError
from vheatbench.stop import stoppable


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
    from vheatbench.suite_file import load_suite

    plan = plan_suite(lambda kind: load_suite(suite, kind, overrides), device, devices, shard(shard_), foresee=dry_run)
    if dry_run:
        _show_plan(plan, json_)
        return
    header = plan.header(command_line(), shard_)
    _finish(carry_out(plan, header, out, began, device, devices, quiet), json_)


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
