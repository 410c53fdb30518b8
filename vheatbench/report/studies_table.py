"""The numbers of analyses (receptive fields, heat, accuracy, training) as plain tables, for Markdown and LaTeX."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vheatbench.analysis.outcomes import Outcome
from vheatbench.analysis.series import Point
from vheatbench.present.parts import StudyTable
from vheatbench.studies import STUDIES

Column = tuple[str, str, float]
"""Metric, heading with unit, factor."""


@dataclass(frozen=True)
class AnalysisRow:
    """One case: its names, a point per column (None where it has none)."""

    names: tuple[str, ...]
    points: tuple[Point | None, ...]
    status: str


@dataclass(frozen=True)
class AnalysisTable:
    """Cases of one kind of analysis."""

    title: str
    heads: tuple[str, ...]
    """Of the names."""
    columns: tuple[Column, ...]
    rows: tuple[AnalysisRow, ...]


def analysis_tables(outcomes: Sequence[Outcome]) -> list[AnalysisTable]:
    """A table for every kind of analysis among the outcomes; of other outcomes nothing."""
    if all(outcome.case.timed for outcome in outcomes):
        return []
    found = [
        _table(table, [outcome for outcome in outcomes if table.holds(outcome.case)])
        for study in STUDIES
        for table in study.exported
    ]
    return [table for table in found if table.rows]


def _table(table: StudyTable, outcomes: Sequence[Outcome]) -> AnalysisTable:
    """Columns that no case fills are left out."""
    named = [table.names_of(outcome.records[0]) for outcome in outcomes]
    told = [i for i in range(len(table.heads)) if any(names[i] for names in named)]
    filled = tuple(column for column in table.columns if any(column[0] in outcome.points for outcome in outcomes))
    rows = (
        AnalysisRow(
            tuple(names[i] for i in told),
            tuple(outcome.points.get(metric) for metric, _, _ in filled),
            outcome.status,
        )
        for outcome, names in zip(outcomes, named, strict=True)
    )
    return AnalysisTable(table.title, tuple(table.heads[i] for i in told), filled, tuple(rows))
