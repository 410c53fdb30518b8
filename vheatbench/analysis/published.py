"""A run beside a published table: parameters and multiply-adds checked, throughput shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vheatbench.analysis.outcomes import Outcome


@dataclass(frozen=True)
class Check:
    """One number against its reference. ``passed`` is None where there is nothing to check against."""

    measured: float | None
    published: float | None
    """As printed by the source, rounded."""
    exact: float | None
    """What the source's own code gives: the number that is checked."""
    difference: float | None
    """Relative, signed: 0.01 is 1 % more than ``exact``."""
    passed: bool | None


@dataclass(frozen=True)
class PublishedRow:
    """One subject of the table."""

    subject: str
    variant: str
    params: Check
    macs: Check
    throughput: Check
    acc1: float | None


def published_rows(outcomes: list[Outcome], reference: dict[str, Any]) -> list[PublishedRow]:
    """Rows for the measured subjects that the reference (``Suite.reference``, as stored) knows, in its order."""
    models = reference.get("models") or {}
    tolerance = float(reference.get("tolerance") or 0.01)
    rows = []
    for outcome in outcomes:
        known = models.get(outcome.case.subject)
        # the published numbers are those of the inference form at 224
        if known is None or outcome.case.mode != "infer" or outcome.case.resolution != (224, 224):
            continue
        macs = "macs_fvcore" if "macs_fvcore" in outcome.points else "macs"
        rows.append(
            PublishedRow(
                outcome.case.subject,
                outcome.case.variant,
                _check(outcome, "params", known.get("params"), known.get("exact_params"), tolerance),
                _check(outcome, macs, known.get("macs"), known.get("exact_macs"), tolerance),
                _check(outcome, "throughput_images_per_s", known.get("throughput"), None, tolerance),
                known.get("acc1"),
            )
        )
    order = list(models)
    return sorted(rows, key=lambda row: order.index(row.subject))


def _check(outcome: Outcome, metric: str, published: float | None, exact: float | None, tolerance: float) -> Check:
    point = outcome.points.get(metric)
    measured = point.value if point is not None else None
    difference = measured / exact - 1 if measured is not None and exact else None
    return Check(
        measured, published, exact, difference, abs(difference) <= tolerance if difference is not None else None
    )
