"""Measuring receptive fields: the plan, and the records of a group of layers with a map beside each."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from vheatbench.errors import StoreError, UserError
from vheatbench.run.device import classify, device_for, prepared_device
from vheatbench.run.study import Tell
from vheatbench.run.task import Group, StudyTask
from vheatbench.store.attachments import attach
from vheatbench.store.schema import Record
from vheatbench.studies import settings_of
from vheatbench.studies.erf.conduction import conducting
from vheatbench.studies.erf.estimates import GroupedMean, metrics_of, numbers_of, worst_error
from vheatbench.studies.erf.features import Layer
from vheatbench.studies.erf.gradient import GradientBatches, centre_of, chosen_cells
from vheatbench.studies.erf.metrics import Estimate, centroid
from vheatbench.studies.erf.plan import ErfSettings, Job, make_plan
from vheatbench.studies.erf.results import write_map
from vheatbench.studies.images.photographs import SINGLE, ImageSet, open_images
from vheatbench.subjects.built import Builder
from vheatbench.subjects.catalog import OWN_PRODUCTS, build
from vheatbench.subjects.weights import load_weights
from vheatbench.suites import SuitePolicy
from vheatbench.text import utc_now


@dataclass
class _Fields:
    """What a job found: per layer the mean map and its estimates."""

    means: list[GroupedMean]
    estimates: list[dict[str, Estimate]]
    stopped_by: str
    seconds: float
    largest: int | None


def plan(asked: dict[str, Any]) -> tuple[list[Group], list[str]]:
    """The cases of a run, those of one model, size and set of weights as a group, and notes for the user.

    Args:
        asked: :class:`ErfSettings` as JSON.

    Raises:
        UserError: see :func:`vheatbench.studies.erf.plan.make_plan`.
    """
    settings = _settings(asked)
    planned = make_plan(settings, open_images(settings.images, settings.max_images, settings.seed))
    groups = {job.cases[0].id: Group(label=job.label, cases=list(job.cases)) for job in planned.jobs}
    return list(groups.values()), planned.notes


def measure(task: StudyTask, progress: Tell) -> Iterator[Record]:
    """The records of a group.

    Raises:
        UserError: images or weights are not those any more that the cases were planned with.
        StoreError: a map cannot be written.
    """
    settings = replace(_settings(task.settings), device=task.cases[0].device)
    images = open_images(settings.images, settings.max_images, settings.seed)
    wanted = {case.id for case in task.cases}
    for job in make_plan(settings, images, only=task.cases[0]).jobs:
        if wanted & {case.id for case in job.cases}:
            records = measure_job(job, settings, images, task.run_path, progress, task.policy)
            progress(outcome(records), 1.0)
            yield from (record for record in records if record.case_id in wanted)
            return
    raise UserError(f"{task.label}: its images or weights are others than when the run was begun: begin a new run")


def _settings(asked: dict[str, Any]) -> ErfSettings:
    settings = settings_of(ErfSettings, asked)
    return replace(settings, device=device_for(settings.device, settings.dtype))


def outcome(records: list[Record]) -> str:
    """A group on one line."""
    failed = [record for record in records if record.status != "ok"]
    if failed:
        return f"{failed[0].status}: {failed[0].reason}"
    conditions = records[0].conditions
    n = conditions["n_images"]
    layers = f", {len(records)} layers" if len(records) > 1 else ""
    return f"{n} image{'s' * (n != 1)}{layers}, {conditions['seconds']:.1f} s ({conditions['stopped_by']})"


def measure_job(
    job: Job,
    settings: ErfSettings,
    images: ImageSet,
    run_path: Path,
    progress: Tell,
    policy: SuitePolicy,
    builder: Builder | None = None,
) -> list[Record]:
    """The records of a job's layers, whose maps are attached to the run at ``run_path``. Never raises for a model.

    ``builder`` gives the model: by default what the case's name stands for.
    """
    records = [Record(case=case, case_id=case.id, status="ok", started=utc_now()) for case in job.cases]
    started = time.monotonic()
    try:
        with prepared_device(job.base, policy) as device:
            subject, warnings, fields = _measure(job, settings, images, device, progress, builder or build)
        for i, (record, layer) in enumerate(zip(records, job.layers, strict=True)):
            record.subject, record.warnings = subject, list(warnings)
            _fill(record, job, layer, fields, i, settings, images, run_path)
    except StoreError:
        raise
    except Exception as error:  # whatever a model raises is its result
        status, reason = classify(error)
        records = [
            Record(case=r.case, case_id=r.case_id, status=status, reason=reason, started=r.started, subject=r.subject)
            for r in records
        ]
    for record in records:
        # all layers came from the same passes
        record.elapsed_s = (time.monotonic() - started) / len(records)
    return records


def _measure(
    job: Job, settings: ErfSettings, images: ImageSet, device: torch.device, progress: Tell, builder: Builder
) -> tuple[dict[str, Any], list[str], _Fields]:
    """What was built, what is to be said of it, and what was found."""
    built = builder(job.base, "cpu")
    warnings = [text for text in built.warnings if text != OWN_PRODUCTS]
    if job.path is not None:
        warnings += load_weights(built.model, job.path, trust_pickle=settings.trust_pickle).warnings
    elif job.conduction == "learned" and job.weights.short == "random":
        warnings.append(
            "random weights: k of a fresh vHeat is near 0, so it hardly conducts heat; "
            "--conduction none,learned,5 shows what conduction does"
        )
    model = built.model.to(device).eval().requires_grad_(False)
    low = settings.dtype not in ("float32", "tf32")
    precision = f"float32 weights, {settings.dtype} autocast" if low else settings.dtype
    subject = {**built.facts, "weights": job.weights.words, "precision": precision}
    subject["preprocessing"] = asdict(job.preprocessing)
    ours = job.preprocessing
    gradients = GradientBatches(model, job.layers, device, ours.mean, ours.std, settings.protocol, settings.dtype)
    with built.context(), conducting(model, job.conduction or "learned"):
        fields = measure_fields(gradients, job, settings, images, progress)
    if fields.largest is not None:
        warnings.append(f"memory ran out: images were taken {fields.largest} at a time, which changes no result")
    return subject, warnings, fields


def measure_fields(
    gradients: GradientBatches, job: Job, settings: ErfSettings, images: ImageSet, progress: Tell
) -> _Fields:
    """Batch by batch until one of three rules ends it.

    ``precision``: the deciding numbers of every layer are precise. ``plateau``: twice as many images made them no
    more precise, as where views of the same few photographs are all there is. ``max-images``: the images end, as they
    always do of a single photograph, whose precision is unknown.
    """
    started = time.monotonic()
    centres = [centre_of(layer, settings.protocol, job.base.resolution) for layer in job.layers]
    replknet = settings.protocol == "replknet"
    means = [GroupedMean(job.base.resolution, images.sources) for _ in job.layers]
    estimates: list[dict[str, Estimate]] = []
    errors: dict[int, float] = {}
    stopped_by, n, batches = "max-images", 0, 0
    while n < images.count:
        size = min(settings.batch, images.count - n)
        for mean, maps in zip(means, gradients(images.batch(range(n, n + size), job.cut)), strict=True):
            mean.add(maps)
        n, batches = n + size, batches + 1
        if batches < 2 and n < images.count:
            progress(_so_far(n, math.inf, settings), n / images.count)
            continue
        estimates = [
            _estimates(mean, layer, centre, replknet)
            for mean, layer, centre in zip(means, job.layers, centres, strict=True)
        ]
        errors[n] = max(worst_error(found, replknet) for found in estimates)
        progress(_so_far(n, errors[n], settings), n / images.count)
        if errors[n] < settings.target:
            stopped_by = "precision"
            break
        # views of a single photograph have no error that could fall
        if n % 2 == 0 and math.inf > errors[n] >= errors.get(n // 2, math.inf):
            stopped_by = "plateau"
            break
    return _Fields(means, estimates, stopped_by, time.monotonic() - started, gradients.largest)


def _so_far(images: int, error: float, settings: ErfSettings) -> str:
    known = f", error {error:.1%} of {settings.target:.1%} wanted" if math.isfinite(error) else ""
    return f"{images} of at most {settings.max_images} images{known}"


def _estimates(mean: GroupedMean, layer: Layer, centre: tuple[float, float], replknet: bool) -> dict[str, Estimate]:
    if not mean.mean().any():
        raise ValueError(
            f"the gradient of {layer.name} is zero everywhere: its centre's features are all negative, or do not "
            "depend on the image"
        )
    return mean.estimates(lambda field: numbers_of(field, centre, replknet))


def _fill(
    record: Record,
    job: Job,
    layer: Layer,
    fields: _Fields,
    index: int,
    settings: ErfSettings,
    images: ImageSet,
    run_path: Path,
) -> None:
    """Metrics, conditions, warnings and the map of one layer's record."""
    mean, estimates = fields.means[index], fields.estimates[index]
    field = mean.mean()
    centre = centre_of(layer, settings.protocol, job.base.resolution)
    record.metrics = metrics_of(estimates, mean.shape, mean.n, settings.protocol == "replknet")
    rows, columns = chosen_cells(layer, settings.protocol)
    replknet = settings.protocol == "replknet"
    record.conditions = {
        "depth": layer.depth,
        "grid": list(layer.grid),
        "stride": [round(axis.stride) for axis in layer.axes],
        "cells": [list(rows), list(columns)],
        "centre": list(centre),
        "centre_how": "pixel (H // 2, W // 2), whatever the cell looks at" if replknet else layer.how_centre,
        "centroid": list(centroid(field)),
        "weights": job.weights.words,
        "conduction": job.conduction,
        "n_images": mean.n,
        "stopped_by": fields.stopped_by,
        "target": settings.target,
        "images": {
            "words": images.words,
            "names": images.names[: mean.n],
            "sources": min(images.sources, mean.n),
            "digest": images.digest(job.cut),
            "cut": job.cut.words,
            "seed": images.seed,
        },
        "batch": fields.largest or settings.batch,
        "threads": torch.get_num_threads(),
        "layers_at_once": len(job.layers),
        "seconds": fields.seconds,
        "jackknife": {
            name: {"mean_map": e.plain, "corrected": e.value, "error": e.error, "groups": e.groups}
            for name, e in estimates.items()
            if all(map(_finite, (e.plain, e.value, e.error)))
        },
    }
    record.warnings += _doubts(mean, estimates, fields, layer, settings, images)
    data = write_map(field.astype("float32"), centre)
    record.files = {"map": attach(run_path, f"{record.case_id}-map.npz", data)}


