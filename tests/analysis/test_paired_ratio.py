"""Ratios of what took turns: what cancels, what the interval covers, and that the gate holds for such rounds."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from vheatbench.analysis.crossover import crossover, ratio_at
from vheatbench.analysis.group_ratios import ratios_of, uncertainty
from vheatbench.analysis.paired_ratio import paired_ratio, round_log_ratio, turn_log_ratios
from vheatbench.analysis.series import series_from
from vheatbench.analysis.time_spent import shares, used_s
from vheatbench.case import Case
from vheatbench.stats import median
from vheatbench.store import Metric, Record, Samples
from vheatbench.verdict.comparison import Comparison
from vheatbench.verdict.judge import judge_case
from vheatbench.verdict.paired import CaseRounds, not_in_turns
from vheatbench.verdict.regroup import log_ratios
from vheatbench.verdict.rule import gate
from vheatbench.verdict.settings import Settings
from vheatbench.verdict.text import detectable

TURNS, PER_TURN = 24, 5


def a_record(subject: str, turns: list[list[float]], round_: int = 0, size: int = 224, session: str = "s") -> Record:
    case = Case(subject=subject, resolution=size)
    values = [value for turn in turns for value in turn]
    middle = median(values)
    return Record(
        case=case,
        case_id=case.id,
        round=round_,
        status="ok",
        metrics={
            "latency_s": Metric(
                value=middle, low=min(values), high=max(values), confidence=0.95, unit="s", direction="lower", how="h"
            ),
            "throughput_images_per_s": Metric(
                value=1 / middle, low=1 / max(values), high=1 / min(values), confidence=0.95, unit="images/s",
                direction="higher", how="h",
            ),
            "macs": Metric(value=1e9, unit="MAC/image", how="h", deterministic=True),
        },
        samples={"latency_s": Samples(unit="s", values=values, turns=[len(turn) for turn in turns])},
        session=session,
        started="2026-01-01T00:00:00Z",
        elapsed_s=10.0,
        spent_s={"start": 1.0, "samples": 5.0, "wait": 4.0},
    )  # fmt: skip


def drifting(factor: float, weather: np.ndarray) -> list[list[float]]:
    return [[0.01 * factor * float(w)] * PER_TURN for w in weather]


def test_what_the_machine_does_to_both_cancels() -> None:
    weather = np.exp(np.cumsum(np.random.default_rng(0).normal(0, 0.1, TURNS)))
    a, b = a_record("a", drifting(1.0, weather)), a_record("b", drifting(1.25, weather))
    assert turn_log_ratios(a, b) == pytest.approx([math.log(1.25)] * TURNS)
    found = paired_ratio([a], [b])
    assert found is not None
    assert tuple(found.ratio)[:3] == pytest.approx((1.25, 1.25, 1.25))
    assert found.rounds == 1
    speed = paired_ratio([a], [b], "throughput_images_per_s")
    assert speed is not None
    assert speed.ratio.value == pytest.approx(0.8)


def test_a_turn_that_was_disturbed_does_not_matter() -> None:
    turns = [[0.01] * PER_TURN for _ in range(TURNS)]
    disturbed = [[0.03] * PER_TURN if i in (3, 4, 11) else turn for i, turn in enumerate(turns)]
    assert round_log_ratio(a_record("a", turns), a_record("b", disturbed)) == 0


def test_turns_after_one_has_ended_are_left_out() -> None:
    a, b = a_record("a", [[1.0], [2.0], [4.0]]), a_record("b", [[2.0], [4.0]])
    assert turn_log_ratios(a, b) == pytest.approx([math.log(2)] * 2)


def test_what_took_no_turns_with_each_other_has_no_paired_ratio() -> None:
    a, b = a_record("a", [[1.0]]), a_record("b", [[1.0]], session="other")
    alone = a_record("b", [[1.0]]).model_copy(update={"session": None})
    failed = a_record("b", [[1.0]]).model_copy(update={"status": "failed", "reason": "r"})
    for other in (b, alone, failed):
        assert paired_ratio([a], [other]) is None
        assert round_log_ratio(a, other) is None
    assert paired_ratio([a], [a_record("b", [[1.0]])], "peak_memory_bytes") is None


def rounds(values: list[list[float]]) -> tuple[list[Record], list[Record]]:
    """Rounds in which the turns' log ratios are these."""
    base = [a_record("a", [[1.0]] * len(v), n, session=str(n)) for n, v in enumerate(values)]
    head = [a_record("b", [[math.exp(x)] for x in v], n, session=str(n)) for n, v in enumerate(values)]
    return base, head


