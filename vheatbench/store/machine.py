"""Which machine a record was measured on."""

from __future__ import annotations

from vheatbench.store.schema import Record


def machine_of(record: Record) -> tuple[str, str]:
    """Node (of a cluster, else the host) and GPU (its UUID, else its number; empty on a CPU) of a record.

    Both are empty for records that do not say so.
    """
    conditions = record.conditions
    job = conditions.get("slurm")
    node = (job.get("node") if isinstance(job, dict) else None) or conditions.get("host") or ""
    gpu = conditions.get("gpu_uuid") or conditions.get("device_index") or ""
    return str(node), str(gpu)
