"""Numbers of heat results as text and tables."""

from __future__ import annotations

import math
from collections.abc import Sequence

from vheatbench.present.parts import Table
from vheatbench.store.schema import Record
from vheatbench.studies.heat.labels import brief, number

PERCENT = 100.0

Column = tuple[str, str, float]
"""Metric, heading with unit, factor."""


def said(value: float) -> str:
    """Three significant digits, or a dash where there is no number."""
    return "—" if math.isnan(value) else brief(float(value)).replace("-", "−")


def numbers_table(
    id_: str,
    title: str,
    caption: str,
    names: tuple[str, ...],
    rows: Sequence[tuple[tuple[str, ...], Record]],
    columns: Sequence[Column],
) -> Table:
    """A row per record: its name's cells, then its metrics; a dash where a metric is unavailable."""
    cells = [
        (*name, *(said(number(record, metric) * factor) for metric, _, factor in columns)) for name, record in rows
    ]
    return Table(id_, title, caption, (*names, *(heading for _, heading, _ in columns)), cells)
