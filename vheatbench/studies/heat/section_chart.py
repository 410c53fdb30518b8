"""A chart of heat results in the page's colours."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import matplotlib
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from vheatbench.present.theme import GRID, SERIES_COLOURS, chart_style, svg_of


def heat_svg(
    name: str, draw: Callable[[Figure, Sequence[str]], object], width: float = 6.2, height: float = 3.8
) -> str:
    """Inline SVG of what ``draw`` puts on an empty figure in these colours, one legend for all axes below.

    Args:
        name: unique on the page.
        draw: gets the figure and the colours of lines.
        width: in inches.
        height: in inches, without the legend.
    """
    rc = {
        **chart_style(name),
        "grid.color": GRID,
        "axes.titlesize": 9,
        "axes.titlelocation": "left",
        "axes.spines.top": False,
    }
    with matplotlib.rc_context(rc):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure, SERIES_COLOURS)
        entries: dict[str, Artist] = {}
        for axes in figure.axes:
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
                entries.setdefault(label, handle)
        if entries:
            columns = min(3, len(entries))
            figure.set_size_inches(width, height + 0.2 * -(-len(entries) // columns) + 0.1)
            figure.legend(list(entries.values()), list(entries), loc="outside lower center", ncols=columns, fontsize=9)
        return svg_of(figure)
