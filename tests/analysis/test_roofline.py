"""Operators under the roof: arithmetic by hand, ceilings of the right run only, and the chart."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

from support.records import ceiling, failed, operator, record, run_of
from vheatbench.analysis.groups import groups_of
from vheatbench.analysis.outcomes import outcomes_of
from vheatbench.analysis.roofline import NoRoofline, Roofline, roofline_of
from vheatbench.report.roofline_chart import roofline_chart

COPY, MATMUL = 10e9, 200e9
"""A ridge of 20 FLOP/byte."""


def ceilings(**axes):
    return [ceiling("ceiling/copy", COPY, **axes), ceiling("ceiling/matmul", MATMUL, **axes)]


def found(records) -> Roofline:
    (group,) = groups_of(records)
    roofline = roofline_of(group)
    assert isinstance(roofline, Roofline), roofline
    return roofline


def reason(records) -> str:
    (group,) = groups_of(records)
    roofline = roofline_of(group)
    assert isinstance(roofline, NoRoofline)
    return roofline.reason


def test_below_the_ridge_memory_is_the_limit():
    # 8 FLOP/byte allow 8 * 10 = 80 GFLOP/s; 40 MFLOP in 1 ms are 40
    (point,) = found([operator("op/heat", 28, 1e-3, flop=40e6, bytes=5e6), *ceilings()]).points
    assert point.intensity == 8
    assert point.rate == pytest.approx(40e9)
    assert point.bandwidth == pytest.approx(5e9)
    assert point.attainable == pytest.approx(80e9)
    assert point.fraction == pytest.approx(0.5)
    assert point.bound == "memory"
    # latency and ceiling are known to 1 % each
    assert point.low == pytest.approx(0.5 / 1.01 / 1.01)
    assert point.high == pytest.approx(0.5 / 0.99 / 0.99)


def test_above_the_ridge_arithmetic_is_the_limit():
    (point,) = found([operator("op/attention", 28, 1e-3, flop=150e6, bytes=2e6), *ceilings()]).points
    assert point.intensity == 75
    assert point.attainable == MATMUL
    assert point.fraction == pytest.approx(0.75)
    assert point.bound == "compute"


def test_at_the_ridge_both_limits_agree():
    roofline = found([operator("op/heat", 28, 1e-3, flop=100e6, bytes=5e6), *ceilings()])
    assert roofline.roof.ridge == pytest.approx(20)
    assert roofline.points[0].attainable == pytest.approx(MATMUL)
    assert roofline.roof.attainable(5) == pytest.approx(50e9)


def test_rounds_give_the_median_and_the_best_ceiling_counts():
    rounds = [ceiling("ceiling/copy", rate).model_copy(update={"round": i}) for i, rate in enumerate((8e9, 10e9, 9e9))]
    roofline = found([operator("op/heat", 28, 1e-3), *rounds, ceiling("ceiling/matmul", MATMUL)])
    assert roofline.roof.bandwidth.value == 9e9


def test_points_stand_by_operator_and_growing_grid():
    grids = [(name, grid) for name in ("op/attention", "op/heat-fft", "op/heat") for grid in (56, 14, 28)]
    points = found([*ceilings(), *(operator(name, grid, 1e-3) for name, grid in grids)]).points
    expected = [(name, (grid, grid)) for name in ("op/heat", "op/heat-fft", "op/attention") for grid in (14, 28, 56)]
    assert [(point.subject, point.resolution) for point in points] == expected


def test_what_is_above_the_roof_is_shown_and_explained():
    cached = operator("op/heat", 14, 1e-4, flop=4e6, bytes=2e6)  # 20 GB/s under a copy of 10
    fast = operator("op/attention", 14, 1e-4, flop=40e6, bytes=1e6)  # 400 GFLOP/s under 200
    roofline = found([cached, fast, *ceilings()])
    assert [point.fraction for point in roofline.points] == pytest.approx([2, 2])
    memory, compute = roofline.notes
    assert memory.startswith("Above the roof, bound by memory: op/heat at 14×14. ")
    assert "cache" in memory
    assert compute.startswith("Above the roof, bound by compute: op/attention at 14×14. ")
    assert found([operator("op/heat", 14, 1e-2), *ceilings()]).notes == ()


# No roof


def test_without_ceilings_there_is_no_roofline_and_it_says_why():
    heat = operator("op/heat", 28, 1e-3)
    assert "did not measure ceiling/copy in float32" in reason([heat])
    assert "did not measure ceiling/matmul in float32" in reason([heat, ceiling("ceiling/copy", COPY)])
    broken = [ceiling("ceiling/copy", COPY), failed("ceiling/matmul", 4096, "oom", "out of memory")]
    assert reason([heat, *broken]) == "ceiling/matmul in float32 was not measured: out of memory"


def test_ceilings_of_another_dtype_or_device_do_not_count():
    heat = operator("op/heat", 28, 1e-3, case={"dtype": "tf32", "device": "cuda"})
    for axes in ({"dtype": "float32", "device": "cuda"}, {"dtype": "tf32", "device": "cpu"}):
        assert "in tf32" in reason([heat, *ceilings(**axes)])
    others = [ceiling("ceiling/copy", 1e9, device="cuda"), ceiling("ceiling/matmul", 1e9, device="cuda")]
    roofline = found([heat, *others, *ceilings(dtype="tf32", device="cuda")])
    assert (roofline.roof.bandwidth.value, roofline.roof.rate.value) == (COPY, MATMUL)


def test_operators_without_bytes_have_no_place():
    heat = operator("op/heat", 28, 1e-3)
    del heat.metrics["min_bytes"]
    assert "min_bytes" in reason([heat, *ceilings()])


# What tables show


def test_outcomes_have_what_was_achieved_and_ceilings_come_last():
    records = [*ceilings(), operator("op/attention", 28, 1e-3), operator("op/heat", 28, 2e-3, flop=40e6, bytes=4e6)]
    outcomes = outcomes_of([*records, record("vheat-t", 224, 0.1)])
    assert [outcome.case.subject for outcome in outcomes] == [
        "vheat-t", "op/heat", "op/attention", "ceiling/copy", "ceiling/matmul",
    ]  # fmt: skip
    rate = outcomes[1].points["rate_flop_per_s"]
    assert (rate.value, rate.low, rate.high) == pytest.approx((20e9, 20e9 / 1.01, 20e9 / 0.99))
    assert outcomes[1].points["bandwidth_bytes_per_s"].value == pytest.approx(2e9)
    assert "rate_flop_per_s" not in outcomes[0].points
    assert outcomes[3].points["bandwidth_bytes_per_s"].value == COPY
    assert "rate_flop_per_s" not in outcomes[3].points


def test_the_terminal_shows_grids_and_rates(capsys):
    from vheatbench.cli.table import print_run

    print_run(run_of([operator("op/heat", 28, 2e-3, flop=40e6, bytes=2**22), *ceilings()]))
    lines = capsys.readouterr().out.splitlines()
    headings = next(line for line in lines if "latency ms" in line)
    words = ("operator", "grid", "GFLOP", "min MiB", "GFLOP/s", "GB/s", "peak MiB")
    assert [word for word in words if word not in headings] == []
    assert "images/s" not in headings
    heat = next(line for line in lines if "op/heat" in line)
    assert re.search(r"│ +28 │ +2.000 ±1.0 % │ +20.00 ±1.0 % │ +2.097 ±1.0 % │ +[\d.]+ │ +4.000 │ +0.04000 │", heat)
    copy = next(line for line in lines if "ceiling/copy" in line)
    assert "10.00 ±1.0 %" in copy
    assert "4096" not in copy  # a tensor's shape is no grid
    assert "200.0 ±1.0 %" in next(line for line in lines if "ceiling/matmul" in line)
    assert any("b1 float32 forward core C=96" in line for line in lines)  # one variant: ceilings have none


# The chart


def drawn(copy=COPY, matmul=MATMUL):
    names = ["op/heat", "op/heat-official", "op/attention", *(f"op/other-{i}" for i in range(9))]
    records = [operator(name, grid, 1e-6 * grid**2, flop=900.0 * grid**3 * (i + 1))
               for i, name in enumerate(names) for grid in (14, 56)]  # fmt: skip
    records += [ceiling("ceiling/copy", copy), ceiling("ceiling/matmul", matmul)]
    return names, roofline_chart("c", found(records), names)


def test_the_chart_has_a_roof_with_its_values_and_every_operator():
    names, svg = drawn()
    texts = ["".join(element.itertext()) for element in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]
    assert set(names) <= set(texts)
    assert "copy 10.0 GB/s" in texts
    assert "matrix product 200 GFLOP/s" in texts
    assert "achieved (GFLOP/s)" in texts
    assert "56×56" not in texts, "the largest grid of all needs no name"
    assert "14×14" not in texts
    assert all(f"var(--series-{i})" in svg for i in range(1, 9))
    assert not re.search(r"#0[1-9]0[1-9]0[1-9]", svg)
    assert "mathdefault" not in svg


def test_the_roof_runs_along_the_bandwidth_and_then_the_rate():
    _, svg = drawn()
    # the one thick line in ink: from the left edge to the ridge and on to the right edge
    path = re.search(r'<path d="([^"]*)"[^>]*stroke:\s*var\(--ink\);\s*stroke-width:\s*1.6', svg)
    (x0, y0), (x1, y1), (x2, y2) = [map(float, pair) for pair in re.findall(r"[ML] ([\d.]+) ([\d.]+)", path[1])]
    assert x0 < x1 < x2
    assert y0 > y1 == y2


def test_a_fast_device_is_drawn_in_teraflops():
    _, svg = drawn(matmul=8e14)
    assert "matrix product 800 TFLOP/s" in svg
