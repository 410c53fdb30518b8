"""Scores of detectors and segmenters on the terminal."""

from __future__ import annotations

from vheatbench.store.read import Run


def print_scores(run: Run) -> None:
    """The scores of every record, in percent, on stdout; every warning on stderr."""
    from vheatbench.present.terminal import Column, print_table, print_warnings

    for record in run.records:
        title = f"{record.case.subject}, {record.subject['weights']}, {record.metrics['images'].value:.0f} images"
        shares = {name: metric.value for name, metric in record.metrics.items() if metric.unit == "share"}
        rows = [(name, f"{100 * value:.2f}") for name, value in shares.items() if value is not None]
        print_table((Column("score", "name"), Column("%")), rows, title=title)
    print_warnings(run.problems, ((record.case.subject, record.warnings) for record in run.records))
