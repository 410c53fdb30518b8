"""Headers and records of runs on disk, as small as the schema lets them be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vheatbench.case import Case
from vheatbench.store import Header, Metric, Record, RunWriter

CASES = [Case(subject=name, resolution=size) for size in (224, 448) for name in ("vheat-t", "swin-t")]


def a_header(**changes: Any) -> Header:
    fields: dict[str, Any] = {
        "run_id": "0123abcd",
        "suite": "quick",
        "command": "vheatbench run quick",
        "created": "2025-03-01T12:00:00Z",
        "environment": {"host": "node 7", "gpu": {"name": "H100", "driver": "570"}, "torch": "2.6"},
        "plan": CASES,
    }
    return Header.model_validate({**fields, **changes})


def a_record(case: Case = CASES[0], value: float = 0.25, **changes: Any) -> Record:
    latency = Metric(value=value, unit="s", direction="lower", how="median", low=value / 2, high=value * 2)
    fields: dict[str, Any] = {
        "case": case,
        "case_id": case.id,
        "status": "ok",
        "metrics": {"latency_s": latency},
        "started": "2025-03-01T12:00:01Z",
    }
    return Record.model_validate({**fields, **changes})


def write_run(directory: Path, header: Header, *records: Record) -> Path:
    with RunWriter.create(directory, header) as writer:
        for record in records:
            writer.append(record)
        return writer.finish()
