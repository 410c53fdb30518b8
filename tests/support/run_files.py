"""Run files as the runner writes them, and entries of a history."""

from __future__ import annotations

from pathlib import Path

from vheatbench.store import Header, RunWriter
from vheatbench.store.history import HistoryEntry

ENVIRONMENT = {
    "host": "h", "python": "3.11.7", "packages": {"torch": "2.15.0"}, "gpus": [],
    "cpu": {"name": "A processor", "affinity_cores": 2}, "code": {"commit": "c0ffee" + "0" * 34, "dirty": False},
}  # fmt: skip


def write_run(folder: Path, records, run_id="aaaa0001", created="2026-01-02T03:04:05+00:00", finish=True, **header):
    """A run file as the runner writes it."""
    fields = {
        "run_id": run_id, "suite": "smoke", "command": "vheatbench run", "created": created,
        "environment": ENVIRONMENT, "plan": [one.case for one in records], "rounds": 1, **header,
    }  # fmt: skip
    with RunWriter.create(folder, Header(**fields)) as writer:
        for one in records:
            writer.append(one)
        return writer.finish() if finish else writer.path


def entry(number: int, latency: float, **changes) -> HistoryEntry:
    """One run of one case, a day after the one before."""
    fields = {
        "run_id": f"run{number:05}", "device": "cpu", "file": f"{number}.jsonl", "suite": "smoke",
        "when": f"20{20 + number // 336:02}-{1 + number // 28 % 12:02}-{1 + number % 28:02}T00:00:00+00:00",
        "branch": "main", "commit": f"{number:08x}" + "0" * 32, "fingerprint": "f" * 12,
        "machine": "A processor (2 cores)", "metrics": {"latency_s": {"unit": "s", "direction": "lower"}},
        "cases": {"case00000001": {"label": "vheat-t 224", "readings": {
            "latency_s": (latency, latency * 0.99, latency * 1.01, 10)}}},
    }  # fmt: skip
    return HistoryEntry.model_validate({**fields, **changes})


def written(runs, folder="results"):
    """The runs as files; their paths."""
    paths = []
    for run in runs:
        with RunWriter.create(folder, run.header) as writer:
            for one in run.records:
                writer.append(one)
            paths.append(str(writer.finish()))
    return paths
