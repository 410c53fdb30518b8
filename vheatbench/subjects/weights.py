"""Weights for any model from a file, with the set of them chosen by name, and errors in the words of the commands."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from vheatbench.errors import UserError
from vheatbench.subjects.checkpoints import CheckpointError, HeadError, WeightSet, load_checkpoint
from vheatbench.subjects.heat_operator import FrequencyResize


@dataclass(frozen=True)
class Loaded:
    """What was loaded into a model."""

    file: str
    sha256: str
    weights: str
    """Key of the set in the file; ``state_dict`` for a file that is one."""
    resized: dict[str, str]
    """Frequency embeddings that were resized: name to ``56x56 -> 128x128 (bicubic)``."""

    def __str__(self) -> str:
        return f"{self.file} ({self.sha256[:12]}), set {self.weights!r}"


def load_weights(
    model: nn.Module,
    path: Path,
    use: WeightSet = "model",
    rule: FrequencyResize = "bicubic",
    trust_pickle: bool = False,
) -> Loaded:
    """Load a checkpoint strictly, see :func:`vheatbench.subjects.checkpoints.load_checkpoint`.

    Args:
        model: in its training form.
        path: the file.
        use: which set of weights, where the file has both.
        rule: how vHeat's frequency embeddings are resized to the model's size.
        trust_pickle: run the code that the pickle may contain.

    Raises:
        UserError: not a checkpoint, not of this model, no such set, or a pickle that a safe load refuses.
        HeadError: of this model with another number of classes.
    """
    try:
        loaded = load_checkpoint(model, path, weights=use, freq_resize=rule, trust_pickle=trust_pickle)
    except HeadError as error:
        option = f"give --num-classes {error.classes}"
        text = str(error).replace(f"build the model with num_classes={error.classes}", option)
        raise HeadError(text, error.classes) from None
    except CheckpointError as error:
        raise UserError(str(error).replace("pass trust_pickle=True", "add --trust-pickle")) from None
    return Loaded(path.name, loaded.sha256, loaded.weights, loaded.resized)
