"""torch.compile, in several ways. It compiles in the first call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vheatbench.case import Case
from vheatbench.engines.agreement import TOLERANCE
from vheatbench.engines.session import Session, Setting
from vheatbench.errors import UserError

MODES = {"compiled-cudagraphs": "reduce-overhead", "compiled-max-autotune": "max-autotune"}
"""What torch.compile calls them."""


def check(case: Case) -> None:
    """Raises UserError for a way of compiling that the case's device or mode has not."""
    if case.engine == "compiled-freezing" and (case.trains or case.device != "cpu"):
        raise UserError(
            f"compile freezing folds weights into the graph for inference on a CPU: "
            f"not in mode {case.mode} on {case.device}"
        )
    if case.engine == "compiled-cudagraphs" and case.device != "cuda":
        raise UserError(f"compile cudagraphs replays kernels of a GPU: there are none on {case.device}")


def missing(case: Case) -> str | None:
    """What it needs (a C++ compiler, Triton) shows when it compiles."""
    return None


def build(module: nn.Module, inputs: tuple[Tensor, ...], setting: Setting) -> Session:
    """The module under torch.compile."""
    case = setting.case
    mode = MODES.get(case.engine)
    call: Callable[..., Any] = torch.compile(module, mode=mode, dynamic=True if case.dynamic else None)
    if case.engine == "compiled-freezing":
        call = _frozen(call)
    facts = {"name": case.engine, "version": torch.__version__}
    if case.trains:
        return Session(call, facts)
    return Session(call, facts, tolerance=TOLERANCE[case.dtype], compared=f"the model run eagerly in {case.dtype}")


def _frozen(call: Callable[..., Any]) -> Callable[..., Any]:
    """Have inductor fold the weights when it compiles, which it does in the first call."""
    import torch._inductor.config as inductor

    compiled = False

    def frozen(*inputs: Tensor) -> Any:
        nonlocal compiled
        if compiled:
            return call(*inputs)
        # dynamo reads it as well, so it cannot be one of torch.compile's options
        with inductor.patch(freezing=True):
            output = call(*inputs)
        compiled = True
        return output

    return frozen
