"""A batch that goes through the early stages a few images at a time, on a CPU without gradients."""

from __future__ import annotations

import pytest
import torch

from vheatbench.subjects import batch_parts, onednn, vheat
from vheatbench.subjects.official import OfficialVHeat
from vheatbench.subjects.vheat import VHeat

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(not onednn.works(torch.float32), reason="no oneDNN in this torch"),
]
MAP_BYTES = 16 * 16 * 8 * 4
"""Of one image's map in the first stage of :func:`model`; the second stage's has half, the stem's first one twice."""


@pytest.fixture
def model() -> VHeat:
    torch.manual_seed(0)
    return VHeat(img_size=64, dim=8, depths=(1, 2), num_classes=5).eval()


def batches_seen(model: VHeat, x: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[int]]:
    """Images per call of every module, without a hook, which would keep the batch whole."""
    seen: dict[str, list[int]] = {}
    for name, module in (("stem", model.stem), ("0", model.stages[0]), ("1", model.stages[1])):
        kept = module.forward
        monkeypatch.setattr(
            module, "forward", lambda x, n=name, f=kept: (seen.setdefault(n, []).append(len(x)), f(x))[1]
        )
    with torch.no_grad():
        model(x)
    monkeypatch.undo()
    return seen


@pytest.mark.parametrize("deployed", [False, True])
@pytest.mark.parametrize("images", [0.1, 1, 2, 3, 100])
def test_the_result_is_that_of_the_whole_batch(deployed, images, model, monkeypatch):
    if deployed:
        model.deploy()
    x = torch.randn(5, 3, 64, 64)
    with torch.no_grad():
        monkeypatch.setattr(batch_parts, "PART_BYTES", 2**40)
        expected = model(x)
        monkeypatch.setattr(batch_parts, "PART_BYTES", images * MAP_BYTES)
        torch.testing.assert_close(model(x), expected, rtol=1e-5, atol=1e-5)


def test_every_stage_works_on_as_many_images_as_fit(model, monkeypatch):
    monkeypatch.setattr(batch_parts, "PART_BYTES", 2 * MAP_BYTES)
    seen = batches_seen(model, torch.randn(5, 3, 64, 64), monkeypatch)
    assert seen == {"stem": [1, 1, 1, 1, 1], "0": [2, 2, 1], "1": [4, 1]}


def test_a_large_batch_of_small_maps_stays_whole(model, monkeypatch):
    assert batches_seen(model, torch.randn(5, 3, 64, 64), monkeypatch) == {"stem": [5], "0": [5], "1": [5]}


def test_who_listens_hears_the_whole_batch(model, monkeypatch):
    monkeypatch.setattr(batch_parts, "PART_BYTES", 1)
    heard: list[int] = []
    model.stages[0].blocks[0].mlp.register_forward_hook(lambda module, args, out: heard.append(len(out)))
    with torch.no_grad():
        model(torch.randn(3, 3, 64, 64))
    assert heard == [3]


def test_with_gradients_and_in_the_official_formulation_the_batch_stays_whole(model, monkeypatch):
    monkeypatch.setattr(batch_parts, "PART_BYTES", 1)
    called: list[int] = []
    kept = vheat.by_parts
    monkeypatch.setattr(vheat, "by_parts", lambda *a: (called.append(1), kept(*a))[1])
    x = torch.randn(2, 3, 64, 64)
    model(x)
    with torch.no_grad():
        OfficialVHeat(img_size=64, dim=8, depths=(1, 2), num_classes=5).eval()(x)
        assert not called
        model(x)
    assert called
