"""Correctness on the device that numbers are taken on. Skipped without CUDA; ``--device cpu`` runs it anywhere,
but for the Triton kernels, whose numbers on a CPU are tests/subjects/heat/test_triton.py's."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from vheatbench.case import Case
from vheatbench.run.measure_case import measure_case
from vheatbench.run.task import MeasureTask
from vheatbench.subjects.heat import triton as heat_triton
from vheatbench.subjects.heat.conduct import conduct_heat
from vheatbench.subjects.heat.cosines import cosine_matrix
from vheatbench.subjects.vheat import VHeat
from vheatbench.subjects.weights import load_checkpoint
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
    record = measure_case(MeasureTask(case=case, policy=QUICK))
    assert record.status == "ok", record.reason
    for name in ("latency_s", "throughput_images_per_s", "macs", "params", "peak_memory_bytes", "peak_allocated_bytes"):
        assert name in record.metrics
    allocated = record.metrics["peak_allocated_bytes"].value
    assert allocated >= record.metrics["weights_bytes"].value + record.metrics["input_bytes"].value
    if device.type == "cuda":
        assert record.metrics["host_latency_s"].value >= record.metrics["latency_s"].value * 0.5
        assert record.metrics["peak_reserved_bytes"].value >= allocated


GRIDS = [(7, 7), (14, 14), (14, 28), (32, 32), (33, 17), (56, 56), (96, 96), (100, 136)]
TOLERANCES = {"float32": 1e-5, "tf32": 2e-3, "bfloat16": 2e-2, "float16": 3e-3}


@pytest.fixture
def kernels(device):
    if device.type != "cuda":
        pytest.skip("Triton kernels run on CUDA devices")


def fields(grid, channels, dtype, device):
    generator = torch.Generator().manual_seed(0)
    wide = torch.randn(3, *grid, 2 * channels, generator=generator).to(device, dtype)
    decay = torch.rand(*grid, channels, generator=generator).to(device, dtype)
    return wide[..., :channels], wide[..., channels:], decay


def conducted(x, decay):
    cos_h, cos_w = (cosine_matrix(n, device=x.device) for n in x.shape[1:3])
    spectrum = torch.einsum("nh,mw,bhwc->bnmc", cos_h, cos_w, x.double())
    return torch.einsum("nh,mw,bnmc->bhwc", cos_h, cos_w, spectrum * decay.double())


def distance(ours, theirs):
    return ((ours.double() - theirs).norm() / theirs.norm()).item()


@pytest.mark.parametrize("precision", TOLERANCES)
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_kernels_and_their_gradients_agree_with_float64(kernels, device, grid, precision, monkeypatch):
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", precision == "tf32")
    dtype = torch.float32 if precision == "tf32" else getattr(torch, precision)
    x, _, decay = fields(grid, 96, dtype, device)
    x, decay = x.requires_grad_(), decay.requires_grad_()
    assert heat_triton.unsupported(x, decay) is None
    y = conduct_heat(x, decay, backend="triton")
    grad = torch.randn_like(y)
    wanted = conducted(x, decay)
    ours = (y, *torch.autograd.grad(y, (x, decay), grad))
    theirs = (wanted, *torch.autograd.grad(wanted, (x, decay), grad.double()))
    for mine, true in zip(ours, theirs, strict=True):
        assert distance(mine, true) < TOLERANCES[precision]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("grid", GRIDS, ids=str)
@torch.no_grad()
def test_the_kernel_with_norm_and_gate_agrees_with_float64(kernels, device, grid, dtype):
    torch.backends.cuda.matmul.allow_tf32 = False
    x, gate, decay = fields(grid, 96, dtype, device)
    weight, bias = torch.rand(2, 96, device=device, dtype=dtype)
    ours = heat_triton.conduct_norm_gate(x, decay, gate, weight, bias, 1e-5)
    normed = torch.nn.functional.layer_norm(conducted(x, decay), (96,), weight.double(), bias.double(), 1e-5)
    assert distance(ours, normed * torch.nn.functional.silu(gate.double())) < 2 * TOLERANCES[str(dtype)[6:]]


@torch.no_grad()
def test_the_compiled_model_agrees(data, device):
    model, images, logits = golden(data, device, torch.float32)
    output = torch.compile(model.deploy(), fullgraph=True)(images)
    assert (output - logits).abs().max() / logits.abs().max() < 1e-5
