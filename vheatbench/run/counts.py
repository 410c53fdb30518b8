"""What a case costs by counting: multiply-adds three ways, and of operators the least traffic."""

from __future__ import annotations

import math
from typing import Any

import torch

from vheatbench.case import Case
from vheatbench.measure.flops import count_flops, count_with_fvcore, disagreement, flop_metrics
from vheatbench.measure.fvcore_rules import count_by_rules
from vheatbench.run.step import DTYPES, place
from vheatbench.store.schema import Metric, Record
from vheatbench.subjects.built import Builder, Built
from vheatbench.subjects.catalog import build, find_subject
from vheatbench.subjects.closed_form import closed_form_macs, operator_min_bytes, operator_step_macs
from vheatbench.subjects.operators import operator_macs

AGREEMENT = 0.01
"""Relative difference from which two counts of multiply-adds are said to disagree."""
META = torch.device("meta")


def count_model(case: Case, record: Record, builder: Builder = build) -> None:
    """FLOPs of a model on the meta device, against the closed form."""
    built = builder(case, META)
    # what a batch costs beyond its images (k, in the training form) is spread over it
    batch = case.batch if isinstance(case.batch, int) else 1
    images = torch.empty(batch, *built.input_shape, device=META)
    count = count_flops(lambda: built.model.eval()(images))
    form = built.facts["form"]
    record.metrics |= flop_metrics(count, batch, form, train=case.trains)
    coverage: dict[str, Any] = {"macs": count.macs, "counted": count.by_operator, "uncounted_calls": count.uncounted}
    if count.suspicious:
        record.warnings.append(f"FLOPs may be too low, not counted: {', '.join(count.suspicious)}")
    formula = closed_form_macs(built.model, batch, case.resolution)
    if formula is not None:
        coverage["closed_form_macs"] = formula
        _compare(count.macs, formula, "the closed form", coverage, record)
    record.conditions["flops_coverage"] = coverage


def count_operator(case: Case, built: Built, batch: int, backend: str | None, record: Record) -> None:
    """FLOPs and least bytes of an operator's step by closed form, against torch's counter.

    ``backend``: what a heat operator really runs.
    """
    forward = operator_macs(case, batch, backend)
    step = operator_step_macs(forward, case.trains)
    how = f"closed form{f' of the {backend} formulation' if backend else ''}, {built.facts['form']}, batch {batch}"
    if case.trains:
        how += ", forward and backward (conduction twice its forward, every other product three times)"
    for name, value, unit in (
        ("macs", step / batch, "MAC/image"),
        ("flops", 2 * step / batch, "FLOP/image"),
        ("flops_per_step", 2 * step, "FLOP"),
    ):
        record.metrics[name] = Metric(value=value, unit=unit, direction="lower", how=how, deterministic=True)
    least = operator_min_bytes(
        batch * built.n_inputs * math.prod(built.input_shape),
        sum(p.numel() for p in built.model.parameters()),
        batch * math.prod(case.resolution) * (case.channels or 0),
        DTYPES[case.dtype].itemsize,
        case.trains,
    )
    record.metrics["min_bytes"] = Metric(
        value=least,
        unit="bytes",
        direction="lower",
        how=f"closed form: inputs, constants and outputs once in {case.dtype}, batch {batch}"
        + ("; backward reads them again and writes their gradients" if case.trains else ""),
        deterministic=True,
    )
    record.conditions["flops_coverage"] = _count_operator(case, batch, backend, sum(forward.values()), record)


def _count_operator(case: Case, batch: int, backend: str | None, formula: float, record: Record) -> dict[str, Any]:
    """What torch's counter says of the forward pass, and whether it agrees with the closed form."""
    resolved = case if backend is None else case.model_copy(update={"subject": f"op/heat-{backend}"})
    built = build(resolved, META)
    model = place(built, case, META)
    inputs = built.inputs(batch, META, DTYPES[case.dtype])
    with built.context():
        count = count_flops(lambda: model(*inputs))
    coverage: dict[str, Any] = {
        "macs": count.macs,
        "counted": count.by_operator,
        "uncounted_calls": count.uncounted,
        "closed_form_macs": formula,
    }
    if count.suspicious:
        coverage["not compared"] = f"torch's counter does not know {', '.join(count.suspicious)}"
    else:
        _compare(count.macs, formula, "the closed form", coverage, record)
    return coverage


def cross_check(case: Case, record: Record) -> None:
    """Count a model again with fvcore. Last, for it runs it: memory that it leaves behind would hide growth."""
    coverage = record.conditions["flops_coverage"]
    if find_subject(case.subject).task is not None:
        _cross_check_by_rules(case, record)
        return
    built = build(case)
    batch = case.batch if isinstance(case.batch, int) else 1
    other = count_with_fvcore(built.model, torch.zeros(batch, *built.input_shape))
    coverage |= {"fvcore_macs": other.macs, "fvcore_skipped": other.skipped}
    record.metrics["macs_fvcore"] = Metric(
        value=other.macs / batch,
        unit="MAC/image",
        direction="lower",
        how="fvcore with handlers added for fused attention and broadcast products, norms included, "
        f"{built.facts['form']}, batch {batch}",
        deterministic=True,
    )
    _compare(coverage["macs"], other.products, "fvcore (norms left out)", coverage, record)


def _cross_check_by_rules(case: Case, record: Record) -> None:
    """Detectors and segmenters: fvcore would trace them for minutes, and a detector's heads on no region."""
    built = build(case, META)
    batch = case.batch if isinstance(case.batch, int) else 1
    images = torch.empty(batch, *built.input_shape, device=META)
    count = count_by_rules(built.model, lambda: built.model.eval()(images))
    record.conditions["flops_coverage"] |= {"fvcore_macs": count.macs_fvcore, "fvcore_extra": count.extra}
    values = {"macs_fvcore": count.macs_fvcore}
    if count.attention_macs:
        values["macs_fvcore_without_attention"] = count.macs_fvcore - count.attention_macs
    for name, value in values.items():
        record.metrics[name] = Metric(
            value=value / batch,
            unit="MAC/image",
            direction="lower",
            how="fvcore's rules on the meta device: torch's count plus norms, resizing and pooling per element"
            + (", less the two products of attention" if name != "macs_fvcore" else "")
            + f", {built.facts['form']}, batch {batch}",
            deterministic=True,
        )


def _compare(ours: float, other: float, name: str, coverage: dict[str, Any], record: Record) -> None:
    difference = disagreement(ours, other)
    coverage[f"disagreement with {name}"] = difference
    if abs(difference) > AGREEMENT:
        record.warnings.append(f"{name} counts {difference:+.1%} multiply-adds against torch's counter")
