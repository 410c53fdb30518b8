"""Operators as subjects: ``op/heat``, ``op/attention``, ... by name, their core or their whole layer.

All take a token grid (``Case.resolution``) of ``Case.channels`` channels. The layers map (B, H, W, C) to
(B, H, W, C). The cores mix tokens and nothing else; each takes the layout that its layer hands it:

- heat: the field (B, H, W, C), with a decay map (H, W, C) as its constant;
- attention and linear attention: q, k, v of shape (B, heads, N, d), contiguous, so that no kernel copies;
- window attention: q, k, v packed as (B, H, W, 3 C): cutting into windows is part of the operator;
- depthwise convolution: (B, H, W, C), with its weight as constant.
"""

from __future__ import annotations

import contextlib
import fnmatch
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from vheatbench.case import Case
from vheatbench.errors import UserError
from vheatbench.subjects.built import Built
from vheatbench.subjects.closed_form import (
    OperatorMacs,
    attention_macs,
    depthwise_conv_macs,
    heat_macs,
    linear_attention_macs,
    window_attention_macs,
)
from vheatbench.subjects.heat import triton as heat_triton
from vheatbench.subjects.heat.conduct import BACKENDS, choose_backend, conduct_heat
from vheatbench.subjects.heat.cosines import cosine_matrix, heat_decay
from vheatbench.subjects.heat_operator import HeatOperator, frequency_embedding
from vheatbench.subjects.token_mixers import (
    HEAD_DIM,
    AttentionLayer,
    DepthwiseConv,
    GatedConvLayer,
    LinearAttention,
    SoftmaxAttention,
    WindowAttention,
    WindowAttentionLayer,
)
from vheatbench.text import did_you_mean


class HeatCore(nn.Module):
    """Conduction of x (B, H, W, C) by a given decay map; built in float64, so that it is rounded once."""

    cos_h: Tensor
    cos_w: Tensor

    def __init__(self, dim: int, grid: tuple[int, int], backend: str) -> None:
        super().__init__()
        self.backend = backend
        self.decay = nn.Parameter(heat_decay(torch.rand(*grid, dim, dtype=torch.float64)))
        for name, n in zip(("cos_h", "cos_w"), grid, strict=True):
            self.register_buffer(name, cosine_matrix(n), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return conduct_heat(x, self.decay, self.cos_h, self.cos_w, backend=self.backend)


class HeatLayer(nn.Module):
    """The heat operator with a frequency embedding of its own, or in its deploy form, which needs none."""

    def __init__(self, dim: int, grid: tuple[int, int], backend: str, deploy: bool) -> None:
        super().__init__()
        self.op = HeatOperator(dim, grid, backend=backend)
        embedding = frequency_embedding(grid, dim)
        self.embedding = None if deploy else embedding
        if deploy:
            self.op.deploy(embedding)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x, self.embedding)


@dataclass(frozen=True)
class Operator:
    """All that is known of an operator: how it is built, what its core takes, and what it costs."""

    core: Callable[[Case], nn.Module]
    layer: Callable[[Case], nn.Module]
    macs: Callable[[Case, str | None], OperatorMacs]
    """Multiply-adds of a case on one image, by the formulation that a heat operator runs. There is no default: the
    count becomes a metric, and one operator's formula says nothing of another. 0 where nothing is multiplied."""
    exponent: float
    """Of the core's cost in the number of tokens N, on large square grids where arithmetic is the limit."""
    log_factor: bool = False
    """Whether that cost grows as N^exponent log N."""
    takes: str = "grid"
    """Input of the core: ``grid`` (H, W, C), ``packed`` (H, W, 3 C), ``heads`` three of (heads, N, d)."""
    backend: str | None = None
    """Of the heat operator."""
    kernel: SDPBackend | None = None
    """The only kernel that scaled_dot_product_attention may take; None leaves the choice to torch."""

    @property
    def has_heads(self) -> bool:
        """Whether channels are split into heads."""
        return self.takes != "grid"


