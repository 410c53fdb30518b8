"""A suite: subjects, axes and a policy, expanded into cases."""

from __future__ import annotations

import itertools
import json
import math
import random
import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from vheatbench.case import (
    Case,
    Compile,
    DeviceType,
    DType,
    Engine,
    Kind,
    MemoryFormat,
    Part,
    TimedMode,
    engine_of_compile,
    kind_of,
)
from vheatbench.errors import UserError
from vheatbench.measure.stopping import Policy

MAX_CASES = 10_000

Size = tuple[int, int]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SubjectEntry(_Part):
    """A subject, what its constructor is given, and the values of the axes that it is restricted to."""

    model: str = Field(min_length=1)
    options: dict[str, Any] = Field(default_factory=dict)
    only: dict[str, list[Any]] = Field(default_factory=dict)
    """Axis to values: the subject is measured at these values of the suite's axis, others at all."""

    @field_validator("only")
    @classmethod
    def _values_of_axes(cls, only: dict[str, list[Any]]) -> dict[str, list[Any]]:
        unknown = only.keys() - Axes.model_fields.keys()
        if unknown:
            raise ValueError(f"{min(unknown)!r} is no axis; allowed: {', '.join(Axes.model_fields)}")
        try:
            axes = Axes.model_validate(only)
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(f"{first['loc'][0]}: {first['msg'].removeprefix('Value error, ')}") from None
        values = {name: getattr(axes, name) for name in Axes.model_fields} | {"compile": axes.engine}
        return {FIELD_OF.get(name, name): values[name] for name in only}

    @field_validator("options")
    @classmethod
    def _plain(cls, options: dict[str, Any]) -> dict[str, Any]:
        # they travel to the worker and into the record as JSON; YAML also knows dates, sets and bytes
        try:
            json.dumps(options, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"options are numbers, words, true, false, null, lists and mappings ({error})") from None
        return options


class Axes(_Part):
    """Values of every axis; the cases are their product with the subjects."""

    resolution: list[Size] | None = Field(default=None, min_length=1)
    """Of the input image of models; 224 if not given."""
    grid: list[Size] | None = Field(default=None, min_length=1)
    """Of tokens: the size of operators."""
    batch: list[int | Literal["largest"]] = Field(default=[1], min_length=1)
    dtype: list[DType] = Field(default=["float32"], min_length=1)
    mode: list[TimedMode] = Field(default=["infer"], min_length=1)
    memory_format: list[MemoryFormat] = Field(default=["contiguous"], min_length=1)
    engine: list[Engine] = Field(default=["eager"], min_length=1)
    compile: list[Compile] | None = Field(default=None, min_length=1)
    """Instead of ``engine``, as it was called before; always None in what was read."""
    dynamic: list[bool] = Field(default=[False], min_length=1)
    fused_attention: list[bool] = Field(default=[True], min_length=1)
    channels: list[int | None] = Field(default=[None], min_length=1)
    part: list[Part | None] = Field(default=[None], min_length=1)

    @field_validator("resolution", "grid", mode="before")
    @classmethod
    def _parsed(cls, values: Any) -> Any:
        return [parse_resolution(value) for value in values] if isinstance(values, list) else values

    @field_validator("batch", "channels", mode="before")
    @classmethod
    def _positive(cls, values: Any, info: ValidationInfo) -> Any:
        # a bool is an int for Python, and 1 for pydantic
        if isinstance(values, list) and any(isinstance(v, bool) or (isinstance(v, int) and v < 1) for v in values):
            other = "channels are whole numbers of at least 1"
            raise ValueError(
                "a batch is a whole number of at least 1, or 'largest'" if info.field_name == "batch" else other
            )
        return values

    @model_validator(mode="before")
    @classmethod
    def _compile(cls, axes: Any) -> Any:
        """Values of ``compile`` as engines, where they are none that the field refuses."""
        if not isinstance(axes, dict) or not isinstance(axes.get("compile"), list):
            return axes
        if "engine" in axes:
            raise ValueError("compile is the older name of some engines: give engine alone")
        try:
            engines = [engine_of_compile(value) for value in axes["compile"]]
        except ValueError:
            return axes
        return {name: values for name, values in axes.items() if name != "compile"} | {"engine": engines}

    def values(self, kind: Kind) -> dict[str, list[Any]]:
        """Values by field of a case of a model or an operator; the order is that of the plan.

        ``resolution`` is the grid of operators. What belongs to the other kind is left at its default.
        """
        named = {name: getattr(self, name) for name in Axes.model_fields if name not in FIELD_OF}
        if kind == "operator":
            return {**named, "resolution": self.grid or []}
        return {**named, **{name: [None] for name in OF_OPERATORS}, "resolution": self.resolution or [(224, 224)]}


OF_OPERATORS = ("channels", "part")
"""Axes that models do not have, beside the grid."""


