"""The frame of every chart on the page: its size, legend and SVG, and places that say their numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from vheatbench.numbers import Estimate
from vheatbench.present.style import legend_below
from vheatbench.present.svg import Target, with_targets
from vheatbench.present.theme import chart_style, series_id, svg_of

WIDTH, HEIGHT = 5.6, 3.8
"""In inches, without a legend below. An SVG has 72 units per inch, so places are those of a figure of 72 dpi.

On a phone a chart is 350 pixels wide: letters of 10 points are 9 pixels high there, and 13 beside another chart.
"""


@dataclass
class PageChart:
    """One chart while it is drawn, and what came out of it."""

    figure: Figure
    names: Sequence[str]
    svg: str = ""
    """Inline markup, once the drawing is done."""
    _targets: list[tuple[Axes, str, tuple[float, float], str]] = field(default_factory=list)

    @property
    def axes(self) -> Axes:
        """The only ones, made when they are first asked for."""
        return self.figure.axes[0] if self.figure.axes else self.figure.subplots()

    def belongs(self, series: str, artists: Iterable[Artist]) -> None:
        """Let the page hide what is drawn of a series."""
        for artist in artists:
            artist.set_gid(series_id(self.names.index(series)))

    def target(self, series: str, x: float, y: float, text: str, axes: Axes | None = None) -> None:
        """Let a place say something when it is pointed at; ``x`` and ``y`` as in the axes."""
        self._targets.append((axes or self.axes, series, (x, y), text))

    def finish(self) -> None:
        """Lay the figure out and write it down."""
        svg = svg_of(self.figure, self.names)
        height = self.figure.get_figheight() * 72
        found = []
        for axes, series, place, text in self._targets:
            x, y = axes.transData.transform(place)
            found.append(Target(series, x, height - y, text))
        self.svg = with_targets(svg, found)


@contextmanager
def page_chart(
    name: str, names: Sequence[str] = (), *, height: float = HEIGHT, width: float = WIDTH
) -> Iterator[PageChart]:
    """A chart in the page's colours; its ``svg`` is there when the block ends.

    Args:
        name: unique on the page; keeps the SVG's internal ids apart.
        names: of the series, which the page can then hide.
        height, width: in inches, without a legend below.
    """
    with matplotlib.rc_context(chart_style(name)):
        chart = PageChart(Figure(figsize=(width, height), dpi=72, layout="constrained"), names)
        yield chart
        # within the axes it would cover error bars
        legend_below(chart.figure)
        chart.finish()


def chart_svg(name: str, draw: Callable[[Figure], object], height: float) -> str:
    """A :func:`page_chart` of what ``draw`` puts on its figure, whose lines have the colours ``C0`` to ``C7``."""
    with page_chart(name, height=height) as chart:
        draw(chart.figure)
    return chart.svg


def error_bars(points: Iterable[Estimate], factor: float = 1.0) -> list[list[float]]:
    """Lengths below and above the values, 0 where an interval has no such end."""
    found: list[list[float]] = [[], []]
    for point in points:
        value = point.value or 0.0
        found[0].append(0.0 if point.low is None else max(0.0, (value - point.low) * factor))
        found[1].append(0.0 if point.high is None else max(0.0, (point.high - value) * factor))
    return found


def plain_numbers(axis: Axis) -> None:
    """Numbers as they are read, not as powers."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def multiples(low: float, high: float, steps: Sequence[int]) -> list[float]:
    """These multiples of powers of ten between two ends; other round numbers where fewer than two of them are there."""
    found = [m * 10.0**e for e in range(-9, 13) for m in steps if low <= m * 10.0**e <= high]
    return found if len(found) > 1 else [tick for tick in MaxNLocator(4).tick_values(low, high) if low <= tick <= high]
