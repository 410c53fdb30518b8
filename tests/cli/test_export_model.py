"""``export-model``: what it writes runs and computes what the model does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import onnx
import onnxruntime
import openvino
import pytest
import torch
from safetensors.torch import save_file

from support.command import Called, assert_refused
from vheatbench.case import Case
from vheatbench.subjects.catalog import build

TINY = "support.engine_models:tiny"


def expected(subject: str, x: torch.Tensor, size: int) -> torch.Tensor:
    with torch.no_grad():
        return build(Case(subject=subject, resolution=size)).model.eval()(x)


def test_an_onnx_file_runs(call: Callable[..., Called], tmp_path: Path) -> None:
    target = tmp_path / "m.onnx"
    code, out, err = call("export-model", "--model", TINY, "--resolution", "16x24", "--batch", 2, "-o", target)
    assert code == 0, err
    assert out == f"{target}\n"
    assert "run by ONNX Runtime" in err
    session = onnxruntime.InferenceSession(str(target))
    x = torch.randn(2, 3, 16, 24)
    (output,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(output), expected(TINY, x, 16), rtol=1e-4, atol=1e-5)


def test_an_openvino_file_runs_and_stands_in_two_parts(call: Callable[..., Called], tmp_path: Path) -> None:
    target = tmp_path / "m.xml"
    code, out, err = call("export-model", "--model", "test_vheat", "--resolution", 64, "-o", target, "--json")
    assert code == 0, err
    told = json.loads(out)
    assert told["files"] == [str(target), str(tmp_path / "m.bin")]
    assert told["form"] == "deploy form"
    assert told["error"] < 1e-4
    compiled = openvino.Core().compile_model(target, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    x = torch.randn(1, 3, 64, 64)
    output = torch.from_numpy(compiled([x.numpy()])[0].copy())
    torch.testing.assert_close(output, expected("test_vheat", x, 64), rtol=1e-4, atol=1e-5)


def test_weights_of_a_file_are_in_it(call: Callable[..., Called], tmp_path: Path) -> None:
    model = build(Case(subject=TINY, resolution=16)).model
    with torch.no_grad():
        model.head.bias.fill_(7.25)
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    target = tmp_path / "m.onnx"
    code, _, err = call(
        "export-model", "--model", TINY, "--resolution", 16, "-o", target, "--weights", tmp_path / "w.safetensors"
    )
    assert code == 0, err
    assert "w.safetensors" in err
    (bias,) = (one for one in onnx.load(target).graph.initializer if one.name == "head.bias")
    assert onnx.numpy_helper.to_array(bias).tolist() == [7.25] * 5


def test_what_computes_something_else_is_not_kept(call: Callable[..., Called], tmp_path: Path) -> None:
    target = tmp_path / "m.onnx"
    code, out, err = call("export-model", "--model", "support.engine_models:noisy", "--resolution", 16, "-o", target)
    assert (code, out) == (6, "")
    assert "away from the model" in err
    assert list(tmp_path.iterdir()) == []


def test_what_does_not_export_says_why(call: Callable[..., Called], tmp_path: Path) -> None:
    target = tmp_path / "m.onnx"
    code, _, err = call("export-model", "--model", "support.engine_models:undecided", "--resolution", 16, "-o", target)
    assert code == 6
    assert "data-dependent" in err.splitlines()[-1]
    assert not target.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-o", "m.pt"], "the name must end in .onnx, or in .xml for OpenVINO"),
        (["-o", "there.onnx"], "exists already: add --force"),
        (["-o", "none/m.onnx"], "there is no folder none"),
        (["--model", "op/heat"], "is no model"),
        (["--dtype", "float16"], "--dtype 'float16' is not allowed"),
    ],
)
def test_refused(
    call: Callable[..., Called], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.onnx").write_bytes(b"kept")
    called = call("export-model", *arguments)
    assert_refused(called, words)
    assert (tmp_path / "there.onnx").read_bytes() == b"kept"
