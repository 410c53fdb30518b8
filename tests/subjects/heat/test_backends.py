"""Every backend of the heat operator's core computes the same: against dense products in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from vheatbench.subjects import fused, products
from vheatbench.subjects.heat import conduct as heat
from vheatbench.subjects.heat import fft as heat_fft
from vheatbench.subjects.heat.conduct import BACKENDS, choose_backend, conduct_heat
from vheatbench.subjects.heat.cosines import cosine_matrix, heat_decay
from vheatbench.subjects.heat.triton import INTERPRETED
from vheatbench.subjects.heat_operator import HeatOperator
from vheatbench.subjects.paths import plain_operations

pytestmark = pytest.mark.usefixtures("one_thread")
CPU_BACKENDS = ("auto", "official", "matmul", "symmetric", "fft")
TOLERANCES = {torch.float32: 5e-6, torch.bfloat16: 2e-2}
MODES = {"grad": torch.enable_grad, "no_grad": torch.no_grad, "inference": torch.inference_mode}

sides = st.integers(1, 18)


def reference(x: torch.Tensor, decay: torch.Tensor) -> torch.Tensor:
    cos_h, cos_w = (cosine_matrix(n, x.dtype) for n in x.shape[1:3])
    spectrum = torch.einsum("nh,mw,bhwc->bnmc", cos_h, cos_w, x) * decay
    return torch.einsum("nh,mw,bnmc->bhwc", cos_h, cos_w, spectrum)


def inputs(batch: int, height: int, width: int, channels: int, strided: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Field and decay in float64 with values that bfloat16 holds exactly; strided: half of a wider tensor."""
    generator = torch.Generator().manual_seed(height * 100 + width)
    wide = torch.randn(batch, height, width, 2 * channels, generator=generator).bfloat16().double()
    k = torch.rand(height, width, channels, generator=generator, dtype=torch.float64) * 3
    x = wide[..., :channels]
    return (x if strided else x.contiguous()), heat_decay(k).bfloat16().double()


def to(x: torch.Tensor, dtype: torch.dtype, strided: bool) -> torch.Tensor:
    """``x`` in ``dtype``, again as the first half of a wider tensor if ``strided``."""
    if not strided:
        return x.to(dtype, memory_format=torch.contiguous_format)
    wide = torch.full((*x.shape[:-1], 2 * x.shape[-1]), float("nan"), dtype=dtype)
    half = wide.chunk(2, -1)[0]
    half.copy_(x)
    return half


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return ((ours.double() - theirs).abs().max() / theirs.abs().max().clamp(min=1e-30)).item()


@pytest.mark.parametrize("backend", CPU_BACKENDS)
@given(st.integers(1, 3), sides, sides, st.integers(1, 5), st.booleans(), st.sampled_from(list(TOLERANCES)))
@settings(max_examples=30, deadline=None)
def test_every_backend_agrees_with_dense_products_and_leaves_its_inputs_alone(
    backend, batch, height, width, channels, strided, dtype
):
    x64, decay64 = inputs(batch, height, width, channels, strided)
    expected = reference(x64, decay64)
    x, decay = to(x64, dtype, strided), decay64.to(dtype)
    cosines = cosine_matrix(height, dtype), cosine_matrix(width, dtype)
    before = [t.clone() for t in (x, decay, *cosines)]
    for mode in MODES.values():
        for given_cosines in (cosines, ()):
            with mode():
                out = conduct_heat(x, decay, *given_cosines, backend=backend)
            assert out.shape == x.shape
            assert out.dtype == dtype
            assert relative(out, expected) < TOLERANCES[dtype]
    assert all(torch.equal(a, b) for a, b in zip(before, (x, decay, *cosines), strict=True))


