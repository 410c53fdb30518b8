"""``vheatbench profile``: where a model's time, FLOPs and memory go."""

from __future__ import annotations

import contextlib
import copy
import gzip
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import typer

from vheatbench.cli import exits
from vheatbench.cli.parse import device_kind
from vheatbench.errors import UserError
from vheatbench.files import check_target, reason_of, write_file
from vheatbench.metrics import MIB, MS, MetricInfo
from vheatbench.numbers import Value, value_of

if TYPE_CHECKING:
    from vheatbench.case import Case
    from vheatbench.studies.profile.run import Profile, Row

SHOWN = 20
"""Operators on the terminal; ``--json`` has all."""
CRUMB = 0.001
"""Modules with less than this share of everything stand in one line on the terminal."""


def profile(
    model: str = typer.Option("vheat-t", help="An alias, a timm name or package.module:name."),
    resolution: str = typer.Option("224", help="For example 224 or 480x640 (height x width)."),
    batch: int = typer.Option(1, min=1, help="Images per step."),
    dtype: str = typer.Option("float32", help="float32, tf32, bfloat16 or float16."),
    mode: str = typer.Option("infer", help="infer (deploy form), forward (training form), forward_backward or train."),
    device: str = typer.Option("auto", help="auto, cpu or cuda."),
    compile: bool = typer.Option(False, "--compile", help="Profile under torch.compile: time by operator only."),
    depth: int = typer.Option(2, min=1, help="Levels of module names to tell apart; indices are no level."),
    steps: int = typer.Option(5, min=1, max=1000, help="Profiled steps; medians are shown."),
    out: Path | None = typer.Option(
        None, help="The Chrome trace, gzipped if it ends in .gz; default reports/profile-....json.gz."
    ),
    json_: bool = typer.Option(False, "--json", help="Print as JSON."),
) -> None:
    """Take a step apart: share of time, FLOPs and memory by module, by part of the heat operator, by operator."""
    case = _case(model, resolution, batch, dtype, mode, device, compile)
    path = out if out is not None else Path("reports", _file_name(case))
    _check_writable(path)
    found = _profile(case, steps, depth)
    _write_trace(found.trace, path)
    if json_:
        from vheatbench.cli.output import print_json

        print_json(_as_json(found, path))
    else:
        _print(found)
    print(f"{path}\nopen it in https://ui.perfetto.dev or chrome://tracing", file=sys.stderr)


def _case(model: str, resolution: str, batch: int, dtype: str, mode: str, device: str, compile: bool) -> Case:
    from vheatbench.case import Case, DType, TimedMode
    from vheatbench.suites import parse_resolution

    for option, value, allowed in (("dtype", dtype, get_args(DType)), ("mode", mode, get_args(TimedMode))):
        if value not in allowed:
            raise UserError(f"--{option} {value!r} is not allowed; allowed: {', '.join(allowed)}")
    try:
        size = parse_resolution(resolution)
    except ValueError as error:
        raise UserError(f"--resolution: {error}") from None
    kind, index = device_kind(device)
    if index is not None:
        raise UserError(f"--device {device}: the first visible GPU is profiled; choose it by CUDA_VISIBLE_DEVICES")
    if kind == "auto":
        _prepare_libraries(compile)
        import torch

        kind = "cuda" if torch.cuda.is_available() else "cpu"
    case = Case.model_validate(
        {"subject": model, "resolution": size, "batch": batch, "dtype": dtype, "mode": mode, "device": kind}
        | {"compile": compile}
    )
    if case.kind != "model":
        raise UserError(f"--model {model!r} is no model: 'vheatbench models' lists what can be profiled")
    return case


def _prepare_libraries(compile: bool) -> None:
    """What must be in the environment before torch is imported."""
    from vheatbench.run.process import calm_threads

    os.environ.update(calm_threads())
    if compile:  # the C++ kernels that inductor writes for CPUs show up by name
        os.environ.setdefault("TORCHINDUCTOR_CPP_ENABLE_KERNEL_PROFILE", "1")
    # the profiler's library speaks on stderr of every start and stop
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")


