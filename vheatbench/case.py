"""A case: one point of a suite, i.e. a subject and one value of every axis."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

Mode = Literal["infer", "forward", "train"]
DType = Literal["float32", "tf32", "bfloat16", "float16"]
MemoryFormat = Literal["contiguous", "channels_last"]
DeviceType = Literal["cpu", "cuda"]


class Case(BaseModel):
    """One thing to measure. Immutable; equal content means equal ``id`` on every machine.

    ``device`` is the kind of device, not its index: the same case on another GPU of the machine, or on
    another machine, keeps its id, and the environment of the run tells the devices apart.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    subject: str
    """Catalog name: an alias such as ``vheat-t``, any timm model name, or ``package.module:name``."""
    resolution: tuple[int, int]
    """Input height and width in pixels."""
    batch: int | Literal["largest"] = 1
    """Images per step, or ``largest``: the largest batch that fits, itself a metric."""
    dtype: DType = "float32"
    mode: Mode = "infer"
    device: DeviceType = "cpu"
    memory_format: MemoryFormat = "contiguous"
    compile: bool = False
    fused_attention: bool = True
    """Fused scaled-dot-product attention wherever the model has it; False turns it off everywhere."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments given to the model's constructor, for example ``{"window_size": 14}``."""

    @field_validator("resolution", mode="before")
    @classmethod
    def _square(cls, value: Any) -> Any:
        return (value, value) if isinstance(value, int) else value

    @property
    def id(self) -> str:
        """12 hexadecimal digits of the SHA-256 of the case's content.

        Axes at their default value are left out, so that adding an axis later keeps old ids.
        """
        content = self.model_dump(mode="json", exclude_defaults=True)
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
        batch = "largest" if self.batch == "largest" else str(self.batch)
        parts = [self.subject, self.size, f"b{batch}", self.dtype, self.mode]
        if self.memory_format != "contiguous":
            parts.append(self.memory_format)
        if self.compile:
            parts.append("compiled")
        if not self.fused_attention:
            parts.append("unfused attention")
        parts += [f"{key}={value}" for key, value in sorted(self.options.items())]
        return " ".join(parts)

    @property
    def pixels(self) -> int:
        """Height times width: proportional to the number of tokens of every subject."""
        return self.resolution[0] * self.resolution[1]

    @property
    def variant(self) -> str:
        """Everything but subject and resolution: cases of one variant may be drawn on one chart."""
        return Case.model_validate({**self.model_dump(), "subject": "*", "resolution": (1, 1)}).label[4:]
