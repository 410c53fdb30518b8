"""What a model returns, whatever it is packed in: a tensor, a tuple, a dict, a dataclass, or these in each other.

The logits are the entry ``logits``, else the entry ``out``, else the first tensor: so name them Hugging Face's models,
torchvision's, and all others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

LOGITS = ("logits", "out")
"""Names of the entry that holds them, in order of preference."""


def tensors_of(output: Any) -> dict[str, Tensor]:
    """Every tensor in an output, in order, by its path such as ``aux`` or ``hidden_states.0``; a tensor by ``""``."""
    return dict(_walk(output, ""))


def _walk(output: Any, path: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(output, Tensor):
        yield path, output
        return
    entries: list[tuple[str, Any]] = []
    if isinstance(output, Mapping):  # before dataclasses: Hugging Face's outputs are both, and leave out what is None
        entries = [(str(key), value) for key, value in output.items()]
    elif is_dataclass(output):
        entries = [(field.name, getattr(output, field.name, None)) for field in fields(output)]
    elif isinstance(output, (tuple, list)):
        names = getattr(output, "_fields", range(len(output)))
        entries = [(str(name), value) for name, value in zip(names, output, strict=True)]
    for name, value in entries:
        yield from _walk(value, f"{path}.{name}" if path else name)


def logits_name(tensors: Mapping[str, Tensor]) -> str:
    """The path of the logits among :func:`tensors_of`. ValueError where there is no tensor."""
    named = (path for name in LOGITS for path in tensors if path.partition(".")[0] == name)
    path = next(named, next(iter(tensors), None))
    if path is None:
        raise ValueError("the model returns nothing that holds a tensor")
    return path


def logits_of(output: Any) -> Tensor:
    """The logits of an output, see the module. ValueError where there is no tensor."""
    if isinstance(output, Tensor):
        return output
    tensors = tensors_of(output)
    return tensors[logits_name(tensors)]


def trained_outputs(output: Any) -> dict[str, Tensor]:
    """What a training takes a loss of: the logits, and auxiliary ones, by their shape and type. ValueError as above."""
    tensors = tensors_of(output)
    main = logits_name(tensors)
    logits = tensors[main]
    alike = {path: t for path, t in tensors.items() if (t.shape, t.dtype) == (logits.shape, logits.dtype)}
    return {main: logits, **alike}


def training_loss(output: Any, criterion: Callable[[Tensor], Tensor]) -> Tensor:
    """The sum of the losses of the logits and of the auxiliary outputs, each with weight 1."""
    if isinstance(output, Tensor):
        return criterion(output)
    first, *others = (criterion(logits) for logits in trained_outputs(output).values())
    return sum(others, first)


def loss_note(output: Any) -> str | None:
    """What is to be said of the loss where there is more than one output; None for a tensor alone."""
    tensors = tensors_of(output)
    if len(tensors) < 2:
        return None
    trained = list(trained_outputs(output))
    if len(trained) == 1:
        return f"the model returns {len(tensors)} tensors: the loss is that of {trained[0]!r} alone"
    return f"the loss is the sum over the outputs {', '.join(map(repr, trained))}, each with weight 1"


def check_finite(output: Any, how: str = "") -> None:
    """Raises FloatingPointError where any tensor holds a NaN or an infinity. ``how``: the end of its message."""
    for path, tensor in tensors_of(output).items():
        if not bool(torch.isfinite(tensor).all()):
            raise FloatingPointError(f"the output{f' {path!r}' if path else ''} is not finite{how}")
