"""matplotlib's SVG made small for a page: what a browser does not need is left out, two decimals are kept."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import escape

SERIES_GROUP = "series-"
"""Start of the group id of everything that is drawn of one series; its place among the names follows."""


@dataclass(frozen=True)
class Target:
    """A place on the chart that says its numbers when it is pointed at. ``x`` and ``y`` are in the SVG's units."""

    series: str
    x: float
    y: float
    text: str


def tidied(svg: str, names: Sequence[str] = ()) -> str:
    """The ``<svg>`` element without comments, metadata, fonts, group ids and white space between elements.

    Groups whose id is ``series-<i>`` keep their name as ``data-s``: ``names[i]``, escaped.
    """
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.S)
    svg = re.sub(r">\s+<", "><", svg.strip())
    # names from outside come last: nothing of theirs is shortened
    svg = re.sub(r"<[^>]*>", lambda m: _short(m[0]), svg)
    svg = re.sub(r'(<g[^>]*?) id="([^"]*)"', lambda m: m[1] + _named(m[2], names), svg)
    svg = re.sub(r'<path d="[^"]*" style="fill:none"/>', "", _without_bare_groups(svg))
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*" height="[^"]*"', r"\1", svg, count=1)
    return svg.replace(' xmlns:xlink="http://www.w3.org/1999/xlink"', "", 1).replace("xlink:href=", "href=")


def with_targets(svg: str, targets: Sequence[Target]) -> str:
    """The SVG with an invisible disc over every point. Its title is what a browser shows without a script."""
    discs = "".join(
        f'<circle data-s="{escape(one.series)}" cx="{one.x:.1f}" cy="{one.y:.1f}" r="7">'
        f"<title>{escape(one.text)}</title></circle>"
        for one in targets
    )
    return svg.removesuffix("</svg>") + f'<g class="targets">{discs}</g></svg>' if discs else svg


def _named(id_: str, names: Sequence[str]) -> str:
    place = id_.removeprefix(SERIES_GROUP)
    known = id_.startswith(SERIES_GROUP) and place.isdigit() and int(place) < len(names)
    return f' data-s="{escape(names[int(place)])}"' if known else ""


def _without_bare_groups(svg: str) -> str:
    """Groups without attributes change nothing that is seen."""
    kept: list[bool] = []

    def chosen(match: re.Match[str]) -> str:
        tag = match[0]
        if tag == "</g>":
            return tag if kept.pop() else ""
        if tag.endswith("/>"):
            return ""
        kept.append(tag != "<g>")
        return tag if kept[-1] else ""

    return re.sub(r"<g(?=[\s/>])[^>]*>|</g>", chosen, svg)


def _short(tag: str) -> str:
    tag = re.sub(r"\s+", " ", tag).replace(' "', '"').replace("; ", ";").replace(": ", ":")
    tag = re.sub(r"(\.\d\d)\d+", r"\1", tag)
    tag = re.sub(r' transform="rotate\(-?0 [^"]*"', "", tag)
    # the page's font, and that of whatever shows the file
    return re.sub(r"font-family:[^;\"]*;?", "", re.sub(r"font:([\d.]+px) [^;\"]*", r"font-size:\1", tag))
