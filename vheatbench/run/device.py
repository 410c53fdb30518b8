"""The device of a worker process: made ready before anything is allocated, and what its errors mean."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator
from typing import Literal

import torch

from vheatbench.case import Case, DeviceType, DType
from vheatbench.errors import UserError, is_out_of_memory
from vheatbench.files import GIB
from vheatbench.measure.host import free_memory_bytes
from vheatbench.run.whereabouts import TRUST_CUDA
from vheatbench.store.schema import Status
from vheatbench.suites import SuitePolicy
from vheatbench.text import one_line


def device_for(asked: Literal["auto"] | DeviceType, dtype: DType) -> DeviceType:
    """The kind of device to use; ``auto`` is a GPU where there is one. Raises UserError where it cannot be.

    What is planned for other machines (:data:`TRUST_CUDA`) may ask for a GPU that is not here.
    """
    there = torch.cuda.is_available() or TRUST_CUDA in os.environ
    if asked == "cuda" and not there:
        raise UserError("CUDA was asked for, but torch sees no CUDA device")
    if dtype == "tf32" and not (there and asked != "cpu"):
        raise UserError("tf32 is a mode of NVIDIA GPUs: use float32 or bfloat16 on a CPU")
    if dtype == "int8":
        raise UserError("int8 is quantised by an engine that takes ONNX: see 'vheatbench run --engine'")
    return "cuda" if there and asked != "cpu" else "cpu"


@contextlib.contextmanager
def prepared_device(case: Case, policy: SuitePolicy) -> Iterator[torch.device]:
    """Threads, the float32 rule, and as long as the block lasts a limit of memory, before anything is allocated.

    Raises:
        UserError: the device is not there, or has no such precision.
    """
    before = resource.getrlimit(resource.RLIMIT_DATA)
    try:
        yield _prepare_device(case, policy)
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def _prepare_device(case: Case, policy: SuitePolicy) -> torch.device:
    device_for(case.device, "float32" if case.exported and case.dtype == "int8" else case.dtype)
    if policy.threads is not None:
        torch.set_num_threads(policy.threads)
    if case.device == "cpu":
        # The limit makes torch raise instead of the kernel killing something. It counts private data
        # mappings only, so the gigabytes of address space that libraries reserve do not matter.
        limit = policy.memory_limit_gib * GIB if policy.memory_limit_gib else memory_limit("cpu")
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        soft = int(limit) if hard == resource.RLIM_INFINITY else min(int(limit), hard)
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
    # float32 means float32: torch's own default already allows TF32 in convolutions
    torch.backends.cuda.matmul.allow_tf32 = case.dtype == "tf32"
    torch.backends.cudnn.allow_tf32 = case.dtype == "tf32"
    torch.backends.cudnn.benchmark = True
    return torch.device("cuda:0" if case.device == "cuda" else "cpu")


def memory_limit(kind: str) -> int:
    """Bytes that one worker may take: 90 % of the host memory that is free now, or all of the GPU's."""
    if kind == "cuda":
        return int(torch.cuda.get_device_properties(0).total_memory)
    return int(0.9 * free_memory_bytes())


def classify(error: BaseException) -> tuple[Status, str]:
    """Status and one-line reason of an exception."""
    text = str(error).strip()
    line = one_line(text) or type(error).__name__
    if is_out_of_memory(error):
        return "oom", f"out of memory: {line}"
    if isinstance(error, UserError):
        return "skipped", line
    return "failed", f"{type(error).__name__}: {line}"
