"""Models without values: built on the meta device for their shapes alone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_FILLS = {Tensor.clamp_, Tensor.erfinv_}
"""What initialisations do in place and torch carries out on the meta device in Python: ``clamp_`` for milliseconds, in
every linear layer of a Swin or ViT most of the time that the model takes to build."""


class _Unfilled(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        bounds = (*args[1:], *kwargs.values())
        if func in _FILLS and args[0].is_meta and not any(isinstance(bound, Tensor) for bound in bounds):
            return args[0]  # there is no value to change, and shape and type stay
        return func(*args, **kwargs)


@contextlib.contextmanager
def on_meta() -> Iterator[None]:
    """What is made within has shapes and types but no values, as in ``torch.device("meta")``, and is made sooner."""
    with torch.device("meta"), _Unfilled():
        yield
