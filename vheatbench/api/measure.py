"""``vb.measure``: one case, of a name in a process of its own, of a live module in this one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vheatbench.api.case import Device, case_of, checked_options
from vheatbench.api.inputs import Inputs, Shape, inputs_of
from vheatbench.api.policy import policy_of
from vheatbench.case import Case, Compile, DType, MemoryFormat, Part, TimedMode
from vheatbench.errors import UserError
from vheatbench.store.schema import Record
from vheatbench.suites import SuitePolicy

if TYPE_CHECKING:
    from torch import Tensor, nn


def measure(
    model: str | nn.Module,
    inputs: Shape | Tensor = (1, 3, 224, 224),
    *,
    mode: TimedMode = "infer",
    dtype: DType | None = None,
    device: Device = "auto",
    memory_format: MemoryFormat = "contiguous",
    compile: Compile = False,
    fused_attention: bool = True,
    part: Part | None = None,
    options: Mapping[str, Any] | None = None,
    name: str | None = None,
    count: bool = True,
    memory: bool = True,
    seconds: float | None = None,
    precision: float | None = None,
    timeout: float | None = None,
    threads: int | None = None,
) -> Record:
    """Measure a model, an operator or a live module: latency, throughput, parameters, multiply-adds, peak memory.

    ``record.metrics["latency_s"].value`` is in seconds, with ``.low`` and ``.high``; ``print(record)`` shows all.
    A name is built with random weights in a process of its own, as ``vheatbench run`` does. A live module is measured
    in this process as it is, and put back as it was: mode, who wants gradients, gradients, values, types and places of
    parameters and buffers, random states. How the numbers are taken: docs/measuring.md.

    Args:
        model: an alias (``vheat-t``), a timm name, ``package.module:name``, an operator (``op/heat``), or a module.
        inputs: (batch, channels, height, width) in pixels, of operators in cells: normally distributed numbers. Or,
            for a live module, the tensor itself. Of a name the batch may be ``"largest"``.
        mode: ``infer`` (of a name the deploy form), ``forward`` (training form), ``forward_backward``, ``train`` (with
            AdamW's step).
        dtype: ``float32``, ``tf32``, ``bfloat16`` or ``float16``; by default float32, of a live module its own.
        device: ``cpu``, ``cuda``, or ``auto``: a GPU if there is one; of a live module where it is.
        memory_format: of weights and images.
        compile: ``torch.compile``; ``freezing`` or ``cudagraphs`` say how.
        fused_attention: of a name: whether attention may be fused.
        part: of an operator: ``core`` or ``layer``.
        options: of a name: arguments of its constructor.
        name: what a live module is called in the record; by default as its class.
        count: whether to count multiply-adds.
        memory: whether to measure memory, in one or two further steps.
        seconds: of sampling, at most (15).
        precision: half the interval of the median over the median at which sampling ends (0.01).
        timeout: seconds that a name's process may take (600).
        threads: of a CPU; by default torch's.

    Returns:
        The record. What a model does wrong (it runs out of memory, fails, takes too long) is its ``status`` and
        ``reason``.

    Raises:
        UserError: an unknown name, a size that the model cannot take, or a value that is not allowed.
        WorkerError: the process that was to measure could not be started.
    """
    asked = inputs_of(inputs)
    case = case_of(
        model, asked, device, name,
        mode=mode, dtype=dtype, memory_format=memory_format, compile=compile, fused_attention=fused_attention,
        part=part, options=checked_options(options),
    )  # fmt: skip
    policy = policy_of(ceiling_s=seconds, relative_precision=precision, timeout_s=timeout, threads=threads)
    if isinstance(model, str):
        record = _in_a_worker(case, policy, count, memory)
    else:
        record = _here(model, asked, case, policy, count, memory)
    if record.status == "skipped":  # what was asked for cannot be
        raise UserError(record.reason)
    return record


def _in_a_worker(case: Case, policy: SuitePolicy, count: bool, memory: bool) -> Record:
    from vheatbench.run.executor import Executor, Seat

    executor = Executor(policy, "cuda:0" if case.device == "cuda" else "cpu")
    return executor.measure(Seat(case, 0, count=count, memory=memory))


def _here(model: nn.Module, inputs: Inputs, case: Case, policy: SuitePolicy, count: bool, memory: bool) -> Record:
    from vheatbench.api.live import builder_of, memory_limit_gib, others_on_gpu, untouched
    from vheatbench.run.measure_case import measure_case
    from vheatbench.run.task import MeasureTask

    policy = policy.model_copy(update={"memory_limit_gib": memory_limit_gib()})
    task = MeasureTask(case=case, policy=policy, count=count, memory=memory)
    others = others_on_gpu(model) if case.device == "cuda" else None
    with untouched(model, weights=case.mode == "train"):
        model.train(case.trains)
        record = measure_case(task, builder=builder_of(model, inputs))
    record.warnings += [others] if others else []
    return record
