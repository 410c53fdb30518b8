"""Bytes that a step keeps alive at once, foreseen on the meta device: nothing is computed or allocated."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
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


class _FusedAttention(TorchFunctionMode):
    """Runs fused attention as one operator, as real devices do.

    On the meta device torch picks the version written out in products, whose matrix of tokens x tokens no
    fused kernel keeps. With a mask that learns (the position bias of Swin in training) a CPU has no fused
    kernel either, so that case is left alone.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.nn.functional.scaled_dot_product_attention:
            return self._attention(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    @staticmethod
    def _attention(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Any:
        learns = attn_mask is not None and attn_mask.requires_grad and torch.is_grad_enabled()
        four_dimensional = query.dim() == key.dim() == value.dim() == 4
        if query.device.type != "meta" or learns or dropout_p or enable_gqa or not four_dimensional:
            return torch.nn.functional.scaled_dot_product_attention(
                query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
            )
        fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        return fused(query, key, value, 0.0, is_causal, attn_mask=attn_mask, scale=scale)[0]


def activation_bytes(step: Callable[[], object], known: list[Tensor]) -> int:
    """Most bytes alive at once during ``step``, without the tensors in ``known`` (weights and input).

    What torch's CPU allocator reports for eager code, to the byte where activations outweigh weights
    and the model is made of products and norms. Copies that kernels make within themselves are not
    foreseen (oneDNN reorders the weights and input of some convolutions, cuDNN takes workspace): the
    small convolutional networks of the tests need up to a quarter more than is foreseen here.
    """
    tracker = _LiveBytes()
    for tensor in known:
        tracker.know(tensor)
    with _FusedAttention(), tracker:
        step()
    return tracker.peak
