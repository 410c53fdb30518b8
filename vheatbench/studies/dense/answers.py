"""What a detector or segmenter has answered so far, on disk: an evaluation that was stopped goes on from there."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from vheatbench import __version__
from vheatbench.errors import StoreError, UserError
from vheatbench.files import GIB, append, check_regular, lock, open_regular, reason_of
from vheatbench.run.distributed import Group
from vheatbench.store.write import still_at

CHUNK = 64
"""Images after which what is answered is on disk."""


OnProgress = Callable[[int, int, bool], None]
"""Images done, of how many, and whether they were done before the command was given."""


def silent(done: int, of: int, before: bool) -> None:
    """Says nothing."""


class Answers:
    """A file with one line of JSON for every chunk of images, held by one evaluation at a time."""

    def __init__(self, path: Path | None) -> None:
        """``path`` None: nothing is kept."""
        self.path = path
        self._file: IO[bytes] | None = None

    @classmethod
    def of(cls, results: Path, suite: str, *what: object) -> Answers:
        """The file of an evaluation, whose name follows from all that its answers depend on."""
        digest = hashlib.sha256(json.dumps([__version__, suite, CHUNK, *what]).encode()).hexdigest()[:12]
        return cls(results / f".{suite}-{digest}.answers")

    @property
    def some(self) -> bool:
        """Whether a chunk is on disk."""
        try:
            if self.path is None:
                return False
            with open_regular(self.path) as file:
                return file.readline(GIB).endswith(b"\n")
        except OSError:
            return False

    def open(self, images: int) -> list[dict[str, Any]]:
        """The chunks that are there, in order and whole; whatever follows them is dropped.

        Raises:
            UserError: another process holds the file.
            StoreError: it cannot be opened.
        """
        if self.path is None:
            return []
        try:
            with suppress(FileNotFoundError):
                check_regular(self.path)
            file = self.path.open("ab+")
        except OSError as error:
            raise StoreError(f"cannot write {self.path}: {reason_of(error)}") from error
        if not lock(file):
            file.close()
            raise UserError(f"{self.path}: the same evaluation is running already: wait for it, or stop it")
        self._file = file
        file.seek(0)
        found: list[dict[str, Any]] = []
        good = 0
        for line in file.read().splitlines(keepends=True):
            chunk = _parsed(line)
            if chunk is None or (chunk.get("start"), chunk.get("of")) != (len(found) * CHUNK, images):
                break
            found.append(chunk)
            good += len(line)
        file.truncate(good)  # the remains of a line, where a process was killed while it wrote
        return found

    def add(self, chunk: dict[str, Any]) -> None:
        """Write a chunk behind the others. Raises StoreError."""
        if self._file is None or self.path is None:
            return
        if not still_at(self.path, self._file.fileno()):
            raise StoreError(f"{self.path} was removed or moved while it was written: its answers are lost; begin anew")
        try:
            append(self._file.fileno(), json.dumps(chunk).encode() + b"\n")
        except OSError as error:
            raise StoreError(f"cannot write {self.path}: {reason_of(error)}; the chunks before are kept") from error

    def close(self) -> None:
        """Let others have the file; one without a chunk is of no use."""
        if self._file is not None and self.path is not None:
            if os.fstat(self._file.fileno()).st_size == 0:
                self.path.unlink(missing_ok=True)
            self._file.close()
            self._file = None

    def forget(self) -> None:
        """The run is written: nothing is to go on with."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)
        self.close()


def answer_all(
    images: int,
    group: Group,
    answer: Callable[[Sequence[int]], tuple[Any, float]],
    kept: Answers | None = None,
    on_progress: OnProgress = silent,
) -> tuple[list[Any], float]:
    """Answer every image once, divided among the processes, going on after the chunks that are kept.

    Args:
        images: how many there are.
        answer: of image numbers, what is to be kept, as JSON has it, and the seconds of the model alone.
        kept: where answers are kept; held until it is closed or forgotten.
        on_progress: how many images are done, of how many, and whether they were before.

    Returns:
        The answers of every process to every chunk, and the seconds of the slowest process, summed up over chunks.

    Raises:
        SharedUserError, PeerError: see :meth:`vheatbench.run.distributed.Group.together`.
        StoreError: the answers cannot be written.
    """
    kept = kept or Answers(None)
    chunks = group.on_main(lambda: kept.open(images))
    try:
        if chunks:
            on_progress(min(len(chunks) * CHUNK, images), images, True)
        for start in range(len(chunks) * CHUNK, images, CHUNK):
            own = range(start, min(start + CHUNK, images))[group.rank :: group.size]
            parts = group.gather_or_raise(lambda own=own: answer(own))  # type: ignore[misc]
            seconds = max(part for _, part in parts)
            chunk = {"start": start, "of": images, "answers": [part for part, _ in parts], "model_s": seconds}
            chunks.append(chunk)
            group.on_main(lambda chunk=chunk: kept.add(chunk))  # type: ignore[misc]
            on_progress(min(start + CHUNK, images), images, False)
    except BaseException:
        kept.close()
        raise
    return [part for chunk in chunks for part in chunk["answers"]], sum(chunk["model_s"] for chunk in chunks)


def _parsed(line: bytes) -> dict[str, Any] | None:
    """A whole line's chunk."""
    try:
        chunk = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    return chunk if isinstance(chunk, dict) else None
