"""A run beside the published tables of its suite, on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vheatbench.analysis.paper_tables import PaperTable
    from vheatbench.analysis.published import Check
    from vheatbench.analysis.series import Point
    from vheatbench.store.read import Run

CHECKED = ("params M", "exact", "printed", "check", "GMAC", "exact", "printed", "check")


def print_published(run: Run) -> None:
    """Parameters and multiply-adds checked, throughput shown; nothing for a suite without reference."""
    from vheatbench.analysis.outcomes import outcomes_of
    from vheatbench.analysis.paper_tables import paper_tables

    reference = run.header.reference
    if not reference:
        return
    _print_one(run, reference)
    for table in paper_tables(outcomes_of(run.records), reference, run.header.suite):
        _print_paper(table, reference)


def _print_one(run: Run, reference: dict[str, Any]) -> None:
    from vheatbench.analysis.outcomes import outcomes_of
    from vheatbench.analysis.published import published_rows

    rows = published_rows(outcomes_of(run.records), reference)
    if not rows:
        return
    variants = {row.variant for row in rows}
    title = f"Beside the published table (checked: within {float(reference['tolerance']):.0%} of exact)"
    names = ["model", "variant"] if len(variants) > 1 else ["model"]
    cells = []
    for row in rows:
        throughput = [_number(row.throughput.measured, 1.0), _number(row.throughput.published, 1.0)]
        own = [row.subject, row.variant] if len(variants) > 1 else [row.subject]
        cells.append([*own, *_check(row.params, 1e-6), *_check(row.macs, 1e-9), *throughput])
    _print(title, names, [*CHECKED, "images/s", "A100"], cells, reference["source"])


def _print_paper(paper: PaperTable, reference: dict[str, Any]) -> None:
    several = len({row.variant for row in paper.rows if row.variant}) > 1
    names = ["model", "variant"] if several else ["model"]
    accuracies = [f"{one.heading} printed" for one in paper.rows[0].accuracies]
    cells = []
    for row in paper.rows:
        own = [row.subject, row.variant] if several else [row.subject]
        counts = [*_check(row.params, 1e-6), *_check(row.macs, 1e-9)]
        measured = [_point(row.throughput, 1.0), _point(row.memory, 2.0**-20)]
        if row.status != "ok":
            measured[0] = row.status.partition(":")[0]
        cells.append([*own, *counts, *measured, *(_number(one.published, 1.0) for one in row.accuracies)])
    title = f"{paper.title} (checked: within {float(reference['tolerance']):.0%} of exact, by fvcore's rules)"
    _print(title, names, [*CHECKED, "images/s", "peak MiB", *accuracies], cells, paper.note)


def _print(title: str, names: list[str], values: list[str], rows: list[list[str]], caption: str) -> None:
    from vheatbench.present.terminal import Column, print_table

    columns = [*(Column(name, "name") for name in names), *map(Column, values)]
    print_table(columns, rows, title=title, caption=caption)


def _check(check: Check, factor: float) -> list[str]:
    verdict = ""
    if check.passed is not None and check.difference is not None:
        verdict = f"{'pass' if check.passed else 'FAIL'} {check.difference:+.2%}"
    return [*(_number(value, factor) for value in (check.measured, check.exact, check.published)), verdict]


def _point(point: Point | None, factor: float) -> str:
    return "" if point is None else _number(point.value, factor)


def _number(value: float | None, factor: float) -> str:
    return "" if value is None else f"{value * factor:.4g}"
