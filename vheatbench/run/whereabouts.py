"""Where a record was measured: host and GPU, and in which job of a cluster."""

from __future__ import annotations

import os
import socket
from typing import Any

from vheatbench.measure.nvml import Nvml, Unavailable, open_nvml

SLURM = {
    "node": "SLURMD_NODENAME",
    "job_id": "SLURM_JOB_ID",
    "array_job_id": "SLURM_ARRAY_JOB_ID",
    "array_task_id": "SLURM_ARRAY_TASK_ID",
    "restart_count": "SLURM_RESTART_COUNT",
}
"""What a record says of its job, and the environment variable that has it."""
TRUST_CUDA = "VHEATBENCH_TRUST_CUDA"
"""Environment variable of processes that only plan, on the login node of a cluster: its other nodes have the GPUs."""


def whereabouts() -> dict[str, Any]:
    """``host`` (``VHEATBENCH_HOST`` or the host's name); in a job of Slurm also ``slurm``: node, job id, restarts."""
    found: dict[str, Any] = {"host": os.environ.get("VHEATBENCH_HOST") or socket.gethostname()}
    if in_slurm_job():
        job = {name: os.environ[variable] for name, variable in SLURM.items() if variable in os.environ}
        found["slurm"] = {"restart_count": "0", **job}
    return found


def in_slurm_job() -> bool:
    """Whether this process belongs to a job of Slurm, which may end it at any time."""
    return "SLURM_JOB_ID" in os.environ


def gpu_uuid(entry: str, by_bus: bool = True) -> str | None:
    """The UUID of a GPU by an entry of ``CUDA_VISIBLE_DEVICES``; None where NVML does not say.

    ``by_bus``: whether CUDA counts GPUs by bus; if not, only it knows which a number means.

    CUDA is not initialised, so that whoever asks holds no memory of the GPU.
    """
    nvml = open_nvml()
    if isinstance(nvml, Unavailable):
        return None
    try:
        return _uuid(nvml, entry) if by_bus or not entry.isdigit() else None
    finally:
        nvml.close()


def _uuid(nvml: Nvml, entry: str) -> str | None:
    if entry.isdigit():
        boards = nvml.by_bus()
        if isinstance(boards, Unavailable) or int(entry) >= len(boards):
            return None
        gpu: Any = boards[int(entry)]
    else:
        gpu = nvml.device(entry)
    uuid = gpu if isinstance(gpu, Unavailable) else gpu.uuid()
    return uuid if isinstance(uuid, str) else None
