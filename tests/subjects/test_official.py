"""The official formulation, the baseline of every ratio: the same model in other operations."""

from __future__ import annotations

import inspect

import pytest
import timm
import torch
from safetensors.torch import load_file
from torch.utils.flop_counter import FlopCounterMode

import vheatbench.subjects  # noqa: F401  (registers the models)
from vheatbench.subjects.official import OfficialBlock, OfficialOperator, OfficialVHeat
from vheatbench.subjects.vheat import VHeat
from vheatbench.subjects.weights import load_checkpoint

pytestmark = pytest.mark.usefixtures("one_thread")
TOLERANCE = 1e-5
NAMES = ("vheat_tiny", "vheat_small", "vheat_base", "test_vheat")
MICRO = {
    "micro_prenorm": {},
    "micro_postnorm_layerscale": {"post_norm": True, "layer_scale": 1.0},
}


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


@pytest.fixture(params=MICRO)
def golden(request, data):
    model = OfficialVHeat(img_size=64, dim=8, depths=(1, 1, 2, 1), num_classes=10, **MICRO[request.param]).eval()
    load_checkpoint(model, data / f"{request.param}.weights.safetensors")
    return model, load_file(data / f"{request.param}.activations.safetensors")


@pytest.fixture(params=MICRO)
def pair(request) -> tuple[VHeat, OfficialVHeat]:
    """Ours and the official one with the same random weights, every one random, in float64."""
    torch.manual_seed(0)
    options = {"img_size": 64, "dim": 8, "depths": (1, 2), "num_classes": 5, **MICRO[request.param]}
    ours = VHeat(**options).double()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3 + (parameter.ndim == 1))
    official = OfficialVHeat(**options).double()
    official.load_state_dict(ours.state_dict())
    return ours.eval(), official.eval()


@pytest.mark.parametrize("name", NAMES)
def test_registered_with_the_same_parameters_in_both_forms(name):
    assert f"{name}_official" in timm.list_models("*vheat*")
    with torch.device("meta"):
        ours, official = timm.create_model(name), timm.create_model(f"{name}_official")
    assert isinstance(official, OfficialVHeat)
    for deployed in (False, True):
        if deployed:
            ours.deploy(fold=False)
            official.deploy()
        shapes = [{k: v.shape for k, v in m.state_dict().items()} for m in (ours, official)]
        assert shapes[0] == shapes[1]
        counts = [sum(p.numel() for p in m.parameters()) for m in (ours, official)]
        assert counts[0] == counts[1]


@torch.no_grad()
def test_every_activation_agrees(golden):
    model, expected = golden
    assert relative(model.stem(expected["input"]), expected["stem"]) < TOLERANCE
    for i, stage in enumerate(model.forward_intermediates(expected["input"], intermediates_only=True)):
        assert relative(stage, expected[f"stage{i}_before_downsample"]) < TOLERANCE
    assert relative(model(expected["input"]), expected["logits"]) < TOLERANCE
    for size in ("64x128", "96x96"):
        assert relative(model(expected[f"input_{size}"]), expected[f"logits_{size}_bicubic"]) < TOLERANCE
    # folding is ours: asked for, it is not done
    keys = {key for key in model.state_dict() if "to_k" not in key and "freq_embed" not in key}
    deployed = model.deploy(fold=True)
    assert {key for key in deployed.state_dict() if not key.endswith("op.decay")} == keys
    assert relative(deployed(expected["input"]), expected["logits_deploy"]) < TOLERANCE


def test_gradients_are_ours(pair):
    x = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    outputs, found = [], []
    for model in pair:
        image = x.clone().requires_grad_()
        outputs.append(model(image))
        outputs[-1].square().sum().backward()
        found.append({"input": image.grad, **{name: p.grad for name, p in model.named_parameters()}})
    assert relative(outputs[0], outputs[1]) < 1e-12
    for name, gradient in found[0].items():
        assert relative(gradient, found[1][name]) < 1e-10, name


@pytest.mark.parametrize("fold", [False, True])
def test_the_deploy_forms_agree(pair, fold):
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    ours, official = pair[0].deploy(fold=fold), pair[1].deploy()
    with torch.no_grad():
        assert relative(ours(x), official(x)) < 1e-12
        assert relative(ours.float()(x.float()).double(), official.float()(x.float()).double()) < 1e-5


