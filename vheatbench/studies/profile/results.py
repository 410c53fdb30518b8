"""A step taken apart, as records hold it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from vheatbench.case import Case
from vheatbench.measure.trace import Operator
from vheatbench.store.schema import Record


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

    def conditions(self) -> dict[str, Any]:
        """For a record: everything but the case, as JSON."""
        facts = asdict(self)
        del facts["case"], facts["step_s"], facts["profiled_step_s"]
        return facts


def profile_of(record: Record) -> Profile:
    """What a record of a profile that is ok holds."""
    found = dict(record.conditions)
    return Profile(
        case=record.case,
        device=found["device"],
        form=found["form"],
        precision=found["precision"],
        steps=found["steps"],
        step_s=record.metrics["step_s"].value or 0.0,
        profiled_step_s=record.metrics["profiled_step_s"].value or 0.0,
        modules=[Row(**row) for row in found["modules"]],
        parts=None if found["parts"] is None else [Row(**row) for row in found["parts"]],
        operators=[(name, Operator(**operator)) for name, operator in found["operators"]],
    )
