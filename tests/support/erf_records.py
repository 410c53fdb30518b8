"""Synthetic receptive fields: blobs chosen by the test, nothing measured."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from support.records import run_of
from vheatbench.case import Case
from vheatbench.store import Metric, Record
from vheatbench.store.attachments import attach
from vheatbench.studies.erf.results import ErfResult, write_map


def gaussian(size, sigma, floor=0.05, seed=0, centre=None):
    """A noisy blob over a floor, in arbitrary raw units."""
    height, width = size
    y, x = centre or (height / 2, width / 2)
    square = (np.arange(height)[:, None] + 0.5 - y) ** 2 + (np.arange(width) + 0.5 - x) ** 2
    noise = np.random.default_rng(seed).gamma(2, 0.5, size)
    return ((np.exp(-square / 2 / sigma**2) + floor / 10) * noise * 3.7).astype(np.float32)


def smallest_share(field, mass):
    """Share of the brightest pixels that together hold so much of the mass."""
    held = np.cumsum(np.sort(field, axis=None)[::-1].astype(float))
    return float((held < mass * held[-1] * (1 - 1e-9)).sum() + 1) / held.size if held[-1] else 0.0


def result(subject="vheat-t", size=(64, 64), sigma=9.0, field=None, **changes) -> ErfResult:
    """A result whose metrics are those of its map, A50 and A99 with an interval of 10 % around."""
    field = gaussian(size, sigma) if field is None else field
    layer, weights = changes.get("layer", "stages.3"), changes.get("weights", "random")
    conduction, protocol = changes.get("conduction", ""), changes.get("protocol", "centre")
    analysis = {"layer": layer, "weights": "random" if weights == "random" else "0123456789ab", "protocol": protocol}
    if conduction not in ("", "learned"):
        analysis["conduction"] = conduction
    case = Case(subject=subject, resolution=size, mode="erf", analysis=analysis, dtype=changes.pop("dtype", "float32"))
    metrics = {}
    for name, mass in (("erf_a50", 0.5), ("erf_a99", 0.99)):
        value = smallest_share(field, mass)
        metrics[name] = Metric(
            value=value, low=value * 0.9, high=value * 1.1, confidence=0.95, unit="share", how="jackknife"
        )
    metrics["erf_radius_px"] = Metric(value=sigma * 1.4, unit="px", how="second moments")
    metrics["erf_images"] = Metric(value=10, unit="images", how="counted")
    conditions = {
        "depth": changes.get("depth", 0), "stride": [32, 32], "weights": weights, "conduction": conduction,
        "n_images": 10, "images": {"words": "8 photographs"},
    }  # fmt: skip
    record = Record(
        case=case, case_id=case.id, status="ok", metrics=metrics, conditions=conditions,
        started="2026-01-02T03:04:05+00:00",
    )  # fmt: skip
    fields = {
        "record": record, "subject": subject, "resolution": size, "layer": layer, "depth": 0, "stride": (32, 32),
        "weights": weights, "conduction": conduction, "protocol": protocol, "n_images": 10, "images": "8 photographs",
        "centre": (size[0] / 2, size[1] / 2), "map": field,
    }  # fmt: skip
    return ErfResult(**{**fields, **changes})


def run_with(results, tmp_path):
    """A run of these results, their maps attached."""
    path = tmp_path / "run.jsonl"
    for i, one in enumerate(results):
        one.record.files["map"] = attach(path, f"{i}.npz", write_map(one.map, one.centre))
    return replace(run_of([one.record for one in results], suite="erf"), path=path)
