"""The frame of the page's charts."""

from __future__ import annotations

import re

import pytest

from vheatbench.present.chart import WIDTH, chart_svg, multiples, page_chart
from vheatbench.present.style import label_outer, panels


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(9, 40, [10, 20, 30]), (0.4, 2.2, [0.5, 1, 2]), (10.5, 18.5, [12, 14, 16, 18]), (1.02e-3, 1.05e-3, None)],
)
def test_a_short_logarithmic_axis_has_ticks_too(low: float, high: float, ticks: list[float] | None) -> None:
    found = multiples(low, high, (1, 2, 3, 5))
    assert len(found) >= 2
    assert all(low <= tick <= high for tick in found)
    if ticks is not None:
        assert found == pytest.approx(ticks)


def test_one_legend_for_all_panels_stands_below_them() -> None:
    def draw(figure: object) -> None:
        axes = panels(figure, 3, 2)  # type: ignore[arg-type]
        assert len(axes) == 3
        for ax in axes:
            ax.plot([1, 2], [1, 2], label="alike", color="C0")
            ax.set(xlabel="across", ylabel="up")
        axes[0].plot([1, 2], [2, 1], label="another", color="C1")
        label_outer(axes, 2)

    svg = chart_svg("panels", draw, 3.0)
    assert (svg.count(">alike<"), svg.count(">another<")) == (1, 1)
    assert (svg.count(">across<"), svg.count(">up<")) == (2, 2)
    assert "var(--series-1)" in svg
    assert not re.search(r"#(0[0-9]0|d55e01|0072b3|fdfefe)", svg)  # no stand-in is left for dark mode to miss
    width, height = map(float, re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)[0])
    assert width == pytest.approx(72 * WIDTH)
    assert height > 72 * 3.0
    below = [float(y) for y in re.findall(r"translate\([\d.]+ ([\d.]+)\)", svg)]
    assert not below or max(below) < height


def test_a_place_says_its_numbers_where_the_marker_is() -> None:
    with page_chart("targets", ["<one>"]) as chart:
        (line,) = chart.axes.plot([0, 10], [0, 5], marker="o", label="<one>")
        chart.belongs("<one>", [line])
        chart.target("<one>", 10, 5, "five & more")
    x, y = chart.axes.transData.transform((10, 5))
    height = chart.figure.get_figheight() * 72
    disc = re.search(r'<circle data-s="&lt;one&gt;" cx="([\d.]+)" cy="([\d.]+)"', chart.svg)
    assert disc is not None
    assert (float(disc[1]), float(disc[2])) == pytest.approx((x, height - y), abs=0.1)
    assert "<title>five &amp; more</title>" in chart.svg
    assert '<g data-s="&lt;one&gt;"' in chart.svg
