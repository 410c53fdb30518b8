"""The section of a model's diffusivity: k by frequency, against depth, its reach, both resizing rules."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from vheatbench.analysis.findings import Finding
from vheatbench.present.parts import Chart, Section
from vheatbench.present.style import shorten
from vheatbench.studies.heat.diffusivity_curves import (
    decay_floor,
    draw_decay,
    draw_lengths,
    draw_quantiles,
    draw_rules,
    draw_zero_share,
    stage_of,
    stages_of,
    variant,
)
from vheatbench.studies.heat.diffusivity_figures import MOST_MAPS, map_limits, models_of, rules_of, series_of
from vheatbench.studies.heat.images import k_maps_markup
from vheatbench.studies.heat.labels import block_words, number, weights_words
from vheatbench.studies.heat.results import Diffusivity
from vheatbench.studies.heat.section_chart import heat_svg
from vheatbench.studies.heat.section_numbers import PERCENT, numbers_table, said
from vheatbench.studies.heat.temperature import evenly

BLOCK = (
    ("k_mean_cells2", "mean k (cells²)", 1.0),
    ("k_q25_cells2", "lower quartile", 1.0),
    ("k_median_cells2", "median", 1.0),
    ("k_q75_cells2", "upper quartile", 1.0),
    ("k_max_cells2", "largest", 1.0),
    ("k_zero_share", "exactly 0 (%)", PERCENT),
    ("diffusion_length_cells", "diffusion length (cells)", 1.0),
    ("diffusion_length_px", "(px)", 1.0),
    ("diffusion_length_share", "(% of the shorter side)", PERCENT),
    ("decay_mean", "mean decay", 1.0),
    ("half_decay_frequency_rad_per_cell", "half-decay |w| (rad/cell)", 1.0),
)


def diffusivity_section(results: Sequence[Diffusivity], id_: str) -> Section:
    """Everything of ``heat diffusivity``; without charts where there are no blocks."""
    section = Section(id_, "Diffusivity")
    series = series_of(results)
    for i, blocks in enumerate(series):
        section.charts += _charts_of(f"{id_}{i}", blocks)
    for i, of_model in enumerate(models_of(series)):
        section.charts.append(_lengths(f"{id_}{i}-length", of_model))
        for j, compared in enumerate(rules_of(of_model)):
            section.charts += _rules(f"{id_}{i}-rules{j}", compared)
        section.findings += [(finding, f"{id_}{i}-length") for finding in _findings(of_model)]
    if results:
        ordered = [one for blocks in series for one in blocks]
        section.tables.append(
            numbers_table(
                f"{id_}-numbers",
                "Diffusivity in numbers",
                "k over all channels and frequencies of a block. Diffusion length: sqrt(2 k) of the mean k, the "
                "standard deviation per axis of a point's heat after one application. Half-decay: the lowest |w| of "
                "which half is left, a dash where none is.",
                ("block", "model", "size"),
                [((one.layer, one.subject, variant(one)), one.record) for one in ordered],
                BLOCK,
            )
        )
        random = list(dict.fromkeys(one.subject for one in results if one.random))
        if random:
            section.notes.append(
                f"Random weights ({', '.join(random)}): a freshly initialised vHeat hardly conducts; about half of k "
                "is exactly 0."
            )
        section.notes.append(
            "k is in cells²: the same k reaches a smaller share of an image with more cells. Bicubic resizing keeps k "
            "at its share of the highest frequency; zero padding keeps it at its number of half waves, and gives "
            "every new frequency the k of an embedding of zeros."
        )
    return section


def _charts_of(id_: str, blocks: Sequence[Diffusivity]) -> list[Chart]:
    where = f"{shorten(blocks[0].subject)}, {variant(blocks[0])}, {weights_words(blocks[0].weights)}"
    return [_maps(f"{id_}-maps", blocks, where), _quantiles(f"{id_}-quantiles", blocks, where),
            _decay(f"{id_}-decay", blocks, where)]  # fmt: skip


def _maps(id_: str, blocks: Sequence[Diffusivity], where: str) -> Chart:
    shown = [blocks[i] for i in evenly(len(blocks), MOST_MAPS)]
    rows = [
        (one.layer, said(one.mean_map.min()), said(one.mean_map.max()), said(100 * (one.mean_map == 0).mean()))
        for one in shown
    ]
    panels = [(block_words(one.layer), f"mean {said(number(one.record, 'k_mean_cells2'))}", one) for one in shown]
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


def _quantiles(id_: str, blocks: Sequence[Diffusivity], where: str) -> Chart:
    metrics = ("k_q25_cells2", "k_median_cells2", "k_q75_cells2", "k_mean_cells2", "k_max_cells2")

    def draw(figure: Figure, colours: Sequence[str]) -> None:
        left, right = figure.subplots(1, 2, width_ratios=(3, 2))
        draw_quantiles(left, blocks, colours)
        draw_zero_share(right, blocks, colours)

    return Chart(
        id_,
        f"k against depth: {where}",
        heat_svg(id_, draw, height=3.2),
        f"k over all channels and frequencies of each block, and the share that is exactly 0. {where}.",
        f"Median k {_ends(blocks, 'k_median_cells2', ' cells²')}; k is exactly 0 at a share "
        f"{_ends(blocks, 'k_zero_share', ' %', 100)}.",
        ("block", "lower quartile (cells²)", "median", "upper quartile", "mean", "largest", "exactly 0 (%)"),
        [
            (one.layer, *(said(number(one.record, m)) for m in metrics), said(100 * number(one.record, "k_zero_share")))
            for one in blocks
        ],
    )


def _decay(id_: str, blocks: Sequence[Diffusivity], where: str) -> Chart:
    stages = stages_of(blocks)
    columns = min(len(stages), 2)
    rows = -(-len(stages) // columns)
    floor = decay_floor(blocks)

    def draw(figure: Figure, colours: Sequence[str]) -> None:
        axes = figure.subplots(rows, columns, squeeze=False, sharey=True)
        for ax, stage in zip(axes.flat, stages, strict=False):
            draw_decay(ax, stage, colours)
            ax.set_title(shorten(stage_of(stage[0]), 24))
            ax.set_ylim(floor, 1 + 0.03 * (1 - floor))
        for ax in axes.flat[len(stages) :]:
            ax.set_axis_off()

    return Chart(
        id_,
        f"What is left of a frequency: {where}",
        heat_svg(id_, draw, height=2.2 * rows),
        "exp(-k |w|²), what one application leaves of a frequency: lines are medians over channels and frequencies, "
        f"the band holds the middle half of the last block, a dot marks half. {where}.",
        f"At the highest frequencies the median of the last blocks is {'; '.join(map(_at_the_end, stages))}.",
        ("block", "median at the highest |w|", "lower quartile there", "half-decay |w| (rad/cell)"),
        [
            (
                one.layer, said(one.decay_quantiles[-1, 1]), said(one.decay_quantiles[-1, 0]),
                said(number(one.record, "half_decay_frequency_rad_per_cell")),
            )
            for one in blocks
        ],
    )  # fmt: skip


def _at_the_end(stage: Sequence[Diffusivity]) -> str:
    return f"{said(stage[-1].decay_quantiles[-1, 1])} in {stage_of(stage[-1])}"


def _lengths(id_: str, of_model: Sequence[Sequence[Diffusivity]]) -> Chart:
    def draw(figure: Figure, colours: Sequence[str]) -> None:
        for ax, share in zip(figure.subplots(1, 2), (False, True), strict=True):
            draw_lengths(ax, of_model, share, colours)

    where = f"{shorten(of_model[0][0].subject)}, {weights_words(of_model[0][0].weights)}"
    return Chart(
        id_,
        f"How far heat is carried: {where}",
        heat_svg(id_, draw, height=3.2),
        f"Diffusion length sqrt(2 k) of each block's mean k, in pixels and in % of the image's shorter side. {where}.",
        "; ".join(f"{variant(b[0])}: {_ends(b, 'diffusion_length_px', ' px')}" for b in of_model) + ".",
        ("block", "size", "diffusion length (px)", "(% of the shorter side)"),
        [
            (
                one.layer, variant(one), said(number(one.record, "diffusion_length_px")),
                said(100 * number(one.record, "diffusion_length_share")),
            )
            for blocks in of_model for one in blocks
        ],
    )  # fmt: skip


def _rules(id_: str, compared: Sequence[Sequence[Diffusivity]]) -> list[Chart]:
    """k of the last block of every stage beside each other, and what is left of a frequency."""
    stages = [stages_of(blocks) for blocks in compared]
    ends = [[one[row][-1] for one in stages] for row in range(min(map(len, stages)))]
    flat = [one for row in ends for one in row]
    where = f"{shorten(flat[0].subject)}, {weights_words(flat[0].weights)}"
    columns = min(len(ends), 2)
    rows = -(-len(ends) // columns)

    def draw(figure: Figure, colours: Sequence[str]) -> None:
        axes = figure.subplots(rows, columns, squeeze=False, sharey=True)
        for ax, row in zip(axes.flat, ends, strict=False):
            draw_rules(ax, row, colours)
            ax.set_title(block_words(row[0].layer))
            ax.set_ylim(decay_floor(flat), 1 + 0.03 * (1 - decay_floor(flat)))
        for ax in axes.flat[len(ends) :]:
            ax.set_axis_off()

    header = ("block", "size", "mean k (cells²)", "exactly 0 (%)", "diffusion length (px)")
    numbers = [
        (
            one.layer, variant(one), said(number(one.record, "k_mean_cells2")),
            said(100 * number(one.record, "k_zero_share")), said(number(one.record, "diffusion_length_px")),
        )
        for one in flat
    ]  # fmt: skip
    text = "; ".join(
        f"{one.layer} at {variant(one)}: mean k {said(number(one.record, 'k_mean_cells2'))}" for one in flat
    )
    panels = [(block_words(one.layer), variant(one), one) for one in flat]
    return [
        Chart(
            f"{id_}-maps",
            f"Both resizing rules: {where}",
            k_maps_markup(panels, map_limits(flat), len(stages)),
            f"Mean k by frequency of the last block of every stage, at its own size and resized. {where}.",
            f"{text}.",
            header,
            numbers,
        ),
        Chart(
            f"{id_}-decay",
            f"What is left under both rules: {where}",
            heat_svg(f"{id_}-decay", draw, height=2.2 * rows),
            f"exp(-k |w|²) of the last block of every stage: medians and quartiles. {where}.",
            f"{text}.",
            header,
            numbers,
        ),
    ]


def _ends(blocks: Sequence[Diffusivity], metric: str, unit: str, factor: float = 1.0) -> str:
    values = [factor * number(one.record, metric) for one in blocks]
    first, last = blocks[0].layer, blocks[-1].layer
    return f"from {said(values[0])}{unit} in {first} to {said(values[-1])}{unit} in {last}"


def _findings(of_model: Sequence[Sequence[Diffusivity]]) -> list[Finding]:
    found = []
    for blocks in of_model:
        one = blocks[0]
        zeros = [100 * number(block.record, "k_zero_share") for block in blocks]
        text = (
            f"{shorten(one.subject)} at {variant(one)}, {weights_words(one.weights)}: one application carries heat "
            f"{_ends(blocks, 'diffusion_length_px', ' px')} ({_ends(blocks, 'diffusion_length_share', ' %', 100)} "
            f"of the image); k is exactly 0 at {said(min(zeros))} to {said(max(zeros))} % of channels and frequencies."
        )
        found.append(Finding(text, "", important=blocks is of_model[0]))
    return found
