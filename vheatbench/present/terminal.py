"""Tables and warnings on the terminal. A cell's text appears whole at every width: no number is cut, no column lost.

Where the columns fit beside each other, they make a table. Where only the notes do not, each stands under its row.
Where the columns themselves do not, every row becomes a block of ``heading value`` pairs, each heading at the same
place in every block.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from vheatbench.metrics import Role, columns
from vheatbench.numbers import with_interval

if TYPE_CHECKING:
    from rich.box import Box
    from rich.text import Text

    from vheatbench.present.parts import Table
    from vheatbench.store.schema import Record

PIPE_WIDTH = 200
"""Of what is no terminal: files and pipes, where ``COLUMNS`` says nothing else."""
NOTES_WIDTH = 32
"""The least width, in characters, that notes get as a column of the table."""
INDENT = "  "


ColumnRole = Literal["name", "number", "words", "notes"]


class Column(NamedTuple):
    """One column of a table."""

    heading: str
    role: ColumnRole = "number"
    """What a row is called by, a value of it that is a number or not, or words of any length about it."""
    right: bool = False
    """Names that stand at the right edge, as numbers do anyway."""

    @property
    def to_the_right(self) -> bool:
        """Whether its cells stand at the right edge."""
        return self.right or self.role == "number"


def stdout_width() -> int:
    """Characters in a line of stdout: what ``COLUMNS`` says, else the terminal; ``PIPE_WIDTH`` where there is none."""
    if sys.stdout.isatty():
        return shutil.get_terminal_size((80, 24)).columns
    columns = os.environ.get("COLUMNS", "")
    return int(columns) if columns.isdecimal() and int(columns) > 0 else PIPE_WIDTH


def print_line(text: str, style: str = "") -> None:
    """A line of text on stdout, whole: the terminal wraps it where it is too long."""
    from rich.console import Console
    from rich.text import Text

    Console(highlight=False).print(Text(text, style), soft_wrap=True)


def print_table(
    columns: Sequence[Column],
    rows: Iterable[Sequence[str]],
    *,
    title: str = "",
    caption: str = "",
    total: Sequence[str] | None = None,
) -> None:
    """Print a table on stdout.

    Args:
        columns: notes, if any, are the last; they are left out where no row has any.
        rows: one text per column; taken literally, without markup.
        title: above the table.
        caption: below it.
        total: a last row, set apart.

    Raises:
        ValueError: a row has more or fewer cells than there are columns, or notes are not the last column.
    """
    from rich.box import HEAVY_HEAD
    from rich.console import Console

    console = Console(highlight=False)
    box = HEAVY_HEAD.substitute(console.options)  # of plain signs where stdout takes no others
    for line in layout(columns, rows, stdout_width(), box, title=title, caption=caption, total=total):
        console.print(line, soft_wrap=True)


def print_page_table(table: Table) -> None:
    """A table of the page on stdout: its first cells name the rows, and where it holds sentences the last are notes."""
    name, *others = table.header
    columns = [Column(name, "name"), *map(Column, others)]
    if table.words:
        columns[-1] = Column(others[-1], "notes")
    print_table(columns, table.rows, title=table.title, caption=table.caption)


def print_warnings(general: Iterable[str], by_case: Iterable[tuple[str, Iterable[str]]] = ()) -> None:
    """Warnings on stderr, a line each: the general ones first, then those of cases, the same text once.

    Args:
        general: what is wrong with a file, say.
        by_case: pairs of a case's label and its warnings.
    """
    for text in general:
        print(f"! {text}", file=sys.stderr)
    cases: dict[str, list[str]] = {}
    for label, texts in by_case:
        for text in texts:
            cases.setdefault(text, []).append(label)
    for text, labels in cases.items():
        more = f" (and {len(labels) - 1} more)" if len(labels) > 1 else ""
        print(f"! {labels[0]}{more}: {text}", file=sys.stderr)


def print_records(
    heads: Sequence[str],
    names_of: Callable[[Record], Sequence[str]],
    role: Role,
    records: Sequence[Record],
    *,
    title: str,
    caption: str,
) -> None:
    """The table of a study on stdout: a row per record, its names, the metrics of the study's role, its notes."""
    shown = columns(role, records)
    rows = [
        [*names_of(one), *(with_interval(one.metrics.get(info.name), info) for info in shown), notes_of(one)]
        for one in records
    ]
    headings = [*(Column(head, "name") for head in heads), *(Column(info.terminal_heading) for info in shown)]
    print_table([*headings, Column("notes", "notes")], rows, title=title, caption=caption)


