"""The step of a case's mode: what is timed, closed over module, inputs and, for training, optimizer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vheatbench.case import Case
from vheatbench.engines import engine_of
from vheatbench.engines.agreement import leaves
from vheatbench.engines.session import Session, Setting
from vheatbench.measure.memory import HostBaseline, session_baseline
from vheatbench.measure.outputs import check_finite, logits_of, loss_note, training_loss
from vheatbench.subjects.built import Built

DTYPES = {
    "float32": torch.float32,
    "tf32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "int8": torch.float32,
}
"""What weights and inputs are held in. An engine outside torch may compute in another precision."""


@dataclass
class Setup:
    """A case made ready to run: the step, and what it holds in memory."""

    step: Callable[[], Any]
    inputs: tuple[Tensor, ...]
    weights_bytes: int
    input_bytes: int
    """Of the inputs; of an operator's backward also the gradient that it starts from."""
    precision: str
    notes: list[str] = field(default_factory=list)
    """What is to be said of the step beside its numbers."""
    session: Session = field(default_factory=lambda: Session(lambda *inputs: None))
    """The module as the case's engine runs it."""
    expected: tuple[Tensor, ...] = ()
    """What the module gives for the inputs without the engine; none where that is what is measured, or in training."""
    baseline: HostBaseline | None = None
    """The process before an engine had weights of its own; the module was resident too."""


def place(built: Built, case: Case, device: torch.device) -> nn.Module:
    """The module on its device, in the precision of the case's mode.

    A training model keeps float32 weights and is run under autocast; an operator is in the case's precision
    in every mode, and takes gradients in ``forward_backward``. What is exported for a CPU stays in float32: the engine
    is told what to compute in.
    """
    model = built.model.to(device)
    if _told(case):
        return model.requires_grad_(False)
    if case.kind == "operator":
        return model.to(DTYPES[case.dtype]).requires_grad_(case.trains)
    if not case.trains:
        model = (model if _by_autocast(model, case) else model.to(DTYPES[case.dtype])).requires_grad_(False)
    if case.memory_format == "channels_last":
        model = model.to(memory_format=torch.channels_last)
    return model


def _told(case: Case) -> bool:
    """Whether the engine takes a model in float32 and is told its precision."""
    return case.exported and case.device == "cpu"


def _by_autocast(model: nn.Module, case: Case) -> bool:
    """Whether low precision is autocast's: in training, and for a model that cannot be cast."""
    return case.kind == "model" and (case.trains or getattr(model, "autocast_only", False))


def prepare(
    model: nn.Module, built: Built, batch: int, case: Case, device: torch.device, folder: Path | None = None
) -> Setup:
    """The step of a case, on a placed module (:func:`place`) and a batch of normally distributed inputs.

    ``folder``: where exported models are kept for later rounds.
    """
    autocast = _by_autocast(model, case)
    dtype = torch.float32 if _told(case) else DTYPES[case.dtype]
    inputs = built.inputs(batch, device, torch.float32 if autocast else dtype)
    if case.memory_format == "channels_last":
        inputs = tuple(x.contiguous(memory_format=torch.channels_last) for x in inputs)
    expected: tuple[Tensor, ...] = ()
    if case.engine != "eager" and not case.trains and device.type != "meta":
        output = _inference_step(model, inputs, dtype if autocast else torch.float32)()
        expected = tuple(tensor.clone() for tensor in leaves(output))
        del output
    before: list[HostBaseline] = []
    setting = Setting(case, torch.get_num_threads(), expected, folder, lambda: before.append(session_baseline()))
    session = engine_of(case).build(model, inputs, setting)
    call: Callable[..., Any] = session.call
    held = list(inputs)
    notes: list[str] = []
    step: Callable[[], Any]
    if not case.trains:
        step = _inference_step(call, inputs, dtype if autocast else torch.float32)
    elif case.kind == "operator":
        with torch.no_grad():
            held.append(torch.randn_like(model(*inputs)))
        step = _gradient_step(model, call, inputs, held[-1])
    else:
        step, note = _training_step(model, call, inputs[0], dtype, optimize=case.mode == "train")
        notes += [note] if note else []
    weights = sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))
    precision = f"weights and input in {str(dtype).removeprefix('torch.')}"
    if autocast and dtype != torch.float32:
        precision = f"float32 weights, {str(dtype).removeprefix('torch.')} autocast"
    if case.dtype == "tf32":
        precision += ", products in TF32"
    if _told(case):
        precision = f"computed in {case.dtype}, input in float32"
    input_bytes = sum(t.numel() * t.element_size() for t in held)
    return Setup(step, inputs, weights, input_bytes, precision, notes, session, expected, before[0] if before else None)


def _inference_step(call: Callable[..., Any], inputs: tuple[Tensor, ...], autocast: torch.dtype) -> Callable[[], Any]:
    """A forward pass; ``autocast`` to float32 is none."""
    kind = inputs[0].device.type

    def step() -> Any:
        with torch.inference_mode():
            return call(*inputs)

    def cast_step() -> Any:
        with torch.inference_mode(), torch.autocast(kind, autocast):
            return call(*inputs)

    # entering autocast for nothing costs microseconds, a tenth of a small operator
    return step if autocast == torch.float32 else cast_step


def _gradient_step(
    model: nn.Module, call: Callable[..., Tensor], inputs: tuple[Tensor, ...], gradient: Tensor
) -> Callable[[], tuple[Tensor, ...]]:
    """Forward, and the gradients of inputs and parameters for a given gradient of the output."""
    wanted = [*(x.requires_grad_() for x in inputs), *model.parameters()]

    def step() -> tuple[Tensor, ...]:
        return torch.autograd.grad(call(*inputs), wanted, gradient)

    return step


def _training_step(
    model: nn.Module, call: Callable[..., Any], images: Tensor, dtype: torch.dtype, optimize: bool
) -> tuple[Callable[[], Tensor], str | None]:
    """Forward, cross-entropy, backward and AdamW; low precision by autocast, float16 with a scaler.

    Without ``optimize`` the gradients are dropped and the weights stay. The second value is what is to be said of the
    loss.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    scaler = torch.amp.GradScaler(images.device.type, enabled=dtype == torch.float16)
    with torch.no_grad():
        output = model(images[:1])
        check_finite(output)
    note, shape = loss_note(output), logits_of(output).shape
    # one label per image, of maps of logits one per pixel
    labels = (torch.arange(images.shape[0], device=images.device) % shape[1]).view(-1, *(1,) * len(shape[2:]))
    labels = labels.expand(-1, *shape[2:])
    del output

    def step() -> Tensor:
        with torch.autocast(images.device.type, dtype, enabled=dtype != torch.float32):
            loss = training_loss(call(images), lambda logits: nn.functional.cross_entropy(logits, labels))
        scaler.scale(loss).backward()
        if optimize:
            scaler.step(optimizer)
            scaler.update()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    return step, note
