"""The verdict of a comparison on the page: what got worse, with the intervals drawn, and what was not compared."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

from matplotlib.ticker import FuncFormatter

from vheatbench import numbers
from vheatbench.analysis.findings import Finding
from vheatbench.present.chart import page_chart
from vheatbench.present.parts import Chart, Section, Table
from vheatbench.present.theme import FAINT, GRID, INK, SERIES_COLOURS
from vheatbench.store.per_image import OF_STEP, step_name
from vheatbench.verdict.comparison import Comparison
from vheatbench.verdict.judge import CaseVerdict
from vheatbench.verdict.rule import Gate
from vheatbench.verdict.text import HEADINGS, absences, detectable, headline, rows, unchanged

MOST_CASES = 30
"""On one chart, worst first. The table has all."""

COLOURS = {"regressed": SERIES_COLOURS[0], "suspect": SERIES_COLOURS[5], "improved": SERIES_COLOURS[2]}
"""Of verdicts that say a direction; the others are faint."""

MARKERS = {"regressed": "X", "suspect": "D", "improved": "o"}


def verdict_section(comparison: Comparison, id_: str) -> Section:
    """Everything the page says of two sides. Where they are not comparable there is no ratio, and why stands first.

    Args:
        comparison: of :func:`vheatbench.verdict.compare.compare_runs`.
        id_: unique on the page: the section's, and the beginning of its charts' and tables'.
    """
    section = Section(id_, f"Verdict: {comparison.verdict}")
    times = [v for v in comparison.cases if step_name(v.metric) == "latency_s" and v.verdict != "incomparable"]
    drawn = [v for v in times if _finite(v.gate)]
    if drawn:
        section.charts.append(_forest(f"{id_}-latency_s", drawn[:MOST_CASES], len(drawn)))
    chart = section.charts[0].id if section.charts else ""
    section.findings.append((Finding(_ended(headline(comparison).capitalize()), "latency_s", important=True), chart))
    section.findings += [(Finding(_ended(reason), ""), f"{id_}-cases") for reason in comparison.reasons]
    if comparison.differences:
        section.alerts += [f"Not comparable, no ratio is given: {text}." for text in comparison.differences]
    cells = [tuple(row) for row in rows(comparison)]
    if cells:
        left = unchanged(comparison)
        more = f" {left} exact, neutral or fitted values without a change are left out." if left else ""
        runs = f"Base: run {', '.join(comparison.base_runs)}; head: run {', '.join(comparison.head_runs)}."
        section.tables.append(
            Table(f"{id_}-cases", "Case by case", f"{runs} Worst first.{more}", HEADINGS, cells, True)
        )
    else:
        section.findings = [(finding, chart) for finding, _ in section.findings]
    section.notes = [
        detectable(comparison),
        *map(_ended, absences(comparison)),
        *map(_ended, comparison.warnings),
    ]
    return section


def _ended(text: str) -> str:
    return text if text.endswith(".") else f"{text}."


def _finite(gate: Gate | None) -> bool:
    return gate is not None and all(map(math.isfinite, (gate.estimate, gate.low, gate.high)))


def _forest(id_: str, verdicts: Sequence[CaseVerdict], of: int) -> Chart:
    gates = [v.gate for v in verdicts if v.gate is not None]
    title = "Latency, head over base"
    confidence = f"{100 * min(gate.confidence for gate in gates):g}"
    caption = (
        f"Change of latency of each case with its {confidence} % interval, worst first; right of 0 is slower. Shaded: "
        "the margin that is tolerated. A case regressed if its whole interval lies beyond the margin."
    )
    if any(v.metric in OF_STEP for v in verdicts):
        caption += " Where the batch is the largest that fits, latency is time per image."
    if len(verdicts) < of:
        caption += f" {len(verdicts)} of {of} cases are drawn."
    header = ("case", "verdict", "change", f"{confidence} % interval", "margin", "rounds")
    table = [
        (v.label, v.verdict, _change(gate.estimate), f"{_change(gate.low)} to {_change(gate.high)}",
         f"{100 * gate.margin:g} %", str(gate.rounds))
        for v, gate in zip(verdicts, gates, strict=True)
    ]  # fmt: skip
    counts = {kind: sum(v.verdict == kind for v in verdicts) for kind in dict.fromkeys(v.verdict for v in verdicts)}
    text = (
        f"{title}: {', '.join(f'{count} {kind}' for kind, count in counts.items())}. Worst: {verdicts[0].label}, "
        f"{table[0][2]} ({table[0][3]})."
    )
    return Chart(id_, title, _draw(id_, verdicts, gates), caption, text, header, table)


def _change(log_ratio: float) -> str:
    return numbers.percent(math.expm1(log_ratio))


def _draw(name: str, verdicts: Sequence[CaseVerdict], gates: Sequence[Gate]) -> str:
    places = [-float(place) for place in range(len(gates))]
    with page_chart(name, height=1.2 + 0.34 * len(gates)) as chart:
        axes = chart.axes
        for place, verdict, gate in zip(places, verdicts, gates, strict=True):
            margin = 100 * gate.margin
            axes.fill_betweenx([place - 0.5, place + 0.5], -margin, margin, color=GRID, alpha=0.6, linewidth=0)
            low, middle, high = (100 * math.expm1(end) for end in (gate.low, gate.estimate, gate.high))
            colour = COLOURS.get(verdict.verdict, FAINT)
            axes.plot([low, high], [place, place], color=colour, linewidth=1.6)
            axes.plot(middle, place, color=colour, marker=MARKERS.get(verdict.verdict, "s"), markersize=6)
            text = f"{verdict.label}: {_change(gate.estimate)} ({_change(gate.low)} to {_change(gate.high)})"
            chart.target("", middle, place, f"{text}, {gate.rounds} rounds: {verdict.verdict}")
        axes.axvline(0, color=INK, linewidth=0.9)
        axes.set_yticks(places, ["\n".join(textwrap.wrap(v.label, 34)[:2]) for v in verdicts], fontsize=7.5)
        axes.set_ylim(places[-1] - 0.6, 0.6)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:+g} %".replace("-", "−") if x else "0"))
        axes.set_xlabel("change of latency, head over base")
    return chart.svg
