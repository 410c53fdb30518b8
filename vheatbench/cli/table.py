"""The table of a run on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vheatbench.analysis.group_ratios import FocusRatio
    from vheatbench.analysis.outcomes import Outcome
    from vheatbench.store.read import Run


def print_run(run: Run) -> None:
    """One line per case on stdout; what is wrong with the file and every warning below it, on stderr."""
    from vheatbench.analysis.group_ratios import ratios_of
    from vheatbench.analysis.outcomes import outcomes_of
    from vheatbench.metrics import columns
    from vheatbench.numbers import with_spread
    from vheatbench.present.terminal import Column, print_page_table, print_table, print_warnings
    from vheatbench.report.published import published_tables

    outcomes = outcomes_of(run.records)
    measured = [outcome.case for outcome in outcomes if outcome.case.kind != "ceiling"]
    variants = list(dict.fromkeys(case.variant for case in measured))
    operators = any(case.kind == "operator" for case in measured)
    shown = columns("operators" if operators else "models", outcomes)
    ratios = ratios_of(run.records)
    focuses = {found.focus for found in ratios.values()}
    headings = [
        Column("operator" if operators else "model", "name"),
        Column("grid" if operators else "size", "name", right=True),
        *([Column("variant", "name")] if len(variants) > 1 else []),
        *(Column(info.terminal_heading) for info in shown),
        *([Column(f"time ÷ {focuses.copy().pop()}" if len(focuses) == 1 else "time ÷ focus")] if ratios else []),
        Column("notes", "notes"),
    ]
    rows = []
    for outcome in outcomes:
        case = outcome.case
        # the shape of a ceiling's tensor is no size of the others
        row = [case.subject, "" if case.kind == "ceiling" else case.size]
        if len(variants) > 1:
            row.append(case.dtype if case.kind == "ceiling" else case.variant)
        row += [with_spread(outcome.points.get(info.name), info) for info in shown]
        if ratios:
            row.append(_ratio(ratios.get(case.id), focuses, case.subject))
        rows.append([*row, _notes(outcome)])
    title = f"{run.header.suite} on {run.device_name}, {run.header.created}"
    print_table(
        headings,
        rows,
        title=title,
        caption=_caption(run, variants, {outcome.rounds for outcome in outcomes if outcome.rounds}),
    )
    for table in published_tables(run) if run.header.reference else ():
        print_page_table(table)
    print_warnings(run.problems, ((outcome.case.label, outcome.warnings) for outcome in outcomes))


def _ratio(found: FocusRatio | None, focuses: set[str], subject: str) -> str:
    """How many times as long as the subject in question it takes; which that is, where there are several."""
    from vheatbench.metrics import info_of
    from vheatbench.numbers import with_spread

    if found is None:
        return "1" if subject in focuses else ""
    ratio = with_spread(found.paired.ratio, info_of("ratio"))
    return ratio if len(focuses) == 1 else f"{ratio} {found.focus}"


def _caption(run: Run, variants: list[str], rounds: set[int]) -> str:
    words = []
    if len(variants) == 1:
        words.append(variants[0])
    most = max(rounds, default=1)
    up_to = "" if len(rounds) == 1 else "up to "
    spread = f"over {up_to}{most} fresh processes" if most > 1 else "of the median within a process"
    words.append(f"± is half the interval {spread}; random weights")
    if any(record.session is not None for record in run.records):
        words.append("time ÷: from turns side by side")
    return "; ".join(words)


def _notes(outcome: Outcome) -> str:
    from vheatbench.present.terminal import warnings_words

    words = []
    if outcome.status != "ok":
        words.append(f"{outcome.status}: {outcome.reason}")
    elif outcome.reason:
        words.append(f"{len(outcome.records) - outcome.rounds} of {len(outcome.records)} rounds: {outcome.reason}")
    if outcome.rounds > 1:
        words.append(f"{outcome.rounds} rounds")
    if outcome.warnings:
        words.append(warnings_words(len(outcome.warnings)))
    return ", ".join(words)
