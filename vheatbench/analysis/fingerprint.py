"""Which machine and software a run was measured on, cut down to what must match before two may be compared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

GIB = 2**30
CUDA_VARIABLES = ("CUDA_", "NVIDIA_", "PYTORCH_CUDA_")
"""Environment variables that mean nothing to a processor."""
HARMLESS_VARIABLES = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "TORCH_HOME", "TORCH_LOGS")
"""Variables that say which of several equal devices is meant, or where files lie."""


def fingerprint(environment: Mapping[str, Any], device: str) -> str:
    """12 hexadecimal digits of what must be equal for timings and peaks of memory of two runs to be comparable.

    ``environment`` is a run's (:func:`vheatbench.measure.environment.environment`), ``device`` the kind of device
    of its cases: a run on the processor does not care which GPU idles beside it. What an older environment lacks
    counts as unknown, and unknown equals unknown here but not in :func:`differences`.
    """
    text = json.dumps(facts(environment, device), sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def differences(one: Mapping[str, Any], other: Mapping[str, Any], device: str) -> list[str]:
    """What keeps two environments from being comparable, in words: ``GPU: NVIDIA A100 / NVIDIA H100``.

    Empty where they are. A GPU that neither environment names is a difference too: nothing shows that it is the same.
    """
    a, b = facts(one, device), facts(other, device)
    found = [f"{label}: {_words(a[label])} / {_words(b[label])}" for label in a if a[label] != b[label]]
    if device == "cuda" and not a["GPU"] and not b["GPU"]:
        found.append("GPU: unknown / unknown")
    return found


def facts(environment: Mapping[str, Any], device: str) -> dict[str, Any]:
    """What the fingerprint is made of, by name, JSON-able. Not in it: host, time, load, commit, vheatbench, timm."""
    cpu, torch, packages = (_part(environment, key) for key in ("cpu", "torch", "packages"))
    memory = cpu.get("memory_limit_bytes") or cpu.get("total_memory_bytes")
    found = {
        "processor": cpu.get("name"),
        "cores": cpu.get("affinity_cores"),
        "core quota": cpu.get("quota_cores"),
        # whole GiB: what the kernel keeps for itself changes with every update of it
        "memory (GiB)": round(memory / GIB) if isinstance(memory, int | float) else None,
        "Python": ".".join(str(environment.get("python") or "").split(".")[:2]) or None,
        "torch": packages.get("torch"),
        "torch build": torch.get("git_version"),
        "MKL": torch.get("mkl"),
        "oneDNN": torch.get("onednn"),
        "vector instructions": torch.get("cpu_capability"),
        "threads": torch.get("default_threads"),
        "variables": _variables(_part(environment, "variables"), device),
        "merged from different environments": environment.get("mixed"),
    }
    if device == "cuda":
        listed = environment.get("gpus")
        gpus = [gpu for gpu in listed if isinstance(gpu, Mapping)] if isinstance(listed, list) else []
        found |= {
            "GPU": sorted(str(gpu["name"]) for gpu in gpus if gpu.get("name")),
            "GPU memory (GiB)": sorted(
                {round(size / GIB) for gpu in gpus if isinstance(size := gpu.get("total_memory_bytes"), int | float)}
            ),
            "MIG": _distinct(gpus, "mig"),
            "ECC": _distinct(gpus, "ecc"),
            "power limit (W)": _distinct(gpus, "power_limit_w"),
            "driver": next((gpu.get("driver_version") for gpu in gpus), None),
            "CUDA": torch.get("cuda"),
            "cuDNN": torch.get("cudnn"),
            "Triton": packages.get("triton"),
        }
    return found


ENGINE_PACKAGES = {
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu", "onnx", "onnxscript"),
    "tensorrt": ("onnxruntime-gpu", "onnx", "onnxscript"),
    "openvino": ("openvino", "onnx", "onnxscript"),
}
"""What makes a case's numbers besides torch, by its engine: in the environment always, in the way only where used."""


def engine_differences(one: Mapping[str, Any], other: Mapping[str, Any], engines: Iterable[str]) -> list[str]:
    """What keeps cases of some engines from being comparable, in words: ``openvino: 2026.1 / 2026.4``."""
    names = dict.fromkeys(name for engine in engines for name in ENGINE_PACKAGES.get(engine, ()))
    a, b = _part(one, "packages"), _part(other, "packages")
    return [f"{name}: {_words(a.get(name))} / {_words(b.get(name))}" for name in names if a.get(name) != b.get(name)]


def _part(environment: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    part = environment.get(key)
    return part if isinstance(part, Mapping) else {}


def _distinct(gpus: list[Mapping[str, Any]], key: str) -> list[Any]:
    return sorted({str(gpu.get(key)): gpu.get(key) for gpu in gpus}.values(), key=str)


def _variables(variables: Mapping[str, Any], device: str) -> list[str]:
    return [
        f"{name}={value}"
        for name, value in sorted(variables.items())
        if name not in HARMLESS_VARIABLES and (device == "cuda" or not name.startswith(CUDA_VARIABLES))
    ]


def _words(value: Any) -> str:
    if isinstance(value, list):
        distinct = list(dict.fromkeys(map(_words, value)))
        count = f"{len(value)} x " if len(distinct) == 1 and len(value) > 1 else ""
        return count + ", ".join(distinct) if distinct else "none"
    if isinstance(value, Mapping):
        return ", ".join(sorted(map(str, value)))
    return "unknown" if value is None else str(value)
