"""A case: one point of a suite, i.e. a subject and one value of every axis."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

TimedMode = Literal["infer", "forward", "forward_backward", "train"]
"""``infer``: deploy form, no gradients. ``forward``: training form, no gradients. ``forward_backward``: forward,
loss and gradients of the parameters (of an operator: no loss, gradients of its input too). ``train``: the same
and the optimizer's step."""
Mode = Literal[TimedMode, "erf", "heat", "eval", "fit", "profile"]
"""A :data:`TimedMode`, or that of a study (``studies/__init__.py``), which is not timed for its own sake: ``erf``
(effective receptive field), ``heat``, ``eval`` (accuracy on images), ``fit`` (training to the end), ``profile`` (a step
taken apart). They are part of the file format: a record of another mode is no record of this version."""
Engine = Literal[
    "eager",
    "compiled",
    "compiled-freezing",
    "compiled-cudagraphs",
    "compiled-max-autotune",
    "onnxruntime",
    "openvino",
    "tensorrt",
]
"""How a subject is run (``vheatbench.engines``). ``compiled``: by torch.compile. ``compiled-freezing``: with inductor's
constant folding of weights (inference on a CPU). ``compiled-cudagraphs``: replaying its kernels as CUDA graphs (mode
``reduce-overhead``), for steps bound by launches. ``compiled-max-autotune``: trying kernels out when it compiles.
The others take the model as ONNX. ``tensorrt`` is ONNX Runtime's provider of it."""
Compile = bool | Literal["freezing", "cudagraphs"]
"""The older name of four engines: see :data:`COMPILED`."""
COMPILED: dict[Compile, Engine] = {
    False: "eager",
    True: "compiled",
    "freezing": "compiled-freezing",
    "cudagraphs": "compiled-cudagraphs",
}
"""What was ``compile`` before there were engines. Old files, suites and ids have it so."""
Part = Literal["core", "layer"]
"""Of an operator: the token mixing alone, or the whole layer with its projections."""
DType = Literal["float32", "tf32", "bfloat16", "float16", "int8"]
"""``int8``: weights and activations quantised statically, by an engine that takes the model as ONNX."""
MemoryFormat = Literal["contiguous", "channels_last"]
DeviceType = Literal["cpu", "cuda"]
Kind = Literal["model", "operator", "ceiling", "data"]

EXPORTED: tuple[Engine, ...] = ("onnxruntime", "openvino", "tensorrt")
"""Engines that take the model as ONNX."""

PREFIXES: dict[str, Kind] = {"op/": "operator", "ceiling/": "ceiling", "data/": "data"}
"""Of the names of what is no model."""

PATCH = 16
"""Side in pixels of the patch that counts as one token of a model's input, whatever the model."""


ENGINE_WORDS: dict[Engine, str] = {
    "compiled-freezing": "compiled with freezing",
    "compiled-cudagraphs": "compiled with CUDA graphs",
    "compiled-max-autotune": "compiled with max-autotune",
}
"""Engines that people call otherwise than suites do."""


def engine_of_compile(value: Any) -> Engine:
    """The engine that a value of ``compile`` means. Raises ValueError for one that means none."""
    if isinstance(value, (bool, str)) and value in COMPILED:
        return COMPILED[value]
    raise ValueError(f"{value!r} is not allowed; allowed: true, false, freezing, cudagraphs")


@lru_cache(maxsize=4096)
def kind_of(subject: str) -> Kind:
    """What a name names: an operator (``op/...``), a ceiling of the device (``ceiling/...``), what a study looks at
    without any model (``data/...``), else a model."""
    return next((kind for prefix, kind in PREFIXES.items() if subject.startswith(prefix)), "model")


OWN_WEIGHTS = ("shipped (", "as the model's function returns it")
"""How records say of weights that the model's name tells them: of one that is shipped trained, of a user's function."""