def test_few_rounds_claim_no_more_than_their_range_covers() -> None:
    spread = [0.10, 0.11, 0.12, 0.13, 0.14, 0.15]
    one = paired_ratio(*rounds([spread]))
    assert one is not None
    assert one.log.value == pytest.approx(0.125)
    assert (one.log.low, one.log.high) == pytest.approx((0.10, 0.15))
    assert one.log.confidence == pytest.approx(1 - 2 * 0.5**6)
    three = paired_ratio(*rounds([spread, [x + 0.1 for x in spread], spread]))
    assert three is not None
    assert (three.log.low, three.log.high, three.log.confidence) == pytest.approx((0.10, 0.25, 0.75))


def test_many_rounds_have_the_signed_rank_interval() -> None:
    values = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    found = paired_ratio(*rounds([[value] for value in values]))
    assert found is not None
    # 6 rounds reach 95 % with the whole range of the Walsh averages
    assert tuple(found.log) == pytest.approx((0.35, 0.1, 0.6, 0.95))
    assert found.rounds == 6


def test_ratios_and_crossovers_of_series_come_from_the_turns() -> None:
    weather = {size: np.exp(np.random.default_rng(size).normal(0, 0.3, TURNS)) for size in (224, 448)}
    factors = {224: 1.05, 448: 0.95}
    records = []
    for size, factor in factors.items():
        records += [
            a_record("a", drifting(1.0, weather[size]), size=size, session=str(size)),
            a_record("b", drifting(factor, weather[size]), size=size, session=str(size)),
        ]
    a, b = series_from(records, "latency_s")
    ratio = ratio_at(b, a, 224)
    assert (ratio.value, ratio.low, ratio.high, ratio.paired) == pytest.approx((1.05, 1.05, 1.05, True))
    crossing = crossover(b, a)
    assert crossing.kind == "crosses"
    assert crossing.value == pytest.approx(math.sqrt(224 * 448), rel=0.02)
    blind = [record.model_copy(update={"session": None}) for record in records]
    a, b = series_from(blind, "latency_s")
    assert crossover(b, a).kind == "undecided", "their own intervals overlap by far"
    assert not ratio_at(b, a, 224).paired


def test_ratios_are_to_the_subject_in_question() -> None:
    turns = [[0.01] * 2] * 8
    records = [a_record(name, [[x * k for x in turn] for turn in turns]) for name, k in (("swin-t", 3), ("vheat-t", 1))]
    (found,) = ratios_of(records).items()
    assert found[0] == records[0].case_id
    assert found[1].focus == "vheat-t"
    assert found[1].paired.ratio.value == pytest.approx(3)
    assert uncertainty(records) == 0
    assert uncertainty(records[:1]) == -1


def test_uncertainty_is_relative_to_what_the_ratio_says() -> None:
    def group(low: float, high: float) -> float:
        base = [a_record("vheat-t", [[1.0]] * 6)]
        head = [a_record("swin-t", [[math.exp(x)] for x in np.linspace(low, high, 6)])]
        return uncertainty([*base, *head])

    assert group(0.9, 1.1) == pytest.approx(0.1)
    assert group(0.1, 0.3) == pytest.approx(0.5)
    assert group(-0.1, 0.1) == pytest.approx(2.0), "who is ahead is not known"


def test_time_is_shared_among_what_it_went_to() -> None:
    records = [a_record("a", [[1.0]]), a_record("b", [[1.0]])]
    assert shares(records, 15.0) == pytest.approx({"warm-up and samples": 10 / 15, "other": 3 / 15, "starting": 2 / 15})
    assert sum(shares(records, 1.0).values()) == pytest.approx(1)
    assert used_s(records) == pytest.approx(12.0)


# The gate on such rounds


