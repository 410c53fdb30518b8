"""What the catalog builds: a module, its input, and what a record says about it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from vheatbench.case import Case


@dataclass(frozen=True)
class Built:
    """A model or an operator ready to be measured."""

    model: nn.Module
    input_shape: tuple[int, ...]
    """Of one image, without the batch."""
    facts: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    n_inputs: int = 1
    """How many tensors of that shape the module takes: 3 for the core of attention (q, k, v)."""
    context: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext
    """What to run it within, entered once around everything: the kernel that attention may take."""

    def inputs(self, batch: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, ...]:
        """Normally distributed inputs of shape (batch, ...), contiguous."""
        return tuple(torch.randn(batch, *self.input_shape, device=device, dtype=dtype) for _ in range(self.n_inputs))


Builder = Callable[[Case, "torch.device | str"], Built]
"""What gives the subject of a case on a device; on the meta device only to be counted."""
