from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from vheatbench.analysis.axis import GRID, PIXELS
from vheatbench.analysis.crossover import crossover, ratio_at
from vheatbench.analysis.series import Point, Series, series_from
from vheatbench.case import Case
from vheatbench.store.schema import Metric, Record

SIDES = (224, 320, 384, 448, 512, 640, 768, 1024)
Z95 = 1.959963984540054


def series(name, values, noise=0.0, sides=SIDES, direction="lower", metric="latency_s", unit="s"):
    """A series whose intervals are 95 % intervals of log-normal noise with that standard deviation."""
    half = math.exp(Z95 * noise)
    points = tuple(
        Point((side, side), PIXELS.tokens(side), value, value / half, value * half)
        for side, value in zip(sides, values, strict=True)
    )
    return Series(name, "b1 float32 infer", metric, unit, points, direction=direction)


def pair(crossing, noise=0.0, exponents=(1.5, 2.0), sides=SIDES, seed=None):
    """A grows more slowly than B and is better from ``crossing`` pixels on."""
    random = np.random.default_rng(seed)
    found = []
    for name, exponent in zip("ab", exponents, strict=True):
        clean = np.array([(side / crossing) ** (2 * exponent) for side in sides])
        jitter = np.exp(noise * random.standard_normal(len(sides))) if seed is not None else 1.0
        found.append(series(name, (clean * jitter).tolist(), noise, sides))
    return found


# Crossover


@pytest.mark.parametrize("crossing", [230.0, 400.0, 777.0, 1000.0])
def test_two_exact_powers_cross_where_they_must(crossing):
    a, b = pair(crossing)
    found = crossover(a, b)
    assert found.kind == "crosses"
    assert found.value == pytest.approx(crossing)
    assert found.low == pytest.approx(crossing)
    assert found.high == pytest.approx(crossing)
    assert found.tokens == pytest.approx((crossing / 16) ** 2)
    back = crossover(b, a)
    assert back.kind == "crosses back"
    assert back.value == pytest.approx(crossing)


def test_higher_is_better_turns_the_answer_round():
    a, b = pair(400)
    assert crossover(b, a, better="higher").kind == "crosses"
    assert crossover(a, b, better="higher").kind == "crosses back"


@pytest.mark.parametrize("crossing", [100, 3000])
def test_always_and_never(crossing):
    a, b = pair(crossing, noise=0.001)
    found = crossover(a, b)
    assert found.kind == ("always" if crossing < 224 else "never")
    assert (found.value, found.low, found.high, found.tokens) == (None, None, None, None)
    assert found.span == (224, 1024)


def test_noise_leaves_always_and_never_a_way_out():
    always = crossover(*pair(222, noise=0.02))
    assert always.kind == "always"
    assert 224 < always.high < 260
    assert "but noise allows a crossing up to" in always.sentence
    never = crossover(*pair(1030, noise=0.02))
    assert never.kind == "never"
    assert 900 < never.low < 1024
    assert "but noise allows it from" in never.sentence


def test_noise_at_the_end_of_what_was_measured_is_no_certainty():
    sure, noisy = (series("b", [2.0, 2.0], noise, (224, 448)) for noise in (0.0, 1.0))
    late = replace(sure, points=(sure.points[0], noisy.points[1]))
    always = crossover(series("a", [1.0, 1.0], sides=(224, 448)), late)
    assert (always.kind, always.low, round(always.high)) == ("always", None, 448)


def test_a_crossing_near_the_edge_has_an_open_end():
    assert crossover(*pair(226, noise=0.02)).low is None
    near_the_end = crossover(*pair(1015, noise=0.02))
    assert near_the_end.high is None
    assert near_the_end.low < 1015
    assert near_the_end.sentence.endswith("to above 1024)")


def test_undecided():
    a, b = pair(400, noise=0.5)
    assert crossover(a, b).kind == "undecided"
    assert "overlap" in crossover(a, b).reason
    apart = crossover(series("a", [1.0, 2.0], sides=(224, 320)), series("b", [1.0, 2.0], sides=(320, 448)))
    assert apart.kind == "undecided"
    assert "fewer than 2" in apart.sentence
    nothing = crossover(series("a", [], sides=()), b)
    assert nothing.kind == "undecided"
    assert nothing.span is None
    same = crossover(series("a", [1.0] * 8), series("b", [1.0] * 8))
    assert same.kind == "undecided"


