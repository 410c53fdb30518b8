"""A run beside the published table of its suite, on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from vheatbench.analysis.published import Check
    from vheatbench.store.read import Run


def published_table(run: Run) -> Table | None:
    """Parameters and multiply-adds checked, throughput shown; None for a suite without reference."""
    from rich.table import Table

    from vheatbench.analysis.outcomes import outcomes_of
    from vheatbench.analysis.published import published_rows

    reference = run.header.reference
    rows = published_rows(outcomes_of(run.records), reference) if reference else []
    if not rows:
        return None
    table = Table(
        title=f"Beside the published table (checked: within {float(reference['tolerance']):.0%} of exact)",
        title_justify="left",
        caption=reference["source"],
        caption_justify="left",
    )
    variants = {row.variant for row in rows}
    headings = ["model", "variant"] if len(variants) > 1 else ["model"]
    headings += ["params M", "exact", "printed", "check", "GMAC", "exact", "printed", "check", "images/s", "A100"]
    for heading in headings:
        table.add_column(heading, justify="left" if heading in ("model", "variant") else "right", no_wrap=True)
    for row in rows:
        throughput = [_number(row.throughput.measured, 1.0), _number(row.throughput.published, 1.0)]
        names = [row.subject, row.variant] if len(variants) > 1 else [row.subject]
        table.add_row(*names, *_check(row.params, 1e-6), *_check(row.macs, 1e-9), *throughput)
    return table


def _check(check: Check, factor: float) -> list[str]:
    verdict = ""
    if check.passed is not None and check.difference is not None:
        verdict = f"{'pass' if check.passed else 'FAIL'} {check.difference:+.2%}"
    return [*(_number(value, factor) for value in (check.measured, check.exact, check.published)), verdict]


def _number(value: float | None, factor: float) -> str:
    return "" if value is None else f"{value * factor:.4g}"
