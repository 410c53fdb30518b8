"""What a section of the page consists of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from vheatbench.analysis.findings import Finding
from vheatbench.case import Case
from vheatbench.metrics import Role
from vheatbench.store.schema import Record


@dataclass(frozen=True)
class Chart:
    """A figure, its caption, what it shows in words, and the numbers behind it."""

    id: str
    title: str
    svg: str
    """Inline markup: an SVG, or ``<img>`` elements whose sources are data URIs."""
    caption: str
    text: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    data: dict[str, Any] | None = None
    """What a script of the page needs to make the figure move; it is complete without."""

    def _repr_html_(self) -> str:
        from vheatbench.report.notebook import chart_html

        return chart_html(self)


@dataclass(frozen=True)
class Table:
    """A table under a heading; the first cell of a row is the row's name."""

    id: str
    title: str
    caption: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    words: bool = False
    """Cells hold sentences, not numbers."""
    marked: int = 0
    """How many of the first rows stand out."""


@dataclass(frozen=True)
class StudyTable:
    """Which numbers of a study Markdown and LaTeX show, a row for each case."""

    title: str
    heads: tuple[str, ...]
    """Of the names of a case."""
    names_of: Callable[[Record], tuple[str, ...]]
    role: Role
    """Of the metrics that are its columns."""
    holds: Callable[[Case], bool]
    """Whether a case belongs into it."""

    def named(self, records: Sequence[Record]) -> tuple[list[str], list[list[str]]]:
        """The heads of the names, and those of every record; what no record has is left out."""
        names = [self.names_of(record) for record in records]
        known = [i for i in range(len(self.heads)) if any(own[i] for own in names)]
        return [self.heads[i] for i in known], [[own[i] for i in known] for own in names]


@dataclass
class Section:
    """One group of records that share charts: a variant on a device of one run."""

    id: str
    title: str
    findings: list[tuple[Finding, str]] = field(default_factory=list)
    """Each with the id of the chart or table that shows it, or empty."""
    charts: list[Chart] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    fit_warnings: list[str] = field(default_factory=list)
    alerts: list[str] = field(default_factory=list)
    """What a reader must not miss, above everything else."""

    @property
    def empty(self) -> bool:
        """Whether there is nothing to see: one size of each subject."""
        return not self.charts and not self.tables and not self.alerts
