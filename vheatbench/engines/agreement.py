"""Whether an engine computes what the model itself computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from vheatbench.case import DType

TOLERANCE: dict[DType, float] = {"float32": 1e-4, "tf32": 1e-2, "float16": 2e-2, "bfloat16": 1e-1}
"""Largest difference from the model's own output relative to its largest value. In 16 bits the engine's products are
rounded at other places than the model's, block after block."""


class AgreementError(Exception):
    """An engine computes something else than the model."""


def leaves(output: Any) -> tuple[Tensor, ...]:
    """The tensors of a model's output, in the order in which an exporter sees them."""
    return tuple(leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor))


def disagreement(output: Any, expected: Sequence[Tensor]) -> float:
    """The largest difference of any output from what was expected, relative to the largest value of that output.

    Raises:
        AgreementError: there are more or fewer outputs, or they have other shapes.
    """
    found = leaves(output)
    shapes = [tuple(tensor.shape) for tensor in found], [tuple(tensor.shape) for tensor in expected]
    if shapes[0] != shapes[1]:
        raise AgreementError(f"the outputs have shapes {shapes[0]} where the model gives {shapes[1]}")
    worst = 0.0
    for ours, theirs in zip(found, expected, strict=True):
        if theirs.numel():
            theirs = theirs.to(torch.float64)
            scale = theirs.abs().max().clamp(min=torch.finfo(torch.float32).tiny)
            worst = max(worst, ((ours.to(torch.float64) - theirs).abs().max() / scale).item())
    return worst
