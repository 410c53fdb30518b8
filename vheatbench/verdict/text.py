"""A comparison as rows of a table, as markdown and as JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from vheatbench import numbers
from vheatbench.metrics import info_of
from vheatbench.store.per_image import step_name
from vheatbench.verdict.comparison import Comparison
from vheatbench.verdict.judge import CaseVerdict
from vheatbench.verdict.rule import Gate

LIMIT = 65_536
"""Characters that GitHub takes in a comment."""
QUIET = ("same", "unchanged")
HEADINGS = ("case", "metric", "base", "head", "change", "verdict", "notes")


class Row(NamedTuple):
    """One line of the table, all words."""

    case: str
    metric: str
    base: str
    head: str
    change: str
    verdict: str
    notes: str


def headline(comparison: Comparison) -> str:
    """The verdict of the whole on one line."""
    c = comparison
    meaning = {
        "pass": {
            "same": "nothing got worse by more than its margin",
            "improved": "something improved, nothing got worse by more than its margin",
            "suspect": "something may be worse, nothing is shown to be",
        }.get(c.verdict, ""),
        "regressed": "something got worse",
        "failed": "the head could not be measured",
        "inconclusive": "this comparison decides nothing",
        "incomparable": "measured on different machines or software: no ratio means anything",
    }[c.outcome]
    return f"{c.verdict}: {meaning}"


def detectable(comparison: Comparison) -> str:
    """The smallest effect that the comparison could have detected, in a sentence."""
    found = comparison.detectable
    c = comparison
    if found is None:
        return "No timing had the rounds to detect a worsening of any size."
    low, high = (f"{100 * end:.1f} %" for end in found)
    span = low if low == high else f"{low} (quietest case) to {high} (noisiest)"
    timings = [v for v in c.cases if v.gate is not None and step_name(v.metric) == "latency_s"]
    bursts = sum(v.gate.rounds - v.in_turns for v in timings if v.gate is not None)
    if not bursts:
        taken = "the median of the turns of each round"
    elif any(v.in_turns for v in timings):
        taken = f"the median of the turns of each round, of bursts their {c.settings.location}"
    else:
        taken = f"the {c.settings.location} of each round, a burst of each side"
    return (
        f"The smallest worsening of latency that could have been called regressed: {span}, with a margin of "
        f"{100 * c.settings.margin_of('latency_s'):g} % on {taken}."
    )


def rows(comparison: Comparison, everything: bool = False) -> list[Row]:
    """Worst first; exact and neutral metrics that did not change are left out unless ``everything`` is wanted."""
    shown = [v for v in comparison.cases if everything or v.gate is not None or v.verdict not in QUIET]
    fitted = [s for s in comparison.series if everything or s.verdict not in ("same", "inconclusive")]
    return [
        *(_row(v) for v in shown),
        *(Row(s.label, s.what, s.base, s.head, "", s.verdict, s.reason) for s in fitted),
    ]


def unchanged(comparison: Comparison) -> int:
    """How many verdicts :func:`rows` leaves out."""
    return len(rows(comparison, everything=True)) - len(rows(comparison))


def absences(comparison: Comparison) -> list[str]:
    """Everything that was not compared, a line each."""
    found = [failure.sentence for failure in comparison.failed]
    found += [f"only in the base: {case.label}" for case in comparison.missing]
    found += [f"probably renamed: {old.label} -> {new.label}" for old, new in comparison.renamed]
    found += [f"only in the head: {case.label}" for case in comparison.new]
    return found


def markdown(comparison: Comparison, limit: int = LIMIT) -> str:
    """The comparison for a comment or a step summary, at most ``limit`` bytes of UTF-8; what was cut is said."""
    lines = [f"### {headline(comparison)}", ""]
    lines += [f"- {_escaped(reason)}" for reason in comparison.reasons]
    table = [
        "",
        "| " + " | ".join(HEADINGS) + " |",
        "|" + "---|" * len(HEADINGS),
        *("| " + " | ".join(map(_escaped, row)) + " |" for row in rows(comparison)),
    ]
    left = unchanged(comparison)
    rest = [f"{left} exact, neutral or fitted values without a change are not shown.", ""] if left else []
    rest += [detectable(comparison), ""]
    rest += [f"- {_escaped(line)}" for line in (*absences(comparison), *comparison.warnings)]
    if len(table) > 3:
        lines += [*table, ""]
    return _cut([*lines, *rest], limit)


def as_dict(comparison: Comparison) -> dict[str, Any]:
    """JSON-able; what is infinite or unknown is None."""
    c, found = comparison, comparison.detectable
    return {
        "verdict": c.verdict,
        "outcome": c.outcome,
        "headline": headline(c),
        "reasons": list(c.reasons),
        "base_runs": list(c.base_runs),
        "head_runs": list(c.head_runs),
        "detectable": {"least": found[0], "most": found[1]} if found else None,
        "settings": {
            "margin": c.settings.margin,
            "margins": dict(c.settings.margins),
            "confidence": c.settings.confidence,
            "location": c.settings.location,
            "metrics": list(c.settings.metrics) if c.settings.metrics is not None else None,
            "noise_floor": c.settings.floor.model_dump() if c.settings.floor is not None else None,
        },
        "cases": [_case(verdict) for verdict in c.cases],
        "series": [verdict.__dict__ for verdict in c.series],
        "missing": [{"case_id": case.id, "case": case.label} for case in c.missing],
        "new": [{"case_id": case.id, "case": case.label} for case in c.new],
        "renamed": [
            {"base": {"case_id": a.id, "case": a.label}, "head": {"case_id": b.id, "case": b.label}}
            for a, b in c.renamed
        ],
        "failed": [
            {
                "case_id": failure.case.id,
                "case": failure.case.label,
                "side": failure.side,
                "status": failure.status,
                "reason": failure.reason,
                "rounds": list(failure.rounds),
            }
            for failure in c.failed
        ],
        "differences": list(c.differences),
        "warnings": list(c.warnings),
    }


def _case(v: CaseVerdict) -> dict[str, Any]:
    return {
        "case_id": v.case.id,
        "base_case_id": (v.base_case or v.case).id,
        "case": v.label,
        "metric": v.metric,
        "verdict": v.verdict,
        "judged": v.judged,
        "unit": v.unit,
        "base": v.base,
        "head": v.head,
        "reason": v.reason,
        "gate": _gate(v.gate, v.higher_is_better) if v.gate is not None else None,
        "adjusted_p": v.adjusted_p,
    }


def _gate(found: Gate, higher: bool) -> dict[str, Any]:
    """Ratios of head over base, as they are measured, and beside them the smallest worsening."""
    estimate, low, high = _ratios(found, higher)
    return {
        "ratio": estimate,
        "low": low,
        "high": high,
        "rounds": found.rounds,
        "confidence": found.confidence,
        "margin": found.margin,
        "detectable": _known(math.expm1(found.detectable) if math.isfinite(found.detectable) else math.inf),
        "p": found.p,
        "capped": found.capped,
    }


def _ratios(found: Gate, higher: bool) -> tuple[float | None, float | None, float | None]:
    """Head over base with its interval; None where infinite."""
    ends = (-found.estimate, -found.high, -found.low) if higher else (found.estimate, found.low, found.high)
    estimate, low, high = (_known(math.exp(end)) if math.isfinite(end) else None for end in ends)
    return estimate, low, high


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _row(v: CaseVerdict) -> Row:
    notes = [v.reason] if v.reason else []
    if v.adjusted_p is not None and v.verdict in ("regressed", "suspect"):
        notes.append(f"p {v.adjusted_p:.2g} (Holm)")
    return Row(v.label, v.metric, _value(v.base, v), _value(v.head, v), _change(v), v.verdict, "; ".join(notes))


def _value(value: float | None, v: CaseVerdict) -> str:
    if value is None:
        return "" if v.metric == "status" else "-"
    return f"{numbers.exact(value)} {v.unit}" if v.exact else numbers.with_unit(value, info_of(v.metric, v.unit))


def _change(v: CaseVerdict) -> str:
    if v.gate is not None:
        estimate, low, high = _ratios(v.gate, v.higher_is_better)
        if estimate is None:
            return ""
        if low is None or high is None:
            return numbers.percent(estimate - 1)
        return f"{numbers.percent(estimate - 1)} ({numbers.percent(low - 1)} to {numbers.percent(high - 1)})"
    if v.base is None or v.head is None or v.verdict in QUIET:
        return ""
    change = v.head - v.base
    number = numbers.exact(change) if v.exact else numbers.with_unit(change, info_of(v.metric, v.unit))
    signed = number if change < 0 else f"+{number}"
    return f"{signed} ({numbers.percent(v.head / v.base - 1, 2)})" if v.base else signed


def _escaped(text: str) -> str:
    # names of cases come from outside: no markup, no mention of anybody, no end of the cell
    for sign in ("\\", "|", "`", "<", "*", "_", "[", "@"):
        text = text.replace(sign, {"@": "@\u200b", "<": "&lt;"}.get(sign, "\\" + sign))
    return " ".join(text.split())


def _cut(lines: Sequence[str], limit: int) -> str:
    sizes = [len(line.encode()) + 1 for line in lines]
    if sum(sizes) <= limit:
        return "\n".join(lines) + "\n"
    room = limit - 100  # for the line that says so
    kept, used = 0, 0
    while kept < len(lines) and used + sizes[kept] <= room:
        used += sizes[kept]
        kept += 1
    return (
        "\n".join([*lines[:kept], "", f"{len(lines) - kept} more lines were cut: GitHub takes {limit:,} characters."])
        + "\n"
    )
