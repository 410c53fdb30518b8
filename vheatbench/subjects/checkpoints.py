"""Weights from files: the official vHeat checkpoints, plain state dicts, safetensors."""

from __future__ import annotations

import pickle
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from vheatbench.errors import UserError
from vheatbench.files import GIB, check_regular, reason_of, sha256_of
from vheatbench.subjects.heat_operator import FrequencyResize, resize_frequencies

if TYPE_CHECKING:
    from vheatbench.subjects.vheat import VHeat

MOST_BYTES = 64 * GIB
"""Of a checkpoint."""

WeightSet = Literal["model", "model_ema"]
SETS: dict[WeightSet, tuple[str, ...]] = {
    "model": ("model", "state_dict", "module"),
    "model_ema": ("model_ema", "state_dict_ema"),
}
"""Keys under which the official code, timm and others keep the two sets, in order of preference."""

_OFFICIAL_NAMES = (
    (r"^patch_embed\.(conv[12])\.", r"stem.\1.conv."),
    (r"^patch_embed\.norm([12])\.1\.", r"stem.conv\1.norm."),
    (r"^freq_embed\.(\d+)$", r"stages.\1.freq_embed"),
    (r"^layers\.(\d+)\.(\d+)\.gamma([12])$", r"stages.\1.blocks.\2.ls\3.gamma"),
    (r"^layers\.(\d+)\.(\d+)\.(norm[12]|op|mlp)\.", r"stages.\1.blocks.\2.\3."),
    (r"^classifier\.0\.", "norm."),
    (r"^classifier\.3\.", "head.fc."),
)


class CheckpointError(UserError, ValueError):
    """The file does not hold weights for this model; the message is one line."""


@dataclass(frozen=True)
class LoadedCheckpoint:
    """What :func:`load_checkpoint` did, for records and for people."""

    path: str
    sha256: str
    weights: str
    """Which set of the file was used: ``model``, ``model_ema`` or ``state_dict``."""
    resized: dict[str, str]
    """Frequency embeddings that were resized: name to ``56x56 -> 128x128 (bicubic)``."""

    def __str__(self) -> str:
        resized = f", {len(self.resized)} frequency embeddings resized" if self.resized else ""
        return f"{Path(self.path).name}: weights '{self.weights}' loaded{resized} (sha256 {self.sha256[:12]})"


def load_checkpoint(
    model: VHeat,
    path: str | Path,
    *,
    weights: WeightSet = "model",
    freq_resize: FrequencyResize | None = None,
    trust_pickle: bool = False,
) -> LoadedCheckpoint:
    """Load weights into a vHeat model, strictly: every parameter must be in the file.

    Takes the official checkpoints (``{"model": ..., "model_ema": ...}`` with the official key names),
    plain state dicts with official or this package's names, and safetensors.

    Args:
        model: a vHeat model in its training form; deploy it afterwards.
        path: the file.
        weights: which set to take where the file holds both. The official evaluation command reads
            ``model`` although training also keeps ``model_ema``.
        freq_resize: how frequency embeddings are made to fit a model of another ``img_size``; default
            the model's own rule.
        trust_pickle: also run the code that a pickle may contain. The official files need it because
            they carry their yacs configuration object. Only for files whose origin you trust.

    Returns:
        What was loaded, to be printed or kept in a record.

    Raises:
        CheckpointError: not a file, not a checkpoint, wrong sizes, missing or unknown keys.
    """
    path = Path(path)
    if getattr(model, "deployed_for", None) is not None:
        raise CheckpointError(f"{path}: the model is deployed: load the weights first, then deploy()")
    content = _read(path, trust_pickle)
    name, state = _pick(content, weights, path)
    state = convert_official(state)
    how: FrequencyResize = freq_resize or model.freq_resize
    before = {key: value.shape for key, value in state.items() if key.endswith("freq_embed")}
    state = fit_frequencies(state, model, how)
    resized = {
        key: f"{shape[0]}x{shape[1]} -> {state[key].shape[0]}x{state[key].shape[1]} ({how})"
        for key, shape in before.items()
        if state[key].shape != shape
    }
    _check(state, model, path)
    model.load_state_dict(state)
    return LoadedCheckpoint(str(path), sha256_of(path), name, resized)