FIELD_OF = {"grid": "resolution", "compile": "engine"}
"""Axes that are called otherwise than the field of a case."""


class SuitePolicy(Policy):
    """How the cases are carried out, and how long each is measured."""

    rounds: int = Field(default=1, ge=1, le=100)
    """Repetitions of every case, each in a fresh process, interleaved."""
    budget_s: float | None = Field(default=None, gt=0)
    """Seconds that the run may take: every case in ``rounds`` rounds, then more rounds where the ratios are known
    worst."""
    turns: bool = True
    """Whether the cases of a group sample in turns, a tenth of a second each, in processes that live side by side."""
    order: Literal["interleaved", "listed"] = "interleaved"
    seed: int = 0
    timeout_s: float = Field(default=600, gt=0)
    memory_limit_gib: float | None = Field(default=None, gt=0)
    """Host memory a worker may take; default 90 % of what is available when it starts."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads of a worker; default the number of cores it may run on."""
    fvcore: bool = False
    """Also count with fvcore and record the difference."""
    max_batch: int = Field(default=4096, ge=1)
    """Where the search for the largest batch ends."""


SCHEDULING = frozenset({"turns", "budget_s"})
"""Fields of a policy that its workers take no notice of."""


class ReferenceRow(_Part):
    """Published numbers of one subject, as printed, and exact ones to check against."""

    params: float | None = None
    macs: float | None = None
    throughput: float | None = None
    """Images per second on the source's hardware."""
    acc1: float | None = None
    """Percent, as the next three."""
    box_map: float | None = None
    mask_map: float | None = None
    miou: float | None = None
    exact_params: float | None = None
    exact_macs: float | None = None
    exact_macs_without_attention: float | None = None
    """Where the source left the products of attention out of what it printed."""
    note: str = ""
    """Why what is printed is not what its own code gives."""


class ReferenceTable(_Part):
    """One of several published tables: rows of subjects of one kind at one size."""

    title: str
    kind: Literal["classification", "detection", "segmentation"]
    resolution: Size
    schedule: str = ""
    """Of the training behind the accuracies: 1x, 3x, 160k."""
    note: str = ""
    rows: dict[str, ReferenceRow] = Field(min_length=1)

    @field_validator("resolution", mode="before")
    @classmethod
    def _parsed(cls, value: Any) -> Any:
        return parse_resolution(value)


class Reference(_Part):
    """A published table shown beside the measured one."""

    source: str
    tolerance: float = 0.01
    """Relative difference from the exact numbers that still passes."""
    models: dict[str, ReferenceRow] = Field(default_factory=dict)
    """Of classification at 224, printed with the run."""
    tables: list[ReferenceTable] = Field(default_factory=list)
    """Of several tasks and sizes, for the report."""


class StudyEntry(_Part):
    """A study that is carried out beside the timed cases; in a file ``- erf: {models: [vheat-t]}``."""

    study: str
    settings: dict[str, Any] = Field(default_factory=dict)
    """Checked by the study, when it is planned."""

    @model_validator(mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"study": value}
        if isinstance(value, dict) and len(value) == 1 and "study" not in value:
            ((name, settings),) = value.items()
            return {"study": name, "settings": settings or {}}
        return value


