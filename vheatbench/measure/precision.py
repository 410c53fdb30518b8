"""Whether the processor has instructions of its own for a precision; without them everything is converted, slowly."""

from __future__ import annotations

import re
from pathlib import Path

import torch

FLAGS = {
    "bfloat16": {"avx512_bf16", "amx_bf16", "avx_ne_convert", "bf16"},
    "float16": {"avx512_fp16", "amx_fp16", "avx_ne_convert", "asimdhp"},
}
"""What processors, x86 and ARM, call the instructions that compute in a precision."""


def slow_precision(dtype: str, device: str) -> list[str]:
    """One warning where a case's precision is emulated on its kind of device (``cpu``, ``cuda``), else none.

    On a CPU oneDNN is asked, which also heeds ``ONEDNN_MAX_CPU_ISA``, and the flags of the processor where the system
    lists them; of NVIDIA GPUs, torch. Raises nothing.
    """
    native = _on_gpu(dtype) if device == "cuda" else _on_cpu(dtype)
    if native:
        return []
    what = "GPU" if device == "cuda" else "processor"
    return [
        f"this {what} has no instructions for {dtype}: its products are emulated, which can take several times as long "
        "as float32"
    ]


def _on_gpu(dtype: str) -> bool:
    # bfloat16 and TF32 came with the same generation
    return dtype not in ("bfloat16", "tf32") or torch.cuda.is_bf16_supported(including_emulation=False)


def _on_cpu(dtype: str) -> bool:
    if dtype not in FLAGS:
        return True
    flags = _flags()
    return _onednn_computes_in(dtype) and (not flags or bool(flags & FLAGS[dtype]))


def _onednn_computes_in(dtype: str) -> bool:
    name = {"bfloat16": "_is_mkldnn_bf16_supported", "float16": "_is_mkldnn_fp16_supported"}[dtype]
    try:
        return bool(getattr(torch.ops.mkldnn, name)())
    except (AttributeError, RuntimeError):  # a build without oneDNN, or a torch that does not tell
        return True


def _flags() -> set[str]:
    """Of the first processor; empty where the system does not list them."""
    try:
        found = re.search(r"^(?:flags|Features)\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        return set()
    return set(found[1].split()) if found else set()
