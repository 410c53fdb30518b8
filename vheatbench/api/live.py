"""A live module as something to measure: built of what it is, and put back as it was, whatever happens."""

from __future__ import annotations

import contextlib
import copy
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil
import torch
from torch import Tensor, nn

from vheatbench.api.inputs import Inputs
from vheatbench.case import Case, DeviceType, DType
from vheatbench.errors import UserError
from vheatbench.files import GIB, MIB
from vheatbench.run.device import memory_limit
from vheatbench.run.step import DTYPES
from vheatbench.subjects.built import Builder, Built
from vheatbench.subjects.catalog import own_products

HERE = "measured in the process that it lives in: what else that does stands beside it, and no round is a fresh process"


@dataclass(frozen=True)
class LiveBuilt(Built):
    """A live module, and the inputs that it is to be given."""

    given: Tensor | None = None

    def inputs(self, batch: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, ...]:
        """The tensor that was given, or normally distributed numbers of shape (batch, ...)."""
        if self.given is None:
            return super().inputs(batch, device, dtype)
        return (self.given.detach().to(device, dtype),)


def builder_of(model: nn.Module, inputs: Inputs) -> Builder:
    """What gives a live module as the catalog gives a named one; on the meta device a copy without numbers."""

    def builder(case: Case, device: torch.device | str) -> Built:
        kind = type(model)
        facts: dict[str, Any] = {
            "name": f"{kind.__module__}.{kind.__qualname__}",
            "family": kind.__module__,
            "form": "live module, as it was given",
            "weights": "as they were given",
        }
        module = copy_on_meta(model) if torch.device(device).type == "meta" else model
        own, taken = own_products(case, *model.modules())
        facts |= taken
        warnings = [*([HERE] if case.timed else []), *own]
        if (
            case.mode == "infer"
            and callable(getattr(model, "deploy", None))
            and not getattr(model, "deployed_for", None)
        ):
            warnings.append("it is not in its deploy form, which names are measured in: model.deploy() makes it that")
        return LiveBuilt(module, (inputs.channels, *inputs.size), facts, warnings, given=inputs.given)

    return builder


def copy_on_meta(model: nn.Module) -> nn.Module:
    """A copy without numbers, in float32: to be counted without being run or taking memory."""
    memo: dict[int, Any] = {}
    for parameter in model.parameters():
        empty = torch.empty_like(parameter, device="meta")
        memo[id(parameter)] = nn.Parameter(empty, requires_grad=parameter.requires_grad)
    for buffer in model.buffers():
        memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    return copy.deepcopy(model, memo).float()


def device_of(model: nn.Module) -> DeviceType:
    """Where a live module is; a CPU where it has no tensors. Raises UserError for any other kind than CPU and CUDA."""
    devices = {tensor.device for tensor in (*model.parameters(), *model.buffers())} or {torch.device("cpu")}
    if len(devices) > 1:
        raise UserError(
            f"the module is spread over {', '.join(sorted(map(str, devices)))}: it is measured on one device"
        )
    (device,) = devices
    if device.type == "cpu":
        return "cpu"
    if device.type != "cuda":
        raise UserError(f"the module is on {device}: it is measured on a CPU or on a GPU by CUDA")
    if device.index not in (None, 0):
        raise UserError(
            f"the module is on {device}: live modules are measured on cuda:0 (choose by CUDA_VISIBLE_DEVICES)"
        )
    return "cuda"


def dtype_of(model: nn.Module) -> DType:
    """The floating type of a live module's first parameter; float32 where it has none. Raises UserError for others."""
    kinds = {kind: name for name, kind in DTYPES.items() if name not in ("tf32", "int8")}
    kind = next((tensor.dtype for tensor in model.parameters() if tensor.is_floating_point()), torch.float32)
    if kind not in kinds:
        raise UserError(f"the module is in {kind}: say dtype=, one of {', '.join(kinds.values())}")
    return kinds[kind]  # type: ignore[return-value]


def memory_limit_gib() -> float | None:
    """For a limit of memory (:func:`vheatbench.run.device.prepared_device`): what the process has already, and 90 % of
    what is free."""
    return (psutil.Process().memory_info().data + memory_limit("cpu")) / GIB


def others_on_gpu(*models: nn.Module) -> str | None:
    """What else this process holds on the GPU, in words: torch's allocator counts it into every peak."""
    tensors = [tensor for model in models for tensor in (*model.parameters(), *model.buffers()) if tensor.is_cuda]
    own = sum(tensor.numel() * tensor.element_size() for tensor in {id(tensor): tensor for tensor in tensors}.values())
    others = torch.cuda.memory_allocated(0) - own
    if others < MIB:
        return None
    return f"{others / MIB:.0f} MiB of other tensors of this process are on the GPU and in its peak"


@contextlib.contextmanager
def untouched(*models: nn.Module, weights: bool) -> Iterator[None]:
    """As long as the block lasts, modules may be measured; afterwards they and torch are as they were before.

    Put back are: the mode of every submodule, the tensors of parameters and buffers with their device, type and
    values, who wants gradients and the gradients, random states, threads, and how float32 is multiplied. What a module
    keeps elsewhere (a cache of its own, say) is not.

    Args:
        models: that are measured.
        weights: whether the block changes values of parameters, as training steps do: they are copied then.
    """
    kept = [_Kept(model, weights) for model in models]
    threads, cudnn = torch.get_num_threads(), torch.backends.cudnn
    flags = torch.backends.cuda.matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark
    states = random.getstate(), np.random.get_state()
    gpus = [0] if torch.cuda.is_available() and torch.cuda.is_initialized() else []
    # torch's profiler, which sees the memory, would write to this process's stderr
    silent = "KINETO_LOG_LEVEL" not in os.environ
    try:
        if silent:
            os.environ["KINETO_LOG_LEVEL"] = "99"
        with torch.random.fork_rng(gpus), torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        if silent:
            os.environ.pop("KINETO_LOG_LEVEL", None)
        for one in kept:
            one.put_back()
        torch.set_num_threads(threads)
        torch.backends.cuda.matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = flags
        random.setstate(states[0])
        np.random.set_state(states[1])


class _Kept:
    """The state of a module."""

    def __init__(self, model: nn.Module, weights: bool) -> None:
        modules = list(model.modules())
        self._modes = [(module, module.training) for module in modules]
        slots: list[dict[str, Any]] = [m._parameters for m in modules]
        slots += [m._buffers for m in modules]
        self._slots = [(one, dict(one)) for one in slots]
        self._parameters = [(p, p.data, p.requires_grad, p.grad) for p in model.parameters()]
        changing = [*model.buffers(), *(model.parameters() if weights else ())]
        self._values = [(tensor.data, tensor.detach().clone()) for tensor in changing]
        for parameter in model.parameters():
            parameter.grad = None

    def put_back(self) -> None:
        for slots, before in self._slots:
            slots.clear()
            slots.update(before)
        for parameter, data, wants, gradient in self._parameters:
            parameter.data = data
            parameter.requires_grad_(wants)
            parameter.grad = gradient
        with torch.no_grad():
            for tensor, values in self._values:
                tensor.copy_(values)
        for module, mode in self._modes:
            module.training = mode
