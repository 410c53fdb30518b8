"""The fingerprint of machine and software: what a run was made on, and what must match to compare two."""

from __future__ import annotations

import os
import platform
import re
import socket
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

import vheatbench
from vheatbench.measure import host
from vheatbench.measure.checkout import checkout, checkout_at
from vheatbench.measure.device import describe_gpu
from vheatbench.measure.nvml import Gpu, Nvml, Unavailable, open_nvml

PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "fvcore",
    "triton",
    "numpy",
    "nvidia-ml-py",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
)
VARIABLES = ("OMP_", "MKL_", "KMP_", "GOMP_", "CUDA_", "TORCH_", "PYTORCH_", "TIMM_", "MALLOC_", "ORT_")
"""Beginnings of the names of environment variables that can change results."""
SINGLE_VARIABLES = ("NVIDIA_TF32_OVERRIDE", "LD_PRELOAD")


def environment() -> dict[str, Any]:
    """The fingerprint, JSON-able. Imports torch, but never initialises CUDA. Raises nothing.

    Keys: ``host`` (``VHEATBENCH_HOST`` or the host's name), ``os``, ``kernel``, ``machine``, ``python``,
    ``packages`` (name -> version or ``None``), ``torch`` (facts of the build), ``cpu``
    (:func:`vheatbench.measure.host.describe_cpu`), ``gpus`` (those CUDA may use, see
    :func:`vheatbench.measure.device.describe_gpu`) with ``gpus_note`` where there is something to say,
    ``variables``, ``container`` and ``virtual_machine`` (hints), ``project`` (``commit`` and ``dirty`` of the git
    checkout around the working directory, whose models are measured; ``None`` outside one), ``vheatbench`` (the same
    of the checkout that vheatbench itself runs from), ``volatile`` (what differs between two runs on the same
    machine). It holds no path of the machine: in variables, folders are cut off file names.
    """
    gpus, note = _gpus()
    return {
        "host": os.environ.get("VHEATBENCH_HOST") or socket.gethostname(),
        "os": _os_name(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES} | {"vheatbench": vheatbench.__version__},
        "torch": _torch_build(),
        "cpu": host.describe_cpu(),
        "gpus": gpus,
        "gpus_note": note,
        "variables": _variables(),
        "container": _container(),
        "virtual_machine": _virtual_machine(),
        "project": checkout(),
        "vheatbench": checkout_at(Path(vheatbench.__file__).resolve().parents[1]),
        "volatile": {
            "load_average": host.load_average(),
            "uptime_s": time.time() - psutil.boot_time(),
            "free_memory_bytes": host.free_memory_bytes(),
            "cpu_frequency_mhz": host.frequency_mhz(),
        },
    }


def _gpus() -> tuple[list[dict[str, Any]], str | None]:
    """GPUs that CUDA may use, else all that NVML sees, and a note on which of the two or why none."""
    nvml = open_nvml()
    if isinstance(nvml, Unavailable):
        return [], nvml.reason
    try:
        return _listed(nvml)
    finally:
        nvml.close()


def _listed(nvml: Nvml) -> tuple[list[dict[str, Any]], str | None]:
    devices = nvml.cuda_devices()
    if not isinstance(devices, Unavailable):
        return [{"index": index, **describe_gpu(gpu)} for index, gpu in enumerate(devices)], None
    boards = nvml.boards()
    if isinstance(boards, Unavailable):
        return [], boards.reason
    return [describe_gpu(board) for board in boards if isinstance(board, Gpu)], devices.reason


def _torch_build() -> dict[str, Any] | None:
    try:
        import torch
    except ImportError:
        return None
    built = torch.__config__.show()

    def line(pattern: str) -> str | None:
        match = re.search(pattern, built)
        return match[1].strip() if match else None

    return {
        "cuda": torch.version.cuda,
        "hip": torch.version.hip,
        "cudnn": torch.backends.cudnn.version() if torch.backends.cudnn.is_available() else None,
        "mkl": line(r"Math Kernel Library Version (\S+)"),
        "onednn": line(r"MKL-DNN v(\S+)"),
        "openmp": line(r"OpenMP (\d+)"),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "default_threads": torch.get_num_threads(),
        "interop_threads": torch.get_num_interop_threads(),
        "git_version": torch.version.git_version,
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _variables() -> dict[str, str]:
    # A fingerprint is published with the results: no secrets, and no folders of the machine
    secret = re.compile(r"TOKEN|SECRET|PASSWORD|CREDENTIAL|_KEY$")
    return {
        name: re.sub(r"(?<![\w.])/(?:[^/:;,\s]+/)*", "", value)
        for name, value in sorted(os.environ.items())
        if (name.startswith(VARIABLES) or name in SINGLE_VARIABLES) and not secret.search(name)
    }


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except OSError:  # not a Linux distribution
        return platform.system()


def _container() -> str | None:
    """Which sign of a container there is; ``None`` if there is none, which proves nothing."""
    for marker, kind in (("/.dockerenv", "docker"), ("/run/.containerenv", "podman")):
        if Path(marker).exists():
            return kind
    try:
        groups = Path("/proc/1/cgroup").read_text()
    except OSError:
        return None
    match = re.search(r"docker|kubepods|containerd|lxc|libpod", groups)
    return match[0] if match else None


def _virtual_machine() -> bool | None:
    """Whether the processor says that a hypervisor runs below; ``None`` where it is not readable."""
    try:
        flags = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        return None
    return "hypervisor" in flags[1].split() if flags else None
