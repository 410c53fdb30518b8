"""Weights from a file for any model, and what records say of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from vheatbench.errors import UserError
from vheatbench.files import reason_of, sha256_of
from vheatbench.subjects.checkpoints import CheckpointError, load_checkpoint


@dataclass(frozen=True)
class Weights:
    """What a model's weights are."""

    words: str
    """``random, seed 0``, or the file's name and the first 12 digits of its SHA-256."""
    short: str
    """``random`` or those 12 digits: what tells cases apart."""


RANDOM = Weights("random, seed 0", "random")


def identify(path: Path) -> Weights:
    """The file's name and hash, without loading it. Raises UserError where it cannot be read."""
    try:
        short = sha256_of(path)[:12]
    except OSError as error:
        raise UserError(f"--weights {path}: cannot be read ({reason_of(error)})") from None
    return Weights(f"{path.name} ({short})", short)


def load_weights(model: nn.Module, path: Path, trust_pickle: bool = False) -> list[str]:
    """Load a checkpoint into a model; what there is to say about it beyond its name, one line each.

    See :func:`vheatbench.subjects.checkpoints.load_checkpoint`.

    Raises:
        UserError: not a checkpoint, of another model, or a pickle that a safe load refuses.
    """
    try:
        loaded = load_checkpoint(model, path, trust_pickle=trust_pickle)
    except CheckpointError as error:
        raise UserError(f"--weights {str(error).replace('pass trust_pickle=True', 'add --trust-pickle')}") from None
    return [f"frequency embeddings resized: {how}" for how in dict.fromkeys(loaded.resized.values())]