def test_a_lead_that_only_noise_gives_and_takes_has_no_end():
    a = series("a", [0.9, 1.02, 0.99, 1.02], 0.015, (224, 320, 448, 640))
    b = series("b", [1.0, 1.0, 1.0, 1.0], 0.015, (224, 320, 448, 640))
    found = crossover(b, a)
    assert (found.kind, found.high) == ("crosses", None)
    assert "to above 640" in found.sentence


def test_several_changes_of_the_lead_report_the_last_and_say_so():
    a = series("a", [0.5, 2.0, 2.0, 0.5], 0.001, (224, 320, 448, 640))
    b = series("b", [1.0, 1.0, 1.0, 1.0], 0.001, (224, 320, 448, 640))
    found = crossover(a, b)
    assert found.kind == "crosses"
    assert found.value == pytest.approx(math.sqrt(448 * 640))  # halfway on the log axis
    assert 448 < found.low < found.high < 640
    assert found.warnings == ("the lead changes 2 times; the last change is reported",)


@pytest.mark.parametrize(
    ("sides", "exponents", "crossing", "noise"),
    [
        (SIDES, (1.0, 1.5), 400, 0.03),
        (SIDES, (1.4, 1.5), 450, 0.03),  # the lead flips to and fro
        (SIDES, (1.4, 1.5), 1000, 0.01),  # often open above
        (tuple(range(224, 641, 32)), (1.4, 1.5), 450, 0.03),  # and still more often
        ((224, 512, 1024), (1.0, 2.0), 256, 0.03),
    ],
)
def test_the_interval_covers_the_true_crossing(sides, exponents, crossing, noise):
    trials, hits = 400, 0
    for seed in range(trials):
        found = crossover(*pair(crossing, noise, exponents, sides, seed), seed=seed, draws=500)
        if found.kind == "never":
            hits += found.low is not None and found.low <= crossing
        elif found.kind == "always":
            hits += found.high is not None and found.high >= crossing
        elif found.kind == "crosses back":
            hits += found.high is None
        else:
            hits += (found.low or 0) <= crossing <= (found.high or math.inf)
    assert hits / trials > 0.95 - 4 * math.sqrt(0.95 * 0.05 / trials)


def test_the_interval_is_no_wider_than_it_must_be():
    found = crossover(*pair(400, noise=0.01, exponents=(1.0, 1.5)))
    # d log ratio / d log side is 1, and the crossing lies a quarter of the way between two points.
    fraction = math.log(400 / 384) / math.log(448 / 384)
    sd = math.sqrt(2) * 0.01 * math.hypot(1 - fraction, fraction)
    assert math.log(found.high / found.low) == pytest.approx(2 * Z95 * sd, rel=0.3)


def test_confidence_of_the_points_is_heeded():
    a, b = pair(400, noise=0.02)
    wide = crossover(a, b)
    points = tuple(Point(p.resolution, p.tokens, p.value, p.low, p.high, confidence=0.9999) for p in a.points)
    narrow = crossover(Series(a.subject, a.variant, a.metric, a.unit, points, direction="lower"), b)
    assert narrow.high - narrow.low < wide.high - wide.low
    assert crossover(a, b, confidence=0.5).high < wide.high


def test_a_seed_settles_the_interval():
    a, b = pair(400, noise=0.02)
    assert crossover(a, b, seed=3) == crossover(a, b, seed=3)
    assert crossover(a, b, seed=3) != crossover(a, b, seed=4)


def test_sizes_of_equal_area_count_as_one():
    def one(name, values):
        sizes = [(224, 448), (448, 224), (448, 448)]
        points = [
            Point(size, PIXELS.tokens(math.sqrt(size[0] * size[1])), v, v, v)
            for size, v in zip(sizes, values, strict=True)
        ]
        return Series(name, "", "latency_s", "s", tuple(points), direction="lower")

    found = crossover(one("a", [4.0, 1.0, 0.5]), one("b", [1.0, 1.0, 1.0]))
    assert found.value == pytest.approx(math.sqrt(224 * 448 * 448**2) ** 0.5)


def test_two_sizes_of_equal_area_halve_the_variance():
    def one(name, values, sizes):
        points = [
            Point(size, PIXELS.tokens(math.sqrt(size[0] * size[1])), v, v * 0.98, v * 1.02)
            for size, v in zip(sizes, values, strict=True)
        ]
        return Series(name, "", "latency_s", "s", tuple(points), direction="lower")

    once = [(224, 224), (448, 448)]
    twice = [(112, 448), (448, 112), (224, 448), (448, 224)]
    narrow = crossover(one("a", [2.0, 2.0, 0.5, 0.5], twice), one("b", [1.0] * 4, twice), draws=20000)
    wide = crossover(one("a", [2.0, 0.5], once), one("b", [1.0, 1.0], once), draws=20000)
    # Areas of the first pair are one octave apart, of the second two.
    ratio = math.log(narrow.high / narrow.low) / math.log(wide.high / wide.low)
    assert ratio == pytest.approx(0.5 / math.sqrt(2), rel=0.1)


