"""Multiply-adds as fvcore prints them, without running fvcore: for models that it cannot trace.

fvcore traces with real tensors, which takes minutes for a detector and fails on the meta device. What it adds
to torch's counter is known: norms, resizing and pooling, each so many per element. Published numbers
of vHeat and Swin were taken with fvcore, so only this sum compares with them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from vheatbench.measure.flops import FlopCount, count_flops

ATTENTION = ("bmm", "scaled_dot_product")
"""Parts of names of the products of attention, in a model of timm's that has attention."""


@dataclass(frozen=True)
class RuleCount:
    """One forward pass, counted by torch and by fvcore's rules."""

    torch: FlopCount
    extra: dict[str, int]
    """What fvcore counts beyond products, by operator."""
    attention_macs: float
    """Of attention alone: queries x keys, and weights x values. 0 for a model without."""

    @property
    def macs(self) -> float:
        """As torch counts: convolutions and matrix products."""
        return self.torch.macs

    @property
    def macs_fvcore(self) -> float:
        """As fvcore counts: products, norms, resizing and pooling."""
        return self.torch.macs + sum(self.extra.values())


class _Extras(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.extra: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        rule = _RULES.get(name)
        if rule is None:
            # with inference tensors alone composite operators, such as norms, arrive whole
            with self:
                output = func.decompose(*args, **(kwargs or {}))
            if output is not NotImplemented:
                return output
        output = func(*args, **(kwargs or {}))
        if rule is not None:
            self.extra[name] += rule(args, output)
        return output


def _elements(x: Tensor) -> int:
    return x.numel()


def _layer_norm(args: tuple[Any, ...], output: Any) -> int:
    return _elements(args[0]) * (5 if args[2] is not None else 4)


def _batch_norm(args: tuple[Any, ...], output: Any) -> int:
    return _elements(args[0]) * (2 if args[1] is not None else 1)


def _resized(per_element: int) -> Callable[[tuple[Any, ...], Any], int]:
    def rule(args: tuple[Any, ...], output: Tensor) -> int:
        return per_element * output.numel()

    return rule


def _pooled(args: tuple[Any, ...], output: Any) -> int:
    return _elements(args[0])


_RULES: dict[str, Callable[[tuple[Any, ...], Any], int]] = {
    "native_layer_norm": _layer_norm,
    "native_batch_norm": _batch_norm,
    "_native_batch_norm_legit_no_training": _batch_norm,
    "upsample_nearest2d": _resized(1),
    "upsample_bilinear2d": _resized(4),
    "_adaptive_avg_pool2d": _pooled,
}
"""Operator of a model in evaluation mode to fvcore's count for it (``fvcore.nn.flop_count``). Pooling to one cell is
left out: torch makes it a mean, which fvcore counts as pooling and nothing else as such."""


def count_by_rules(model: nn.Module, forward: Callable[[], object]) -> RuleCount:
    """Count one call of ``forward``, which runs ``model``, by torch's counter and by fvcore's rules.

    Both on the meta device and in evaluation mode.
    """
    extras = _Extras()

    def watched() -> None:
        # inside the counter's mode, which takes nearest neighbours apart before an outer mode could see them
        with extras:
            forward()

    count = count_flops(watched)
    batched = sum(flops for name, flops in count.by_operator.items() if any(part in name for part in ATTENTION)) / 2
    # without attention, as in vHeat, batched products are something else
    attends = any(hasattr(module, "fused_attn") for module in model.modules())
    return RuleCount(count, dict(extras.extra), batched if attends else 0.0)
