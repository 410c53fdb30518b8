from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.cluster import Cluster, Submitted, missing


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A real Slurm; skipped where there can be none, and failing where continuous integration could have it."""
    why = missing()
    if why is not None:
        if os.environ.get("CI") == "true" and os.getuid() == 0:
            pytest.fail(why)
        pytest.skip(why)
    # not below pytest's own: munge wants a way to its socket that is open to all, and such a path is short
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    folder.chmod(0o755)
    cluster = Cluster(folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def submitted(cluster: Cluster, tmp_path: Path) -> Submitted:
    return Submitted(cluster, tmp_path)
