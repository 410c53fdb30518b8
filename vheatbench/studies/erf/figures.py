"""All figures that measured receptive fields allow, written to a folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from vheatbench.present.style import FORMATS, ONE_COLUMN, TWO_COLUMN, legend_below, new_figure, save, shorten, style
from vheatbench.studies.erf.curves_figure import draw_area_curve, draw_radial_profile
from vheatbench.studies.erf.labels import deepest, series
from vheatbench.studies.erf.maps import erf_maps, layer_maps
from vheatbench.studies.erf.results import ErfResult
from vheatbench.studies.erf.trends_figure import area, draw_area_by_depth, draw_area_by_resolution

LINES = 10
"""Curves of one figure: more go to a further one."""


def save_erf_figures(results: Sequence[ErfResult], out_dir: Path, formats: Sequence[str] = FORMATS) -> list[Path]:
    """Write every figure that the results allow.

    - ``erf-maps``: of every model the deepest layer measured, side by side on one colour scale;
    - ``erf-layers-MODEL``: layers of one model, where several were measured;
    - ``erf-radial``, ``erf-area``: profile over the distance, area against threshold;
    - ``erf-depth``, ``erf-resolution``: areas over the layers and over the sizes, where there are several.

    What does not fit on one figure goes on another, numbered from 2 on.

    Args:
        results: what was measured, of any models, sizes, layers and states.
        out_dir: made if it is not there.
        formats: each figure is written in all of them.

    Returns:
        What was written; nothing for no results.

    Raises:
        UserError: a file cannot be written.
    """
    written = []
    with style():
        for name, figure in figures_of(results):
            written += save(figure, out_dir / name, formats)
    return written


def figures_of(results: Sequence[ErfResult]) -> Iterator[tuple[str, Figure]]:
    """Name and figure of all of them; to be taken within :func:`vheatbench.present.style.style`."""
    if not results:
        return
    main = sorted(deepest(results), key=area)
    yield from _numbered("erf-maps", erf_maps(main))
    names: dict[str, int] = {}
    for subject, shown in layer_maps(results):
        name = "".join(sign if sign.isalnum() or sign in "._-" else "-" for sign in shorten(subject, 60))
        names[name] = names.get(name, 0) + 1
        stem = f"erf-layers-{name}" + (f"-{names[name]}" if names[name] > 1 else "")
        yield from _numbered(stem, erf_maps(shown))
    chunks = [main[start : start + LINES] for start in range(0, len(main), LINES)]
    yield from _numbered("erf-radial", [_radial(chunk) for chunk in chunks])
    yield from _numbered("erf-area", [_area(chunk) for chunk in chunks])
    if series(results, "layer"):
        yield "erf-depth", _depth(results)
    if series(main, "resolution"):
        yield "erf-resolution", _resolution(main)


def _numbered(name: str, figures: Sequence[Figure]) -> Iterator[tuple[str, Figure]]:
    for number, figure in enumerate(figures, start=1):
        yield name if number == 1 else f"{name}-{number}", figure


def _radial(results: Sequence[ErfResult]) -> Figure:
    figure = new_figure(ONE_COLUMN, 2.4)
    draw_radial_profile(figure.subplots(), results)
    legend_below(figure)
    return figure


def _area(results: Sequence[ErfResult]) -> Figure:
    figure = new_figure(ONE_COLUMN, 2.6)
    draw_area_curve(figure.subplots(), results)
    legend_below(figure)
    return figure


def _depth(results: Sequence[ErfResult]) -> Figure:
    figure = new_figure(TWO_COLUMN, 2.6)
    left, right = figure.subplots(1, 2)
    draw_area_by_depth(left, results, "erf_a50")
    draw_area_by_depth(right, results, "erf_a99").set_title("")
    legend_below(figure)
    return figure


def _resolution(results: Sequence[ErfResult]) -> Figure:
    figure = new_figure(TWO_COLUMN, 4.4)
    axes = figure.subplots(2, 2)
    for line, metric in zip(axes, ("erf_a50", "erf_a99"), strict=True):
        draw_area_by_resolution(line[0], results, metric, "pixels")
        draw_area_by_resolution(line[1], results, metric, "share").set_title("")
    for ax in axes[1]:
        ax.set_title("")
    for ax in axes[0]:
        ax.set_xlabel("")
    legend_below(figure)
    return figure
