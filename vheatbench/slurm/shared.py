"""Whether the nodes of a cluster see a folder."""

from __future__ import annotations

import os
from pathlib import Path

LOCAL = frozenset({"btrfs", "ext2", "ext3", "ext4", "f2fs", "overlay", "ramfs", "rootfs", "tmpfs", "xfs", "zfs"})
"""File systems of one machine, unless it exports them."""


def local_file_system(path: Path) -> str | None:
    """The type of the file system of a folder where it is of one machine; None where others may see it.

    ``path`` need not be there yet. Linux only; None elsewhere.
    """
    there = path.absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    try:
        device = os.stat(there).st_dev
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return None
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in mounts:
        fields, _, after = line.partition(" - ")
        if fields.split()[2] == wanted:
            kind = after.split()[0]
            return kind if kind in LOCAL else None
    return None
