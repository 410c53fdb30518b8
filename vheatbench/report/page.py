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
from markupsafe import Markup, escape

from vheatbench import __version__
from vheatbench.analysis.findings import Finding, failure_findings
from vheatbench.analysis.groups import ChartGroup, groups_of, in_order
from vheatbench.analysis.outcomes import Outcome, outcomes_of
from vheatbench.analysis.relative_cost import relative_cost
from vheatbench.analysis.time_spent import time_line
from vheatbench.case import Case
from vheatbench.errors import UserError
from vheatbench.files import write_file
from vheatbench.present.parts import Chart, Section
from vheatbench.report.across import across_section, environment_rows, labels_of
from vheatbench.report.charts import MOST_TARGETS, VIEWS, View
from vheatbench.report.engines_section import engines_section
from vheatbench.report.first_screen import exponents_chart, relative_chart
from vheatbench.report.machines_section import machine_sections
from vheatbench.report.operator_parts import Glance, glance_of
from vheatbench.report.published import paper_sections, published_section
from vheatbench.report.records_table import COMPACT, RecordsTable, records_table, warnings_of
from vheatbench.report.section import cost_of, most_telling, section_of
from vheatbench.report.story import MOST as MOST_SENTENCES
from vheatbench.report.story import Sentence, Story, story_of, telling
from vheatbench.report.topics import topics_of
from vheatbench.store.read import Run
from vheatbench.studies import STUDIES
from vheatbench.text import listed, moment

TEMPLATES = Path(__file__).parent / "templates"

FEW = 60
"""Cost of charts (:func:`vheatbench.report.section.cost_of`) up to which each is drawn in every view."""
MOST = 700
"""Cost of charts of a page. What is beyond it stands in the records only, and the page says so."""
MOST_OF_MANY = 130
"""The same of a page whose table of records is compact, and takes its time too."""

MOST_PICTURES = 4
"""Charts of the first screen: two of a run."""


