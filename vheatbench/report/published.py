"""Published tables on the page and on the terminal: what was measured beside them, what would fill the rest."""

from __future__ import annotations

from collections.abc import Sequence

from vheatbench.analysis.findings import Finding
from vheatbench.analysis.outcomes import Outcome, outcomes_of
from vheatbench.analysis.published import Check, PaperTable, paper_tables, published_rows
from vheatbench.metrics import MetricInfo, info_of
from vheatbench.numbers import MISSING, Value, as_printed, percent, value_of, with_spread
from vheatbench.present.parts import Section, Table
from vheatbench.store.read import Run

PARAMS, MACS, THROUGHPUT, SHARE = map(info_of, ("params", "macs", "throughput_images_per_s", "top1_accuracy"))
CAPTION = (
    "Counted and measured in this run. Code: what the official code gives, by its own counter. Printed: as "
    "published. GMAC torch are without norms and resizing; the others are by fvcore's rules, as papers count."
)


def published_tables(run: Run) -> list[Table]:
    """The tables of the run's reference for the terminal: accuracies only as they are printed."""
    outcomes = outcomes_of(run.records)
    section = published_section(run, outcomes, "")
    papers = paper_tables(outcomes, run.header.reference, run.header.suite)
    return [
        *(section.tables if section is not None else []),
        *(_counts(paper, "", accuracies=True) for paper in papers),
    ]


def published_section(run: Run, outcomes: Sequence[Outcome], id_: str) -> Section | None:
    """The measured models beside the published ones; None for a run that has none of them.

    Args:
        run: of any suite.
        outcomes: its own.
        id_: of the section, unique on the page.
    """
    reference = run.header.reference
    rows = published_rows(outcomes, reference) if reference else []
    if not rows:
        return None
    header = (
        "model", "variant", PARAMS.heading, "exact", "printed", "check", "GMAC", "exact", "printed", "check",
        "images/s here", "published (A100)", "acc@1 (%)",
    )  # fmt: skip
    cells = [
        (
            row.subject, row.variant, *_check(row.params, PARAMS), *_check(row.macs, MACS),
            value_of(Value(row.throughput.measured), THROUGHPUT), as_printed(row.throughput.published, THROUGHPUT),
            MISSING if row.acc1 is None else f"{row.acc1:g}",
        )
        for row in rows
    ]  # fmt: skip
    caption = (
        f"{reference['source']} Parameters and multiply-adds are checked against the exact value (tolerance "
        f"{100 * float(reference['tolerance']):g} %); throughput is hardware and only shown."
    )
    section = Section(id_, "Classification at 224 px")
    section.tables.append(Table(f"{id_}-table", "Beside the published table", caption, header, cells))
    checked = [check.passed for row in rows for check in (row.params, row.macs) if check.passed is not None]
    if checked:
        found = "all" if all(checked) else f"{sum(checked)} of {len(checked)}"
        text = (
            f"Of {len({row.subject for row in rows})} models {found} counts of parameters and multiply-adds are within "
            f"{100 * float(reference['tolerance']):g} % of the exact ones."
        )
        section.findings.append((Finding(text, ""), f"{id_}-table"))
    return section


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
    section.findings = [pair for i, pair in enumerate(section.findings) if not _repeats(pair[0], section.findings[:i])]
    section.notes = _notes(tables, run)
    return [section]


def _counts(table: PaperTable, id_: str, accuracies: bool = False) -> Table:
    published = any(row.published_throughput is not None for row in table.rows)
    several = len({row.variant for row in table.rows if row.variant}) > 1
    printed = [f"{one.heading} printed" for one in table.rows[0].accuracies] if accuracies else []
    header = (
        "model", *(["variant"] if several else []), "params M", "code", "printed", "check", "GMAC torch", "GMAC",
        "code", "printed", "check", "images/s", *(["A100"] if published else []), "peak MiB", *printed,
    )  # fmt: skip
    rows = []
    for row in table.rows:
        cells = [row.subject, *([row.variant or MISSING] if several else []), *_check(row.params, PARAMS)]
        cells += [value_of(Value(row.macs_torch), MACS), *_check(row.macs, MACS)]
        state = row.status.partition(":")[0]
        # on the page the table of accuracies says what became of a row
        cells.append(state if accuracies and state != "ok" else with_spread(row.throughput, THROUGHPUT))
        cells += [as_printed(row.published_throughput, THROUGHPUT)] if published else []
        cells.append(with_spread(row.memory, info_of("peak_memory_bytes")))
        cells += [MISSING if one.published is None else f"{one.published:g}" for one in row.accuracies if printed]
        rows.append(tuple(cells))
    height, width = table.resolution
    size = f"{height}x{width} (height x width)" if height != width else str(height)
    caption = f"At {size}. {CAPTION}" + (f" {table.note}" if table.note else "")
    return Table(id_, table.title, caption, header, rows)


def _accuracies(table: PaperTable, id_: str) -> Table:
    headings = [one.heading for one in table.rows[0].accuracies]
    header = ("model", *(f"{name} {who}" for name in headings for who in ("printed", "here")), "what fills the row")
    rows = []
    for row in table.rows:
        cells = [row.subject]
        for one in row.accuracies:
            cells += [MISSING if one.published is None else f"{one.published:.1f}", with_spread(one.measured, SHARE)]
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
                f"{row.subject}: {value_of(Value(check.measured), MACS)} GMAC here without the products of attention, "
                f"{value_of(Value(row.macs.measured), MACS)} with them; printed {as_printed(check.published, MACS)}."
            )
            found.append(Finding(text, ""))
    return found


def _repeats(finding: Finding, before: Sequence[tuple[Finding, str]]) -> bool:
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


def _check(check: Check, info: MetricInfo) -> list[str]:
    verdict = MISSING
    if check.passed is not None and check.difference is not None:
        verdict = f"{'pass' if check.passed else 'FAIL'} {percent(check.difference, 2)}"
    return [
        *(value_of(Value(one), info) for one in (check.measured, check.exact)),
        as_printed(check.published, info),
        verdict,
    ]
