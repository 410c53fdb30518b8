"""Profiling one case: build it, count it, profile its step, and sum up by module, by part and by operator."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import nn

from vheatbench.case import Case, DType, TimedMode, kind_of
from vheatbench.engines import check_engine
from vheatbench.errors import UserError
from vheatbench.measure.stopping import Policy
from vheatbench.measure.timing import measure_time, timer_for
from vheatbench.measure.trace import OPTIMIZER, OUTSIDE, Operator, Place, Usage, usage
from vheatbench.run.device import classify, device_for, prepared_device
from vheatbench.run.step import place, prepare
from vheatbench.run.study import Tell
from vheatbench.run.task import Group, StudyTask
from vheatbench.stats import median
from vheatbench.store.attachments import attach
from vheatbench.store.schema import Metric, Record
from vheatbench.studies import settings_of
from vheatbench.studies.profile.results import Profile, Row
from vheatbench.studies.profile.shares import flops_by_place, no_parts, profile_steps
from vheatbench.subjects.catalog import build, find_subject
from vheatbench.subjects.heat_operator import HeatOperator
from vheatbench.subjects.parts import profiling_parts
from vheatbench.suites import Resolution
from vheatbench.text import utc_now

OPERATOR_PARTS = ("dwconv", "linear", "dct", "decay", "idct", "norm", "gate", "out")
"""What the heat operator calls its parts, in the order they run."""
OPERATOR_REST = "operator, in no part"
REST = "rest of the model"
BLOCK_NORM = "block norm"
PART_ORDER = (*OPERATOR_PARTS, OPERATOR_REST, "mlp", BLOCK_NORM, "residual", "stem, downsample", "head", REST)
COPIES = {"aten::copy_", "aten::_to_copy", "aten::to", "aten::clone", "aten::contiguous"}
"""What changes layout or dtype and computes nothing; one calls the other, so they share a line."""
COPIES_NAME = "copies of layout or dtype (copy_, clone, contiguous, to)"


@dataclass(frozen=True)
class ProfileSettings:
    """What the user asked for."""

    model: str = "vheat-t"
    resolution: Resolution = (224, 224)
    batch: Annotated[int, Field(ge=1)] = 1
    dtype: DType = "float32"
    mode: TimedMode = "infer"
    compile: bool = False
    """Time by operator only: a compiled kernel spans modules."""
    depth: Annotated[int, Field(ge=1)] = 2
    """Levels of module names to tell apart, see :func:`module_labels`."""
    steps: Annotated[int, Field(ge=1, le=1000)] = 5
    """Profiled steps; their medians are reported."""
    device: Literal["auto", "cpu", "cuda"] = "auto"


def plan(asked: dict[str, Any]) -> tuple[list[Group], list[str]]:
    """One case.

    Args:
        asked: :class:`ProfileSettings` as JSON.

    Raises:
        UserError: no such model, a size that it cannot take, a device or precision that is not there.
    """
    settings = settings_of(ProfileSettings, asked)
    if kind_of(settings.model) != "model":
        raise UserError(f"{settings.model!r} is no model: 'vheatbench models' lists what can be profiled")
    case = Case(
        subject=settings.model,
        resolution=settings.resolution,
        batch=settings.batch,
        dtype=settings.dtype,
        mode="profile",
        device=device_for(settings.device, settings.dtype),
        engine="compiled" if settings.compile else "eager",
        analysis={"step": settings.mode, "depth": settings.depth, "steps": settings.steps},
    )
    check_engine(_timed(case))
    find_subject(case.subject)
    return [Group(label=case.label, cases=[case])], []


def measure(task: StudyTask, progress: Tell) -> Iterator[Record]:
    """The record of the case, with the Chrome trace of its steps attached. Raises StoreError."""
    (case,) = task.cases
    record = Record(case=case, case_id=case.id, status="ok", started=utc_now())
    started = time.monotonic()
    trace: dict[str, Any] = {}
    try:
        with prepared_device(case, task.policy) as device:
            found, trace = profile(case, device)
    except Exception as error:  # whatever a model raises is its result
        record.status, record.reason = classify(error)
    else:
        record.subject = {"name": case.subject, "form": found.form, "precision": found.precision}
        how = f"median of {found.steps} steps, wall clock"
        record.metrics["step_s"] = Metric(value=found.step_s, unit="s", direction="lower", how=how)
        record.metrics["profiled_step_s"] = Metric(
            value=found.profiled_step_s, unit="s", direction="lower", how=f"{how}, under torch's profiler"
        )
        record.conditions = found.conditions()
        # the same trace gives the same file
        data = gzip.compress(json.dumps(trace).encode(), mtime=0)
        record.files["trace"] = attach(task.run_path, f"{case.id}-trace.json.gz", data)
        progress(f"{found.step_s * 1e3:.4g} ms", 1.0)
    record.elapsed_s = time.monotonic() - started
    yield record


def _timed(case: Case) -> Case:
    """The case whose step is profiled."""
    return case.model_copy(update={"mode": case.analysis["step"], "analysis": {}})


def profile(case: Case, device: torch.device) -> tuple[Profile, dict[str, Any]]:
    """A case's step taken apart, and the Chrome trace of the steps.

    Raises:
        UserError: the subject is unknown or cannot take the resolution.
    """
    steps, depth = int(case.analysis["steps"]), int(case.analysis["depth"])
    whole, case = case, _timed(case)
    assert isinstance(case.batch, int)
    check_engine(case)
    flops = _count(case, case.batch)
    built = build(case)
    model = place(built, case, device)
    # compiled code calls no hooks, and a part would be captured in the graph
    watched, parts = (None, no_parts) if case.compiled else (model, profiling_parts)
    with built.context(), _named_kernels(case.compiled):
        setup = prepare(model, built, case.batch, case, device)
        timing = measure_time(setup.step, timer_for(device), Policy(min_samples=max(steps, 3), ceiling_s=5.0))
        trace = profile_steps(setup.step, steps, device, watched, parts)
    used = usage(trace, device.type)
    labels = module_labels(model, depth)
    found = Profile(
        case=whole,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
        form=str(built.facts["form"]),
        precision=setup.precision,
        steps=steps,
        step_s=median(timing.host_s),
        profiled_step_s=used.step_s,
        modules=_module_rows(model, labels, used, flops, timed=watched is not None),
        parts=_part_rows(part_kinds(model), used, flops, timed=watched is not None) if _has_heat(model) else None,
        operators=_operators(used),
    )
    return found, trace


@contextlib.contextmanager
def _named_kernels(compiled: bool) -> Iterator[None]:
    """Within it the C++ kernels that inductor writes for CPUs show up by name."""
    if not compiled:
        yield
        return
    from torch._inductor import config

    with config.patch({"cpp.enable_kernel_profile": True}):
        yield


def _count(case: Case, batch: int) -> dict[Place, int]:
    """FLOPs of a forward pass by place, on the meta device."""
    built = build(case, "meta")
    # what takes gradients takes other paths through the model
    model = built.model.eval().requires_grad_(case.trains)
    images = torch.empty(batch, *built.input_shape, device="meta")
    return flops_by_place(model, lambda: model(images), profiling_parts)


def module_labels(model: nn.Module, depth: int) -> dict[str, str]:
    """The row of every module by its path: names below ``depth`` levels join the one above.

    An index belongs to the name before it and is no level of its own. Neighbours of the same class and the same
    parameter shapes share a row: ``blocks.*`` where all are alike, ``blocks.1-3`` where some are.
    """
    labels = {"": ""}

    def descend(module: nn.Module, path: str, label: str, level: int) -> None:
        children = list(module.named_children())
        for _, run in itertools.groupby(children, key=lambda child: _likeness(*child)):
            alike = list(run)
            names = [name for name, _ in alike]
            together = names[0]
            if len(names) > 1:
                together = "*" if len(names) == len(children) else f"{names[0]}-{names[-1]}"
            for name, child in alike:
                inner = f"{path}.{name}" if path else name
                below = level + (not (name.isdigit() and path))
                shown = label if below > depth else f"{label}.{together}" if label else together
                labels[inner] = shown
                descend(child, inner, shown, below)

    descend(model, "", "", 0)
    return labels


def _likeness(name: str, module: nn.Module) -> object:
    """Equal for modules that may share a row: repeated ones, and only where they hold parameters."""
    shapes = tuple((key, tuple(value.shape)) for key, value in module.named_parameters())
    return (type(module), shapes) if name.isdigit() and shapes else name


def part_kinds(model: nn.Module) -> dict[str, str]:
    """What each module of a model with heat operators is to it, by path: ``mlp``, ``block norm``, ..."""
    kinds = {path: _outer_kind(path) for path, _ in model.named_modules()}
    operators = [path for path, module in model.named_modules() if isinstance(module, HeatOperator)]
    for operator in operators:
        block = operator.rpartition(".")[0]
        for path in kinds:
            if _within(path, operator):
                kinds[path] = OPERATOR_REST
            elif block and _within(path, block):
                inner = path[len(block) + 1 :].split(".")[0]
                kinds[path] = "mlp" if inner == "mlp" else BLOCK_NORM if inner.startswith("norm") else "residual"
    return kinds


def _outer_kind(path: str) -> str:
    names = path.split(".")
    if "stem" in names or "downsample" in names:
        return "stem, downsample"
    return "head" if names[0] in ("head", "norm", "global_pool") else REST


def _within(path: str, outer: str) -> bool:
    return path == outer or path.startswith(f"{outer}.")


def _has_heat(model: nn.Module) -> bool:
    return any(isinstance(module, HeatOperator) for module in model.modules())


def _module_rows(
    model: nn.Module, labels: dict[str, str], used: Usage, flops: dict[Place, int], timed: bool
) -> list[Row]:
    """One row per label, in the model's order; what happens outside of it comes last."""
    parents = {label.rpartition(".")[0] for label in labels.values() if label}

    def name(place: Place) -> str:
        if place.module not in labels:
            return place.module
        label = labels[place.module]
        if not label:
            return "(the model itself)"
        return f"{label} (itself)" if label in parents else label

    heads: dict[str, int] = defaultdict(int)
    params: dict[str, int] = defaultdict(int)
    seen: set[nn.Parameter] = set()
    for path, module in model.named_modules():
        row = name(Place(path, ""))
        # the first module of a row: those below it have the same label
        heads[row] += labels[path] != labels.get(path.rpartition(".")[0], "") or not path
        for parameter in module.parameters(recurse=False):
            params[row] += parameter.numel() if parameter not in seen else 0
            seen.add(parameter)
    rows = _rows([*dict.fromkeys(heads), OPTIMIZER, OUTSIDE], name, used, flops, timed)
    for found in rows:
        found.count, found.params = heads.get(found.name, 1), params[found.name]
    return [found for found in rows if found.seconds or found.flops or found.allocated_bytes or found.params]


