from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

# Tables to a pipe have a width of their own; pytest-xdist tells its workers another.
os.environ.pop("COLUMNS", None)
# Before torch reads it. Threads that wait for each other on busy cores take several times as long as one, and results
# must not depend on the core count.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# What is timed in tests is never read, so that their workers need not be started anew.
os.environ.setdefault("VHEATBENCH_FORK_ALL", "1")
# Products by the defaults of the instruction set: what a trial finds may differ from machine to machine.
os.environ.setdefault("VHEATBENCH_TUNE", "0")

import pytest  # noqa: E402
import torch  # noqa: E402
from hypothesis import settings  # noqa: E402

from support import forked  # noqa: E402
from support.in_process import in_process  # noqa: E402, F401  a fixture for all

DATA = Path(__file__).parent / "data"
# No deadline: tests share busy machines.
settings.register_profile("tests", max_examples=50, deadline=None)
settings.load_profile("tests")


@pytest.fixture
def data() -> Path:
    return DATA


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def plain_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty working folder, and a terminal that nothing is known of."""
    monkeypatch.chdir(tmp_path)
    for name in ("COLUMNS", "FORCE_COLOR", "GITHUB_ACTIONS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_COLOR", "1")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--device", default=None, help="where tests/test_gpu.py runs: cuda (default where there is one), cpu"
    )


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> torch.device:
    """CUDA, or what ``--device`` says; skipped where neither is there."""
    wanted = request.config.getoption("--device")
    if wanted is None and not torch.cuda.is_available():
        pytest.skip("no CUDA device here (pytest --device cpu runs the same checks on the CPU)")
    return torch.device(wanted or "cuda")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Before the first test, so that what is forked from here has run none."""
    if not session.config.option.collectonly:
        gc.collect()
        gc.freeze()  # every later collection leaves out the libraries' million objects
        forked.prepare()
