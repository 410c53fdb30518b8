from __future__ import annotations

import os
from pathlib import Path

import pytest

# Two threads at most: tests share small machines, and results must not depend on the core count.
os.environ.setdefault("OMP_NUM_THREADS", "2")

DATA = Path(__file__).parent / "data"


@pytest.fixture
def data() -> Path:
    return DATA
