"""What a worker process is told to do, and what it answers: one JSON document each way."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from vheatbench.case import Case
from vheatbench.store.schema import Record
from vheatbench.suites import SuitePolicy


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid")


class MeasureTask(_Message):
    """Measure one case; answered by a ``store.schema.Record``."""

    task: Literal["measure"] = "measure"
    case: Case
    round: int = 0
    policy: SuitePolicy = SuitePolicy()


class Interim(_Message):
    """What a worker writes where its answer will stand, again and again: what is left of it if it dies."""

    memory_limit_bytes: int | None = None
    """That it has set itself."""
    batch: int | None = None
    """The batch that is tried, where the largest is looked for."""
    record: Record | None = None
    """The whole measurement; what comes after it adds to it and decides nothing."""


class InspectTask(_Message):
    """Describe the machine, check names and sizes, and on request foresee each case's cost."""

    task: Literal["inspect"] = "inspect"
    cases: list[Case] = []
    foresee: bool = False


class Forecast(_Message):
    """What a case will cost, computed without running it."""

    case_id: str
    macs: float | None = None
    """Multiply-adds of one step over the whole batch."""
    peak_bytes: int | None = None
    """Weights, input and activations alive at once."""
    seconds: float | None = None
    problem: str | None = None
    """Why the case cannot be built."""
    warnings: list[str] = []
    """What the record will warn of, as far as it is known before."""


class Inspection(_Message):
    """Answer to an :class:`InspectTask`."""

    environment: dict[str, Any]
    cuda_devices: int
    problems: list[str] = []
    """One line for each subject or size that cannot be."""
    forecasts: list[Forecast] = []
    memory_bytes: dict[str, int] = {}
    """Memory that a case on this device may take: ``cpu``, ``cuda``."""