@pytest.mark.parametrize("backend", CPU_BACKENDS)
@given(st.integers(1, 3), sides, sides, st.booleans(), st.sampled_from(["both", "x", "decay"]))
@settings(max_examples=20, deadline=None)
def test_gradients_of_every_backend_are_autograds_of_the_dense_products(backend, batch, height, width, strided, learn):
    x, decay = inputs(batch, height, width, 3, strided)
    x.requires_grad_(learn != "decay")
    decay.requires_grad_(learn != "x")
    wanted = [t for t in (x, decay) if t.requires_grad]
    weights = torch.randn_like(x)
    ours = torch.autograd.grad((conduct_heat(x, decay, backend=backend) * weights).sum(), wanted)
    theirs = torch.autograd.grad((reference(x, decay) * weights).sum(), wanted)
    for a, b in zip(ours, theirs, strict=True):
        assert relative(a, b) < 1e-12


@pytest.mark.parametrize("backend", CPU_BACKENDS)
@pytest.mark.parametrize("grid", [(4, 3), (1, 5)])
def test_gradcheck(backend, grid):
    x, decay = inputs(2, *grid, 2, strided=True)
    x, decay = x.requires_grad_(), decay.requires_grad_()
    assert torch.autograd.gradcheck(lambda x, decay: conduct_heat(x, decay, backend=backend), (x, decay))


