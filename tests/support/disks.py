"""Disks that are full."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager

OLD = b"what was there before"


@contextmanager
def small_disk(room: int = 64) -> Iterator[None]:
    """Every file ends after this many bytes, as on a full disk: the write before the limit comes through in part."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
