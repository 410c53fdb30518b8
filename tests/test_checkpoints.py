from __future__ import annotations

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from yacs.config import CfgNode

from vheatbench import load_checkpoint
from vheatbench.errors import UserError
from vheatbench.subjects.vheat import VHeat


def micro(**kwargs) -> VHeat:
    return VHeat(**{"img_size": 64, "dim": 8, "depths": (1, 1, 2, 1), "num_classes": 10, **kwargs})


@pytest.fixture
def official(data) -> dict[str, torch.Tensor]:
    return load_file(data / "micro_prenorm.weights.safetensors")


def bias(model: VHeat) -> torch.Tensor:
    return model.head.fc.bias


def test_every_container(official, tmp_path):
    ema = {key: value + 1 for key, value in official.items()}
    containers = {
        "plain.pth": official,
        "wrapped.pth": {"model": official, "model_ema": ema, "epoch": 3},
        "lightning.pth": {"state_dict": {f"module.{key}": value for key, value in official.items()}},
        "timm.pth": {"state_dict": official, "state_dict_ema": ema},
    }
    for name, content in containers.items():
        torch.save(content, tmp_path / name)
        model = micro()
        loaded = load_checkpoint(model, tmp_path / name)
        assert torch.equal(bias(model), official["classifier.3.bias"]), name
        assert loaded.weights == ("model" if name == "wrapped.pth" else "state_dict")
        assert len(loaded.sha256) == 64
    model = micro()
    loaded = load_checkpoint(model, tmp_path / "timm.pth", weights="model_ema")
    assert (loaded.weights, bias(model).equal(ema["classifier.3.bias"])) == ("state_dict_ema", True)
    loaded = load_checkpoint(model, tmp_path / "wrapped.pth", weights="model_ema")
    assert torch.equal(bias(model), ema["classifier.3.bias"])
    assert "weights 'model_ema' loaded" in str(loaded)


def test_own_names_round_trip(official, tmp_path):
    model = micro()
    save_file(model.state_dict(), tmp_path / "own.safetensors")
    other = micro()
    load_checkpoint(other, tmp_path / "own.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))


@pytest.mark.parametrize("how", ["bicubic", "zeropad"])
def test_frequencies_are_resized_and_said_to_be(data, how):
    activations = load_file(data / "micro_prenorm.activations.safetensors")
    model = micro(img_size=96).eval()
    loaded = load_checkpoint(model, data / "micro_prenorm.weights.safetensors", freq_resize=how)
    assert loaded.resized["stages.0.freq_embed"] == f"16x16 -> 24x24 ({how})"
    with torch.no_grad():
        logits = model(activations["input_96x96"])
    expected = activations[f"logits_96x96_{how}"]
    assert (logits - expected).abs().max() / expected.abs().max() < 1e-5


def test_pickled_configuration_needs_trust(official, tmp_path):
    path = tmp_path / "official.pth"
    torch.save({"model": official, "config": CfgNode({"MODEL": {"NAME": "vheat"}})}, path)
    with pytest.raises(UserError, match=r"yacs\.config\.CfgNode.*trust_pickle=True") as caught:
        load_checkpoint(micro(), path)
    assert "\n" not in str(caught.value)
    model = micro()
    load_checkpoint(model, path, trust_pickle=True)
    assert torch.equal(bias(model), official["classifier.3.bias"])


def test_timm_pretrained_path_takes_official_names(official, tmp_path):
    path = tmp_path / "plain.pth"
    torch.save(official, path)
    model = timm.create_model(
        "test_vheat",
        pretrained=True,
        pretrained_cfg_overlay={"file": str(path), "num_classes": 10},
        dim=8,
        depths=(1, 1, 2, 1),
        num_classes=10,
        img_size=96,
    )
    assert torch.equal(bias(model), official["classifier.3.bias"])
    assert model.stages[0].freq_embed.shape == (24, 24, 8)


def without(state, key):
    return {k: v for k, v in state.items() if k != key}


BAD = {
    "missing key": (lambda s: without(s, "classifier.0.bias"), "1 of 115 keys are missing: norm.bias"),
    "unknown key": (lambda s: {**s, "layers.9.1.op.x": torch.zeros(1)}, "1 keys that this model does not have"),
    "wrong size": (
        lambda s: {**s, "classifier.0.bias": torch.zeros(3)},
        r"wrong size: norm.bias is \(3,\) in the file, \(64,\)",
    ),
    "other classes": (
        lambda s: {**s, "classifier.3.bias": torch.zeros(3), "classifier.3.weight": torch.zeros(3, 64)},
        "build the model with the file's num_classes",
    ),
    "no tensors": (lambda s: {"epoch": 1}, "holds no tensors"),
    "a list": (lambda s: [1, 2], "holds a list, not a state dict"),
}


@pytest.mark.parametrize("case", BAD)
def test_wrong_content_is_one_line(official, tmp_path, case):
    change, message = BAD[case]
    path = tmp_path / "bad.pth"
    torch.save(change(dict(official)), path)
    with pytest.raises(UserError, match=message) as caught:
        load_checkpoint(micro(), path)
    assert "\n" not in str(caught.value)
    assert "bad.pth" in str(caught.value)


def test_wrong_files_are_one_line(tmp_path, data):
    garbage = tmp_path / "garbage.pth"
    garbage.write_bytes(b"not a checkpoint at all")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"\xff" * 64)
    for path, message in (
        (tmp_path / "absent.pth", "no such file"),
        (tmp_path, "is a folder, not a file"),
        (garbage, "not a readable checkpoint"),
        (broken, "not a readable checkpoint"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            load_checkpoint(micro(), path)
        assert "\n" not in str(caught.value)
    weights = data / "micro_prenorm.weights.safetensors"
    with pytest.raises(UserError, match="no 'model_ema'"):
        load_checkpoint(micro(), weights, weights="model_ema")
    with pytest.raises(UserError, match="'model' or 'model_ema', not 'ema'"):
        load_checkpoint(micro(), weights, weights="ema")
    with pytest.raises(UserError, match="load the weights first"):
        load_checkpoint(micro().deploy(), weights)
