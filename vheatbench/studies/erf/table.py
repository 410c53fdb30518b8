"""Numbers of receptive fields as tables: on the terminal, on the page, and for Markdown and LaTeX.

From records alone, so that they stand without the maps.
"""

from __future__ import annotations

from collections.abc import Sequence

from vheatbench.metrics import with_role
from vheatbench.numbers import with_spread
from vheatbench.present.parts import StudyTable, Table
from vheatbench.present.terminal import Column, print_table, print_warnings
from vheatbench.store.read import Run
from vheatbench.store.schema import Record
from vheatbench.studies.erf.labels import metric_of, state, with_interval

COLUMNS = with_role("erf")
NAMES = ("model", "size", "layer", "weights")


def names_of(record: Record) -> tuple[str, str, str, str]:
    """Model, size, layer and state in words."""
    return record.case.subject, record.case.size, str(record.case.analysis.get("layer", "")), state(record)


def print_fields(run: Run) -> None:
    """One line per receptive field on stdout, and below it, on stderr, every warning."""
    rows = [
        [
            *names_of(record)[:3],
            state(record, 40),
            *(with_spread(metric_of(record, one.name), one) for one in COLUMNS),
            _notes(record),
        ]
        for record in run.records
    ]
    names = [Column(name, "name", right=name == "size") for name in NAMES]
    print_table(
        [*names, *(Column(one.terminal_heading) for one in COLUMNS), Column("notes", "notes")],
        rows,
        title=f"Effective receptive fields on {run.device_name}, {run.header.created}",
        caption="A50, A99, entropy area, r50: % of the pixels; radius %: of the shorter side; axes: standard deviations"
        + _interval_words(run),
    )
    print_warnings(run.problems, ((" ".join(names_of(record)[:3]), record.warnings) for record in run.records))


def _interval_words(run: Run) -> str:
    """What the caption says of intervals; nothing where nothing was measured."""
    known = [
        metric for record in run.records for one in COLUMNS[1:] if (metric := metric_of(record, one.name)) is not None
    ]
    if any(metric.low is not None for metric in known):
        return "; ± half the 95 % interval"
    return "; no interval: a single image, or views of a single photograph" if known else ""


def _notes(record: Record) -> str:
    if record.status != "ok":
        return f"{record.status}: {record.reason}"
    count = len(record.warnings)
    return f"{count} warning{'s' * (count > 1)}" if count else ""


def numbers_table(id_: str, records: Sequence[Record]) -> Table:
    """Every measured field with its numbers, for the page."""
    columns = [column for column in COLUMNS if any(column.name in record.metrics for record in records)]
    rows = [(*names_of(record), *(with_interval(record, column.name) for column in columns)) for record in records]
    caption = (
        "In brackets the interval, from leaving out groups of photographs (or images of noise), each with all its "
        "views. A50 and A99: smallest share of the pixels that holds half and 99 % of the mass. RMS radius about the "
        "centre of the cells. Entropy area: exp(entropy) over the number of pixels. r: share of the image in the "
        "smallest centred square that holds half of the raw mass. The rankings by A50 and by A99 often differ: a "
        "field can be sharp and wide at once."
    )
    header = (*NAMES, *(column.heading for column in columns))
    return Table(id_, "Receptive fields in numbers", caption, header, rows)


TABLES = (
    StudyTable(
        "effective receptive fields",
        NAMES,
        names_of,
        "erf_paper",
        lambda case: case.mode == "erf",
    ),
)