def noisy_rounds(kind: str, count: int, seed: int, effect: float = 0.0) -> list[tuple[Record, Record]]:
    """Rounds of two sides that take turns on a machine with drift, bursts, or noise that remembers (AR(1))."""
    chance = np.random.default_rng(seed)
    found = []
    for number in range(count):
        moments = 2 * TURNS
        if kind == "drift":
            weather = np.linspace(0, chance.normal(0, 0.4), moments) + np.cumsum(chance.normal(0, 0.02, moments))
        elif kind == "bursts":
            weather = np.zeros(moments)
            for start in chance.integers(0, moments, 3):
                weather[start : start + chance.integers(2, 12)] += chance.exponential(0.5)
        else:
            weather = np.zeros(moments)
            for i in range(1, moments):
                weather[i] = 0.9 * weather[i - 1] + chance.normal(0, 0.05)
        # what a process has of its own: its place in memory
        own = chance.normal(0, 0.01, 2)
        sides: list[list[list[float]]] = [[], []]
        for turn in range(TURNS):
            first = (turn + number) % 2
            for place, side in enumerate((first, 1 - first)):
                log = weather[2 * turn + place] + own[side] + effect * side
                sides[side].append(list(np.exp(log + chance.normal(0, 0.01, PER_TURN))))
        found.append(tuple(a_record(name, turns, number) for name, turns in zip("ab", sides, strict=True)))
    return found  # type: ignore[return-value]


def ratios_in_turns(pairs: list[tuple[Record, Record]]) -> list[float]:
    found = [round_log_ratio(a, b) for a, b in pairs]
    assert None not in found
    return found  # type: ignore[return-value]


SEEDS, ROUNDS = 60, 10


@pytest.fixture(scope="module", params=["drift", "bursts", "ar1"])
def comparisons(request: pytest.FixtureRequest) -> list[list[tuple[Record, Record]]]:
    """Comparisons of identical code."""
    return [noisy_rounds(request.param, ROUNDS, seed) for seed in range(SEEDS)]


def test_the_gate_keeps_its_word_on_rounds_in_turns(comparisons: list[list[tuple[Record, Record]]]) -> None:
    alarms = sum(gate(ratios_in_turns(pairs), 0.0).verdict in ("regressed", "improved") for pairs in comparisons)
    assert alarms <= stats.binom.ppf(0.999, SEEDS, 0.01)
    found = [gate([ratio + 0.1 for ratio in ratios_in_turns(pairs)]).verdict for pairs in comparisons]
    assert found.count("regressed") >= 0.9 * SEEDS, "and finds 10 %"


def test_a_rule_that_takes_turns_for_evidence_would_not(comparisons: list[list[tuple[Record, Record]]]) -> None:
    """Turns of one process share its place in memory: as independent ones they prove anything."""
    alarms = 0
    for pairs in comparisons:
        pooled = [ratio for pair in pairs[:2] for ratio in turn_log_ratios(*pair)]
        alarms += gate(pooled, 0.0).verdict in ("regressed", "improved")
    assert alarms > stats.binom.ppf(0.999, SEEDS, 0.01)


def test_verdicts_and_noise_floors_are_made_of_the_turns() -> None:
    """The machine halves its speed in the middle of each round, and the head sees less of the slow half."""
    rounds = []
    for number in range(10):
        weather = np.where(np.arange(TURNS) < 6 + number, 1.0, 2.0)
        base = a_record("a", drifting(1.0, weather), number, session=str(number))
        head = a_record("a", drifting(1.2, weather)[: 8 + number], number, session=str(number))
        rounds.append((base, head))
    base, head = (tuple(side) for side in zip(*rounds, strict=True))
    assert not_in_turns(rounds) is None, "whatever their records say of when they started"
    unlike = [(b, h.model_copy(update={"session": "other"})) for b, h in rounds]
    assert not_in_turns(unlike) is not None
    case = base[0].case
    (found,) = [
        verdict
        for verdict in judge_case(case, case, CaseRounds(base, head, True, None), Settings(), 0.99, comparable=True)
        if verdict.metric == "latency_s"
    ]
    assert (found.verdict, found.in_turns) == ("regressed", 10)
    assert found.gate is not None
    assert (found.gate.low, found.gate.high) == pytest.approx((math.log(1.2),) * 2)
    assert log_ratios(base, head, "latency_s") == pytest.approx([math.log(1.2)] * 10)
    said = detectable(Comparison("regressed", "regressed", (), (found,), settings=Settings()))
    assert "the median of the turns of each round" in said
    assert "a burst of each side" in detectable(
        Comparison("regressed", "regressed", (), (replace(found, in_turns=0),), settings=Settings())
    )
