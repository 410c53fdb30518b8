"""The section of a model's diffusivity: k by frequency, against depth, its reach, both resizing rules."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from vheatbench.analysis.findings import Finding
from vheatbench.metrics import info_of
from vheatbench.present.chart import chart_svg
from vheatbench.present.images import evenly
from vheatbench.present.parts import Chart, Section
from vheatbench.present.style import shorten
from vheatbench.studies.heat.diffusivity_figures import (
    MOST_MAPS,
    draw_distribution,
    draw_last_blocks,
    draw_reach,
    draw_stages,
    map_limits,
)
from vheatbench.studies.heat.diffusivity_groups import (
    Blocks,
    last_blocks,
    model_words,
    models_of,
    rules_of,
    series_of,
    stage_of,
    stages_of,
    variant,
)
from vheatbench.studies.heat.images import k_maps_markup
from vheatbench.studies.heat.labels import block_words, number, weights_words
from vheatbench.studies.heat.results import Diffusivity
from vheatbench.studies.heat.table import cell, cells, digits, headings, numbers_table

QUANTILES = ("k_q25_cells2", "k_median_cells2", "k_q75_cells2", "k_mean_cells2", "k_max_cells2", "k_zero_share")
LENGTHS = ("diffusion_length_px", "diffusion_length_share")
UNDER_RULES = ("k_mean_cells2", "k_zero_share", "diffusion_length_px")
HALF_DECAY = "half_decay_frequency_rad_per_cell"


def diffusivity_section(results: Sequence[Diffusivity], id_: str) -> Section:
    """Everything of ``heat diffusivity``; without charts where there are no blocks."""
    section = Section(id_, "Diffusivity")
    if not results:
        return section
    series = series_of(results)
    for i, blocks in enumerate(series):
        section.charts += [_maps(f"{id_}{i}-maps", blocks), _quantiles(f"{id_}{i}-quantiles", blocks),
                           _decay(f"{id_}{i}-decay", blocks)]  # fmt: skip
    for i, of_model in enumerate(models_of(series)):
        section.charts.append(_lengths(f"{id_}{i}-length", of_model))
        for j, compared in enumerate(rules_of(of_model)):
            section.charts += _rules(f"{id_}{i}-rules{j}", compared)
        section.findings += [(finding, f"{id_}{i}-length") for finding in _findings(of_model)]
    records = [one.record for blocks in series for one in blocks]
    section.tables.append(numbers_table(f"{id_}-numbers", "diffusivity", "Diffusivity in numbers", records))
    random = list(dict.fromkeys(one.subject for one in results if one.random))
    if random:
        section.notes.append(
            f"Random weights ({', '.join(random)}): a freshly initialised vHeat hardly conducts; about half of k is "
            "exactly 0."
        )
    section.notes.append(
        "k is in cells²: the same k reaches a smaller share of an image with more cells. Bicubic resizing keeps k at "
        "its share of the highest frequency; zero padding keeps it at its number of half waves, and gives every new "
        "frequency the k of an embedding of zeros."
    )
    return section


def _maps(id_: str, blocks: Blocks) -> Chart:
    where = model_words(blocks)
    shown = [blocks[i] for i in evenly(len(blocks), MOST_MAPS)]
    rows = [
        (one.layer, *map(digits, (one.mean_map.min(), one.mean_map.max(), 100 * (one.mean_map == 0).mean())))
        for one in shown
    ]
    panels = [(block_words(one.layer), f"mean {cell(one.record, 'k_mean_cells2')}", one) for one in shown]
    return Chart(
        id_,
        f"k by frequency: {where}",
        k_maps_markup(panels, map_limits(shown)),
        f"Mean of k over channels at every frequency, zero frequency in the top left corner, π rad/cell at the far "
        f"ends; with each block its mean. {where}.",
        f"Mean k by block: {_ends(blocks, 'k_mean_cells2', ' cells²')}.",
        ("block", "least of the map (cells²)", "largest (cells²)", "frequencies with k 0 in all channels (%)"),
        rows,
    )


def _quantiles(id_: str, blocks: Blocks) -> Chart:
    where = model_words(blocks)
    return Chart(
        id_,
        f"k against depth: {where}",
        chart_svg(id_, partial(draw_distribution, blocks=blocks), 3.2),
        f"k over all channels and frequencies of each block, and the share that is exactly 0. {where}.",
        f"Median k {_ends(blocks, 'k_median_cells2', ' cells²')}; k is exactly 0 at a share "
        f"{_ends(blocks, 'k_zero_share', ' %')}.",
        ("block", *headings(*QUANTILES)),
        [(one.layer, *cells(one.record, *QUANTILES)) for one in blocks],
    )


def _decay(id_: str, blocks: Blocks) -> Chart:
    stages, where = stages_of(blocks), model_words(blocks)
    ends = [f"{digits(stage[-1].decay_quantiles[-1, 1])} in {stage_of(stage[-1])}" for stage in stages]
    return Chart(
        id_,
        f"What is left of a frequency: {where}",
        chart_svg(id_, partial(draw_stages, blocks=blocks, most_columns=2), 2.2 * -(-len(stages) // 2)),
        "exp(-k |w|²), what one application leaves of a frequency: lines are medians over channels and frequencies, "
        f"the band holds the middle half of the last block, a dot marks half. {where}.",
        f"At the highest frequencies the median of the last blocks is {'; '.join(ends)}.",
        ("block", "median at the highest |w|", "lower quartile there", *headings(HALF_DECAY)),
        [
            (
                one.layer, digits(one.decay_quantiles[-1, 1]), digits(one.decay_quantiles[-1, 0]),
                cell(one.record, HALF_DECAY),
            )
            for one in blocks
        ],
    )  # fmt: skip


def _lengths(id_: str, of_model: Sequence[Blocks]) -> Chart:
    where = model_words(of_model[0], size=False)
    return Chart(
        id_,
        f"How far heat is carried: {where}",
        chart_svg(id_, partial(draw_reach, series=of_model), 3.2),
        f"Diffusion length sqrt(2 k) of each block's mean k, in pixels and in % of the image's shorter side. {where}.",
        "; ".join(f"{variant(b[0])}: {_ends(b, 'diffusion_length_px', ' px')}" for b in of_model) + ".",
        ("block", "size", *headings(*LENGTHS)),
        [(one.layer, variant(one), *cells(one.record, *LENGTHS)) for blocks in of_model for one in blocks],
    )


def _rules(id_: str, compared: Sequence[Blocks]) -> list[Chart]:
    """k of the last block of every stage beside each other, and what is left of a frequency."""
    rows = last_blocks(compared)
    shown = [one for row in rows for one in row]
    where = model_words(shown, size=False)
    header = ("block", "size", *headings(*UNDER_RULES))
    table = [(one.layer, variant(one), *cells(one.record, *UNDER_RULES)) for one in shown]
    text = "; ".join(f"{one.layer} at {variant(one)}: mean k {cell(one.record, 'k_mean_cells2')}" for one in shown)
    panels = [(block_words(one.layer), variant(one), one) for one in shown]
    return [
        Chart(
            f"{id_}-maps",
            f"Both resizing rules: {where}",
            k_maps_markup(panels, map_limits(shown), len(compared)),
            f"Mean k by frequency of the last block of every stage, at its own size and resized. {where}.",
            f"{text}.",
            header,
            table,
        ),
        Chart(
            f"{id_}-decay",
            f"What is left under both rules: {where}",
            chart_svg(f"{id_}-decay", partial(draw_last_blocks, rows=rows), 2.2 * -(-len(rows) // 2)),
            f"exp(-k |w|²) of the last block of every stage: medians and quartiles. {where}.",
            f"{text}.",
            header,
            table,
        ),
    ]


def _ends(blocks: Blocks, metric: str, unit: str) -> str:
    first, last = blocks[0], blocks[-1]
    return (
        f"from {cell(first.record, metric)}{unit} in {first.layer} to {cell(last.record, metric)}{unit} in {last.layer}"
    )


def _findings(of_model: Sequence[Blocks]) -> list[Finding]:
    found = []
    for blocks in of_model:
        one = blocks[0]
        zeros = [info_of("k_zero_share").factor * number(block.record, "k_zero_share") for block in blocks]
        text = (
            f"{shorten(one.subject)} at {variant(one)}, {weights_words(one.weights)}: one application carries heat "
            f"{_ends(blocks, 'diffusion_length_px', ' px')} ({_ends(blocks, 'diffusion_length_share', ' %')} "
            f"of the image); k is exactly 0 at {digits(min(zeros))} to {digits(max(zeros))} % of channels and "
            "frequencies."
        )
        found.append(Finding(text, "", important=blocks is of_model[0]))
    return found
