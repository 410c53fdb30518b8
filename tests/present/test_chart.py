"""The frame of the page's charts."""

from __future__ import annotations

import pytest

from vheatbench.present.chart import multiples


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
