"""Sections of a run of ``vheatbench heat``: diffusion, diffusivity, point responses."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from vheatbench.analysis.findings import Finding
from vheatbench.present.chart import chart_svg
from vheatbench.present.images import evenly
from vheatbench.present.parts import Chart, Section
from vheatbench.store.read import Run
from vheatbench.studies.heat.figures import MOST_TIMES, by_layer, chosen_times, groups_of, strip_title
from vheatbench.studies.heat.images import (
    OVERLAYS,
    film_markup,
    overlay_markup,
    overlay_times,
    slider_data,
    strip_markup,
)
from vheatbench.studies.heat.kernel_figures import (
    MOST_PROFILES,
    by_source,
    draw_deviations,
    draw_profiles,
    panel_columns,
    source_words,
)
from vheatbench.studies.heat.labels import block_words, is_constant, k_words, number, place_words, weights_words
from vheatbench.studies.heat.results import (
    Diffusion,
    PointResponse,
    diffusions_of,
    diffusivities_of,
    point_responses_of,
)
from vheatbench.studies.heat.section_diffusivity import diffusivity_section
from vheatbench.studies.heat.table import cell, cells, digits, headings, numbers_table
from vheatbench.studies.heat.temperature import COLDEST, held_at_source

MOST_STRIPS = 6
"""Layers of a model that have pictures; the table has all of them."""

MOST_CELLS = 112 * 112
"""Of a grid whose field a page's script evaluates: finer ones would weigh more than all the rest."""

DEVIATIONS = ("neumann_error", "finite_difference_error", "mass_error", "undershoot")


def heat_sections(run: Run, id_: str) -> list[Section]:
    """Everything the page shows of a run of ``vheatbench heat``.

    Args:
        run: any run; of one without heat records nothing is shown.
        id_: unique on the page: how the ids of the sections and their charts start.

    Returns:
        A section for each kind of analysis in the run.
    """
    diffusions, lost = diffusions_of(run)
    blocks, lost_blocks = diffusivities_of(run)
    responses, lost_responses = point_responses_of(run)
    found = [
        (_diffusion_section(diffusions, f"{id_}-diffuse"), lost),
        (diffusivity_section(blocks, f"{id_}-k"), lost_blocks),
        (_kernel_section(responses, f"{id_}-kernel"), lost_responses),
    ]
    sections = []
    for section, problems in found:
        section.alerts += [f"Not shown: {problem}" for problem in problems]
        if section.charts or problems:
            sections.append(section)
    return sections


# diffusion


def _diffusion_section(diffusions: Sequence[Diffusion], id_: str) -> Section:
    section = Section(id_, "Heat diffusion")
    if not diffusions:
        return section
    groups = list(groups_of(diffusions).values())
    several = len({group[0].subject for group in groups}) > 1
    for number_, group in enumerate(groups):
        layers = list(by_layer(group).values())
        shown = evenly(len(layers), MOST_STRIPS)
        section.charts.append(_film(f"{id_}{number_}-film", layers[shown[0]], several))
        for i in shown:
            section.charts += _film_charts(f"{id_}{number_}-{i}", layers[i], several)
        if len(shown) < len(layers):
            section.notes.append(f"Pictures: {len(shown)} of {len(layers)} layers, evenly chosen; the table has all.")
        anchor = f"{id_}{number_}-{shown[0]}-strip"
        section.findings += [(finding, anchor) for finding in _diffusion_findings(group)]
    records = [one.record for one in diffusions]
    section.tables.append(numbers_table(f"{id_}-numbers", "diffuse", "Diffusion in numbers", records))
    random = list(dict.fromkeys(one.subject for one in diffusions if one.random))
    if random:
        section.notes.append(
            f"Random weights ({', '.join(random)}): a freshly initialised vHeat hardly conducts, and at about half of "
            "the frequencies not at all; these fields are not what a trained model does."
        )
    section.notes.append("A field is that of one channel: the mean of several channels' fields follows no single k.")
    if any(one.coefficients.size > MOST_CELLS for one in diffusions):
        section.notes.append(
            "Grids finer than 112×112 cells have no slider over time: their coefficients weigh too much."
        )
    return section


def _named(rows: Sequence[Diffusion], several: bool) -> str:
    """The block, and of several models which."""
    return block_words(rows[0].layer) + (f", {rows[0].subject}" if several else "")


