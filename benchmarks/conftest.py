"""What every benchmark's result carries: threads, allocator, torch."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch

from vheatbench.subjects.products import describe, wide_instructions


def pytest_benchmark_update_machine_info(config: Any, machine_info: dict[str, Any]) -> None:
    """What makes two machines differ for a history beside what pytest-benchmark writes."""
    malloc = os.environ.get("MALLOC_MMAP_MAX_", "default")
    machine_info |= {"torch": torch.__version__, "threads": torch.get_num_threads(), "malloc": malloc}


@pytest.fixture
def report(benchmark: Any) -> Callable[[dict[str, Any]], None]:
    """Keep numbers with the benchmark, in the file that ``--benchmark-json`` writes."""

    def keep(numbers: dict[str, Any]) -> None:
        benchmark.extra_info |= {
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "malloc": "no mmap" if os.environ.get("MALLOC_MMAP_MAX_") == "0" else "default",
            "instructions": "AVX-512" if wide_instructions() else "AVX2 or less",
            "products": describe(trains=False) | describe(trains=True),
            **numbers,
        }

    return keep
