"""The table of all records: which columns it has, and what stands in a cell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vheatbench.analysis.outcomes import Outcome
from vheatbench.report import numbers

COLUMNS = (
    ("latency_s", "latency (ms)", 1e3),
    ("throughput_images_per_s", "images/s", 1.0),
    ("rate_flop_per_s", "GFLOP/s", 1e-9),
    ("bandwidth_bytes_per_s", "GB/s", 1e-9),
    ("macs", "GMAC per image", 1e-9),
    ("flops", "GFLOP per image", 1e-9),
    ("min_bytes", "least traffic (MiB per step)", 2.0**-20),
    ("params", "parameters (M)", 1e-6),
    ("peak_memory_bytes", "peak memory (MiB)", 2.0**-20),
    ("peak_allocated_bytes", "torch allocator peak (MiB)", 2.0**-20),
    ("peak_reserved_bytes", "reserved (MiB)", 2.0**-20),
    ("nvml_process_bytes", "NVML process (MiB)", 2.0**-20),
    ("energy_per_image_j", "J per image", 1.0),
    ("largest_batch", "largest batch", 1.0),
    ("compile_time_s", "compile (s)", 1.0),
)
"""Metric, heading with unit, factor."""


def columns_of(outcomes: Sequence[Outcome]) -> list[tuple[str, str, float]]:
    """The columns that any outcome fills. Images per second are a model's."""
    return [
        column
        for column in COLUMNS
        if any(
            column[0] in outcome.points and (column[0] != "throughput_images_per_s" or outcome.case.kind == "model")
            for outcome in outcomes
        )
    ]


def cell(outcome: Outcome, metric: str, factor: float) -> tuple[str, str, str]:
    """Value, interval, and how it was taken or why it is not there."""
    point = outcome.points.get(metric)
    taken = outcome.metric(metric)
    if point is None:
        return "—", "", (taken.unavailable or "") if taken is not None else outcome.reason or "not measured"
    how = taken.how if taken is not None else "closed form of a step over its latency"
    return numbers.value_of(point, factor), numbers.interval_of(point, factor), how


def notes(outcome: Outcome) -> str:
    """How the subject was built, in a few words."""
    subject: dict[str, Any] = next((r.subject for r in outcome.records if r.subject), {})
    words = [str(subject.get("form", "")), str(subject.get("precision", ""))]
    if "fused" in str(subject.get("attention")):
        words.append(f"attention {subject['attention']}")
    if subject.get("kernel"):
        words.append(f"kernel {subject['kernel']}")
    sizing = subject.get("input", {})
    if sizing.get("how") and outcome.case.kind == "model":
        changed = [f"{key} {value}" for key, value in (sizing.get("changed") or {}).items()]
        more = f" and {len(changed) - 2} more" if len(changed) > 2 else ""
        words.append(f"size by {sizing['how']}" + (f" ({'; '.join(changed[:2])}{more})" if changed else ""))
    return "; ".join(word for word in words if word)
