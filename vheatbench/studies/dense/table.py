"""Scores of detectors and segmenters on the terminal."""

from __future__ import annotations

from vheatbench.metrics import columns
from vheatbench.numbers import value_of
from vheatbench.store.read import Run


def print_scores(run: Run) -> None:
    """The scores of every record, in percent, on stdout; every warning on stderr."""
    from vheatbench.present.terminal import Column, print_table, print_warnings

    for record in run.records:
        title = f"{record.case.subject}, {record.subject['weights']}, {record.metrics['images'].value:.0f} images"
        scores = [info for info in columns("accuracy", [record]) if info.unit == "%"]
        rows = [(info.title, value_of(record.metrics[info.name], info)) for info in scores]
        print_table((Column("score", "name"), Column("%")), rows, title=title)
    print_warnings(run.problems, ((record.case.subject, record.warnings) for record in run.records))
