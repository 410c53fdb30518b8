"""Intervals, and counting answers by class: against scipy, formulas and a count by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, norm

from vheatbench.stats import paired_difference, wilson
from vheatbench.studies.accuracy.accuracy import by_class, mean_interval
from vheatbench.studies.accuracy.answers import PENDING, Answers, Part
from vheatbench.studies.accuracy.classes import ClassMap


@given(st.integers(1, 60_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_scipys(counts):
    right, n = counts
    ours = wilson(right, n)
    theirs = binomtest(right, n).proportion_ci(0.95, method="wilson")
    assert ours.value == right / n
    assert ours.low == pytest.approx(theirs.low, abs=1e-12)
    assert ours.high == pytest.approx(theirs.high, abs=1e-12)
    assert 0 <= ours.low <= ours.value <= ours.high <= 1


def test_no_proportion():
    for right, n in ((1, 0), (3, 2), (-1, 2)):
        with pytest.raises(ValueError, match="no proportion"):
            wilson(right, n)


def test_paired_difference_by_hand():
    change = paired_difference(30, 12, 500)
    b, c, total = 30.5, 12.5, 502
    variance = (b + c - (b - c) ** 2 / total) / total**2
    assert change.value == pytest.approx(18 / 500)
    assert change.low == pytest.approx((b - c) / total - norm.ppf(0.975) * math.sqrt(variance))
    assert change.high == pytest.approx((b - c) / total + norm.ppf(0.975) * math.sqrt(variance))
    assert change.low > 0
    swapped = paired_difference(12, 30, 500)
    assert (swapped.value, swapped.low, swapped.high) == pytest.approx((-change.value, -change.high, -change.low))
    for gained, lost, n in ((1, 1, 1), (-1, 0, 5), (0, 0, 0)):
        with pytest.raises(ValueError, match="no counts"):
            paired_difference(gained, lost, n)


def test_mean_does_not_depend_on_the_order():
    values = np.random.default_rng(0).exponential(size=999) * 10.0 ** np.arange(999).clip(0, 12)
    one, other = mean_interval(values), mean_interval(values[::-1].copy())
    assert one == other
    spread = norm.ppf(0.975) * values.std(ddof=1) / math.sqrt(len(values))
    assert one.value == pytest.approx(values.mean())
    assert one.high - one.value == pytest.approx(spread)
    assert mean_interval(np.array([2.0])) == (2.0, 2.0, 2.0, 0.0)
    with pytest.raises(ValueError, match="no values"):
        mean_interval(np.array([]))


def test_classes_the_worst_first():
    classes = ClassMap((10, 20, 30), {10: "ant", 20: "bee", 30: "cat"}, "", 40)
    targets = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2], dtype=np.int32)
    predicted = np.array([20, 33, 20, 20, 10, 30, 30, 10, 20], dtype=np.int32)
    found = by_class(predicted, targets, ("ant", "bee", "cat", "dog"), classes)
    # of bee and cat, equal in accuracy, the one with more images comes first; dog has none
    assert [(c.name, c.correct, c.images) for c in found] == [("ant", 0, 3), ("cat", 2, 4), ("bee", 1, 2)]
    assert found[0].taken_for == [("bee", 2), ("output 33", 1)]
    assert found[1].taken_for == [("ant", 1), ("bee", 1)]
    assert found[1].accuracy == wilson(2, 4)


def test_no_image_is_answered_twice():
    answers = Answers(5)
    answers.add([Part([0, 2], [7, 8], [0, 3], [0.5, 1.5], {1: "torn"}, 2.0, 1.0), Part([3], [9], [1], [2.5], {}, 3.0)])
    assert answers.predicted.tolist() == [7, -2, 8, 9, PENDING]
    assert answers.done == 4
    assert answers.unreadable == [1]
    assert answers.within(1).tolist() == [True, False, False]
    assert answers.within(2).tolist() == [True, False, True]
    assert answers.chunks == [(3, 3.0, 1.0)]
    for again in (Part([2], [0], [0], [0.0]), Part([], [], [], [], {1: ""}), Part([4, 4], [0, 0], [0, 0], [0.0, 0.0])):
        with pytest.raises(ValueError, match="answered twice"):
            answers.add([again])
    stored = answers.to_bytes()
    back = Answers.from_bytes(stored, 5)
    assert back.predicted.tolist() == answers.predicted.tolist()
    assert back.loss.tolist() == answers.loss.tolist()
    assert back.rank.tolist() == answers.rank.tolist()
    assert back.chunks == answers.chunks
    with pytest.raises(ValueError, match="another number"):
        Answers.from_bytes(stored, 6)
    for torn in (b"", stored[:-40], b"PK no"):
        with pytest.raises(ValueError, match="not stored answers"):
            Answers.from_bytes(torn, 5)
