"""How charts look: stand-in colours that become CSS variables, one style per subject, and the way to SVG."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from typing import Any

from cycler import cycler
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from vheatbench.case import kind_of
from vheatbench.present.style import LineStyle, line_styles
from vheatbench.present.svg import SERIES_GROUP, tidied

INK, FAINT, GRID, PAPER = "#010203", "#040506", "#070809", "#fdfefe"
"""Stand-ins that no chart uses otherwise; each becomes a CSS variable, so that dark mode recolours it."""

SERIES_COLOURS = ("#d55e01", "#0072b3", "#009e74", "#cc79a8", "#56b4ea", "#e69f02", "#8c6bb2", "#7f7f80")
"""Okabe and Ito's colour-blind safe palette, one step off so that each is unique in the SVG."""

_VARIABLES = {INK: "--ink", FAINT: "--faint", GRID: "--grid", PAPER: "--panel"} | {
    colour: f"--series-{i + 1}" for i, colour in enumerate(SERIES_COLOURS)
}

_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 10,
    "svg.fonttype": "none",
    # names come from outside: a dollar sign in one is no formula
    "text.parse_math": False,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.prop_cycle": cycler(color=SERIES_COLOURS),
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "legend.handlelength": 2.8,
    "legend.columnspacing": 1.2,
    "figure.facecolor": "none",
    "figure.constrained_layout.wspace": 0.05,
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


PAGE_LINES = line_styles(SERIES_COLOURS, PAPER)


def style_of(subject: str, subjects: Sequence[str]) -> LineStyle:
    """The style of a subject by its place among those of its kind on the page, alike in every chart."""
    alike = [one for one in subjects if kind_of(one) == kind_of(subject)]
    return PAGE_LINES[alike.index(subject) % len(PAGE_LINES)]


def chart_style(name: str) -> dict[Any, Any]:
    """matplotlib's settings for one chart; ``name``, unique on the page, keeps the SVG's internal ids apart."""
    return {**_STYLE, "svg.hashsalt": name}


def svg_of(figure: Figure, names: Sequence[str] = ()) -> str:
    """The bare ``<svg>`` element, its stand-in colours replaced by CSS variables, its size by the page's.

    Artists whose gid is :func:`series_id` ``(i)`` are marked as those of the series ``names[i]``, which the page can
    then hide.
    """
    buffer = io.StringIO()
    with warnings.catch_warnings():
        # the browser draws the text, with fonts that matplotlib does not know of
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        _lay_out(figure)
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    svg = tidied(buffer.getvalue(), names)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    # described by the figure's own text; a reader need not step through every tick
    return svg.replace("<svg", '<svg role="img" aria-hidden="true" focusable="false" stroke-linejoin="round"', 1)


def _lay_out(figure: Figure) -> None:
    """Give everything its place once; savefig would draw the whole figure for that, and then again to write it."""
    engine = figure.get_layout_engine()
    if engine is not None:
        FigureCanvasSVG(figure)  # measures text as the file will have it
        engine.execute(figure)
        figure.set_layout_engine(None)


def series_id(place: int) -> str:
    """The gid of what is drawn of a series."""
    return f"{SERIES_GROUP}{place}"
