"""Which of three ways a heat block computes the same: plain operations, fused ones, or lean autograd."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor, nn

from vheatbench.subjects.fused import fuses
from vheatbench.subjects.parts import profiling

Path = Literal["plain", "fused", "lean"]

_only_plain = False


@contextlib.contextmanager
def plain_operations() -> Iterator[None]:
    """Within it every block takes the plain path: second derivatives, ``torch.func``, comparisons."""
    global _only_plain
    before, _only_plain = _only_plain, True
    try:
        yield
    finally:
        _only_plain = before


def path_for(x: Tensor, *modules: nn.Module) -> Path:
    """The way to compute layers ``modules`` on ``x``.

    ``plain``: operations of torch as written, where ``x`` is traced (:func:`is_traced`), on the meta device, and
    where a layer is not torch's own, is not as it was built or someone listens to it (hooks, LoRA, quantisation).
    ``lean``: with gradients, functions that save less for backward. ``fused``: without gradients on a CPU,
    products that add bias, activation and residual themselves.
    """
    if is_traced(x) or _only_plain or x.device.type == "meta" or not all(map(_untouched, modules)):
        return "plain"
    if torch.is_grad_enabled():
        return "lean" if all(map(_has_all_parameters, modules)) else "plain"
    # autocast first: what :func:`fuses` tries out must not run under it
    return "fused" if not torch.is_autocast_enabled("cpu") and fuses(x) else "plain"


def is_traced(x: Tensor) -> bool:
    """Whether more than the values of ``x`` flows through its operations.

    Compilers and tracers fuse and recompute by their own plan, transforms (``torch.func``) and forward-mode
    derivatives need operations that they know, and so do tensors of other classes (fake, quantised). Whatever
    is made of such a tensor must not outlive the call either.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or torch.jit.is_scripting():
        return True
    if type(x) not in (Tensor, nn.Parameter):
        return True
    # torch offers no public question for either
    return torch._C._functorch.peek_interpreter_stack() is not None or torch.autograd.forward_ad._current_level >= 0


def _untouched(module: nn.Module) -> bool:
    """Whether a call of ``module`` does what its class and parameters say, and nobody notices when it is left out."""
    if isinstance(module, nn.Linear) and module.bias is None:
        return False
    if isinstance(module, nn.GELU) and module.approximate != "none":
        return False
    return (
        type(module) in (nn.Linear, nn.Conv2d, nn.LayerNorm, nn.GELU)
        and "forward" not in vars(module)
        and not has_hooks(module)
        and all(p is None or type(p) in (nn.Parameter, Tensor) for p in module._parameters.values())
    )


def _has_all_parameters(module: nn.Module) -> bool:
    return all(getattr(module, name, module) is not None for name in ("weight", "bias"))


def has_hooks(*modules: nn.Module) -> bool:
    """Whether someone listens to calls of one of the modules, or of every module there is.

    A profiler's hooks on every module do not count: it would time another path than the one that runs.
    """
    every = nn.modules.module
    everywhere = (
        every._global_forward_hooks
        or every._global_forward_pre_hooks
        or every._global_backward_hooks
        or every._global_backward_pre_hooks
    )
    return bool(everywhere and not profiling()) or any(
        m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks for m in modules
    )
