"""The loss of every update, in a file that only grows."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

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
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if updates and self.path.exists():
                with self.path.open(newline="") as file:
                    rows = [row for row in csv.reader(file) if len(row) == len(HEADER) and row[0].isdigit()]
            self._write([HEADER, *(row for row in rows if int(row[0]) <= updates)], "w")
        except OSError as error:
            raise self._error(error) from error

    def add(self, rows: Sequence[tuple[int, int, float, float]]) -> None:
        """Append rows. Raises StoreError."""
        try:
            self._write(rows, "a")
        except OSError as error:
            raise self._error(error) from error

    def _write(self, rows: Sequence[Sequence[object]], mode: str) -> None:
        with self.path.open(mode, newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)

    def _error(self, error: OSError) -> StoreError:
        return StoreError(
            f"cannot write {self.path}: {error.strerror}; the checkpoint is kept: free space and continue with --resume"
        )
