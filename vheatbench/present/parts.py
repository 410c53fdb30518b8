"""What a section of the page consists of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from vheatbench.analysis.findings import Finding
from vheatbench.case import Case
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
    columns: tuple[tuple[str, str, float], ...]
    """Metric, heading with unit, factor from the metric's unit."""
    holds: Callable[[Case], bool]
    """Whether a case belongs into it."""


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
