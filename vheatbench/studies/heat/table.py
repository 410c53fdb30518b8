"""Numbers of heat as tables: on the terminal, on the page, and for Markdown and LaTeX. From records alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Literal, NamedTuple

from vheatbench.case import Case
from vheatbench.metrics import MetricInfo, info_of, with_role
from vheatbench.present.parts import StudyTable, Table
from vheatbench.present.terminal import Column, print_table, print_warnings
from vheatbench.store.read import Run
from vheatbench.store.schema import Record
from vheatbench.studies.heat.labels import brief, number


class Kind(NamedTuple):
    """How the records of one analysis are shown in tables."""

    name: Literal["diffuse", "diffusivity", "kernel"]
    """Also the role of its metrics."""
    title: str
    row: str
    """Which of its names a row is never without."""
    names: tuple[str, ...]
    """What a record is called by on the page and in exports."""
    caption: str

    @property
    def columns(self) -> list[MetricInfo]:
        """Its metrics."""
        return with_role(self.name)


KINDS = (
    Kind(
        "diffuse",
        "heat diffusion",
        "k",
        ("model", "size", "layer", "k", "channel"),
        "k of the chosen channel, in cells². Diffusion length: sqrt(2 k) of the mean k, one conduction. Kept: heat "
        "left in the source's cell. Undershoot: how far below zero the lowest temperature falls, the source's being 1 "
        "at the start.",
    ),
    Kind(
        "diffusivity",
        "diffusivity",
        "layer",
        ("model", "size", "rule", "layer"),
        "k in cells² over all channels and frequencies of a block. Diffusion length: sqrt(2 k) of the mean k, the "
        "standard deviation per axis of a point's heat after one application. Decay: exp(-k w²). Half-decay: the "
        "lowest |w| of which half is left, a dash where none is.",
    ),
    Kind(
        "kernel",
        "point response",
        "kt (cells²)",
        ("grid", "source", "kt (cells²)"),
        "Heat 1 in one cell, conducted by the operator with the same k everywhere, in float64; largest differences "
        "from the other two answers over their peak.",
    ),
)


def digits(value: float) -> str:
    """A number on the page: three significant digits, or a dash where there is none."""
    return "—" if math.isnan(value) else brief(float(value)).replace("-", "−")


def cells(record: Record, *metrics: str) -> tuple[str, ...]:
    """Metrics of a record on the page, in the units of their headings; a dash where one is unavailable."""
    return tuple(digits(number(record, metric) * info_of(metric).factor) for metric in metrics)


def cell(record: Record, metric: str) -> str:
    """One of :func:`cells`."""
    return cells(record, metric)[0]


def headings(*metrics: str) -> tuple[str, ...]:
    """Headings of :func:`cells`."""
    return tuple(info_of(metric).heading for metric in metrics)


def names_of(record: Record) -> dict[str, str]:
    """What tells records apart, each with its heading; empty where there is nothing to say."""
    case, analysis, conditions = record.case, record.case.analysis, record.conditions
    if analysis.get("kind") == "kernel":
        source = ",".join(map(str, analysis["source"]))
        return {"grid": case.size, "source": source, "kt (cells²)": f"{analysis['kt_cells2']:g}"}
    return {
        "model": case.subject,
        "size": case.size,
        "rule": str(analysis.get("rule", "")),
        "layer": str(analysis["layer"]),
        "k": str(conditions.get("k", analysis.get("k", ""))),
        "channel": str(conditions.get("channel", "")),
        "grid": "x".join(map(str, conditions.get("grid", []))),
        "weights": str(conditions.get("weights", "")),
    }


def numbers_table(id_: str, kind: str, title: str, records: Sequence[Record]) -> Table:
    """A row per record of one kind, for the page."""
    found = next(one for one in KINDS if one.name == kind)
    metrics = [column.name for column in found.columns]
    rows = [(*_shown_names(record, found.names), *cells(record, *metrics)) for record in records]
    return Table(id_, title, found.caption, (*found.names, *headings(*metrics)), rows)


def _shown_names(record: Record, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(names_of(record)[name] or "—" for name in names)


def print_heat(run: Run) -> None:
    """One line per record on stdout; what is wrong with the file and every warning below it, on stderr."""
    for kind in KINDS:
        records = [record for record in run.records if record.case.analysis.get("kind") == kind.name]
        if records:
            _print_kind(kind, records, f"{run.header.suite}, {run.header.created}")
    print_warnings(run.problems, ((_label(record), record.warnings) for record in run.records))


def _print_kind(kind: Kind, records: Sequence[Record], title: str) -> None:
    rows = [names_of(record) for record in records]
    # what all rows share stands once, above them; the row's own name stays, so that a row is never without one
    own = [name for name in rows[0] if name == kind.row or len({row[name] for row in rows}) > 1]
    shared = [f"{name} {text}" for name, text in rows[0].items() if name not in own and text]
    table = [
        [
            *(row[name] for name in own),
            *(_plain_cell(record, column) for column in kind.columns),
            "" if record.status == "ok" else f"{record.status}: {record.reason}",
        ]
        for row, record in zip(rows, records, strict=True)
    ]
    names = [Column(name, "name") for name in own]
    columns = [*names, *(Column(column.terminal_heading) for column in kind.columns), Column("notes", "notes")]
    print_table(columns, table, title=", ".join([title, *shared]), caption=kind.caption)


def _plain_cell(record: Record, column: MetricInfo) -> str:
    value = number(record, column.name) * column.factor
    return "—" if math.isnan(value) else brief(value)


def _label(record: Record) -> str:
    """The record in a few words."""
    names = names_of(record)
    if "kt (cells²)" in names:
        return f"k t {names['kt (cells²)']}"
    return " ".join(filter(None, (names[name] for name in ("model", "size", "layer", "rule", "k"))))


def _is_of(kind: str, case: Case) -> bool:
    return case.mode == "heat" and case.analysis.get("kind") == kind


TABLES = tuple(
    StudyTable(
        kind.title,
        kind.names,
        partial(_shown_names, names=kind.names),
        kind.name,
        partial(_is_of, kind.name),
    )
    for kind in KINDS
)
