"""FLOPs of a step: counted operator by operator, with a statement of what nobody counted.

A multiply-add is 2 FLOPs. Papers on Swin and vHeat print multiply-adds (MACs) and call them FLOPs, so
both are always given.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from vheatbench.measure.outputs import tensors_of
from vheatbench.store.schema import Metric

TRAIN_FACTOR = 3
"""A training step counts as 3 forward passes: the backward of every product is two products of its size.
It is not counted, because torch (2.15) overcounts the backward of grouped convolutions by the number of
groups: a depthwise network would show many times its cost."""

FREE = {
    "alias", "arange", "as_strided", "as_strided_", "clone", "contiguous", "copy_", "detach", "empty", "empty_like",
    "empty_strided", "expand", "eye", "fill_", "full", "full_like", "lift_fresh", "new_empty", "new_zeros",
    "ones", "permute", "reshape", "resize_", "scalar_tensor", "select", "slice", "split", "split_with_sizes",
    "squeeze", "t", "transpose", "unbind", "unflatten", "unfold", "unsqueeze", "view", "zeros", "zeros_like",
    "_reshape_alias", "_unsafe_view", "_to_copy", "is_same_size", "cat", "stack", "roll", "constant_pad_nd",
    "index", "index_select", "im2col", "col2im", "repeat", "where", "masked_fill",
}  # fmt: skip
"""Operators that move or describe data and compute nothing."""

HEAVY = re.compile(r"(fft|conv|attention|einsum|lstm|gru|rnn|cdist|matmul)|(mm|mv|dot|addr|ger|linear)(_|$)")
"""Names of operators that may compute large products. Only ends of words in the second group, for
``upsample_bilinear2d`` and ``cummax`` compute none."""


@dataclass(frozen=True)
class FlopCount:
    """What a forward pass costs, and how sure that is."""

    flops: int
    by_operator: dict[str, int]
    uncounted: dict[str, int] = field(default_factory=dict)
    """Operators that ran without a FLOP formula, with the number of calls: norms, activations, ..."""

    @property
    def macs(self) -> float:
        """Multiply-adds: half the FLOPs."""
        return self.flops / 2

    @property
    def suspicious(self) -> list[str]:
        """Uncounted operators that may hide large products: transforms, convolutions, custom kernels."""
        return [name for name in self.uncounted if not name.startswith("aten.") or HEAVY.search(name.lower())]


def _attention_flops(
    query: tuple[int, ...], key: tuple[int, ...], value: tuple[int, ...], *_: object, **__: object
) -> int:
    return int(sdpa_flop_count(query, key, value))


CPU_ATTENTION = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops}
"""The fused kernel of CPUs, which torch's own counter knows from 2.15 on."""


class _NoModules:
    """In place of torch's tracker of modules: everything belongs to the whole."""

    parents = frozenset(("Global",))

    def __enter__(self) -> _NoModules:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class FlopCounter(FlopCounterMode):
    """torch's counter without its tracker of modules, whose hooks would change what is counted.

    They let a model that heeds hooks take another path than it takes without, and fail on a parameter or a view of one
    as a module's input where no gradients are taken: in every model with a frequency embedding or pooling by attention.
    """

    def __init__(self) -> None:
        super().__init__(display=False, custom_mapping=CPU_ATTENTION)
        self.mod_tracker = _NoModules()  # type: ignore[assignment]


