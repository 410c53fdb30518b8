from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vheatbench.stats import median, median_interval, quantile, student_t_cdf, student_t_quantile

floats = st.floats(-1e6, 1e6)


@given(st.lists(floats, min_size=1, max_size=40))
def test_median_interval_contains_the_median_and_lies_in_the_range(values):
    interval = median_interval(values)
    assert min(values) <= interval.low <= interval.value <= interval.high <= max(values)
    assert interval.value == median(values) == pytest.approx(quantile(values, 0.5))


@pytest.mark.parametrize(
    ("n", "coverage", "rank"), [(1, 0.0, 1), (3, 0.75, 1), (6, 0.96875, 1), (10, 0.978515625, 2), (20, 0.9586, 6)]
)
def test_median_interval_coverage_by_hand(n, coverage, rank):
    interval = median_interval(list(range(1, n + 1)))
    assert interval.confidence == pytest.approx(coverage, abs=1e-4)
    assert interval.low == rank
    assert interval.high == n + 1 - rank


def test_median_interval_covers_the_true_median_as_often_as_it_says():
    generator = random.Random(0)
    trials = 4000
    hits = 0
    for _ in range(trials):
        interval = median_interval([generator.expovariate(1) for _ in range(15)])
        hits += interval.low <= math.log(2) <= interval.high
    nominal = median_interval(list(range(15))).confidence
    assert abs(hits / trials - nominal) < 4 * math.sqrt(nominal * (1 - nominal) / trials)


@pytest.mark.parametrize("df", [1, 2, 3, 4, 7, 30, 201])
@pytest.mark.parametrize("p", [0.005, 0.1, 0.5, 0.9, 0.975, 0.9995])
def test_student_t_agrees_with_scipy(df, p):
    reference = pytest.importorskip("scipy.stats").t
    assert student_t_quantile(p, df) == pytest.approx(reference.ppf(p, df), rel=1e-8, abs=1e-9)
    assert student_t_cdf(1.3, df) == pytest.approx(reference.cdf(1.3, df), rel=1e-10)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="no values"):
        median_interval([])
    with pytest.raises(ValueError, match="between 0 and 1"):
        student_t_quantile(1.0, 3)