def _heat(backend: str) -> Operator:
    return Operator(
        core=lambda case: HeatCore(channels(case), case.resolution, backend),
        layer=lambda case: HeatLayer(channels(case), case.resolution, backend, deploy=case.mode == "infer"),
        macs=lambda case, formulation: heat_macs(case.resolution, channels(case), formulation or backend),
        # rows and columns are multiplied by a cosine matrix of side sqrt(N) (vHeat, section 3.3)
        exponent=1.0 if backend == "fft" else 1.5,
        log_factor=backend == "fft",
        backend=backend,
    )


def _attention(kernel: SDPBackend | None = None) -> Operator:
    return Operator(
        core=lambda case: SoftmaxAttention(),
        layer=lambda case: AttentionLayer(channels(case), head_dim(case), SoftmaxAttention()),
        macs=lambda case, _: attention_macs(case.resolution, channels(case)),
        exponent=2.0,
        takes="heads",
        kernel=kernel,
    )


OPERATORS: dict[str, Operator] = {
    **{"op/heat" if name == "auto" else f"op/heat-{name}": _heat(name) for name in BACKENDS},
    "op/attention": _attention(),
    "op/attention-flash": _attention(SDPBackend.FLASH_ATTENTION),
    "op/attention-efficient": _attention(SDPBackend.EFFICIENT_ATTENTION),
    "op/attention-math": _attention(SDPBackend.MATH),
    "op/window-attention": Operator(
        core=lambda case: WindowAttention(head_dim(case)),
        layer=lambda case: WindowAttentionLayer(channels(case), head_dim(case)),
        macs=lambda case, _: window_attention_macs(case.resolution, channels(case)),
        exponent=1.0,
        takes="packed",
    ),
    "op/linear-attention": Operator(
        core=lambda case: LinearAttention(),
        layer=lambda case: AttentionLayer(channels(case), head_dim(case), LinearAttention()),
        macs=lambda case, _: linear_attention_macs(case.resolution, channels(case), head_dim(case)),
        exponent=1.0,
        takes="heads",
    ),
    "op/depthwise-conv": Operator(
        core=lambda case: DepthwiseConv(channels(case), bias=False),
        layer=lambda case: GatedConvLayer(channels(case)),
        macs=lambda case, _: depthwise_conv_macs(case.resolution, channels(case)),
        exponent=1.0,
    ),
}


def channels(case: Case) -> int:
    """Channels of an operator's case."""
    assert case.channels is not None
    return case.channels


def head_dim(case: Case) -> int:
    """Channels of a head: the option ``head_dim``, or Swin's 32."""
    return int(case.options.get("head_dim", HEAD_DIM))


def find_operator(name: str) -> Operator:
    """Look an operator up. Raises UserError for an unknown name, with near matches."""
    if name not in OPERATORS:
        hint = did_you_mean(name.lower(), OPERATORS)
        raise UserError(f"unknown operator {name!r}{f' ({hint})' if hint else ''}; 'vheatbench models op/' lists all")
    return OPERATORS[name]


def list_operators(pattern: str) -> list[str]:
    """Names of the operators that match a wildcard pattern."""
    return [name for name in OPERATORS if fnmatch.fnmatch(name, pattern)]


def check_operator(case: Case) -> Operator:
    """The operator of a case. Raises UserError for an unknown one, or for what no operator can do."""
    operator = find_operator(case.subject)
    if case.mode == "train":
        raise UserError(f"{case.subject} has no optimizer to step: measure it in mode forward_backward, not train")
    if case.memory_format != "contiguous":
        raise UserError(f"{case.subject} takes (B, H, W, C), which is channels last already: leave memory_format out")
    if not case.fused_attention:
        raise UserError(f"{case.subject}: the kernel of an operator is chosen by name (op/attention-math), not by "
                        "fused_attention")  # fmt: skip
    wrong = [name for name in case.options if name != "head_dim" or not operator.has_heads]
    if wrong:
        allowed = "head_dim" if operator.has_heads else "none"
        raise UserError(f"{case.subject} does not take the option {wrong[0]!r}; allowed: {allowed}")
    if operator.has_heads:
        d = case.options.get("head_dim", HEAD_DIM)
        if isinstance(d, bool) or not isinstance(d, int) or d < 1 or channels(case) % d:
            raise UserError(f"{case.subject}: {case.channels} channels cannot be split into heads of {d!r}")
    return operator


