"""From the answers at one resolution to its record: metrics, the worst classes, every answer beside the run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vheatbench.case import Case
from vheatbench.files import GIB, read_bytes
from vheatbench.stats import Interval, paired_difference, wilson
from vheatbench.store.attachments import attach, folder_of
from vheatbench.store.schema import Direction, Metric, Record, Samples
from vheatbench.studies.accuracy.accuracy import ClassResult, by_class, mean_interval
from vheatbench.studies.accuracy.answers import Answers
from vheatbench.studies.accuracy.plan import Plan, Ready
from vheatbench.subjects.catalog import OWN_PRODUCTS

WORST = 10
"""Classes that a record names."""
TAKEN_FOR = 3
"""Wrong answers named of each."""
NAMED = 3
"""Unreadable images that a warning names."""


def fill(record: Record, answers: Answers, plan: Plan, ready: Ready, run_path: Path, processes: int) -> None:
    """Write everything that is known into a record, and the answers beside the run.

    Raises:
        ValueError: no image could be read.
        StoreError: the answers cannot be written.
    """
    n = int(answers.read.sum())
    if n == 0:
        raise ValueError(f"none of the {len(plan.images)} images could be read")
    targets = np.asarray(plan.images.targets, dtype=np.int32)[answers.read]
    results = by_class(answers.predicted[answers.read], targets, plan.images.classes, plan.classes)
    record.metrics = _accuracies(answers, n, plan.classes.width) | _speeds(answers, processes)
    gain = _gain(record.case, answers, plan, run_path)
    if gain is not None:
        record.metrics["top1_gain"] = gain
    record.samples = {
        "image_s": Samples(unit="s", values=[model_s / images for images, model_s, _ in answers.chunks if images])
    }
    record.conditions = {
        "data": {
            "name": plan.images.root.resolve().name,
            "fingerprint": plan.images.fingerprint,
            "images": len(plan.images),
            "classes": len(plan.images.classes),
            "class_map": plan.classes.words,
        },
        "weights": plan.weights,
        "preprocessing": ready.preprocessing,
        "processes": processes,
        "threads": torch.get_num_threads(),
        "worst_classes": [_plain(result, TAKEN_FOR) for result in results[:WORST]],
    }
    record.warnings = [*_warnings(answers, plan, ready), *(w for w in ready.built.warnings if w != OWN_PRODUCTS)]
    everything = json.dumps([_plain(result, None) for result in results], indent=1)
    record.files = {
        "answers": attach(run_path, answers_name(record.case), answers.to_bytes()),
        "classes": attach(run_path, f"{record.case_id}-classes.json", everything.encode()),
    }


def answers_name(case: Case) -> str:
    """Of the file with every answer."""
    return f"{case.id}-answers.npz"


def _accuracies(answers: Answers, n: int, width: int) -> dict[str, Metric]:
    metrics = {}
    for k in (1, 5):
        name = f"top{k}_accuracy"
        if k >= width:
            why = f"the head has {width} classes: all are among the first {k}"
            metrics[name] = Metric(unit="share", direction="higher", how="counted", unavailable=why)
            continue
        right = int(answers.within(k).sum())
        how = f"{right} of {n} images; Wilson's interval"
        metrics[name] = _metric(wilson(right, n), "share", "higher", how)
    loss = mean_interval(answers.loss[answers.read])
    metrics["loss"] = _metric(loss, "nats", "lower", f"mean cross entropy of {n} images; normal interval")
    counted: dict[str, Any] = {"unit": "images", "how": "counted", "deterministic": True}
    metrics["images"] = Metric(value=n, **counted)
    metrics["images_unreadable"] = Metric(value=len(answers.unreadable), direction="lower", **counted)
    return metrics


def _speeds(answers: Answers, processes: int) -> dict[str, Metric]:
    images = sum(chunk[0] for chunk in answers.chunks)
    model_s = sum(chunk[1] for chunk in answers.chunks)
    all_s = model_s + sum(chunk[2] for chunk in answers.chunks)
    who = "the process" if processes == 1 else f"the slowest of {processes} processes"
    alone, together = "the model alone, on warm batches", "the model and waiting for images to be loaded and copied"
    return {
        name: Metric(value=images / seconds, unit="images/s", how=f"images over seconds of {who}: {what}")
        for name, seconds, what in (
            ("throughput_images_per_s", model_s, alone),
            ("pipeline_images_per_s", all_s, together),
        )
    }


def _gain(case: Case, answers: Answers, plan: Plan, run_path: Path) -> Metric | None:
    """Top-1 against the first resolution's, over the images that were read at both."""
    first = plan.cases[0]
    if first.id == case.id:
        return None
    try:
        stored = read_bytes(folder_of(run_path) / answers_name(first), GIB)
        before = Answers.from_bytes(stored, len(plan.images))
    except (OSError, ValueError):  # the first resolution failed
        return None
    both = answers.read & before.read
    now, then = answers.rank[both] == 0, before.rank[both] == 0
    gained, lost = int((now & ~then).sum()), int((then & ~now).sum())
    change = paired_difference(gained, lost, int(both.sum()))
    how = f"against {first.size}: {gained} images became right, {lost} wrong; Agresti and Min's interval for pairs"
    return _metric(change, "share", "higher", how)


def _metric(interval: Interval, unit: str, direction: Direction, how: str) -> Metric:
    value, low, high, confidence = interval
    return Metric(value=value, low=low, high=high, confidence=confidence, unit=unit, direction=direction, how=how)


def _plain(result: ClassResult, most: int | None) -> dict[str, Any]:
    accuracy = result.accuracy
    return {
        "name": result.name,
        "images": result.images,
        "correct": result.correct,
        "accuracy": accuracy.value,
        "low": accuracy.low,
        "high": accuracy.high,
        "taken_for": [list(item) for item in result.taken_for[:most]],
    }


def _warnings(answers: Answers, plan: Plan, ready: Ready) -> list[str]:
    warnings = []
    missing = [plan.images.names[i] for i in answers.unreadable]
    if missing:
        more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        warnings.append(
            f"{len(missing)} of {len(plan.images)} images cannot be read and are left out: "
            f"{', '.join(missing[:NAMED])}{more}"
        )
    if plan.weights.startswith("random"):
        warnings.append("random weights: the accuracy is chance's; give --weights FILE")
    if plan.settings.limit is not None and len(plan.images) == plan.settings.limit:
        warnings.append(f"--limit: {len(plan.images)} images, evenly spread over the sorted list, stand for all")
    else:
        empty = plan.images.empty_classes
        if empty:
            warnings.append(f"{len(empty)} classes have no images: {', '.join(empty[:NAMED])}")
    if ready.loaded is not None:
        warnings += ready.loaded.warnings
    return warnings
