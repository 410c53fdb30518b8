"""``vheatbench profile``: where a model's time, FLOPs and memory go."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import typer

from vheatbench.cli import exits
from vheatbench.cli.execute import DEVICES, MEMORY_LIMIT, TIMEOUT, How, measure_study
from vheatbench.cli.options import DEVICE, JSON, OLD, QUIET, results_option
from vheatbench.cli.parse import check_choice, device_kind, resolution_of
from vheatbench.cli.resume import RESUME, refuse_beside_resume
from vheatbench.cli.resume import resume as go_on
from vheatbench.errors import UserError
from vheatbench.files import check_target, reason_of, write_file
from vheatbench.stop import stoppable

if TYPE_CHECKING:
    from vheatbench.case import Case
    from vheatbench.store.read import Run


def profile(
    context: typer.Context,
    model: str = typer.Option("vheat-t", help="An alias, a timm name or package.module:name."),
    resolution: str = typer.Option("224", help="For example 224 or 480x640 (height x width)."),
    batch: int = typer.Option(1, min=1, help="Images per step."),
    dtype: str = typer.Option("float32", help="float32, tf32, bfloat16 or float16."),
    mode: str = typer.Option("infer", help="infer (deploy form), forward (training form), forward_backward or train."),
    device: str = DEVICE,
    compile: bool = typer.Option(False, "--compile", help="Profile under torch.compile: time by operator only."),
    depth: int = typer.Option(2, min=1, help="Levels of module names to tell apart; indices are no level."),
    steps: int = typer.Option(5, min=1, max=1000, help="Profiled steps; medians are shown."),
    out: Path | None = typer.Option(
        None, "--trace", OLD, help="The Chrome trace, gzipped if it ends in .gz; default reports/profile-....json.gz."
    ),
    timeout: float = TIMEOUT,
    memory_limit: float | None = MEMORY_LIMIT,
    devices: str | None = DEVICES,
    resume: str | None = RESUME,
    results: Path = results_option("Folder for the run's file."),
    json_: bool = JSON,
    quiet: bool = QUIET,
) -> None:
    """Take a step apart: share of time, FLOPs and memory by module, by part of the heat operator, by operator."""
    from vheatbench.store.read import read_run

    if resume is not None:
        refuse_beside_resume(context)
        path = go_on(resume, results, device, devices, quiet, "profile")
    else:
        settings = {
            "model": model,
            "resolution": resolution_of(resolution),
            "batch": batch,
            "dtype": dtype,
            "mode": mode,
            "compile": compile,
            "depth": depth,
            "steps": steps,
        }
        _check(dtype, mode, device)
        if out is not None:
            _check_writable(out)
        path = measure_study(
            "profile",
            settings,
            "profile",
            "Where the time, FLOPs and memory of a step go.",
            How(results, device, devices, timeout, memory_limit, None, quiet),
        )
    run = read_run(path)
    with stoppable(lambda: f"the run is finished: {path}"):
        _show(run, out, json_)


def _show(run: Run, out: Path | None, json_: bool) -> None:
    """Print the profile, write its trace, and end with code 6 where there is none."""
    from vheatbench.studies.profile.results import profile_of
    from vheatbench.studies.profile.table import as_json, print_profile

    (record,) = run.records
    if record.status != "ok":
        print(f"vheatbench: {record.case.label}: {record.reason}", file=sys.stderr)
        raise typer.Exit(exits.FAILED)
    trace = out if out is not None else Path("reports", _file_name(record.case))
    _write_trace(run, trace)
    if json_:
        from vheatbench.cli.output import print_records

        print_records(run, profile=as_json(profile_of(record), str(trace)))
    else:
        print_profile(run)
    print(f"{run.path}\n{trace}\nopen it in https://ui.perfetto.dev or chrome://tracing", file=sys.stderr)


def _check(dtype: str, mode: str, device: str) -> None:
    from vheatbench.case import DType, TimedMode

    check_choice("--dtype", dtype, get_args(DType))
    check_choice("--mode", mode, get_args(TimedMode))
    if device_kind(device)[1] is not None:
        raise UserError(f"--device {device}: choose a GPU by --devices or CUDA_VISIBLE_DEVICES")


def _file_name(case: Case) -> str:
    parts = [case.subject, case.size, f"b{case.batch}", case.dtype, str(case.analysis["step"]), case.device]
    words = "-".join([*parts, "compiled"] if case.compiled else parts)
    return f"profile-{''.join(c if c.isalnum() or c in '-_.' else '-' for c in words)}.json.gz"


def _check_writable(path: Path) -> None:
    """Minutes of profiling are not to end in a folder that takes no file."""
    try:
        check_target(path)
    except OSError as error:
        raise UserError(f"--trace {path}: cannot be written ({reason_of(error)})") from None


def _write_trace(run: Run, path: Path) -> None:
    """Also where ``--trace`` says, as it is or unpacked."""
    from vheatbench.store.attachments import read_attachment

    data = read_attachment(run, run.records[0].files["trace"])
    write_file(path, data if path.suffix == ".gz" else gzip.decompress(data))