def notes_of(record: Record) -> str:
    """What a study's table says beside a record: why it is not ``ok``, or how many warnings there are."""
    return f"{record.status}: {record.reason}" if record.status != "ok" else warnings_words(len(record.warnings))


def warnings_words(count: int) -> str:
    """``2 warnings``; nothing for none."""
    return f"{count} warning{'s' * (count > 1)}" if count else ""


def layout(
    columns: Sequence[Column],
    rows: Iterable[Sequence[str]],
    width: int,
    box: Box,
    *,
    title: str = "",
    caption: str = "",
    total: Sequence[str] | None = None,
) -> list[Text]:
    """The lines of :func:`print_table` at a width in characters."""
    from rich.text import Text

    if any(column.role == "notes" for column in columns[:-1]):
        raise ValueError("notes are the last column")
    body = [_cleaned(row, columns) for row in rows]
    last = _cleaned(total, columns) if total is not None else None
    everything = body + ([last] if last else [])
    if columns[-1].role == "notes" and not any(row[-1] for row in everything):
        columns = columns[:-1]
        body, last, everything = ([row[:-1] for row in body], last and last[:-1], [row[:-1] for row in everything])
    widths = [max(map(_width, (c.heading, *cells))) for c, *cells in zip(columns, *everything, strict=True)]
    table = _Table(columns, body, last, widths)
    lines = [Text(line, "italic") for line in wrap(title, width)]
    lines += table.boxed(width, box) or table.blocks(width)
    return lines + [Text(line, "dim italic") for line in wrap(caption, width)]