def _file_name(case: Case) -> str:
    parts = [case.subject, case.size, f"b{case.batch}", case.dtype, case.mode, case.device]
    words = "-".join([*parts, "compiled"] if case.compile else parts)
    return f"profile-{''.join(c if c.isalnum() or c in '-_.' else '-' for c in words)}.json.gz"


def _check_writable(path: Path) -> None:
    """Minutes of profiling are not to end in a folder that takes no file."""
    try:
        check_target(path)
    except OSError as error:
        raise UserError(f"--out {path}: cannot be written ({reason_of(error)})") from None


def _profile(case: Case, steps: int, depth: int) -> Profile:
    _prepare_libraries(bool(case.compile))
    # models and libraries print what they like; stdout is for the tables
    with contextlib.redirect_stdout(sys.stderr):
        from vheatbench.run.device import classify
        from vheatbench.studies.profile import run

        try:
            return run.profile(case, steps, depth)
        except UserError:
            raise
        except Exception as error:  # whatever a model raises is said in one line
            print(f"vheatbench: {case.label}: {classify(error)[1]}", file=sys.stderr)
            raise typer.Exit(exits.FAILED) from None


def _write_trace(trace: dict[str, Any], path: Path) -> None:
    text = json.dumps(trace).encode()
    # the same trace gives the same file
    write_file(path, gzip.compress(text, mtime=0) if path.suffix == ".gz" else text)


def _shares(values: list[float | None]) -> list[float | None]:
    """Each value over the sum; None where there is no value or no sum."""
    total = sum(value for value in values if value is not None)
    return [value / total if value is not None and total else None for value in values]


def _columns(rows: list[Row]) -> dict[str, tuple[list[float | None], list[float | None]]]:
    """Values and shares of what the rows know."""
    columns: dict[str, list[float | None]] = {
        "seconds": [row.seconds for row in rows],
        "flops": [row.flops for row in rows],
        "allocated_bytes": [row.allocated_bytes for row in rows],
        "params": [row.params for row in rows],
    }
    return {name: (values, _shares(values)) for name, values in columns.items() if any(values)}


def _as_json(found: Profile, path: Path) -> dict[str, Any]:
    def table(rows: list[Row], key: str) -> list[dict[str, Any]]:
        columns = _columns(rows)
        return [
            {key: row.name, "count": row.count}
            | {name: values[i] for name, (values, _) in columns.items()}
            | {f"{name}_share": shares[i] for name, (_, shares) in columns.items()}
            for i, row in enumerate(rows)
        ]

    shares = _shares([operator.seconds for _, operator in found.operators])
    return {
        "case": found.case.model_dump(mode="json"),
        "device": found.device,
        "form": found.form,
        "precision": found.precision,
        "steps": found.steps,
        "step_s": found.step_s,
        "profiled_step_s": found.profiled_step_s,
        "modules": table(found.modules, "module"),
        "parts": table(found.parts, "part") if found.parts is not None else None,
        "operators": [
            {"operator": name, "calls": operator.calls, "seconds": operator.seconds, "seconds_share": share}
            for (name, operator), share in zip(found.operators, shares, strict=True)
        ],
        "trace": str(path),
    }


