"""NVIDIA's TensorRT, by ONNX Runtime's provider of it; what it does not take runs on CUDA, which the record says."""

from __future__ import annotations

from torch import Tensor, nn

from vheatbench.case import Case
from vheatbench.engines import onnxruntime
from vheatbench.engines.session import Session, Setting

PROVIDER = "TensorrtExecutionProvider"


def check(case: Case) -> None:
    """As ONNX Runtime's other providers."""
    onnxruntime.check(case)


def missing(case: Case) -> str | None:
    """Why it cannot run here: a CPU, ONNX Runtime not installed, or built without it."""
    if case.device != "cuda":
        return "TensorRT is for NVIDIA GPUs"
    return onnxruntime.provider_missing(PROVIDER)


def build(module: nn.Module, inputs: tuple[Tensor, ...], setting: Setting) -> Session:
    """A session on TensorRT. Raises ExportError, AgreementError, NoProviderError."""
    half = {"float16": {"trt_fp16_enable": "1"}, "bfloat16": {"trt_bf16_enable": "1"}}
    options = {PROVIDER: half.get(setting.case.dtype, {})}
    return onnxruntime.build_on([PROVIDER, onnxruntime.PROVIDERS["cuda"]], options, module, inputs, setting)