def wrap(text: str, width: int) -> list[str]:
    """A text as lines of at most ``width`` characters; a single word that is longer stays whole."""
    lines: list[str] = []
    for word in text.split():
        if lines and _width(lines[-1]) + 1 + _width(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


class _Table(NamedTuple):
    """What is to be laid out, with the width that every column would like."""

    columns: Sequence[Column]
    rows: list[list[str]]
    total: list[str] | None
    widths: list[int]

    def boxed(self, width: int, box: Box) -> list[Text]:
        """A line per row, or several where its notes are wrapped; nothing where the columns do not fit."""
        from rich.text import Text

        widths, below = list(self.widths), False
        noted = self.columns[-1].role == "notes"
        if noted and _outer(widths) > width:
            longest = max((_width(word) for row in self.rows for word in row[-1].split()), default=0)
            left = width - _outer(widths[:-1]) - 3
            if left >= max(NOTES_WIDTH, longest):
                widths[-1] = left
            else:
                widths, below = widths[:-1], True
                if longest > _outer(widths) - 6:
                    return []
        if _outer(widths) > width:
            return []
        padded = [one + 2 for one in widths]
        columns = self.columns[: len(widths)]
        head = _line([c.heading for c in columns], columns, widths, box.head_left, box.head_vertical, box.head_right)
        lines = [Text(box.get_top(padded)), Text(head, "bold"), Text(box.get_row(padded, "head"))]
        for row in self.rows:
            lines += map(Text, self._row(row, widths, box, below))
        if self.total is not None:
            lines.append(Text(box.get_row(padded, "row")))
            lines += map(Text, self._row(self.total, widths, box, below))
        return [*lines, Text(box.get_bottom(padded))]

    def blocks(self, width: int) -> list[Text]:
        """A few lines per row: its name, its values with their headings, its notes."""
        from rich.text import Text

        named = [i for i, column in enumerate(self.columns) if column.role == "name"]
        valued = [i for i, column in enumerate(self.columns) if column.role in ("number", "words")]
        rows = [*self.rows, *([self.total] if self.total is not None else [])]
        blocks = [
            [f"{c.heading} {cell}" if cell else "" for c, cell in zip(self.columns, row, strict=True)] for row in rows
        ]
        grid = _grid([max((_width(pairs[i]) for pairs in blocks), default=0) for i in valued], width - len(INDENT))
        lines: list[Text] = []
        for row, pairs in zip(rows, blocks, strict=True):
            lines += [Text(line, "bold") for line in _flat(INDENT.join(filter(None, (pairs[i] for i in named))), width)]
            cells = [pairs[i] for i in valued]
            for start in range(0, len(cells), len(grid)):
                aligned = map(_padded, cells[start : start + len(grid)], grid)
                lines += _indented(INDENT.join(aligned).rstrip(), width)
            if self.columns[-1].role == "notes":
                lines += _indented(self._noted(row), width)
        return lines

    def _row(self, row: list[str], widths: Sequence[int], box: Box, below: bool) -> Iterator[str]:
        """A row with its notes wrapped in their cell, or under it all."""
        edges = (box.mid_left, box.mid_vertical, box.mid_right)
        columns = self.columns[: len(widths)]
        if below:
            yield _line(row[: len(widths)], columns, widths, *edges)
            inner = _outer(widths) - 4
            for line in wrap(self._noted(row), inner - len(INDENT)):
                yield f"{box.mid_left} {_padded(INDENT + line, inner)} {box.mid_right}"
            return
        last = wrap(row[-1], widths[-1]) if columns[-1].role == "notes" else [row[-1]]
        for i, line in enumerate(last or [""]):
            yield _line([*(row[:-1] if i == 0 else [""] * (len(row) - 1)), line], columns, widths, *edges)

    def _noted(self, row: list[str]) -> str:
        """The notes of a row where their heading stands nowhere else."""
        heading = self.columns[-1].heading
        return f"{heading}: {row[-1]}" if row[-1] and heading != "notes" else row[-1]


def _cleaned(row: Sequence[str], columns: Sequence[Column]) -> list[str]:
    """Each cell on one line, without control characters and without gaps within numbers, which could be wrapped."""
    if len(row) != len(columns):
        raise ValueError(f"{len(row)} cells for {len(columns)} columns: {list(row)}")
    joined = (cell.replace("\u202f", "") for cell in row)
    return [" ".join("".join(c if _shown(c) else " " for c in cell).split()) for cell in joined]


def _shown(sign: str) -> bool:
    """Whether a terminal shows it; bytes of file names that are no text are handed through."""
    return sign.isprintable() or "\udc80" <= sign <= "\udcff"


def _line(
    cells: Sequence[str], columns: Sequence[Column], widths: Sequence[int], left: str, middle: str, right: str
) -> str:
    triples = zip(cells, widths, columns, strict=True)
    padded = [_padded(cell, width, column.to_the_right) for cell, width, column in triples]
    return f"{left} {f' {middle} '.join(padded)} {right}"


def _grid(wanted: Sequence[int], width: int) -> list[int]:
    """Widths of the most columns into which cells of these widths fit, filled row by row; one where none do."""
    for count in range(len(wanted), 1, -1):
        widths = [max(wanted[i::count]) for i in range(count)]
        if sum(widths) + len(INDENT) * (count - 1) <= width:
            return widths
    return [0]


def _flat(text: str, width: int) -> list[str]:
    """A text with its spaces where it fits, else wrapped at its words."""
    return [text] if text and _width(text) <= width else wrap(text, width)


def _indented(text: str, width: int) -> list[Text]:
    """What stands under the name of a block."""
    from rich.text import Text

    return [Text(INDENT + line) for line in _flat(text, width - len(INDENT))]


def _outer(widths: Sequence[int]) -> int:
    """The width of a table with its frame."""
    return sum(widths) + 3 * len(widths) + 1


def _padded(text: str, width: int, right: bool = False) -> str:
    space = " " * (width - _width(text))
    return space + text if right else text + space


def _width(text: str) -> int:
    from rich.cells import cell_len

    return cell_len(text)