def test_values_that_cannot_be_compared():
    a, b = pair(400)
    with pytest.raises(ValueError, match="cannot compare"):
        crossover(a, series("b", [1.0] * 8, unit="ms"))
    with pytest.raises(ValueError, match="no better direction"):
        crossover(series("a", [1.0] * 8, direction="neutral"), b)
    with pytest.raises(ValueError, match="cannot compare"):
        ratio_at(a, series("b", [1.0] * 8, metric="macs"), 224)
    zero = crossover(series("a", [0.0] * 8), b)
    assert zero.kind == "undecided"
    assert zero.warnings == ("8 resolutions left out: a value or its interval reaches zero",)


def test_points_without_an_interval_count_as_exact_and_it_is_said():
    a, b = pair(400)
    bare = Series(
        "a",
        "",
        "latency_s",
        "s",
        tuple(Point(p.resolution, p.tokens, p.value) for p in a.points),
        direction="lower",
    )
    found = crossover(bare, b)
    assert found.value == pytest.approx(400)
    assert found.warnings == ("8 resolutions without an interval count as exact",)
    assert ratio_at(bare, b, 224).low is None


def test_sentences():
    a, b = (series(name, s.values, 0.01) for name, s in zip(("vheat-b", "swin-b"), pair(384), strict=True))
    found = crossover(a, b)
    low, high = round(found.low), round(found.high)
    assert found.sentence == f"vheat-b is faster than swin-b from 384 px on (95 % interval {low} to {high})"
    back = crossover(b, a).sentence
    assert back.startswith("swin-b is faster than vheat-b only up to 384 px (95 % interval ")
    twice = [value * 2 for value in a.values]
    worse = crossover(
        series("vit-b", twice, metric="peak_memory_bytes"), series("x", a.values, metric="peak_memory_bytes")
    )
    assert worse.sentence == "vit-b is not smaller in memory than x at any measured size, 224 to 1024 px"
    best = crossover(a, series("vit-b", twice))
    assert best.sentence == "vheat-b is faster than vit-b at every measured size, 224 to 1024 px"
    assert "undecided: the intervals overlap" in crossover(a, a).sentence


def test_sentences_about_grids():
    def on_grids(found):
        return replace(found, axis=GRID)

    sides = (14, 28, 56, 112)
    a, b = (on_grids(series(s.subject, s.values, 0.01, sides)) for s in pair(35, sides=sides))
    found = crossover(a, b)
    assert found.tokens == pytest.approx(35**2)
    low, high = round(found.low), round(found.high)
    assert found.sentence == f"a is faster than b from a grid of about 35×35 on (95 % interval {low} to {high})"
    assert crossover(b, a).sentence.startswith("b is faster than a only up to a grid of about 35×35 (")
    assert GRID.near(7.26) == "7.3×7.3"
    assert GRID.span(14, 7.04) == "14×14 to 7×7"
    best = on_grids(series("b", [value * 9 for value in a.values], 0.01, sides))
    assert crossover(a, best).sentence == "a is faster than b at every measured grid, 14×14 to 112×112"
    assert crossover(best, a).sentence_about("a and c") == (
        "b is not faster than a and c at any measured grid, 14×14 to 112×112"
    )
    with pytest.raises(ValueError, match="sizes of a operator with sizes of a model"):
        crossover(a, series("b", b.values, 0.01, sides))


def test_ratio():
    a = series("a", [2.0, 3.0], math.log(1.1) / Z95, (224, 448))
    b = series("b", [4.0, 3.0], math.log(1.2) / Z95, (224, 448))
    found = ratio_at(a, b, 224)
    assert found[:3] == pytest.approx((0.5, 0.5 / 1.1 / 1.2, 0.5 * 1.1 * 1.2))
    assert ratio_at(a, b, (448, 448)).value == 1
    with pytest.raises(ValueError, match="a has no latency_s at 320x320"):
        ratio_at(a, b, 320)
    with pytest.raises(ValueError, match="reaches zero"):
        ratio_at(a, series("b", [0.0, 1.0], sides=(224, 448)), 224)


