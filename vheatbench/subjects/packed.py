"""Weights of layers that no longer change, kept a second time in the layout that oneDNN multiplies by.

Without, every product turns its weight into that layout first, which a few tokens do not pay for: at batch 1 a tenth
of a model's time. The copies are made at the first call, live as long as their layer and are made anew where its
weight has changed; state dicts, copies and pickles of a model know nothing of them.
"""

from __future__ import annotations

import weakref
from typing import NamedTuple

from torch import Tensor, nn

from vheatbench.subjects import onednn


class _Copy(NamedTuple):
    weight: weakref.ref[Tensor]
    original: Tensor
    """The weight's memory: while it is held, no other weight can come to lie at its address."""
    version: int
    packed: Tensor


_copies: weakref.WeakKeyDictionary[nn.Module, dict[tuple[int, int], _Copy]] = weakref.WeakKeyDictionary()


def settle(model: nn.Module) -> None:
    """Say of a model's layers that their weights stay, so that a second copy of them pays."""
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            module.settled = True  # type: ignore[assignment]  # a plain attribute, which copies and pickles take along


def held_bytes(model: nn.Module) -> int:
    """Size of the copies that are kept of a model's weights, without what their layout adds at the edges."""
    copies = (copy for module in model.modules() for copy in _copies.get(module, {}).values())
    return sum(copy.packed.numel() * copy.packed.element_size() for copy in copies)


def drop_copies(model: nn.Module) -> None:
    """Give back the memory of the copies, and of the weights that they hold on to."""
    for module in model.modules():
        _copies.pop(module, None)


def packed_linear(layer: nn.Linear, start: int = 0, stop: int | None = None) -> Tensor:
    """Rows ``start`` to ``stop`` of the layer's weight, packed where it has settled, else as they are."""
    stop = layer.out_features if stop is None else stop
    weight = layer.weight if (start, stop) == (0, layer.out_features) else layer.weight[start:stop]
    if not _settled(layer):
        return weight
    found = _found(layer, (start, stop))
    return _kept(layer, (start, stop), onednn.pack(weight)) if found is None else found


def packed_convolution(layer: nn.Conv2d, height: int, width: int) -> Tensor | None:
    """The layer's weight, packed for :func:`vheatbench.subjects.onednn.convolution` of maps of this height and width.

    None where it has not settled.
    """
    if not _settled(layer):
        return None
    found = _found(layer, (height, width))
    if found is not None:
        return found
    stride, padding = layer.stride, layer.padding
    assert not isinstance(padding, str)
    packed = onednn.pack_convolution(layer.weight, stride, padding, layer.groups, (height, width))
    _copies.pop(layer, None)  # a deployed model has one size: no copy for an earlier one is kept
    return _kept(layer, (height, width), packed)


def _settled(layer: nn.Linear | nn.Conv2d) -> bool:
    weight = layer.weight
    return (
        getattr(layer, "settled", False) is True
        and not weight.is_inference()  # such a tensor has no version, so that a change would not be seen
        and onednn.packs(weight.dtype)
    )


def _found(layer: nn.Linear | nn.Conv2d, key: tuple[int, int]) -> Tensor | None:
    copy, weight = _copies.get(layer, {}).get(key), layer.weight
    if copy is None or copy.weight() is not weight or copy.version != weight._version:
        return None
    return copy.packed if copy.original.data_ptr() == weight.data_ptr() else None


def _kept(layer: nn.Linear | nn.Conv2d, key: tuple[int, int], packed: Tensor) -> Tensor:
    weight = layer.weight
    copy = _Copy(weakref.ref(weight), weight.detach(), weight._version, packed)
    _copies.setdefault(layer, {})[key] = copy
    return packed
