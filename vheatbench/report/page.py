"""The report: one self-contained HTML page from one or more runs, complete without JavaScript."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from vheatbench import __version__
from vheatbench.analysis.findings import Finding, failure_findings
from vheatbench.analysis.groups import ChartGroup, groups_of
from vheatbench.analysis.operators import rank
from vheatbench.analysis.outcomes import Outcome, outcomes_of
from vheatbench.case import Case
from vheatbench.errors import UserError
from vheatbench.files import write_file
from vheatbench.present.parts import Section
from vheatbench.report.across import across_section, environment_rows, labels_of
from vheatbench.report.charts import MOST_TARGETS, VIEWS, View
from vheatbench.report.operator_parts import Glance, glance_of
from vheatbench.report.published import paper_sections, published_section
from vheatbench.report.records_table import COMPACT, RecordsTable, records_table, warnings_of
from vheatbench.report.section import cost_of, most_telling, section_of
from vheatbench.report.story import Sentence, story_of
from vheatbench.store.read import Run
from vheatbench.studies import STUDIES

TEMPLATES = Path(__file__).parent / "templates"

FEW = 100
"""Cost of charts (:func:`vheatbench.report.section.cost_of`) up to which each is drawn in every view."""
MOST = 700
"""Cost of charts of a page. What is beyond it stands in the records only, and the page says so."""
MOST_OF_MANY = 250
"""The same of a page whose table of records is compact, and takes its time too."""

MOST_SEEN = 3
"""Findings of analyses that are part of the story."""


@dataclass
class RunPart:
    """Everything the page says of one run."""

    run: Run
    title: str
    label: str
    """Short, unlike that of any other run on the page."""
    story: list[Sentence]
    findings: list[tuple[Finding, str]]
    glance: Glance | None
    """Where there are several groups of operators, whose findings then stand in their sections."""
    sections: list[Section]
    """Scaling, one per group."""
    analyses: list[Section]
    """The paper's tables, receptive fields, heat, and what else is no scaling."""
    records: RecordsTable
    warnings: list[tuple[str, str]]
    more_warnings: int
    environment: list[tuple[str, str]]

    @property
    def has_findings(self) -> bool:
        """Analyses have findings in their own sections: a run of nothing else has no others."""
        return bool(self.findings or self.glance or self.run.problems or not self.analyses)


def write_report(runs: Sequence[Run], path: Path, sections: Sequence[Section] = ()) -> None:
    """Write the page.

    Raises:
        UserError: a run without records, or a path that cannot be written.
        StoreError: the disk is full; a page that was there before stays.
    """
    write_file(path, render(runs, sections))


def render(runs: Sequence[Run], sections: Sequence[Section] = ()) -> str:
    """The page as text. Everything from outside goes through jinja2's escaping.

    Args:
        runs: one part of the page each, side by side in front where there are several.
        sections: of more than one run (verdicts, history), before those of each run.

    Raises:
        UserError: a run without records.
    """
    for run in runs:
        if not run.records:
            raise UserError(f"{run.path}: holds no records, there is nothing to report")
    cases = [record.case for run in runs for record in run.records if record.case.kind != "ceiling"]
    subjects = sorted(dict.fromkeys(case.subject for case in cases), key=rank)
    labels = labels_of(runs)
    groups = [groups_of(run.records) for run in runs]
    cost = sum(cost_of(group) for members in groups for group in members)
    cases_count = sum(len(run.case_ids) for run in runs)
    views: Sequence[View] = tuple(VIEWS) if cost <= FEW and cases_count <= MOST_TARGETS else ("log",)
    budget = (MOST if cases_count < COMPACT else MOST_OF_MANY) / len(runs)
    parts = [_part(run, i, runs, subjects, labels[i], views, *_drawn(groups[i], budget)) for i, run in enumerate(runs)]
    shared = [*sections]
    if len(runs) > 1:
        shared.append(across_section(runs, subjects, views))
    everything = [*shared, *(section for part in parts for section in (*part.sections, *part.analyses))]
    scripts = _scripts(everything)
    return (
        _templates()
        .get_template("report.html")
        .render(
            parts=parts,
            several=len(parts) > 1,
            # a verdict of which nothing is to be drawn is one all the same
            sections=[section for section in shared if section.findings or not section.empty],
            title=_title(runs, labels),
            reading=_terms(cases),
            scripts=scripts,
            policy=Markup(_policy(scripts)),
            version=__version__,
        )
    )


def _terms(cases: Sequence[Case]) -> dict[str, bool]:
    """Which terms the page explains: those of what it shows."""
    return {
        "timed": any(case.timed for case in cases),
        "operators": any(case.kind == "operator" and case.timed for case in cases),
        **{study.name: any(case.mode == study.mode for case in cases) for study in STUDIES},
    }


