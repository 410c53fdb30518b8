"""Correctness on the device that numbers are taken on. Skipped without CUDA; ``--device cpu`` runs it anywhere."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from vheatbench.case import Case
from vheatbench.run.carry_out import carry_out
from vheatbench.run.task import MeasureTask
from vheatbench.subjects.checkpoints import load_checkpoint
from vheatbench.subjects.vheat import VHeat
from vheatbench.suites import SuitePolicy

QUICK = SuitePolicy(min_samples=3, ceiling_s=0.2, warmup_ceiling_s=0.2)


def golden(data, device, dtype):
    model = VHeat(img_size=64, dim=8, depths=(1, 1, 2, 1), num_classes=10).eval()
    load_checkpoint(model, data / "micro_prenorm.weights.safetensors")
    activations = load_file(data / "micro_prenorm.activations.safetensors")
    return model.to(device, dtype), activations["input"].to(device, dtype), activations["logits"].to(device)


@pytest.mark.parametrize("form", ["train", "deploy"])
@torch.no_grad()
def test_float32_agrees_with_the_official_code(data, device, form):
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    model, images, logits = golden(data, device, torch.float32)
    output = (model.deploy() if form == "deploy" else model)(images)
    assert (output - logits).abs().max() / logits.abs().max() < 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_low_precision_stays_near(data, device, dtype):
    model, images, logits = golden(data, device, dtype)
    assert (model.deploy()(images).float() - logits).abs().max() / logits.abs().max() < 4e-2


@pytest.mark.parametrize("mode", ["infer", "forward", "train"])
def test_a_case_gives_every_number(device, mode):
    case = Case(subject="test_vheat", resolution=64, batch=2, mode=mode, device=device.type)
    record = carry_out(MeasureTask(case=case, policy=QUICK))
    assert record.status == "ok", record.reason
    for name in ("latency_s", "throughput_images_per_s", "macs", "params", "peak_memory_bytes", "peak_allocated_bytes"):
        assert name in record.metrics
    allocated = record.metrics["peak_allocated_bytes"].value
    assert allocated >= record.metrics["weights_bytes"].value + record.metrics["input_bytes"].value
    if device.type == "cuda":
        assert record.metrics["host_latency_s"].value >= record.metrics["latency_s"].value * 0.5
        assert record.metrics["peak_reserved_bytes"].value >= allocated
