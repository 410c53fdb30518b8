"""The section of the operator's point response: profiles, errors, and where it goes below zero."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from vheatbench.analysis.findings import Finding
from vheatbench.present.parts import Chart, Section
from vheatbench.studies.heat.kernel_figures import (
    MOST_PROFILES,
    by_source,
    draw_errors,
    draw_profiles,
    draw_undershoot,
    panel_columns,
)
from vheatbench.studies.heat.labels import number
from vheatbench.studies.heat.results import PointResponse
from vheatbench.studies.heat.section_chart import heat_svg
from vheatbench.studies.heat.section_numbers import numbers_table, said
from vheatbench.studies.heat.temperature import evenly

RESPONSE = (
    ("peak", "peak", 1.0),
    ("neumann_error", "error against the Neumann kernel (of its peak)", 1.0),
    ("finite_difference_error", "error against finite differences (of their peak)", 1.0),
    ("mass_error", "error of the total heat", 1.0),
    ("undershoot", "undershoot (source = 1)", 1.0),
    ("overshoot", "overshoot", 1.0),
)


def kernel_section(responses: Sequence[PointResponse], id_: str) -> Section:
    """Everything of ``heat kernel``; without charts where there are no responses."""
    section = Section(id_, "Point response of the heat operator")
    for i, ((grid, source), group) in enumerate(by_source(responses).items()):
        place = f"grid {grid[0]}×{grid[1]}, source in row {source[0]}, column {source[1]}"
        section.charts += _charts(f"{id_}{i}", group, place)
        section.findings += [(finding, f"{id_}{i}-profile") for finding in _findings(group, place)]
    if responses:
        names = [
            (f"{one.grid[0]}×{one.grid[1]}", f"{one.source[0]}, {one.source[1]}", said(one.kt)) for one in responses
        ]
        section.tables.append(
            numbers_table(
                f"{id_}-numbers",
                "Point response in numbers",
                "Heat 1 in one cell, conducted by the operator with the same k everywhere, in float64.",
                ("grid", "source (row, column)", "kt (cells²)"),
                list(zip(names, (one.record for one in responses), strict=True)),
                RESPONSE,
            )
        )
        section.notes.append(
            "The analytic kernel is that of the rectangle with insulated walls at the cells' centres. Finite "
            "differences: the exact exponential of the 5-point Laplacian. The operator's spectrum ends at the grid's "
            "highest frequency: below kt of about 1 it rings, and goes below zero."
        )
    return section


def _charts(id_: str, group: Sequence[PointResponse], place: str) -> list[Chart]:
    count = min(len(group), MOST_PROFILES)
    columns = min(panel_columns(count), 3)
    rows = -(-count // columns)
    header = ("kt (cells²)", "cells from the source", "operator", "Neumann kernel", "finite differences")
    charts = [
        Chart(
            f"{id_}-profile",
            "Profile through the source",
            heat_svg(
                f"{id_}-profile",
                lambda figure, colours: draw_profiles(figure, group, colours, columns),
                height=2.1 * rows,
            ),
            f"Temperature along the source's row after kt; {place}.",
            f"Temperature along the source's row: {'; '.join(map(_described, group))}.",
            header,
            [row for i in evenly(len(group), MOST_PROFILES) for row in _profile_rows(group[i])],
        )
    ]
    if len(group) > 1:
        numbers = [
            tuple(said(value) for value in (one.kt, *(number(one.record, metric) for metric, _, _ in RESPONSE[1:5])))
            for one in group
        ]
        charts.append(
            Chart(
                f"{id_}-error",
                "Error and undershoot",
                heat_svg(f"{id_}-error", lambda figure, colours: _draw_errors(figure, group, colours)),
                "Left: largest difference from the two other answers over their peak, and that of the total heat from "
                f"1. Right: how far below zero the response goes. Both against kt; {place}.",
                f"Errors against kt: {'; '.join(map(_described, group))}.",
                ("kt (cells²)", "Neumann kernel", "finite differences", "total heat", "undershoot"),
                numbers,
            )
        )
    return charts


def _draw_errors(figure: Figure, group: Sequence[PointResponse], colours: Sequence[str]) -> None:
    left, right = figure.subplots(1, 2)
    draw_errors(left, group, colours)
    draw_undershoot(right, group, colours)


def _profile_rows(one: PointResponse) -> list[tuple[str, ...]]:
    row, column = one.source
    far = [column + step for step in (0, 1, 2, 3, 5, 8) if column + step < one.grid[1]]
    return [
        (
            said(one.kt), str(cell - column), said(one.operator[row, cell]), said(one.neumann[row, cell]),
            said(one.finite_difference[row, cell]),
        )
        for cell in far
    ]  # fmt: skip


def _described(one: PointResponse) -> str:
    neumann, differences, below = (
        said(number(one.record, metric)) for metric in ("neumann_error", "finite_difference_error", "undershoot")
    )
    return (
        f"at kt {said(one.kt)} the operator is within {neumann} of the Neumann kernel's peak, within {differences} "
        f"of that of finite differences, and {below} below zero"
    )


def _findings(group: Sequence[PointResponse], place: str) -> list[Finding]:
    found = []
    close = [one for one in group if number(one.record, "neumann_error") <= 2e-5]
    if close:
        worst = max(number(one.record, "neumann_error") for one in close)
        found.append(
            Finding(
                f"From kt = {said(close[0].kt)} cells² on the operator is the heat equation's own kernel to "
                f"{said(worst)} of its peak ({place}).",
                "",
                important=True,
            )
        )
    lowest = max(group, key=lambda one: number(one.record, "undershoot"))
    if number(lowest.record, "undershoot") > 1e-6:
        found.append(
            Finding(
                f"The maximum principle fails at small kt: at {said(lowest.kt)} cells² the response goes to "
                f"−{said(number(lowest.record, 'undershoot'))} of the source's 1.",
                "",
            )
        )
    mass = max(number(one.record, "mass_error") for one in group)
    found.append(Finding(f"Total heat is conserved to {said(mass)} at every kt.", ""))
    return found