def convert_official(state: dict[str, Any]) -> dict[str, Tensor]:
    """State dict with official or own names to own names; 1x1 convolutions become linear layers."""
    for wrapper in ("model", "state_dict"):
        if isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    converted = {}
    for key, value in state.items():
        key = re.sub(r"^(module|_orig_mod)\.", "", key)
        # the official stage keeps the downsampling to the next stage as its last entry
        downsample = re.match(r"^layers\.(\d+)\.\d+\.([01])\.(weight|bias)$", key)
        if downsample:
            part = "conv" if downsample[2] == "0" else "norm"
            key = f"stages.{int(downsample[1]) + 1}.downsample.{part}.{downsample[3]}"
        else:
            for pattern, replacement in _OFFICIAL_NAMES:
                key = re.sub(pattern, replacement, key)
        if ".mlp." in key and value.ndim == 4:
            value = value.flatten(1)
        converted[key] = value
    return converted


def fit_frequencies(state: dict[str, Tensor], model: VHeat, how: FrequencyResize) -> dict[str, Tensor]:
    """The same state dict with frequency embeddings resized to the model's grids."""
    own = model.state_dict()
    fitted = dict(state)
    for key, value in state.items():
        if key.endswith("freq_embed") and key in own and value.ndim == 3:
            height, width, channels = own[key].shape
            if value.shape[2] == channels:
                fitted[key] = resize_frequencies(value, (height, width), how)
    return fitted


def _read(path: Path, trust_pickle: bool) -> dict[str, Any]:
    try:
        check_regular(path, MOST_BYTES)
    except OSError as error:
        raise CheckpointError(f"{path}: {'no such file' if not path.exists() else reason_of(error)}") from None
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=not trust_pickle)
    except Exception as error:  # torch, pickle, zipfile and safetensors each raise their own
        text = str(error)
        unsafe = re.search(r"GLOBAL ([\w.]+)", text)
        if isinstance(error, pickle.UnpicklingError) and unsafe:
            raise CheckpointError(
                f"{path}: a safe load refuses the pickled {unsafe[1]} object in it (the official vHeat files "
                "carry their yacs configuration): if you trust its origin, pass trust_pickle=True"
            ) from None
        why = "neither safetensors nor what torch.save wrote, or cut off"
        if isinstance(error, ModuleNotFoundError):
            why = f"it needs the Python module {error.name!r}"
        raise CheckpointError(f"{path}: not a readable checkpoint ({type(error).__name__}: {why})") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, not a state dict")
    return content


def _pick(content: dict[str, Any], weights: WeightSet, path: Path) -> tuple[str, dict[str, Tensor]]:
    """The key of the set in the file, ``state_dict`` for a file that is one, and its tensors."""
    if weights not in SETS:
        raise CheckpointError(f"weights is 'model' or 'model_ema', not {weights!r}")
    known = [key for keys in SETS.values() for key in keys if isinstance(content.get(key), dict)]
    key = next((key for key in SETS[weights] if key in known), None)
    if key is None and (known or weights == "model_ema"):
        raise CheckpointError(f"{path}: holds {' and '.join(known) or 'one plain state dict'}, no {weights!r}")
    state = content if key is None else content[key]
    state = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    if not state:
        raise CheckpointError(f"{path}: holds no tensors")
    return key or "state_dict", state


def _check(state: dict[str, Tensor], model: VHeat, path: Path) -> None:
    own = model.state_dict()
    wrong = [
        f"{key} is {tuple(state[key].shape)} in the file, {tuple(own[key].shape)} in the model"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    missing = [key for key in own if key not in state]
    unknown = [key for key in state if key not in own]
    if wrong:
        hint = " (build the model with the file's num_classes)" if all("head.fc" in w for w in wrong) else ""
        raise CheckpointError(f"{path}: wrong size: {_some(wrong)}{hint}")
    if missing:
        raise CheckpointError(f"{path}: {len(missing)} of {len(own)} keys are missing: {_some(missing)}")
    if unknown:
        raise CheckpointError(f"{path}: {len(unknown)} keys that this model does not have: {_some(unknown)}")
    check_finite(state, path)


def check_finite(state: dict[str, Tensor], path: Path) -> None:
    """Raises CheckpointError where a value is not finite: a training that diverged."""
    broken = [key for key, value in state.items() if value.is_floating_point() and not bool(value.isfinite().all())]
    if broken:
        raise CheckpointError(f"{path}: the weights are not finite, the training diverged: {_some(broken)}")


def _some(items: list[str], most: int = 3) -> str:
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more
