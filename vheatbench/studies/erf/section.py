"""The section of effective receptive fields: maps, curves, trends, numbers and what they say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.container import Container
from matplotlib.figure import Figure

from vheatbench import numbers
from vheatbench.present.parts import Chart, Section
from vheatbench.present.style import Look
from vheatbench.present.svg import Target, with_targets
from vheatbench.present.theme import GRID, add_legend, chart_style, series_id, style_of, svg_of
from vheatbench.store.read import Run
from vheatbench.studies.erf.curves import area_curve, radial_profile
from vheatbench.studies.erf.curves_figure import draw_area_curve, draw_radial_profile
from vheatbench.studies.erf.images import described, maps_markup
from vheatbench.studies.erf.labels import common, deepest, labels, series, words
from vheatbench.studies.erf.maps import layer_maps
from vheatbench.studies.erf.numbers import cell_of, erf_findings, erf_records, metric_of, numbers_table
from vheatbench.studies.erf.results import ErfResult, results_of
from vheatbench.studies.erf.trends_figure import area, draw_area_by_depth, draw_area_by_resolution

LINES = 10
"""Curves of one chart."""

DISTANCES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
"""Where the profile is written down, in shares of the shorter side."""

SHARES = (0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 0.95, 0.99)
"""At which shares of the mass the area is written down."""

Draw = Callable[[Axes, Sequence[Look]], Axes]


def erf_sections(run: Run, id_: str) -> list[Section]:
    """Everything the page shows of a run's effective receptive fields.

    Args:
        run: measured by ``vheatbench erf``; of another run nothing is shown.
        id_: unique on the page: the section's, and how the ids of its charts start.

    Returns:
        One section, or none where nothing of this kind was measured.
    """
    records = erf_records(run)
    if not records:
        return []
    results, problems = results_of(run)
    section = Section(id_, "Effective receptive fields")
    main = sorted(deepest(results), key=area)
    if main:
        section.charts.append(_maps(f"{id_}-maps", "Maps", main))
        for number, (subject, shown) in enumerate(layer_maps(results)):
            section.charts.append(_maps(f"{id_}-layers{number}", f"Layers of {subject}", shown))
    for number, start in enumerate(range(0, len(main), LINES)):
        chunk = main[start : start + LINES]
        section.charts += [_radial(f"{id_}-radial{number}", chunk), _areas(f"{id_}-area{number}", chunk)]
    section.charts += _depth(f"{id_}-depth", results) + _resolution(f"{id_}-resolution", main)
    section.tables.append(numbers_table(f"{id_}-numbers", records))
    anchor = section.charts[0].id if section.charts else section.tables[0].id
    there = {"erf_resolution": f"{id_}-resolution-share"} if series(main, "resolution") else {}
    section.findings = [(finding, there.get(finding.chart, anchor)) for finding in erf_findings(records)]
    section.notes = _notes(results, problems)
    return [section]


def _notes(results: Sequence[ErfResult], problems: Sequence[str]) -> list[str]:
    notes = []
    random = list(dict.fromkeys(result.subject for result in results if result.random))
    if random:
        notes.append(
            f"Random weights ({', '.join(random)}): these fields are what the architecture starts from, not what a "
            "trained model sees. A freshly initialised vHeat hardly conducts."
        )
    images = list(dict.fromkeys(result.images for result in results))
    if images:
        notes.append(f"Images: {'; '.join(images)}.")
    if any(result.protocol == "replknet" for result in results):
        notes.append("RepLKNet's protocol takes cell H//2, W//2 and looks about pixel H//2, wherever the cell does.")
    return notes + [f"No map: {problem}" for problem in problems]


def _maps(id_: str, title: str, results: Sequence[ErfResult]) -> Chart:
    caption = (
        f"{common(results)}. Colour: mass of a pixel over that of a uniform spread, logarithmic, one scale for all "
        "maps; every number is from the raw mass. Line: smallest area holding half of the mass, on coarse cells. "
        "Cross: where the chosen cells look."
    )
    header = ("map", "layer", "size", "weights", "A50 (%)", "A99 (%)", "RMS radius (px)", "centre x, y (px)")
    rows = [
        (
            label, result.layer, words(result, "resolution"), words(result, "weights"),
            cell_of(result.record, "erf_a50", 100), cell_of(result.record, "erf_a99", 100),
            cell_of(result.record, "erf_radius_px", 1), f"{result.centre[1]:g}, {result.centre[0]:g}",
        )
        for result, label in zip(results, labels(results), strict=True)
    ]  # fmt: skip
    text = "; ".join(described(result, label) for result, label in zip(results, labels(results), strict=True))
    return Chart(id_, title, maps_markup(results), caption, f"{text}.", header, rows)


def _radial(id_: str, results: Sequence[ErfResult]) -> Chart:
    svg = _svg(id_, labels(results), lambda ax, looks: draw_radial_profile(ax, results, looks))
    rows, said = [], []
    for result, label in zip(results, labels(results), strict=True):
        radius, profile = radial_profile(result.map, result.centre)
        values = np.interp(DISTANCES, radius / min(result.resolution), profile)
        rows.append((label, *(numbers.plain(float(value), 3) for value in values)))
        said.append(f"{label} from {rows[-1][1]} near the centre to {rows[-1][-1]} half a side away")
    caption = (
        f"{common(results)}. Mean mass of the pixels at a distance from the centre, in multiples of a uniform spread."
    )
    header = ("field", *(f"{100 * share:g} % of the shorter side away" for share in DISTANCES))
    return Chart(id_, "Mass over distance", svg, caption, f"Density falls: {'; '.join(said)}.", header, rows)


def _areas(id_: str, results: Sequence[ErfResult]) -> Chart:
    svg = _svg(id_, labels(results), lambda ax, looks: draw_area_curve(ax, results, looks))
    rows, said = [], []
    for result, label in zip(results, labels(results), strict=True):
        share, covered = area_curve(result.map)
        if not share.size:
            rows.append((label, *("—" for _ in SHARES)))
            said.append(f"{label} has no mass")
            continue
        values = dict(zip(SHARES, np.interp(SHARES, share, covered), strict=True))
        rows.append((label, *(numbers.plain(100 * float(value), 3) for value in values.values())))
        said.append(f"{label} has half in {100 * values[0.5]:.2g} % and 99 % in {100 * values[0.99]:.2g} %")
    caption = (
        f"{common(results)}. Smallest share of the pixels that holds a share t of the mass of the mean map. The table "
        "of numbers corrects for the finite number of images, the curve does not. Dotted diagonal: a uniform field."
    )
    header = ("field", *(f"% of pixels for {100 * share:g} %" for share in SHARES))
    text = f"Share of the pixels that holds the mass: {'; '.join(said)}."
    return Chart(id_, "Area against threshold", svg, caption, text, header, rows)


def _depth(id_: str, results: Sequence[ErfResult]) -> list[Chart]:
    lines = series(results, "layer")
    if not lines:
        return []
    said = common([result for line in lines for result in line], without=("layer",))
    charts = []
    for metric, title in (("erf_a50", "A50"), ("erf_a99", "A99")):
        points, text = _trend(lines, "layer", metric)
        said_there = _said_at_points(lines, "layer", metric)
        svg = _svg(f"{id_}-{metric}", _names(lines, "layer"), partial(_draw_depth, results, metric), said_there)
        caption = f"{said}. {title} of every layer, all from the same images and one forward pass."
        header = ("field", "layer", f"{title} (%)")
        charts.append(Chart(f"{id_}-{metric}", f"{title} over depth", svg, caption, text, header, points))
    return charts


def _draw_depth(results: Sequence[ErfResult], metric: str, ax: Axes, looks: Sequence[Look]) -> Axes:
    return draw_area_by_depth(ax, results, metric, looks)


def _resolution(id_: str, results: Sequence[ErfResult]) -> list[Chart]:
    lines = series(results, "resolution")
    if not lines:
        return []
    said = common([result for line in lines for result in line], without=("resolution",))
    points, text = _trend(lines, "resolution", "erf_a50")
    names, header = _names(lines, "resolution"), ("field", "size", "A50 (%)")
    said_there = _said_at_points(lines, "resolution", "erf_a50")
    pixels = _svg(f"{id_}-px", names, partial(_draw_resolution, results, "pixels"), said_there)
    share = _svg(f"{id_}-share", names, partial(_draw_resolution, results, "share"), said_there)
    in_pixels = f"{said}. A50 in pixels: flat where a larger image shows the layer no more."
    in_share = f"{said}. A50 as a share of the image: flat where the field grows with the image."
    return [
        Chart(f"{id_}-px", "A50 in pixels over resolution", pixels, in_pixels, text, header, points),
        Chart(f"{id_}-share", "A50 as a share over resolution", share, in_share, text, header, points),
    ]


def _draw_resolution(
    results: Sequence[ErfResult], unit: Literal["pixels", "share"], ax: Axes, looks: Sequence[Look]
) -> Axes:
    return draw_area_by_resolution(ax, results, "erf_a50", unit, looks)


def _names(lines: Sequence[Sequence[ErfResult]], along: str) -> list[str]:
    return labels([line[-1] for line in lines], without=(along,))


def _trend(lines: Sequence[Sequence[ErfResult]], along: str, metric: str) -> tuple[list[tuple[str, ...]], str]:
    """Points and words of a chart along depth or resolution."""
    points: list[tuple[str, ...]] = []
    said = []
    for line, label in zip(lines, _names(lines, along), strict=True):
        own = [(label, words(result, along), cell_of(result.record, metric, 100)) for result in line]
        points += own
        said.append(f"{label} from {own[0][2]} at {own[0][1]} to {own[-1][2]} at {own[-1][1]}")
    return points, f"{metric.removeprefix('erf_').upper()} in % of the image goes: {'; '.join(said)}."


def _said_at_points(lines: Sequence[Sequence[ErfResult]], along: str, metric: str) -> list[list[str]]:
    """What every marker says when it is pointed at; a result without a value has none."""
    return [
        [
            f"{label}, {words(result, along)}: {cell_of(result.record, metric, 100, '%')}"
            for result in line
            if (found := metric_of(result.record, metric)) is not None and found.value
        ]
        for line, label in zip(lines, _names(lines, along), strict=True)
    ]


def _svg(name: str, names: Sequence[str], draw: Draw, said: Sequence[Sequence[str]] = ()) -> str:
    """One chart with the page's colours, whose lines the page can hide.

    Args:
        name: unique on the page.
        names: of the lines, as the legend has them.
        draw: draws them.
        said: of every line, what its markers say when they are pointed at.
    """
    rc = {**chart_style(name), "grid.color": GRID, "axes.titlesize": 9, "axes.titlelocation": "left"}
    with matplotlib.rc_context(rc):
        # an SVG has 72 units per inch: places are those of the figure
        figure = Figure(figsize=(6.2, 4.1), dpi=72, layout="constrained")
        axes = figure.subplots()
        axes.set_axisbelow(True)
        draw(axes, [style_of(one, names) for one in names])
        handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
        there = [(place, one, _artists(handles[one])) for place, one in enumerate(names) if one in handles]
        for place, _, artists in there:
            for artist in artists:
                artist.set_gid(series_id(place))
        add_legend(figure, axes)
        svg = svg_of(figure, names)
        targets = [
            Target(one, x, figure.get_figheight() * 72 - y, text)
            for place, one, (line, *_) in there
            for (x, y), text in zip(
                axes.transData.transform(line.get_xydata()), said[place] if said else (), strict=bool(said)
            )
        ]
    return with_targets(svg, targets)


def _artists(handle: Any) -> list[Any]:
    """What a legend's entry stands for: a line, or a line with its error bars."""
    return list(handle.get_children()) if isinstance(handle, Container) else [handle]
