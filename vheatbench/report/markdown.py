"""Runs as Markdown, for a README or a pull request: what they say in short, the numbers, where they come from."""

from __future__ import annotations

import re
from collections.abc import Sequence

from vheatbench import numbers
from vheatbench.analysis.groups import Group, groups_of
from vheatbench.analysis.outcomes import Outcome, outcomes_of
from vheatbench.report.records_table import columns_of
from vheatbench.report.story import story_of
from vheatbench.report.studies_table import AnalysisTable, analysis_tables
from vheatbench.store.read import Run

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
    told = story_of([(group, "") for group in groups], outcomes, "")
    header = run.header
    head = f"### {escaped(header.suite)} on {escaped(run.device_name)}\n\n"
    head += "".join(f"- {escaped(one.text)}\n" for one in told)
    head += "".join(f"- **{escaped(problem)}**\n" for problem in run.problems)
    by_group = [_table(group.title, _outcomes(group, outcomes)) for group in groups]
    by_group += [_analysis(table) for table in analysis_tables(outcomes)]
    notes = " ±: half the interval of the median; weights are random." if groups else ""
    notes += " In brackets: the interval." if any(not outcome.case.timed for outcome in outcomes) else ""
    foot = f"\nMeasured {escaped(header.created)}, run {code(header.run_id)}, by {code(header.command)}.{notes}\n\n"
    return [head, *by_group, foot]


def _outcomes(group: Group, outcomes: Sequence[Outcome]) -> list[Outcome]:
    ids = {record.case_id for record in group.records}
    return [outcome for outcome in outcomes if outcome.case.id in ids]


def _table(title: str, outcomes: Sequence[Outcome]) -> str:
    columns = columns_of(outcomes)
    heads = ["case" if not outcomes[0].case.timed else outcomes[0].case.kind, "size", *(name for _, name, _ in columns)]
    lines = [f"\n{escaped(title)}\n", _row(heads), "|---|--:|" + "--:|" * len(columns)]
    for outcome in outcomes:
        case = outcome.case
        cells = [_cell(outcome, metric, factor) for metric, _, factor in columns]
        name = escaped(case.subject if case.timed else case.label)
        if outcome.status != "ok":
            name += f" ({outcome.status})"
        lines.append(_row([name, case.size.replace("x", "×"), *cells]))
    return "\n".join(lines) + "\n"


def _analysis(table: AnalysisTable) -> str:
    heads = [*table.heads, *(heading for _, heading, _ in table.columns)]
    lines = [f"\n{escaped(table.title)}\n", _row(heads), f"|{'---|' * len(table.heads)}{'--:|' * len(table.columns)}"]
    for row in table.rows:
        names = [escaped(name) or "—" for name in row.names]
        if row.status != "ok":
            names[0] += f" ({row.status})"
        cells = [
            numbers.with_interval(point, factor)
            for point, (_, _, factor) in zip(row.points, table.columns, strict=True)
        ]
        lines.append(_row([*names, *cells]))
    return "\n".join(lines) + "\n"


def _cell(outcome: Outcome, metric: str, factor: float) -> str:
    point = outcome.points.get(metric)
    return f"{numbers.value_of(point, factor)}{numbers.half_width(point)}" if point is not None else "—"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