class Case(BaseModel):
    """One thing to measure. Immutable; equal content means equal ``id`` on every machine.

    ``device`` is the kind of device, not its index: the same case on another GPU of the machine, or on
    another machine, keeps its id, and the environment of the run tells the devices apart.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    subject: str
    """Catalog name: an alias such as ``vheat-t``, any timm model name, or ``package.module:name``; an operator
    (``op/heat``, ``op/window-attention``, ...); one of the device's ceilings (``ceiling/copy``); or what
    a study that takes no model looks at (``data/photographs``)."""
    resolution: tuple[int, int]
    """Height and width: of a model's input in pixels, of an operator's token grid, of a ceiling's matrix."""
    batch: int | Literal["largest"] = 1
    """Images per step, or ``largest``: the largest batch that fits, itself a metric."""
    dtype: DType = "float32"
    mode: Mode = "infer"
    device: DeviceType = "cpu"
    memory_format: MemoryFormat = "contiguous"
    engine: Engine = "eager"
    """Given as ``compile`` too, see :data:`COMPILED`."""
    dynamic: bool = False
    """Whether batch, height and width are left open, as far as they can be, where the engine compiles or exports."""
    fused_attention: bool = True
    """Fused scaled-dot-product attention wherever the model has it; False turns it off everywhere."""
    channels: int | None = None
    """Channels of an operator, 96 where not given; None for a model."""
    part: Part | None = None
    """Which part of an operator, ``core`` where not given; None for a model."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments given to the model's constructor, for example ``{"window_size": 14}``."""
    analysis: dict[str, Any] = Field(default_factory=dict)
    """What an analysis looked at, for example ``{"layer": "stages.3", "weights": "random"}``; empty where timed."""

    @field_validator("resolution", mode="before")
    @classmethod
    def _square(cls, value: Any) -> Any:
        return (value, value) if isinstance(value, int) else value

    @model_validator(mode="before")
    @classmethod
    def _compile(cls, fields: Any) -> Any:
        if not isinstance(fields, dict) or "compile" not in fields:
            return fields
        fields = dict(fields)
        engine = engine_of_compile(fields.pop("compile"))
        if fields.setdefault("engine", engine) != engine and engine != "eager":
            raise ValueError(f"compile means engine {engine}, but engine {fields['engine']} was given too")
        return fields

    @model_validator(mode="before")
    @classmethod
    def _operator(cls, fields: Any) -> Any:
        # said in every case, so that one that leaves them out is the same case
        if isinstance(fields, dict) and kind_of(str(fields.get("subject"))) == "operator":
            defaults = {"channels": 96, "part": "core"}
            return {**fields, **{name: value for name, value in defaults.items() if fields.get(name) is None}}
        return fields

    @property
    def id(self) -> str:
        """12 hexadecimal digits of the SHA-256 of the case's content.

        Axes at their default value are left out, so that adding an axis later keeps old ids.
        """
        content = self.model_dump(mode="json", exclude_defaults=True)
        compiled = next((old for old, engine in COMPILED.items() if old and engine == self.engine), None)
        if compiled is not None:  # the name that these engines had before
            del content["engine"]
            content["compile"] = compiled
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def size(self) -> str:
        """The resolution in words: ``224`` for a square input, else ``height x width``."""
        height, width = self.resolution
        return str(height) if height == width else f"{height}x{width}"

    @property
    def label(self) -> str:
        """The case on one line, for people."""
        return f"{self.subject} {self.size} {self.variant}"

    @property
    def variant(self) -> str:
        """Everything but subject and resolution: cases of one variant may be drawn on one chart."""
        step = [] if self.kind == "data" else [f"b{self.batch}", self.dtype]
        parts = [*step, self.mode.replace("_", "+")]
        if self.part is not None:
            parts.append(self.part)
        if self.channels is not None:
            parts.append(f"C={self.channels}")
        if self.memory_format != "contiguous":
            parts.append(self.memory_format)
        if self.engine != "eager":
            parts.append(ENGINE_WORDS.get(self.engine, self.engine))
        if self.dynamic:
            parts.append("open sizes")
        if not self.fused_attention:
            parts.append("unfused attention")
        parts += [f"{key}={value}" for key, value in sorted({**self.options, **self.analysis}.items())]
        return " ".join(parts)

    @property
    def point(self) -> tuple[object, ...]:
        """The values of all axes: cases that have them in common are compared, and measured together.

        Options belong to the subject. A ceiling shares its point with nothing.
        """
        content = self.model_dump(exclude={"subject", "options", "analysis"})
        return (self.subject if self.kind == "ceiling" else self.kind, *content.values())

    @property
    def kind(self) -> Kind:
        """What the subject is; it decides what ``resolution`` means."""
        return kind_of(self.subject)

    @property
    def timed(self) -> bool:
        """Whether the case is a measurement of speed and memory, not an analysis."""
        return self.mode in get_args(TimedMode)

    @property
    def compiled(self) -> bool:
        """Whether torch.compile is the engine, in any of its ways."""
        return self.engine.startswith("compiled")

    @property
    def exported(self) -> bool:
        """Whether the engine takes the model as ONNX, and runs it outside torch."""
        return self.engine in EXPORTED

    @property
    def trains(self) -> bool:
        """Whether the mode takes gradients."""
        return self.mode in ("forward_backward", "train")

    @property
    def pixels(self) -> int:
        """Height times width: proportional to the number of tokens of every subject."""
        return self.resolution[0] * self.resolution[1]

    @property
    def tokens(self) -> float:
        """Number of tokens N: cells of an operator's grid, patches of 16 x 16 pixels of a model's input."""
        return float(self.pixels) if self.kind == "operator" else self.pixels / PATCH**2
