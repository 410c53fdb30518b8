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
    assert "set 'model_ema'" in str(loaded)


WRAPPED = (
    "module._orig_mod.",
    "_orig_mod.module.",
    "model.",
    "backbone.",
    "encoder.",
    "model.backbone.module.",
    "anything._orig_mod.",
)


@pytest.mark.parametrize("prefix", WRAPPED)
def test_prefixes_of_wrappers_are_taken_off_in_any_order(official, tmp_path, prefix):
    """For our models and timm's, whose hook must see the names without them, at another size too."""
    torch.save({"state_dict": {prefix + key: value for key, value in official.items()}}, tmp_path / "vheat.pth")
    model = micro(img_size=96)
    loaded = load_checkpoint(model, tmp_path / "vheat.pth")
    assert torch.equal(bias(model), official["classifier.3.bias"])
    assert loaded.resized["stages.0.freq_embed"] == "16x16 -> 24x24 (bicubic)"
    source = timm.create_model("test_vit", num_classes=3)
    torch.save({prefix + key: value for key, value in source.state_dict().items()}, tmp_path / "vit.pth")
    model = timm.create_model("test_vit", num_classes=3, img_size=96)
    load_checkpoint(model, tmp_path / "vit.pth")
    assert torch.equal(model.head.weight, source.head.weight)


class Classifier(torch.nn.Module):
    """A model whose own names begin as wrappers' do."""

    def __init__(self):
        super().__init__()
        self.backbone = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 16, 16), torch.nn.BatchNorm2d(8))
        self.head = torch.nn.Linear(8, 4)


@pytest.mark.parametrize("prefix", ["", "model.", "module.model._orig_mod.", "backbone."])
def test_names_of_the_model_itself_that_look_like_a_wrapper_stay(tmp_path, prefix):
    source, model = Classifier(), Classifier()
    torch.save({prefix + key: value for key, value in source.state_dict().items()}, tmp_path / "own.pth")
    load_checkpoint(model, tmp_path / "own.pth")
    assert all(
        torch.equal(a, b) for a, b in zip(source.state_dict().values(), model.state_dict().values(), strict=True)
    )


def test_only_some_names_are_wrapped(official, tmp_path):
    """As where the backbone is a module of its own and the head stands beside it; or parts were wrapped alone."""
    heads = ("classifier.", "patch_embed.")
    torch.save(
        {f"module.{'' if key.startswith(heads) else 'backbone._orig_mod.'}{key}": v for key, v in official.items()},
        tmp_path / "parts.pth",
    )
    model = micro()
    load_checkpoint(model, tmp_path / "parts.pth")
    assert torch.equal(bias(model), official["classifier.3.bias"])
    inside = {key.replace("layers.0.1.", "layers.0.1._checkpoint_wrapped_module."): v for key, v in official.items()}
    torch.save(inside, tmp_path / "inside.pth")
    load_checkpoint(micro(), tmp_path / "inside.pth")


def test_where_nothing_fits_names_of_both_are_shown(tmp_path):
    """Two networks in one file, none of which is the one that is meant; and another model's file."""
    state = Classifier().state_dict()
    torch.save({f"{who}.{key}": v for who in ("student", "teacher") for key, v in state.items()}, tmp_path / "two.pth")
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "other.pth")
    for file, theirs in (("two.pth", "student.backbone.0.weight"), ("other.pth", "conv1.weight")):
        with pytest.raises(UserError, match=f"such as backbone.0.weight.* none is in the file, which has {theirs}"):
            load_checkpoint(Classifier(), tmp_path / file)
    partly = {f"model.{key}": v for key, v in state.items() if "head" not in key} | {
        "model.fc.weight": torch.zeros(4, 8)
    }
    torch.save(partly, tmp_path / "partly.pth")
    with pytest.raises(UserError, match=r"2 of 9 keys are missing: head.weight, head.bias; the file has fc.weight"):
        load_checkpoint(Classifier(), tmp_path / "partly.pth")


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
        "its head has 3 classes, the model's 10: build the model with num_classes=3",
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