def build_operator(case: Case, device: torch.device | str = "cpu") -> Built:
    """Build a case's operator with random weights from a fixed seed.

    In mode ``infer`` the heat layer takes its deploy form (a constant decay map), otherwise its training
    form (k from the frequency embedding at every call). On the meta device the backend that ``auto`` or
    ``triton`` would take cannot run: there both are the matrix products, which cost the same.

    Raises:
        UserError: see :func:`check_operator`; or the device has no such kernel.
    """
    operator = check_operator(case)
    device = torch.device(device)
    if operator.backend in ("auto", "triton") and device.type == "meta":
        operator = OPERATORS["op/heat-matmul"]
    torch.manual_seed(0)
    core = case.part == "core"
    with device:
        model = (operator.core if core else operator.layer)(case)
    height, width = case.resolution
    shape: tuple[int, ...] = (height, width, channels(case))
    if core and operator.takes == "packed":
        shape = (height, width, 3 * channels(case))
    elif core and operator.takes == "heads":
        shape = (channels(case) // head_dim(case), height * width, head_dim(case))
    facts: dict[str, Any] = {
        "name": case.subject,
        "family": "operator",
        "form": _form(case, operator),
        "weights": "random, seed 0",
        "exponent": operator.exponent,
        "log_factor": operator.log_factor,
        "arguments": {"channels": channels(case)},
        "input": {"how": f"{case.part} on a grid of {height}x{width} tokens", "changed": {}},
    }
    if operator.has_heads:
        facts["arguments"] |= {"head_dim": head_dim(case), "heads": channels(case) // head_dim(case)}
    return Built(
        model.train(case.mode == "forward_backward"),
        shape,
        facts,
        n_inputs=3 if core and operator.takes == "heads" else 1,
        context=lambda: _only_kernel(operator.kernel, case.subject),
    )


def operator_macs(case: Case, batch: int, backend: str | None = None) -> dict[str, float]:
    """Multiply-adds by part of one forward pass of an operator's case over a batch, by the operator's own formula.

    ``backend``: the formulation that a heat operator runs, see :func:`heat_backend`. The core has one part, the layer
    its projections too.

    Raises:
        UserError: there is no such operator.
        KeyError: nothing is known of the backend's formulation; ``auto`` is none.
    """
    macs = find_operator(case.subject).macs(case, backend)
    if case.part == "core":
        return {name: batch * value for name, value in macs.core.items()}
    parts = {name: batch * value for name, value in {**macs.around, **macs.core}.items()}
    return parts if case.mode == "infer" else {**parts, **macs.once}


def _form(case: Case, operator: Operator) -> str:
    if case.part == "core":
        return "core"
    if operator.backend is not None:
        return "layer, deploy form" if case.mode == "infer" else "layer, training form"
    return "layer"


def heat_backend(case: Case, device: torch.device, dtype: torch.dtype) -> str | None:
    """The backend that a heat operator takes there, ``auto`` resolved; None for other operators.

    Raises:
        UserError: the backend that the name asks for cannot run there.
    """
    backend = find_operator(case.subject).backend
    if backend is None:
        return None
    x = torch.empty(1, *case.resolution, channels(case), device=device, dtype=dtype, requires_grad=case.trains)
    decay = torch.empty(x.shape[1:], device=device, dtype=dtype, requires_grad=case.trains)
    if backend == "triton" and (reason := heat_triton.unsupported(x, decay)) is not None:
        raise UserError(f"{case.subject}: {reason}")
    if backend == "auto":
        backend = choose_backend(x, decay)
        # the rule is asked again while a compiler traces, and has another answer then
        return "matmul" if case.engine != "eager" and backend == "symmetric" else backend
    return backend


def _only_kernel(kernel: SDPBackend | None, name: str) -> AbstractContextManager[object]:
    return contextlib.nullcontext() if kernel is None else _forced(kernel, name)


@contextlib.contextmanager
def _forced(kernel: SDPBackend, name: str) -> Iterator[None]:
    with sdpa_kernel(kernel):
        try:
            yield
        except RuntimeError as error:
            if "No viable backend" in str(error) or "No available kernel" in str(error):
                raise UserError(f"{name}: torch has no such kernel for this device, dtype and shape") from error
            raise
