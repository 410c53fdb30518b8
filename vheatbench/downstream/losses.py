"""The loss of every update, in a file that only grows."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from vheatbench.downstream.checkpointing import write_whole
from vheatbench.errors import StoreError

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
                with self.path.open(newline="") as file:
                    rows = [row for row in csv.reader(file) if len(row) == len(HEADER) and row[0].isdigit()]
        except OSError as error:
            raise self._error(error) from error
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([HEADER, *(row for row in rows if int(row[0]) <= updates)])
        write_whole(self.path, lambda file: file.write(text.getvalue().encode()), "the checkpoint is kept")

    def add(self, rows: Sequence[tuple[int, int, float, float]]) -> None:
        """Append rows. Raises StoreError."""
        try:
            with self.path.open("a", newline="") as file:
                csv.writer(file, lineterminator="\n").writerows(rows)
        except OSError as error:
            raise self._error(error) from error

    def _error(self, error: OSError) -> StoreError:
        return StoreError(
            f"cannot write {self.path}: {error.strerror}; the checkpoint is kept: free space and continue with --resume"
        )
