"""What models return beside a tensor: which of it are the logits, what is trained, what is checked."""

from __future__ import annotations

import sys
import types
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from vheatbench.case import Case
from vheatbench.cli import app
from vheatbench.measure.flops import count_flops, count_with_fvcore
from vheatbench.measure.outputs import check_finite, logits_of, loss_note, tensors_of, training_loss
from vheatbench.run.inspect import _model_cost
from vheatbench.run.measure_case import measure_case
from vheatbench.run.task import MeasureTask
from vheatbench.store.read import read_run
from vheatbench.studies.erf.features import read_features
from vheatbench.subjects.built import Built
from vheatbench.suites import SuitePolicy

A, B, C = torch.zeros(2, 5), torch.ones(2, 5), torch.full((2, 7), 2.0)


@dataclass
class Data:
    hidden: Tensor
    logits: Tensor


@dataclass
class ModelOutput(OrderedDict):  # type: ignore[type-arg]
    """As Hugging Face's: a dataclass and a dict of those of its fields that are not None."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("loss", "logits", "hidden_states"):
            if getattr(self, name) is not None:
                self[name] = getattr(self, name)


GoogLeNetOutputs = namedtuple("GoogLeNetOutputs", ("logits", "aux_logits2", "aux_logits1"))

OUTPUTS = {
    "tensor": (A, [""], A, None),
    "dict": ({"aux": B, "out": A}, ["aux", "out"], A, "sum over the outputs 'out', 'aux'"),
    "logits before out": ({"out": B, "logits": A}, ["out", "logits"], A, "'logits', 'out'"),
    "tuple": ((A, B), ["0", "1"], A, "'0', '1'"),
    "list in a tuple": (([A], C, None, 3), ["0.0", "1"], A, "that of '0.0' alone"),
    "dataclass": (Data(C, A), ["hidden", "logits"], A, "that of 'logits' alone"),
    "Hugging Face": (ModelOutput(logits=A, hidden_states=(C, C)), None, A, "of 'logits' alone"),
    "named tuple": (GoogLeNetOutputs(A, B, None), ["logits", "aux_logits2"], A, "'logits', 'aux_logits2'"),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_logits_are_taken_by_one_rule(name: str) -> None:
    output, paths, logits, note = OUTPUTS[name]
    assert paths is None or list(tensors_of(output)) == paths
    assert logits_of(output) is logits
    said = loss_note(output)
    assert (said is None) == (note is None)
    assert note is None or note in str(said)
    # the mean of A is 0, of B 1; C is of another shape
    summed = 1.0 if note and "sum over" in str(said) else 0.0
    assert float(training_loss(output, torch.mean)) == summed


def test_nothing_to_take() -> None:
    for output in (None, {}, [], "text", {"a": (1, None)}):
        with pytest.raises(ValueError, match="nothing that holds a tensor"):
            logits_of(output)


def test_a_nan_is_found_wherever_it_is() -> None:
    bad = torch.tensor([1.0, float("nan")])
    check_finite({"out": A, "deep": [B, (C,)]})
    for output, words in (
        (bad, "the output is not finite in x"),
        ({"out": A, "aux": bad}, "the output 'aux' is not finite in x"),
        ((A, [B, (bad,)]), "the output '1.1.0' is not finite in x"),
        (Data(bad, A), "the output 'hidden' is not finite in x"),
    ):
        with pytest.raises(FloatingPointError, match=words):
            check_finite(output, " in x")


class Model(nn.Module):
    """Packs the logits of two heads and a map; ``broken`` puts a NaN into the second head's."""

    def __init__(self, kind: str = "tuple", broken: bool = False) -> None:
        super().__init__()
        self.kind, self.broken = kind, broken
        self.stem = nn.Conv2d(3, 8, 16, 16)
        self.main, self.side = nn.Linear(8, 3), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> object:
        features = self.stem(x)
        pooled = features.mean((2, 3))
        main, side = self.main(pooled), self.side(pooled)
        if self.broken:
            side = side / 0
        if self.kind == "dict":
            return {"aux": side, "out": main}
        if self.kind == "data":
            return ModelOutput(logits=main, hidden_states=(features, side))
        return main, side


