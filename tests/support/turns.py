"""Synthetic pairs of runs measured in turns: times chosen by the test, nothing measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np

from support.records import record, run_of
from vheatbench.store import Metric, Record, Run, Samples

CASES = {("vheat-t", 224): 0.1, ("swin-t", 224): 0.12}
START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
GPU = {"name": "NVIDIA A100", "driver_version": "570.1", "power_limit_w": 400.0, "mig": False, "ecc": True}

MACHINE = {
    "host": "h",
    "python": "3.11.7",
    "packages": {"torch": "2.6.0", "timm": "1.0.20"},
    "torch": {"cuda": "12.4", "cudnn": 90100, "default_threads": 8, "git_version": "abc"},
    "cpu": {"name": "A processor", "affinity_cores": 8, "total_memory_bytes": 32 * 2**30},
    "gpus": [GPU],
    "variables": {"OMP_NUM_THREADS": "8", "CUDA_VISIBLE_DEVICES": "0"},
}
Change = Callable[[str, int, Record], Record | None]
"""From side, round and record to the record that the run gets, None for none."""


def two_runs(
    slower: Mapping[str, float] | None = None,
    rounds: int = 10,
    noise: float = 0.01,
    order: str = "abba",
    cases: Mapping[tuple[str, int], float] = CASES,
    change: Change | None = None,
    pairing: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> tuple[Run, Run]:
    """Base and head; ``slower`` are factors of the head by subject.

    ``order``: ``abba``; ``abab``, the base always first; ``blocks``, all of the base first. An empty ``pairing``
    makes them separate sessions.
    """
    chance = np.random.default_rng(seed)
    kept: dict[str, list[Record]] = {"base": [], "head": []}
    turns = [(side, number) for number in range(rounds) for side in _sides(number, order)]
    if order == "blocks":
        turns.sort()
    for place, (side, number) in enumerate(turns):
        for subject, size in cases:
            factor = (slower or {}).get(subject, 1.0) if side == "head" else 1.0
            latency = cases[subject, size] * factor * float(np.exp(noise * chance.standard_normal()))
            one = record(subject, size, latency, round=number)
            values = list(latency * (1 + 0.02 * chance.exponential(size=10)))
            one.samples["latency_s"] = Samples(unit="s", values=values)
            one.metrics["peak_allocated_bytes"] = Metric(
                value=1e8, unit="bytes", direction="lower", how="allocator", deterministic=True
            )
            one.started = (START + timedelta(seconds=10 * place)).isoformat(timespec="seconds")
            changed = one if change is None else change(side, number, one)
            if changed is not None:
                kept[side].append(changed)
    shared = {"id": "p1", "order": order} if pairing is None else dict(pairing)
    runs = [
        run_of(kept[side], run_id=f"{side}0001", rounds=rounds, pairing={**shared, "side": side} if shared else {})
        for side in ("base", "head")
    ]
    return runs[0], runs[1]


def _sides(number: int, order: str) -> tuple[str, str]:
    return ("base", "head") if order != "abba" or number % 2 == 0 else ("head", "base")


def changed_metric(one: Record, name: str, **fields: Any) -> Record:
    """The record with some fields of one metric changed."""
    metric = one.metrics[name].model_copy(update=fields)
    return one.model_copy(update={"metrics": {**one.metrics, name: metric}})


def on(runs, **header):
    """The same runs with a changed header."""
    return [type(run)(run.path, run.header.model_copy(update=header), run.records) for run in runs]


def lost(one, status, reason):
    return one.model_copy(update={"status": status, "reason": reason, "metrics": {}, "samples": {}})
