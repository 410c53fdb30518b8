"""What a worker process is told to do, and what it answers: one JSON document each way.

A worker that carries out a part of a study also writes :class:`Event` lines while it works, each with a record that is
finished or with how far it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from vheatbench.case import Case
from vheatbench.measure.stopping import StoppedBy
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
    count: bool = True
    """Whether to count multiply-adds too, and what else is the same in every round."""
    memory: bool = True
    """Whether to measure the memory too, in a pass of its own after the samples."""
    folder: Path | None = None
    """Where exported models are kept that later rounds take."""
    others: int = 0
    """How many cases it takes turns with. With any, the worker says when it has imported what it needs, and waits; says
    when it is warm, and waits; and then samples when it is told to (:class:`Turn`)."""


class Turn(_Message):
    """One line of what a live worker is told."""

    seconds: float | None = None
    """Sample for so long, at least once; None ends the sampling."""
    stopped_by: StoppedBy = "ceiling"
    """Which rule has ended it."""


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


class PlanTask(_Message):
    """Look at what a study is asked for, and say which cases that makes; answered by :class:`Planned`."""

    task: Literal["plan"] = "plan"
    study: str
    """Module with a function ``plan(settings)`` that returns a list of :class:`Group` and a list of notes."""
    settings: dict[str, Any]


class Group(_Message):
    """Cases of a study that are measured together: all layers by the same backward passes, say."""

    label: str
    """For people."""
    cases: list[Case]


class Planned(_Message):
    """Answer to a :class:`PlanTask`."""

    groups: list[Group] = []
    notes: list[str] = []
    """What the user should know before it begins."""
    environment: dict[str, Any] = {}
    cuda_devices: int = 0
    problem: str = ""
    """Why it cannot begin."""
    wrong_input: bool = True
    """Whether the problem is one of what was asked for, not of the model's own code."""


class StudyTask(_Message):
    """Measure a group of a study; its records come as events, then :class:`StudyEnd`."""

    task: Literal["study"] = "study"
    study: str
    """Module with a function ``measure(task, tell)`` that yields records."""
    label: str
    cases: list[Case]
    """Those that are missing in the run."""
    settings: dict[str, Any]
    run_path: Path
    """The file of the run, beside which attachments go."""
    policy: SuitePolicy = SuitePolicy()
    resumable: bool = False
    """Whether a worker that is killed leaves what the next one goes on from: then that is no result."""


class StudyEnd(_Message):
    """Answer to a :class:`StudyTask`."""

    problem: str = ""
    """Why the whole run cannot go on; what a model does wrong is a record instead."""
    kind: Literal["", "input", "store"] = ""
    """Whether what was asked for is wrong, or the disk."""


class Event(_Message):
    """One line of what a worker says while it works on a :class:`StudyTask`, or takes turns with others."""

    samples: list[float] = []
    """Of a live worker, in seconds per step: the last of its warm-up, then those of each turn."""
    needs_bytes: int = 0
    """Of a live worker on a CPU that is warm: memory that it has given back and may want again."""
    record: Record | None = None
    words: str = ""
    """How far it is, for people."""
    share: float = 0.0
    """The same as a share of the group."""