def _doubts(
    mean: GroupedMean,
    estimates: dict[str, Estimate],
    fields: _Fields,
    layer: Layer,
    settings: ErfSettings,
    images: ImageSet,
) -> list[str]:
    doubts = []
    if mean.n > 1 and images.single:
        doubts.append(f"{SINGLE}: what differs between its {mean.n} views says nothing about other photographs")
    elif images.views and mean.n > images.sources:
        doubts.append(f"{mean.n} images are views of {images.sources} photographs, which vary less than {mean.n} do")
    if layer.how_centre.startswith("assumed") and settings.protocol == "centre":
        doubts.append(f"the centre of {layer.name} is {layer.how_centre}")
    if fields.stopped_by != "precision":
        worst = worst_error(estimates, settings.protocol == "replknet")
        single = "unknown with one image" if mean.n == 1 else "unknown from one photograph"
        reached = f"{worst:.1%}" if _finite(worst) else single
        rule = "no gain from twice as many" if fields.stopped_by == "plateau" else "that many were allowed"
        doubts.append(
            f"stopped at {mean.n} image{'s' * (mean.n > 1)} ({rule}): "
            f"relative standard error {reached}, wanted {settings.target:.1%}"
        )
    return doubts


def _finite(value: float) -> bool:
    return abs(value) < float("inf")
