"""The backbone agrees with what the official implementation computes (tests/data), gradients included."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from vheatbench.subjects.heat_operator import HeatOperator
from vheatbench.subjects.vheat import VHeat
from vheatbench.subjects.weights import convert_official, load_checkpoint

TOLERANCE = 1e-5
MODELS = {
    "micro_prenorm": {},
    "micro_postnorm_layerscale": {"post_norm": True, "layer_scale": 1.0},
}


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


@pytest.fixture(params=MODELS)
def golden(request, data):
    model = VHeat(img_size=64, dim=8, depths=(1, 1, 2, 1), num_classes=10, **MODELS[request.param]).eval()
    load_checkpoint(model, data / f"{request.param}.weights.safetensors")
    return model, load_file(data / f"{request.param}.activations.safetensors")


@torch.no_grad()
def test_every_activation_agrees(golden):
    model, official = golden
    assert relative(model.stem(official["input"]), official["stem"]) < TOLERANCE
    for i, stage in enumerate(model.forward_intermediates(official["input"], intermediates_only=True)):
        assert relative(stage, official[f"stage{i}_before_downsample"]) < TOLERANCE
    assert relative(model(official["input"]), official["logits"]) < TOLERANCE


@torch.no_grad()
@pytest.mark.parametrize("size", ["64x128", "96x96"])
def test_other_sizes_agree(golden, size):
    model, official = golden
    image = official[f"input_{size}"]
    assert relative(model(image), official[f"logits_{size}_bicubic"]) < TOLERANCE
    for i, stage in enumerate(model.forward_intermediates(image, intermediates_only=True)):
        assert relative(stage, official[f"stage{i}_{size}"]) < TOLERANCE


@torch.no_grad()
def test_zero_padded_frequencies_agree(golden):
    model, official = golden
    for stage in model.stages:
        stage.freq_resize = "zeropad"
    assert relative(model(official["input_96x96"]), official["logits_96x96_zeropad"]) < TOLERANCE


@torch.no_grad()
def test_set_input_size_equals_resizing_on_the_fly(golden):
    model, official = golden
    model.set_input_size((64, 128))
    assert model.stages[0].freq_embed.shape == (16, 32, 8)
    assert relative(model(official["input_64x128"]), official["logits_64x128_bicubic"]) < TOLERANCE


@torch.no_grad()
def test_deploy_keeps_the_output(golden):
    model, official = golden
    keys = set(model.state_dict())
    deployed = model.deploy()
    assert relative(deployed(official["input"]), official["logits_deploy"]) < TOLERANCE
    assert not any("to_k" in key or "freq_embed" in key for key in deployed.state_dict())
    assert any("to_k" in key for key in keys)
    assert not any(parameter.requires_grad for name, parameter in deployed.named_parameters() if "decay" in name)


@torch.no_grad()
def test_deploy_for_another_size(golden):
    model, official = golden
    deployed = model.deploy((64, 128))
    assert relative(deployed(official["input_64x128"]), official["logits_64x128_bicubic"]) < TOLERANCE
    with pytest.raises(ValueError, match=r"deployed for 64x128, the input is 64x64.*deploy\(\(64, 64\)\)"):
        deployed(official["input"])
    with pytest.raises(ValueError, match="already deployed"):
        deployed.deploy()
    with pytest.raises(ValueError, match="keeps its size"):
        deployed.set_input_size(64)


@pytest.mark.parametrize("name", ["operator_7x7x8", "operator_14x10x6"])
def test_the_operator_and_all_its_gradients_agree(data, name):
    official = load_file(data / f"{name}.safetensors")
    _, channels, height, width = official["input"].shape
    operator = HeatOperator(channels, (height, width))
    operator.load_state_dict({key[6:]: value for key, value in official.items() if key.startswith("param.")})
    image = official["input"].requires_grad_()
    embedding = official["freq_embed"].requires_grad_()
    output = operator(image.permute(0, 2, 3, 1), embedding).permute(0, 3, 1, 2)
    output.backward(official["grad_output"])
    assert relative(output, official["output"]) < TOLERANCE
    assert relative(image.grad, official["grad_input"]) < TOLERANCE
    assert relative(embedding.grad, official["grad_freq_embed"]) < TOLERANCE
    for key, parameter in operator.named_parameters():
        assert relative(parameter.grad, official[f"grad.{key}"]) < TOLERANCE


# Millions of parameters of the official code: training form, deploy form (counted there).
PARAMETERS = {"vheat_tiny": (30.85, 29.56), "vheat_small": (52.22, 50.05), "vheat_base": (92.13, 87.50)}


@pytest.mark.parametrize("name", PARAMETERS)
def test_official_keys_shapes_and_parameter_counts(data, name):
    import timm

    with torch.device("meta"):
        model = timm.create_model(name)
    official = json.loads((data / "official_checkpoint_keys.json").read_text())[name]
    converted = convert_official({key: torch.empty(shape, device="meta") for key, shape in official.items()})
    own = model.state_dict()
    assert {key: value.shape for key, value in converted.items()} == {key: value.shape for key, value in own.items()}
    train, deploy = PARAMETERS[name]
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(train, abs=0.01)
    model.deploy(fold=False)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(deploy, abs=0.01)
