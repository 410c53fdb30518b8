"""Weights for any model from a file, with the set of them chosen by name, and errors in the words of the commands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from vheatbench.errors import UserError
from vheatbench.files import sha256_of
from vheatbench.pictures.weights import _check, _converted
from vheatbench.subjects.checkpoints import CheckpointError, WeightSet, _pick, _read, load_checkpoint
from vheatbench.subjects.heat_operator import FrequencyResize
from vheatbench.subjects.vheat import VHeat


class HeadError(UserError):
    """The weights are of a model with another number of classes."""

    def __init__(self, text: str, classes: int) -> None:
        super().__init__(text)
        self.classes = classes
        """Of the file's head."""


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
    """Load a checkpoint strictly: every parameter must be in the file, and nothing else.

    vHeat takes official or own names; other models the names that they or timm's hook for their pretrained files
    know, which also resizes position embeddings.

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
    with said_as_option():
        if isinstance(model, VHeat):
            loaded = load_checkpoint(model, path, weights=use, freq_resize=rule, trust_pickle=trust_pickle)
            return Loaded(path.name, loaded.sha256, loaded.weights, loaded.resized)
        key, state = _pick(_read(path, trust_pickle), use, path)
        state = {name.removeprefix("module.").removeprefix("_orig_mod."): value for name, value in state.items()}
        state = _converted(model, state, path)
        _check_head(model, state, path)
        _check(model, state, path)
        model.load_state_dict(state)
        return Loaded(path.name, sha256_of(path), key, {})


@contextmanager
def said_as_option() -> Iterator[None]:
    """Let errors of checkpoints name the options of the command line that help. Raises UserError for them."""
    try:
        yield
    except CheckpointError as error:
        text = str(error).replace("pass trust_pickle=True", "add --trust-pickle")
        size = re.search(r"head\.fc\.\w+ is \((\d+),", text)
        if size:
            text = text.replace("build the model with the file's num_classes", f"give --num-classes {size[1]}")
        head = re.search(r"give --num-classes (\d+)", text)
        raise (HeadError(text, int(head[1])) if head else UserError(text)) from None


def _check_head(model: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Another number of classes is what a fine-tuned model differs in: say so before anything else."""
    name = (getattr(model, "pretrained_cfg", None) or {}).get("classifier")
    own = model.state_dict()
    for one in name if isinstance(name, (tuple, list)) else [name]:
        theirs, ours = state.get(f"{one}.weight"), own.get(f"{one}.weight")
        if theirs is not None and ours is not None and theirs.shape[0] != ours.shape[0]:
            raise CheckpointError(
                f"{path}: its head has {theirs.shape[0]} classes, the model's {ours.shape[0]}: "
                f"give --num-classes {theirs.shape[0]}"
            )
