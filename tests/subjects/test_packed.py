"""Packed copies of weights: the same results, made once, and never stale."""

from __future__ import annotations

import copy
import gc
import io
import weakref

import pytest
import torch
from torch import nn

from vheatbench.subjects import fused, onednn, packed
from vheatbench.subjects.official import OfficialVHeat
from vheatbench.subjects.vheat import VHeat

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(not onednn.packs(torch.float32), reason="no packed weights in this torch"),
]


def settled(layer: nn.Module) -> nn.Module:
    packed.settle(layer)
    return layer.requires_grad_(False)


@pytest.fixture
def packings(monkeypatch) -> list[int]:
    """How often a weight was packed."""
    for dtype in (torch.float32, torch.bfloat16):
        onednn.packs(dtype)  # what it tries out first does not count
    calls: list[int] = []
    for name in ("pack", "pack_convolution"):
        function = getattr(onednn, name)
        monkeypatch.setattr(onednn, name, lambda *a, f=function: (calls.append(1), f(*a))[1])
    return calls


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [(0, None), (0, 24), (24, None)])
def test_products_with_a_packed_weight(dtype, rows, packings):
    if not onednn.packs(dtype):
        pytest.skip("this processor has no products in bfloat16")
    layer = settled(nn.Linear(40, 48)).to(dtype)
    tolerance = 2e-2 if dtype == torch.bfloat16 else 1e-5
    x = torch.randn(3, 7, 40).to(dtype)
    expected = layer(x)[..., rows[0] : rows[1]]
    for _ in range(2):
        out = fused.linear(x, layer, start=rows[0], stop=rows[1])
        torch.testing.assert_close(out, expected, rtol=tolerance, atol=tolerance)
    assert len(packings) == 1


@pytest.mark.parametrize("layer", [
    nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False),
])  # fmt: skip
def test_convolutions_with_a_packed_weight(layer, packings):
    layer = settled(copy.deepcopy(layer))
    x = torch.randn(2, layer.in_channels, 10, 12).contiguous(memory_format=torch.channels_last)
    for _ in range(2):
        torch.testing.assert_close(fused.convolution(x, layer), layer(x), rtol=1e-5, atol=1e-5)
    assert len(packings) == 1


def test_what_has_not_settled_is_not_packed(packings):
    fused.linear(torch.randn(4, 8), nn.Linear(8, 8).requires_grad_(False))
    fused.convolution(torch.randn(1, 8, 4, 4), nn.Conv2d(8, 8, 3).requires_grad_(False))
    assert not packings


def changed_in_place(layer: nn.Linear) -> None:
    layer.weight.mul_(2)


def loaded(layer: nn.Linear) -> None:
    layer.load_state_dict({"weight": torch.randn_like(layer.weight), "bias": layer.bias.clone()})


def exchanged(layer: nn.Linear) -> None:
    layer.weight = nn.Parameter(torch.randn_like(layer.weight), requires_grad=False)


def other_data(layer: nn.Linear) -> None:
    layer.weight.data = torch.randn_like(layer.weight)


def there_and_back(layer: nn.Linear) -> None:
    layer.to(torch.bfloat16).to(torch.float32)


@pytest.mark.parametrize("change", [changed_in_place, loaded, exchanged, other_data, there_and_back])
def test_a_changed_weight_is_packed_anew(change, packings):
    layer, x = settled(nn.Linear(32, 32)), torch.randn(4, 32)
    fused.linear(x, layer)
    change(layer)
    torch.testing.assert_close(fused.linear(x, layer), layer(x), rtol=1e-5, atol=1e-5)
    assert len(packings) == 2


def test_copies_live_as_long_as_their_layer():
    layer = settled(nn.Linear(8, 8))
    fused.linear(torch.randn(4, 8), layer)
    copies = weakref.ref(packed._copies[layer][0, 8].packed)
    assert copies() is not None
    del layer
    gc.collect()
    assert copies() is None


def test_a_deployed_model_packs_its_layers_once_and_can_be_copied_and_saved(packings):
    torch.manual_seed(0)
    model = VHeat(img_size=64, dim=8, depths=(1, 2), num_classes=5).deploy()
    names, x = set(model.state_dict()), torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        expected = model(x)
        first = len(packings)
        assert first == 3 + 3 * (1 + 1 + 1 + 2)  # stem and downsampling; blocks, times dwconv, projection, out and MLP
        assert torch.equal(model(x), expected)
    assert len(packings) == first
    assert set(model.state_dict()) == names
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    for again in (copy.deepcopy(model), torch.load(buffer, weights_only=False)):
        with torch.no_grad():
            torch.testing.assert_close(again(x), expected, rtol=1e-5, atol=1e-5)
    assert len(packings) == 3 * first


def test_the_official_formulation_packs_nothing(packings):
    model = OfficialVHeat(img_size=64, dim=8, depths=(1, 2), num_classes=5).deploy()
    with torch.inference_mode():
        model(torch.randn(1, 3, 64, 64))
    assert not packings


def test_a_model_deployed_without_packs_nothing(packings):
    model = VHeat(img_size=64, dim=8, depths=(1, 2), num_classes=5).deploy(pack=False)
    with torch.inference_mode():
        model(torch.randn(1, 3, 64, 64))
    assert not packings
