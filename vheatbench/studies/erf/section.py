"""The section of effective receptive fields: maps, curves, trends, numbers and what they say."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.container import Container

from vheatbench import numbers
from vheatbench.analysis.findings import Finding
from vheatbench.analysis.groups import is_focus
from vheatbench.case import OWN_WEIGHTS
from vheatbench.present.chart import page_chart
from vheatbench.present.parts import Chart, Section
from vheatbench.present.theme import PAGE_LINES
from vheatbench.store.read import Run
from vheatbench.store.schema import Record
from vheatbench.studies.erf.field import area_curve, radial_profile
from vheatbench.studies.erf.figures import (
    LINES,
    METRICS,
    area,
    draw_area_by_depth,
    draw_area_by_resolution,
    draw_area_curve,
    draw_radial_profile,
)
from vheatbench.studies.erf.labels import (
    RANDOM,
    common,
    deepest,
    labels,
    metric_of,
    series,
    state,
    with_interval,
    words,
)
from vheatbench.studies.erf.maps import described, layer_maps, maps_markup
from vheatbench.studies.erf.results import ErfResult, results_of
from vheatbench.studies.erf.table import numbers_table
from vheatbench.text import listed

DISTANCES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
"""Where the profile is written down, in shares of the shorter side."""

SHARES = (0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 0.95, 0.99)
"""At which shares of the mass the area is written down."""

Draw = Callable[..., Axes]
"""Takes the axes and ``lines``, their styles."""
Sizes = dict[tuple[int, int], Record]
"""Of one model in one state: the deepest layer measured at every size."""


def erf_sections(run: Run, id_: str) -> list[Section]:
    """Everything the page shows of a run's effective receptive fields.

    Args:
        run: measured by ``vheatbench erf``; of another run nothing is shown.
        id_: unique on the page: the section's, and how the ids of its charts start.

    Returns:
        One section, or none where nothing of this kind was measured.
    """
    records = [record for record in run.records if record.case.mode == "erf" and record.status == "ok"]
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
        f"{common(results)}. Colour: mass of a pixel over that of a uniform field, logarithmic, one scale for all "
        "maps; every number is from the raw mass. Lines: smallest areas holding half of the mass and "
        "(dotted) 99 % of it, on coarse cells. "
        "Cross: where the chosen cells look."
    )
    header = ("map", "layer", "size", "weights", "A50 (%)", "A99 (%)", "RMS radius (px)", "centre x, y (px)")
    rows = [
        (
            label, one.layer, words(one.record, "resolution"), words(one.record, "weights"),
            *(with_interval(one.record, name) for name in ("erf_a50", "erf_a99", "erf_radius_px")),
            f"{one.centre[1]:g}, {one.centre[0]:g}",
        )
        for one, label in zip(results, labels(results), strict=True)
    ]  # fmt: skip
    text = "; ".join(described(one, label) for one, label in zip(results, labels(results), strict=True))
    return Chart(id_, title, maps_markup(results), caption, f"{text}.", header, rows)


def _radial(id_: str, results: Sequence[ErfResult]) -> Chart:
    svg = _svg(id_, labels(results), partial(draw_radial_profile, results=results))
    rows, ends = [], []
    for result, label in zip(results, labels(results), strict=True):
        radius, profile = radial_profile(result.map, result.centre)
        values = np.interp(DISTANCES, radius / min(result.resolution), profile)
        rows.append((label, *(numbers.plain(float(value), 3) for value in values)))
        ends.append(f"{label} from {rows[-1][1]} near the centre to {rows[-1][-1]} half a side away")
    caption = (
        f"{common(results)}. Mean mass of the pixels at a distance from the centre, in multiples of a uniform field's."
    )
    header = ("field", *(f"{100 * share:g} % of the shorter side away" for share in DISTANCES))
    return Chart(id_, "Mass over distance", svg, caption, f"Density falls: {'; '.join(ends)}.", header, rows)


def _areas(id_: str, results: Sequence[ErfResult]) -> Chart:
    svg = _svg(id_, labels(results), partial(draw_area_curve, results=results))
    rows, ends = [], []
    for result, label in zip(results, labels(results), strict=True):
        share, covered = area_curve(result.map)
        if not share.size:
            rows.append((label, *("—" for _ in SHARES)))
            ends.append(f"{label} has no mass")
            continue
        values = dict(zip(SHARES, np.interp(SHARES, share, covered), strict=True))
        rows.append((label, *(numbers.plain(100 * float(value), 3) for value in values.values())))
        ends.append(f"{label} has half in {100 * values[0.5]:.2g} % and 99 % in {100 * values[0.99]:.2g} %")
    caption = (
        f"{common(results)}. Smallest share of the pixels that holds a share t of the mass of the mean map. The table "
        "of numbers corrects for the finite number of images, the curve does not. Dotted diagonal: a uniform field."
    )
    header = ("field", *(f"% of pixels for {100 * share:g} %" for share in SHARES))
    text = f"Share of the pixels that holds the mass: {'; '.join(ends)}."
    return Chart(id_, "Area against threshold", svg, caption, text, header, rows)


def _depth(id_: str, results: Sequence[ErfResult]) -> list[Chart]:
    if not series(results, "layer"):
        return []
    return [
        _trend(
            f"{id_}-{metric}",
            f"{METRICS[metric]} over depth",
            f"{METRICS[metric]} of every layer, all from the same images and one forward pass.",
            results,
            "layer",
            metric,
            partial(draw_area_by_depth, results=results, metric=metric),
        )
        for metric in ("erf_a50", "erf_a99")
    ]


def _resolution(id_: str, results: Sequence[ErfResult]) -> list[Chart]:
    if not series(results, "resolution"):
        return []
    units: tuple[tuple[str, Literal["pixels", "share"], str, str], ...] = (
        ("px", "pixels", "in pixels", "flat where a larger image shows the layer no more"),
        ("share", "share", "as a share", "flat where the field grows with the image"),
    )
    return [
        _trend(
            f"{id_}-{short}",
            f"A50 {how} over resolution",
            f"A50 {how}{' of the image' if unit == 'share' else ''}: {flat}.",
            results,
            "resolution",
            "erf_a50",
            partial(draw_area_by_resolution, results=results, metric="erf_a50", unit=unit),
        )
        for short, unit, how, flat in units
    ]


def _trend(
    id_: str, title: str, caption: str, results: Sequence[ErfResult], along: str, metric: str, draw: Draw
) -> Chart:
    """A chart of a metric over ``layer`` or ``resolution``."""
    groups = series(results, along)
    names = labels([group[-1] for group in groups], without=(along,))
    rows: list[tuple[str, ...]] = []
    ends, at_points = [], []
    for group, name in zip(groups, names, strict=True):
        own = [(name, words(one.record, along), with_interval(one.record, metric)) for one in group]
        rows += own
        ends.append(f"{name} from {own[0][2]} at {own[0][1]} to {own[-1][2]} at {own[-1][1]}")
        # a result without a value has no marker
        drawn = [one for one in group if (found := metric_of(one.record, metric)) is not None and found.value]
        at_points.append(
            [f"{name}, {words(one.record, along)}: {with_interval(one.record, metric, '%')}" for one in drawn]
        )
    shared = common([one for group in groups for one in group], without=(along,))
    text = f"{METRICS[metric]} in % of the image goes: {'; '.join(ends)}."
    header = ("field", "layer" if along == "layer" else "size", f"{METRICS[metric]} (%)")
    return Chart(id_, title, _svg(id_, names, draw, at_points), f"{shared}. {caption}", text, header, rows)


def _svg(name: str, names: Sequence[str], draw: Draw, at_points: Sequence[Sequence[str]] = ()) -> str:
    """One chart whose lines the page can hide.

    Args:
        name: unique on the page.
        names: of the lines, as the legend has them.
        draw: draws them.
        at_points: of every line, what its markers say when they are pointed at.
    """
    with page_chart(name, names) as chart:
        draw(chart.axes, lines=PAGE_LINES)
        drawn = dict(zip(*reversed(chart.axes.get_legend_handles_labels()), strict=True))
        for place, one in enumerate(names):
            if one not in drawn:
                continue
            artists = _artists(drawn[one])
            chart.belongs(one, artists)
            for (x, y), text in zip(artists[0].get_xydata(), at_points[place], strict=True) if at_points else ():
                chart.target(one, x, y, text)
    return chart.svg


def _artists(handle: Any) -> list[Any]:
    """What a legend's entry stands for: a line, or a line with its error bars."""
    return list(handle.get_children()) if isinstance(handle, Container) else [handle]


