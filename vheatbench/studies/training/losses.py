"""The loss of every update, in a file that only grows."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from vheatbench.errors import StoreError
from vheatbench.files import GIB, append, read_bytes, reason_of
from vheatbench.run.checkpointing import write_whole

HEADER = ("update", "epoch", "learning_rate", "loss")


class LossFile:
    """CSV with one row per update: its number from 1, its epoch from 1, the learning rate, the mean loss."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def keep(self, updates: int) -> None:
        """Begin the file, or drop what a training wrote after the checkpoint that it goes on from."""
        rows: list[list[str]] = []
        try:
            if updates and self.path.exists():
                text = read_bytes(self.path, GIB).decode(errors="replace")
                rows = [row for row in csv.reader(io.StringIO(text)) if len(row) == len(HEADER) and row[0].isdigit()]
        except OSError as error:
            raise self._error(error) from error
        content = _csv([HEADER, *(row for row in rows if int(row[0]) <= updates)])
        write_whole(self.path, lambda file: file.write(content), "the checkpoint is kept")

    def add(self, rows: Sequence[tuple[int, int, float, float]]) -> None:
        """Append rows. Raises StoreError."""
        try:
            with self.path.open("ab") as file:
                append(file.fileno(), _csv(rows))
        except OSError as error:
            raise self._error(error) from error

    def _error(self, error: OSError) -> StoreError:
        reason = f"cannot write {self.path}: {reason_of(error)}"
        return StoreError(f"{reason}; the checkpoint is kept: free space and continue with --resume")


def _csv(rows: Iterable[Iterable[object]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()
