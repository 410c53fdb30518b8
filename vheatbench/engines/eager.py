"""The module itself, operation by operation."""

from __future__ import annotations

from torch import Tensor, nn

from vheatbench.case import Case
from vheatbench.engines.session import Session, Setting


def check(case: Case) -> None:
    """It takes every case."""


def missing(case: Case) -> str | None:
    """It is everywhere."""
    return None


def build(module: nn.Module, inputs: tuple[Tensor, ...], setting: Setting) -> Session:
    """The module as it is."""
    return Session(module)
