"""Runs, records and charts in a Jupyter notebook: what their ``_repr_html_`` return."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from vheatbench.analysis.groups import groups_of, in_order
from vheatbench.analysis.outcomes import outcomes_of
from vheatbench.metrics import info_of
from vheatbench.numbers import interval_of, value_of
from vheatbench.present.parts import Chart
from vheatbench.report.records_table import records_table
from vheatbench.report.section import section_of
from vheatbench.store.per_image import with_per_image
from vheatbench.store.read import Run
from vheatbench.store.schema import Record
from vheatbench.verdict.comparison import Comparison
from vheatbench.verdict.text import HEADINGS, headline, rows

MOST_ROWS = 200


def run_html(run: Run) -> str:
    """The table of a run, its interval below each number; at most :data:`MOST_ROWS` cases, saying so."""
    outcomes = outcomes_of(run.records)
    table = records_table(outcomes[:MOST_ROWS])
    shown = [
        (row.outcome.case.label, row.outcome.status, row.samples,
         *(f"{cell.value} ({cell.interval})" if cell.interval else cell.value for cell in row.cells))
        for row in table.rows
    ]  # fmt: skip
    more = f"; {len(outcomes) - MOST_ROWS} more cases" if len(outcomes) > MOST_ROWS else ""
    warnings = sum(len(outcome.warnings) for outcome in outcomes)
    caption = (
        f"{run.header.suite} on {run.device_name}, {run.header.created}, run {run.header.run_id}: "
        f"{len(run.records)} records, {warnings} warnings{more}"
    )
    return _table(caption, ("case", "status", "samples", *table.headings), shown)


def record_html(record: Record) -> str:
    """The metrics of a record with unit, interval and how they were taken; its warnings below."""
    lines = []
    for name, metric in with_per_image(record).metrics.items():
        info = info_of(name, metric.unit)
        value = value_of(metric, info) if metric.value is not None else f"not available: {metric.unavailable}"
        lines.append((name, value, info.unit, interval_of(metric, info), metric.how))
    reason = f": {record.reason}" if record.reason else ""
    caption = f"{record.case.label}, round {record.round}: {record.status}{reason}"
    html = _table(caption, ("metric", "value", "unit", "interval", "how"), lines)
    return html + "".join(f"<p>⚠ {escape(text)}</p>" for text in record.warnings)


def comparison_html(comparison: Comparison) -> str:
    """The verdict, its reasons, and what was compared, worst first; at most :data:`MOST_ROWS` lines, saying so."""
    found = rows(comparison)
    more = f"; {len(found) - MOST_ROWS} more lines" if len(found) > MOST_ROWS else ""
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in comparison.reasons)
    table = _table(f"worst first{more}", HEADINGS, found[:MOST_ROWS]) if found else ""
    return f"<p><strong>{escape(headline(comparison))}</strong></p><ul>{reasons}</ul>{table}"


def chart_html(chart: Chart) -> str:
    """A chart with its caption. A notebook has none of the page's colours: those for a light page are set here."""
    style = (
        "--ink:#1a1d21;--faint:#565e68;--grid:#dde1e6;--panel:#fff;--series-1:#c24d00;--series-2:#0067a5;"
        "--series-3:#007a5a;--series-4:#a8467f;--series-5:#2b86b8;--series-6:#9a6a00;--series-7:#6f4e9c;"
        "--series-8:#5f6469;background:#fff;color:#1a1d21;max-width:46rem;font-family:sans-serif"
    )
    return (
        f'<figure style="{style}"><strong>{escape(chart.title)}</strong>{chart.svg}'
        f"<figcaption>{escape(chart.caption)}</figcaption></figure>"
    )


def charts_of(run: Run) -> list[Chart]:
    """The scaling charts of a run, to be shown one by one: ``charts_of(run)[0]`` in a cell."""
    groups = groups_of(run.records)
    cases = [record.case for record in run.records if record.case.kind != "ceiling"]
    subjects = in_order(case.subject for case in cases)
    sections = [section_of(group, f"g{number}", subjects, len(groups) > 1) for number, group in enumerate(groups)]
    return [chart for section in sections for chart in section.charts]


def _table(caption: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(text)}</th>" for text in header)
    body = "".join(f"<tr>{''.join(f'<td>{escape(text)}</td>' for text in row)}</tr>" for row in rows)
    return f"<table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
