from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vheatbench.analysis.powerlaw import OverheadFit, PowerFit, Unfit, fit_overhead, fit_power
from vheatbench.analysis.scaling import Curvature, curvature, describe_scaling

TOKENS = [196.0, 576.0, 1024.0, 2304.0, 4096.0]
SHARES = (0.0, 0.02, 0.1, 0.3, 0.6, 0.9)
"""Overheads as shares of the cost at the smallest N; 0 is the edge of what the fit allows."""


def tokens(n):
    return np.round(np.geomspace(224, 1024, n) / 16) ** 2


def power(fit) -> PowerFit:
    assert isinstance(fit, PowerFit), fit
    return fit


def overhead(fit) -> OverheadFit:
    assert isinstance(fit, OverheadFit), fit
    return fit


def bend(fit) -> Curvature:
    assert isinstance(fit, Curvature), fit
    return fit


def four_sd(p, trials):
    return 4 * math.sqrt(p * (1 - p) / trials)


# A power


@pytest.mark.parametrize("alpha", [-1.0, 0.0, 1.0, 1.5, 2.0])
def test_an_exact_power_is_found_exactly_with_an_interval_of_no_width(alpha):
    fit = power(fit_power(TOKENS, [3e-6 * n**alpha for n in TOKENS]))
    assert fit.exponent == pytest.approx(alpha, abs=1e-12)
    assert fit.coefficient == pytest.approx(3e-6, rel=1e-10)
    assert fit.low == fit.high == fit.exponent
    assert fit.residual_sd == 0
    assert (fit.n, fit.range) == (5, (196, 4096))
    assert "exactly" in fit.note


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
def test_a_power_agrees_with_scipy(confidence):
    scipy = pytest.importorskip("scipy.stats")
    random = np.random.default_rng(1)
    for n in (3, 4, 9):
        x = tokens(n)
        y = 2 * x**1.3 * np.exp(0.1 * random.standard_normal(n))
        fit = power(fit_power(x.tolist(), y.tolist(), confidence))
        reference = scipy.linregress(np.log(x), np.log(y))
        half = scipy.t.ppf((1 + confidence) / 2, n - 2) * reference.stderr
        assert fit.exponent == pytest.approx(reference.slope, rel=1e-10)
        assert math.log(fit.coefficient) == pytest.approx(reference.intercept, rel=1e-9)
        assert fit.low == pytest.approx(reference.slope - half, rel=1e-9)
        assert fit.high == pytest.approx(reference.slope + half, rel=1e-9)
        assert fit.confidence == confidence


@pytest.mark.parametrize("n", [3, 5, 8])
def test_the_interval_of_a_power_covers_as_often_as_it_says(n):
    trials, x = 1500, tokens(n)
    clean, random = x**1.5, np.random.default_rng(n)
    hits = 0
    for _ in range(trials):
        fit = power(fit_power(x, clean * np.exp(0.03 * random.standard_normal(n))))
        hits += fit.low <= 1.5 <= fit.high
    assert abs(hits / trials - 0.95) < four_sd(0.95, trials)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.floats(0.1, 10), min_size=5, max_size=5),
    st.floats(1e-9, 1e12),
    st.floats(1e-3, 1e3),
)
def test_units_do_not_change_the_exponents(noise, y_scale, n_scale):
    y = [n * e for n, e in zip(TOKENS, noise, strict=True)]
    scaled_n, scaled_y = [n * n_scale for n in TOKENS], [value * y_scale for value in y]
    one, other = power(fit_power(TOKENS, y)), power(fit_power(scaled_n, scaled_y))
    assert other.exponent == pytest.approx(one.exponent, abs=1e-9)
    assert other.low == pytest.approx(one.low, abs=1e-9)
    assert other.coefficient == pytest.approx(one.coefficient * y_scale / n_scale**one.exponent, rel=1e-6)
    one, other = fit_overhead(TOKENS, y), fit_overhead(scaled_n, scaled_y)
    assert type(one) is type(other)
    if isinstance(one, OverheadFit) and one.residual_sd > 1e-6:
        assert (one.low is None, one.high is None) == (other.low is None, other.high is None)
        # The cost of a nearly flat minimum is what is compared, not where in it the search came to rest.
        assert other.residual_sd == pytest.approx(one.residual_sd, rel=1e-6)
        assert other.high == pytest.approx(one.high, abs=1e-3)