def _film(id_: str, rows: Sequence[Diffusion], several: bool) -> Chart:
    """The fields of one layer in motion."""
    name = _named(rows, several)
    caption = (
        f"{'; '.join(strip_title(rows).splitlines())}. The same source and the same moments for every k, spaced "
        "logarithmically; colour as below. The strip has them side by side, with a slider where scripts run."
    )
    text = "; ".join(_described_field(one) for one in rows) + "."
    return Chart(id_, f"Heat in motion: {name}", film_markup(rows), caption, text, (), ())


def _film_charts(id_: str, rows: Sequence[Diffusion], several: bool) -> list[Chart]:
    """The film strip of one layer, with what its script needs, and the fields over the image."""
    name = _named(rows, several)
    caption = (
        f"{'; '.join(strip_title(rows).splitlines())}. Heat begins in one cell and is conducted exactly, with "
        "insulated walls. kt: mean of k over frequencies, times t, in cells². Colour: temperature over its mean, one "
        f"logarithmic scale for all fields{chosen_times(rows, MOST_TIMES)}."
    )
    header = (
        "field",
        "t",
        "mean kt (cells²)",
        "hottest cell / mean",
        "coldest / mean",
        "source's cell (% of heat)",
    )
    fits = rows[0].coefficients.size <= MOST_CELLS
    charts = [
        Chart(
            f"{id_}-strip",
            f"Heat from one cell: {name}",
            strip_markup(rows),
            caption,
            "; ".join(_described_field(one) for one in rows) + ".",
            header,
            [row for one in rows for row in _moments(one)],
            slider_data(rows) if fits else None,
        )
    ]
    if any(one.image is not None for one in rows):
        chosen = chosen_times(rows, min(OVERLAYS, len(rows[0].times) - 1))
        over = (
            "The same fields over the image, the source ringed; the hotter, the less is seen of the image, and cells "
            f"below {COLDEST:g} of the mean, or negative, are nearly transparent{chosen}."
        )
        laid = [one for one in rows if one.image is not None]
        charts.append(
            Chart(
                f"{id_}-overlay",
                f"Heat over the image: {name}",
                overlay_markup(rows),
                over,
                f"Fields of {place_words(rows)} over the image: {'; '.join(map(_described_field, laid))}.",
                header,
                [_moments(one)[i] for one in laid for i in overlay_times(one)],
            )
        )
    return charts


def _moments(one: Diffusion) -> list[tuple[str, ...]]:
    source = int(one.frames[0].argmax())
    hottest = one.frames.max((1, 2)) / one.frames.mean((1, 2))
    # what rounding leaves of a cold cell is 0
    coldest = np.round(one.frames.min((1, 2)) / one.frames.mean((1, 2)), 9) + 0.0
    kept = [100 * frame.flat[source] / frame.sum() for frame in one.frames]
    return [
        (k_words(one), *map(digits, row)) for row in zip(one.times, one.mean_kt, hottest, coldest, kept, strict=True)
    ]


def _described_field(one: Diffusion) -> str:
    first, last = (frame.max() / frame.mean() for frame in (one.frames[0], one.frames[-1]))
    return (
        f"{k_words(one)}: the hottest cell goes from {digits(first)} times the mean at t 0 to {digits(last)} at "
        f"t {digits(one.times[-1])}, where the source's cell holds {digits(100 * held_at_source(one))} % of the heat"
    )


def _diffusion_findings(group: Sequence[Diffusion]) -> list[Finding]:
    learned = [one for one in group if not is_constant(one)]
    found = []
    for one in (learned[i] for i in evenly(len(learned), 3)):
        length, kept, zeros = cells(one.record, "diffusion_length_px", "source_kept", "k_zero_share")
        text = (
            f"{place_words([one])}, {weights_words(one.weights)}: one conduction carries heat {length} px (sqrt(2 k)) "
            f"and leaves {kept} % of it in its cell"
        )
        if number(one.record, "k_zero_share") > 0:
            text += f"; k is exactly 0 at {zeros} % of the frequencies, which never fade"
        found.append(Finding(text + ".", "", important=one is learned[0]))
    lowest = max(group, key=lambda one: number(one.record, "undershoot"))
    if number(lowest.record, "undershoot") > 1e-6:
        text = (
            f"Temperatures fall below zero: to −{cell(lowest.record, 'undershoot')} of the source's with "
            f"{k_words(lowest)} in {lowest.layer}. A k that differs between frequencies, or kt below about 1, obeys no "
            "maximum principle."
        )
        found.append(Finding(text, ""))
    return found


