"""Runs as Markdown, for a README or a pull request: what they say in short, the numbers, where they come from."""

from __future__ import annotations

import re
from collections.abc import Sequence

from vheatbench import numbers
from vheatbench.analysis.groups import ChartGroup, groups_of
from vheatbench.analysis.outcomes import Outcome, outcomes_of
from vheatbench.metrics import columns
from vheatbench.present.parts import StudyTable
from vheatbench.report.records_table import columns_of
from vheatbench.report.story import story_of_run
from vheatbench.store.read import Run
from vheatbench.studies import exported_tables

MOST_CHARACTERS = 65_536
"""What GitHub takes in a comment or a step's summary."""


def markdown_of(runs: Sequence[Run]) -> str:
    """The runs one after the other, cut at :data:`MOST_CHARACTERS` with a word that it is."""
    parts = [part for run in runs for part in _run(run)]
    shown = ""
    for place, part in enumerate(parts):
        left = f"\n*Cut here: {len(parts) - place} more parts are too long for one comment; the page has all.*\n"
        if len(shown) + len(part) + len(left) > MOST_CHARACTERS:
            return shown + left
        shown += part
    return shown


def escaped(text: str) -> str:
    """Text from outside on one line, with nothing in it that Markdown or HTML would take for its own."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    # @name would call somebody, #1 link to an issue
    return re.sub(r"([\\`*_{}\[\]|~@#$])", lambda m: f"&#{ord(m[1])};", line)


def code(text: str) -> str:
    """Text from outside as code, whatever backticks it holds."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    ticks = "`" * (max((len(run) for run in re.findall(r"`+", line)), default=0) + 1)
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{ticks}{pad}{line}{pad}{ticks}"


def _run(run: Run) -> list[str]:
    outcomes = outcomes_of(run.records)
    groups = groups_of(run.records)
    story = story_of_run(run)
    header = run.header
    head = f"### {escaped(header.suite)} on {escaped(run.device_name)}\n\n"
    head += "".join(f"- {escaped(one.text)}\n" for one in story.everything)
    head += "".join(f"- **{escaped(problem)}**\n" for problem in run.problems)
    by_group = [_table(group.title, _outcomes(group, outcomes)) for group in groups]
    by_group += [_study(table, of_table) for table, of_table in exported_tables(outcomes)]
    notes = " ±: half the interval of the median; weights are random." if groups else ""
    notes += " In brackets: the interval." if any(not outcome.case.timed for outcome in outcomes) else ""
    foot = f"\nMeasured {escaped(header.created)}, run {code(header.run_id)}, by {code(header.command)}.{notes}\n\n"
    return [head, *by_group, foot]


def _outcomes(group: ChartGroup, outcomes: Sequence[Outcome]) -> list[Outcome]:
    ids = {record.case_id for record in group.records}
    return [outcome for outcome in outcomes if outcome.case.id in ids]


def _table(title: str, outcomes: Sequence[Outcome]) -> str:
    shown = columns_of(outcomes)
    heads = [outcomes[0].case.kind, "size", *(info.heading for info in shown)]
    lines = [f"\n{escaped(title)}\n", _row(heads), "|---|--:|" + "--:|" * len(shown)]
    for outcome in outcomes:
        case = outcome.case
        cells = [numbers.with_spread(outcome.points.get(info.name), info) for info in shown]
        name = escaped(case.subject)
        if outcome.status != "ok":
            name += f" ({outcome.status})"
        lines.append(_row([name, case.size.replace("x", "×"), *cells]))
    return "\n".join(lines) + "\n"


def _study(table: StudyTable, outcomes: Sequence[Outcome]) -> str:
    heads, names = table.named([outcome.records[0] for outcome in outcomes])
    shown = columns(table.role, outcomes)
    lines = [f"\n{escaped(table.title)}\n", _row([*heads, *(info.heading for info in shown)])]
    lines.append(f"|{'---|' * len(heads)}{'--:|' * len(shown)}")
    for outcome, own in zip(outcomes, names, strict=True):
        named = [escaped(name) or "—" for name in own]
        if outcome.status != "ok":
            named[0] += f" ({outcome.status})"
        lines.append(_row([*named, *(numbers.with_interval(outcome.points.get(info.name), info) for info in shown)]))
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