def _part_rows(kinds: dict[str, str], used: Usage, flops: dict[Place, int], timed: bool) -> list[Row]:
    def name(place: Place) -> str:
        return place.part or kinds.get(place.module, place.module)

    rows = _rows([*PART_ORDER, OPTIMIZER, OUTSIDE], name, used, flops, timed)
    return [row for row in rows if row.name in OPERATOR_PARTS or row.seconds or row.flops or row.allocated_bytes]


def _rows(
    order: Iterable[str], name: Callable[[Place], str], used: Usage, flops: dict[Place, int], timed: bool
) -> list[Row]:
    """Everything that was measured and counted, summed up by name."""
    unknown = 0.0 if timed else None
    rows = {label: Row(label, seconds=unknown, allocated_bytes=unknown) for label in order}
    places = {*flops, *(used.seconds if timed else ()), *(used.allocated_bytes if timed else ())}
    for spot in sorted(places):
        label = name(spot)
        row = rows.setdefault(label, Row(label, seconds=unknown, allocated_bytes=unknown))
        row.flops += flops.get(spot, 0)
        if row.seconds is not None and row.allocated_bytes is not None:
            row.seconds += used.seconds.get(spot, 0.0)
            row.allocated_bytes += used.allocated_bytes.get(spot, 0.0)
    return list(rows.values())


def _operators(used: Usage) -> list[tuple[str, Operator]]:
    copies = Operator()
    found = {COPIES_NAME: copies}
    for name, operator in used.operators.items():
        if name in COPIES:
            copies.seconds += operator.seconds
            # only copy_ moves anything; the others call it
            copies.calls += operator.calls if name == "aten::copy_" else 0
        else:
            found[name] = operator
    return sorted(found.items(), key=lambda item: -item[1].seconds)
