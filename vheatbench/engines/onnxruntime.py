"""ONNX Runtime: its own kernels on a CPU, CUDA's on a GPU. Its other providers build on what is here."""

from __future__ import annotations

import time
from importlib import util
from typing import Any

import torch
from torch import Tensor, nn

from vheatbench.case import Case
from vheatbench.engines.agreement import AgreementError
from vheatbench.engines.export import INSTALL, exported, exported_session, exporter_missing
from vheatbench.engines.session import Number, Session, Setting
from vheatbench.errors import UserError

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
ELEMENTS = {
    torch.float32: 1, torch.uint8: 2, torch.int8: 3, torch.int32: 6, torch.int64: 7, torch.bool: 9,
    torch.float16: 10, torch.float64: 11, torch.bfloat16: 16,
}  # fmt: skip
"""Types of elements by ONNX's numbers."""
ENTRIES = {
    # threads that wait for the next operation by spinning take the time of whoever's turn it is
    "session.intra_op.allow_spinning": "0",
    "session.inter_op.allow_spinning": "0",
}


class NoProviderError(Exception):
    """ONNX Runtime has left the provider out that was asked for."""


def check(case: Case) -> None:
    """Raises UserError for int8 on a GPU."""
    if case.dtype == "int8" and case.device != "cpu":
        raise UserError("int8 is quantised for CPUs: on a GPU use float16 or bfloat16")


def missing(case: Case) -> str | None:
    """Why it cannot run here: not installed, built without the provider of the case's device, or no such kernels."""
    if case.device == "cpu" and case.dtype in ("float16", "bfloat16"):
        return (
            f"on a CPU ONNX Runtime computes {case.dtype} in float32 between conversions, or not at all; "
            "there are float32 and int8, and engine openvino"
        )
    return provider_missing(PROVIDERS[case.device])


def provider_missing(provider: str) -> str | None:
    """Why a provider of ONNX Runtime cannot be had here; None where it can."""
    if util.find_spec("onnxruntime") is None:
        return f"onnxruntime is not installed ({INSTALL})"
    if (reason := exporter_missing()) is not None:
        return reason
    import onnxruntime

    available = onnxruntime.get_available_providers()
    if provider in available:
        return None
    more = "" if provider == PROVIDERS["cpu"] else ": pip install onnxruntime-gpu"
    return f"onnxruntime {onnxruntime.__version__} has no {provider} here, only {', '.join(available)}{more}"


def build(module: nn.Module, inputs: tuple[Tensor, ...], setting: Setting) -> Session:
    """A session on the provider of the case's device. Raises ExportError, AgreementError, NoProviderError."""
    return build_on([PROVIDERS[setting.case.device]], {}, module, inputs, setting)


def build_on(
    providers: list[str],
    options: dict[str, dict[str, str]],
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    setting: Setting,
) -> Session:
    """A session on the first of some providers; the others take what it leaves.

    ``options``: of providers, beside those that every one on a GPU gets.
    """
    import onnxruntime

    case = setting.case
    with exported(module, inputs, setting) as model:
        setting.begins()
        started = time.monotonic()
        session = onnxruntime.InferenceSession(
            str(model.path),
            _session_options(setting),
            providers=[(name, {**_gpu_options(case, name), **options.get(name, {})}) for name in providers],
        )
        built_s = time.monotonic() - started
    chosen = session.get_providers()
    if chosen[0] != providers[0]:
        raise NoProviderError(f"ONNX Runtime took {chosen[0]} instead of {providers[0]}")
    call = _bound(session, inputs, setting)
    version = onnxruntime.__version__
    facts: dict[str, Any] = {
        "name": case.engine,
        "version": version,
        "providers": chosen,
        "threads": setting.threads,
        "affinity": "left to the system",
        "spinning": False,
        "arena": True,
        "optimizations": "all",
        "open": list(model.open),
    }
    how = f"ONNX Runtime {version}, {providers[0]}: reading, optimising and allocating, wall clock"
    return exported_session(call, facts, model, Number(built_s, "s", how), module, setting)


def _session_options(setting: Setting) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # a number of its own, for with 0 it would also bind its threads to cores
    options.intra_op_num_threads = setting.threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.enable_cpu_mem_arena = True
    options.log_severity_level = 3
    for name, value in ENTRIES.items():
        options.add_session_config_entry(name, value)
    return options


def _gpu_options(case: Case, provider: str) -> dict[str, str]:
    if provider == PROVIDERS["cpu"] or case.device == "cpu":
        return {}
    # on torch's stream, so that CUDA events around a call see what it does
    shared = {"device_id": "0", "user_compute_stream": str(torch.cuda.current_stream().cuda_stream)}
    if provider == PROVIDERS["cuda"]:
        return {**shared, "use_tf32": "1" if case.dtype == "tf32" else "0"}
    return shared


def _bound(session: Any, inputs: tuple[Tensor, ...], setting: Setting) -> Any:
    """A call on tensors of torch that are bound once: nothing is copied, and the outputs are overwritten."""
    import onnxruntime

    names = [one.name for one in session.get_outputs()]
    if len(names) != len(setting.expected):
        raise AgreementError(f"{len(names)} outputs were exported, where the model gives {len(setting.expected)}")
    held = tuple(x.detach().contiguous() for x in inputs)
    outputs = tuple(torch.empty_like(one, memory_format=torch.contiguous_format) for one in setting.expected)
    binding = session.io_binding()
    # an exporter leaves inputs out that the model makes no use of
    places = {one.name: x for one, x in zip(session.get_inputs(), held, strict=True)}
    for name, tensor in places.items():
        binding.bind_input(name, tensor.device.type, 0, ELEMENTS[tensor.dtype], list(tensor.shape), tensor.data_ptr())
    for name, tensor in zip(names, outputs, strict=True):
        binding.bind_output(name, tensor.device.type, 0, ELEMENTS[tensor.dtype], list(tensor.shape), tensor.data_ptr())
    run_options = onnxruntime.RunOptions()
    if held[0].device.type == "cuda":
        # who times waits for the stream, as with any other engine
        run_options.add_run_config_entry("disable_synchronize_execution_providers", "1")

    def call(*given: Tensor) -> tuple[Tensor, ...]:
        session.run_with_iobinding(binding, run_options)
        return outputs

    call.held = held  # type: ignore[attr-defined]
    return call