# the operator's point response


def _kernel_section(responses: Sequence[PointResponse], id_: str) -> Section:
    section = Section(id_, "Point response of the heat operator")
    if not responses:
        return section
    for i, group in enumerate(by_source(responses).values()):
        section.charts += _kernel_charts(f"{id_}{i}", group)
        section.findings += [(finding, f"{id_}{i}-profile") for finding in _kernel_findings(group)]
    records = [one.record for one in responses]
    section.tables.append(numbers_table(f"{id_}-numbers", "kernel", "Point response in numbers", records))
    section.notes.append(
        "The analytic kernel is that of the rectangle with insulated walls at the cells' centres. Finite differences: "
        "the exact exponential of the 5-point Laplacian. The operator's spectrum ends at the grid's highest frequency: "
        "below kt of about 1 it rings, and goes below zero."
    )
    return section


def _kernel_charts(id_: str, group: Sequence[PointResponse]) -> list[Chart]:
    place = source_words(group[0])
    described = "; ".join(map(_described_response, group))
    shown = [group[i] for i in evenly(len(group), MOST_PROFILES)]
    columns = min(panel_columns(len(shown)), 3)
    profiles = partial(draw_profiles, responses=group, columns=columns)
    charts = [
        Chart(
            f"{id_}-profile",
            "Profile through the source",
            chart_svg(f"{id_}-profile", profiles, 2.1 * -(-len(shown) // columns)),
            f"Temperature along the source's row after kt; {place}.",
            f"Temperature along the source's row: {described}.",
            ("kt (cells²)", "cells from the source", "operator", "Neumann kernel", "finite differences"),
            [row for one in shown for row in _profile_rows(one)],
        )
    ]
    if len(group) > 1:
        charts.append(
            Chart(
                f"{id_}-error",
                "Error and undershoot",
                chart_svg(f"{id_}-error", partial(draw_deviations, responses=group), 3.2),
                "Left: largest difference from the two other answers over their peak, and that of the total heat from "
                f"1. Right: how far below zero the response goes. Both against kt; {place}.",
                f"Errors against kt: {described}.",
                ("kt (cells²)", *headings(*DEVIATIONS)),
                [(digits(one.kt), *cells(one.record, *DEVIATIONS)) for one in group],
            )
        )
    return charts


def _profile_rows(one: PointResponse) -> list[tuple[str, ...]]:
    row, column = one.source
    far = [column + step for step in (0, 1, 2, 3, 5, 8) if column + step < one.grid[1]]
    answers = (one.operator, one.neumann, one.finite_difference)
    return [(digits(one.kt), str(place - column), *(digits(field[row, place]) for field in answers)) for place in far]


def _described_response(one: PointResponse) -> str:
    neumann, differences, below = cells(one.record, "neumann_error", "finite_difference_error", "undershoot")
    return (
        f"at kt {digits(one.kt)} the operator is within {neumann} % of the Neumann kernel's peak, "
        f"within {differences} % of that of finite differences, and {below} below zero"
    )


def _kernel_findings(group: Sequence[PointResponse]) -> list[Finding]:
    found = []
    close = [one for one in group if number(one.record, "neumann_error") <= 2e-5]
    if close:
        worst = max(number(one.record, "neumann_error") for one in close)
        text = (
            f"From kt = {digits(close[0].kt)} cells² on the operator is the heat equation's own kernel to "
            f"{digits(worst)} of its peak ({source_words(close[0])})."
        )
        found.append(Finding(text, "", important=True))
    lowest = max(group, key=lambda one: number(one.record, "undershoot"))
    if number(lowest.record, "undershoot") > 1e-6:
        text = (
            f"The maximum principle fails at small kt: at {digits(lowest.kt)} cells² the response goes to "
            f"−{cell(lowest.record, 'undershoot')} of the source's 1."
        )
        found.append(Finding(text, ""))
    mass = max(number(one.record, "mass_error") for one in group)
    found.append(Finding(f"Total heat is conserved to {digits(mass)} at every kt.", ""))
    return found
