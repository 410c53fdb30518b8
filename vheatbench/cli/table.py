"""The table of a run on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vheatbench.analysis.outcomes import Outcome
    from vheatbench.analysis.series import Point
    from vheatbench.store.read import Run

COLUMNS = (
    ("latency_s", "latency ms", 1e3),
    ("latency_per_image_s", "ms/image", 1e3),
    ("throughput_images_per_s", "images/s", 1.0),
    ("macs", "GMAC/image", 1e-9),
    ("flops", "GFLOP/image", 1e-9),
    ("params", "params M", 1e-6),
    ("peak_memory_bytes", "peak MiB", 2.0**-20),
    ("peak_memory_per_image_bytes", "peak MiB/image", 2.0**-20),
    ("peak_allocated_bytes", "allocated MiB", 2.0**-20),
    ("peak_allocated_per_image_bytes", "allocated MiB/image", 2.0**-20),
    ("rate_flop_per_s", "GFLOP/s", 1e-9),
    ("bandwidth_bytes_per_s", "GB/s", 1e-9),
    ("energy_per_image_j", "J/image", 1.0),
    ("largest_batch", "largest batch", 1.0),
    ("compile_time_s", "compile s", 1.0),
)
"""Metric, heading with unit, factor from the metric's unit."""

OPERATOR_COLUMNS = (
    ("latency_s", "latency ms", 1e3),
    ("latency_per_image_s", "ms/image", 1e3),
    ("flops_per_step", "GFLOP", 1e-9),
    ("flops_per_image", "GFLOP/image", 1e-9),
    ("min_bytes", "min MiB", 2.0**-20),
    ("min_per_image_bytes", "min MiB/image", 2.0**-20),
    ("rate_flop_per_s", "GFLOP/s", 1e-9),
    ("bandwidth_bytes_per_s", "GB/s", 1e-9),
    ("peak_memory_bytes", "peak MiB", 2.0**-20),
    ("peak_memory_per_image_bytes", "peak MiB/image", 2.0**-20),
    ("energy_per_image_j", "J/image", 1.0),
    ("largest_batch", "largest batch", 1.0),
    ("compile_time_s", "compile s", 1.0),
)
"""The same of a run of operators; FLOPs and least traffic are those of a step, over the whole batch, or per image."""


def print_run(run: Run) -> None:
    """One line per case on stdout; what is wrong with the file and every warning below it, on stderr."""
    from vheatbench.analysis.outcomes import outcomes_of
    from vheatbench.cli.published import print_published
    from vheatbench.present.terminal import Column, print_table, print_warnings

    outcomes = outcomes_of(run.records)
    measured = [outcome.case for outcome in outcomes if outcome.case.kind != "ceiling"]
    variants = list(dict.fromkeys(case.variant for case in measured))
    operators = any(case.kind == "operator" for case in measured)
    columns = OPERATOR_COLUMNS if operators else COLUMNS
    shown = [c for c in columns if any(c[0] in outcome.points for outcome in outcomes)]
    headings = [
        Column("operator" if operators else "model", "name"),
        Column("grid" if operators else "size", "name", right=True),
        *([Column("variant", "name")] if len(variants) > 1 else []),
        *(Column(heading) for _, heading, _ in shown),
        Column("notes", "notes"),
    ]
    rows = []
    for outcome in outcomes:
        case = outcome.case
        # the shape of a ceiling's tensor is no size of the others
        row = [case.subject, "" if case.kind == "ceiling" else case.size]
        if len(variants) > 1:
            row.append(case.dtype if case.kind == "ceiling" else case.variant)
        row += [_cell(outcome, metric, factor) for metric, _, factor in shown]
        rows.append([*row, _notes(outcome)])
    title = f"{run.header.suite} on {run.device_name}, {run.header.created}"
    print_table(headings, rows, title=title, caption=_caption(run, variants))
    print_published(run)
    print_warnings(run.problems, ((outcome.case.label, outcome.warnings) for outcome in outcomes))


def _caption(run: Run, variants: list[str]) -> str:
    words = []
    if len(variants) == 1:
        words.append(variants[0])
    rounds = run.header.rounds
    spread = f"over {rounds} fresh processes" if rounds > 1 else "of the median within a process"
    words.append(f"± is half the interval {spread}; random weights")
    return "; ".join(words)


def _cell(outcome: Outcome, name: str, factor: float) -> str:
    point = outcome.points.get(name)
    if point is None:
        return "" if outcome.status == "ok" else "—"
    return f"{_significant(point.value * factor)}{_half_width(point)}"


def _half_width(point: Point) -> str:
    if point.low is None or point.high is None or point.low == point.high:
        return ""
    return f" ±{(point.high - point.low) / 2 / point.value:.1%}"


def _significant(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _notes(outcome: Outcome) -> str:
    words = []
    if outcome.status != "ok":
        words.append(f"{outcome.status}: {outcome.reason}")
    elif outcome.reason:
        words.append(f"{len(outcome.records) - outcome.rounds} of {len(outcome.records)} rounds: {outcome.reason}")
    if outcome.rounds > 1:
        words.append(f"{outcome.rounds} rounds")
    if outcome.warnings:
        words.append(f"{len(outcome.warnings)} warning{'s' * (len(outcome.warnings) > 1)}")
    return ", ".join(words)
