"""Figures of the operator's point response: profiles beside two other answers, errors, and where it overshoots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vheatbench.present.images import evenly
from vheatbench.present.style import label_outer, log_ticks, panels, set_ticks, spaced, titled_figure
from vheatbench.studies.heat.labels import number
from vheatbench.studies.heat.results import PointResponse

MOST_PROFILES = 8
ROUNDING = 1e-16
"""Of float64: what is below is drawn there, and is no undershoot."""

OPERATOR, NEUMANN, DIFFERENCES = "operator (DCT)", "analytic Neumann kernel", "5-point finite differences"

Place = tuple[tuple[int, int], tuple[int, int]]


def by_source(responses: Sequence[PointResponse]) -> dict[Place, list[PointResponse]]:
    """Responses on the same grid to the same source, by growing kt."""
    groups: dict[Place, list[PointResponse]] = {}
    for one in sorted(responses, key=lambda response: response.kt):
        groups.setdefault((one.grid, one.source), []).append(one)
    return groups


def source_words(one: PointResponse) -> str:
    """Which grid and which source."""
    return f"grid {one.grid[0]}×{one.grid[1]}, source in row {one.source[0]}, column {one.source[1]}"


def kernel_figures(responses: Sequence[PointResponse]) -> list[tuple[str, Callable[[], Figure]]]:
    """Every figure of these responses, by grid and source: a file name and what draws it."""
    figures: list[tuple[str, Callable[[], Figure]]] = []
    for (grid, _), group in by_source(responses).items():
        name, place = f"kernel {grid[0]}x{grid[1]}", source_words(group[0])
        count = min(len(group), MOST_PROFILES)
        height, title = 0.3 + 1.75 * -(-count // panel_columns(count)), f"Heat from one cell along its row: {place}"
        profiles = partial(draw_profiles, responses=group)
        figures.append((f"{name} profile", partial(titled_figure, profiles, height, title)))
        if len(group) > 1:
            deviations, title = (
                partial(draw_deviations, responses=group),
                f"The operator against two other answers: {place}",
            )
            figures.append((f"{name} error", partial(titled_figure, deviations, 2.4, title)))
    return figures


def panel_columns(count: int) -> int:
    """Columns that leave few places empty."""
    return count if count < 5 else 3 if count < 7 else 4


def draw_profiles(figure: Figure, responses: Sequence[PointResponse], columns: int = 0) -> list[Axes]:
    """A panel per kt, growing, at most 8, in as many columns as are given or fit; returns the axes."""
    ordered = sorted(responses, key=lambda one: one.kt)
    shown = [ordered[i] for i in evenly(len(ordered), MOST_PROFILES)]
    columns = columns or panel_columns(len(shown))
    axes = panels(figure, len(shown), columns)
    for ax, response in zip(axes, shown, strict=True):
        draw_profile(ax, response)
    label_outer(axes, columns)
    return axes


def draw_profile(ax: Axes, response: PointResponse) -> Axes:
    """Temperature along the source's row, as far as the heat reaches: the operator and the two other answers."""
    row, column = response.source
    reach = int(np.ceil(5 * np.sqrt(2 * response.kt))) + 5
    cells = np.arange(max(0, column - reach), min(response.grid[1], column + reach + 1))
    ax.axhline(0, color=ax.spines["bottom"].get_edgecolor(), linewidth=0.6)
    ax.plot(cells - column, response.neumann[row, cells], color="C1", linewidth=2.6, alpha=0.45, label=NEUMANN)
    ax.plot(cells - column, response.finite_difference[row, cells], "--", color="C2", linewidth=1.2, label=DIFFERENCES)
    ax.plot(cells - column, response.operator[row, cells], "-", color="C0", linewidth=0.9, marker="o",
            markersize=2.2, label=OPERATOR)  # fmt: skip
    ax.set_title(f"kt = {response.kt:g} cells²", fontsize="medium")
    ax.set_xlabel("cells away")
    ax.set_ylabel("temperature")
    ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    ax.yaxis.set_major_locator(MaxNLocator(4))
    return ax


def draw_deviations(figure: Figure, responses: Sequence[PointResponse]) -> None:
    """Errors on the left, undershoot on the right, both against kt."""
    left, right = figure.subplots(1, 2)
    draw_errors(left, responses)
    draw_undershoot(right, responses)


def draw_errors(ax: Axes, responses: Sequence[PointResponse]) -> Axes:
    """Largest difference from the two other answers, over their peak, and the error of the total heat, against kt."""
    curves = (
        (NEUMANN, "C1", "o-", "neumann_error"),
        (DIFFERENCES, "C2", "s--", "finite_difference_error"),
        ("total heat, from 1", "C3", "^:", "mass_error"),
    )
    _draw_against_kt(ax, responses, curves)
    ax.set_ylabel("error of the operator")
    return ax


def draw_undershoot(ax: Axes, responses: Sequence[PointResponse]) -> Axes:
    """How far the response to heat 1 goes below 0, against kt: where there is no maximum principle."""
    below = [one for one in responses if number(one.record, "undershoot") >= ROUNDING]
    never = [one.kt for one in responses if one not in below]
    if below:
        _draw_against_kt(ax, below, (("", "C0", "o-", "undershoot"),))
        _label_kts(ax, [one.kt for one in responses])
    ax.set_ylabel("undershoot (source = 1)")
    if never:
        ax.set_title(f"never below 0 at kt = {', '.join(f'{kt:g}' for kt in never)}")
    return ax


def _draw_against_kt(ax: Axes, responses: Sequence[PointResponse], curves: Sequence[tuple[str, str, str, str]]) -> None:
    ordered = sorted(responses, key=lambda one: one.kt)
    kts = [one.kt for one in ordered]
    for label, colour, line, metric in curves:
        values = [max(number(one.record, metric), ROUNDING) for one in ordered]
        ax.plot(kts, values, line, color=colour, label=label)
    ax.set_xscale("log")
    ax.set_yscale("log")
    _label_kts(ax, kts)
    set_ticks(ax.yaxis, log_ticks(*ax.get_ylim()))
    ax.set_xlabel("kt (cells²)")
    ax.grid(True)
    ax.set_axisbelow(True)


def _label_kts(ax: Axes, kts: Sequence[float]) -> None:
    ordered = sorted(kts)
    ax.set_xlim(0.7 * ordered[0], 1.4 * ordered[-1])
    set_ticks(ax.xaxis, ordered, spaced(ordered, [f"{kt:g}" for kt in ordered], digit=0.04))
