"""Which environments are alike enough for one run: GPUs by kind, not by name."""

from __future__ import annotations

from typing import Any

import pytest

from vheatbench.errors import UserError
from vheatbench.store import Header, Run, merge_runs
from vheatbench.store.alike import differing_keys
from vheatbench.store.merge import write_merged
from vheatbench.store.read import read_run

GPU = {
    "index": 0,
    "name": "NVIDIA H100",
    "uuid": "GPU-1",
    "total_memory_bytes": 80 * 2**30,
    "driver_version": "570.86",
    "power_limit_w": 700.0,
    "mig": False,
    "pcie_width": 16,
}


def node(host: str = "a", variables: dict[str, str] | None = None, **gpu: Any) -> dict[str, Any]:
    return {
        "host": host,
        "gpus": [{**GPU, **gpu}],
        "gpus_note": f"of {host}",
        "cpu": {"name": "A processor", "total_memory_bytes": 512 * 2**30 + len(host) * 4096},
        "variables": {"CUDA_VISIBLE_DEVICES": "0", **(variables or {})},
    }


@pytest.mark.parametrize(
    "other",
    [
        node(index=3, uuid="GPU-2"),
        node("another", {"CUDA_VISIBLE_DEVICES": "1"}, uuid="GPU-2"),
        node(total_memory_bytes=80 * 2**30 + 2**20, pcie_width=8),
        {**node(), "gpus": [GPU, {**GPU, "uuid": "GPU-9", "index": 1}]},
    ],
)
def test_gpus_of_one_kind_are_alike(other: dict[str, Any]) -> None:
    assert differing_keys(node(), other) == []


@pytest.mark.parametrize(
    ("other", "key"),
    [
        (node(name="NVIDIA A100"), "gpus"),
        (node(total_memory_bytes=94 * 2**30), "gpus"),
        (node(driver_version="580"), "gpus"),
        (node(power_limit_w=500.0), "gpus"),
        (node(mig=True), "gpus"),
        ({**node(), "gpus": []}, "gpus"),
        (node(variables={"OMP_NUM_THREADS": "4"}), "variables.OMP_NUM_THREADS"),
        ({**node(), "cpu": {"name": "A processor", "total_memory_bytes": 256 * 2**30}}, "cpu.total_memory_bytes"),
    ],
)
def test_another_kind_is_not(other: dict[str, Any], key: str) -> None:
    assert differing_keys(node(), other) == [key]


def test_shards_of_gpus_of_one_kind_merge_and_those_of_two_kinds_are_refused_by_name(tmp_path) -> None:
    from support.records import record

    def shard(number: int, environment: dict[str, Any]) -> Run:
        own = record("vheat-t", 32 * number, 0.001)
        header = Header(
            run_id=f"run{number}", suite="s", command="c", created="2026-01-01T00:00:00Z", environment=environment,
            plan=[own.case], shard=f"{number}/2",
        )  # fmt: skip
        return Run(tmp_path / f"{number}.jsonl", header, [own])

    merged = read_run(write_merged([shard(1, node()), shard(2, node("b", uuid="GPU-2"))], tmp_path))
    assert len(merged.records) == 2
    assert merged.header.environment["gpus"] == [GPU]
    assert "mixed" not in merged.header.environment
    with pytest.raises(UserError, match=r"gpus: NVIDIA H100, NVIDIA A100"):
        merge_runs([shard(1, node()), shard(2, node("b", name="NVIDIA A100"))])
