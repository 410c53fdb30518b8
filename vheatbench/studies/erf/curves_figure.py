"""Curves of single maps: mass density over the distance from the centre, area against threshold."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
from matplotlib.axes import Axes

from vheatbench.present.style import Look, line_of, plain_log
from vheatbench.studies.erf.curves import area_curve, radial_profile
from vheatbench.studies.erf.labels import labels, title_of
from vheatbench.studies.erf.results import ErfResult


def draw_radial_profile(ax: Axes, results: Sequence[ErfResult], looks: Sequence[Look] | None = None) -> Axes:
    """Mean mass density over the distance from the centre, logarithmic.

    The distance is in pixels where all sizes are equal, else in shares of the shorter side.

    Args:
        ax: to draw on.
        results: one line each, labelled by what differs.
        looks: as many; those for print where not given.

    Returns:
        ``ax``.
    """
    pixels = len({result.resolution for result in results}) == 1
    for i, (result, label) in enumerate(zip(results, labels(results), strict=True)):
        look = looks[i] if looks is not None else line_of(i)
        radius, profile = radial_profile(result.map, result.centre)
        unit = 1.0 if pixels else 1.0 / min(result.resolution)
        ax.plot(radius * unit, profile, color=look.colour, ls=look.dash, label=label)
    plain_log(ax.yaxis)
    ax.set_xlim(left=0)
    ax.set_xlabel("distance from the centre (px)" if pixels else "distance from the centre (share of the shorter side)")
    ax.set_ylabel("mean mass density (1 = uniform)")
    ax.grid(True)
    ax.set_title(title_of(results))
    return ax


def draw_area_curve(ax: Axes, results: Sequence[ErfResult], looks: Sequence[Look] | None = None) -> Axes:
    """A_t, the smallest share of the pixels that holds the share t of the mass, over t; the diagonal is uniform.

    Arguments and result as of :func:`draw_radial_profile`.
    """
    for i, (result, label) in enumerate(zip(results, labels(results), strict=True)):
        look = looks[i] if looks is not None else line_of(i)
        ax.plot(*area_curve(result.map), color=look.colour, ls=look.dash, label=label)
    faint = matplotlib.rcParams["axes.edgecolor"]
    ax.plot([0, 1], [0, 1], color=faint, linewidth=0.8, linestyle=(0, (1, 2)))
    ax.annotate("uniform", (0.25, 0.25), xytext=(-4, 2), textcoords="offset points", ha="right", fontsize="small")
    ax.axvline(0.5, color=faint, linewidth=0.6, linestyle=":", zorder=0.5)
    ax.annotate(
        "A50", (0.5, 1), xycoords=("data", "axes fraction"), xytext=(-2, -1), textcoords="offset points", ha="right",
        va="top", fontsize="small",
    )  # fmt: skip
    ax.set(xlim=(0, 1), ylim=(0, 1))
    ax.set_xlabel("share t of the mass")
    ax.set_ylabel("smallest share of pixels holding t")
    ax.grid(True)
    ax.set_title(title_of(results))
    return ax
