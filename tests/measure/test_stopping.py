from __future__ import annotations

import random

import pytest

from vheatbench.measure.stopping import Policy, StoppingRule, is_warm


def run(values, policy, seconds_each=None):
    rule = StoppingRule(policy)
    elapsed = 0.0
    for value in values:
        rule.add(value)
        elapsed += value if seconds_each is None else seconds_each
        ended = rule.finished(elapsed)
        if ended:
            return ended, len(rule.values)
    return None, len(rule.values)


def test_steady_samples_stop_at_the_floor():
    assert run([0.1] * 50, Policy(min_samples=10)) == ("precision", 10)


def test_the_ceiling_never_undercuts_the_floor():
    generator = random.Random(0)
    noisy = [generator.uniform(0.5, 1.5) for _ in range(100)]
    assert run(noisy, Policy(min_samples=10, ceiling_s=0.1)) == ("ceiling", 10)


def test_very_slow_steps_are_content_with_three():
    assert run([5.0, 9.0, 4.0, 6.0], Policy(slow_s=2.0, ceiling_s=10.0)) == ("ceiling", 3)


def test_three_agreeing_samples_are_no_precision():
    # 3 values cover the median with 75 % only: the rule must go on until the ceiling or 6 values
    assert run([5.0] * 20, Policy(slow_s=2.0, ceiling_s=1000.0)) == ("precision", 6)


def test_noise_that_more_samples_do_not_narrow_is_a_plateau():
    # two alternating levels: the interval of the median stays as wide as their distance
    values = [1.0 + 0.2 * (i % 2) for i in range(1000)]
    ended, n = run(values, Policy(min_samples=10, ceiling_s=1e9))
    assert ended == "plateau"
    assert 40 <= n < 100


def test_normal_noise_reaches_the_target():
    generator = random.Random(1)
    values = [generator.gauss(1, 0.02) for _ in range(1000)]
    ended, n = run(values, Policy(relative_precision=0.01, ceiling_s=1e9))
    assert ended == "precision"
    assert n < 60


def test_max_samples():
    generator = random.Random(2)
    values = [generator.uniform(0.1, 2) for _ in range(100)]
    assert run(values, Policy(max_samples=20, ceiling_s=1e9, relative_precision=1e-6)) == ("ceiling", 20)


def test_warm_means_no_longer_falling():
    assert not is_warm([1.0] * 5)
    assert not is_warm([3.0, 2.5, 2.2, 1.5, 1.2, 1.0])
    assert is_warm([3.0, 1.0, 1.01, 0.99, 1.0, 1.02, 0.98])
    assert is_warm([1.0, 1.0, 1.0, 1.2, 1.3, 1.1])


@pytest.mark.parametrize("bad", [{"min_samples": 0}, {"max_samples": 1}, {"relative_precision": 0}, {"ceiling_s": -1}])
def test_impossible_policies_are_refused(bad):
    with pytest.raises(ValueError, match=r"must be at least|should be greater than"):
        Policy(**bad)