@pytest.mark.parametrize("backend", ["official", "symmetric", "fft", "matmul"])
def test_second_derivatives(backend):
    x, decay = inputs(1, 3, 4, 2, strided=False)
    x, decay = x.requires_grad_(), decay.requires_grad_()
    with plain_operations():
        assert torch.autograd.gradgradcheck(lambda x, decay: conduct_heat(x, decay, backend=backend), (x, decay))


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_an_expanded_gradient_is_taken(backend):
    x, decay = inputs(2, 5, 4, 3, strided=False)
    x, decay = x.requires_grad_(), decay.requires_grad_()
    ours = torch.autograd.grad(conduct_heat(x, decay, backend=backend).sum(), (x, decay))
    theirs = torch.autograd.grad(reference(x, decay).sum(), (x, decay))
    assert all(relative(a, b) < 1e-12 for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("backend", CPU_BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_agrees(backend, dtype):
    x64, decay64 = inputs(2, 7, 6, 4, strided=False)
    x, decay = x64.to(dtype), decay64.float()
    for mode in MODES.values():
        with mode(), torch.autocast("cpu", torch.bfloat16):
            out = conduct_heat(x, decay, backend=backend)
        assert relative(out, reference(x64, decay64)) < TOLERANCES[torch.bfloat16]


@pytest.mark.parametrize("name", ["operator_7x7x8", "operator_14x10x6"])
@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_the_layer_and_its_gradients_agree_with_the_official_code(data, name, backend):
    official = load_file(data / f"{name}.safetensors")
    _, channels, height, width = official["input"].shape
    operator = HeatOperator(channels, (height, width), backend=backend)
    operator.load_state_dict({key[6:]: value for key, value in official.items() if key.startswith("param.")})
    image, embedding = official["input"].requires_grad_(), official["freq_embed"].requires_grad_()
    output = operator(image.permute(0, 2, 3, 1), embedding).permute(0, 3, 1, 2)
    with torch.no_grad():
        unlearned = operator(image.permute(0, 2, 3, 1), embedding).permute(0, 3, 1, 2)
    output.backward(official["grad_output"])
    for ours, theirs in (
        (output, official["output"]),
        (unlearned, official["output"]),
        (image.grad, official["grad_input"]),
        (embedding.grad, official["grad_freq_embed"]),
        *((p.grad, official[f"grad.{key}"]) for key, p in operator.named_parameters()),
    ):
        assert relative(ours, theirs.double()) < 1e-5


def test_an_unknown_backend_is_refused_in_one_line():
    x, decay = inputs(1, 4, 4, 2, strided=False)
    with pytest.raises(ValueError, match=r"unknown backend 'dct' of the heat operator: auto, official, .*") as error:
        conduct_heat(x, decay, backend="dct")
    assert "\n" not in str(error.value)
    assert all(name in str(error.value) for name in BACKENDS)


@pytest.mark.skipif(INTERPRETED, reason="Triton's interpreter runs on CPUs")
def test_triton_on_a_cpu_is_refused_in_one_line():
    x, decay = inputs(1, 4, 4, 2, strided=False)
    for dtype, reason in ((torch.float32, "run on CUDA devices, not on cpu|not installed"), (torch.float64, "float64")):
        with pytest.raises(ValueError, match=rf"backend 'triton' of the heat operator: .*({reason})") as error:
            conduct_heat(x.to(dtype), decay.to(dtype), backend="triton")
        assert "\n" not in str(error.value)


def test_every_backend_is_named():
    assert set(BACKENDS) == {*CPU_BACKENDS, "triton"}


@pytest.mark.parametrize(
    ("height", "width", "dtype", "chosen"),
    [
        (255, 300, torch.bfloat16, "matmul"),
        (256, 300, torch.bfloat16, "symmetric"),
        (256, 256, torch.float16, "symmetric"),
        (256, 300, torch.float32, "matmul"),
    ],
)
def test_auto_takes_the_symmetric_split_on_large_grids_in_16_bits_without_gradients(height, width, dtype, chosen):
    x, decay = torch.empty(1, height, width, 1, dtype=dtype), torch.empty(height, width, 1, dtype=dtype)
    assert choose_backend(x, decay) == chosen
    learning = decay.clone().requires_grad_()
    assert choose_backend(x, learning) == choose_backend(x.clone().requires_grad_(), decay) == "matmul"
    with torch.no_grad():
        assert choose_backend(x, learning) == chosen


def test_auto_is_what_it_chooses(monkeypatch):
    x, decay = (t.bfloat16() for t in inputs(1, 6, 6, 2, strided=False))
    taken = []
    for name in ("matmul", "symmetric"):
        kept = heat._CONDUCT[name]
        monkeypatch.setitem(heat._CONDUCT, name, lambda *a, n=name, f=kept: (taken.append(n), f(*a))[1])
    conduct_heat(x, decay)
    monkeypatch.setattr(heat, "SYMMETRIC_FROM", 6)
    conduct_heat(x, decay)
    assert taken == ["matmul", "symmetric"]


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(("height", "width"), [(40, 40), (64, 26), (41, 53)])
@pytest.mark.parametrize("way", ["turned", "batched"])
def test_large_float32_grids_by_either_way(way, batch, height, width, monkeypatch):
    x64, decay64 = inputs(batch, height, width, 5, strided=True)
    x, decay = x64.float(), decay64.float()
    monkeypatch.setattr(products, "transform", lambda: way)
    turned = []
    kept = fused.conduct
    monkeypatch.setattr(fused, "conduct", lambda *a: (turned.append(1), kept(*a))[1])
    with torch.no_grad():
        out = conduct_heat(x, decay, backend="matmul")
    assert bool(turned) == (way == "turned" and fused.fuses(x))
    assert out.is_contiguous()
    assert relative(out, reference(x64, decay64)) < TOLERANCES[torch.float32]


def test_cosine_matrices_are_orthonormal_and_rounded_once():
    for n in (1, 2, 7, 64, 255):
        matrix = cosine_matrix(n)
        assert torch.allclose(matrix @ matrix.t(), torch.eye(n, dtype=torch.float64), atol=1e-12)
        assert torch.equal(cosine_matrix(n, torch.float32), matrix.float())


@given(sides, st.integers(0, 2))
@settings(max_examples=20, deadline=None)
def test_the_fast_transform_is_the_orthonormal_one(n, dim):
    """Within the core a wrong scale would cancel out."""
    x = torch.randn(*(n if i == dim else 2 for i in range(3)), dtype=torch.float64)
    expected = torch.tensordot(x, cosine_matrix(n), dims=([dim], [1])).movedim(-1, dim)
    assert torch.allclose(heat_fft.dct(x, dim), expected, atol=1e-12)
    assert torch.allclose(heat_fft.idct(expected, dim), x, atol=1e-12)


def test_an_empty_batch_stays_empty():
    x, decay = torch.empty(0, 4, 5, 3), torch.ones(4, 5, 3)
    for backend in CPU_BACKENDS:
        assert conduct_heat(x, decay, backend=backend).shape == (0, 4, 5, 3)
