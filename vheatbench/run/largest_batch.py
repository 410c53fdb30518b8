"""The largest batch that fits."""

from __future__ import annotations

import gc
from collections.abc import Callable

import torch

from vheatbench.store.schema import Metric


def largest_batch(
    attempt: Callable[[int], object],
    out_of_memory: Callable[[Exception], bool],
    device: torch.device,
    limit: int,
) -> Metric:
    """The largest batch that ``attempt`` takes: doubled until it does not fit, then halved in, then run once more.

    Raises:
        MemoryError: not even one image fits.
        Exception: whatever ``attempt`` raises for another reason.
    """

    def fits(batch: int) -> bool:
        try:
            attempt(batch)
        except Exception as error:
            if not out_of_memory(error):
                raise
            return False
        finally:
            gc.collect()
            if device.type == "cuda":
                torch.cuda.empty_cache()
        return True

    best, step = 0, 1
    while step <= limit and fits(step):
        best, step = step, step * 2
    if best == 0:
        raise MemoryError("not even one image fits")
    low, high = best, min(step, limit + 1)
    # to the nearest eighth: finer steps cost a pass each and say nothing more
    while high - low > max(1, low // 8):
        middle = (low + high) // 2
        if fits(middle):
            low = middle
        else:
            high = middle
    # Once more, last: what larger batches left behind, caches of libraries say, may have taken the room
    while low and not fits(low):
        low -= max(1, low // 8)
    if not low:
        raise MemoryError("not even one image fits twice")
    capped = low >= limit
    return Metric(
        value=low,
        unit="images",
        direction="higher",
        how="doubled until out of memory, then bisected to an eighth, and run once more"
        + (f"; the search ends at {limit}" if capped else ""),
    )