def test_two_points_give_an_exponent_without_an_interval():
    fit = power(fit_power([100, 400, 400], [1.0, 8.0, 8.0]))
    assert fit.exponent == pytest.approx(1.5)
    assert fit.low is None
    assert fit.high is None
    assert fit.residual_sd is None
    assert "no interval" in fit.note


def test_deterministic_values_are_said_to_have_no_noise():
    y = [n + 0.001 * n * n for n in TOKENS]
    assert "lack of fit" in power(fit_power(TOKENS, y, deterministic=True)).note
    assert "lack of fit" not in power(fit_power(TOKENS, y)).note
    assert "lack of fit" in overhead(fit_overhead(TOKENS, y, deterministic=True)).note


@pytest.mark.parametrize("fit", [fit_power, fit_overhead, curvature, describe_scaling])
@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ([1, 2, 3], [1, 2], "3 token counts but 2 values"),
        ([1, 2, 3], [1, math.nan, 2], "finite"),
        ([1, math.inf, 3], [1, 2, 3], "finite"),
        ([0, 1, 2], [1, 2, 3], "positive"),
        ([-1, 1, 2], [1, 2, 3], "positive"),
    ],
)
def test_mistakes_of_the_caller_are_refused(fit, x, y, message):
    with pytest.raises(ValueError, match=message):
        fit(x, y)


@pytest.mark.parametrize(
    ("x", "y", "reason"),
    [
        ([], [], "0 token counts"),
        ([196], [1.0], "1 token count:"),
        ([196, 196, 196], [1.0, 1.1, 1.2], "1 token count:"),
        ([196, 784, 3136], [0.0, 1.0, 2.0], "zero or negative"),
        ([196, 784, 3136], [-1.0, 1.0, 2.0], "zero or negative"),
    ],
)
def test_what_cannot_be_fitted_says_why(x, y, reason):
    for fit in (fit_power(x, y), fit_overhead(x, y), curvature(x, y)):
        assert isinstance(fit, Unfit)
        assert reason in fit.reason
    everything = describe_scaling(x, y)
    assert isinstance(everything.power, Unfit)
    assert everything.local_exponents is None


# An overhead and a power


@pytest.mark.parametrize("alpha", [0.5, 1.0, 1.5, 2.0])
@pytest.mark.parametrize("share", SHARES)
def test_an_exact_overhead_is_found_exactly(alpha, share):
    first = TOKENS[0] ** alpha
    fixed = share / (1 - share) * first
    fit = overhead(fit_overhead(TOKENS, [2e-3 * (fixed + n**alpha) for n in TOKENS]))
    assert fit.exponent == pytest.approx(alpha, abs=1e-7)
    assert fit.overhead == pytest.approx(2e-3 * fixed, rel=1e-6, abs=1e-9 * first)
    assert fit.coefficient == pytest.approx(2e-3, rel=1e-6)
    assert fit.share == pytest.approx(share, abs=1e-7)
    assert fit.low == fit.high == fit.exponent
    assert fit.residual_sd == 0
    assert not fit.unbounded


@pytest.mark.parametrize("noise", [0.01, 0.03])
@pytest.mark.parametrize("n", [5, 6, 8])
def test_the_interval_beside_an_overhead_covers_as_often_as_it_says(n, noise):
    trials, x = 500, tokens(n)
    random = np.random.default_rng(n)
    hits, widths = 0, []
    for trial in range(trials):
        share = SHARES[trial % len(SHARES)]
        clean = share / (1 - share) * x[0] ** 1.5 + x**1.5
        fit = overhead(fit_overhead(x, clean * np.exp(noise * random.standard_normal(n))))
        low, high = fit.low or -math.inf, fit.high or math.inf
        hits += low <= 1.5 <= high
        widths.append(high - low)
        assert low <= fit.exponent <= high
    assert hits / trials > 0.95 - four_sd(0.95, trials)
    assert np.median(widths) < 8 * noise  # and not by being useless


