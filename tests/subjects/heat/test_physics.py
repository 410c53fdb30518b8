"""What heat conduction must do, in float64, asked of the operator's core and of its point response.

Transform, mean, self-adjointness and the semigroup of equal steps are in ``test_heat.py``.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vheatbench.studies.heat.response import (
    finite_difference_response,
    neumann_response,
    operator_response,
    point_source,
)
from vheatbench.subjects.heat.conduct import conduct_heat
from vheatbench.subjects.heat.cosines import heat_decay, squared_frequency
from vheatbench.subjects.heat_operator import HeatOperator
from vheatbench.subjects.official import OfficialOperator

pytestmark = pytest.mark.usefixtures("one_thread")

EXACT = 1e-12
sides = st.integers(1, 19)
seeds = st.integers(0, 10_000)
some_k = st.floats(0, 50)
"""Cells squared."""


def random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def random_k(height: int, width: int, seed: int, mean: float = 2.0) -> torch.Tensor:
    """Per frequency, exponentially distributed, a third of it exactly 0 as behind a ReLU."""
    uniform = torch.rand(height, width, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    k = -mean * torch.log1p(-uniform)
    return torch.where(uniform < 1 / 3, 0.0, k)


def constant(k: float, height: int, width: int) -> torch.Tensor:
    return heat_decay(torch.full((height, width, 1), k, dtype=torch.float64))


def largest(difference: torch.Tensor) -> float:
    return difference.abs().max().item()


@given(sides, sides, seeds, some_k)
@settings(max_examples=40, deadline=None)
def test_conserved_per_frequency_too_and_without_k_nothing_happens(height, width, seed, mean):
    u = random(1, height, width, 1, seed=seed)
    assert largest(conduct_heat(u, constant(0.0, height, width)) - u) < EXACT
    for decay in (constant(mean, height, width), heat_decay(random_k(height, width, seed, mean + 0.1))):
        assert largest(conduct_heat(u, decay).mean((1, 2)) - u.mean((1, 2))) < EXACT


@given(sides, sides, seeds, some_k, some_k)
@settings(max_examples=40, deadline=None)
def test_steps_add_up_whatever_their_length(height, width, seed, first, second):
    u, k = random(1, height, width, 1, seed=seed), random_k(height, width, seed)
    stepwise = conduct_heat(conduct_heat(u, heat_decay(first * k)), heat_decay(second * k))
    assert largest(stepwise - conduct_heat(u, heat_decay((first + second) * k))) < EXACT


@given(sides, sides, seeds)
@settings(max_examples=40, deadline=None)
def test_mirrored_and_transposed_fields_conduct_alike(height, width, seed):
    u, k = random(1, height, width, 1, seed=seed), random_k(height, width, seed)
    decay = heat_decay(k)
    after = conduct_heat(u, decay)
    for axes in ((1,), (2,), (1, 2)):
        assert largest(conduct_heat(u.flip(axes), decay) - after.flip(axes)) < EXACT
    turned = conduct_heat(u.transpose(1, 2), heat_decay(k.transpose(0, 1)))
    assert largest(turned - after.transpose(1, 2)) < EXACT


def test_walls_break_the_symmetry_under_shifts():
    u = random(1, 12, 9, 1, seed=3)
    decay = constant(1.0, 12, 9)
    shifted = conduct_heat(u.roll(1, 1), decay)
    assert largest(shifted - conduct_heat(u, decay).roll(1, 1)) > 0.1


@given(sides, sides, seeds)
@settings(max_examples=40, deadline=None)
def test_energy_only_falls_and_faster_for_a_larger_k(height, width, seed):
    u, k = random(1, height, width, 1, seed=seed), random_k(height, width, seed)
    energies = [conduct_heat(u, heat_decay(t * k)).square().sum().item() for t in (0.0, 0.1, 0.5, 1.0, 5.0, 20.0)]
    for before, after in itertools.pairwise(energies):
        assert after <= before * (1 + EXACT)
    if (k[1:] > 0).any() and height > 1:
        assert energies[-1] < energies[0]


@given(sides, sides, seeds, some_k)
@settings(max_examples=40, deadline=None)
def test_everything_tends_to_the_mean_at_the_rate_of_the_slowest_wave(height, width, seed, k):
    u = random(1, height, width, 1, seed=seed)
    mean = u.mean((1, 2), keepdim=True)
    slowest = (math.pi / max(height, width)) ** 2 if max(height, width) > 1 else 0.0
    after = conduct_heat(u, constant(k, height, width))
    assert (after - mean).norm() <= math.exp(-k * slowest) * (u - mean).norm() + EXACT


@pytest.mark.parametrize(("height", "width", "wave"), [(8, 5, (1, 0)), (7, 12, (0, 3)), (6, 6, (2, 5))])
def test_a_cosine_wave_fades_at_its_own_rate_and_keeps_its_shape(height, width, wave):
    rows = torch.cos(math.pi * wave[0] * (torch.arange(height, dtype=torch.float64) + 0.5) / height)
    columns = torch.cos(math.pi * wave[1] * (torch.arange(width, dtype=torch.float64) + 0.5) / width)
    u = (rows[:, None] * columns)[None, :, :, None]
    rate = (math.pi * wave[0] / height) ** 2 + (math.pi * wave[1] / width) ** 2
    assert squared_frequency(height, width)[wave].item() == pytest.approx(rate, rel=1e-14)
    assert largest(conduct_heat(u, constant(0.7, height, width)) - math.exp(-0.7 * rate) * u) < EXACT


@given(sides, sides, seeds, st.floats(0.01, 20))
@settings(max_examples=25, deadline=None)
def test_the_even_extension_has_no_walls(height, width, seed, k):
    u = random(1, height, width, 1, seed=seed)
    field = u[0, :, :, 0].numpy()
    even = np.block([[field, field[:, ::-1]], [field[::-1], field[::-1, ::-1]]])
    rows, columns = (2 * np.pi * np.fft.fftfreq(2 * n) for n in (height, width))
    decay = np.exp(-k * (rows[:, None] ** 2 + columns[None, :] ** 2))
    # the frequency that an even length has once is no cosine of the half length: the extension holds none of it
    expected = np.fft.ifft2(np.fft.fft2(even) * decay).real[:height, :width]
    after = conduct_heat(u, constant(k, height, width))[0, :, :, 0].numpy()
    assert np.abs(after - expected).max() < EXACT


@given(st.integers(1, 7), st.integers(1, 7), st.floats(0.01, 30), st.data())
@settings(max_examples=30, deadline=None)
def test_finite_differences_are_the_exponential_of_the_5_point_laplacian(height, width, kt, data):
    linalg = pytest.importorskip("scipy.linalg")

    def rod(n: int) -> np.ndarray:
        laplacian = -2 * np.eye(n) + np.eye(n, k=1) + np.eye(n, k=-1)
        laplacian[0, 0] += 1
        laplacian[-1, -1] += 1
        return laplacian

    cell = data.draw(st.tuples(st.integers(0, height - 1), st.integers(0, width - 1)))
    laplacian = np.kron(rod(height), np.eye(width)) + np.kron(np.eye(height), rod(width))
    expected = linalg.expm(kt * laplacian)[:, cell[0] * width + cell[1]].reshape(height, width)
    found = finite_difference_response((height, width), cell, kt)
    assert np.abs(found - expected).max() < EXACT
    assert found.min() > -EXACT  # this one does obey the maximum principle


@pytest.mark.parametrize("t", [0.1, 0.5, 2.0, 20.0])
def test_the_variance_of_a_point_source_grows_by_2_k_t_on_each_axis(t):
    field = operator_response((128, 112), (64, 56), t)
    places = np.arange(128)[:, None], np.arange(112)[None, :]
    for axis, middle in enumerate((64, 56)):
        mean = (places[axis] * field).sum()
        # the tail of a small t falls slowly as 1 / distance^2 with changing sign, and is cut at the walls
        assert mean == pytest.approx(middle, abs=1e-3 if t < 1 else 1e-6)
        if t >= 1:
            assert ((places[axis] - mean) ** 2 * field).sum() == pytest.approx(2 * t, abs=1e-6)


@pytest.mark.parametrize(("kt", "tolerance"), [(1.0, 2e-5), (2.0, 1e-8), (5.0, 1e-11), (300.0, 1e-11), (1e6, 1e-11)])
@pytest.mark.parametrize(("grid", "cell"), [((56, 56), (28, 28)), ((31, 14), (0, 13)), ((9, 1), (4, 0))])
def test_the_point_response_is_the_heat_kernel_of_the_rectangle(grid, cell, kt, tolerance):
    kernel = neumann_response(grid, cell, kt)
    assert np.abs(operator_response(grid, cell, kt) - kernel).max() <= tolerance * kernel.max()
    if kt >= 5:
        assert kernel.sum() == pytest.approx(1, abs=1e-11)


def test_images_of_the_source_make_the_walls_insulating():
    """By the other formula for the same kernel: cosines, of which a small t needs many."""
    x, y, length, kt = 0.5, 2.5, 5, 0.2
    n = np.arange(1, 400)
    wave = np.pi * n / length
    expected = (1 + 2 * (np.cos(wave * x) * np.cos(wave * y) * np.exp(-(wave**2) * kt)).sum()) / length
    found = neumann_response((length, length), (0, 0), kt)[2, 2]
    assert found == pytest.approx(expected**2, rel=1e-6)


@given(sides, sides, st.floats(1.005, 60), st.data())
@settings(max_examples=40, deadline=None)
def test_a_constant_k_t_of_at_least_1_stays_between_coldest_and_hottest(height, width, kt, data):
    cells = data.draw(st.lists(st.booleans(), min_size=height * width, max_size=height * width))
    u = torch.tensor(cells, dtype=torch.float64).reshape(1, height, width, 1)
    after = conduct_heat(u, constant(kt, height, width))
    assert after.min() >= u.min() - 1e-5
    assert after.max() <= u.max() + 1e-5


def test_a_small_k_t_or_a_k_per_frequency_breaks_the_maximum_principle():
    assert operator_response((56, 56), (28, 28), 0.1).min() == pytest.approx(-0.0145, rel=0.01)
    u = (random(1, 56, 56, 1, seed=0) > 0).double()
    uneven = conduct_heat(u, heat_decay(random_k(56, 56, 0, mean=5.0)))
    assert uneven.min() < -0.01
    assert uneven.sum() == pytest.approx(u.sum().item(), rel=EXACT)


@pytest.mark.parametrize("norm", [None, torch.nn.LayerNorm(6)])
def test_what_is_observed_is_what_forward_computes(norm):
    torch.manual_seed(0)
    operator = HeatOperator(6, (7, 5)).double()
    norm = None if norm is None else norm.double()
    x, embedding = random(2, 7, 5, 6, seed=1), random(7, 5, 6, seed=2)
    with torch.no_grad():
        seen = operator.observe(x, embedding, norm)
        gate = operator.linear(operator._convolve(x if norm is None else norm(x)))[..., 6:]
        out = operator.out_linear(operator.out_norm(seen.after) * torch.nn.functional.silu(gate))
        assert torch.allclose(out, operator(x, embedding, norm), atol=EXACT)
    assert seen.before.shape == seen.after.shape == x.shape
    assert torch.equal(seen.decay, heat_decay(operator.diffusivity(embedding)))
    assert largest(seen.after.mean((1, 2)) - seen.before.mean((1, 2))) < EXACT
    assert largest(seen.after - seen.before) > 1e-3


def test_the_official_formulation_and_the_deploy_form_are_observed_alike():
    torch.manual_seed(0)
    operator = HeatOperator(6, (7, 5)).double()
    official = OfficialOperator(6, (7, 5)).double()
    official.load_state_dict(operator.state_dict())
    x, embedding = random(2, 7, 5, 6, seed=1), random(7, 5, 6, seed=2)
    with torch.no_grad():
        seen, theirs = operator.observe(x, embedding), official.observe(x, embedding)
        operator.deploy(embedding)
        deployed = operator.observe(x)
    for other in (theirs, deployed):
        assert all(torch.allclose(a, b, atol=EXACT) for a, b in zip(seen, other, strict=True))


def test_a_point_source_is_one_cell():
    source = point_source((3, 4), (2, 1))
    assert source.sum() == source[0, 2, 1, 0] == 1
    assert source.shape == (1, 3, 4, 1)
