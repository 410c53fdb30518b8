"""Profiling one case: build it, count it, profile its step, and sum up by module, by part and by operator."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from vheatbench.case import Case
from vheatbench.measure.stopping import Policy
from vheatbench.measure.timing import measure_time, timer_for
from vheatbench.measure.trace import OPTIMIZER, OUTSIDE, Operator, Place, Usage, usage
from vheatbench.run.device import prepared_device
from vheatbench.run.step import check_compile, place, prepare
from vheatbench.stats import median
from vheatbench.studies.profile.shares import flops_by_place, no_parts, profile_steps
from vheatbench.subjects.catalog import build
from vheatbench.subjects.heat_operator import HeatOperator
from vheatbench.subjects.parts import profiling_parts
from vheatbench.suites import SuitePolicy

OPERATOR_PARTS = ("dwconv", "linear", "dct", "decay", "idct", "norm", "gate", "out")
"""What the heat operator calls its parts, in the order they run."""
OPERATOR_REST = "operator, in no part"
REST = "rest of the model"
BLOCK_NORM = "block norm"
PART_ORDER = (*OPERATOR_PARTS, OPERATOR_REST, "mlp", BLOCK_NORM, "residual", "stem, downsample", "head", REST)
COPIES = {"aten::copy_", "aten::_to_copy", "aten::to", "aten::clone", "aten::contiguous"}
"""What changes layout or dtype and computes nothing; one calls the other, so they share a line."""
COPIES_NAME = "copies of layout or dtype (copy_, clone, contiguous, to)"


@dataclass
class Row:
    """One line of a table; of a compiled model time and memory are unknown by module, hence None."""

    name: str
    count: int = 1
    """Modules summed up here."""
    seconds: float | None = 0.0
    flops: int = 0
    allocated_bytes: float | None = 0.0
    params: int = 0


@dataclass
class Profile:
    """One case's step taken apart."""

    case: Case
    device: str
    form: str
    precision: str
    steps: int
    step_s: float
    """Median of the step with nobody watching."""
    profiled_step_s: float
    modules: list[Row]
    parts: list[Row] | None
    """By part of the heat operator and of the model around it; None for models without one."""
    operators: list[tuple[str, Operator]]
    """Longest first; what only moves data is one of them."""
    trace: dict[str, Any]
    """Chrome trace of the profiled steps."""


def profile(case: Case, steps: int, depth: int) -> Profile:
    """Profile a case on this process's device.

    Args:
        case: of a model, with a fixed batch.
        steps: profiled steps; their medians are reported.
        depth: levels of module names to tell apart, see :func:`module_labels`.

    Raises:
        UserError: the subject is unknown or cannot take the resolution, or the device is not there.
    """
    with prepared_device(case, SuitePolicy()) as device:
        return _profile(case, steps, depth, device)


def _profile(case: Case, steps: int, depth: int, device: torch.device) -> Profile:
    assert isinstance(case.batch, int)
    check_compile(case)
    flops = _count(case, case.batch)
    built = build(case)
    model = place(built, case, device)
    # compiled code calls no hooks, and a part would be captured in the graph
    watched, parts = (None, no_parts) if case.compile else (model, profiling_parts)
    with built.context():
        setup = prepare(model, built, case.batch, case, device)
        timing = measure_time(setup.step, timer_for(device), Policy(min_samples=max(steps, 3), ceiling_s=5.0))
        trace = profile_steps(setup.step, steps, device, watched, parts)
    used = usage(trace, device.type)
    labels = module_labels(model, depth)
    return Profile(
        case=case,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
        form=str(built.facts["form"]),
        precision=setup.precision,
        steps=steps,
        step_s=median(timing.host_s),
        profiled_step_s=used.step_s,
        modules=_module_rows(model, labels, used, flops, timed=watched is not None),
        parts=_part_rows(part_kinds(model), used, flops, timed=watched is not None) if _has_heat(model) else None,
        operators=_operators(used),
        trace=trace,
    )


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
