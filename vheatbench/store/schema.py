"""What stands in a run file: header, records, footer. Every field is documented here once."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from vheatbench.case import Case

SCHEMA_VERSION = 1

Status = Literal["ok", "oom", "timeout", "failed", "skipped"]
Direction = Literal["higher", "lower", "neutral"]


class _Line(BaseModel):
    # Fields that a newer minor release added are kept out of the way, not refused: the integer
    # schema version alone decides whether a file can be read.
    model_config = ConfigDict(extra="ignore")


class Metric(_Line):
    """One number with its unit and where it comes from, or the reason why there is none."""

    value: float | None = None
    unit: str
    direction: Direction = "neutral"
    """Which way is better."""
    how: str
    """How it was taken, in words: the instrument, the statistic, the form of the model."""
    low: float | None = None
    high: float | None = None
    """Ends of the interval, in ``unit``; absent for deterministic metrics."""
    confidence: float | None = None
    """Coverage of the interval, e.g. 0.95."""
    deterministic: bool = False
    """True where the same code must give the same value, so that any change counts."""
    unavailable: str | None = None
    """Why there is no value. Never together with a value: a missing number is not zero."""

    @model_validator(mode="after")
    def _value_or_reason(self) -> Metric:
        if (self.value is None) == (self.unavailable is None):
            raise ValueError("a metric has either a value or a reason for having none")
        if self.value is not None and not math.isfinite(self.value):
            raise ValueError(f"a metric's value must be finite, not {self.value}")
        return self


class Samples(_Line):
    """Raw readings behind a metric, in the order they were taken."""

    unit: str
    values: list[float]
    warmup: list[float] = Field(default_factory=list)
    """Readings taken before the model was warm; kept, not used."""
    loops: int = 1
    """Steps per reading; ``values`` are already divided by it."""
    stopped_by: str | None = None
    """Which rule ended the sampling: ``precision``, ``plateau`` or ``ceiling``."""
    turns: list[int] = Field(default_factory=list)
    """How many of ``values`` each turn took, where the case took turns with others; empty where it did not."""


class Attachment(_Line):
    """A file that belongs to a record: an array or a picture, too large for a line of JSON."""

    name: str
    """In the run's folder of attachments (``vheatbench.store.attachments``)."""
    sha256: str
    bytes: int


class Record(_Line):
    """The outcome of one case. A failure is a result, never a hole."""

    line: Literal["record"] = "record"
    case: Case
    case_id: str
    round: int = 0
    """Which repetition of the case in a fresh process this is, from 0."""
    status: Status
    reason: str | None = None
    """Why the status is not ``ok``, in one line."""
    metrics: dict[str, Metric] = Field(default_factory=dict)
    samples: dict[str, Samples] = Field(default_factory=dict)
    subject: dict[str, Any] = Field(default_factory=dict)
    """What was really built: timm name, constructor arguments, window and shift sizes, position
    embedding, attention kernels, weights (random or a file's hash), form (train or deploy)."""
    session: str | None = None
    """The same in all records whose samples were taken in turns: the i-th turn of each followed the others' i-th."""
    conditions: dict[str, Any] = Field(default_factory=dict)
    """The machine around the samples: threads, load average, clocks, temperature, throttling."""
    warnings: list[str] = Field(default_factory=list)
    files: dict[str, Attachment] = Field(default_factory=dict)
    """Raw maps and fields by what they are, e.g. ``map``."""
    started: str
    """UTC time, ISO 8601."""
    elapsed_s: float = 0.0
    """Wall-clock seconds from starting the worker process to its end."""
    spent_s: dict[str, float] = Field(default_factory=dict)
    """The same by what they went to: ``start`` (of the process), ``count``, ``build``, ``compile``,
    ``warm-up``, ``samples``, ``wait`` (for others' turns), ``memory`` and what else comes after the samples."""

    @property
    def units(self) -> dict[str, str]:
        """Metrics that have a value, to the unit that each is in."""
        return {name: metric.unit for name, metric in self.metrics.items() if metric.value is not None}

    @field_validator("elapsed_s")
    @classmethod
    def _finite(cls, value: float) -> float:
        if not math.isfinite(value):
            raise ValueError("elapsed_s must be finite")
        return value

    def __str__(self) -> str:
        """A line for the case, one for each metric that has a value, and one for each warning."""
        from vheatbench.metrics import info_of
        from vheatbench.numbers import with_interval

        reason = f": {self.reason}" if self.reason else ""
        lines = [f"{self.case.label}: {self.status}{reason}"]
        for name, metric in self.metrics.items():
            if metric.value is not None:
                info = info_of(name, metric.unit)
                lines.append(f"  {name:<24} {with_interval(metric, info, info.unit)}")
        return "\n".join([*lines, *(f"  ! {text}" for text in self.warnings)])

    def _repr_html_(self) -> str:
        from vheatbench.report.notebook import record_html

        return record_html(self)


class StudySettings(_Line):
    """A study of a run, and what it was asked for."""

    study: str
    """Its name in ``vheatbench.studies``."""
    settings: dict[str, Any]


class Machine(_Line):
    """A machine that shards of a merged run were measured on."""

    node: str
    """Of a cluster, else the host."""
    gpu: str = ""
    """UUID of the GPU; empty on a CPU."""
    gpu_name: str = ""
    records: int = 0
    common: dict[str, list[float]] = Field(default_factory=dict)
    """Latencies in seconds, by id, of the cases that all shards measured, also of records that were left out."""


class Header(_Line):
    """First line of a run file."""

    line: Literal["header"] = "header"
    schema_version: int = SCHEMA_VERSION
    run_id: str
    suite: str
    description: str = ""
    command: str
    """The command line that made the run, as it can be typed again."""
    created: str
    """UTC time, ISO 8601."""
    environment: dict[str, Any]
    """The fingerprint of machine and software (``vheatbench.measure.environment``)."""
    plan: list[Case] = Field(default_factory=list)
    """Every case of the run in measuring order: what ``--resume`` completes."""
    studies: list[StudySettings] = Field(default_factory=list)
    """The studies whose cases are in the plan, with what they were asked for: ``--resume`` plans them again."""
    rounds: int = 1
    policy: dict[str, Any] = Field(default_factory=dict)
    reference: dict[str, Any] = Field(default_factory=dict)
    """Published numbers that the suite wants shown beside the measured ones."""
    shard: str | None = None
    """``i/n`` where the run is one of several shards."""
    common: list[str] = Field(default_factory=list)
    """Ids of the cases that every shard measures: the ceilings, and one group that shows how alike the machines are."""
    machines: list[Machine] = Field(default_factory=list)
    """Of a merged run, where its records say it."""
    pairing: dict[str, Any] = Field(default_factory=dict)
    """Of a run that was measured in turns with another: ``id`` (the same in both), ``side`` (``base`` or
    ``head``) and how the turns were taken. Rounds of equal number belong together."""

    @property
    def planned(self) -> list[tuple[Case, int]]:
        """Every case of the plan and each of its rounds, round by round; what is not timed has one."""
        plan = {case.id: case for case in self.plan}.values()
        return [(case, number) for number in range(self.rounds) for case in plan if case.timed or number == 0]


class Footer(_Line):
    """Last line of a finished run file."""

    line: Literal["footer"] = "footer"
    records: int
    sha256: str
    """Of every byte before this line."""
    elapsed_s: float = 0.0
    """Seconds that the command measured which finished the run; 0 where it is not known."""
    finished: str