@pytest.mark.parametrize("kind", ["tuple", "dict", "data"])
def test_counts_do_not_depend_on_the_packing(kind: str) -> None:
    images = torch.zeros(2, 3, 32, 32)
    model = Model(kind)
    macs = 2 * (4 * 3 * 256 * 8 + 2 * 8 * 3)
    assert count_flops(lambda: model(images)).macs == macs
    assert count_with_fvcore(model, images).products == pytest.approx(macs)
    case = Case(subject="m:m", resolution=(32, 32), batch=2, mode="train")
    expected, held = _model_cost(case, Built(Model().to("meta"), (3, 32, 32)), 2)
    assert _model_cost(case, Built(model.to("meta"), (3, 32, 32)), 2)[0] == expected == 3 * macs
    assert held > 0


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory, and the models in a module; ``measure_case`` may set no limits in the tests' process."""
    module = types.ModuleType("packed_models")
    module.tuple_, module.dict_, module.hugging = Model, partial(Model, "dict"), partial(Model, "data")  # type: ignore[attr-defined]
    module.broken = partial(Model, "dict", True)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "packed_models", module)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("resource.setrlimit", lambda *_: None)
    return tmp_path


def measured(model: str, mode: str):
    case = Case(subject=f"packed_models:{model}", resolution=(32, 32), batch=2, mode=mode)
    policy = SuitePolicy(min_samples=3, ceiling_s=0.2, warmup_ceiling_s=0.01, fvcore=True)
    return measure_case(MeasureTask(case=case, round=0, policy=policy))


@pytest.mark.parametrize("mode", ["infer", "train"])
@pytest.mark.parametrize(
    ("model", "said"), [("tuple_", "'0', '1'"), ("dict_", "'out', 'aux'"), ("hugging", "'logits'")]
)
def test_every_mode_measures_them(folder: Path, model: str, said: str, mode: str) -> None:
    record = measured(model, mode)
    assert record.status == "ok", record.reason
    assert record.metrics["latency_s"].value > 0
    memory = record.metrics["peak_memory_bytes"]
    # in the process of all tests a step may find room enough that others have left
    assert memory.value is not None or "resident before it" in str(memory.unavailable)
    assert any(said in warning for warning in record.warnings if "loss" in warning) == (mode == "train")


@pytest.mark.parametrize("mode", ["infer", "train"])
def test_a_nan_beside_the_logits_fails_the_case(folder: Path, mode: str) -> None:
    record = measured("broken", mode)
    assert record.status == "failed"
    assert "FloatingPointError: the output 'aux' is not finite" in str(record.reason)


def test_layers_that_give_several_tensors_are_maps(folder: Path) -> None:
    class Stage(nn.Module):
        def __init__(self, pack: Callable[[Tensor], object]) -> None:
            super().__init__()
            self.pack, self.conv = pack, nn.Conv2d(3, 5, 16, 16)

        def forward(self, x: Tensor) -> object:
            return self.pack(self.conv(x))

    for pack in (lambda x: x, lambda x: (x, None), lambda x: {"last": x}, lambda x: Data(x, x)):
        model = nn.Sequential(Stage(pack), nn.Identity())
        (found,) = read_features(model, torch.zeros(1, 3, 64, 32), [("0", None)])
        assert found.shape == (1, 5, 4, 2)


@pytest.mark.parametrize("model", ["tuple_", "dict_", "hugging"])
def test_an_evaluation_takes_the_same_logits(folder: Path, model: str, in_process: None) -> None:
    from PIL import Image

    draw = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        (folder / "data" / name).mkdir(parents=True)
        Image.fromarray(draw.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(folder / "data" / name / "0.png")
    words = ["eval", "--model", f"packed_models:{model}", "--data", "data", "--resolution", "32", "--quiet"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    (record,) = read_run(Path(done.stderr.strip().splitlines()[-1])).records
    assert record.status == "ok"
    assert record.metrics["top1_accuracy"].value is not None
    done = CliRunner().invoke(app, [word.replace(model, "broken") for word in words])
    assert "the output 'aux' is not finite" in done.output
