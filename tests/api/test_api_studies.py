"""Receptive fields and heat from Python: a live module gives what the name that it is built by gives."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import vheatbench as vb
from vheatbench.case import Case
from vheatbench.store.read import find_run, read_run
from vheatbench.studies.heat.results import diffusivities_of
from vheatbench.subjects.catalog import build

matplotlib.use("Agg")
FEW = {"max_images": 2}


def built(name: str = "test_vheat") -> nn.Module:
    """As a worker builds it: with the weights of seed 0."""
    return build(Case(subject=name, resolution=(32, 32), mode="erf")).model


@pytest.fixture(scope="module")
def named() -> object:
    return vb.erf("test_vheat", size=32, **FEW)


def test_a_live_module_has_the_field_of_its_name(named):
    model = built().train()
    model.stages[0].eval()
    modes = [module.training for module in model.modules()]
    live = vb.erf(model, size=32, **FEW)
    np.testing.assert_allclose(live.map, named.map, rtol=1e-5, atol=1e-9)
    assert (live.layer, live.centre, live.n_images) == (named.layer, named.centre, named.n_images)
    assert (live.a50, live.a99) == pytest.approx((named.a50, named.a99))
    assert 0 < live.a50 < live.a99 <= 1
    assert live.a50 == live.record.metrics["erf_a50"].value
    assert [module.training for module in model.modules()] == modes
    assert all(p.requires_grad and p.grad is None for p in model.parameters() if p.is_floating_point())
    assert (live.random, named.random) == (False, True)


def test_a_field_is_drawn_and_shown(named):
    ax = named.plot()
    assert ax.get_xlim() == (0, 32)
    own = matplotlib.figure.Figure().subplots()
    assert named.plot(own) is own
    assert "<img" in named._repr_html_()
    assert "A50" in repr(named)


def test_layers_and_pictures_of_a_live_module():
    model = built("test_vit")
    array = np.random.default_rng(0).integers(0, 255, (2, 40, 40, 3), dtype=np.uint8)
    first = vb.erf(model, array, layer=0, size=32, name="mine", **FEW)
    by_name = vb.erf(model, [Image.fromarray(one) for one in array], layer="blocks.0", size=32, name="mine", **FEW)
    np.testing.assert_array_equal(first.map, by_name.map)
    assert first.layer == "blocks.0"
    assert first.subject == "mine"
    assert first.record.case_id == by_name.record.case_id
    assert vb.erf(model, "noise", layer=0, size=32, name="mine", **FEW).record.case_id != first.record.case_id


def test_other_weights_are_another_case():
    model = built("test_vit")
    before = vb.erf(model, "noise", size=32, **FEW)
    with torch.no_grad():
        next(model.parameters()).add_(1)
    assert vb.erf(model, "noise", size=32, **FEW).weights != before.weights


def test_conduction_of_a_live_module():
    model = built()
    none = vb.erf(model, "noise", size=32, conduction=0, **FEW)
    much = vb.erf(model, "noise", size=32, conduction=5.0, **FEW)
    assert (none.conduction, much.conduction) == ("none", "5")
    assert not np.array_equal(none.map, much.map)


@pytest.mark.parametrize(
    ("model", "how", "said"),
    [
        ("vit-tt", {}, "vit-tt"),
        ("op/heat", {}, "no model"),
        ("test_vit", {"layer": "all"}, "one layer"),
        ("test_vit", {"images": [Image.new("RGB", (9, 9))]}, "no pictures"),
        ("live", {"layer": "blocks.99"}, "blocks.99"),
        ("live", {"images": np.zeros((1, 3, 32, 32), np.float32)}, "uint8"),
        ("live", {"images": []}, "images"),
        ("live", {"size": "big"}, "size"),
        ("live", {"weights": "a.pth"}, "load them"),
        ("live", {"conduction": 5.0}, "no heat conduction"),
    ],
    ids=[str(i) for i in range(10)],
)
def test_what_cannot_be_looked_at_is_said(model, how, said):
    with pytest.raises(vb.UserError, match=said):
        vb.erf(built("test_vit") if model == "live" else model, **{"size": 32, **how})


def test_what_a_live_module_raises_is_said():
    class Failing(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("no such luck")

    with pytest.raises(vb.UserError, match="no such luck"):
        vb.erf(Failing(), size=32)


def test_heat_of_a_live_module_is_that_of_its_name(tmp_path):
    model = built()
    live, named = vb.heat.diffuse(model), vb.heat.diffuse("test_vheat", size=32, weights=None)
    assert live.frames.shape == named.frames.shape
    assert live.frames[0].max() == pytest.approx(1)
    np.testing.assert_allclose(live.frames.sum((1, 2)), 1, atol=1e-9)
    blocks = vb.heat.diffusivity(model, results=tmp_path)
    kept = diffusivities_of(read_run(find_run("latest", tmp_path)))[0]
    assert [one.layer for one in blocks] == [one.layer for one in kept]
    operators = [module for module in model.modules() if type(module).__name__ == "HeatOperator"]
    assert len(blocks) == len(operators)
    with torch.no_grad():
        stage = model.stages[0]
        expected = operators[0].diffusivity(stage.embedding(*blocks[0].mean_map.shape)).double().mean(-1).numpy()
    np.testing.assert_allclose(blocks[0].mean_map, expected, rtol=1e-6)
    assert blocks[0].mean_k == pytest.approx(expected.mean())
    assert live.weights == blocks[0].weights
    assert "<img" in live._repr_html_()
    assert "<img" in blocks[0]._repr_html_()
    assert "stages.0.blocks.0" in repr(live) + repr(blocks[0])


def test_a_constant_k_and_times_in_numbers():
    found = vb.heat.diffuse(built(), k=5, times=[1, 5], source=(0.0, 0.0), channel=0)
    np.testing.assert_allclose(found.mean_kt, [0, 1, 5])
    assert found.frames[0, 0, 0] == pytest.approx(1)
    np.testing.assert_array_equal(found.k, 5)


@pytest.mark.parametrize(
    ("model", "how", "said"),
    [
        ("test_vit", {}, "no heat operators"),
        ("deployed", {}, "deployed"),
        ("live", {"layer": "stages.9"}, "stages.9"),
        ("live", {"layer": "all"}, "blocks: name one"),
        ("live", {"size": 64}, "as it is"),
        ("live", {"source": (2, 0)}, "outside"),
    ],
    ids=str,
)
def test_what_cannot_conduct_is_said(model, how, said):
    module = built("test_vit" if model == "test_vit" else "test_vheat")
    with pytest.raises(vb.UserError, match=said):
        vb.heat.diffuse(module.deploy() if model == "deployed" else module, **how)
