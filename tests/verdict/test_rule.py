"""The gate, tested as statistics: false alarms and detection over seeded rounds, exactness against scipy."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from vheatbench.analysis.signed_rank import hodges_lehmann, signed_rank_counts, signed_rank_interval
from vheatbench.errors import UserError
from vheatbench.verdict.rule import (
    MIN_ROUNDS,
    Looks,
    _rank_sum_counts,
    decide,
    gate,
    gate_unpaired,
    holm,
)

SEEDS = 1000
ROUNDS = 10
MARGIN = math.log1p(0.05)
NOISE = 0.02
KINDS = ("normal", "spiky", "t2", "drifting", "ar1")


def bursts(kind: str, seeds: int, count: int, seed: int = 0) -> np.ndarray:
    """Log times of bursts one after the other, (seeds, count), of identical code."""
    chance = np.random.default_rng(seed)
    normal = NOISE / math.sqrt(2) * chance.standard_normal((seeds, count))
    if kind == "normal":
        return normal
    if kind == "spiky":
        return normal + chance.exponential(0.3, (seeds, count)) * (chance.random((seeds, count)) < 0.1)
    if kind == "t2":
        return NOISE * chance.standard_t(2, (seeds, count))
    if kind == "drifting":
        walk = np.cumsum(NOISE * chance.standard_normal((seeds, count)), axis=1)
        return normal + walk + np.linspace(0, 0.4, count) * chance.choice([-1, 1], (seeds, 1))
    noise = np.zeros((seeds, count))
    for i in range(count):
        noise[:, i] = 0.8 * noise[:, i - 1] + 0.03 * chance.standard_normal(seeds)
    return noise


def in_turns(times: np.ndarray, effect: float = 0.0, seed: int = 1) -> np.ndarray:
    """Log ratios (seeds, rounds) of bursts taken in ABBA or BAAB order, by chance for each two rounds."""
    seeds, count = times.shape
    pairs = times.reshape(seeds, count // 2, 2)
    turned = np.random.default_rng(seed).random((seeds, (count // 2 + 1) // 2)) < 0.5
    turned = np.repeat(turned, 2, axis=1)[:, : count // 2] ^ (np.arange(count // 2) % 2 == 1)
    ratios = pairs[..., 1] - pairs[..., 0]
    return np.where(turned, -ratios, ratios) + effect


def alarms(ratios: np.ndarray, margin: float = 0.0) -> int:
    """How many of these comparisons end regressed or improved."""
    return sum(gate(row, margin).verdict in ("regressed", "improved") for row in ratios)


def allowed(alpha: float = 0.01, n: int = SEEDS) -> int:
    """More alarms than this are no accident."""
    return int(stats.binom.ppf(0.999, n, alpha))


@pytest.mark.parametrize("kind", KINDS)
def test_identical_code_raises_no_more_alarms_than_asked_for(kind):
    """At margin 0, where the 99 % interval alone decides: the hardest case."""
    assert alarms(in_turns(bursts(kind, SEEDS, 2 * ROUNDS))) <= allowed()


@pytest.mark.parametrize("kind", KINDS)
def test_the_margin_makes_false_regressions_rarer_still(kind):
    ratios = in_turns(bursts(kind, SEEDS, 2 * ROUNDS, seed=7))
    assert sum(gate(row).verdict == "regressed" for row in ratios) <= 5


@pytest.mark.parametrize("kind", KINDS)
def test_code_slower_by_just_the_margin_is_called_regressed_no_more_often_than_asked_for(kind):
    ratios = in_turns(bursts(kind, SEEDS, 2 * ROUNDS, seed=3), effect=MARGIN)
    assert sum(gate(row).verdict == "regressed" for row in ratios) <= allowed(0.005)


def test_margin_and_twice_the_noise_are_detected():
    found = [gate(row).verdict for row in in_turns(bursts("normal", SEEDS, 2 * ROUNDS), effect=MARGIN + 2 * NOISE)]
    assert found.count("regressed") >= 0.95 * SEEDS


def test_an_improvement_is_detected_as_well():
    found = [gate(row).verdict for row in in_turns(bursts("normal", 200, 2 * ROUNDS), effect=-MARGIN - 2 * NOISE)]
    assert found.count("improved") >= 0.95 * 200


def test_quiet_rounds_of_identical_code_are_the_same():
    found = [gate(row).verdict for row in in_turns(bursts("normal", 200, 2 * ROUNDS))]
    assert found.count("same") >= 0.95 * 200


def test_a_rule_that_pools_samples_would_fail_these_tests():
    """Samples of one process share its luck: as independent ones they prove anything."""
    chance = np.random.default_rng(0)
    times = bursts("normal", 300, 2 * ROUNDS)
    samples = times[..., None] + 0.005 * chance.standard_normal((*times.shape, 25))
    base, head = (samples[:, side::2].reshape(300, -1) for side in (0, 1))
    found = sum(
        stats.mannwhitneyu(b, h, alternative="two-sided").pvalue < 0.01 for b, h in zip(base, head, strict=True)
    )
    assert found > allowed(n=300)


def test_a_rule_that_ignores_pairs_would_fail_these_tests():
    """Drift hides what pairs show; and in blocks it makes alarms of nothing."""
    times = bursts("drifting", 300, 2 * ROUNDS)
    effect = MARGIN + 0.08
    paired = [gate(row).verdict for row in in_turns(times, effect)]
    unpaired = [gate_unpaired(row[0::2], row[1::2] + effect, 0.05, 0.99, None).verdict for row in times]
    assert paired.count("regressed") >= 0.9 * 300
    assert unpaired.count("regressed") < 0.5 * 300
    blocks = [gate_unpaired(row[:ROUNDS], row[ROUNDS:], 0.0, 0.99, None).verdict for row in times]
    assert blocks.count("regressed") + blocks.count("improved") > allowed(n=300)


def test_blocks_are_false_alarms_that_a_cap_stops():
    times = bursts("drifting", 300, 2 * ROUNDS)
    rows = times[:, ROUNDS:] - times[:, :ROUNDS]
    assert sum(gate(row).verdict == "regressed" for row in rows) > allowed(n=300)
    verdicts = {gate(row, capped="in blocks").verdict for row in rows}
    assert "suspect" in verdicts
    assert not verdicts & {"regressed", "improved"}


@pytest.mark.parametrize("kind", ["normal", "t2", "ar1"])
def test_looking_three_times_keeps_the_error_probability(kind):
    looks = Looks()
    found = [_sequence(row, looks) for row in in_turns(bursts(kind, SEEDS, 2 * looks.rounds[-1]))]
    assert sum(verdict in ("regressed", "improved") for verdict in found) <= allowed()


def test_looking_after_every_round_without_splitting_it_would_not():
    rows = in_turns(bursts("normal", SEEDS, 40))
    found = sum(
        any(gate(row[:n], 0.0).verdict in ("regressed", "improved") for n in range(MIN_ROUNDS, 21)) for row in rows
    )
    assert found > allowed()


def _sequence(row, looks):
    return next(found.verdict for n in range(1, len(row) + 1) if (found := decide(row[:n], looks, 0.0)) is not None)


def test_looks_decide_at_looks_only_and_go_on_while_the_answer_is_open():
    looks = Looks((10, 15), alpha=0.01)
    clear = [0.3] * 12
    assert decide(clear[:9], looks) is None
    assert decide(clear[:10], looks).verdict == "regressed"
    assert decide(clear[:11], looks) is None
    open_ = [0.3, -0.3] * 10
    assert decide(open_[:10], looks) is None
    assert decide(open_[:15], looks).verdict == "inconclusive"
    late = [*open_[:15], *[5.0] * 5]
    assert decide(late, looks) == decide(late[:15], looks)
    assert decide([0.02, 0.2] * 5, looks) is None, "suspect is open"
    assert decide(clear[:10], looks).confidence == pytest.approx(0.995)


def test_looks_that_cannot_see_say_so():
    assert Looks((10, 15, 20), 0.01).blind == ()
    assert Looks((5, 8, 12), 0.01).blind == (5, 8)
    for wrong in ((), (10, 10), (15, 10), (0, 10)):
        with pytest.raises(UserError, match="growing"):
            Looks(wrong)
    with pytest.raises(UserError, match="error probability"):
        Looks(alpha=1.0)


@pytest.mark.parametrize("n", range(1, 13))
def test_the_signed_rank_distribution_is_that_of_all_signs(n):
    counts = np.zeros(n * (n + 1) // 2 + 1, dtype=int)
    for signs in itertools.product((0, 1), repeat=n):
        counts[sum(rank for rank, sign in enumerate(signs, 1) if sign)] += 1
    assert signed_rank_counts(n) == tuple(counts)


@pytest.mark.parametrize(("m", "n"), [(1, 1), (2, 3), (4, 4), (5, 3), (0, 3)])
def test_the_rank_sum_distribution_is_that_of_all_arrangements(m, n):
    counts = np.zeros(m * n + 1, dtype=int)
    for chosen in itertools.combinations(range(m + n), n):
        counts[sum(place - i for i, place in enumerate(chosen))] += 1
    assert _rank_sum_counts(m, n) == tuple(counts)


@pytest.mark.parametrize("n", [8, 9, 10, 12])
@pytest.mark.parametrize("confidence", [0.95, 0.99])
def test_the_interval_holds_what_the_exact_wilcoxon_test_does_not_reject(n, confidence):
    d = np.random.default_rng(n).standard_normal(n)
    low, high = signed_rank_interval(d, confidence)

    def rejected(centre):
        return stats.wilcoxon(d - centre, method="exact").pvalue <= 1 - confidence

    assert rejected(low - 1e-9)
    assert not rejected(low + 1e-9)
    assert not rejected(high - 1e-9)
    assert rejected(high + 1e-9)


@pytest.mark.parametrize("n", range(1, MIN_ROUNDS))
def test_too_few_rounds_have_no_interval_and_decide_nothing(n):
    assert signed_rank_interval([1.0] * n, 0.99) == (-math.inf, math.inf)
    found = gate([5.0] * n)
    assert found.verdict == "inconclusive"
    assert math.isinf(found.detectable)
    # at 50 % there is an interval, but the rule still wants its rounds
    assert gate([5.0] * n, confidence=0.5).verdict == "inconclusive"


def test_eight_rounds_can_decide_and_none_at_all_do_not():
    assert gate([0.2] * 8).verdict == "regressed"
    assert gate([]).verdict == "inconclusive"
    assert gate([]).p == 1.0


@pytest.mark.parametrize(
    ("ratios", "verdict"),
    [
        ([0.10] * 10, "regressed"),
        ([-0.10] * 10, "improved"),
        ([0.04] * 10, "same"),
        ([-0.04] * 10, "same"),
        ([MARGIN] * 10, "same"),
        ([0.02, 0.10] * 5, "suspect"),
        ([-0.02, -0.10] * 5, "inconclusive"),
        ([-0.10, 0.10] * 5, "inconclusive"),
    ],
)
def test_the_rule(ratios, verdict):
    assert gate(ratios).verdict == verdict


def test_what_is_no_worse_than_the_margin_is_clear_even_if_inconclusive():
    assert gate([-0.02, -0.10] * 5).clear
    assert not gate([-0.10, 0.10] * 5).clear
    assert not gate([0.0]).clear


def test_detectable_is_what_would_have_been_called_regressed():
    ratios = 0.03 * np.random.default_rng(5).standard_normal(12)
    found = gate(ratios)
    shifted = ratios - found.estimate
    assert gate(shifted + found.detectable * 1.001).verdict == "regressed"
    assert gate(shifted + found.detectable * 0.999).verdict != "regressed"


@pytest.mark.parametrize("seed", range(5))
def test_p_is_that_of_the_exact_one_sided_wilcoxon_test_against_the_margin(seed):
    d = MARGIN + 0.05 * np.random.default_rng(seed).standard_normal(11) + 0.02
    expected = stats.wilcoxon(d - MARGIN, alternative="greater", method="exact").pvalue
    assert gate(d).p == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_unpaired_p_is_that_of_the_exact_mann_whitney_test(seed):
    chance = np.random.default_rng(seed)
    base, head = chance.standard_normal(8), chance.standard_normal(9) + 1
    expected = stats.mannwhitneyu(head - MARGIN, base, alternative="greater", method="exact").pvalue
    found = gate_unpaired(base, head, 0.05, 0.99, None)
    assert found.p == pytest.approx(expected, rel=1e-9)
    assert found.rounds == 8


def test_unpaired_interval_agrees_with_the_exact_mann_whitney_test():
    chance = np.random.default_rng(1)
    base, head = chance.standard_normal(9), chance.standard_normal(10) + 0.5
    found = gate_unpaired(base, head, 0.05, 0.99, None)

    def rejected(shift):
        return stats.mannwhitneyu(head - shift, base, method="exact").pvalue <= 0.01

    assert rejected(found.low - 1e-9)
    assert not rejected(found.low + 1e-9)
    assert not rejected(found.high - 1e-9)
    assert rejected(found.high + 1e-9)


def test_hodges_lehmann_shrugs_at_spikes():
    assert hodges_lehmann([1.0, 2.0, 3.0]) == 2.0
    assert hodges_lehmann([0.0, 0.0, 0.0, 0.0, 100.0]) == 0.0
    with pytest.raises(ValueError, match="no values"):
        hodges_lehmann([])


def test_holm_is_the_textbook_example():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize("wrong", [[math.nan] * 9, [math.inf, *[0.0] * 9]])
def test_ratios_that_are_no_numbers_are_refused(wrong):
    with pytest.raises(ValueError, match="not finite"):
        gate(wrong)
    with pytest.raises(ValueError, match="not finite"):
        gate_unpaired(wrong, [0.0] * 9, 0.05, 0.99, None)


@pytest.mark.parametrize(("margin", "confidence"), [(-0.1, 0.99), (math.nan, 0.99), (0.05, 1.0), (0.05, 0.0)])
def test_settings_that_make_no_sense_are_refused(margin, confidence):
    with pytest.raises(ValueError, match="must"):
        gate([0.0] * 10, margin, confidence)


ratios = st.lists(st.floats(-1, 1).map(lambda x: round(x, 6)), min_size=8, max_size=14)


@settings(max_examples=100, deadline=None)
@given(ratios, st.floats(-1, 1))
def test_the_interval_moves_with_the_ratios_and_turns_with_their_sign(d, shift):
    values = np.array(d)
    low, high = signed_rank_interval(values)
    assert low <= hodges_lehmann(values) <= high
    assert signed_rank_interval(values + shift) == pytest.approx((low + shift, high + shift), abs=1e-9)
    assert signed_rank_interval(-values) == pytest.approx((-high, -low), abs=1e-12)


@settings(max_examples=100, deadline=None)
@given(ratios, st.sampled_from((0.9, 0.95, 0.99, 0.995)))
def test_regressed_means_a_small_probability_and_only_that(d, confidence):
    found = gate(d, confidence=confidence)
    assert (2 * found.p <= 1 - confidence + 1e-15) == (found.low > MARGIN)
    assert (found.verdict == "regressed") == (found.low > MARGIN)
