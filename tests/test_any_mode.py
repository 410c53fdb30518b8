"""What README and docs show works in any autograd mode, and leaves the model as it was."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn

from vheatbench import load_checkpoint
from vheatbench.measure.flops import count_flops, count_with_fvcore
from vheatbench.measure.fvcore_rules import count_by_rules
from vheatbench.measure.memory import host_baseline, measure_memory
from vheatbench.measure.stopping import Policy
from vheatbench.measure.timing import CpuTimer, measure_time
from vheatbench.studies.profile.shares import flops_by_place
from vheatbench.subjects import onednn, products

MODES: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "grad": torch.enable_grad,
    "no_grad": torch.no_grad,
    "inference": torch.inference_mode,
}


class Pool(nn.Module):
    """Pools by attention with a learned query: a view of a parameter is the input of a module."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 16, 16)
        self.query = nn.Parameter(torch.zeros(1, 1, 8))
        self.project, self.norm = nn.Linear(8, 8), nn.BatchNorm2d(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.norm(self.stem(x)).flatten(2).transpose(1, 2)
        query = self.project(self.query.expand(len(x), -1, -1))
        return torch.nn.functional.scaled_dot_product_attention(query, tokens, tokens)


def build(name: str) -> nn.Module:
    torch.manual_seed(0)
    return Pool() if name == "pool" else timm.create_model(name, img_size=64, num_classes=5)


def state_of(model: nn.Module) -> list[Any]:
    """All that measuring must leave alone."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return [
        [(name, module.training, len(module._forward_hooks), len(module._forward_pre_hooks))
         for name, module in model.named_modules()],
        [(name, t.requires_grad, t.dtype, t.device, t.is_inference(), None if t.is_meta else t.sum().item())
         for name, t in tensors],
    ]  # fmt: skip


@pytest.mark.parametrize("device", ["meta", "cpu"])
@pytest.mark.parametrize("name", ["test_vheat", "pool"])
def test_counting(name: str, device: str) -> None:
    model = build(name).to(device).eval()
    next(model.children()).train()
    before = state_of(model)
    found = []
    for mode in MODES.values():
        with mode():
            images = torch.zeros(1, 3, 64, 64, device=device)
            counts = count_flops(lambda: model(images))  # noqa: B023
            places = flops_by_place(model, lambda: model(images))  # noqa: B023
            rules = count_by_rules(model, lambda: model(images))  # noqa: B023
        assert counts.flops == sum(places.values()) > 0
        assert rules.extra
        found.append((counts.flops, rules.macs_fvcore))
    assert found[0] == found[1] == found[2]
    assert state_of(model) == before


@pytest.mark.parametrize("mode", MODES)
def test_fvcore_leaves_each_module_in_its_mode(mode: str) -> None:
    model = build("pool").train()
    model.project.eval()
    before = state_of(model)
    with MODES[mode]():
        macs = count_with_fvcore(model, torch.zeros(1, 3, 64, 64)).products
    assert macs == 3 * 256 * 8 * 16 + 8 * 8 + 2 * 16 * 8
    assert state_of(model) == before


def test_the_first_call_costs_what_every_call_costs() -> None:
    """What a model tries out once is not its own work."""
    model = build("test_vheat").eval()
    images = torch.zeros(1, 3, 64, 64)
    onednn.works.cache_clear()
    products.forget()
    with torch.no_grad():
        assert count_flops(lambda: model(images)).flops == count_flops(lambda: model(images)).flops


@pytest.mark.parametrize("mode", MODES)
def test_measuring(mode: str) -> None:
    model = build("test_vheat").eval()
    before = state_of(model)
    with MODES[mode]():
        images = torch.zeros(1, 3, 64, 64)
        timing = measure_time(lambda: model(images), CpuTimer(), Policy(min_samples=3, ceiling_s=0.1))
        metrics = measure_memory(
            lambda: model(images), torch.device("cpu"), weights_bytes=1, input_bytes=1, baseline=host_baseline()
        )
    assert len(timing.host_s) >= 3
    assert metrics["peak_allocated_bytes"].value
    assert state_of(model) == before


def trains(model: nn.Module, size: int) -> bool:
    model.train()
    model(torch.randn(2, 3, size, size)).square().sum().backward()
    return all(p.grad is not None for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("mode", MODES)
def test_a_model_can_be_trained_after_whatever_was_done_to_it(mode: str, tmp_path: Path) -> None:
    """Nothing that is kept, in the model or for the process, may be an inference tensor."""
    model = build("test_vheat")
    torch.save(model.state_dict(), tmp_path / "w.pth")
    with MODES[mode]():
        model(torch.randn(1, 3, 96, 160))
        load_checkpoint(model, tmp_path / "w.pth")
        model.to("cpu").float()
    assert trains(model, 64)
    assert trains(model, 96)
    frozen = copy.deepcopy(model).requires_grad_(False)
    with MODES[mode]():
        model.set_input_size(128)
        frozen.set_input_size(128)
    assert trains(model, 128)
    assert not any(p.requires_grad for p in frozen.parameters())


@pytest.mark.parametrize("device", ["meta", "cpu"])
@pytest.mark.parametrize("mode", MODES)
def test_a_deployed_model_gives_gradients_of_the_image(mode: str, device: str) -> None:
    model = build("test_vheat").to(device)
    with MODES[mode]():
        model.deploy(96)
        model(torch.zeros(1, 3, 96, 96, device=device))
    images = torch.zeros(1, 3, 96, 96, device=device, requires_grad=True)
    model(images).sum().backward()
    assert images.grad is not None
    assert images.grad.shape == images.shape