# what the numbers say


def findings_of(run: Run) -> list[Finding]:
    """What the section of a run says, without drawing it."""
    return erf_findings([record for record in run.records if record.case.mode == "erf" and record.status == "ok"])


def erf_findings(records: Sequence[Record]) -> list[Finding]:
    """The areas of all in short; vHeat's field against every other model's of like state at the largest common size,
    what conduction adds, and what grows with the image.

    Without a vHeat, the first model's. Of every model the deepest layer counts.
    """
    deepest_at: dict[tuple[str, str], Sizes] = {}
    for record in sorted(records, key=lambda one: int(one.conditions.get("depth", 0))):
        deepest_at.setdefault((record.case.subject, _state(record)), {})[record.case.resolution] = record
    subjects = list(dict.fromkeys(record.case.subject for record in records))
    if not subjects:
        return []
    focus = [subject for subject in subjects if is_focus(subject)] or subjects[:1]
    # what a model has learned comes before what it began with
    own = [pair for pair in deepest_at if pair[0] in focus]
    first = min(own, key=lambda pair: (RANDOM in pair[1], pair[0] != focus[0]))
    found = [_areas_at(deepest_at, *first, subjects)]
    for (subject, known), sizes in deepest_at.items():
        if subject not in focus:
            continue
        others = (deepest_at.get((other, known), {}) for other in subjects if other not in focus)
        found += [_against(_largest_common(sizes, other), known) for other in others]
        ablated = deepest_at.get((subject, f"{known}, no conduction"), {})
        found.append(_conduction(_largest_common(sizes, ablated), known))
    found += [_growth(list(sizes.values()), known) for (_, known), sizes in deepest_at.items() if len(sizes) > 1]
    return [finding for finding in found if finding is not None]


