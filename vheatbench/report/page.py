"""The report: one self-contained HTML page from one or more runs, complete without JavaScript."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jinja2

from vheatbench import __version__
from vheatbench.analysis.findings import Finding, failure_findings
from vheatbench.analysis.groups import groups_of
from vheatbench.analysis.operators import rank
from vheatbench.analysis.outcomes import Outcome, outcomes_of
from vheatbench.analysis.published import PublishedRow, published_rows
from vheatbench.errors import UserError
from vheatbench.report import numbers
from vheatbench.report.operator_parts import Glance, glance_of
from vheatbench.report.parts import Section
from vheatbench.report.records_table import cell, columns_of, notes
from vheatbench.report.section import section_of
from vheatbench.store.read import Run


@dataclass
class RunPart:
    """Everything the page says of one run."""

    run: Run
    title: str
    findings: list[tuple[Finding, str]]
    glance: Glance | None
    """Where there are several groups of operators, whose findings then stand in their sections."""
    sections: list[Section]
    published: list[PublishedRow]
    outcomes: list[Outcome]
    warnings: list[tuple[str, str]]
    environment: list[tuple[str, str]]

    @property
    def has_operators(self) -> bool:
        """Whether the page has to explain what is said of operators only."""
        return any(outcome.case.kind == "operator" for outcome in self.outcomes)


def write_report(runs: Sequence[Run], path: Path) -> None:
    """Write the page.

    Raises:
        UserError: a run without records, or a path that cannot be written.
    """
    for run in runs:
        if not run.records:
            raise UserError(f"{run.path}: holds no records, there is nothing to report")
    page = render(runs)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from None


def render(runs: Sequence[Run]) -> str:
    """The page as text. Everything from outside goes through jinja2's escaping."""
    cases = [record.case for run in runs for record in run.records if record.case.kind != "ceiling"]
    subjects = sorted(dict.fromkeys(case.subject for case in cases), key=rank)
    loader = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["percent"] = numbers.percent
    environment.filters["plain"] = numbers.plain
    parts = [_part(run, i, subjects) for i, run in enumerate(runs)]
    return environment.get_template("report.html").render(
        parts=parts, several=len(parts) > 1, version=__version__, columns_of=columns_of, cell=cell, notes=notes
    )


def _part(run: Run, index: int, subjects: Sequence[str]) -> RunPart:
    outcomes = outcomes_of(run.records)
    groups = groups_of(run.records)
    several = len(groups) > 1
    sections = [section_of(group, f"r{index}g{number}", subjects, several) for number, group in enumerate(groups)]
    shown = [(group, section) for group, section in zip(groups, sections, strict=True) if not section.empty]
    operators = [(group, section.id) for group, section in shown if group.kind == "operator"]
    glance = glance_of(operators) if len(operators) > 1 else None
    findings: list[tuple[Finding, str]] = []
    for group, section in zip(groups, sections, strict=True):
        if glance is not None and group.kind == "operator":
            continue  # its findings stand in its section
        prefix = f"[{group.title}] " if several else ""
        findings += [(replace(finding, text=prefix + finding.text), anchor) for finding, anchor in section.findings]
        section.findings = []
    findings.sort(key=lambda pair: not pair[0].important)
    findings += [(finding, f"r{index}-records") for finding in failure_findings(outcomes)]
    warnings = [(outcome.case.label, text) for outcome in outcomes for text in outcome.warnings]
    published = published_rows(outcomes, run.header.reference) if run.header.reference else []
    return RunPart(
        run,
        f"{run.header.suite} on {run.device_name}",
        findings,
        glance,
        [section for _, section in shown],
        published,
        outcomes,
        warnings,
        _environment_rows(run.header.environment),
    )


def _environment_rows(environment: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in environment.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            rows += _environment_rows(value, f"{name}.")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for i, item in enumerate(value):
                rows += _environment_rows(item, f"{name}.{i}.")
        elif value not in (None, [], ""):
            rows.append((name, str(value)))
    return rows
