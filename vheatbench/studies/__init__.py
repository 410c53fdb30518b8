"""What is measured beside speed and memory: one folder each, and one entry each here.

An entry names functions and is read without importing them: what shows a study imports no torch, what shows no study
imports nothing of it.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

from vheatbench.errors import UserError
from vheatbench.text import did_you_mean

if TYPE_CHECKING:
    from vheatbench.analysis.findings import Finding
    from vheatbench.analysis.outcomes import Outcome
    from vheatbench.present.parts import Section, StudyTable
    from vheatbench.store.read import Run
    from vheatbench.store.schema import Record


@dataclass(frozen=True)
class Study:
    """How the records of a study are printed and shown. Functions are named as ``module:function`` in its folder."""

    name: str
    """Of its folder."""
    mode: str
    """Of its cases."""
    table: str
    """Prints a run on the terminal."""
    topic: str = ""
    """Of the page, that its sections belong to (``report/topics.py``)."""
    sections: str = ""
    """Those of the page, of a run and with an id to begin theirs with."""
    findings: str = ""
    """What its sections say, of a run, without drawing them."""
    tables: str = ""
    """Its :class:`vheatbench.present.parts.StudyTable` for Markdown and LaTeX, as a tuple."""
    suites: tuple[str, ...] = ()
    """Suites of runs that are this study's although another has the same mode."""
    resumable: bool = False
    """Whether a group that was cut off goes on where it was."""
    measured: bool = False
    """Whether its module ``run`` has what the runner carries it out by.

    ``plan(settings)`` takes JSON, ``device`` (``auto``, ``cpu`` or ``cuda``) always among it, and returns groups of
    cases and notes for the user. ``measure(task, progress)`` yields a record of every case of a group: what a
    model does wrong is a record; UserError (wrong input) and StoreError (the disk) end the run.
    """

    @property
    def module(self) -> str:
        """Where ``plan`` and ``measure`` are (see :mod:`vheatbench.run.task`)."""
        return f"{__name__}.{self.name}.run"

    def print_table(self, run: Run) -> None:
        """Print a run on stdout, what is to be said of it on stderr."""
        self._named(self.table)(run)

    def sections_of(self, run: Run, id_: str) -> list[Section]:
        """The sections of the page; none where the run holds nothing of this study."""
        found: list[Section] = self._named(self.sections)(run, id_) if self.sections else []
        return found

    def findings_of(self, run: Run) -> list[Finding]:
        """What its sections say of a run, where that is known without drawing them."""
        found: list[Finding] = self._named(self.findings)(run) if self.findings else []
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
    Study(
        "erf",
        "erf",
        "table:print_fields",
        topic="sees",
        sections="section:erf_sections",
        findings="section:findings_of",
        tables="table:TABLES",
        measured=True,
    ),
    Study(
        "heat",
        "heat",
        "table:print_heat",
        topic="heat",
        sections="section:heat_sections",
        tables="table:TABLES",
        measured=True,
    ),
    Study("dense", "eval", "table:print_scores", suites=("detect-eval", "segment-eval")),
    Study(
        "accuracy",
        "eval",
        "table:print_accuracies",
        topic="learned",
        sections="section:accuracy_sections",
        tables="table:TABLES",
        resumable=True,
        measured=True,
    ),
    Study("profile", "profile", "table:print_profile", measured=True),
    Study(
        "training",
        "fit",
        "table:print_training",
        topic="learned",
        sections="section:training_sections",
        tables="table:TABLES",
    ),
)
"""In the order of the page."""


MEASURED = {study.name: study for study in STUDIES if study.measured}
"""Those that a suite may hold, by name."""

T = TypeVar("T")


def settings_of(kind: type[T], asked: Mapping[str, Any]) -> T:
    """What a study is asked for, as its dataclass of settings.

    Args:
        kind: a dataclass, whose fields may have pydantic's annotations.
        asked: of a suite file or a run's header, JSON values.

    Raises:
        UserError: a name that is no setting, one that is missing, or a value that is not allowed.
    """
    from pydantic import TypeAdapter, ValidationError

    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    for name in asked:
        if name not in names:
            raise UserError(
                f"{name} is no setting: {did_you_mean(str(name), names) or 'there are ' + ', '.join(names)}"
            )
    try:
        return TypeAdapter(kind).validate_python(dict(asked))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        what = first["msg"].removeprefix("Value error, ")
        raise UserError(f"{where}: {what}" if where else what) from None


def parts_of(run: Run) -> list[tuple[Study | None, Run]]:
    """What shows a run: its timed cases first (without a study), then the records of each study as a run of its own.

    What is wrong with the file is said with the first of them.
    """
    modes = {study.mode for study in STUDIES}
    found: list[tuple[Study | None, list[Record]]] = [
        (None, [record for record in run.records if record.case.mode not in modes])
    ]
    taken: set[str] = set()
    for study in STUDIES:
        if study.mode not in taken and (not study.suites or run.header.suite in study.suites):
            records = [record for record in run.records if record.case.mode == study.mode]
            found.append((study, records))
            taken |= {study.mode} if records else set()
    parts = [(study, records) for study, records in found if records]
    if len(parts) <= 1:
        return [(parts[0][0] if parts else None, run)]
    problems = [run.problems, *([] for _ in parts[1:])]
    return [
        (study, replace(run, records=records, problems=wrong))
        for (study, records), wrong in zip(parts, problems, strict=True)
    ]


def exported_tables(outcomes: Sequence[Outcome]) -> list[tuple[StudyTable, list[Outcome]]]:
    """The tables for Markdown and LaTeX that any of the outcomes belong into, each with those."""
    if all(outcome.case.timed for outcome in outcomes):
        return []
    tables = [table for study in STUDIES for table in study.exported]
    found = [(table, [outcome for outcome in outcomes if table.holds(outcome.case)]) for table in tables]
    return [(table, held) for table, held in found if held]
