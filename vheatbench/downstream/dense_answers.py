"""What a detector or segmenter has answered so far, on disk: an evaluation that was stopped goes on from there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vheatbench import __version__
from vheatbench.downstream.distributed import Group
from vheatbench.errors import StoreError

CHUNK = 64
"""Images after which what is answered is on disk."""


@dataclass(frozen=True)
class Answers:
    """A file with one line of JSON for every chunk of images: what was answered, and the seconds of the model."""

    path: Path | None
    """None: nothing is kept."""

    @classmethod
    def of(cls, results: Path, suite: str, *what: object) -> Answers:
        """The file of an evaluation, whose name follows from all that its answers depend on."""
        digest = hashlib.sha256(json.dumps([__version__, suite, CHUNK, *what]).encode()).hexdigest()[:12]
        return cls(results / f".{suite}-{digest}.answers")

    def lines(self) -> list[dict[str, Any]]:
        """Chunks that are there whole, in order."""
        try:
            text = self.path.read_text() if self.path is not None else ""
        except OSError:
            return []
        found: list[dict[str, Any]] = []
        for line in text.splitlines(keepends=True):
            try:
                chunk = json.loads(line) if line.endswith("\n") else None
            except ValueError:
                chunk = None
            if not isinstance(chunk, dict):  # cut off by a kill
                break
            found.append(chunk)
        return found

    def add(self, lines: Sequence[dict[str, Any]]) -> None:
        """Write these chunks in place of what is there. Raises StoreError."""
        if self.path is None:
            return
        try:
            with self.path.open("a") as file:
                file.writelines(json.dumps(line) + "\n" for line in lines)
        except OSError as error:
            raise StoreError(f"cannot write {self.path}: {error.strerror}; what it holds is kept") from error

    def keep(self, lines: Sequence[dict[str, Any]]) -> None:
        """Drop what comes after these chunks, the remains of a line for example. Raises StoreError."""
        if self.path is not None and self.path.exists():
            try:
                self.path.write_text("".join(json.dumps(line) + "\n" for line in lines))
            except OSError as error:
                raise StoreError(f"cannot write {self.path}: {error.strerror}") from error

    def forget(self) -> None:
        """The run is written: nothing is to go on with."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


NOTHING_KEPT = Answers(None)


def answer_all(
    images: int,
    group: Group,
    answer: Callable[[Sequence[int]], tuple[Any, float]],
    kept: Answers = NOTHING_KEPT,
    told: Callable[[int, int], None] = lambda done, of: None,
) -> tuple[list[Any], float]:
    """Answer every image once, divided among the processes, going on after the chunks that are kept.

    Args:
        images: how many there are.
        answer: of image numbers, what is to be kept, as JSON has it, and the seconds of the model alone.
        kept: where answers are kept.
        told: how many images are done.

    Returns:
        The answers of every process to every chunk, and the seconds of the slowest process, summed up over chunks.

    Raises:
        SharedUserError, PeerError: see :meth:`vheatbench.downstream.distributed.Group.together`.
        StoreError: the answers cannot be written.
    """

    def before() -> list[dict[str, Any]]:
        lines = kept.lines()
        kept.keep(lines)
        return lines

    lines = group.on_main(before)
    if lines:
        told(min(len(lines) * CHUNK, images), images)
    for start in range(len(lines) * CHUNK, images, CHUNK):
        own = range(start, min(start + CHUNK, images))[group.rank :: group.size]
        parts = group.gather_or_raise(lambda own=own: answer(own))  # type: ignore[misc]
        line = {"answers": [part for part, _ in parts], "model_s": max(seconds for _, seconds in parts)}
        lines.append(line)
        group.on_main(lambda line=line: kept.add([line]))  # type: ignore[misc]
        told(min(start + CHUNK, images), images)
    return [part for line in lines for part in line["answers"]], sum(line["model_s"] for line in lines)
