"""One look for every figure: widths, colours, lines, the style file, and files of equal bytes for equal input."""

from __future__ import annotations

import io
import math
import re
import textwrap
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter, Locator, LogLocator, NullLocator

from vheatbench.files import write_file

ONE_COLUMN, TWO_COLUMN = 3.3, 6.9
"""Widths in inches of a column and of a page of a two-column paper."""

COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#8C6BB1", "#7F7F7F")
"""Okabe and Ito's colour-blind safe palette (without black and yellow), in the order of the report's charts."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h")

DASHES = ("-", "--", ":")

MAP_COLOURS = "magma"
"""Perceptually uniform, and it grows in lightness, so that it survives print in grey."""

FORMATS = ("png", "svg", "pdf")

_STYLE_FILE = Path(__file__).with_name("vheatbench.mplstyle")

_METADATA: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
"""What a file does not say, since it would differ from day to day or from version to version."""


@dataclass(frozen=True)
class LineStyle:
    """What tells a line from the others."""

    colour: str
    marker: str
    dash: str
    face: str
    """Fill of the marker: the line's colour, or the paper's for a hollow one."""


def line_styles(colours: Sequence[str], paper: str) -> tuple[LineStyle, ...]:
    """48 styles: the first eight have a colour and a filled marker each.

    After them colours return with another marker, hollow, and a dashed line, then with a third marker and a dotted one:
    24 in all by colour and dash, whose markers then change once more.
    """
    return tuple(
        LineStyle(colour, MARKERS[(i + 3 * turn) % len(MARKERS)], DASHES[turn % 3], paper if turn % 2 else colour)
        for turn in range(6)
        for i, colour in enumerate(colours)
    )


PRINT_LINES = line_styles(COLOURS, "white")


@contextmanager
def style() -> Iterator[None]:
    """matplotlib's settings for our figures, whatever the user's own are; to be open while a figure is made."""
    with matplotlib.style.context(["default", str(_STYLE_FILE)]):
        yield


def new_figure(width: float = ONE_COLUMN, height: float = 2.4) -> Figure:
    """An empty figure in inches, laid out without overlaps, that needs no display and that pyplot does not know of."""
    return Figure(figsize=(width, height), layout="constrained")


def legend_below(figure: Figure, columns: int | None = None) -> None:
    """One legend for all axes, under them; the figure grows by its height.

    Args:
        figure: entries of equal label are shown once.
        columns: as many as fit by the length of the labels where not given.
    """
    entries: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    if not entries:
        return
    width, height = figure.get_size_inches()
    em = matplotlib.rcParams["legend.fontsize"] / 72
    if columns is None:
        # DejaVu's mean advance is 0.6 em; handle, gap and spacing take another 5 em
        columns = max(1, min(len(entries), 4, int(width / (em * (5 + 0.6 * max(map(len, entries)))))))
    rows = -(-len(entries) // columns)
    figure.set_size_inches(width, height + em * (1.45 * rows + 0.8))
    figure.legend(list(entries.values()), list(entries), loc="outside lower center", ncols=columns)


def panels(figure: Figure, count: int, columns: int, share_y: bool = False) -> list[Axes]:
    """So many axes in rows of so many; the last row's empty places are left blank."""
    grid = figure.subplots(-(-count // columns), columns, squeeze=False, sharey=share_y).ravel()
    for axes in grid[count:]:
        axes.set_axis_off()
    return list(grid[:count])


def label_outer(axes: Sequence[Axes], columns: int) -> None:
    """Of :func:`panels` only those with none below them keep the label of their x axis, and those at the left of y."""
    for place, one in enumerate(axes):
        if place + columns < len(axes):
            one.set_xlabel("")
        if place % columns:
            one.set_ylabel("")


TITLE_LETTERS = 115
"""Of a title's line at a page's width."""


def titled_figure(draw: Callable[[Figure], object], height: float, title: str) -> Figure:
    """A figure at a page's width: what ``draw`` puts on it, the title above on as many lines as it takes, one legend
    below."""
    lines = [part for line in title.splitlines() for part in textwrap.wrap(line, TITLE_LETTERS)]
    figure = new_figure(TWO_COLUMN, height + 0.14 * (len(lines) - len(title.splitlines())))
    draw(figure)
    figure.suptitle("\n".join(lines), x=0.01, ha="left")
    legend_below(figure)
    return figure


def size_words(resolution: tuple[int, int]) -> str:
    """``224 px``, or ``224×320 px`` (height × width)."""
    height, width = resolution
    return f"{height} px" if height == width else f"{height}×{width} px"


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten from low to high, at most eight or so; with 2 and 5 times those where there are few."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    steps = (1, 2, 5) if high / low < 100 else (1,)
    every = max(1, -(-(last - first) // 8))
    ticks = [m * 10.0**e for e in range(first, last + 1, every) for m in steps]
    return [tick for tick in ticks if low <= tick <= high]


def set_ticks(axis: Axis, places: Sequence[float] | Locator, labels: Sequence[str] | None = None) -> None:
    """Ticks at these places and nowhere else, named by the labels, or by their numbers where none are given.

    matplotlib's own labels of a logarithmic axis are formulas, which are off as names may hold dollars.
    """
    axis.set_major_locator(places if isinstance(places, Locator) else FixedLocator(places))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FixedFormatter(labels) if labels else FuncFormatter(lambda value, _: f"{value:g}"))


def spaced(ticks: Sequence[float], labels: Sequence[str], log: bool = True, digit: float = 0.019) -> list[str]:
    """The labels, those left blank that would run into a larger tick's; ``digit`` is what one takes of the axis."""
    at = [math.log(tick / ticks[0]) if log else tick - ticks[0] for tick in ticks]
    shown: list[str] = []
    next_at, width = math.inf, 0
    for place, label in zip(reversed(at), reversed(labels), strict=True):
        share = place / (at[-1] or 1.0)
        if next_at - share >= digit * ((width + len(label)) / 2 + 1):
            shown.append(label)
            next_at, width = share, len(label)
        else:
            shown.append("")
    return shown[::-1]


def plain_log(axis: Axis) -> None:
    """A logarithmic axis with plain numbers at its ticks: 0.1, 1, 10, with 2 and 5 between them over few decades.

    To be called after drawing; where nothing positive was drawn the axis stays linear. Within a decade the locator
    finds round numbers, which :func:`log_ticks`, for the whole decades of colour bars, does not.
    """
    if not math.isfinite(getattr(axis.axes.dataLim, f"minpos{axis.axis_name}")):  # type: ignore[attr-defined]
        return
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})  # type: ignore[attr-defined]
    low, high = sorted(axis.get_view_interval())
    few = low > 0 and high / low < 300
    set_ticks(axis, LogLocator(subs=(1, 2, 5) if few else (1,), numticks=8))


def save(figure: Figure, stem: Path, formats: Sequence[str] = FORMATS) -> list[Path]:
    """Write a figure once per format: ``stem.png`` at 300 dpi (twice a sharp screen's), ``stem.svg``, ``stem.pdf``.

    Raises:
        UserError, StoreError: it cannot be written; a figure that was there before stays.
    """
    paths = []
    with style(), warnings.catch_warnings():
        # a name in letters that the font lacks: a box in PNG and PDF, right in SVG
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        for suffix in formats:
            path = stem.with_name(f"{stem.name}.{suffix}")
            content = io.BytesIO()
            figure.savefig(content, format=suffix, metadata=_METADATA.get(suffix))
            write_file(path, content.getvalue())
            paths.append(path)
    return paths


def shown(text: str) -> str:
    """Text from outside with every sign that cannot be printed (control signs, changes of direction) replaced."""
    return "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in text)


def shorten(text: str, length: int = 36) -> str:
    """Text from outside in at most ``length`` signs: the middle is left out, as names differ at their ends."""
    text = shown(text)
    if len(text) <= length:
        return text
    tail = (length - 1) // 2
    return f"{text[: length - 1 - tail]}…{text[len(text) - tail :]}"


def fold(text: str, width: int, lines: int = 3) -> str:
    """A name from outside on at most ``lines`` lines of ``width`` signs, broken after ``_ . / -`` and spaces."""
    pieces = [piece for piece in re.split(r"(?<=[_./\- ])", shorten(text, width * lines)) if piece]
    folded = [""]
    for piece in pieces:
        while len(piece) > width:
            room = width - len(folded[-1])
            folded[-1], piece = folded[-1] + piece[:room], piece[room:]
            folded.append("")
        if len(folded[-1]) + len(piece) > width:
            folded.append("")
        folded[-1] += piece
    folded = [line.rstrip() for line in folded]
    if len(folded) > lines:
        # broken early at its signs it takes more lines than it has to
        text = shorten(text, width * lines)
        folded = [text[i : i + width] for i in range(0, len(text), width)]
    return "\n".join(folded)