class _Operators(TorchDispatchMode):
    """Counts the calls of every operator."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.calls[str(func.overloadpacket)] += 1
        return func(*args, **(kwargs or {}))


def count_flops(forward: Callable[[], object]) -> FlopCount:
    """Count the FLOPs of one call of ``forward``, best on tensors of the meta device; in any autograd mode.

    Uses ``torch.utils.flop_counter``, which knows convolutions, matrix products and every fused
    attention kernel. There it costs no memory and a fraction of a second at any resolution.
    """
    operators = _Operators()
    counter = FlopCounter()
    with operators, counter:
        forward()
    by_operator = {str(key): int(value) for key, value in counter.get_flop_counts().get("Global", {}).items()}
    uncounted = {
        name: calls
        for name, calls in sorted(operators.calls.items())
        if name not in by_operator and name.split(".")[-1] not in FREE
    }
    return FlopCount(int(counter.get_total_flops()), by_operator, uncounted)


def flop_metrics(count: FlopCount, batch: int, form: str, train: bool = False) -> dict[str, Metric]:
    """``flops`` and ``macs`` per image, from a count over a batch.

    Args:
        count: forward pass over the whole batch.
        batch: images in it; matters because the training form of vHeat predicts k once per pass.
        form: which form of the model was counted, for the metric's ``how``.
        train: multiply by :data:`TRAIN_FACTOR`.
    """
    factor = TRAIN_FACTOR if train else 1
    how = f"torch FlopCounterMode on the meta device, {form}, batch {batch}, forward pass"
    if train:
        how += f" times {TRAIN_FACTOR} for forward and backward (torch miscounts depthwise backward)"
    per_image = count.flops * factor / batch

    def metric(value: float, unit: str) -> Metric:
        return Metric(value=value, unit=unit, direction="lower", how=how, deterministic=True)

    return {"flops": metric(per_image, "FLOP/image"), "macs": metric(per_image / 2, "MAC/image")}


@dataclass(frozen=True)
class FvcoreCount:
    """What fvcore counts."""

    macs: float
    """As fvcore prints it, norms and pooling included."""
    products: float
    """Without norms and pooling: what compares with :attr:`FlopCount.macs`."""
    skipped: dict[str, int]
    """Operators that fvcore has no handler for, with the number of calls."""


def count_with_fvcore(model: nn.Module, inputs: Tensor) -> FvcoreCount:
    """A second opinion by fvcore, with handlers for the operators that it skips or miscounts.

    It traces the model with real tensors: seconds, where :func:`count_flops` takes a tenth. Out of the
    box it leaves out fused attention (18 % of ViT-B at 512, 47 % at 1024) and the batch of a broadcast
    product (half of the heat operator's transforms). The model is left in the mode that it was in.
    """
    from fvcore.nn import FlopCountAnalysis

    training = [module for module in model.modules() if module.training]
    try:
        analysis = FlopCountAnalysis(_Tensors(model.eval()), inputs)
        for name in ("aten::scaled_dot_product_attention", "aten::_scaled_dot_product_flash_attention_for_cpu"):
            analysis.set_op_handle(name, _attention_macs)
        analysis.set_op_handle("aten::matmul", _matmul_macs)
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
        logging.getLogger("fvcore").setLevel(logging.ERROR)
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            by_operator = dict(analysis.by_operator())
            skipped = dict(analysis.unsupported_ops())
    finally:
        for module in training:
            module.training = True
    minor = sum(
        macs for name, macs in by_operator.items() if any(word in name for word in ("norm", "pool", "upsample"))
    )
    total = float(sum(by_operator.values()))
    return FvcoreCount(total, total - minor, skipped)


class _Tensors(nn.Module):
    """A model whose output is a tuple of tensors, which is all that torch's tracer takes."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(tensors_of(self.model(*inputs)).values())


def _attention_macs(inputs: list[Any], outputs: list[Any]) -> float:
    """Multiply-adds of softmax(Q K^T) V from the traced shapes (..., L, E), (..., S, E), (..., S, Ev)."""
    query, key, value = (item.type().sizes() for item in inputs[:3])
    rows = 1
    for n in query[:-1]:
        rows *= n
    return float(rows * key[-2] * (query[-1] + value[-1]))


def _matmul_macs(inputs: list[Any], outputs: list[Any]) -> float:
    """Multiply-adds of a broadcast product; fvcore's own handler ignores the batch of the second factor."""
    inner = inputs[0].type().sizes()[-1]
    elements = 1
    for n in outputs[0].type().sizes():
        elements *= n
    return float(elements * inner)


def disagreement(ours: float, other: float) -> float:
    """Relative difference of two counts, signed: 0.01 means ``other`` counts 1 % more."""
    if not ours:
        return float("inf") if other else 0.0
    return other / ours - 1
