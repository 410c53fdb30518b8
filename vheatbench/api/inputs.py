"""What a model is given: a shape, or the very tensor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from vheatbench.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

Shape = tuple[int | Literal["largest"], int, int, int]
"""(batch, channels, height, width); of an operator height and width are cells of its token grid."""


@dataclass(frozen=True)
class Inputs:
    """A checked shape, and the tensor that it is of, if there is one."""

    batch: int | Literal["largest"]
    channels: int
    size: tuple[int, int]
    given: Tensor | None = None


def inputs_of(inputs: Shape | Tensor) -> Inputs:
    """What was asked for, checked.

    Args:
        inputs: (batch, channels, height, width), for normally distributed numbers; or a tensor of that shape. The batch
            of a name may be ``"largest"``.

    Raises:
        UserError: it is neither.
    """
    given = None if isinstance(inputs, (tuple, list)) else inputs
    shape = tuple(getattr(inputs, "shape", inputs))
    whole = all(isinstance(side, int) and not isinstance(side, bool) and side >= 1 for side in shape[1:])
    batch = shape[0] if shape else 0
    if len(shape) != 4 or not whole or not (batch == "largest" or (isinstance(batch, int) and batch >= 1)):
        words = f"a tensor of shape {shape}" if given is not None else repr(inputs)
        raise UserError(f"inputs: {words} is no (batch, channels, height, width), such as (1, 3, 224, 224)")
    return Inputs(batch, shape[1], (shape[2], shape[3]), given)
