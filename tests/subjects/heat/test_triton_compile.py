"""The Triton kernels compiled for sm_80 and sm_90 without a GPU: nothing spills, and shared memory fits.

By default the launches most likely to spill; every launch with ``VHEATBENCH_ALL_KERNELS=1`` (minutes).
"""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from vheatbench.subjects.heat.launches import (
    PADS,
    Launch,
    column_launch,
    norm_gate_launch,
    row_launch,
    row_norm_gate_launch,
    spectrum_product_launch,
    whole_grid_launch,
)
from vheatbench.subjects.heat.triton import INTERPRETED

triton = pytest.importorskip("triton", reason="Triton is not installed")
TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
pytestmark = [
    pytest.mark.skipif(INTERPRETED, reason="Triton's interpreter compiles nothing"),
    pytest.mark.skipif(not (TOOLS / "cuobjdump").exists(), reason="this Triton comes without NVIDIA's tools"),
]

SHARED_LIMIT = 99 * 1024
"""Bytes a program may have on every device from compute capability 8.0 on; 163 KB on sm_80, 227 KB on sm_90."""
REGISTER_LIMIT = 255
POINTERS = {"bfloat16": "*bf16", "float16": "*fp16", "float32": "*fp32"}
ARITHMETIC = [("bfloat16", 2, "ieee"), ("float16", 2, "ieee"), ("float32", 4, "tf32"), ("float32", 4, "ieee")]
EVERYTHING = os.environ.get("VHEATBENCH_ALL_KERNELS") == "1"


class Variant(NamedTuple):
    """One kernel as ``heat_triton`` can launch it."""

    kernel: str
    dtype: str
    launch: Launch
    switches: dict[str, object]

    @property
    def label(self) -> str:
        tiles = "x".join(str(n) for n in self.launch.tiles.values())
        precision = self.switches.get("PRECISION", "")
        keep = "-spectrum" if self.switches.get("KEEP_SPECTRUM") else ""
        return f"{self.kernel}-{tiles}-{self.dtype}-{precision}{keep}"


def variants() -> Iterator[Variant]:
    """Every launch that ``heat_triton`` can choose, once."""
    norms = {"WEIGHT": True, "BIAS": True}
    channels = [16 << i for i in range(7)]
    for dtype, size, precision in ARITHMETIC:
        products = {"PRECISION": precision, "WIDEN": False}
        for keep in (False, True):
            spectrum = {**products, "KEEP_SPECTRUM": keep}
            for height, width in itertools.product(PADS, PADS):
                launch = whole_grid_launch(height, width, size)
                if launch is not None:
                    yield Variant("whole_grid_kernel", dtype, launch, spectrum)
            for pad in PADS:
                yield Variant("column_kernel", dtype, column_launch(pad, size), spectrum)
        for pad in PADS:
            for inverse in (False, True):
                yield Variant("row_kernel", dtype, row_launch(pad, size), {**products, "INVERSE": inverse})
            for count in channels:
                launch = row_norm_gate_launch(pad, count, size)
                if launch is not None:
                    yield Variant("row_norm_gate_kernel", dtype, launch, {**products, **norms})
        if precision == "ieee":
            for count in channels:
                yield Variant("norm_gate_kernel", dtype, norm_gate_launch(count, size), norms)
            yield Variant("spectrum_product_kernel", dtype, spectrum_product_launch(), {})


def likely_to_spill(variant: Variant) -> bool:
    """The largest tiles in bfloat16, TF32 and float32, with everything switched on."""
    tiles, switches = variant.launch.tiles, variant.switches
    if variant.dtype == "float16":
        return False
    if variant.kernel == "row_norm_gate_kernel":
        return tiles["WIDTH"] == 64 and tiles["CHANNELS"] >= 128
    if variant.kernel in ("norm_gate_kernel", "spectrum_product_kernel"):
        return tiles.get("CHANNELS", 1024) == 1024
    wanted = switches.get("KEEP_SPECTRUM", switches.get("INVERSE"))
    return (
        bool(wanted)
        and max(tiles.get("HEIGHT", 0), tiles.get("WIDTH", 0)) in (32, 64, 256)
        and min(tiles.get("HEIGHT", 32), tiles.get("WIDTH", 32)) > 16
    )


def compile_for(variant: Variant, capability: int) -> tuple[int, dict[str, int]]:
    """Shared memory in bytes, and what ``cuobjdump -res-usage`` says of the binary."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from vheatbench.subjects.heat import kernels as heat_kernels

    kernel = getattr(heat_kernels, variant.kernel)
    constants = {**variant.launch.tiles, **variant.switches}
    signature, attributes = {}, {}
    for place, name in enumerate(kernel.arg_names):
        if name in constants:
            signature[name] = "constexpr"
        elif name == "eps":
            signature[name] = "fp32"
        elif name.endswith("_ptr"):
            # the decay and the norm's affine may stay float32 beside 16-bit maps: the larger of the two
            signature[name] = "*fp32" if name in ("decay_ptr", "weight_ptr", "bias_ptr") else POINTERS[variant.dtype]
            attributes[(place,)] = [["tt.divisibility", 16]]
        else:
            signature[name] = "i32"
            if name not in ("height", "width", "images"):  # channels are, and so are strides and sizes
                attributes[(place,)] = [["tt.divisibility", 16]]
    source = ASTSource(
        kernel, signature, {(kernel.arg_names.index(name),): value for name, value in constants.items()}, attributes
    )
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=variant.launch.options)
    return compiled.metadata.shared, resources(compiled.asm["cubin"])


def resources(cubin: bytes) -> dict[str, int]:
    """Registers per thread and stack bytes per thread of a binary; a spilled register lives on the stack."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [str(TOOLS / "cuobjdump"), "-res-usage", file.name]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {name: int(value) for name, value in re.findall(r"\b(REG|STACK|LOCAL):(\d+)", said)}


ALL = {variant.label: variant for variant in variants()}


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("label", [label for label, variant in ALL.items() if EVERYTHING or likely_to_spill(variant)])
def test_a_launch_fits(label, capability):
    shared, used = compile_for(ALL[label], capability)
    assert used["STACK"] == used["LOCAL"] == 0, f"spills {used}"
    assert 0 < used["REG"] <= REGISTER_LIMIT
    assert shared <= SHARED_LIMIT