def test_drop_path_draws_the_same_samples(pair):
    options = {"img_size": 64, "dim": 8, "depths": (1, 2), "num_classes": 5, "drop_path_rate": 0.5}
    if pair[0].stages[0].blocks[0].post_norm:
        options |= MICRO["micro_postnorm_layerscale"]
    models = [cls(**options).double().train() for cls in (VHeat, OfficialVHeat)]
    outputs = []
    for model in models:
        model.load_state_dict(pair[0].state_dict())
        torch.manual_seed(1)
        outputs.append(model(torch.randn(6, 3, 64, 64, dtype=torch.float64)))
    assert relative(*outputs) < 1e-12


def test_flops_are_those_of_the_plain_model(pair):
    counts = []
    for model in pair:
        model.to("meta")
        with FlopCounterMode(display=False) as counter:
            model(torch.empty(1, 3, 64, 64, device="meta", dtype=torch.float64))
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0


def test_every_transform_is_a_convolution_on_copies():
    """The baseline must stay what it stands for: four 1-D convolutions per operator, 1x1 ones in the MLP."""
    model = OfficialVHeat(img_size=64, dim=8, depths=(1, 1), num_classes=5).eval().deploy()
    with torch.no_grad(), torch.profiler.profile() as profiler:
        model(torch.randn(1, 3, 64, 64))
    calls = {event.key: event.count for event in profiler.key_averages()}
    blocks = 2
    assert calls["aten::conv1d"] == 4 * blocks
    # stem, downsampling, and per block the depthwise and two of the MLP
    assert calls["aten::conv2d"] == 2 + 1 + 3 * blocks
    assert calls["aten::linear"] == 2 * blocks + 1
    assert calls["aten::clone"] >= 6 * blocks
    assert not any("mkldnn::_linear" in key for key in calls)


def test_autocast_runs_and_is_near():
    torch.manual_seed(0)
    model = timm.create_model("test_vheat_official", num_classes=7).eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        for deployed in (False, True):
            if deployed:
                model.deploy()
            expected = model(x)
            with torch.autocast("cpu", torch.bfloat16):
                assert relative(model(x).float(), expected) < 0.05


def test_features_only():
    torch.manual_seed(0)
    model = timm.create_model("test_vheat_official", features_only=True, out_indices=(0, 2)).eval()
    torch.manual_seed(0)
    expected = timm.create_model("test_vheat", features_only=True, out_indices=(0, 2)).eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        ours, theirs = model(x), expected(x)
    assert model.feature_info.reduction() == [4, 16]
    assert all(relative(a, b) < TOLERANCE for a, b in zip(ours, theirs, strict=True))


def test_gradient_checkpointing_recomputes_every_block(monkeypatch):
    model = OfficialVHeat(img_size=64, dim=8, depths=(1, 2), num_classes=5).train()
    calls = []
    forward = OfficialBlock.forward
    monkeypatch.setattr(OfficialBlock, "forward", lambda self, *args: (calls.append(1), forward(self, *args))[1])
    x = torch.randn(1, 3, 64, 64)
    gradients = []
    for enable in (False, True):
        calls.clear()
        model.zero_grad()
        model.set_grad_checkpointing(enable)
        model(x).square().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
        assert len(calls) == 3 * (1 + enable)
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(*gradients, strict=True))


def test_every_operator_is_the_official_one():
    model = timm.create_model("test_vheat_official")
    operators = [block.op for stage in model.stages for block in stage.blocks]
    assert len(operators) == 5
    assert all(type(op) is OfficialOperator and op.backend == "official" for op in operators)
    assert "official" in (inspect.getdoc(timm.models.model_entrypoint("vheat_tiny_official")) or "")


def test_compiles_without_a_graph_break():
    model = OfficialVHeat(img_size=64, dim=8, depths=(1,), num_classes=5).eval().deploy()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = model(x)
        compiled = torch.compile(model, backend="eager", fullgraph=True)
        assert relative(compiled(x), expected) < TOLERANCE
