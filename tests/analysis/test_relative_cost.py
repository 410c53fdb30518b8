"""What the models beside vHeat cost against it, and how operators' time grows at the large end."""

from __future__ import annotations

import math

import pytest

from support.records import record
from vheatbench.analysis.groups import groups_of
from vheatbench.analysis.relative_cost import MOST_CURVES, RelativeCost, relative_cost
from vheatbench.analysis.scaling import end_exponent
from vheatbench.analysis.series import Point

SIZES = (224, 448, 640)


def cost_of(*subjects: tuple[str, float, float], sizes: tuple[int, ...] = SIZES) -> RelativeCost | None:
    """Of subjects with their latency at 224 px and how it grows with N."""
    records = [record(name, size, at * (size / 224) ** (2 * alpha)) for name, at, alpha in subjects for size in sizes]
    (group,) = groups_of(records)
    return relative_cost(group)


def test_without_an_official_formulation_vheat_itself_is_one() -> None:
    found = cost_of(("vit-s", 0.1, 1.5), ("vheat-t", 0.2, 1.0))
    assert found is not None
    assert (found.focus, found.base, found.own) == ("vheat-t", "vheat-t", None)
    (curve,) = found.curves
    assert [ratio.value for _, ratio in curve.points] == pytest.approx([(size / 224) / 2 for size in SIZES])
    assert found.last == (640, 640)
    (crossing,) = found.crossings
    assert (crossing.a, crossing.b, crossing.kind) == ("vheat-t", "vit-s", "crosses")
    assert crossing.value == pytest.approx(448, rel=0.02)


def test_the_official_formulation_is_the_equal_footing_and_own_products_stand_beside_it() -> None:
    found = cost_of(("vheat-t", 0.1, 1.0), ("vheat-t-official", 0.2, 1.0), ("swin-t", 0.3, 1.0))
    assert found is not None
    assert (found.focus, found.base) == ("vheat-t", "vheat-t-official")
    assert [curve.subject for curve in found.curves] == ["swin-t"]
    assert found.curves[0].at((448, 448)).value == pytest.approx(1.5)  # type: ignore[union-attr]
    assert found.own is not None
    assert found.own.at((640, 640)).value == pytest.approx(0.5)  # type: ignore[union-attr]
    assert found.own.at((1, 1)) is None


def test_one_size_nothing_beside_it_or_no_vheat_give_no_picture() -> None:
    assert cost_of(("vheat-t", 0.1, 1.0), ("swin-t", 0.3, 1.0), sizes=(224,)) is None
    assert cost_of(("vheat-t", 0.1, 1.0), ("vheat-t-official", 0.3, 1.0)) is None
    assert cost_of(("vheat-t", 0.1, 1.0)) is None
    many = cost_of(("vheat-t", 0.1, 1.0), *((f"m{i}", 0.1, 1.0) for i in range(MOST_CURVES + 3)))
    assert many is not None
    assert len(many.curves) == MOST_CURVES


def points(*values: float, first: float = 14, spread: float = 0.0) -> list[Point]:
    """At grids that double, with intervals of this relative half-width."""
    sides = [first * 2**i for i in range(len(values))]
    return [
        Point((int(side), int(side)), side**2, value, value * (1 - spread), value * (1 + spread))
        for side, value in zip(sides, values, strict=True)
    ]


def test_the_exponent_at_the_large_end_leaves_a_fixed_overhead_behind() -> None:
    values = [1e-3 + 1e-7 * (14 * 2**i) ** 3 for i in range(5)]
    found = end_exponent(points(*values))
    assert found is not None
    assert found.value == pytest.approx(math.log(values[-1] / values[-2], 4))
    assert 1.49 < found.value < 1.5
    assert (found.first, found.last) == (112.0**2, 224.0**2)
    assert found.low == found.high == found.value


def test_its_interval_is_the_most_cautious_one() -> None:
    found = end_exponent(points(1.0, 8.0, spread=0.1))
    assert found is not None
    assert found.low == pytest.approx(math.log(8 * 0.9 / 1.1, 4))
    assert found.high == pytest.approx(math.log(8 * 1.1 / 0.9, 4))


def test_grids_that_lie_too_close_are_passed_over() -> None:
    near = [Point((side, side), side**2, side**3.0) for side in (100, 240, 256)]
    found = end_exponent(near)
    assert found is not None
    assert (found.first, found.value) == (10_000, pytest.approx(1.5))
    assert end_exponent(near[1:]).first == 240**2  # type: ignore[union-attr]
    assert end_exponent(near[:1]) is None
    assert end_exponent([Point((14, 14), 196, 0.0), near[0]]) is None
