"""Bytes that a step keeps alive at once, foreseen on the meta device: nothing is computed or allocated."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode


class _LiveBytes(TorchDispatchMode):
    """Adds up the storages of all tensors that operators return, until the storages die."""

    def __init__(self) -> None:
        super().__init__()
        self.live = 0
        self.peak = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in pytree.tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._track(tensor.untyped_storage())
        return result

    def know(self, tensor: Tensor) -> None:
        """Leave a tensor that exists before the step out of the count."""
        self._seen.add(tensor.untyped_storage()._cdata)

    def _track(self, storage: torch.UntypedStorage) -> None:
        key, nbytes = storage._cdata, storage.nbytes()
        if key in self._seen:
            return
        self._seen.add(key)
        self.live += nbytes
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._forget, key, nbytes)

    def _forget(self, key: int, nbytes: int) -> None:
        self._seen.discard(key)
        self.live -= nbytes


def activation_bytes(step: Callable[[], object], known: list[Tensor]) -> int:
    """Most bytes alive at once during ``step``, without the tensors in ``known`` (weights and input).

    Close to what torch's allocators report for eager code (within a few percent in the tests); memory
    that kernels take behind torch's back (cuDNN and oneDNN workspaces) is not foreseen.
    """
    tracker = _LiveBytes()
    for tensor in known:
        tracker.know(tensor)
    with tracker:
        step()
    return tracker.peak
