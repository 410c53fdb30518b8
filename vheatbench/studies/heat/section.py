"""Sections of a run of ``vheatbench heat``: diffusion, diffusivity, point responses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vheatbench.analysis.findings import Finding
from vheatbench.present.parts import Chart, Section
from vheatbench.store.read import Run
from vheatbench.studies.heat.figures import MOST_TIMES, by_layer, chosen_times, groups_of, strip_title
from vheatbench.studies.heat.images import OVERLAYS, overlay_markup, slider_data, strip_markup
from vheatbench.studies.heat.labels import block_words, called, is_constant, number, seen_in, weights_words
from vheatbench.studies.heat.results import Diffusion, diffusions_of, diffusivities_of, point_responses_of
from vheatbench.studies.heat.section_diffusivity import diffusivity_section
from vheatbench.studies.heat.section_kernel import kernel_section
from vheatbench.studies.heat.section_numbers import PERCENT, numbers_table, said
from vheatbench.studies.heat.temperature import COLDEST, evenly, held_at_source

MOST_STRIPS = 6
"""Layers of a model that have pictures; the table has all of them."""

MOST_CELLS = 112 * 112
"""Of a grid whose field a page's script evaluates: finer ones would weigh more than all the rest."""

DIFFUSED = (
    ("k_mean_cells2", "mean k (cells²)", 1.0),
    ("k_zero_share", "k exactly 0 (%)", PERCENT),
    ("diffusion_length_cells", "diffusion length (cells)", 1.0),
    ("diffusion_length_px", "(px)", 1.0),
    ("diffusion_length_share", "(% of the shorter side)", PERCENT),
    ("source_kept", "heat kept by the source at t = 1 (%)", PERCENT),
    ("undershoot", "undershoot", 1.0),
    ("mass_error", "error of the total heat", 1.0),
)


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
        (kernel_section(responses, f"{id_}-kernel"), lost_responses),
    ]
    sections = []
    for section, problems in found:
        section.alerts += [f"Not shown: {problem}" for problem in problems]
        if section.charts or problems:
            sections.append(section)
    return sections


def _diffusion_section(diffusions: Sequence[Diffusion], id_: str) -> Section:
    section = Section(id_, "Heat diffusion")
    if not diffusions:
        return section
    for number_, group in enumerate(groups_of(diffusions).values()):
        layers = list(by_layer(group).values())
        shown = evenly(len(layers), MOST_STRIPS)
        for i in shown:
            section.charts += _charts(f"{id_}{number_}-{i}", layers[i])
        if len(shown) < len(layers):
            section.notes.append(f"Pictures: {len(shown)} of {len(layers)} layers, evenly chosen; the table has all.")
        anchor = f"{id_}{number_}-{shown[0]}-strip"
        section.findings += [(finding, anchor) for finding in _findings(group)]
    section.tables.append(
        numbers_table(
            f"{id_}-numbers",
            "Diffusion in numbers",
            "Of the chosen channel's k. Diffusion length: sqrt(2 k) of the mean k. Undershoot: how far below zero the "
            "lowest temperature falls, the source's being 1 at the start.",
            ("field", "layer", "channel"),
            [((f"{one.subject}, {called(one)}", one.layer, one.channel or "—"), one.record) for one in diffusions],
            DIFFUSED,
        )
    )
    section.notes += _notes(diffusions)
    return section


def _charts(id_: str, rows: Sequence[Diffusion]) -> list[Chart]:
    """The film strip of one layer, with what its script needs, and the fields over the image."""
    name = block_words(rows[0].layer)
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
        "heat in the source's cell (%)",
    )
    fits = rows[0].coefficients.size <= MOST_CELLS
    charts = [
        Chart(
            f"{id_}-strip",
            f"Heat from one cell: {name}",
            strip_markup(rows),
            caption,
            "; ".join(_described(one) for one in rows) + ".",
            header,
            [row for one in rows for row in _rows(one)],
            slider_data(rows) if fits else None,
        )
    ]
    if any(one.image is not None for one in rows):
        chosen = chosen_times(rows, min(OVERLAYS, len(rows[0].times) - 1))
        over = (
            "The same fields over the image, the source ringed; the hotter, the less is seen of the image, and cells "
            f"below {COLDEST:g} of the mean, or negative, are nearly transparent{chosen}."
        )
        text = f"Fields of {seen_in(rows)} over the image; the numbers stand with the film strip."
        charts.append(Chart(f"{id_}-overlay", f"Heat over the image: {name}", overlay_markup(rows), over, text, (), ()))
    return charts


def _rows(one: Diffusion) -> list[tuple[str, ...]]:
    cell = int(one.frames[0].argmax())
    hottest = one.frames.max((1, 2)) / one.frames.mean((1, 2))
    # what rounding leaves of a cold cell is 0
    coldest = np.round(one.frames.min((1, 2)) / one.frames.mean((1, 2)), 9) + 0.0
    return [
        (
            called(one), said(t), said(kt), said(high), said(low),
            said(100 * frame.flat[cell] / frame.sum()),
        )
        for t, kt, high, low, frame in zip(one.times, one.mean_kt, hottest, coldest, one.frames, strict=True)
    ]  # fmt: skip


def _described(one: Diffusion) -> str:
    first, last = (frame.max() / frame.mean() for frame in (one.frames[0], one.frames[-1]))
    return (
        f"{called(one)}: the hottest cell goes from {said(first)} times the mean at t 0 to {said(last)} at "
        f"t {said(one.times[-1])}, where the source's cell holds {said(100 * held_at_source(one))} % of the heat"
    )


def _findings(group: Sequence[Diffusion]) -> list[Finding]:
    learned = [one for one in group if not is_constant(one)]
    found = []
    for one in (learned[i] for i in evenly(len(learned), 3)):
        kept, zeros = number(one.record, "source_kept"), number(one.record, "k_zero_share")
        length = number(one.record, "diffusion_length_px")
        text = (
            f"{seen_in([one])}, {weights_words(one.weights)}: one conduction carries heat {said(length)} px "
            f"(sqrt(2 k)) and leaves {said(100 * kept)} % of it in its cell"
        )
        if zeros > 0:
            text += f"; k is exactly 0 at {said(100 * zeros)} % of the frequencies, which never fade"
        found.append(Finding(text + ".", "", important=one is learned[0]))
    lowest = max(group, key=lambda one: number(one.record, "undershoot"))
    undershoot = number(lowest.record, "undershoot")
    if undershoot > 1e-6:
        found.append(
            Finding(
                f"Temperatures fall below zero: to −{said(undershoot)} of the source's with {called(lowest)} in "
                f"{lowest.layer}. A k that differs between frequencies, or kt below about 1, obeys no maximum "
                "principle.",
                "",
            )
        )
    return found


def _notes(diffusions: Sequence[Diffusion]) -> list[str]:
    notes = []
    random = list(dict.fromkeys(one.subject for one in diffusions if one.random))
    if random:
        notes.append(
            f"Random weights ({', '.join(random)}): a freshly initialised vHeat hardly conducts, and at about half of "
            "the frequencies not at all; these fields are not what a trained model does."
        )
    notes.append("A field is that of one channel: the mean of several channels' fields follows no single k.")
    if any(one.coefficients.size > MOST_CELLS for one in diffusions):
        notes.append("Grids finer than 112×112 cells have no slider over time: their coefficients weigh too much.")
    return notes
