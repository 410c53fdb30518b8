"""Physics of the heat operator's core, in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vheatbench.subjects.heat.conduct import conduct_heat
from vheatbench.subjects.heat.cosines import cosine_matrix, dct2, heat_decay, idct2
from vheatbench.subjects.heat_operator import HeatOperator, resize_frequencies

sides = st.integers(1, 17)


def field(height: int, width: int, seed: int = 0, channels: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, height, width, channels, generator=generator, dtype=torch.float64)


def random_k(height: int, width: int, seed: int = 1, channels: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(height, width, channels, generator=generator, dtype=torch.float64) * 3


@given(sides, sides)
@settings(max_examples=40, deadline=None)
def test_the_transform_is_scipys_and_undone_by_its_inverse(height, width):
    fft = pytest.importorskip("scipy.fft")
    x = field(height, width)
    cos_h, cos_w = cosine_matrix(height), cosine_matrix(width)
    spectrum = dct2(x, cos_h, cos_w)
    reference = torch.from_numpy(fft.dctn(x.numpy(), type=2, norm="ortho", axes=(1, 2)))
    assert torch.allclose(spectrum, reference, atol=1e-12)
    assert torch.allclose(idct2(spectrum, cos_h, cos_w), x, atol=1e-12)


@given(sides, sides, st.integers(0, 100))
@settings(max_examples=40, deadline=None)
def test_conduction_keeps_the_mean_contracts_is_self_adjoint_and_a_semigroup(height, width, seed):
    x, y = field(height, width, seed), field(height, width, seed + 1)
    cosines = cosine_matrix(height), cosine_matrix(width)
    k = random_k(height, width, seed)
    decay = heat_decay(k)
    warmed = conduct_heat(x, decay, *cosines)
    assert torch.allclose(warmed.mean((1, 2)), x.mean((1, 2)), atol=1e-12)
    assert warmed.norm() <= x.norm() * (1 + 1e-12)
    adjoint = (warmed * y).sum() - (x * conduct_heat(y, decay, *cosines)).sum()
    assert abs(adjoint) < 1e-10
    twice = conduct_heat(warmed, decay, *cosines)
    assert torch.allclose(twice, conduct_heat(x, heat_decay(2 * k), *cosines), atol=1e-12)


def test_double_keeps_exact_cosines_and_bfloat16_keeps_k_in_range():
    operator = HeatOperator(4, (7, 5)).bfloat16().double()
    assert torch.equal(operator.cos_h, cosine_matrix(7))
    decay = heat_decay(torch.full((7, 7, 1), 2.0, dtype=torch.bfloat16))
    exact = heat_decay(torch.full((7, 7, 1), 2.0, dtype=torch.float64))
    assert torch.allclose(decay.double(), exact, rtol=2**-8, atol=0)


def test_gradients_of_the_core():
    x = field(5, 4).requires_grad_()
    k = random_k(5, 4).requires_grad_()
    cosines = cosine_matrix(5), cosine_matrix(4)
    assert torch.autograd.gradcheck(lambda x, k: conduct_heat(x, heat_decay(k), *cosines), (x, k))


def test_resizing_rules():
    embedding = torch.arange(2 * 3 * 2, dtype=torch.float32).reshape(2, 3, 2)
    padded = resize_frequencies(embedding, (4, 5), "zeropad")
    assert torch.equal(padded[:2, :3], embedding)
    assert padded[2:].abs().sum() == padded[:, 3:].abs().sum() == 0
    assert torch.equal(resize_frequencies(padded, (2, 3), "zeropad"), embedding)
    constant = resize_frequencies(torch.full((4, 4, 2), 0.25), (7, 9), "bicubic")
    assert torch.allclose(constant, torch.full((7, 9, 2), 0.25))
    with pytest.raises(ValueError, match="'bicubic' or 'zeropad'"):
        resize_frequencies(embedding, (4, 4), "nearest")


def test_a_size_first_seen_in_inference_can_be_trained_on():
    operator = HeatOperator(4, (7, 7))
    embedding = torch.rand(11, 13, 4)
    with torch.inference_mode():
        operator(torch.rand(1, 11, 13, 4), embedding)
    operator(torch.rand(1, 11, 13, 4), embedding).sum().backward()
    assert operator.dwconv.weight.grad is not None