def _print(found: Profile) -> None:
    """Three tables on stdout, and beside them on stderr what must be known to read them."""
    clock = "kernels" if found.case.device == "cuda" else "wall clock"
    print(
        f"{found.case.label} on {found.device}, {found.form}, random weights; "
        f"every figure the median of {found.steps} steps, so a table may sum to less than the step\n"
        f"time: {clock} by innermost module or part; FLOPs: forward pass, products only, counted on the meta device; "
        "memory: bytes allocated in a step, freed or not\n"
        f"a step takes {found.step_s * 1e3:.4g} ms, profiled {found.profiled_step_s * 1e3:.4g} ms "
        f"({found.profiled_step_s / found.step_s:.2f}x): what is small and called often looks longer than it is",
        file=sys.stderr,
    )
    if found.case.device == "cuda":
        busy = sum(operator.seconds for _, operator in found.operators)
        print(f"kernels ran for {busy * 1e3:.4g} ms of the profiled step: shares are of that", file=sys.stderr)
    if found.case.compile:
        print("compiled: a kernel spans modules and parts, so time and memory are by operator only", file=sys.stderr)
    _print_rows("By module", "module", _without_crumbs(found.modules))
    if found.parts is not None:
        _print_rows("By part of the heat operator and of the model around it", "part", found.parts)
    _print_operators(found)


def _without_crumbs(rows: list[Row]) -> list[Row]:
    """The rows, those that hold next to nothing of anything summed up in one."""
    shares = [shares for _, shares in _columns(rows).values()]
    crumbs = [row for i, row in enumerate(rows) if all((column[i] or 0) < CRUMB for column in shares)]
    if len(crumbs) < 2:
        return rows
    rest = copy.copy(crumbs[0])
    rest.name, rest.count = f"{len(crumbs)} more, each under {CRUMB:.1%} of everything", 1
    for row in crumbs[1:]:
        rest.flops += row.flops
        rest.params += row.params
        if rest.seconds is not None and rest.allocated_bytes is not None:
            rest.seconds += row.seconds or 0.0
            rest.allocated_bytes += row.allocated_bytes or 0.0
    return [*(row for row in rows if row not in crumbs), rest]


COLUMNS = {
    info.name: info
    for info in (
        MetricInfo("seconds", "time", *MS),
        MetricInfo("flops", "FLOPs", "MFLOP", 1e-6, short="MFLOP"),
        MetricInfo("allocated_bytes", "allocated", *MIB),
        MetricInfo("params", "params", "K", 1e-3),
    )
}
"""How the columns of a row are shown."""


def _print_rows(title: str, key: str, rows: list[Row]) -> None:
    from vheatbench.present.terminal import Column, print_table

    columns = _columns(rows)
    headings = [Column(heading) for known in columns for heading in (COLUMNS[known].terminal_heading, "share")]
    cells = []
    for i, row in enumerate(rows):
        line = [row.name + (f" ×{row.count}" if row.count > 1 else "")]
        for known, (values, shares) in columns.items():
            line += [_number(values[i], COLUMNS[known]), _percent(shares[i])]
        cells.append(line)
    sums = []
    for known, (values, shares) in columns.items():
        sums += [_number(sum(v or 0 for v in values), COLUMNS[known]), _percent(sum(s or 0 for s in shares))]
    print_table([Column(key, "name"), *headings], cells, title=title, total=["sum", *sums])


def _print_operators(found: Profile) -> None:
    from vheatbench.present.terminal import Column, print_table

    rows = [(name, operator.calls, operator.seconds) for name, operator in found.operators]
    if len(rows) > SHOWN:
        rest = rows[SHOWN:]
        rows = [*rows[:SHOWN], (f"{len(rest)} more", sum(r[1] for r in rest), sum(r[2] for r in rest))]
    cells = [
        (operator, f"{calls:g}" if calls else "", _number(seconds, COLUMNS["seconds"]), _percent(share))
        for (operator, calls, seconds), share in zip(rows, _shares([row[2] for row in rows]), strict=True)
    ]
    columns = (Column("operator", "name"), Column("calls"), Column("time ms"), Column("share"))
    print_table(columns, cells, title="By operator, without what it calls")


def _number(value: float | None, info: MetricInfo) -> str:
    return value_of(Value(value), info) if value else ""


def _percent(share: float | None) -> str:
    return f"{share:.1%}" if share else ""
