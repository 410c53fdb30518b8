"""What a type checker sees of ``import vheatbench as vb``: checked by mypy in its strict mode, run by nobody."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from typing_extensions import assert_type

import vheatbench as vb
from vheatbench.store.read import Run
from vheatbench.store.schema import Record


def use(model: nn.Module, images: torch.Tensor) -> None:
    assert_type(vb.measure(model, images), Record)
    assert_type(vb.measure("vheat-t", (1, 3, 224, 224), dtype="bfloat16", seconds=3), Record)
    run = vb.run("overview", budget_s=180)
    assert_type(run, Run)
    assert_type(vb.run({"subjects": ["vheat-t"]}), Run)
    assert_type(vb.read_run(Path("a.jsonl")), Run)
    assert_type(vb.scaling(run)["vheat-t"].exponent, float | None)
    assert_type(vb.compare(run, "latest").reasons, tuple[str, ...])
    assert_type(vb.ab(model, "swin-t", images).ratio.low, float)
    field = vb.erf(model, layer="stages.3")
    assert_type(field.map, npt.NDArray[np.float32])
    assert_type(field.a50, float)
    assert_type(vb.heat.diffuse(model).frames, npt.NDArray[np.float64])
    assert_type(vb.heat.diffusivity("vheat-t")[0].mean_k, float)
    assert_type(vb.report([run, "latest"]), Path)
    vb.measure(model, seconds="three")  # type: ignore[arg-type]
    vb.run("overview", device="tpu")  # type: ignore[arg-type]
