"""One case from Python: what the record holds, and that a live module is put back as it was."""

from __future__ import annotations

import copy
import random

import numpy as np
import pytest
import timm
import torch
from torch import nn

import vheatbench as vb
import vheatbench.subjects
from vheatbench.case import Case
from vheatbench.subjects.catalog import build

SHAPE = (2, 3, 32, 32)
QUICK = {"seconds": 0.01}


class Small(nn.Module):
    """With all that a measurement could change: buffers, modes of its parts, a frozen weight, dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 4, stride=4)
        self.norm = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(8, 5)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.head(self.drop(self.norm(self.conv(x))).mean((2, 3)))


def touched() -> Small:
    """In the middle of a training: gradients are there, one weight is frozen, the norm is in evaluation mode."""
    torch.manual_seed(0)
    model = Small()
    model(torch.randn(*SHAPE)).sum().backward()
    model.norm.eval()
    model.head.bias.requires_grad_(False)
    return model


def state(model: nn.Module) -> dict[str, object]:
    return {
        "modes": [module.training for module in model.modules()],
        "values": {name: tensor.clone() for name, tensor in model.state_dict().items()},
        "places": [(id(p), p.data_ptr(), p.dtype, p.requires_grad) for p in model.parameters()],
        "buffers": [(id(b), b.data_ptr(), b.dtype) for b in model.buffers()],
        "gradients": [None if p.grad is None else (id(p.grad), p.grad.clone()) for p in model.parameters()],
    }


def alike(one: object, other: object) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(alike(one[k], other[k]) for k in one)
    if isinstance(one, (list, tuple)):
        return isinstance(other, (list, tuple)) and len(one) == len(other) and all(map(alike, one, other))
    return one == other


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"mode": "forward"},
        {"mode": "forward_backward"},
        {"mode": "train"},
        {"dtype": "bfloat16"},
        {"memory_format": "channels_last"},
    ],
    ids=str,
)
def test_a_live_module_is_put_back_as_it_was(how):
    model = touched()
    before, draws = state(model), (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist())
    threads, flags = torch.get_num_threads(), torch.backends.cudnn.benchmark
    record = vb.measure(model, SHAPE, threads=1, memory=False, **how, **QUICK)
    assert record.status == "ok", record.reason
    assert alike(before, state(model))
    assert torch.equal(draws[0], torch.get_rng_state())
    assert draws[1:] == (random.getstate(), np.random.get_state()[1].tolist())
    assert (threads, flags) == (torch.get_num_threads(), torch.backends.cudnn.benchmark)
    model.train()(torch.randn(*SHAPE)).sum().backward()  # nothing of inference mode is left in it


def test_it_is_put_back_where_it_fails_or_is_interrupted():
    class Failing(Small):
        error: BaseException = RuntimeError("no such luck")

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.conv.weight.data.zero_()
            raise self.error

    model = Failing()
    modes = [module.training for module in model.modules()]
    record = vb.measure(model, SHAPE, count=False, mode="train", **QUICK)
    assert (record.status, record.reason) == ("failed", "RuntimeError: no such luck")
    assert model.conv.weight.any()
    model.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        vb.measure(model, SHAPE, count=False, mode="train", **QUICK)
    assert model.conv.weight.any()
    assert [module.training for module in model.modules()] == modes


def test_a_live_vheat_can_be_trained_afterwards():
    model = timm.create_model("test_vheat", img_size=32)
    images = torch.randn(*SHAPE)
    before = model.eval()(images)
    vb.measure(model, images, memory=False, **QUICK)
    after = model(images)
    assert torch.equal(before, after)
    after.sum().backward()


def test_a_live_module_gets_the_very_tensor():
    seen: list[torch.Tensor] = []
    model = Small()
    model.register_forward_pre_hook(lambda module, args: seen.append(args[0].clone()))
    images = torch.randn(*SHAPE)
    record = vb.measure(model, images, count=False, memory=False, **QUICK)
    assert record.case.batch == 2
    assert all(torch.equal(one, images) for one in seen)


def test_a_live_module_and_a_name_count_alike():
    built = build(Case(subject="test_vit", resolution=(32, 32)))
    live = vb.measure(built.model, SHAPE, memory=False, name="test_vit", **QUICK)
    named = vb.measure("test_vit", SHAPE, memory=False, **QUICK)
    for name in ("macs", "params", "flops"):
        assert live.metrics[name].value == named.metrics[name].value, name
    assert live.case_id == named.case_id
    assert any("process" in text for text in live.warnings)
    assert not any("lives in" in text for text in named.warnings)
    assert named.elapsed_s > 0


def test_memory_of_a_live_module():
    model = Small()
    record = vb.measure(model, (4, 3, 64, 64), **QUICK)
    assert record.metrics["weights_bytes"].value == sum(
        t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers())
    )
    assert record.metrics["input_bytes"].value == 4 * 3 * 64 * 64 * 4
    assert record.metrics["activation_peak_bytes"].value >= 4 * 8 * 16 * 16 * 4


def test_its_own_type_is_the_default():
    record = vb.measure(Small().bfloat16(), SHAPE, memory=False, count=False, **QUICK)
    assert record.case.dtype == "bfloat16"
    assert record.subject["precision"] == "weights and input in bfloat16"


def test_an_operator_by_name():
    record = vb.measure("op/heat", (2, 8, 7, 7), memory=False, **QUICK)
    assert (record.case.channels, record.case.resolution, record.status) == (8, (7, 7), "ok")


def test_grey_images_of_a_name():
    record = vb.measure("test_vit", (1, 1, 32, 32), memory=False, **QUICK)
    assert record.case.options == {"in_chans": 1}
    assert record.status == "ok"


def test_a_record_prints_what_it_holds():
    record = vb.measure(Small(), SHAPE, memory=False, name="mine", **QUICK)
    lines = str(record).splitlines()
    assert lines[0] == "mine 32 b2 float32 infer: ok"
    assert {line.split()[0] for line in lines[1:]} >= {"latency_s", "macs", "params"}
    assert "<table>" in record._repr_html_()


def test_what_a_module_cannot_be_counted_by_is_a_warning():
    class Looking(Small):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) if float(x.sum()) < float("inf") else x

    record = vb.measure(Looking(), SHAPE, memory=False, **QUICK)
    assert record.status == "ok"
    assert "macs" not in record.metrics
    assert any("not counted" in text for text in record.warnings)


@pytest.mark.parametrize(
    ("model", "inputs", "how", "said"),
    [
        ("vheat-tt", SHAPE, {}, "did you mean"),
        ("test_vheat", (1, 3, 40, 40), {}, "32"),
        ("test_vit", torch.zeros(*SHAPE), {}, "give the shape"),
        ("test_vit", (1, 3, 32), {}, "batch, channels, height, width"),
        ("test_vit", (0, 3, 32, 32), {}, "batch, channels, height, width"),
        ("test_vit", (1, 3, 32, 32.0), {}, "batch, channels, height, width"),
        ("test_vit", SHAPE, {"mode": "fast"}, "mode"),
        ("test_vit", SHAPE, {"dtype": "tf32", "device": "cpu"}, "tf32"),
        ("test_vit", SHAPE, {"seconds": 0}, "ceiling_s"),
        ("test_vit", SHAPE, {"options": {"depth": object()}}, "options"),
        (Small(), ("largest", 3, 32, 32), {}, "names only"),
        (Small(), SHAPE, {"options": {"a": 1}}, "built already"),
        (Small().half(), SHAPE, {"mode": "train"}, "float32"),
        (Small().double(), SHAPE, {}, "float64"),
        (Small().to("meta"), SHAPE, {}, "meta"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_cannot_be_is_said(model, inputs, how, said):
    before = copy.deepcopy(how)
    with pytest.raises(vb.UserError, match=said):
        vb.measure(model, inputs, **how)
    assert {key: type(value) for key, value in how.items()} == {key: type(value) for key, value in before.items()}
