"""The picture and the small chart that a page begins with, and what its first sentences explain."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

from support.records import operator, record
from vheatbench.analysis.groups import groups_of, in_order
from vheatbench.analysis.relative_cost import RelativeCost, relative_cost
from vheatbench.present.parts import Chart
from vheatbench.report.first_screen import exponents_chart, relative_chart
from vheatbench.report.page import EXPLAINED, _explained

SUBJECTS = ["vheat-t", "vheat-t-official", "swin-t", "vit-s"]


def cost_of(spread: float = 0.01) -> RelativeCost:
    """Swin twice as slow at every size; ViT overtaken at 448 px; own products half of the official formulation."""
    records = [
        record(name, size, at * (size / 448) ** (2 * alpha), spread=spread)
        for size in (224, 448, 640)
        for name, at, alpha in (
            ("vheat-t", 0.05, 1), ("vheat-t-official", 0.1, 1), ("swin-t", 0.2, 1), ("vit-s", 0.1, 2)
        )
    ]  # fmt: skip
    (group,) = groups_of(records)
    found = relative_cost(group)
    assert found is not None
    return found


def drawings(chart: Chart) -> dict[str, ET.Element]:
    """The drawing for a screen and the one for a phone, each a well-formed SVG."""
    found = re.findall(r'<div class="(wide|narrow)">(<svg.*?</svg>)</div>', chart.svg, flags=re.S)
    return {name: ET.fromstring(svg) for name, svg in found}


def words_of(svg: ET.Element) -> list[str]:
    return ["".join(one.itertext()).strip() for one in svg.iter("{http://www.w3.org/2000/svg}text")]


def test_the_picture_names_its_lines_sizes_and_crossings_on_any_screen() -> None:
    chart = relative_chart("c", cost_of(), SUBJECTS, "here")
    both = drawings(chart)
    assert set(both) == {"wide", "narrow"}
    for svg in both.values():
        shown = words_of(svg)
        assert {"vheat-t = 1", "swin-t", "vit-s", "own products", "450 px", "224", "448", "640", "1×"} <= set(shown)
        assert "resolution (px, side of the square)" in shown
        assert "time over that of vheat-t" in shown
    width = {name: float(svg.attrib["viewBox"].split()[2]) for name, svg in both.items()}
    assert width["narrow"] <= 260, "letters of 10 points stay legible on 320 px"
    assert width["wide"] > 400


def test_the_numbers_behind_the_picture_are_the_ratios() -> None:
    chart = relative_chart("c", cost_of(), SUBJECTS, "here")
    rows = {(row[0], row[1]): row[2:] for row in chart.rows}
    assert rows["swin-t", "640 px"] == ("2.00", "1.960 to 2.040", "medians")
    assert rows["vit-s", "448 px"][0] == "1.00"
    assert rows["vheat-t", "224 px"][0] == "0.500"
    assert len(rows) == 9
    assert "swin-t goes from 2.00 times vheat-t-official's time at 224 px to 2.00 at 640 px" in chart.text


def test_vheat_has_the_accent_and_every_other_model_a_colour_of_its_own() -> None:
    svg = relative_chart("c", cost_of(), SUBJECTS, "here").svg
    assert {f"--series-{i}" for i in (1, 3, 4)} <= set(re.findall(r"--series-\d", svg))
    assert in_order(["vit-s", "swin-t", "vheat-t-official", "op/attention", "vheat-t", "op/heat"]) == [
        "op/heat", "op/attention", "vheat-t", "vheat-t-official", "vit-s", "swin-t",
    ]  # fmt: skip


def test_the_small_chart_says_the_exponents_at_the_large_end() -> None:
    records = [
        operator(name, grid, 1e-4 + 1e-8 * grid ** (2 * alpha), flop=grid ** (2 * alpha))
        for grid in (14, 56, 128, 256)
        for name, alpha in (("op/heat", 1.5), ("op/attention", 2.0))
    ]
    (group,) = groups_of(records)
    chart = exponents_chart("e", group, ["op/heat", "op/attention"])
    assert chart is not None
    heat, attention = chart.rows
    assert heat[0] == "op/heat"
    assert float(heat[1]) == pytest.approx(1.5, abs=0.01), "a tenth of a millisecond of overhead is left behind"
    assert (heat[3], heat[4], heat[5]) == ("128×128 to 256×256", "1.500", "1.5")
    assert (attention[1], attention[4], attention[5]) == ("2.00", "2.000", "2")
    for svg in drawings(chart).values():
        assert {"heat", f"N^{heat[1]}", "attention", "N^2.00", "tokens N", "latency (ms)"} <= set(words_of(svg))


def test_without_a_second_grid_there_is_no_small_chart() -> None:
    (group,) = groups_of([operator("op/heat", 14, 1e-3)])
    assert exponents_chart("e", group, ["op/heat"]) is None


def test_terms_say_what_they_mean_once_and_what_comes_from_outside_stays_text() -> None:
    found = str(_explained("<b>tokens</b>, tokens and multiply-adds"))
    assert found.count("<abbr") == 2
    assert found.startswith("&lt;b&gt;<abbr title=")
    assert EXPLAINED["multiply-adds"] in found
    assert str(_explained("nothing to explain")) == "nothing to explain"
