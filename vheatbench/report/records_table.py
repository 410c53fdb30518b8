"""The table of all records: which columns it has, what stands in a cell, and how each number was taken."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from vheatbench import numbers
from vheatbench.analysis.outcomes import Outcome
from vheatbench.metrics import MetricInfo, columns
from vheatbench.store.per_image import compared_name

COMPACT = 500
"""Rows from which on intervals become a percentage and what is alike is written once: the page stays light."""

MOST_WARNINGS = 200


@dataclass(frozen=True)
class Cell:
    """A value in its column's unit, its interval, and the number of the note on how it was taken (empty for none)."""

    value: str
    interval: str = ""
    mark: str = ""


@dataclass(frozen=True)
class Row:
    """One case. ``built`` is text, or the number of a note in a compact table."""

    outcome: Outcome
    samples: str
    cells: tuple[Cell, ...]
    built: str


@dataclass(frozen=True)
class RecordsTable:
    """The table and its notes."""

    headings: tuple[str, ...]
    rows: tuple[Row, ...]
    hows: tuple[tuple[str, str, str], ...]
    """Mark (empty where a column has one how only), column, how its numbers were taken or why there is none."""
    built: tuple[str, ...]
    """Notes on how subjects were built, numbered from 1; empty where each row says its own."""
    compact: bool

    @property
    def statuses(self) -> list[str]:
        """Those that occur."""
        return list(dict.fromkeys(row.outcome.status for row in self.rows))

    @property
    def timed(self) -> bool:
        """Whether any case has samples of a latency."""
        return any(row.outcome.case.timed for row in self.rows)


def records_table(outcomes: Sequence[Outcome]) -> RecordsTable:
    """The table of all outcomes, compact from :data:`COMPACT` rows on."""
    infos = columns_of(outcomes)
    compact = len(outcomes) >= COMPACT
    hows: dict[str, dict[str, int]] = {info.name: {} for info in infos}
    for outcome in outcomes:
        for metric, texts in hows.items():
            if text := how_taken(outcome, metric):
                texts.setdefault(text, 0)
    notes: list[tuple[str, str, str]] = []
    for info in infos:
        texts = hows[info.name]
        for text in texts:
            texts[text] = len(notes) + 1
            notes.append((str(len(notes) + 1) if len(texts) > 1 else "", info.heading, text))
    built: dict[str, int] = {}
    rows = []
    for outcome in outcomes:
        cells = tuple(_cell(outcome, info, hows[info.name], compact) for info in infos)
        text = how_built(outcome)
        if compact and text:
            text = str(built.setdefault(text, len(built) + 1))
        rows.append(Row(outcome, samples_in_words(outcome), cells, text))
    headings = tuple(info.heading for info in infos)
    return RecordsTable(headings, tuple(rows), tuple(notes), tuple(built), compact)


def columns_of(outcomes: Sequence[Outcome]) -> list[MetricInfo]:
    """The columns that any outcome fills. Images per second are a model's."""
    models = any(outcome.case.kind == "model" for outcome in outcomes)
    return [info for info in columns("records", outcomes) if models or info.name != "throughput_images_per_s"]


def _cell(outcome: Outcome, info: MetricInfo, hows: dict[str, int], compact: bool) -> Cell:
    mark = str(hows[text]) if len(hows) > 1 and (text := how_taken(outcome, info.name)) else ""
    point = outcome.points.get(info.name)
    if compact:
        return Cell(numbers.with_spread(point, info), mark=mark)
    return Cell(numbers.value_of(point, info), numbers.interval_of(point, info), mark)


def how_taken(outcome: Outcome, metric: str) -> str:
    """How a metric was taken or why it is not there, without the counts that differ from row to row."""
    taken = outcome.metric(metric)
    if taken is None:
        return "closed form of a step over its latency" if metric in outcome.points else ""
    if taken.unavailable is not None:
        return f"not available: {taken.unavailable}"
    return _without_counts(taken.how)


@lru_cache(maxsize=1024)
def _without_counts(how: str) -> str:
    text = re.sub(r"\b\d+ samples", "the samples", how)
    return re.sub(r"\d+(?:\.\d+)?% (?=order-statistic)", "", text)


def samples_in_words(outcome: Outcome) -> str:
    """Raw samples of the latency over all rounds, and the rounds where there are several: ``36 in 3``."""
    name = compared_name(outcome.case, "latency_s")
    good = [record for record in outcome.records if record.status == "ok" and name in record.samples]
    count = sum(len(record.samples[name].values) for record in good)
    if not count:
        return "—"
    return f"{count} in {len(good)}" if len(good) > 1 else str(count)


def how_built(outcome: Outcome) -> str:
    """How the subject was built, in a few words."""
    subject: dict[str, Any] = next((r.subject for r in outcome.records if r.subject), {})
    words = [str(subject.get("form", "")), str(subject.get("precision", ""))]
    if "fused" in str(subject.get("attention")):
        words.append(f"attention {subject['attention']}")
    if subject.get("kernel"):
        words.append(f"kernel {subject['kernel']}")
    sizing = subject.get("input", {})
    if isinstance(sizing, dict) and sizing.get("how") and outcome.case.kind == "model":
        changed = [f"{key} {value}" for key, value in (sizing.get("changed") or {}).items()]
        more = f" and {len(changed) - 2} more" if len(changed) > 2 else ""
        words.append(f"size by {sizing['how']}" + (f" ({'; '.join(changed[:2])}{more})" if changed else ""))
    return "; ".join(word for word in words if word)


def warnings_of(outcomes: Sequence[Outcome]) -> tuple[list[tuple[str, str]], int]:
    """Each warning once with the cases that it is about, and how many warnings are left out of the list."""
    found: dict[str, list[str]] = {}
    for outcome in outcomes:
        for text in outcome.warnings:
            found.setdefault(text, []).append(outcome.case.label)
    listed = []
    for text, labels in list(found.items())[:MOST_WARNINGS]:
        more = f" and {len(labels) - 3} more" if len(labels) > 3 else ""
        listed.append((", ".join(labels[:3]) + more, text))
    return listed, max(0, len(found) - MOST_WARNINGS)
