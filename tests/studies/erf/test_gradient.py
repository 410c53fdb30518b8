"""The gradient itself: against analytic kernels, RepLKNet's lines, one image at a time; and what can go wrong."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from torch import nn

import vheatbench.subjects.vheat  # noqa: F401  (registers the models)
from vheatbench.errors import UserError
from vheatbench.studies.erf.centre import Axis
from vheatbench.studies.erf.conduction import conducting, conducts, constant_k
from vheatbench.studies.erf.features import Layer, find_layers
from vheatbench.studies.erf.gradient import GradientBatches, centre_of, input_gradients
from vheatbench.studies.erf.metrics import centroid, radius
from vheatbench.subjects.heat_operator import HeatOperator

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")


def vheat(size=64, **options):
    torch.manual_seed(0)
    return timm.create_model("test_vheat", img_size=size, **options).eval().requires_grad_(False)


def layers_of(model, size, *wanted):
    return find_layers("tiny", model, torch.zeros(1, 3, size, size), wanted or ("last",))


def photographs(n, size):
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(3))


def linear_net(channels=4):
    torch.manual_seed(1)
    convolutions = [
        nn.Conv2d(3, channels, 3, 2, 1, bias=False),
        nn.Conv2d(channels, channels, 3, 1, 1, bias=False),
        nn.Conv2d(channels, channels, 3, 2, 1, bias=False),
    ]
    model = nn.Sequential(*convolutions)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.abs_()  # all features of a positive image are positive: nothing is rectified away
    return model.requires_grad_(False)


def test_linear_network_is_its_composed_kernel():
    """One cell of a linear network: the kernels' full convolution, at the cell's computed centre."""
    model = linear_net()
    (layer,) = layers_of(model, 36, "last")
    assert layer.grid == (9, 9)
    (found,) = input_gradients(model, torch.rand(2, 3, 36, 36) + 0.1, [layer])
    kernel = model[2].weight.double().sum(0)[None]  # all output channels: (1, C, 3, 3)
    for convolution, stride in ((model[1], 1), (model[0], 2)):
        spread = torch.zeros(*kernel.shape[:2], *((n - 1) * stride + 1 for n in kernel.shape[2:]), dtype=torch.float64)
        spread[:, :, ::stride, ::stride] = kernel
        kernel = torch.nn.functional.conv_transpose2d(spread, convolution.weight.double())
    kernel = kernel[0].sum(0).numpy()
    # the composed stride of what lies behind: 3 + 2 * (3 - 1) + ... on each side of the centre
    expected = np.zeros((36, 36))
    middle = int(centre_of(layer, "centre", (36, 36))[0] - 0.5)
    # layers 2 and 3 act on a grid of stride 2
    half = kernel.shape[0] // 2
    expected[middle - half : middle + half + 1, middle - half : middle + half + 1] = kernel
    assert found[0].numpy() == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert torch.equal(found[0], found[1])


def test_even_map_averages_its_four_cells():
    """Of a linear network the four cells' gradient is the mean of theirs, about the middle of their centres."""
    model = linear_net()
    (layer,) = layers_of(model, 32, "last")
    assert layer.grid == (8, 8)
    (found,) = input_gradients(model, torch.rand(1, 3, 32, 32) + 0.1, [layer])
    single = []
    for row in (3, 4):
        for column in (3, 4):
            images = (torch.rand(1, 3, 32, 32) + 0.1).requires_grad_()
            (gradient,) = torch.autograd.grad(model(images)[:, :, row, column].sum(), images)
            single.append(gradient.sum(1))
    torch.testing.assert_close(found, sum(single) / 4)
    assert centre_of(layer, "centre", (32, 32)) == (14.5, 14.5)
    assert centroid(found[0].numpy()) == pytest.approx((14.5, 14.5), abs=0.5)


