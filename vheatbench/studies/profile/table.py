"""Profiles on the terminal, and as JSON."""

from __future__ import annotations

import copy
import sys
from typing import Any

from vheatbench.metrics import MIB, MS, MetricInfo
from vheatbench.numbers import Value, value_of
from vheatbench.store.read import Run
from vheatbench.studies.profile.results import Profile, Row, profile_of

SHOWN = 20
"""Operators on the terminal; ``--json`` has all."""
CRUMB = 0.001
"""Modules with less than this share of everything stand in one line on the terminal."""


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


def as_json(found: Profile, trace: str) -> dict[str, Any]:
    """For ``vheatbench profile --json``; ``trace`` is the path of the Chrome trace."""

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
        "trace": trace,
    }


def print_profile(run: Run) -> None:
    """Three tables for every case on stdout, and beside them on stderr what must be known to read them."""
    from vheatbench.present.terminal import print_warnings

    for record in run.records:
        if record.status == "ok":
            _print(profile_of(record))
        else:
            print(f"{record.case.label}: {record.status}: {record.reason}", file=sys.stderr)
    print_warnings(run.problems, ((record.case.label, record.warnings) for record in run.records))


def _print(found: Profile) -> None:
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
    if found.case.compiled:
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
