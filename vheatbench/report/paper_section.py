"""The paper's tables on the page: every published row, what was measured beside it, what would fill the rest."""

from __future__ import annotations

from collections.abc import Sequence

from vheatbench import numbers
from vheatbench.analysis.findings import Finding
from vheatbench.analysis.outcomes import outcomes_of
from vheatbench.analysis.paper_tables import PaperTable, paper_tables
from vheatbench.analysis.published import Check
from vheatbench.analysis.series import Point
from vheatbench.present.parts import Section, Table
from vheatbench.store.read import Run

NONE = "—"
CAPTION = (
    "Counted and measured in this run. Code: what the official code gives, by its own counter. Printed: as "
    "published. GMAC torch are without norms and resizing; the others are by fvcore's rules, as papers count."
)


def paper_sections(run: Run, id_: str, others: Sequence[Run] = ()) -> list[Section]:
    """One section with every table of the run's reference, or none for a run without such tables.

    Args:
        run: of a suite whose reference has tables, for example ``paper-tables``.
        id_: unique on the page: the section's, and the beginning of its tables'.
        others: runs of ``eval``, ``detect eval`` and ``segment eval`` on the same page, whose accuracies fill rows.
    """
    accuracies = [record for other in others for record in other.records if record.case.mode == "eval"]
    tables = paper_tables(outcomes_of([*run.records, *accuracies]), run.header.reference, run.header.suite)
    if not tables:
        return []
    section = Section(id_, "The paper's tables")
    section.findings = [(finding, f"{id_}-0-counts") for finding in _agreement(tables)]
    for number, table in enumerate(tables):
        section.tables += [_counts(table, f"{id_}-{number}-counts"), _accuracies(table, f"{id_}-{number}-accuracy")]
        section.findings += [(finding, f"{id_}-{number}-counts") for finding in _findings(table)]
    # tables of one model by several schedules have the same notes on its counts
    section.findings = [pair for i, pair in enumerate(section.findings) if not _said(pair[0], section.findings[:i])]
    section.notes = _notes(tables, run)
    return [section]


def _counts(table: PaperTable, id_: str) -> Table:
    published = any(row.published_throughput is not None for row in table.rows)
    several = len({row.variant for row in table.rows if row.variant}) > 1
    header = [
        "model",
        *(["variant"] if several else []),
        "params M",
        "code",
        "printed",
        "check",
        "GMAC torch",
    ]
    header += [
        "GMAC",
        "code",
        "printed",
        "check",
        "images/s",
        *(["A100"] if published else []),
        "peak MiB",
    ]
    rows = []
    for row in table.rows:
        cells = [row.subject, *([row.variant or NONE] if several else []), *_check(row.params, 1e-6)]
        cells += [_scaled(row.macs_torch, 1e-9), *_check(row.macs, 1e-9)]
        cells += [_point(row.throughput, 1.0), *([_printed(row.published_throughput, 1.0)] if published else [])]
        cells.append(_point(row.memory, 2.0**-20))
        rows.append(tuple(cells))
    height, width = table.resolution
    size = f"{height}x{width} (height x width)" if height != width else str(height)
    caption = f"At {size}. {CAPTION}" + (f" {table.note}" if table.note else "")
    return Table(id_, table.title, caption, tuple(header), rows)


def _accuracies(table: PaperTable, id_: str) -> Table:
    headings = [one.heading for one in table.rows[0].accuracies]
    header = ("model", *(f"{name} {who}" for name in headings for who in ("printed", "here")), "what fills the row")
    rows = []
    for row in table.rows:
        cells = [row.subject]
        for one in row.accuracies:
            cells += [NONE if one.published is None else f"{one.published:.1f}", _point(one.measured, 1.0)]
        state = [] if row.status in ("ok", "not measured") else [row.status]
        state += [f"left out: {why}" for why in row.left_out]
        filling = "; then ".join(row.commands)
        rows.append((*cells, "; ".join([*state, *([filling] if filling else [])]) or "complete"))
    caption = f"Percent; schedule {table.schedule}. Words in capitals stand for your files."
    return Table(id_, f"{table.title}: accuracy", caption, header, rows, words=True)


def _checked(table: PaperTable) -> dict[str, bool]:
    """By model whose parameters and multiply-adds were counted: whether both are those of the official code."""
    checks = {row.subject: (row.params.passed, row.macs.passed) for row in table.rows}
    return {subject: bool(params and macs) for subject, (params, macs) in checks.items() if None not in (params, macs)}


def _agreement(tables: Sequence[PaperTable]) -> list[Finding]:
    checked = {subject: passed for table in tables for subject, passed in _checked(table).items()}
    if not checked:
        return []
    wrong = [subject for subject, passed in checked.items() if not passed]
    text = (
        f"The paper's tables: parameters and multiply-adds of {len(checked) - len(wrong)} of {len(checked)} models "
        "agree with those of the official code" + (f"; not of {', '.join(wrong)}" if wrong else "") + "."
    )
    return [Finding(text, "", important=True)]


def _findings(table: PaperTable) -> list[Finding]:
    found = []
    if not _checked(table):
        found.append(Finding(f"{table.title}: nothing of it was counted in this run.", ""))
    found += [Finding(f"{row.subject}: {row.note}.", "") for row in table.rows if row.note]
    for row in table.rows:
        check = row.macs_without_attention
        if check is not None and check.measured is not None and check.published is not None:
            text = (
                f"{row.subject}: {_scaled(check.measured, 1e-9)} GMAC here without the products of attention, "
                f"{_scaled(row.macs.measured, 1e-9)} with them; printed {_printed(check.published, 1e-9)}."
            )
            found.append(Finding(text, ""))
    return found


def _said(finding: Finding, before: Sequence[tuple[Finding, str]]) -> bool:
    return any(finding.text == other.text for other, _ in before)


def _notes(tables: Sequence[PaperTable], run: Run) -> list[str]:
    rows = [row for table in tables for row in table.rows]
    missing = sum(one.published is not None and one.measured is None for row in rows for one in row.accuracies)
    notes = [str(run.header.reference["source"])]
    if missing:
        notes.append(
            f"{missing} accuracies need data sets and weights, and are left empty, not guessed. The published "
            "detectors and segmenters are files of mmdetection and mmsegmentation, which these models do not load: "
            "their rows are filled by training from a classification checkpoint."
        )
    if any(row.published_throughput is not None and row.throughput is not None for row in rows):
        notes.append(
            f"Published throughput is an A100's at batch 128; here it is that of {run.device_name}, random weights."
        )
    return notes


def _check(check: Check, factor: float) -> list[str]:
    verdict = NONE
    if check.passed is not None and check.difference is not None:
        verdict = f"{'pass' if check.passed else 'FAIL'} {numbers.percent(check.difference, 2)}"
    return [_scaled(check.measured, factor), _scaled(check.exact, factor), _printed(check.published, factor), verdict]


def _printed(value: float | None, factor: float) -> str:
    """With the digits that the source prints."""
    return NONE if value is None else f"{value * factor:g}"


def _scaled(value: float | None, factor: float) -> str:
    return NONE if value is None else numbers.plain(value * factor)


def _point(point: Point | None, factor: float) -> str:
    return NONE if point is None else f"{numbers.value_of(point, factor)}{numbers.half_width(point)}"