def test_the_profile_agrees_with_a_search_by_scipy():
    optimize = pytest.importorskip("scipy.optimize")
    x = tokens(6)
    for seed in range(5):
        y = (3000 + x**1.5) * np.exp(0.02 * np.random.default_rng(seed).standard_normal(6))

        def residuals(p, y=y):
            return np.log(np.exp(p[0]) + np.exp(p[1]) * x ** p[2]) - np.log(y)

        best = optimize.least_squares(residuals, [8.0, 0.0, 1.5], xtol=1e-15, ftol=1e-15, gtol=1e-15, x_scale="jac")
        fit = overhead(fit_overhead(x, y))
        assert fit.residual_sd == pytest.approx(math.sqrt(2 * best.cost / 3), rel=1e-6)
        assert fit.exponent == pytest.approx(best.x[2], abs=1e-3)
        assert fit.overhead == pytest.approx(math.exp(best.x[0]), rel=1e-2)


def test_data_that_cannot_tell_leave_the_interval_open():
    nearly_flat = [1.0, 1.001, 0.999, 1.0, 1.01]
    fit = overhead(fit_overhead(TOKENS, nearly_flat))
    assert fit.high is None
    assert fit.unbounded
    assert "do not limit the exponent" in fit.note
    constant = overhead(fit_overhead(TOKENS, [7.0] * 5))
    assert constant.low is None
    assert constant.high is None
    assert constant.note == "the data do not limit the exponent from below or above"


def test_an_overhead_needs_four_token_counts_and_growth():
    three = fit_overhead([100, 200, 400, 400], [1.0, 2.0, 4.0, 4.1])
    assert isinstance(three, Unfit)
    assert "at least 4" in three.reason
    throughput = fit_overhead(TOKENS, [1e6 / n for n in TOKENS])
    assert isinstance(throughput, Unfit)
    assert "fall" in throughput.reason


# One power or not


def test_curved_exact_series_warn_and_straight_ones_do_not():
    curved = [n + 0.001 * n * n for n in TOKENS]
    for deterministic in (False, True):
        found = bend(curvature(TOKENS, curved, deterministic))
        assert "a single power does not describe this series" in found.warning
        for alpha in (1, 1.5, 2):
            straight = bend(curvature(TOKENS, [5 * n**alpha for n in TOKENS], deterministic))
            assert straight.warning is None
            assert straight.local_exponents == pytest.approx((alpha, alpha), abs=1e-9)
    assert "at N=196 to" in bend(curvature(TOKENS, curved)).warning
    assert "between N=196 and 576" in bend(curvature(TOKENS, curved, deterministic=True)).warning


def test_local_exponents_without_noise_are_slopes_between_neighbours():
    found = bend(curvature([4, 1, 16], [8, 1, 256], deterministic=True))
    assert found.local_exponents == pytest.approx((1.5, 2.5))
    assert "1.50 between N=1 and 4 to 2.50 between N=4 and 16" in found.warning
    noisy = bend(curvature([1, 4, 16], [1, 8, 256]))
    assert noisy.local_exponents == pytest.approx((1.5, 2.5))
    assert noisy.warning is None  # three points cannot tell curvature from noise


def test_local_exponents_of_noisy_series_are_those_of_a_quadratic():
    x = np.array(TOKENS)
    y = np.exp(0.3 + np.log(x) + 0.05 * np.log(x) ** 2)
    found = bend(curvature(TOKENS, y.tolist()))
    assert found.how == "quadratic"
    assert found.local_exponents == pytest.approx(tuple(1 + 0.1 * np.log(x[[0, -1]])))