class Suite(_Part):
    """A validated suite for one kind of device."""

    name: str
    description: str = ""
    subjects: list[SubjectEntry] = Field(default_factory=list, min_length=1)
    """At least one; none where there are studies."""
    studies: list[StudyEntry] = Field(default_factory=list)
    axes: Axes = Axes()
    policy: SuitePolicy = SuitePolicy()
    reference: Reference | None = None
    ceilings: bool = False
    """Also measure what the device can do: a large copy and a large matrix product, for every dtype."""

    @field_validator("subjects", mode="before")
    @classmethod
    def _entries(cls, values: Any) -> Any:
        if not isinstance(values, list):
            return values
        return [{"model": value} if isinstance(value, str) else value for value in values]

    @model_validator(mode="after")
    def _sized(self) -> Suite:
        if not self.subjects and not self.studies:
            raise ValueError("a suite needs subjects, studies, or both")
        kinds = {kind_of(entry.model): entry.model for entry in self.subjects}
        if "ceiling" in kinds:
            raise ValueError(f"{kinds['ceiling']} is no subject: write 'ceilings: true' (--ceilings)")
        if "data" in kinds:
            raise ValueError(f"{kinds['data']} is no subject: a study looks at it, and stands under 'studies'")
        axes = self.axes
        if "operator" in kinds and (axes.grid is None or ("model" not in kinds and axes.resolution is not None)):
            raise ValueError("operators are measured on grids of tokens: give grid (--grid 14,28), not resolution")
        if "operator" not in kinds and (axes.grid is not None or axes.channels != [None] or axes.part != [None]):
            raise ValueError("grid, channels and part belong to operators (op/heat, ...): leave them out for models")
        return self

    def _axes_of(self, entry: SubjectEntry) -> dict[str, list[Any]]:
        """The axes with the values that a subject is measured at."""
        only = entry.only
        return {
            name: [value for value in values if value in only[name]] if name in only else values
            for name, values in self.axes.values(kind_of(entry.model)).items()
        }

    @property
    def size(self) -> int:
        """Number of cases, without making them."""
        ceilings = 2 * len(self._roofs) if self.ceilings else 0
        return ceilings + sum(
            math.prod(len(values) for values in self._axes_of(entry).values()) for entry in self.subjects
        )

    @property
    def _roofs(self) -> list[DType]:
        # torch has no products in int8 to compare with
        return [dtype for dtype in self.axes.dtype if dtype != "int8"]

    def cases(self, device: DeviceType) -> list[Case]:
        """Every case: ceilings first, then models before operators, listed by axes with the subjects innermost.

        Raises UserError over 10,000, or if no subject is left with a case.
        """
        if self.size > MAX_CASES:
            raise UserError(
                f"suite {self.name!r} has {self.size:,} cases, the limit is {MAX_CASES:,}: "
                "take values out of an axis or split the suite"
            )
        cases = [case for kind in get_args(Kind) for case in self._cases_of(kind, device)]
        if not cases and self.subjects:
            raise UserError(f"suite {self.name!r} has no cases: every subject is restricted ('only') to other values")
        if self.ceilings:
            cases = [ceiling for dtype in self._roofs for ceiling in ceiling_cases(device, dtype)] + cases
        return list({case.id: case for case in cases}.values())

    def _cases_of(self, kind: Kind, device: DeviceType) -> list[Case]:
        """Those of the models, or of the operators."""
        allowed = [(entry, self._axes_of(entry)) for entry in self.subjects if kind_of(entry.model) == kind]
        axes = self.axes.values(kind)
        names = [*(name for name in axes if name != "resolution"), "resolution"]
        return [
            Case(subject=entry.model, options=entry.options, device=device, **dict(zip(names, values, strict=True)))
            for values in itertools.product(*(axes[name] for name in names))
            for entry, own in allowed
            if all(value in own[name] for name, value in zip(names, values, strict=True))
        ]

    def plan(self, device: DeviceType) -> list[Case]:
        """The cases in measuring order.

        ``interleaved`` shuffles the subjects within every point of the axes, so that no subject always
        goes first; ``listed`` keeps the order of the file.
        """
        cases = self.cases(device)
        if self.policy.order == "listed":
            return cases
        generator = random.Random(self.policy.seed)
        groups = groups_of(cases)
        for group in groups:
            generator.shuffle(group)
        return [case for group in groups for case in group]


def groups_of(cases: Sequence[Case]) -> list[list[Case]]:
    """Cases by their point of the axes, in the order of their first: what is compared, and measured together."""
    groups: dict[tuple[object, ...], list[Case]] = {}
    for case in cases:
        groups.setdefault(case.point, []).append(case)
    return list(groups.values())


def ceiling_cases(device: DeviceType, dtype: DType) -> list[Case]:
    """The large copy and the large matrix product of a device, which give the roofs of a roofline.

    The copied tensor takes 256 MiB on a CPU and 2 GiB on a GPU, more than any cache holds.
    """
    height, mib = (8192, 256) if device == "cpu" else (32768, 2048)
    itemsize = 4 if dtype in ("float32", "tf32") else 2
    width = mib * 2**20 // itemsize // height
    side = 3072 if device == "cpu" else 8192
    return [
        Case(subject="ceiling/copy", resolution=(height, width), dtype=dtype, device=device),
        Case(subject="ceiling/matmul", resolution=(side, side), dtype=dtype, device=device),
    ]


def parse_resolution(value: Any) -> Size:
    """``224``, ``"224"``, ``"480x640"`` or ``[480, 640]`` to height and width. Raises ValueError."""
    if isinstance(value, str) and (match := re.fullmatch(r"\s*(\d{1,5})(?:\s*[xX]\s*(\d{1,5}))?\s*", value)):
        value = (int(match[1]), int(match[2] or match[1]))
    if isinstance(value, int) and not isinstance(value, bool):
        value = (value, value)
    if (
        not isinstance(value, (list, tuple))
        or len(value) != 2
        or not all(isinstance(side, int) and not isinstance(side, bool) and 1 <= side <= 65536 for side in value)
    ):
        raise ValueError(f"{value!r} is no resolution: give 224, '480x640' or [480, 640] (height, width)")
    return value[0], value[1]


Resolution = Annotated[Size, BeforeValidator(parse_resolution)]
"""Height and width, for settings that are read as :func:`parse_resolution` does."""
