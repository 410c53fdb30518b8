"""From what is typed in Python to a case: of a name, or of a live module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from vheatbench.api.inputs import Inputs
from vheatbench.case import Case, DeviceType, kind_of
from vheatbench.errors import UserError

if TYPE_CHECKING:
    from torch import nn

Device = Literal["auto"] | DeviceType
"""``auto``: of a name a GPU where there is one, of a live module where it is."""


def case_of(model: str | nn.Module, inputs: Inputs, device: Device, name: str | None = None, **axes: Any) -> Case:
    """The case of a measurement.

    Args:
        model: what is measured.
        inputs: what it is given.
        device: see :data:`Device`.
        name: what a live module is called in the record; by default as its class.
        axes: further fields of :class:`vheatbench.case.Case`; None leaves one at its default.

    Raises:
        UserError: a value that is not allowed, or a live module that cannot be measured here.
    """
    axes = {key: value for key, value in axes.items() if value is not None}
    if isinstance(model, str):
        if inputs.given is not None:
            raise UserError(
                "a name is built in a process of its own, which gets no tensor: give the shape of the inputs"
            )
        kind = kind_of(model)
        if kind == "operator":
            axes["channels"] = inputs.channels
        elif kind == "model":
            axes["options"] = _options(dict(axes.get("options") or {}), inputs.channels)
        subject, where = model, _kind_of_device(device)
    else:
        from vheatbench.api.live import device_of, dtype_of

        if inputs.batch == "largest":
            raise UserError(
                "the largest batch that fits is looked for with names only: running out of memory would "
                "end this process"
            )
        if axes.get("options") or axes.get("part"):
            raise UserError("options and part belong to names: a live module is built already")
        subject, where = name or type(model).__name__, device_of(model) if device == "auto" else device
        axes.setdefault("dtype", dtype_of(model))
        if axes.get("mode") in ("train", "forward_backward") and dtype_of(model) != "float32":
            raise UserError(
                f"training steps keep weights in float32, the module is in {dtype_of(model)}: model.float()"
            )
    try:
        return Case(subject=subject, resolution=inputs.size, batch=inputs.batch, device=where, **axes)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise UserError(f"{first['loc'][0]}: {first['msg']}, not {first['input']!r}") from None


def _options(options: dict[str, Any], channels: int) -> dict[str, Any]:
    """The constructor's arguments, with the channels of the image where they are not those of a photograph."""
    return options if channels == 3 or "in_chans" in options else {**options, "in_chans": channels}


def _kind_of_device(device: Device) -> DeviceType:
    if device != "auto":
        return device
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def checked_options(options: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """As JSON takes them, for they travel. Raises UserError."""
    import json

    if options is None:
        return None
    try:
        json.dumps(dict(options), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UserError(f"options are numbers, words, True, False, None, lists and dicts ({error})") from None
    return dict(options)