def test_a_bend_that_is_real_but_slight_does_not_warn():
    slight = [math.exp(math.log(n) + 0.005 * math.log(n) ** 2) for n in TOKENS]
    for deterministic in (False, True):
        assert bend(curvature(TOKENS, slight, deterministic)).warning is None


def test_significance_of_a_bend_agrees_with_ordinary_least_squares():
    distribution = pytest.importorskip("scipy.stats").t
    x, random = tokens(6), np.random.default_rng(0)
    design = np.vander(np.log(x), 3)
    covariance = np.linalg.inv(design.T @ design)[0, 0]
    decisions = []
    for _ in range(300):
        y = x * np.exp(0.08 * np.log(x) ** 2 + 0.05 * random.standard_normal(6))
        coefficients, squares, *_ = np.linalg.lstsq(design, np.log(y), rcond=None)
        t = coefficients[0] / math.sqrt(squares[0] / 3 * covariance)
        expected = abs(t) > distribution.ppf(0.975, 3)
        decisions.append(expected)
        assert (bend(curvature(x, y)).warning is not None) == expected
    assert 60 < sum(decisions) < 240  # both answers were met


def test_a_jagged_exact_series_warns():
    y = [n * (1.3 if i == 2 else 1) for i, n in enumerate(TOKENS)]
    found = bend(curvature(TOKENS, y, deterministic=True))
    assert found.local_exponents == pytest.approx((1, 1))
    assert "varies from" in found.warning


@pytest.mark.parametrize(("n", "noise"), [(4, 0.1), (6, 0.1), (8, 0.03)])
def test_noise_alone_seldom_warns(n, noise):
    trials, x = 1000, tokens(n)
    random = np.random.default_rng(n)
    warned = sum(
        bend(curvature(x, x**1.5 * np.exp(noise * random.standard_normal(n)))).warning is not None
        for _ in range(trials)
    )
    assert warned / trials < 0.05 + four_sd(0.05, trials)


def test_curvature_is_seen_through_noise():
    x, random = tokens(8), np.random.default_rng(0)
    curved = x + 0.001 * x * x
    seen = [bend(curvature(x, curved * np.exp(0.01 * random.standard_normal(8)))) for _ in range(50)]
    assert sum(found.warning is not None for found in seen) >= 48


# All together


def test_an_overhead_that_hides_growth_is_spoken_of():
    scaling = describe_scaling(TOKENS, [30000 + n**1.5 for n in TOKENS])
    assert power(scaling.power).exponent < 1.2
    assert overhead(scaling.overhead).exponent == pytest.approx(1.5)
    assert any("92 % of the cost at N=196" in warning and "is 1.50" in warning for warning in scaling.warnings)
    assert any("single power" in warning for warning in scaling.warnings)
    first, last = scaling.local_exponents
    assert first < last


def test_a_clean_series_has_no_warnings_and_a_narrow_one_has():
    assert describe_scaling(TOKENS, [n**1.5 for n in TOKENS], deterministic=True).warnings == []
    narrow = describe_scaling([196, 256, 324], [1.0, 1.3, 1.7])
    assert narrow.warnings == ["the points span only a factor of 1.7 in N: do not extrapolate them"]


def test_the_order_of_points_does_not_matter():
    y = [(500 + n**1.4) * (1 + 0.02 * (-1) ** i) for i, n in enumerate(TOKENS)]
    shuffled = [3, 0, 4, 1, 2]
    again = describe_scaling([TOKENS[i] for i in shuffled], [y[i] for i in shuffled])
    assert again == describe_scaling(TOKENS, y)


def test_more_confidence_is_a_wider_interval():
    y = [(500 + n**1.4) * (1 + 0.01 * (-1) ** i) for i, n in enumerate(TOKENS)]
    for fit in (fit_power, fit_overhead):
        widths = [fit(TOKENS, y, c).high - fit(TOKENS, y, c).low for c in (0.5, 0.8, 0.9)]
        assert all(narrow < wide for narrow, wide in pairwise(widths))