def literal_replknet(model, samples):
    """RepLKNet's get_input_grad, as its repository describes it."""
    samples = samples.clone().requires_grad_()
    outputs = model(samples)
    out_size = outputs.size()
    central_point = torch.nn.functional.relu(outputs[:, :, out_size[2] // 2, out_size[3] // 2]).sum()
    grad = torch.autograd.grad(central_point, samples)
    grad = torch.nn.functional.relu(grad[0])
    aggregated = grad.sum((0, 1))
    return aggregated.numpy()


@pytest.mark.parametrize("size", [64, 96])
def test_replknet_protocol_is_its_rule(size):
    model = vheat(size)
    layers = layers_of(model, size)
    images = photographs(2, size)
    (found,) = input_gradients(model, images, layers, "replknet")
    literal = literal_replknet(lambda x: model.stages(model.stem(x)), images)
    np.testing.assert_allclose(found.sum(0).numpy(), literal, rtol=2e-3, atol=2e-5 * literal.max())
    (sound,) = input_gradients(model, images, layers, "centre")
    same = np.allclose(sound.sum(0).numpy(), literal, rtol=1e-2, atol=1e-3 * literal.max())
    assert same == (size == 96)  # an odd map has one central cell, an even one four


@pytest.mark.parametrize("name", ["test_vheat", "test_vit", "test_convnext", "resnet18"])
def test_batch_equals_one_by_one_and_layers_one_pass_each(name):
    size = 160 if name == "test_vit" else 64
    torch.manual_seed(0)
    model = timm.create_model(name).eval().requires_grad_(False)
    layers = layers_of(model, size, "all")
    images = photographs(3, size)
    together = input_gradients(model, images, layers)
    assert len(together) == len(layers)
    for i in range(3):
        alone = input_gradients(model, images[i : i + 1], layers)
        for one, many in zip(alone, together, strict=True):
            torch.testing.assert_close(one[0], many[i], rtol=1e-3, atol=1e-5 * float(many.max()))
    for layer, many in zip(layers, together, strict=True):
        (alone,) = input_gradients(model, images, [layer])
        torch.testing.assert_close(alone, many, rtol=1e-3, atol=1e-5 * float(many.max()))


def test_deeper_layers_see_more():
    model = vheat()
    layers = layers_of(model, 64, "all")
    maps = input_gradients(model, photographs(6, 64), layers)
    centres = [centre_of(layer, "centre", (64, 64)) for layer in layers]
    radii = [radius(m.mean(0).numpy(), c) for m, c in zip(maps, centres, strict=True)]
    assert radii == sorted(radii)
    assert radii[-1] > 3 * radii[0]


def test_bfloat16_changes_little():
    model = vheat()
    layers = layers_of(model, 64)
    (exact,) = input_gradients(model, photographs(8, 64), layers)
    (low,) = input_gradients(model, photographs(8, 64), layers, dtype="bfloat16")
    assert low.dtype == torch.float32
    assert not torch.equal(exact, low)
    relative = float((exact.mean(0) - low.mean(0)).abs().sum() / exact.mean(0).sum())
    assert relative < 0.1
    centre = centre_of(layers[0], "centre", (64, 64))
    assert radius(low.mean(0).numpy(), centre) == pytest.approx(radius(exact.mean(0).numpy(), centre), rel=0.02)


def test_conduction_none_constant_and_learned():
    model = vheat()
    with torch.no_grad():  # a k that conducts, as training gives it
        for operator in (m for m in model.modules() if isinstance(m, HeatOperator)):
            operator.to_k[0].bias.fill_(0.3)
    layers = layers_of(model, 64, "stages.0")
    images = photographs(6, 64)
    assert conducts(model)
    seen = {}
    for conduction in ("none", "0.3", "5", "learned", "none"):
        with conducting(model, conduction):
            (maps,) = input_gradients(model, images, layers)
        seen.setdefault(conduction, maps)
    # what reaches a corner of the image, 6 cells beyond the convolutions
    corner = {conduction: float(maps[:, :4, :4].mean()) for conduction, maps in seen.items()}
    assert corner["5"] > 1000 * corner["none"]
    torch.testing.assert_close(seen["0.3"], seen["learned"], rtol=0.2, atol=0.03 * float(seen["learned"].max()))
    assert not torch.allclose(seen["none"], seen["learned"], rtol=1e-2)
    with conducting(model, "learned"):
        (again,) = input_gradients(model, images, layers)
    torch.testing.assert_close(again, seen["learned"])  # everything is put back


def test_without_conduction_the_operator_is_local():
    """k = 0 leaves the field as it is: an operator then sees its 3x3 convolution alone."""
    torch.manual_seed(0)
    model = nn.ModuleDict({"op": HeatOperator(8, (9, 9))}).eval().requires_grad_(False)
    seen = {}
    for conduction in ("none", "2"):
        x = torch.randn(1, 9, 9, 8, requires_grad=True)
        with conducting(model, conduction):
            out = model["op"](x, torch.zeros(9, 9, 8))
        (gradient,) = torch.autograd.grad(out[0, 4, 4].relu().sum(), x)
        seen[conduction] = gradient[0].abs().sum(-1)
    far = torch.ones(9, 9, dtype=torch.bool)
    far[3:6, 3:6] = False
    assert float(seen["none"][far].max()) < 1e-5 * float(seen["none"].max())
    assert float(seen["2"][far].max()) > 1e-2 * float(seen["2"].max())


@pytest.mark.parametrize("word", ["-1", "nan", "inf", "much", ""])
def test_conduction_that_is_no_number(word):
    with pytest.raises(UserError, match="conduction"):
        constant_k(word)


class Fails(nn.Module):
    """Runs out of memory for more images than it is told, as torch's CPU allocator says it."""

    def __init__(self, most: int, value: float = 1.0) -> None:
        super().__init__()
        self.most, self.value = most, value
        self.batches: list[int] = []

    def forward(self, x):
        self.batches.append(len(x))
        if len(x) > self.most:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:114] DefaultCPUAllocator: can't allocate memory")
        return x * self.value


def gradients_of(model):
    layer = Layer("", None, 0, (4, 4), (Axis(1, 0.5), Axis(1, 0.5)), "")
    return GradientBatches(model, [layer], CPU, (0.5,) * 3, (0.25,) * 3)


def test_out_of_memory_halves_the_batch_and_changes_nothing():
    pixels = np.random.default_rng(0).integers(128, 255, (7, 4, 4, 3), np.uint8)
    tight, roomy = gradients_of(Fails(2)), gradients_of(Fails(100))
    (few,), (all_,) = tight(pixels), roomy(pixels)
    assert tight.model.batches == [7, 3, 1, 1, 1, 1, 1, 1, 1]
    assert tight.largest == 1
    assert roomy.largest is None
    assert np.array_equal(few, all_)
    assert few.shape == (7, 4, 4)
    with pytest.raises(RuntimeError, match="allocate"):
        gradients_of(Fails(0))(pixels)


def test_gradients_that_are_not_finite_are_refused():
    pixels = np.full((2, 4, 4, 3), 200, np.uint8)
    with pytest.raises(FloatingPointError, match="not finite"):
        gradients_of(Fails(9, float("inf")))(pixels)


def test_grey_models_take_photographs_as_grey():
    model = nn.Conv2d(1, 2, 1, bias=False).requires_grad_(False)
    layer = Layer("", None, 0, (4, 4), (Axis(1, 0.5), Axis(1, 0.5)), "")
    with torch.no_grad():
        model.weight.fill_(1.0)
    (maps,) = GradientBatches(model, [layer], CPU, (0.0,), (1.0,))(np.full((1, 4, 4, 3), 90, np.uint8))
    assert maps[0, 1:3, 1:3] == pytest.approx(np.full((2, 2), 0.5))  # two channels over four cells
