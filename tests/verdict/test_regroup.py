"""The noise floor from rounds of identical code, regrouped."""

from __future__ import annotations

import math

import numpy as np
import pytest

from support.records import record
from vheatbench.analysis.signed_rank import hodges_lehmann
from vheatbench.store import Samples
from vheatbench.verdict.regroup import floor_of, log_ratios, regrouped


def test_a_comparison_takes_each_round_once_and_may_change_the_names_of_its_sides() -> None:
    d = np.arange(1.0, 13.0)
    found = regrouped(d, 8, 500)
    assert found.shape == (500, 8)
    assert all(len(set(row)) == 8 for row in np.abs(found))
    assert set(np.abs(found).ravel()) == set(d)
    assert 0.45 < (found > 0).mean() < 0.55
    assert (regrouped(d, 8, 500) == found).all()
    assert (regrouped(d, 8, 500, seed=1) != found).any()
    with pytest.raises(ValueError, match="7 rounds cannot be regrouped into comparisons of 8"):
        regrouped(d[:7], 8, 1)


def test_the_floor_is_what_99_in_100_comparisons_stay_within() -> None:
    generator = np.random.default_rng(3)
    sd, rounds = 0.03, 10
    d = generator.normal(0, sd, size=400)
    floor = floor_of([d], rounds, 0.99)
    # the estimate's own spread is sqrt(pi / 3 / n) of a round's (Hollander, Wolfe and Chicken, 3.2)
    expected = 2.576 * sd * math.sqrt(math.pi / 3 / rounds)
    assert floor.margin == pytest.approx(math.expm1(expected), rel=0.15)
    assert floor.comparisons == 2000
    beyond = [abs(hodges_lehmann(row)) > math.log1p(floor.margin) + 1e-12 for row in regrouped(d, rounds, 2000)]
    assert 0.005 < sum(beyond) / 2000 <= 0.01
    assert floor.false_alarms is not None
    assert floor.false_alarms < 0.001  # the gate wants a whole interval beyond it


def test_the_noisiest_case_sets_the_floor() -> None:
    quiet, noisy = [0.001 * (-1) ** i for i in range(8)], [0.05 * (-1) ** i * (1 + i / 10) for i in range(8)]
    both = floor_of([quiet, noisy], 8, 0.99)
    assert both.margin == floor_of([noisy], 8, 0.99).margin
    assert both.comparisons == 4000
    with pytest.raises(ValueError, match="no cases"):
        floor_of([], 8, 0.99)


def test_ratios_of_the_rounds_that_both_sides_have() -> None:
    def side(*values: float, missing: int | None = None):
        made = [record("vit-s", 224, 0.1, round=i) for i in range(len(values))]
        for one, value in zip(made, values, strict=True):
            one.samples["latency_s"] = Samples(unit="s", values=[value] * 3)
        return [one for one in made if one.round != missing]

    base, head = side(1.0, 2.0, 3.0, 1.0), side(2.0, 2.0, 5.0, 0.0, missing=2)
    assert log_ratios(base, head, "latency_s") == pytest.approx([math.log(2), 0.0])
    head[0].status = "failed"
    assert log_ratios(base, head, "latency_s") == pytest.approx([0.0])
    assert log_ratios(base, head, "nothing") == []
    # a resident set may not grow at all
    base[1].metrics["peak_memory_bytes"].value = 0.0
    head[1].metrics["peak_memory_bytes"].value = 2.0**20
    assert log_ratios([base[1]], [head[1]], "peak_memory_bytes") == pytest.approx([math.log(2)])