def _state(record: Record) -> str:
    """The state in words; weights that are shipped are one, whatever their file."""
    text = state(record)
    return "shipped weights" + text.partition(")")[2] if text.startswith(OWN_WEIGHTS[0]) else text


def _largest_common(own: Sizes, other: Sizes) -> tuple[Record, Record] | None:
    common_sizes = sorted(set(own) & set(other), key=lambda size: (size[0] * size[1], size))
    return (own[common_sizes[-1]], other[common_sizes[-1]]) if common_sizes else None


def _areas_at(
    deepest_at: dict[tuple[str, str], Sizes], focus: str, known: str, subjects: Sequence[str]
) -> Finding | None:
    """The share of the image that holds 99 % of each field, at the largest size of all: the finding in short."""
    alike = {subject: deepest_at[subject, known] for subject in subjects if (subject, known) in deepest_at}
    common_sizes = set.intersection(*(set(sizes) for sizes in alike.values()))
    if len(alike) < 2 or not common_sizes:
        return None
    size = max(common_sizes, key=lambda one: (one[0] * one[1], one))
    shares = {}
    for subject in (focus, *(name for name in alike if name != focus)):
        found = metric_of(alike[subject][size], "erf_a99")
        if found is None or not found.value:
            return None
        shares[subject] = f"{numbers.plain(100 * found.value, 2)} %"
    others = [f"of {subject} {share}" for subject, share in shares.items() if subject != focus]
    text = (
        f"With {known}, 99 % of what {focus} sees from the centre of its last layer lies in {shares[focus]} of the "
        f"image at {alike[focus][size].case.size} px; {listed(others)}."
    )
    untrained = focus.partition(":")[0]
    before = deepest_at.get((untrained, RANDOM), {}).get(size)
    share = None if before is None or known == RANDOM else metric_of(before, "erf_a99")
    if share is not None and share.value:
        text += f" Before training {untrained}'s lay in {numbers.plain(100 * share.value, 2)} %."
    return Finding(text, "erf_maps", important=True)


def _against(pair: tuple[Record, Record] | None, known: str) -> Finding | None:
    half, whole = (_compared(pair, metric) for metric in ("erf_a50", "erf_a99"))
    if pair is None or half is None or whole is None:
        return None
    own, other = (record.case for record in pair)
    text = (
        f"With {known}, at {own.size} px half of {own.subject}'s receptive field (A50) lies in {half} "
        f"{other.subject}'s, and 99 % of it (A99) in {whole}."
    )
    return Finding(text, "erf_maps")


def _conduction(pair: tuple[Record, Record] | None, known: str) -> Finding | None:
    whole = _compared(pair, "erf_a99")
    if pair is None or whole is None:
        return None
    text = (
        f"With {known}, at {pair[0].case.size} px 99 % of {pair[0].case.subject}'s receptive field lies in {whole} "
        "that of the same weights without conduction."
    )
    return Finding(text, "erf_maps")


def _growth(records: Sequence[Record], known: str) -> Finding | None:
    """A50 and A99 at the smallest and at the largest size."""
    first, *_, last = sorted(records, key=lambda record: record.case.pixels)
    ends = [with_interval(one, name, "%") for name in ("erf_a50", "erf_a99") for one in (first, last)]
    if "—" in ends:
        return None
    text = (
        f"With {known}, from {first.case.size} to {last.case.size} px {first.case.subject}'s A50 goes from {ends[0]} "
        f"to {ends[1]} of the image, its A99 from {ends[2]} to {ends[3]}."
    )
    return Finding(text, "erf_resolution")


def _compared(pair: tuple[Record, Record] | None, name: str) -> str | None:
    """``4.0 % (3.8 to 4.3) of the image, 2.4× (2.1 to 2.7)``; the ratio with the most cautious interval."""
    if pair is None:
        return None
    own, other = (metric_of(record, name) for record in pair)
    if own is None or other is None or not own.value or not other.value:
        return None
    ratio = own.value / other.value
    text = f"{with_interval(pair[0], name, '%')} of the image, "
    if own.low is None or own.high is None or other.low is None or other.high is None:
        return f"{text}{numbers.plain(ratio, 3)}×"
    low = own.low / other.high
    # an interval that reaches down to nothing bounds the ratio on one side only
    high = own.high / other.low if other.low > 0 else math.inf
    top = f"to {numbers.plain(high, 2)}" if other.low > 0 else "or more"
    unclear = ", no clear difference," if low <= 1 <= high else ""
    return f"{text}{numbers.plain(ratio, 2)}× ({numbers.plain(low, 2)} {top}){unclear}"
