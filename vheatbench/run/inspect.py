"""Inside a worker process: describe the machine, check names and sizes, foresee what cases cost."""

from __future__ import annotations

import time

import torch
from torch.nn.attention import SDPBackend

from vheatbench.case import Case
from vheatbench.engines import check_engine, check_present
from vheatbench.errors import UserError
from vheatbench.measure.environment import environment
from vheatbench.measure.flops import TRAIN_FACTOR, count_flops
from vheatbench.measure.footprint import activation_bytes
from vheatbench.measure.outputs import training_loss
from vheatbench.measure.precision import slow_precision
from vheatbench.measure.stopping import Policy
from vheatbench.run.device import classify, memory_limit
from vheatbench.run.step import DTYPES, place, prepare
from vheatbench.run.task import Forecast, Inspection, InspectTask
from vheatbench.subjects.built import Built
from vheatbench.subjects.catalog import build, find_subject
from vheatbench.subjects.closed_form import operator_step_macs
from vheatbench.subjects.operators import channels, check_operator, find_operator, head_dim, operator_macs

COMMON_MULTIPLE = 32
"""Sizes that are multiples of this fit every known family; others are tried out before the run."""
STARTUP_S = 6.0
"""Seconds to start a worker and build a model."""
STEPS, SLOW_STEPS = 14, 8
"""Warm-up, samples and the memory pass of a case in steps: as most take, and where one is slow."""
EFFICIENCY = 0.5
"""Share of the speed of a large matrix product that a whole model reaches, roughly."""
LONGEST_SPEED_TEST_S = 1.0
"""Seconds after which no further product is timed: one of a precision without instructions takes long enough."""
META = torch.device("meta")


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
        timed = dict.fromkeys((case.device, DTYPES[case.dtype]) for case in task.cases if case.device in kinds)
        speeds = {key: _matmul_flops(*key) for key in timed}
        inspection.forecasts = [_foresee(case, speeds.get((case.device, DTYPES[case.dtype]))) for case in task.cases]
        for forecast, case in zip(inspection.forecasts, task.cases, strict=True):
            if case.device in kinds:
                forecast.warnings = slow_precision(case.dtype, case.device)
    return inspection


def _problem(case: Case) -> str | None:
    try:
        check_engine(case)
        if case.kind == "operator":
            check_operator(case)
        elif case.kind == "model":
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
    if case.kind == "ceiling":
        return _foresee_ceiling(case, flops_per_s)
    batch = case.batch if isinstance(case.batch, int) else 1
    try:
        check_present(case)
        built = build(case, META)
        if case.kind == "operator":
            macs, peak = _operator_cost(case, built, batch)
        else:
            macs, peak = _model_cost(case, built, batch)
    except Exception as error:  # reported with the case; the run records it too
        return Forecast(case_id=case.id, problem=classify(error)[1])
    seconds = None
    if flops_per_s is not None:
        seconds = seconds_of(2 * macs / (EFFICIENCY * flops_per_s))
    return Forecast(case_id=case.id, macs=macs, peak_bytes=peak, seconds=seconds)


def seconds_of(step_s: float) -> float:
    """Roughly what a case takes whose step takes ``step_s`` seconds."""
    return STARTUP_S + (SLOW_STEPS if step_s > Policy().slow_s else STEPS) * step_s


def _foresee_ceiling(case: Case, flops_per_s: float | None) -> Forecast:
    height, width = case.resolution
    product = case.subject == "ceiling/matmul"
    macs = height * width**2 if product else 0
    seconds = seconds_of(2 * macs / flops_per_s) if flops_per_s is not None else None
    held = (3 if product else 2) * case.pixels * DTYPES[case.dtype].itemsize
    return Forecast(case_id=case.id, macs=macs, peak_bytes=held, seconds=seconds)


def _model_cost(case: Case, built: Built, batch: int) -> tuple[float, int]:
    """Multiply-adds of a step and bytes alive at once."""
    model = built.model if case.trains else built.model.to(DTYPES[case.dtype])
    dtype = torch.float32 if case.trains else DTYPES[case.dtype]
    images = torch.empty(batch, *built.input_shape, device=META, dtype=dtype)
    macs = count_flops(lambda: model(images)).macs * (TRAIN_FACTOR if case.trains else 1)
    weights = [*model.parameters(), *model.buffers()]

    def step() -> None:
        if case.trains:
            training_loss(model(images), torch.sum).backward()
        else:
            with torch.no_grad():
                model(images)

    # gradients are alive at the end of backward, AdamW keeps two more copies of the weights
    resident = sum(t.numel() * t.element_size() for t in weights) * (3 if case.mode == "train" else 1)
    resident += images.numel() * images.element_size()
    return macs, resident + activation_bytes(step, [*weights, images])


def _operator_cost(case: Case, built: Built, batch: int) -> tuple[float, int]:
    """As for a model; multiply-adds by closed form, of the dense products where ``auto`` may take less."""
    operator = find_operator(case.subject)
    backend = "matmul" if operator.backend == "auto" else operator.backend
    macs = operator_step_macs(operator_macs(case, batch, backend), case.trains)
    model = place(built, case, META)
    with built.context():
        setup = prepare(model, built, batch, case.model_copy(update={"engine": "eager", "dynamic": False}), META)
        known = [*model.parameters(), *model.buffers(), *setup.inputs]
        peak = setup.weights_bytes + setup.input_bytes + activation_bytes(setup.step, known)
    if operator.kernel is SDPBackend.MATH:
        # attention is foreseen as one operator; this one keeps the scores and their softmax, and a mask between
        heads = channels(case) // head_dim(case)
        peak += batch * heads * case.pixels**2 * (2 * DTYPES[case.dtype].itemsize + 1)
    return macs, peak


def _matmul_flops(kind: str, dtype: torch.dtype) -> float:
    """FLOP/s of a large matrix product in the case's precision: the scale of every time estimate."""
    size = 4096 if kind == "cuda" else 1024
    a = torch.randn(size, size, device=kind, dtype=dtype)
    best = float("inf")
    begun = time.monotonic()
    for _ in range(5):
        if time.monotonic() - begun > LONGEST_SPEED_TEST_S:
            break
        started = time.monotonic()
        a @ a
        if kind == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.monotonic() - started)
    return 2 * size**3 / best
