"""Weights from files, for any model: official vHeat checkpoints, what training scripts wrap, safetensors.

All commands load weights here, so that one that takes a file is not followed by one that refuses it.
"""

from __future__ import annotations

import pickle
import re
import sys
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from vheatbench.errors import UserError
from vheatbench.files import GIB, check_regular, reason_of, sha256_of
from vheatbench.subjects.heat_operator import FrequencyResize, resize_frequencies
from vheatbench.text import first_line_of, some

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

WRAPPERS = frozenset(("module", "_orig_mod", "model", "backbone", "encoder", "net", "network", "student", "teacher"))
"""What training scripts put before every name by wrapping the model: in a module of their own, DistributedDataParallel
(``module``), torch.compile (``_orig_mod``)."""

_INSIDE = re.compile(r"(?:(?<=\.)|^)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""What torch's own wrappers add at any depth of a name."""

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


class HeadError(CheckpointError):
    """The weights are of this model with another number of classes."""

    def __init__(self, text: str, classes: int) -> None:
        super().__init__(text)
        self.classes = classes
        """Of the file's head."""


@dataclass(frozen=True)
class Weights:
    """What a model's weights are, as records say it."""

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
        raise UserError(f"{path}: cannot be read ({reason_of(error)})") from None
    return Weights(f"{path.name} ({short})", short)


@dataclass(frozen=True)
class LoadedCheckpoint:
    """What :func:`load_checkpoint` did, for records and for people."""

    file: str
    """Its name, without the folder."""
    sha256: str
    weights: str
    """Which set of the file was used: ``model``, ``model_ema`` or ``state_dict`` for a file that is one."""
    resized: dict[str, str]
    """Frequency embeddings that were resized: name to ``56x56 -> 128x128 (bicubic)``."""

    def __str__(self) -> str:
        return f"{self.file} ({self.sha256[:12]}), set {self.weights!r}"

    @property
    def warnings(self) -> list[str]:
        """What a reader of results should know of these weights."""
        resized = ", ".join(dict.fromkeys(self.resized.values()))
        return [f"frequency embeddings resized: {resized}"] if resized else []


def load_weights(
    model: nn.Module,
    path: Path,
    use: WeightSet = "model",
    rule: FrequencyResize | None = None,
    trust_pickle: bool = False,
) -> LoadedCheckpoint:
    """:func:`load_checkpoint` for commands: its errors name their options instead of its arguments."""
    try:
        return load_checkpoint(model, path, weights=use, freq_resize=rule, trust_pickle=trust_pickle)
    except HeadError as error:
        option = f"give --num-classes {error.classes}"
        text = str(error).replace(f"build the model with num_classes={error.classes}", option)
        raise HeadError(text, error.classes) from None
    except CheckpointError as error:
        raise CheckpointError(str(error).replace("pass trust_pickle=True", "add --trust-pickle")) from None


def load_checkpoint(
    model: nn.Module,
    path: str | Path,
    *,
    weights: WeightSet = "model",
    freq_resize: FrequencyResize | None = None,
    trust_pickle: bool = False,
) -> LoadedCheckpoint:
    """Load weights into a model, strictly: every parameter must be in the file, and nothing else.

    vHeat takes the official checkpoints (``{"model": ..., "model_ema": ...}`` with the official key names),
    plain state dicts with official or this package's names, and safetensors. Other models take the names that
    they or timm's hook for their pretrained files know, which also resizes position embeddings. Prefixes that
    wrappers put before the names (:data:`WRAPPERS`) are taken off, in whatever order they stand.

    Args:
        model: in its training form; deploy it afterwards.
        path: the file.
        weights: which set to take where the file holds both. The official evaluation command reads
            ``model`` although training also keeps ``model_ema``.
        freq_resize: how a vHeat's frequency embeddings are made to fit a model of another ``img_size``; default
            the model's own rule.
        trust_pickle: also run the code that a pickle may contain. The official files need it because
            they carry their yacs configuration object. Only for files whose origin you trust.

    Returns:
        What was loaded, to be printed or kept in a record.

    Raises:
        CheckpointError: not a file, not a checkpoint, wrong sizes, missing or unknown keys, values that are not
            finite. The model is then as it was.
        HeadError: of this model with another number of classes.
    """
    from vheatbench.subjects.vheat import VHeat

    path = Path(path)
    if getattr(model, "deployed_for", None) is not None:
        raise CheckpointError(f"{path}: the model is deployed: load the weights first, then deploy()")
    name, found = _pick(_read(path, trust_pickle), weights, path)
    own = model.state_dict()
    resized = {}
    if isinstance(model, VHeat):
        how: FrequencyResize = freq_resize or model.freq_resize
        converted = unwrapped(found, own, convert_official)
        state = fit_frequencies(converted, model, how)
        resized = {
            key: f"{old.shape[0]}x{old.shape[1]} -> {state[key].shape[0]}x{state[key].shape[1]} ({how})"
            for key, old in converted.items()
            if state[key].shape != old.shape
        }
    else:
        state = unwrapped(found, own, lambda state: _by_own_hook(model, state, path))
    _check(state, model, path, found)
    model.load_state_dict(state)
    return LoadedCheckpoint(path.name, sha256_of(path), name, resized)


def unwrapped(
    state: dict[str, Any], own: Collection[str], convert: Callable[[dict[str, Any]], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """The state dict converted, without the prefixes whose removal makes most of its names the model's.

    Names that fit as they are stay, so a model with a ``backbone`` of its own keeps it.

    Args:
        state: names as in the file.
        own: the model's names.
        convert: from a file's names, unwrapped, to the model's. May raise CheckpointError where they make no sense.

    Raises:
        CheckpointError: ``convert`` raises it whatever is taken off.
    """
    best: dict[str, Tensor] | None = None
    found = -1
    problem: CheckpointError | None = None
    for renamed in _unwrappings(state):
        try:
            converted = convert(renamed)
        except CheckpointError as error:
            problem = problem or error
            continue
        fitting = sum(key in converted for key in own)
        if fitting > found:
            best, found = converted, fitting
        if fitting == len(own) == len(converted):
            break
    if best is None:
        assert problem is not None
        raise problem
    return best


def _unwrappings(state: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The state dict as it is, then with one more level of wrappers taken off every name that has so many."""
    yield dict(state)
    paths = [_INSIDE.sub("", key).split(".") for key in state]
    while True:
        names = [".".join(path) for path in paths]
        if len(set(names)) < len(names):
            return  # two models in one file: none of them is the one that is meant
        if names != list(state):
            yield dict(zip(names, state.values(), strict=True))
        # a word that all names begin with wraps them, whatever it is
        shared = len({path[0] for path in paths}) == 1
        shorter = [path[1:] if path[1:] and (shared or path[0] in WRAPPERS) else path for path in paths]
        if shorter == paths:
            return
        paths = shorter


def convert_official(state: dict[str, Any]) -> dict[str, Tensor]:
    """State dict with official or own names to own names; 1x1 convolutions become linear layers."""
    converted = {}
    for key, value in state.items():
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


def _by_own_hook(model: nn.Module, state: dict[str, Any], path: Path) -> dict[str, Tensor]:
    """The state dict as timm's own hook for this model's pretrained files converts and resizes it."""
    convert = getattr(sys.modules.get(type(model).__module__), "checkpoint_filter_fn", None)
    if convert is None:
        return state
    try:
        return dict(convert(state, model))
    except Exception as error:  # made for this model's files; whatever it meets in another's
        reason = f"{type(error).__name__}: {first_line_of(error)}"
        raise CheckpointError(f"{path}: not weights of this model ({reason})") from None


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


def _check(state: dict[str, Tensor], model: nn.Module, path: Path, found: Collection[str]) -> None:
    """Raises CheckpointError unless ``state`` is the model's. ``found``: the names as they stand in the file."""
    own = model.state_dict()
    missing = [key for key in own if key not in state]
    unknown = [key for key in state if key not in own]
    if len(missing) == len(own):
        raise CheckpointError(
            f"{path}: not weights of this model: of {len(own)} names, such as {some(list(own))}, none is in the file, "
            f"which has {some(list(found))}"
        )
    if missing:
        text = f"{path}: not weights of this model: {len(missing)} of {len(own)} keys are missing: {some(missing)}"
        raise CheckpointError(f"{text}; the file has {some(unknown)} instead" if unknown else text)
    if unknown:
        raise CheckpointError(f"{path}: {len(unknown)} keys that this model does not have: {some(unknown)}")
    wrong = [key for key in own if state[key].shape != own[key].shape]
    if wrong and all(key.rpartition(".")[0] in _heads(model) and state[key].ndim for key in wrong):
        theirs, ours = state[wrong[0]].shape[0], own[wrong[0]].shape[0]
        text = f"{path}: its head has {theirs} classes, the model's {ours}: build the model with num_classes={theirs}"
        raise HeadError(text, theirs)
    if wrong:
        sizes = [
            f"{key} is {tuple(state[key].shape)} in the file, {tuple(own[key].shape)} in the model" for key in wrong
        ]
        raise CheckpointError(f"{path}: wrong size: {some(sizes)}")
    check_finite(state, path)


def _heads(model: nn.Module) -> tuple[str, ...]:
    """Names of the layers that give the logits, as far as the model names them."""
    names = (getattr(model, "pretrained_cfg", None) or {}).get("classifier") or "head.fc"
    return tuple(names) if isinstance(names, (tuple, list)) else (names,)


def all_finite(model: nn.Module) -> bool:
    """Whether no parameter of a model that is trained has a value that is not finite."""
    return bool(nn.utils.get_total_norm([one.detach() for one in model.parameters()]).isfinite())


def check_finite(state: dict[str, Tensor], path: Path) -> None:
    """Raises CheckpointError where a value is not finite: a training that diverged."""
    broken = [key for key, value in state.items() if value.is_floating_point() and not bool(value.isfinite().all())]
    if broken:
        raise CheckpointError(f"{path}: the weights are not finite, the training diverged: {some(broken)}")
