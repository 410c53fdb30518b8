"""Numbers of receptive fields against maps whose numbers are known."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from vheatbench.stats import student_t_quantile
from vheatbench.studies.erf import metrics
from vheatbench.studies.erf.estimates import PRECISE, GroupedMean, metrics_of, numbers_of, worst_error


def gaussian(shape, centre, sd_along, sd_across, degrees=0.0):
    """A Gaussian whose long axis points ``degrees`` counterclockwise from the right, as seen on a picture."""
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    dx, up = x - centre[1], centre[0] - y
    angle = math.radians(degrees)
    along = dx * math.cos(angle) + up * math.sin(angle)
    across = -dx * math.sin(angle) + up * math.cos(angle)
    return np.exp(-((along / sd_along) ** 2 + (across / sd_across) ** 2) / 2)


def test_uniform_disc():
    y, x = np.mgrid[:200, :200] + 0.5
    disc = (np.hypot(y - 90, x - 110) <= 50).astype(np.float32)
    share = disc.mean()
    assert metrics.areas(disc, (0.5, 0.99)) == pytest.approx([share / 2, share * 0.99], abs=1 / 40000)
    assert metrics.entropy_area(disc) == pytest.approx(share)
    assert metrics.centroid(disc) == pytest.approx((90, 110))
    # second moment of a disc about its centre: R^2 / 2, of which each axis has half
    assert metrics.radius(disc, (90, 110)) == pytest.approx(50 / math.sqrt(2), rel=1e-3)
    assert metrics.axes(disc)[:2] == pytest.approx((25, 25), rel=1e-3)
    assert metrics.radius(disc, (93, 106)) == pytest.approx(math.hypot(50 / math.sqrt(2), 5), rel=1e-3)


def test_gaussian():
    sd = 12.0
    field = gaussian((256, 256), (128, 128), sd, sd)
    pixels = field.size
    for share, found in zip((0.5, 0.99), metrics.areas(field, (0.5, 0.99)), strict=True):
        assert found == pytest.approx(-2 * math.pi * sd**2 * math.log(1 - share) / pixels, rel=5e-3)
    assert metrics.entropy_area(field) == pytest.approx(2 * math.pi * math.e * sd**2 / pixels, rel=1e-4)
    assert metrics.radius(field, (128, 128)) == pytest.approx(math.sqrt(2) * sd, rel=1e-6)
    (r50,) = metrics.rectangles(field, (128, 128), [0.5])
    # half of a square's mass: erf(a / (sd sqrt 2))^2 = 1/2, a whole number of pixels from the middle
    half_side = next(a for a in range(1, 128) if math.erf(a / (sd * math.sqrt(2))) ** 2 >= 0.5)
    assert r50 == (2 * half_side) ** 2 / pixels


@pytest.mark.parametrize("degrees", [0, 30, 90, 150])
def test_anisotropic_gaussian(degrees):
    field = gaussian((160, 200), (85, 97), 14, 6, degrees)
    major, minor, orientation = metrics.axes(field)
    assert (major, minor) == pytest.approx((14, 6), rel=1e-3)
    assert metrics.half_turn(orientation - degrees) == pytest.approx(0, abs=0.05)
    assert 0 <= orientation < 180


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (9, 4)])
def test_single_pixel(shape):
    field = np.zeros(shape, np.float32)
    field[shape[0] // 2, shape[1] // 2] = 3
    centre = (shape[0] // 2 + 0.5, shape[1] // 2 + 0.5)
    one = 1 / field.size
    numbers = numbers_of(field, centre)
    for name in ("erf_a50", "erf_a99", "erf_entropy_area", "erf_rect20", "erf_rect99"):
        assert numbers[name] == pytest.approx(one), name
    assert [numbers[n] for n in ("erf_radius_px", "erf_major_px", "erf_minor_px", "erf_orientation_deg")] == [0] * 4


def test_rectangle_is_cut_off_at_the_edges():
    field = np.ones((20, 20))
    assert metrics.rectangles(field, (10, 10), [0.5, 1.0]) == [0.64, 1.0]  # 16 of 20 a side: the first over a half
    assert metrics.rectangles(field, (0.5, 0.5), [0.99]) == [1.0]
    assert metrics.rectangles(field, (3.5, 10.5), [9 / 400]) == [9 / 400]


def test_numbers_have_no_scale():
    field = gaussian((64, 48), (30.5, 20.5), 8, 5, 40)
    once, many = (numbers_of(field * factor, (30.5, 20.5)) for factor in (1, 1e6))
    assert once == pytest.approx(many, rel=1e-5)
    assert once["erf_radius_share"] == pytest.approx(once["erf_radius_px"] / 48)


def literal_replknet(field, thresh):
    """What RepLKNet's analyze_erf.py does, line by line of its description."""
    data = np.log10(field + 1)
    data = data / np.max(data)
    h, w = data.shape
    whole = np.sum(data)
    for i in range(1, h // 2):
        part = np.sum(data[h // 2 - i : h // 2 + 1 + i, w // 2 - i : w // 2 + 1 + i])
        if part / whole > thresh:
            return (i * 2 + 1) / h * (i * 2 + 1) / w
    return None


@pytest.mark.parametrize("size", [7, 32, 65])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_replknet_rectangle(size, scale):
    field = scale * np.random.default_rng(size).gamma(0.3, size=(size, size)).astype(np.float32)
    field[size // 3, size // 2] += 20 * scale
    for share in (0.05, 0.2, 0.3, 0.5, 0.9, 0.99):
        assert metrics.replknet_rectangle(field, share) == literal_replknet(field, share)


def test_replknet_ceiling_is_said():
    field = np.ones((224, 224), np.float32)
    assert metrics.replknet_ceiling(field.shape) == pytest.approx((223 / 224) ** 2)
    assert metrics.replknet_rectangle(field, 0.99) == pytest.approx((223 / 224) ** 2)
    field[0] = 3  # the outermost row, which no square reaches
    assert metrics.replknet_rectangle(field, 0.99) is None
    mean = GroupedMean((224, 224), 3)
    mean.add(np.stack([field] * 3))
    found = metrics_of(mean.estimates(lambda f: numbers_of(f, (112.5, 112.5), True)), (224, 224), 3, True)
    assert found["erf_rect99"].value is None
    assert "0.9911" in found["erf_rect99"].unavailable
    assert "at most 0.9911" in found["erf_rect50"].how
    assert "log10" in found["erf_rect50"].how


def test_jackknife_of_a_mean_is_its_standard_error():
    values = np.random.default_rng(0).normal(5, 2, 12)
    left_out = [(values.sum() - v) / 11 for v in values]
    found = metrics.jackknife(values.mean(), left_out, [1] * 12)
    assert found.value == pytest.approx(values.mean())
    assert found.error == pytest.approx(values.std(ddof=1) / math.sqrt(12))
    assert found.half_width() == pytest.approx(student_t_quantile(0.975, 11) * found.error)


def test_jackknife_of_a_mean_over_unequal_groups_is_the_mean():
    values, sizes = np.random.default_rng(4).normal(5, 2, 12), [6, 3, 2, 1]
    left_out = [np.delete(values, range(sum(sizes[:i]), sum(sizes[: i + 1]))).mean() for i in range(4)]
    assert metrics.jackknife(values.mean(), left_out, sizes).value == pytest.approx(values.mean(), rel=1e-12)


def test_jackknife_removes_the_bias_of_a_square():
    values = np.random.default_rng(1).normal(0.5, 1, 20)
    groups = np.array_split(values, 7)  # 3 3 3 3 3 3 2
    plain = values.mean() ** 2
    left_out = [((values.sum() - g.sum()) / (20 - len(g))) ** 2 for g in groups]
    found = metrics.jackknife(plain, left_out, [len(g) for g in groups])
    unbiased = plain - values.var(ddof=1) / 20
    assert abs(found.value - unbiased) < 0.3 * abs(plain - unbiased)


def test_jackknife_interval_covers():
    """Of a curved statistic of unequal groups: between 91 and 98 of 100 intervals of 95 % hold the truth."""
    rng = np.random.default_rng(2)
    sizes = [2, 2, 2, 2, 1, 1, 1, 1, 1, 1]
    held = 0
    for _ in range(400):
        values = rng.normal(3, 1, (14, 2))
        total = values.sum(0)
        edges = np.cumsum([0, *sizes])
        left_out = []
        for a, b in itertools.pairwise(edges):
            mean = (total - values[a:b].sum(0)) / (14 - (b - a))
            left_out.append(float(np.hypot(*mean)))
        found = metrics.jackknife(float(np.hypot(*(total / 14))), left_out, sizes)
        held += abs(found.value - math.hypot(3, 3)) < found.half_width()
    assert 0.91 < held / 400 < 0.98


def test_jackknife_of_an_angle_goes_the_short_way():
    found = metrics.jackknife(179, [1, 178, 180, 0], [1, 1, 1, 1], metrics.half_turn)
    assert found.error < 5
    assert metrics.half_turn(170) == -10
    assert metrics.half_turn(-170) == 10
    assert metrics.half_turn(90) == 90


def test_one_group_has_no_interval():
    found = metrics.jackknife(1.0, [], [4])
    assert found.error == math.inf
    assert worst_error(dict.fromkeys(PRECISE, found), False) == math.inf


def test_the_worst_number_decides():
    fine, poor = (metrics.jackknife(0.5, [0.5 - e, 0.5 + e], [1, 1]) for e in (0.01, 0.1))
    for name in PRECISE:
        assert worst_error({**dict.fromkeys(PRECISE, fine), name: poor}, False) == pytest.approx(0.2)


@pytest.mark.parametrize("replknet", [False, True])
@pytest.mark.parametrize("jump", [0.0005, 0.006])
def test_the_error_that_decides_is_that_of_the_value_that_is_reported(jump, replknet):
    """Half an interval over the value is the error times Student's quantile, corrected or not."""
    estimate = metrics.jackknife(0.02, [0.02, 0.02, 0.02 + jump], [1, 1, 1])
    names = numbers_of(np.ones((8, 8)), (4, 4))
    found = metrics_of(dict.fromkeys(names, estimate), (8, 8), 3, replknet)["erf_a50"]
    error = estimate.half_width() / student_t_quantile(0.975, 2) / found.value
    assert worst_error(dict.fromkeys(PRECISE, estimate), replknet) == pytest.approx(error)
    assert estimate.value != estimate.plain


def maps(n, shape=(24, 24), seed=0):
    return np.random.default_rng(seed).gamma(0.5, size=(n, *shape)).astype(np.float32)


def test_views_of_one_photograph_are_one_group():
    fields = maps(9)
    mean = GroupedMean((24, 24), 4)
    mean.add(fields[:5])
    mean.add(fields[5:])
    assert mean.sizes[:5] == [3, 2, 2, 2, 0]
    assert mean.mean() == pytest.approx(fields.mean(0), rel=1e-6)
    found = mean.estimates(lambda f: {"erf_sum": float(f[3, 4])})["erf_sum"]
    assert found.groups == 4
    by_hand = [np.delete(fields, [i for i in range(9) if i % 4 == g], axis=0).mean(0)[3, 4] for g in range(4)]
    expected = metrics.jackknife(found.plain, by_hand, [3, 2, 2, 2])
    assert (found.value, found.error) == pytest.approx((expected.value, expected.error), rel=1e-4)


def test_a_single_photograph_is_one_group_and_has_no_interval():
    mean = GroupedMean((24, 24), 1)
    mean.add(maps(10))
    assert mean.sizes == [10] + [0] * 9
    estimates = mean.estimates(lambda f: numbers_of(f, (12, 12)))
    assert worst_error(estimates, False) == math.inf
    found = metrics_of(estimates, (24, 24), 10, replknet=False)
    assert all(metric.low is metric.high is None and "jackknife" not in metric.how for metric in found.values())


def test_many_sources_make_ten_groups():
    mean = GroupedMean((4, 4), 100)
    mean.add(maps(25, (4, 4)))
    assert mean.sizes == [3] * 5 + [2] * 5


def test_metrics_have_intervals_and_say_how():
    mean = GroupedMean((24, 24), 10)
    mean.add((gaussian((24, 24), (12, 12), 6, 5) * (0.5 + maps(10))).astype(np.float32))
    estimates = mean.estimates(lambda f: numbers_of(f, (12, 12)))
    found = metrics_of(estimates, (24, 24), 10, replknet=False)
    for name, metric in found.items():
        if name == "erf_images":
            assert (metric.value, metric.low, metric.unit) == (10, None, "images")
            continue
        assert metric.low <= metric.value <= metric.high, name
        assert metric.confidence == 0.95
        assert metric.direction == "neutral"
        assert "jackknife over 10 groups" in metric.how
        if metric.unit == "share" and name != "erf_radius_share":
            assert 0 <= metric.low <= metric.high <= 1, name
    assert found["erf_a50"].value == pytest.approx(estimates["erf_a50"].value)
    assert "bias of few images removed" in found["erf_a50"].how
    assert found["erf_rect50"].value == estimates["erf_rect50"].plain
    assert "bias" not in found["erf_rect50"].how
    step = found["erf_rect50"].high - found["erf_rect50"].value
    side = math.sqrt(found["erf_rect50"].value) * 24
    assert step >= ((side + 2) ** 2 - side**2) / 24**2 - 1e-9  # a square is not known to less than its step
    assert found["erf_major_px"].value >= found["erf_minor_px"].value


def test_a_jump_is_not_corrected():
    """What the jackknife takes for a bias of half the value is none."""
    estimate = metrics.jackknife(0.02, [0.02, 0.02, 0.026], [1, 1, 1])
    assert abs(estimate.value / estimate.plain - 1) > 0.15
    names = numbers_of(np.ones((8, 8)), (4, 4))
    found = metrics_of(dict.fromkeys(names, estimate), (8, 8), 3, replknet=False)
    small = metrics.jackknife(0.02, [0.02, 0.02, 0.021], [1, 1, 1])
    assert found["erf_a50"].value == estimate.plain
    assert metrics_of(dict.fromkeys(names, small), (8, 8), 3, False)["erf_a50"].value == small.value


def test_replknet_values_are_those_of_the_mean_map():
    mean = GroupedMean((24, 24), 10)
    mean.add(maps(10))
    estimates = mean.estimates(lambda f: numbers_of(f, (12.5, 12.5), True))
    found = metrics_of(estimates, (24, 24), 10, replknet=True)
    for name in ("erf_a50", "erf_entropy_area", "erf_radius_px", "erf_rect50"):
        assert found[name].value == estimates[name].plain
