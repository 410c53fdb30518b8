"""What the device can do at most: a large copy and a large matrix product, the roofs of a roofline."""

from __future__ import annotations

from collections.abc import Callable

import torch

from vheatbench.case import Case
from vheatbench.errors import UserError
from vheatbench.run.step import DTYPES
from vheatbench.store.schema import Metric
from vheatbench.subjects.fused import fuses
from vheatbench.subjects.onednn import linear

CEILINGS = ("ceiling/copy", "ceiling/matmul")


def ceiling_step(case: Case, device: torch.device) -> Callable[[], torch.Tensor]:
    """One copy into memory that is there already, or one product of square matrices.

    Raises:
        UserError: there is no such ceiling.
    """
    if case.subject not in CEILINGS:
        raise UserError(f"unknown ceiling {case.subject!r}; there are {', '.join(CEILINGS)}")
    a = torch.randn(case.resolution, device=device, dtype=DTYPES[case.dtype])
    out = torch.zeros_like(a)
    if case.subject == "ceiling/copy":
        return lambda: out.copy_(a)
    b = torch.randn_like(a)
    if fuses(a):
        # On CPUs the product of oneDNN: MKL, which torch.mm takes in float32, is half as fast on AMD's cores, and
        # a roof must be what the device can do, not one of its libraries.
        turned = b.t().contiguous()
        return lambda: linear(a, turned, None)
    return lambda: torch.mm(a, b, out=out)


def ceiling_metric(case: Case, latency: Metric) -> dict[str, Metric]:
    """``bandwidth_bytes_per_s`` of a copy, ``rate_flop_per_s`` of a product, from the latency and its interval."""
    height, width = case.resolution
    if case.subject == "ceiling/copy":
        work = 2 * height * width * DTYPES[case.dtype].itemsize
        name, unit, what = "bandwidth_bytes_per_s", "bytes/s", "read and written"
    else:
        work = 2 * height * width**2
        name, unit, what = "rate_flop_per_s", "FLOP/s", "FLOPs of a square product"
    assert latency.value is not None
    assert latency.low is not None
    assert latency.high is not None
    metric = Metric(
        value=work / latency.value,
        low=work / latency.high,
        high=work / latency.low,
        confidence=latency.confidence,
        unit=unit,
        direction="higher",
        how=f"{work:,} {what if 'FLOP' in what else f'bytes {what}'} / latency; {latency.how}",
    )
    return {name: metric}