# From records to series


def record(side, value, spread=0.0, status="ok", round=0, name="latency_s", subject="vheat-t", device="cpu", **more):
    fields = {"unit": "s", "direction": "lower", "how": "test", "confidence": 0.95}
    if value is not None and spread:
        fields |= {"low": value - spread, "high": value + spread}
    case = Case(subject=subject, resolution=side, device=device)
    metric = Metric(value=value, **(fields | more))
    return Record(case=case, case_id=case.id, round=round, status=status, metrics={name: metric}, started="x")


def test_one_round_keeps_the_interval_of_the_metric():
    (found,) = series_from([record(448, 4.0, 0.4), record((224, 448), 1.0, 0.1)], "latency_s")
    assert found.tokens == [392, 784]
    assert found.values == [1.0, 4.0]
    assert found.points[1] == Point((448, 448), 784, 4.0, 3.6, 4.4, 1, 0.95)
    assert (found.subject, found.unit, found.direction, found.device) == ("vheat-t", "s", "lower", "cpu")
    assert found.variant == "b1 float32 infer"
    assert found.points[1].side == 448
    (single,) = series_from([record(224, 1.0, 0.1, confidence=0.0)], "latency_s")
    assert single.points[0].low is None  # one sample: the interval covers nothing
    (endless,) = series_from([record(224, 1.0, low=0.0, high=math.inf)], "latency_s")
    assert endless.points[0].high is None


def test_a_token_is_a_patch_of_16_by_16_pixels_and_not_rounded():
    assert PIXELS.tokens(224) == 196
    assert PIXELS.tokens(200) == 156.25
    (found,) = series_from([record((200, 100), 1.0)], "latency_s")
    assert found.tokens == [78.125]
    assert found.axis == PIXELS


def test_few_rounds_keep_the_hull_and_claim_little():
    rounds = [record(224, value, 0.1, round=i) for i, value in enumerate([1.0, 1.3, 1.1])]
    (found,) = series_from(rounds, "latency_s")
    (point,) = found.points
    assert (point.value, point.n_rounds, point.confidence) == (1.1, 3, 0.75)
    assert (point.low, point.high) == pytest.approx((0.9, 1.4))
    (bare,) = series_from([record(224, 1.0), record(224, 2.0, round=1)], "latency_s")
    assert (bare.points[0].low, bare.points[0].high, bare.points[0].confidence) == (1.0, 2.0, 0.5)


def test_six_rounds_use_the_order_statistics_of_the_median():
    rounds = [record(224, float(value), 5.0, round=value) for value in range(1, 11)]
    (found,) = series_from(rounds, "latency_s")
    (point,) = found.points
    assert (point.value, point.low, point.high, point.n_rounds) == (5.5, 2.0, 9.0, 10)
    assert point.confidence == pytest.approx(0.97852, abs=1e-5)


def test_deterministic_values_have_no_width_and_must_agree():
    (found,) = series_from([record(224, 5.0, deterministic=True, round=i) for i in range(3)], "latency_s")
    assert found.deterministic
    assert found.points[0] == Point((224, 224), 196, 5.0, 5.0, 5.0, 3, 1.0)
    assert found.warnings == ()
    values = [record(224, float(5 + i), deterministic=True, round=i) for i in range(2)]
    (odd,) = series_from(values, "latency_s")
    assert odd.values == [6.0]
    assert "should be deterministic" in odd.warnings[0]


def test_failures_and_missing_metrics_give_no_point():
    records = [
        record(224, 1.0),
        record(448, 9.0, status="oom"),
        record(512, None, unavailable="NVML is missing"),
        record(640, 3.0, name="macs"),
    ]
    (found,) = series_from(records, "latency_s")
    assert found.values == [1.0]
    assert series_from(records, "flops") == []


def test_subjects_variants_and_devices_are_kept_apart():
    records = [record(224, 1.0), record(224, 2.0, subject="swin-t"), record(224, 3.0, device="cuda")]
    found = series_from(records, "latency_s")
    assert [(s.subject, s.device, s.values) for s in found] == [
        ("vheat-t", "cpu", [1.0]),
        ("swin-t", "cpu", [2.0]),
        ("vheat-t", "cuda", [3.0]),
    ]


def test_mixed_units_are_refused():
    with pytest.raises(ValueError, match="different units: ms, s"):
        series_from([record(224, 1.0), record(448, 2.0, unit="ms")], "latency_s")
