"""What is measured beside speed and memory: one folder each, and one entry each here.

An entry names functions and is read without importing them: what shows a study imports no torch, what shows no study
imports nothing of it.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vheatbench.present.parts import Section, StudyTable
    from vheatbench.store.read import Run


@dataclass(frozen=True)
class Study:
    """How the records of a study are told and shown. Functions are named as ``module:function`` in its folder."""

    name: str
    """Of its folder."""
    mode: str
    """Of its cases."""
    table: str
    """Prints a run on the terminal."""
    sections: str = ""
    """Those of the page, of a run and with an id to begin theirs with."""
    tables: str = ""
    """Its :class:`vheatbench.present.parts.StudyTable` for Markdown and LaTeX, as a tuple."""
    suites: tuple[str, ...] = ()
    """Suites of runs that are this study's although another has the same mode."""

    def print_table(self, run: Run) -> None:
        """Print a run on stdout, what is to be said of it on stderr."""
        self._named(self.table)(run)

    def sections_of(self, run: Run, id_: str) -> list[Section]:
        """The sections of the page; none where the run holds nothing of this study."""
        found: list[Section] = self._named(self.sections)(run, id_) if self.sections else []
        return found

    @property
    def exported(self) -> Sequence[StudyTable]:
        """The tables for Markdown and LaTeX."""
        found: Sequence[StudyTable] = self._named(self.tables) if self.tables else ()
        return found

    def _named(self, name: str) -> Any:
        module, _, attribute = name.partition(":")
        return getattr(importlib.import_module(f"{__name__}.{self.name}.{module}"), attribute)


STUDIES = (
    Study("erf", "erf", "table:print_fields", "section:erf_sections", "numbers:TABLES"),
    Study("heat", "heat", "table:print_heat", "section:heat_sections", "tables:TABLES"),
    Study("dense", "eval", "table:print_scores", suites=("detect-eval", "segment-eval")),
    Study("accuracy", "eval", "table:print_accuracies", "section:accuracy_sections", "numbers:TABLES"),
    Study("training", "fit", "table:print_training", "section:training_sections", "section:TABLES"),
)
"""In the order of the page."""


def study_of(run: Run) -> Study | None:
    """The study whose table shows the run; None for one of timed cases alone."""
    modes = {record.case.mode for record in run.records}
    for study in STUDIES:
        if study.mode in modes and (not study.suites or run.header.suite in study.suites):
            return study
    return None