@dataclass
class RunPart:
    """Everything the page says of one run."""

    run: Run
    label: str
    """Short, unlike that of any other run on the page."""
    story: Story
    models: list[Section]
    """Scaling of models, one section per group; those of operators beside them."""
    operators: list[Section]
    glance: Glance | None
    """Where there are several groups of operators."""
    studies: dict[str, list[Section]]
    """Receptive fields, heat, accuracies and so on, by topic."""
    papers: list[Section]
    machines: list[Section]
    """How far apart they are, of a run of several."""
    first_screen: list[Chart]
    findings: list[Finding]
    """What failed, is noisy or was left out."""
    time: str
    """Where the time of the run went."""
    records: RecordsTable
    warnings: list[tuple[str, str]]
    more_warnings: int
    environment: list[tuple[str, str]]


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
    subjects = in_order(case.subject for case in cases)
    labels = labels_of(runs)
    groups = [groups_of(run.records) for run in runs]
    cost = sum(cost_of(group) for members in groups for group in members)
    cases_count = sum(len(run.case_ids) for run in runs)
    views: Sequence[View] = tuple(VIEWS) if cost <= FEW and cases_count <= MOST_TARGETS else ("log",)
    budget = (MOST if cases_count < COMPACT else MOST_OF_MANY) / len(runs)
    parts = [_part(run, i, runs, subjects, labels[i], views, *_drawn(groups[i], budget)) for i, run in enumerate(runs)]
    across = across_section(runs, subjects, views) if len(runs) > 1 else Section("across", "")
    # a verdict of which nothing is to be drawn is one all the same
    changes = [section for section in sections if section.findings or not section.empty]
    topics = topics_of(parts, across, changes)
    everything = [block.section for topic in topics for block in topic.blocks]
    scripts = _scripts(everything)
    return (
        _templates()
        .get_template("report.html")
        .render(
            parts=parts,
            several=len(parts) > 1,
            topics=topics,
            story=_sentences(parts),
            first_screen=[chart for part in parts for chart in part.first_screen][:MOST_PICTURES],
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
    devices = list(dict.fromkeys(run.device_name for run in runs))
    if len(devices) == 1:
        suites = list(dict.fromkeys(run.header.suite for run in runs))
        return f"{listed(suites)} on {devices[0]}"
    return f"{len(runs)} runs: {', '.join(labels)}"


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
    environment.filters["moment"] = moment
    environment.filters["explained"] = _explained
    return environment


def _embedded(data: dict[str, Any]) -> Markup:
    """JSON that can stand in a script element, whatever its strings hold."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace("&", "\\u0026"))


EXPLAINED = {
    "plain PyTorch": "By the products that PyTorch has for everybody: the same footing for all models",
    "own products": "vHeat's layers computed by fused products that the models beside it do not have",
    "multiply-adds": "Counted exactly; one is two FLOPs, and papers on vHeat and Swin call it a FLOP",
    "tokens": "Cells of an operator's grid; of a model squares of 16 by 16 pixels",
    "random weights": "Not trained: fine for speed, and no word on what a trained model sees",
    "peak memory": "Most memory that a step takes beside the weights, in a pass of its own",
}
"""Words of the field in the first sentences, and what they mean."""


def _explained(text: str) -> Markup:
    """A sentence whose terms say on hover what they mean, each once."""
    found = str(escape(text))
    for term, words in EXPLAINED.items():
        found = re.sub(rf"\b{term}\b", f'<abbr title="{words}">{term}</abbr>', found, count=1)
    return Markup(found)


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
    pairs = list(zip(groups, sections, strict=True))
    operators = [(group, section) for group, section in pairs if group.kind == "operator"]
    seen = [(group, section.id) for group, section in operators if not section.empty]
    findings = failure_findings(outcomes)
    if left_out:
        words = (
            f"{len(left_out)} of {len(groups) + len(left_out)} variants of this run are too many to draw on one page: "
            f"the records have them. The first: {left_out[0].title}."
        )
        findings.append(Finding(words, ""))
    warnings, more = warnings_of(outcomes)
    published = published_section(run, outcomes, f"r{index}-published")
    by_engine = engines_section(outcomes, f"r{index}-engines")
    papers = [*_papers(run, index, runs), *([published] if published else [])]
    studies = _studies(run, index)
    told = [*([by_engine] if by_engine else []), *(one for found in studies.values() for one in found)]
    story = _story(groups, sections, told, outcomes, index)
    return RunPart(
        run=run,
        label=label,
        story=story,
        models=[
            *([by_engine] if by_engine else []),
            *(section for group, section in pairs if group.kind == "model" and _worth_showing(section)),
        ],
        operators=[section for _, section in operators if _worth_showing(section)],
        glance=glance_of(seen) if len(seen) > 1 else None,
        studies=studies,
        papers=papers,
        machines=machine_sections(run, f"r{index}-machines"),
        first_screen=_first_screen(groups, index, subjects, label if len(runs) > 1 else ""),
        findings=findings,
        time=time_line(run.records, run.footer.elapsed_s if run.footer is not None else None),
        records=records_table(outcomes),
        warnings=warnings,
        more_warnings=more,
        environment=environment_rows(run.header.environment),
    )


def _worth_showing(section: Section) -> bool:
    return bool(section.findings) or not section.empty


def _first_screen(groups: Sequence[ChartGroup], index: int, subjects: Sequence[str], label: str) -> list[Chart]:
    """The picture of the models and the small chart of the operators, as far as the run has them."""
    pairs = [(group, "") for group in groups]
    models, operators = telling(pairs, "model"), telling(pairs, "operator")
    found: list[Chart | None] = []
    if models is not None:
        cost = relative_cost(most_telling(models[0]))
        context = ", ".join(filter(None, (label, models[0].title)))
        found.append(relative_chart(f"r{index}-relative", cost, subjects, context) if cost is not None else None)
    if operators is not None:
        found.append(exponents_chart(f"r{index}-exponents", most_telling(operators[0]), subjects))
    return [chart for chart in found if chart is not None]


def _papers(run: Run, index: int, runs: Sequence[Run]) -> list[Section]:
    if not run.header.reference.get("tables"):
        return []
    return paper_sections(run, f"r{index}paper", [other for other in runs if other is not run])


def _studies(run: Run, index: int) -> dict[str, list[Section]]:
    found: dict[str, list[Section]] = {}
    if any(not record.case.timed for record in run.records):
        for study in STUDIES:
            found.setdefault(study.topic, []).extend(study.sections_of(run, f"r{index}{study.mode}"))
    return found


def _story(
    groups: list[ChartGroup], sections: list[Section], studies: list[Section], outcomes: list[Outcome], index: int
) -> Story:
    """Its links lead to what is on the page."""
    records, warnings = f"r{index}-records", f"r{index}-warnings"
    pairs = [(most_telling(group), section.id) for group, section in zip(groups, sections, strict=True)]
    seen = [Sentence(one.text, anchor) for section in studies for one, anchor in section.findings if one.important]
    story = story_of(pairs, outcomes, records, warnings, seen)
    there = {records, warnings}
    for section in (*sections, *studies):
        there |= {chart.id for chart in section.charts} | {table.id for table in section.tables}

    def linked(sentences: Sequence[Sentence]) -> list[Sentence]:
        return [one if one.anchor in there else replace(one, anchor="") for one in sentences]

    return Story(linked(story.sentences), linked(story.caveats))


def _sentences(parts: Sequence[RunPart]) -> list[Sentence]:
    """What the page begins with: of several runs the first sentence of each, then the second, named by their labels."""
    if len(parts) == 1:
        return parts[0].story.sentences
    named = len({part.run.device_name for part in parts}) > 1 or len({part.run.header.suite for part in parts}) == 1
    found = []
    for place in range(MOST_SENTENCES):
        for part in parts:
            if place < len(part.story.sentences):
                one = part.story.sentences[place]
                found.append(replace(one, text=f"{part.label}: {one.text}") if named else one)
    return found[:MOST_SENTENCES]
