"""Synthetic records for tests of analysis and report: numbers chosen by the test, nothing measured."""

from __future__ import annotations

from pathlib import Path

from vheatbench.case import Case
from vheatbench.store import Header, Metric, Record, Run, Samples

MACS = {"vheat-t": 4.56e9, "swin-t": 4.49e9, "vit-s": 4.6e9, "vit-b": 17.6e9}


def record(subject: str, size: int, latency: float, **changes) -> Record:
    """An ``ok`` record; ``spread`` is the relative half width of the latency's interval."""
    spread = changes.pop("spread", 0.01)
    memory = changes.pop("memory", 100.0 * 2**20 * (size / 224) ** 2)
    macs = changes.pop("macs", MACS.get(subject, 4e9) * (size / 224) ** 2)
    case = Case(subject=subject, resolution=size, **changes.pop("case", {}))
    batch = case.batch if isinstance(case.batch, int) else 1
    low, high = latency * (1 - spread), latency * (1 + spread)
    metrics = {
        "latency_s": Metric(
            value=latency, low=low, high=high, confidence=0.95, unit="s", direction="lower", how="clock"
        ),
        "throughput_images_per_s": Metric(
            value=batch / latency, low=batch / high, high=batch / low, confidence=0.95, unit="images/s",
            direction="higher", how="batch over latency",
        ),
        "macs": Metric(value=macs, unit="MAC/image", direction="lower", how="counted", deterministic=True),
        "flops": Metric(value=2 * macs, unit="FLOP/image", direction="lower", how="counted", deterministic=True),
        "params": Metric(value=28e6, unit="parameters", direction="lower", how="counted", deterministic=True),
        "peak_memory_bytes": Metric(value=memory, unit="bytes", direction="lower", how="VmHWM"),
    }  # fmt: skip
    fields = {
        "case": case,
        "case_id": case.id,
        "status": "ok",
        "metrics": metrics,
        "samples": {"latency_s": Samples(unit="s", values=[latency] * 10)},
        "subject": {
            "form": "deploy form", "precision": "weights and input in float32", "attention": "fused in all 12 modules",
            "input": {"how": "img_size=(1, 1)", "changed": {"pos_embed": "1x2x3 -> 1x5x3"}},
        },
        "started": "2026-01-02T03:04:05+00:00",
    }  # fmt: skip
    return Record(**{**fields, **changes})


def failed(subject: str, size: int, status: str, reason: str) -> Record:
    """A record of a case that was not measured."""
    case = Case(subject=subject, resolution=size)
    return Record(case=case, case_id=case.id, status=status, reason=reason, started="2026-01-02T03:04:05+00:00")


def run_of(records: list[Record], **header) -> Run:
    """A finished run of these records."""
    fields = {
        "run_id": "abcd1234",
        "suite": "resolution-scaling",
        "description": "A description.",
        "command": "vheatbench run",
        "created": "2026-01-02T03:04:05+00:00",
        "environment": {"host": "h", "cpu": {"name": "A processor", "affinity_cores": 2}, "gpus": []},
        "plan": [r.case for r in records],
        "policy": {"rounds": 1},
    }  # fmt: skip
    return Run(Path("results/run.jsonl"), Header(**{**fields, **header}), records)


def operator(subject: str, grid: int, latency: float, **changes) -> Record:
    """An ``ok`` record of an operator; ``flop`` and ``bytes`` are per step and exact, ``case`` adds axes."""
    flop = changes.pop("flop", 8.0 * 96 * grid**3)
    moved = changes.pop("bytes", 8.0 * 96 * grid**2)
    case = {"channels": 96, "part": "core", "mode": "forward", **changes.pop("case", {})}
    one = record(subject, grid, latency, macs=flop / 2, case=case, **changes)
    exact = {"direction": "lower", "how": "closed form", "deterministic": True}
    one.metrics["flops_per_step"] = Metric(value=flop, unit="FLOP", **exact)
    one.metrics["min_bytes"] = Metric(value=moved, unit="bytes", **exact)
    return one


def ceiling(subject: str, rate: float, spread: float = 0.01, **axes) -> Record:
    """An ``ok`` record of ``ceiling/copy`` (``rate`` in bytes/s) or ``ceiling/matmul`` (FLOP/s)."""
    case = Case(subject=subject, resolution=4096, **axes)
    name, unit = {
        "ceiling/copy": ("bandwidth_bytes_per_s", "bytes/s"), "ceiling/matmul": ("rate_flop_per_s", "FLOP/s"),
    }[subject]  # fmt: skip
    metrics = {
        "latency_s": Metric(value=0.5, low=0.49, high=0.51, confidence=0.95, unit="s", direction="lower", how="clock"),
        name: Metric(
            value=rate, low=rate * (1 - spread), high=rate * (1 + spread), confidence=0.95, unit=unit,
            direction="higher", how="work over latency",
        ),
    }  # fmt: skip
    started = "2026-01-02T03:04:05+00:00"
    return Record(case=case, case_id=case.id, status="ok", metrics=metrics, started=started)
