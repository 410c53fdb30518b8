"""Inside a worker process: describe the machine, check names and sizes, foresee what cases cost."""

from __future__ import annotations

import time

import torch

from vheatbench.case import Case
from vheatbench.errors import UserError
from vheatbench.measure.environment import environment
from vheatbench.measure.flops import TRAIN_FACTOR, count_flops
from vheatbench.measure.footprint import activation_bytes
from vheatbench.run.carry_out import DTYPES, classify, memory_limit
from vheatbench.run.task import Forecast, Inspection, InspectTask
from vheatbench.subjects.catalog import build, find_subject

COMMON_MULTIPLE = 32
"""Sizes that are multiples of this fit every known family; others are tried out before the run."""
STARTUP_S = 6.0
"""Seconds to start a worker and build a model."""
STEPS = 14
"""Warm-up, samples and the memory pass of a case whose step is slow, in steps."""
EFFICIENCY = 0.5
"""Share of the speed of a large matrix product that a whole model reaches, roughly."""


def inspect(task: InspectTask) -> Inspection:
    """Answer an inspection; problems of cases are collected, not raised."""
    cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    kinds = {case.device for case in task.cases} & ({"cpu", "cuda"} if cuda else {"cpu"})
    inspection = Inspection(
        environment=environment(),
        cuda_devices=cuda,
        memory_bytes={kind: memory_limit(kind) for kind in sorted(kinds)},
    )
    inspection.problems = list(dict.fromkeys(filter(None, map(_problem, task.cases))))
    if task.foresee and not inspection.problems:
        speeds = {kind: _matmul_flops(kind) for kind in kinds}
        inspection.forecasts = [_foresee(case, speeds.get(case.device)) for case in task.cases]
    return inspection


def _problem(case: Case) -> str | None:
    try:
        find_subject(case.subject)
        if case.options or any(side % COMMON_MULTIPLE for side in case.resolution):
            build(case, "meta")
    except UserError as error:
        return str(error)
    except Exception:  # the model's own failure: a result, which the case's record will hold
        return None
    return None


def _foresee(case: Case, flops_per_s: float | None) -> Forecast:
    """Multiply-adds, bytes and rough seconds of a case, from the meta device."""
    batch = case.batch if isinstance(case.batch, int) else 1
    train = case.mode == "train"
    try:
        built = build(case, "meta")
        model = built.model if train else built.model.to(DTYPES[case.dtype])
        dtype = torch.float32 if train else DTYPES[case.dtype]
        images = torch.empty(batch, *built.input_shape, device="meta", dtype=dtype)
        macs = count_flops(lambda: model(images)).macs * (TRAIN_FACTOR if train else 1)
        weights = [*model.parameters(), *model.buffers()]

        def step() -> None:
            if train:
                model(images).sum().backward()
            else:
                with torch.no_grad():
                    model(images)

        # gradients are alive at the end of backward, AdamW keeps two more copies of the weights
        resident = sum(t.numel() * t.element_size() for t in weights) * (3 if train else 1)
        resident += images.numel() * images.element_size()
        peak = resident + activation_bytes(step, [*weights, images])
    except Exception as error:  # reported with the case; the run records it too
        return Forecast(case_id=case.id, problem=classify(error)[1])
    seconds = None
    if flops_per_s is not None:
        seconds = STARTUP_S + STEPS * 2 * macs / (EFFICIENCY * flops_per_s)
    return Forecast(case_id=case.id, macs=macs, peak_bytes=peak, seconds=seconds)


def _matmul_flops(kind: str) -> float:
    """FLOP/s of a large float32 matrix product: the scale of every time estimate."""
    size = 4096 if kind == "cuda" else 1024
    a = torch.randn(size, size, device=kind)
    best = float("inf")
    for _ in range(5):
        started = time.monotonic()
        a @ a
        if kind == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.monotonic() - started)
    return 2 * size**3 / best
