"""The ablation that shows heat conduction: a vHeat with the same weights and another k."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from vheatbench.errors import UserError
from vheatbench.subjects.heat_operator import HeatOperator


class ConstantDiffusivity(nn.Module):
    """Stands where an operator predicts k, and gives the same k for every frequency and channel."""

    def __init__(self, k: float) -> None:
        super().__init__()
        self.k = k

    def forward(self, embedding: Tensor) -> Tensor:
        return torch.full_like(embedding, self.k)


def conducts(model: nn.Module) -> bool:
    """Whether the model has heat operators."""
    return any(isinstance(module, HeatOperator) for module in model.modules())


def constant_k(conduction: str) -> float | None:
    """``learned`` to None, ``none`` to 0, a number to itself, in cells squared. Raises UserError."""
    if conduction == "learned":
        return None
    if conduction == "none":
        return 0.0
    try:
        k = float(conduction)
    except ValueError:
        k = math.nan
    if not (math.isfinite(k) and k >= 0):
        raise UserError(
            f"--conduction {conduction!r} is neither learned nor none (k = 0) nor a constant k >= 0 in cells squared"
        )
    return k


@contextmanager
def conducting(model: nn.Module, conduction: str) -> Iterator[None]:
    """Within it every heat operator of ``model`` conducts with the k of :func:`constant_k`."""
    k = constant_k(conduction)
    operators = [module for module in model.modules() if isinstance(module, HeatOperator)]
    before = [operator.to_k for operator in operators]
    try:
        if k is not None:
            for operator in operators:
                operator.to_k = ConstantDiffusivity(k)
        yield
    finally:
        for operator, to_k in zip(operators, before, strict=True):
            operator.to_k = to_k
