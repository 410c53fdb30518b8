"""Whether two environments are alike enough for their records to stand in one run: what is compared, and what is not.

Machines of one kind differ in what names them. Which of several equal GPUs a job was given (``uuid``, ``index``,
``CUDA_VISIBLE_DEVICES``) and what the kernel keeps of the memory for itself are kept in the file, not compared.
"""

from __future__ import annotations

from typing import Any

VOLATILE = frozenset({"host", "load_average", "created", "volatile", "gpus_note"})
"""Entries of an environment that may differ between runs that belong together."""
NAMES = frozenset({"variables.CUDA_VISIBLE_DEVICES"})
"""Entries that say which of several equal devices was used."""
ROUGH = frozenset({"cpu.total_memory_bytes", "cpu.memory_limit_bytes"})
"""Entries that are compared in whole GiB."""
GPU_KIND = (
    "name",
    "total_memory_bytes",
    "driver_version",
    "power_limit_w",
    "max_sm_clock_mhz",
    "max_memory_clock_mhz",
    "mig",
    "ecc",
)
"""What of a GPU must be equal; its memory in whole GiB."""
GIB = 2**30


def differing_keys(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Entries in which two environments differ, volatile ones aside, dotted where nested, sorted.

    The kinds of GPUs are one entry, ``gpus``. How many of a kind a machine has does not matter: how many are used at
    the same time stands in the records.
    """
    a, b = _compared(one), _compared(other)
    return sorted(key for key in a.keys() | b.keys() if key not in a or key not in b or a[key] != b[key])


def flat(environment: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The entries of an environment by their dotted names, volatile ones aside."""
    entries: dict[str, Any] = {}
    for key, value in environment.items():
        if key in VOLATILE:
            continue
        if isinstance(value, dict) and value:
            entries |= flat(value, f"{prefix}{key}.")
        else:
            entries[f"{prefix}{key}"] = value
    return entries


def gpu_kinds(environment: dict[str, Any]) -> list[dict[str, Any]]:
    """The GPUs of an environment without what names them, each kind once."""
    listed = environment.get("gpus")
    kinds = []
    for gpu in listed if isinstance(listed, list) else []:
        if isinstance(gpu, dict):
            kind = {
                key: _rough(gpu[key]) if key == "total_memory_bytes" else gpu[key] for key in GPU_KIND if key in gpu
            }
            if kind not in kinds:
                kinds.append(kind)
    return sorted(kinds, key=str)


def _compared(environment: dict[str, Any]) -> dict[str, Any]:
    entries = {key: value for key, value in flat(environment).items() if key not in NAMES}
    for key in ROUGH & entries.keys():
        entries[key] = _rough(entries[key])
    if "gpus" in entries:
        entries["gpus"] = gpu_kinds(environment)
    return entries


def _rough(size: Any) -> Any:
    return round(size / GIB) if isinstance(size, int | float) else size
