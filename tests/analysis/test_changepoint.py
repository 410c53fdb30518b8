"""Change points, tested as statistics: how often they are wrong, and how often they see a step."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, mannwhitneyu, norm, rankdata

from vheatbench.analysis import changepoint
from vheatbench.analysis.changepoint import LEAST_AFTER, LEAST_BEFORE, WINDOW, change_points, exact_changes

N = 60


def noise(kind: str, seed: int, sd: float = 0.02, n: int = N) -> np.ndarray:
    """A series around 1 without a change."""
    generator = np.random.default_rng(seed)
    values = 1 + sd * generator.standard_normal(n)
    if kind == "spiky":
        values *= np.where(generator.random(n) < 0.05, 1.5, 1.0)
    if kind == "autocorrelated":
        shocks = sd * np.sqrt(1 - 0.25) * generator.standard_normal(n)
        level = shocks[0] / np.sqrt(1 - 0.25)
        values = np.empty(n)
        for i, shock in enumerate(shocks):
            level = 0.5 * level + shock if i else level
            values[i] = 1 + level
    return values


def alarms(kind: str, seeds: int, **options) -> int:
    return sum(bool(change_points(noise(kind, seed), **options)) for seed in range(seeds))


@pytest.mark.parametrize("kind", ["iid", "spiky"])
def test_false_alarms_stay_below_alpha(kind):
    # without the least effect, which alone would hide a broken test
    assert alarms(kind, 1000, least_effect=0.0) <= binom.ppf(0.999, 1000, 0.01)


@pytest.mark.parametrize("kind", ["iid", "spiky"])
def test_false_alarms_of_the_whole_rule_are_rarer(kind):
    assert alarms(kind, 1000) <= 5


def test_false_alarms_with_neighbours_alike_are_as_documented():
    assert alarms("autocorrelated", 600) <= binom.ppf(0.999, 600, 0.06)


def test_alarms_are_as_frequent_as_alpha_says():
    # a rule that never speaks would pass the tests above
    found = alarms("iid", 1000, alpha=0.2, least_effect=0.0)
    assert binom.ppf(0.001, 1000, 0.2) <= found <= binom.ppf(0.999, 1000, 0.2)


@pytest.mark.parametrize(("kind", "least"), [("iid", 80), ("spiky", 75)])
def test_a_step_of_six_percent_is_seen_ten_points_later(kind, least):
    seen = 0
    for seed in range(100):
        values = noise(kind, seed)
        values[-10:] *= 1.06
        seen += any(abs(change.index - (N - 10)) <= 3 for change in change_points(values))
    assert seen >= least


def test_what_is_found_is_the_step():
    values = noise("iid", 3, sd=0.005)
    values[40:] *= 1.1
    (change,) = change_points(values)
    assert change.index == 40
    assert change.before == pytest.approx(np.median(values[:40]))
    assert change.after == pytest.approx(np.median(values[40:]))
    assert change.relative == pytest.approx(0.1, abs=0.01)
    assert 0 < change.p <= 0.01


def test_two_steps_up_and_down():
    values = noise("iid", 5, sd=0.005, n=90)
    values[30:60] *= 1.2
    changes = change_points(values)
    assert [change.index for change in changes] == [30, 60]
    assert [change.relative > 0 for change in changes] == [True, False]
    assert changes[0].after == changes[1].before


def test_a_step_needs_points_on_both_sides():
    values = noise("iid", 11, sd=0.001)
    values[30:] *= 2
    assert [c.index for c in change_points(values[: 30 + LEAST_AFTER])] == [30]
    assert 30 not in [c.index for c in change_points(values[: 30 + LEAST_AFTER - 1])]
    assert [c.index for c in change_points(values[30 - LEAST_BEFORE :])] == [LEAST_BEFORE]
    assert LEAST_BEFORE - 1 not in [c.index for c in change_points(values[31 - LEAST_BEFORE :])]
    assert change_points(values[25 : 25 + LEAST_BEFORE + LEAST_AFTER - 1]) == []


def test_small_effects_are_left_alone():
    values = noise("iid", 7, sd=0.001)
    values[30:] *= 1.02
    assert change_points(values) == []
    assert [c.index for c in change_points(values, least_effect=0.01)] == [30]


def test_a_spike_is_no_change():
    values = noise("iid", 9)
    values[25] *= 10
    assert change_points(values) == []


def test_only_the_last_values_count():
    values = np.concatenate([5 * noise("iid", 1, n=50), noise("iid", 2, sd=0.001, n=WINDOW)])
    assert change_points(values) == []
    late = np.concatenate([values, 2 * noise("iid", 3, sd=0.001, n=20)])
    # the window moved on with them
    assert [change.index for change in change_points(late)] == [len(values)]


def test_ties_are_no_harm():
    same = [100.0] * 40
    assert change_points(same) == []
    assert [c.index for c in change_points([100.0] * 20 + [110.0] * 20)] == [20]
    found = 0
    for seed in range(1000):  # six of sixty are different: the null without ties would speak 45 times
        values = np.ones(N)
        values[np.random.default_rng(seed).choice(N, 6, replace=False)] = 2
        found += bool(change_points(values, least_effect=0.0))
    assert found <= binom.ppf(0.999, 1000, 0.01)


def test_zero_and_negative_levels():
    assert change_points([0.0] * 20 + [1.0] * 20)[0].relative == np.inf
    (change,) = change_points([-2.0] * 20 + [-1.0] * 20)
    assert change.relative == pytest.approx(0.5, abs=0.01)


def test_the_statistic_is_mann_and_whitneys():
    generator = np.random.default_rng(1)
    for values in (generator.standard_normal(25), np.round(2 * generator.standard_normal(25))):
        ranks = changepoint._midranks(values)
        assert np.array_equal(ranks, rankdata(values))
        curve = changepoint._standardised(ranks[None, :])[0]
        for i, z in enumerate(curve):
            k = LEAST_BEFORE + i
            exact = mannwhitneyu(values[:k], values[k:], method="asymptotic", use_continuity=False)
            assert 2 * norm.sf(abs(z)) == pytest.approx(exact.pvalue, rel=1e-6)


@given(st.lists(st.floats(0.1, 10), min_size=0, max_size=50))
def test_any_series_gives_changes_in_order_and_twice_the_same(values):
    changes = change_points(values)
    assert changes == change_points(values)
    places = [change.index for change in changes]
    assert places == sorted(set(places) & set(range(1, len(values))))
    assert all(abs(change.relative) >= 0.03 for change in changes)


def test_exact_metrics_change_at_every_difference():
    changes = exact_changes([10, 10, 11, 11, 9])
    assert [(c.index, c.before, c.after) for c in changes] == [(2, 10, 11), (4, 11, 9)]
    assert exact_changes([]) == exact_changes([3.0]) == []
