"""``vheatbench convert``: golden logits from the written file, what it says of itself, files left alone."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from typer.testing import CliRunner
from yacs.config import CfgNode

from support import forked
from support.eval_models import postnorm, prenorm
from vheatbench import load_checkpoint
from vheatbench.cli import app
from vheatbench.errors import UserError

pytestmark = pytest.mark.usefixtures("one_thread")

GOLDEN = {"support.eval_models:prenorm": "micro_prenorm", "support.eval_models:postnorm": "micro_postnorm_layerscale"}
BUILT = {"support.eval_models:prenorm": prenorm, "support.eval_models:postnorm": postnorm}


@pytest.fixture
def convert(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def call(*words: str | Path):
        return CliRunner().invoke(app, ["convert", *map(str, words)])

    return call


def metadata(path: str | Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return file.metadata()


def logits(model: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(x)


@pytest.mark.parametrize("rule", ["bicubic", "zeropad"])
@pytest.mark.parametrize("model", GOLDEN)
def test_logits_of_the_written_file_are_the_golden_ones(convert, data, model, rule):
    source = data / f"{GOLDEN[model]}.weights.safetensors"
    golden = load_file(data / f"{GOLDEN[model]}.activations.safetensors")
    done = convert(source, "-o", "out.safetensors", "--model", model, "--resolution", "96", "--rule", rule, "--json")
    assert done.exit_code == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["resized"]["stages.0.freq_embed"] == f"16x16 -> 24x24 ({rule})"
    built = BUILT[model](img_size=96)
    loaded = load_checkpoint(built, "out.safetensors")
    assert loaded.resized == {}
    assert loaded.sha256 == answer["sha256"]
    expected = golden[f"logits_96x96_{rule}"]
    assert (logits(built, golden["input_96x96"]) - expected).abs().max() / expected.abs().max() < 1e-5


def test_the_file_says_what_it_is(convert, data):
    source = data / "micro_prenorm.weights.safetensors"
    done = convert(source, "-o", "out.safetensors", "--model", "support.eval_models:prenorm", "--resolution", "64x96")
    assert done.exit_code == 0, done.stderr
    assert done.stdout == "out.safetensors\n"
    assert "resized stages.3.freq_embed: 2x2 -> 2x3 (bicubic)" in done.stderr
    found = metadata("out.safetensors")
    assert {key: found[key] for key in ("model", "resolution", "weights", "rule", "num_classes", "source")} == {
        "model": "support.eval_models:prenorm",
        "resolution": "64x96",
        "weights": "state_dict",
        "rule": "bicubic",
        "num_classes": "10",
        "source": "micro_prenorm.weights.safetensors",
    }
    assert len(found["source_sha256"]) == 64
    convert(source, "-o", "same.safetensors", "--model", "support.eval_models:prenorm", "--resolution", "64")
    assert metadata("same.safetensors")["rule"].startswith("none")


def test_sets_of_weights_and_a_pickled_configuration(convert, data):
    model = load_file(data / "micro_prenorm.weights.safetensors")
    ema = {key: value + 1 for key, value in model.items()}
    content = {"model": model, "model_ema": ema, "config": CfgNode({"NAME": "vheat"})}
    torch.save(content, "official.pth")
    common = ("official.pth", "--model", "support.eval_models:prenorm", "--resolution", "64", "--use")
    refused = convert(*common, "model")
    assert isinstance(refused.exception, UserError)
    assert "yacs.config.CfgNode" in str(refused.exception)
    assert "--trust-pickle" in str(refused.exception)
    assert list(Path().glob("*.safetensors")) == []
    for use, state in (("model", model), ("model_ema", ema)):
        done = convert(*common, use, "--trust-pickle", "-o", f"{use}.safetensors")
        assert done.exit_code == 0, done.stderr
        assert metadata(f"{use}.safetensors")["weights"] == use
        assert torch.equal(load_file(f"{use}.safetensors")["head.fc.bias"], state["classifier.3.bias"])
    torch.save({"model": model}, "one.pth")
    lacking = convert("one.pth", "--model", "support.eval_models:prenorm", "--resolution", "64", "--use", "model_ema")
    assert "holds model, no 'model_ema'" in str(lacking.exception)


def test_timm_reads_what_was_written(convert):
    model = timm.create_model("test_vheat", num_classes=7)
    torch.save(model.state_dict(), "mine.pth")
    done = convert("mine.pth", "--model", "test_vheat", "--num-classes", "7")
    assert done.stdout == "mine.safetensors\n", done.stderr
    overlay = {"file": "mine.safetensors", "num_classes": 7}
    again = timm.create_model("test_vheat", pretrained=True, pretrained_cfg_overlay=overlay, num_classes=7)
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(logits(again, x), logits(model, x))


def test_names_beside_the_checkpoint(convert):
    torch.save(timm.create_model("test_vheat").state_dict(), "mine.pth")
    square = convert("mine.pth", "--model", "test_vheat", "--resolution", "96", "--rule", "zeropad")
    assert square.stdout == "mine-96-zeropad.safetensors\n"
    oblong = convert("mine.pth", "--model", "test_vheat", "--resolution", "64x96")
    assert oblong.stdout == "mine-64x96-bicubic.safetensors\n"
    assert sorted(path.name for path in Path().iterdir()) == [
        "mine-64x96-bicubic.safetensors", "mine-96-zeropad.safetensors", "mine.pth",
    ]  # fmt: skip


def test_an_existing_file_is_kept_without_force(convert):
    torch.save(timm.create_model("test_vheat").state_dict(), "mine.pth")
    Path("mine.safetensors").write_text("precious")
    refused = convert("mine.pth", "--model", "test_vheat")
    assert "add --force" in str(refused.exception)
    assert Path("mine.safetensors").read_text() == "precious"
    assert convert("mine.pth", "--model", "test_vheat", "--force").exit_code == 0
    assert metadata("mine.safetensors")["model"] == "test_vheat"
    itself = convert("mine.safetensors", "--model", "test_vheat", "--force")
    assert "the checkpoint itself" in str(itself.exception)


def test_a_full_disk_keeps_the_file_before(convert, monkeypatch):
    torch.save(timm.create_model("test_vheat").state_dict(), "mine.pth")
    Path("mine.safetensors").write_text("precious")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    refused = convert("mine.pth", "--model", "test_vheat", "--force")
    assert "mine.safetensors: cannot be written (No space left on device)" in str(refused.exception)
    assert Path("mine.safetensors").read_text() == "precious"
    assert sorted(path.name for path in Path().iterdir()) == ["mine.pth", "mine.safetensors"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("none.pth --model test_vheat", "none.pth: no such file"),
        ("mine.pth --model test_vit", "not a vHeat"),
        ("mine.pth --model vheat-x", "unknown model"),
        ("mine.pth --model test_vheat --resolution 70", "divisible by 32"),
        ("mine.pth --model test_vheat --resolution big", "--resolution"),
        ("mine.pth --model test_vheat --rule nearest", "--rule 'nearest' is not allowed; allowed: bicubic, zeropad"),
        ("mine.pth --model test_vheat --use ema", "--use 'ema'"),
        ("mine.pth --model test_vheat --num-classes 5", "give --num-classes 1000"),
        ("mine.pth --model vheat-t", "126 of 241 keys are missing"),
        ("mine.pth --model test_vheat -o out.pth", "must end in .safetensors"),
        ("mine.pth --model test_vheat -o none/out.safetensors", "cannot be written (No such file or directory)"),
        ("garbage.pth --model test_vheat", "not a readable checkpoint"),
    ],
)
def test_bad_input_is_one_line(convert, words, message):
    torch.save(timm.create_model("test_vheat").state_dict(), "mine.pth")
    Path("garbage.pth").write_bytes(b"not a checkpoint")
    done = convert(*words.split())
    assert isinstance(done.exception, UserError), done.output
    assert message in str(done.exception)
    assert "\n" not in str(done.exception)
    assert list(Path().glob("**/*.safetensors")) == []


def test_the_command_as_a_process(tmp_path):
    torch.save(timm.create_model("test_vheat").state_dict(), tmp_path / "mine.pth")

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "vheatbench", "convert", "mine.pth", "--model", "test_vheat", *words]
        return forked.run(command, cwd=tmp_path, capture_output=True, text=True)

    done = run()
    assert (done.returncode, done.stdout) == (0, "mine.safetensors\n"), done.stderr
    refused = run()
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("vheatbench: mine.safetensors: exists already")
    assert refused.stderr.count("\n") == 1


def test_weights_that_are_not_finite_are_refused(convert, data):
    state = load_file(data / "micro_prenorm.weights.safetensors")
    next(value for value in state.values() if value.ndim > 1)[0, 0] = float("nan")
    torch.save(state, "nan.pth")
    done = convert("nan.pth", "-o", "out.safetensors", "--model", "support.eval_models:prenorm")
    assert isinstance(done.exception, UserError)
    assert "nan.pth: the weights are not finite, the training diverged: " in str(done.exception)
    assert not Path("out.safetensors").exists()


def test_the_default_resolution_is_that_of_the_users_function(convert, data):
    done = convert(
        data / "micro_prenorm.weights.safetensors", "-o", "o.safetensors", "--model", "support.eval_models:prenorm"
    )
    assert done.exit_code == 0, done.exception
    assert metadata("o.safetensors")["resolution"] == "64x64"
    assert metadata("o.safetensors")["rule"] == "none: embeddings as in the source"
