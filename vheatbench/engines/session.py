"""What an engine is given beside a module and its inputs, and what it answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from torch import Tensor

from vheatbench.case import Case


class Number(NamedTuple):
    """A number that building an engine's session has given: a metric of the record."""

    value: float
    unit: str
    how: str
    deterministic: bool = False
    direction: Literal["higher", "lower", "neutral"] = "lower"


@dataclass(frozen=True)
class Setting:
    """What an engine is to build, and with what."""

    case: Case
    threads: int
    """Of the case: the engine's own threads are as many."""
    expected: tuple[Tensor, ...] = ()
    """What the module itself gives for the inputs, in order."""
    folder: Path | None = None
    """Where exported models are kept that later rounds of the run take; None where they are not."""
    begins: Callable[[], None] = lambda: None
    """Called right before a session is built that has weights of its own."""


@dataclass
class Session:
    """A module as an engine runs it."""

    call: Callable[..., Any]
    """Takes the inputs that it was built with; an engine outside torch has bound them, and gives its outputs as one
    tuple of tensors that the next call overwrites."""
    facts: dict[str, Any] = field(default_factory=dict)
    """For the record: name, version, provider, threads, affinity, arena."""
    numbers: dict[str, Number] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    tolerance: float | None = None
    """Largest relative difference from what the module gives, above which the engine computes something else; None
    where the difference is only stated, or the module itself is run."""
    compared: str = ""
    """What ``tolerance`` compares, in words."""
