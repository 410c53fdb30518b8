"""Where cells look: strides and padding against the gradient itself."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

import vheatbench.subjects.vheat  # noqa: F401  (registers the models)
from vheatbench.errors import UserError
from vheatbench.studies.erf.centre import Axis, Geometry, Step, Window, central_cells
from vheatbench.studies.erf.features import Layer, find_layers, read_features
from vheatbench.studies.erf.gradient import centre_of, chosen_cells, input_gradients
from vheatbench.studies.erf.metrics import centroid

pytestmark = pytest.mark.usefixtures("one_thread")
SWIN = {"embed_dim": 16, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 4, 8), "window_size": 4, "num_classes": 0}


def tiny(name, size, **options):
    torch.manual_seed(0)
    if name == "swin":
        name, options = "swin_tiny_patch4_window7_224", {**SWIN, "img_size": size, **options}
    return timm.create_model(name, **options).eval().requires_grad_(False)


def layers_of(model, size, *wanted, height=None):
    return find_layers("tiny", model, torch.zeros(1, 3, height or size, size), wanted or ("all",))


@pytest.mark.parametrize(
    ("name", "size", "options", "expected"),
    [
        ("test_vheat", 64, {}, [(4, 0.5), (8, 0.5), (16, 0.5), (32, 0.5)]),
        ("test_vheat", 96, {"img_size": 96}, [(4, 0.5), (8, 0.5), (16, 0.5), (32, 0.5)]),
        ("test_vit", 160, {}, [(16, 8.0)] * 6),
        ("swin", 64, {}, [(4, 2.0), (8, 4.0), (16, 8.0), (32, 16.0)]),
        ("test_convnext", 160, {}, [(4, 2.0), (8, 4.0), (16, 8.0), (32, 16.0)]),
        # the stem's convolution and max pooling, then 3x3 convolutions beside 1x1 shortcuts
        ("resnet18", 64, {}, [(2, 0.5), (4, 0.5), (8, 0.5), (16, 0.5), (32, 0.5)]),
        # keys and values are pooled by 8, 4 and 2 beside the chain
        ("pvt_v2_b0", 64, {}, [(4, 0.5), (8, 0.5), (16, 0.5), (32, 0.5)]),
        # padded at the end, as TensorFlow does where sizes are even
        ("tf_mobilenetv3_small_minimal_100", 64, {}, [(2, 1.5), (4, 3.5), (8, 7.5), (16, 15.5), (32, 31.5)]),
    ],
)
def test_axes(name, size, options, expected):
    layers = layers_of(tiny(name, size, **options), size)
    assert [(layer.axes[0].stride, layer.axes[0].offset) for layer in layers] == expected
    assert all(layer.axes[0] == layer.axes[1] for layer in layers)
    assert [layer.depth for layer in layers] == list(range(len(expected)))


@pytest.mark.parametrize("name", ["test_vheat", "swin", "test_convnext", "resnet18", "test_vit"])
def test_centre_is_where_the_gradient_is(name):
    """The centroid of the map lies within a quarter of a stride of the computed centre, in every stage."""
    size = 96 if name != "test_vit" else 160
    options = {"img_size": 96} if name == "test_vheat" else {"window_size": 3} if name == "swin" else {}
    model = tiny(name, size, **options)
    layers = layers_of(model, size)
    if name == "resnet18":
        layers = layers[:4]  # 3x3 cells see beyond the image on all sides
    images = torch.randn(24, 3, size, size, generator=torch.Generator().manual_seed(1))
    for layer, maps in zip(layers, input_gradients(model, images, layers), strict=True):
        centre = centre_of(layer, "centre", (size, size))
        found = centroid(maps.mean(0).numpy())
        margin = max(0.25 * layer.axes[0].stride, 1.0)
        assert found == pytest.approx(centre, abs=margin), layer


class Stack(nn.Sequential):
    """Linear layers, by which the support of the gradient is exact."""


@pytest.mark.parametrize(
    "layers",
    [
        [(3, 2, 1, 1), (3, 2, 1, 1)],
        [(7, 2, 3, 1), (3, 1, 1, 1), (3, 2, 0, 1)],
        [(4, 4, 0, 1), (3, 1, 2, 2)],
        [(3, 2, 2, 2), (3, 2, 1, 1)],
        [(2, 2, 0, 1), (5, 2, 1, 1)],
    ],
)
def test_support_of_convolutions_is_symmetric_about_the_centre(layers):
    size = 65
    model = Stack(*(nn.Conv2d(3 if i == 0 else 4, 4, k, s, p, d, bias=False) for i, (k, s, p, d) in enumerate(layers)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(0.1)
    (layer,) = layers_of(model, size, "last")
    (maps,) = input_gradients(model, torch.ones(1, 3, size, size), [layer])
    rows = (maps[0].sum(1) > 0).nonzero()[:, 0]
    middle = (int(rows[0]) + int(rows[-1]) + 1) / 2
    assert middle == centre_of(layer, "centre", (size, size))[0]


def test_pooling_and_same_padding():
    geometry = Geometry((21, 21))
    model = nn.Sequential(nn.MaxPool2d(3, 2, ceil_mode=True), nn.AvgPool2d(2), nn.Conv2d(1, 1, 3, padding="same"))
    with torch.no_grad(), geometry.watching(model):
        model(torch.zeros(1, 1, 21, 21))
    assert geometry.axes((10, 10))[0] == Axis(2, 1.5)
    assert geometry.axes((5, 5))[0] == Axis(4, 2.5)
    with torch.no_grad():
        model(torch.zeros(1, 1, 31, 31))
    assert len(geometry.steps) == 2  # nothing is noted outside


def test_shortcuts_count_once():
    wide, narrow = Window(3, 2, 1), Window(2, 2, 0)
    steps = [
        Step((32, 32), (16, 16), (narrow, narrow)),
        Step((32, 32), (16, 16), (wide, wide)),
        Step((32, 32), (8, 8), (Window(4, 4, 0), Window(4, 4, 0))),
        Step((16, 16), (8, 8), (wide, wide)),
    ]
    for order in (steps, steps[::-1]):
        geometry = Geometry((32, 32), list(order))
        assert geometry.axes((16, 16))[0] == Axis(2, 0.5)
        assert geometry.axes((8, 8))[0] == Axis(4, 0.5)


def test_sizes_that_nothing_explains():
    geometry = Geometry((56, 28))
    assert geometry.axes((7, 7)) == (Axis(8, 4.0), Axis(4, 2.0))
    assert geometry.how((7, 7)) == "cells of 8x4 that do not overlap, of the 56x28 map"
    assert geometry.axes((5, 7))[0] == Axis(12, 6.0)  # the last cell padded
    assert geometry.axes((40, 20))[0] == Axis(56 / 40, 56 / 80)
    assert geometry.how((40, 20)).startswith("assumed")
    assert geometry.axes((56, 28)) == (Axis(1, 0.5), Axis(1, 0.5))
    wide = Window(3, 2, 1)
    merged = Geometry((32, 32), [Step((32, 32), (16, 16), (wide, wide))])
    assert merged.axes((8, 8))[0] == Axis(4, 1.5)  # of the map that comes before, not of the image


def test_central_cells():
    assert [central_cells(n) for n in (1, 2, 7, 14)] == [(0,), (0, 1), (3,), (6, 7)]
    axes = (Axis(32, 0.5), Axis(16, 8.0))
    layer = Layer("x", 0, 0, (7, 14), axes, "")
    assert chosen_cells(layer, "centre") == ((3,), (6, 7))
    assert centre_of(layer, "centre", (224, 224)) == (96.5, 112.0)
    assert chosen_cells(layer, "replknet") == ((3,), (7,))
    assert centre_of(layer, "replknet", (224, 225)) == (112.5, 112.5)


def test_layers_by_every_kind_of_name():
    model = tiny("test_vheat", 64)
    names = [layer.name for layer in layers_of(model, 64)]
    assert names == ["stages.0", "stages.1", "stages.2", "stages.3"]
    chosen = layers_of(model, 64, "last", "stages.2.blocks.0", "0", "-1", "stages.1")
    assert [layer.name for layer in chosen] == ["stages.0", "stages.1", "stages.2.blocks.0", "stages.3"]
    assert [layer.index for layer in chosen] == [0, 1, None, 3]
    assert [layer.grid for layer in chosen] == [(16, 16), (8, 8), (4, 4), (2, 2)]


@pytest.mark.parametrize("word", ["nothing", "stages.7", "4", "-5", "stage.2"])
def test_unknown_layer_lists_those_there_are(word):
    with pytest.raises(UserError, match=r"stages\.0.*stages\.3") as error:
        layers_of(tiny("test_vheat", 64), 64, word)
    assert word in str(error.value)
    assert word != "stage.2" or "did you mean" in str(error.value)


@pytest.mark.parametrize(("layer", "words"), [("head.fc", "not called"), ("stages.0.blocks.0.mlp", "could be")])
def test_module_that_gives_no_map(layer, words):
    with pytest.raises(UserError, match=words):
        layers_of(tiny("test_vheat", 64), 64, layer)


def test_hooks_give_what_the_model_gives():
    """A stage caught by a hook equals the model's own list, in every layout; and all come from one pass."""
    for name, size, path in (("test_vheat", 64, "stages.2"), ("swin", 64, "layers.2"), ("test_vit", 160, "blocks.3")):
        model = tiny(name, size)
        images = torch.randn(2, 3, size, size)
        index = next(layer.index for layer in layers_of(model, size) if layer.name == path)
        with torch.no_grad():
            (own,) = read_features(model, images, [(path, index)])
            (caught,) = read_features(model, images, [(path, None)])
            both = read_features(model, images, [(path, None), (path, index)])
        assert own.shape == caught.shape
        for features in (caught, *both):
            torch.testing.assert_close(features, own)


class Plain(nn.Module):
    """A user's model that timm knows nothing of."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, 4)
        self.body = nn.Conv2d(8, 8, 3, 2, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        return self.head(self.body(self.stem(x)).mean((2, 3)))


def test_models_without_a_list_of_features():
    layers = layers_of(Plain(), 40, "all")
    assert [(layer.name, layer.grid, layer.axes[0]) for layer in layers] == [
        ("stem", (10, 10), Axis(4, 2.0)),
        ("body", (5, 5), Axis(8, 2.0)),
    ]
    assert [layer.name for layer in layers_of(Plain(), 40, "last")] == ["body"]
    with pytest.raises(UserError, match="no feature maps"):
        layers_of(nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 4)), 8, "last")


def test_images_that_are_not_square():
    model = tiny("test_vheat", 64, img_size=(96, 64))
    (layer,) = layers_of(model, 64, "stages.1", height=96)
    assert layer.grid == (12, 8)
    assert centre_of(layer, "centre", (96, 64)) == (0.5 + 8 * 5.5, 0.5 + 8 * 3.5)
