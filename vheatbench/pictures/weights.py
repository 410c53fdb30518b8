"""Weights from a file for any model, strictly: every parameter from the file, or one line that says why not."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vheatbench.errors import UserError, one_line
from vheatbench.files import reason_of, sha256_of
from vheatbench.subjects.checkpoints import CheckpointError, _read, check_finite, load_checkpoint
from vheatbench.subjects.vheat import VHeat

SETS = ("model", "state_dict", "module")
"""Keys under which training scripts keep the state dict, in order of preference."""


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

    vHeat's checkpoints with official or own names, timm's, and those of which timm knows how to convert them; at
    another resolution position embeddings and the like are resized by the model's own rule.

    Raises:
        UserError: not a checkpoint, of another model, or a pickle that a safe load refuses.
    """
    try:
        if isinstance(model, VHeat):
            loaded = load_checkpoint(model, path, trust_pickle=trust_pickle)
            return [f"frequency embeddings resized: {how}" for how in dict.fromkeys(loaded.resized.values())]
        state = _converted(model, _state(_read(path, trust_pickle), path), path)
        _check(model, state, path)
        model.load_state_dict(state)
    except CheckpointError as error:
        raise UserError(f"--weights {str(error).replace('pass trust_pickle=True', 'add --trust-pickle')}") from None
    return []


def _state(content: dict[str, Any], path: Path) -> dict[str, Tensor]:
    name = next((key for key in SETS if isinstance(content.get(key), dict)), None)
    found = content if name is None else content[name]
    state = {
        key.removeprefix("module.").removeprefix("_orig_mod."): value
        for key, value in found.items()
        if isinstance(value, Tensor)
    }
    if not state:
        raise CheckpointError(f"{path}: holds no tensors")
    return state


def _converted(model: nn.Module, state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The state dict as timm's own hook for this model's pretrained files converts and resizes it."""
    convert = getattr(sys.modules.get(type(model).__module__), "checkpoint_filter_fn", None)
    if convert is None:
        return state
    try:
        return dict(convert(state, model))
    except Exception as error:  # made for this model's files; whatever it meets in another's
        reason = one_line(str(error)) or type(error).__name__
        raise CheckpointError(f"{path}: not weights of this model ({type(error).__name__}: {reason})") from None


def _check(model: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    own = model.state_dict()
    missing = [key for key in own if key not in state]
    unknown = [key for key in state if key not in own]
    wrong = [key for key in own if key in state and own[key].shape != state[key].shape]
    for keys, what in ((missing, "missing"), (unknown, "unknown"), (wrong, "of another shape")):
        if keys:
            some = ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
            raise CheckpointError(f"{path}: not weights of this model: {len(keys)} keys {what} ({some})")
    check_finite(state, path)
