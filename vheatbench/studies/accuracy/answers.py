"""What a model answered, image by image: filled in any order and by any number of processes, counted once."""

from __future__ import annotations

import io
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

PENDING, UNREADABLE = -1, -2
"""In place of an output: not asked yet; the image could not be read."""


@dataclass(frozen=True)
class Part:
    """The answers of one process to some images."""

    indices: list[int]
    predicted: list[int]
    """Output of the head with the largest logit; of equal ones the first."""
    rank: list[int]
    """Outputs before the right one, 0 where the answer is right."""
    loss: list[float]
    """Cross entropy in nats."""
    broken: dict[int, str] = field(default_factory=dict)
    """Images that could not be read, and why."""
    model_s: float = 0.0
    """Seconds of the model alone."""
    waited_s: float = 0.0
    """Seconds that the model waited for images to be read, prepared and copied to its device."""


class Answers:
    """Answers to ``n`` images, each position filled once."""

    def __init__(self, n: int) -> None:
        self.predicted = np.full(n, PENDING, dtype=np.int32)
        self.rank = np.zeros(n, dtype=np.int32)
        self.loss = np.zeros(n, dtype=np.float64)
        self.chunks: list[tuple[int, float, float]] = []
        """Of every chunk: images, seconds of the model, seconds waited, by the slowest process."""

    def add(self, parts: list[Part]) -> None:
        """One chunk, answered by processes side by side.

        Raises:
            ValueError: an image has an answer already.
        """
        for part in parts:
            places = [*part.indices, *part.broken]
            if len(set(places)) != len(places) or (self.predicted[places] != PENDING).any():
                raise ValueError("an image was answered twice")
            self.predicted[part.indices] = part.predicted
            self.rank[part.indices] = part.rank
            self.loss[part.indices] = part.loss
            self.predicted[list(part.broken)] = UNREADABLE
        answered = sum(len(part.indices) for part in parts)
        self.chunks.append((answered, max(p.model_s for p in parts), max(p.waited_s for p in parts)))

    @property
    def read(self) -> npt.NDArray[np.bool_]:
        """Which images were read and answered."""
        return self.predicted >= 0

    @property
    def done(self) -> int:
        """Images that were answered or found unreadable."""
        return int((self.predicted != PENDING).sum())

    @property
    def unreadable(self) -> list[int]:
        """Positions of images that could not be read."""
        return [int(i) for i in np.flatnonzero(self.predicted == UNREADABLE)]

    def within(self, k: int) -> npt.NDArray[np.bool_]:
        """Of the images that were read: whether the right class is among the first ``k`` answers."""
        return np.asarray(self.rank[self.read] < k)

    def to_bytes(self) -> bytes:
        """As a ``.npz`` file."""
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer,
            predicted=self.predicted,
            rank=self.rank,
            loss=self.loss,
            chunks=np.array(self.chunks).reshape(-1, 3),
        )
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes, n: int) -> Answers:
        """What :meth:`to_bytes` wrote. Raises ValueError where it is not that, or of another number of images."""
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in ("predicted", "rank", "loss", "chunks")}
        except Exception as error:  # zipfile, zlib and numpy each raise their own
            raise ValueError(f"not stored answers ({type(error).__name__})") from None
        if any(arrays[name].shape != (n,) for name in ("predicted", "rank", "loss")):
            raise ValueError("stored answers to another number of images")
        answers = cls(n)
        answers.predicted, answers.rank, answers.loss = arrays["predicted"], arrays["rank"], arrays["loss"]
        answers.chunks = [(int(row[0]), float(row[1]), float(row[2])) for row in arrays["chunks"]]
        return answers
