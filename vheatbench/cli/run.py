"""``vheatbench run``: carry a suite out."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from vheatbench.cli import exits
from vheatbench.cli.output import command_line
from vheatbench.cli.parse import booleans, comma_list, device_kind, device_numbers, numbers_or_words, shard
from vheatbench.errors import StoreError, UserError
from vheatbench.stop import stoppable

if TYPE_CHECKING:
    from vheatbench.case import Case
    from vheatbench.run.task import Inspection
    from vheatbench.store.schema import Header, Record
    from vheatbench.store.write import RunWriter
    from vheatbench.suites import Suite


PLANNED = {"resume", "out", "device", "devices", "json_", "quiet"}
"""Options that may stand beside ``--resume``: they do not change what is measured."""


def run(
    context: typer.Context,
    suite: str = typer.Option("resolution-scaling", help="Name of a suite, or the path of a YAML file."),
    model: str | None = typer.Option(
        None,
        help="Instead of the suite's subjects: aliases, timm names or package.module:name, by commas; or operators "
        "such as op/heat,op/attention.",
    ),
    resolution: str | None = typer.Option(None, help="For example 224,512 or 480x640 (height x width)."),
    grid: str | None = typer.Option(None, help="Of operators, in tokens: for example 14,56 or 14x28."),
    channels: str | None = typer.Option(None, help="Of operators, by commas (96)."),
    part: str | None = typer.Option(None, help="Of operators: core (mixing tokens alone), layer, by commas."),
    batch: str | None = typer.Option(None, help="Images per step, by commas; 'largest' for the largest that fits."),
    dtype: str | None = typer.Option(None, help="float32, tf32, bfloat16, float16, by commas."),
    mode: str | None = typer.Option(
        None,
        help="infer (deploy form), forward (training form), forward_backward, train (with optimizer), by commas.",
    ),
    memory_format: str | None = typer.Option(None, help="contiguous, channels_last, by commas."),
    compile: str | None = typer.Option(None, help="torch.compile: true, false, freezing, cudagraphs."),
    fused_attention: str | None = typer.Option(None, help="Fused attention: true, false, or both by commas."),
    ceilings: bool | None = typer.Option(
        None, "--ceilings/--no-ceilings", help="Also measure a large copy and a large matrix product."
    ),
    device: str = typer.Option("auto", help="auto, cpu, cuda or cuda:INDEX."),
    devices: str | None = typer.Option(None, help="GPUs to use side by side: 0,1 or all. One worker each."),
    rounds: int | None = typer.Option(None, help="Repeat every case in this many fresh processes, interleaved."),
    timeout: float | None = typer.Option(None, help="Seconds that a case may take."),
    memory_limit: float | None = typer.Option(None, help="GiB of host memory that a worker may take."),
    threads: int | None = typer.Option(None, help="CPU threads of a worker."),
    shard_: str | None = typer.Option(None, "--shard", help="i/n: only the i-th of n parts; see 'merge'."),
    resume: str | None = typer.Option(None, help="Continue this unfinished run (a .partial file, or 'latest')."),
    out: Path = typer.Option(Path("results"), help="Folder for the run's file."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Show the cases, their cost and which cannot fit."),
    json_: bool = typer.Option(False, "--json", help="Print the records as JSON on stdout."),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="No progress."),
) -> None:
    """Measure a suite: throughput, latency, FLOPs, peak memory of every case, each in a fresh process."""
    _check_devices(device, devices)
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
        "compile": booleans(compile, "--compile", ("freezing", "cudagraphs")),
        "fused_attention": booleans(fused_attention, "--fused-attention"),
        "ceilings": ceilings,
        "rounds": rounds,
        "timeout_s": timeout,
        "memory_limit_gib": memory_limit,
        "threads": threads,
    }
    overrides = {key: value for key, value in overrides.items() if value is not None}
    if resume is not None:
        others = [name for name in context.params if name not in PLANNED and _given(context, name)]
        if others:
            option = f"--{others[0].rstrip('_').replace('_', '-')}"
            raise UserError(f"--resume continues a run as it was planned: leave {option} out")
        _finish(_resume(resume, out, device, devices, quiet), json_)
        return
    chosen, plan, inspection, kind = _plan(suite, device, devices, overrides, shard(shard_), dry_run)
    if dry_run:
        _show_plan(chosen, plan, inspection, json_)
        return
    served = _served_devices(kind, device, devices, inspection)
    header = _header(chosen, plan, inspection, shard_)
    from vheatbench.store.write import RunWriter

    try:
        writer = RunWriter.create(out, header)
    except ValueError as error:  # an infinite time limit, say
        raise UserError(f"suite {chosen.name!r} cannot be kept: {error}") from None
    _finish(_carry_out(writer, served, quiet), json_)


def _given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _check_devices(device: str, devices: str | None) -> None:
    kind, index = device_kind(device)
    if devices is not None:
        device_numbers(devices)
        if kind == "cpu":
            raise UserError("--devices names GPUs: leave --device cpu out")
        if index is not None:
            raise UserError(f"--devices {devices} and --device {device} name GPUs both: leave one out")


def _plan(
    name: str,
    device: str,
    devices: str | None,
    overrides: dict[str, Any],
    part: tuple[int, int] | None,
    foresee: bool,
) -> tuple[Suite, list[Case], Inspection, str]:
    """The suite for the device that is there, its cases, and what the machine says of them."""
    from vheatbench.run.runner import inspect_machine
    from vheatbench.suite_file import load_suite

    wanted, _ = device_kind(device)
    kind = likely_kind() if wanted == "auto" and devices is None else "cpu" if wanted == "cpu" else "cuda"
    while True:
        suite = load_suite(name, kind, overrides)  # type: ignore[arg-type]
        plan = suite.plan(kind)  # type: ignore[arg-type]
        if part is not None:
            plan = plan[part[0] - 1 :: part[1]]
            if not plan:
                raise UserError(f"--shard {part[0]}/{part[1]}: the suite has only {suite.size} cases")
        inspection = inspect_machine(plan, foresee)
        if kind == "cuda" and inspection.cuda_devices == 0:
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
    return suite, plan, inspection, kind


def likely_kind() -> str:
    """``cuda`` if NVML knows a GPU, else ``cpu``, without importing torch."""
    from vheatbench.measure.nvml import Nvml, open_nvml

    nvml = open_nvml()
    if not isinstance(nvml, Nvml):
        return "cpu"
    boards = nvml.boards()
    nvml.close()
    return "cuda" if isinstance(boards, list) and boards else "cpu"


def _served_devices(kind: str, device: str, devices: str | None, inspection: Inspection) -> list[str]:
    if kind == "cpu":
        return ["cpu"]
    there = inspection.cuda_devices
    indices = [device_kind(device)[1] or 0] if devices is None else device_numbers(devices) or list(range(there))
    if max(indices) >= there:
        raise UserError(f"GPU {max(indices)} does not exist: torch sees {there} (0 to {there - 1})")
    return [f"cuda:{i}" for i in indices]


def _header(suite: Suite, plan: list[Case], inspection: Inspection, part: str | None) -> Header:
    import secrets

    from vheatbench.store.schema import Header
    from vheatbench.text import utc_now

    return Header(
        run_id=secrets.token_hex(4),
        suite=suite.name,
        description=" ".join(suite.description.split()),
        command=command_line(),
        created=utc_now(),
        environment=inspection.environment,
        plan=plan,
        rounds=suite.policy.rounds,
        policy=suite.policy.model_dump(mode="json"),
        reference=suite.reference.model_dump(mode="json") if suite.reference else {},
        shard=part,
    )


def _resume(name: str, out: Path, device: str, devices: str | None, quiet: bool) -> Path:
    from vheatbench.run.runner import inspect_machine
    from vheatbench.store.merge import differing_keys
    from vheatbench.store.read import find_run
    from vheatbench.store.write import RunWriter

    writer = RunWriter.resume(find_run(name, out))
    pairing = writer.header.pairing
    if pairing:
        raise UserError(
            f"{writer.path} is one side of a comparison: continue it with `vheatbench ab --resume {pairing['id']}`"
        )
    plan = writer.header.plan
    if not all(case.timed for case in plan):
        raise UserError(
            f"{writer.path} is an analysis, which cannot be resumed: `vheatbench report` shows what it holds; "
            f"to have it whole, start it again: {writer.header.command}"
        )
    kind = plan[0].device if plan else "cpu"
    wanted, option = (device_kind(device)[0], "--device") if devices is None else ("cuda", "--devices")
    if wanted not in ("auto", kind):
        raise UserError(f"{writer.path} was planned for {kind}, and a case keeps its device: leave {option} out")
    with stoppable(lambda: _kept(writer)):
        inspection = inspect_machine([])
        differing = differing_keys(writer.header.environment, inspection.environment)
        if differing:
            raise UserError(
                f"{writer.path} was begun in another environment ({', '.join(differing[:3])} differ"
                f"{'s' * (len(differing) == 1)}): its numbers would not compare; start a new run"
            )
        if kind == "cuda" and inspection.cuda_devices == 0:
            raise UserError("the run was measured on CUDA, and there is no CUDA device here")
        return _carry_out(writer, _served_devices(kind, device, devices, inspection), quiet)


def _carry_out(writer: RunWriter, served: list[str], quiet: bool) -> Path:
    """Measure what is missing, and return the finished file."""
    with writer, stoppable(lambda: _kept(writer)):
        from vheatbench.run.progress import make_progress
        from vheatbench.run.runner import Runner
        from vheatbench.suites import SuitePolicy, schedule

        header = writer.header
        timetable = schedule(header.plan, header.rounds)
        progress = make_progress(timetable, writer.done, quiet)
        runner = Runner(writer, SuitePolicy.model_validate(header.policy), served, progress)
        try:
            with progress:
                runner.run(timetable)
            return writer.finish()
        except OSError as error:  # no room for temporary files, no more processes
            writer.check()
            resume = f"vheatbench run --resume {shlex.quote(str(writer.path))}"
            raise StoreError(
                f"{error}; the {writer.count} records so far are safe: continue with `{resume}`"
            ) from error


def _kept(writer: RunWriter) -> str:
    """Of a run that was stopped, and how it goes on. Raises StoreError where its file is gone."""
    from vheatbench.store.read import PARTIAL

    writer.check()
    if writer.path.suffix != PARTIAL:
        return f"the run is finished: {writer.path}"
    total = len(writer.header.plan) * writer.header.rounds
    return (
        f"{writer.count} of {total} cases are safe in {writer.path}\n"
        f"continue with: vheatbench run --resume {shlex.quote(str(writer.path))}"
    )


def _finish(path: Path, json_: bool) -> None:
    """Print the run, and say by the exit code whether every case was measured."""
    from vheatbench.cli.table import print_run
    from vheatbench.store.read import read_run

    run = read_run(path)
    with stoppable(lambda: f"the run is finished: {path}"):
        if json_:
            from vheatbench.cli.output import print_json

            print_json({"path": str(path), "records": [record.model_dump(mode="json") for record in run.records]})
        else:
            print_run(run)
    print(f"{path}\nreport: vheatbench report {shlex.quote(str(path))}", file=sys.stderr)
    say_skipped(run.records)
    raise typer.Exit(exit_code(run.records))


def say_skipped(records: Sequence[Record]) -> None:
    """The last line of a run on stderr, where cases were skipped: how many, and why the first was."""
    skipped = [record for record in records if record.status == "skipped"]
    if skipped:
        first = skipped[0]
        was = "was" if len(skipped) == 1 else "were"
        reason = f"{first.case.label}: {first.reason}"
        print(f"{len(skipped)} of {len(records)} cases {was} skipped, not measured: {reason}", file=sys.stderr)


def _show_plan(suite: Suite, plan: list[Case], inspection: Inspection, json_: bool) -> None:
    from vheatbench.cli.output import print_json
    from vheatbench.cli.plan import print_plan

    if json_:
        print_json(
            {
                "cases": [case.model_dump(mode="json") for case in plan],
                "forecasts": [forecast.model_dump() for forecast in inspection.forecasts],
            }
        )
        return
    print_plan(suite, plan, inspection)


def exit_code(records: list[Record]) -> int:
    """0, or 6 when a case failed, ran over its time, or nothing at all was measured."""
    bad = any(record.status in ("failed", "timeout") for record in records)
    return exits.FAILED if bad or not any(record.status == "ok" for record in records) else exits.OK
