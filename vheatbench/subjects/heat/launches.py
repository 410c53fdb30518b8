"""Tiles of the Triton kernels: how each is launched for a padded size and a dtype.

Sized so that nothing spills and no program needs more than 99 KB of shared memory, which every device of
compute capability 8.0 and later has: tests/subjects/heat/test_triton_compile.py compiles every launch that these
functions can return and asserts it, for channels that are a multiple of 16. None was tuned on a device.
"""

from __future__ import annotations

from typing import Any, NamedTuple

PADS = (16, 32, 64, 128, 256)
"""Sides of tiles: powers of two, 16 at least for a tensor-core product."""
WHOLE_GRID_LIMIT = 32
"""Largest padded side of a grid that one program holds. 64 x 64 spills even with 8 channels a program."""


class Launch(NamedTuple):
    """How a kernel is launched: its tile sizes, by their names in the kernel, and what Triton's compiler is told."""

    tiles: dict[str, int]
    num_warps: int
    num_stages: int = 2

    @property
    def options(self) -> dict[str, Any]:
        """For Triton's compiler. A fused multiply-add rounds once; Triton's own default changes with its version."""
        return {"num_warps": self.num_warps, "num_stages": self.num_stages, "enable_fp_fusion": True}


def pad_to(n: int) -> int:
    """The smallest of :data:`PADS` that holds ``n`` values."""
    return next(pad for pad in PADS if n <= pad)


def whole_grid_launch(height: int, width: int, itemsize: int) -> Launch | None:
    """For a grid padded to height x width, or None where the grid does not fit on chip."""
    if max(height, width) > WHOLE_GRID_LIMIT:
        return None
    # 32 bytes of neighbouring channels are one sector of memory
    channels = (64 if height == width == 16 else 32) // itemsize
    tiles = {"HEIGHT": height, "WIDTH": width, "CHANNELS": channels}
    return Launch(tiles, num_warps=height * width * channels * itemsize // 2048, num_stages=1)


def row_launch(width: int, itemsize: int) -> Launch:
    """For rows padded to ``width``."""
    block = min(128, 16384 // itemsize // width)
    tiles = {"WIDTH": width, "DEPTH": min(width, 32), "BLOCK": block}
    return Launch(tiles, num_warps=4 if width == 16 else 8)


def column_launch(height: int, itemsize: int) -> Launch:
    """For columns padded to ``height``."""
    block = min(128, 16384 // itemsize // height)
    rows = min(height, 64 if itemsize == 2 else 16)  # float32 products hold whole rows of cosines in registers
    tiles = {"HEIGHT": height, "DEPTH": min(height, 32), "ROWS": rows, "BLOCK": block}
    return Launch(tiles, num_warps=4 if height == 16 else 8)


def row_norm_gate_launch(width: int, channels: int, itemsize: int) -> Launch | None:
    """For rows padded to ``width`` with all their channels, or None where 16 tokens of them do not fit."""
    pad = _power_of_two(channels)
    if pad * itemsize > 2048:
        return None
    rows = min(width, max(16, 8192 // pad))
    tiles = {"WIDTH": width, "DEPTH": 16 if pad == 1024 else min(width, 32), "ROWS": rows, "CHANNELS": pad}
    return Launch(tiles, num_warps=max(4, rows * pad // 1024))


def norm_gate_launch(channels: int, itemsize: int) -> Launch:
    """For LayerNorm and gate without a transform."""
    pad = _power_of_two(channels)
    return Launch({"ROWS": max(1, 4096 // itemsize // pad), "CHANNELS": pad}, num_warps=4, num_stages=1)


def spectrum_product_launch() -> Launch:
    """For the product of two spectra."""
    return Launch({"BLOCK": 512}, num_warps=4)


def _power_of_two(channels: int) -> int:
    return max(16, 1 << (channels - 1).bit_length())