def _title(runs: Sequence[Run], labels: Sequence[str]) -> str:
    if len(runs) == 1:
        return f"{runs[0].header.suite} on {runs[0].device_name}"
    devices = list(dict.fromkeys(run.device_name for run in runs))
    return f"{len(runs)} runs on {devices[0]}" if len(devices) == 1 else f"{len(runs)} runs: {', '.join(labels)}"


def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["embedded"] = _embedded
    environment.filters["cut"] = _cut
    return environment


def _embedded(data: dict[str, Any]) -> Markup:
    """JSON that can stand in a script element, whatever its strings hold."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace("&", "\\u0026"))


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]} … ({len(text) - most} more characters)"


def _scripts(sections: Sequence[Section]) -> list[str]:
    """The page's own scripts, without what only their readers need."""
    kinds = {chart.data.get("kind") for section in sections for chart in section.charts if chart.data}
    names = ["page.js", *(["diffusion.js"] if "diffusion" in kinds else [])]
    found = []
    for name in names:
        lines = (line.strip() for line in (TEMPLATES / name).read_text(encoding="utf-8").splitlines())
        text = "\n".join(line for line in lines if line and not line.startswith("//"))
        found.append(re.sub(r"(?<=[;{,(])\n", "", text))
    return found


def _policy(scripts: Sequence[str]) -> str:
    """Nothing is fetched, and no script runs but the page's own, told by their hashes."""
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts]
    allowed = " ".join(f"'sha256-{one}'" for one in hashes)
    return (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}; base-uri 'none'; "
        "form-action 'none'"
    )


def _drawn(groups: Sequence[ChartGroup], budget: float) -> tuple[list[ChartGroup], list[ChartGroup]]:
    """The groups that fit into the budget, at least one; and the others."""
    total, few = 0, 0
    for group in groups:
        total += cost_of(group)
        few += total <= budget
    few = max(few, 1)
    return list(groups[:few]), list(groups[few:])


def _part(
    run: Run,
    index: int,
    runs: Sequence[Run],
    subjects: Sequence[str],
    label: str,
    views: Sequence[View],
    groups: list[ChartGroup],
    left_out: list[ChartGroup],
) -> RunPart:
    outcomes = outcomes_of(run.records)
    several = len(groups) > 1
    sections = [
        section_of(group, f"r{index}g{number}", subjects, several, views) for number, group in enumerate(groups)
    ]
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
    records = f"r{index}-records"
    findings += [(finding, records) for finding in failure_findings(outcomes)]
    if left_out:
        words = (
            f"{len(left_out)} of {len(groups) + len(left_out)} variants of this run are too many to draw on one page: "
            f"the records have them. The first: {left_out[0].title}."
        )
        findings.append((Finding(words, ""), records))
    warnings, more = warnings_of(outcomes)
    published = published_section(run, outcomes, f"r{index}-published")
    analyses = [*_analyses(run, index, runs), *([published] if published else [])]
    story = _story(groups, sections, analyses, outcomes, records)
    in_story = {one.text for one in story}
    for section in analyses:
        section.findings = [pair for pair in section.findings if pair[0].text not in in_story]
    return RunPart(
        run=run,
        title=f"{run.header.suite} on {run.device_name}",
        label=label,
        story=story,
        findings=findings,
        glance=glance,
        sections=[section for _, section in shown],
        analyses=analyses,
        records=records_table(outcomes),
        warnings=warnings,
        more_warnings=more,
        environment=environment_rows(run.header.environment),
    )


def _analyses(run: Run, index: int, runs: Sequence[Run]) -> list[Section]:
    papers: list[Section] = []
    if run.header.reference.get("tables"):
        papers = paper_sections(run, f"r{index}paper", [other for other in runs if other is not run])
    if all(record.case.timed for record in run.records):
        return papers
    analyses = [section for study in STUDIES for section in study.sections_of(run, f"r{index}{study.mode}")]
    return [*papers, *analyses]


def _story(
    groups: list[ChartGroup], sections: list[Section], analyses: list[Section], outcomes: list[Outcome], records: str
) -> list[Sentence]:
    """Its links lead to charts that are there. What matters most of the analyses stands before what is missing."""
    pairs = [(most_telling(group), section.id) for group, section in zip(groups, sections, strict=True)]
    warnings = records.replace("-records", "-warnings")
    story = story_of(pairs, outcomes, records, warnings)
    seen = [Sentence(one.text, anchor) for section in analyses for one, anchor in section.findings if one.important]
    story[-1:-1] = seen[:MOST_SEEN]
    there = {records, warnings} | {chart.id for section in (*sections, *analyses) for chart in section.charts}
    return [one if one.anchor in there else replace(one, anchor="") for one in story]
