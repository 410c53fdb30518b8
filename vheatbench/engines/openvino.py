"""OpenVINO on a CPU. It is given the model in float32 and told what precision to compute in."""

from __future__ import annotations

import time
from importlib import util
from typing import Any

import torch
from torch import Tensor, nn

from vheatbench.case import Case
from vheatbench.engines.agreement import AgreementError
from vheatbench.engines.export import exported, exported_session, exporter_missing
from vheatbench.engines.int8 import int8_missing
from vheatbench.engines.session import Number, Session, Setting
from vheatbench.errors import UserError

PRECISIONS = {"float32": "f32", "int8": "f32", "bfloat16": "bf16", "float16": "f16"}
"""What it calls them; of a quantised model, what is left of it in float."""
INSTALL = "pip install 'vheatbench[openvino]'"


def check(case: Case) -> None:
    """It takes every case of inference."""


def missing(case: Case) -> str | None:
    """Why it cannot run here: no CPU, or not installed."""
    if case.device != "cpu":
        return "it is for CPUs; on a GPU there are onnxruntime and tensorrt"
    if util.find_spec("openvino") is None:
        return f"openvino is not installed ({INSTALL})"
    return exporter_missing() or (int8_missing() if case.dtype == "int8" else None)


def build(module: nn.Module, inputs: tuple[Tensor, ...], setting: Setting) -> Session:
    """A compiled model with one stream. Raises ExportError, AgreementError, or UserError for a precision that it does
    not compute in here."""
    import openvino

    case = setting.case
    asked = PRECISIONS[case.dtype]
    core = openvino.Core()
    with exported(module, inputs, setting) as model:
        setting.begins()
        started = time.monotonic()
        compiled = core.compile_model(core.read_model(model.path), "CPU", _properties(setting, asked))
        built_s = time.monotonic() - started
    used = _short(compiled.get_property("INFERENCE_PRECISION_HINT"))
    if used != asked:
        raise UserError(f"OpenVINO does not compute in {case.dtype} on this processor: it would use {used}")
    facts: dict[str, Any] = {
        "name": case.engine,
        "version": openvino.__version__.split("-")[0],
        "device": compiled.get_property("EXECUTION_DEVICES"),
        "precision": used,
        "threads": compiled.get_property("INFERENCE_NUM_THREADS"),
        "streams": compiled.get_property("NUM_STREAMS"),
        "affinity": "bound to cores" if compiled.get_property("ENABLE_CPU_PINNING") else "left to the system",
        "open": list(model.open),
    }
    call = _bound(compiled, inputs, setting)
    how = f"OpenVINO {facts['version']}: reading the ONNX file and compiling it for the CPU, wall clock"
    return exported_session(call, facts, model, Number(built_s, "s", how), module, setting)


def _properties(setting: Setting, precision: str) -> dict[str, Any]:
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": setting.threads,
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,
        # by default it takes bfloat16 where the processor has it
        "INFERENCE_PRECISION_HINT": precision,
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
    }


def _short(precision: Any) -> str:
    """``f32`` of ``<Type: 'float32'>``."""
    return str(precision.get_type_name()) if hasattr(precision, "get_type_name") else str(precision)


def _bound(compiled: Any, inputs: tuple[Tensor, ...], setting: Setting) -> Any:
    """A call on tensors that are bound once: nothing is copied, and the outputs are overwritten."""
    import openvino

    if len(compiled.outputs) != len(setting.expected):
        raise AgreementError(
            f"{len(compiled.outputs)} outputs were exported, where the model gives {len(setting.expected)}"
        )
    request = compiled.create_infer_request()
    held = tuple(x.detach().contiguous() for x in inputs)
    for place, x in enumerate(held):
        request.set_input_tensor(place, openvino.Tensor(x.numpy(), shared_memory=True))
    outputs = tuple(torch.empty_like(one, memory_format=torch.contiguous_format) for one in setting.expected)
    for place, one in enumerate(outputs):
        request.set_output_tensor(place, openvino.Tensor(one.numpy(), shared_memory=True))

    def call(*given: Tensor) -> tuple[Tensor, ...]:
        request.infer()
        return outputs

    call.held = held  # type: ignore[attr-defined]
    return call
