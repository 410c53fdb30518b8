"""How far a training is, and what is kept of every epoch."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Progress:
    """How far a training is, and the numbers of its epochs."""

    epoch: int = 0
    """Epochs that are finished."""
    update: int = 0
    """Updates of the epoch after them that are done."""
    losses: list[float] = field(default_factory=list)
    """Of these updates, each the mean over its images."""
    seconds: float = 0.0
    """That these updates took."""
    waited: float = 0.0
    """Seconds of them spent waiting for images."""
    peak_bytes: int | None = None
    loss_note: str | None = None
    """What the loss is of, where the model returns more than logits."""
    history: dict[str, list[float]] = field(default_factory=dict)
    """By name (:data:`COLUMNS`), one value per finished epoch."""


COLUMNS = {
    "train_loss": "nats",
    "test_loss": "nats",
    "top1_accuracy": "share",
    "ema_top1_accuracy": "share",
    "epoch_s": "s",
    "waiting_s": "s",
    "test_s": "s",
    "throughput_images_per_s": "images/s",
    "learning_rate": "1",
}
"""What is kept of every epoch, and its unit. ``ema_top1_accuracy`` only with a moving average."""
