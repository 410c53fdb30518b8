"""A vHeat checkpoint of any kind as safetensors: one set of weights, own names, made for one input size."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save

from vheatbench import __version__
from vheatbench.case import Case
from vheatbench.errors import UserError
from vheatbench.files import sha256_of, whole_file, write_error
from vheatbench.subjects.catalog import build, find_subject
from vheatbench.subjects.heat_operator import FrequencyResize
from vheatbench.subjects.vheat import VHeat
from vheatbench.subjects.weights import LoadedCheckpoint, WeightSet, load_weights


@dataclass(frozen=True)
class Converted:
    """What was written."""

    path: Path
    sha256: str
    metadata: dict[str, str]
    """As it stands in the file."""
    loaded: LoadedCheckpoint
    parameters: int


def convert(
    checkpoint: Path,
    target: Path | None = None,
    *,
    model: str = "vheat-t",
    resolution: tuple[int, int] | None = None,
    rule: FrequencyResize = "bicubic",
    use: WeightSet = "model",
    num_classes: int | None = None,
    trust_pickle: bool = False,
    force: bool = False,
) -> Converted:
    """Write the weights of a checkpoint for one input size.

    Args:
        checkpoint: an official file, a plain state dict or safetensors.
        target: file to write; default beside the checkpoint, ``NAME-512-zeropad.safetensors``.
        model: catalog name of the vHeat that the weights are of.
        resolution: height and width that the frequency embeddings are made for; default the model's own.
        rule: how they are resized where they must be.
        use: which set of weights, where the file has both.
        num_classes: width of the head, where it is not the model's own.
        trust_pickle: run the code that the checkpoint's pickle may contain.
        force: replace an existing file.

    Raises:
        UserError: not a checkpoint of this model, not a vHeat, a size that it cannot take, or a target that exists
            or cannot be written. The target then is as it was before.
        StoreError: the disk is full; as before.
    """
    subject = find_subject(model)
    options = {} if num_classes is None else {"num_classes": num_classes}
    size = resolution or subject.own_size(options)
    path = target or _beside(checkpoint, size if resolution else None, rule)
    _check_target(path, checkpoint, force)
    built = build(Case(subject=model, resolution=size, mode="forward", options=options)).model
    if not isinstance(built, VHeat):
        raise UserError(f"--model {model}: not a vHeat; other models' files need no conversion")
    loaded = load_weights(built, checkpoint, use, rule, trust_pickle)
    metadata = {
        "format": "pt",
        "model": subject.full_name,
        "resolution": f"{size[0]}x{size[1]}",
        "num_classes": str(built.num_classes),
        "source": loaded.file,
        "source_sha256": loaded.sha256,
        "weights": loaded.weights,
        "rule": rule if loaded.resized else "none: embeddings as in the source",
        "vheatbench": __version__,
    }
    state = {name: value.detach().contiguous() for name, value in built.state_dict().items()}
    _write(path, save(state, metadata), force)
    return Converted(path, sha256_of(path), metadata, loaded, sum(value.numel() for value in state.values()))


def _beside(checkpoint: Path, size: tuple[int, int] | None, rule: str) -> Path:
    if size is None:
        return checkpoint.with_suffix(".safetensors")
    side = str(size[0]) if size[0] == size[1] else f"{size[0]}x{size[1]}"
    return checkpoint.with_name(f"{checkpoint.stem}-{side}-{rule}.safetensors")


def _check_target(path: Path, checkpoint: Path, force: bool) -> None:
    if path.suffix != ".safetensors":
        raise UserError(f"-o {path}: the file's name must end in .safetensors, by which it is known when it is read")
    if path.exists() and checkpoint.exists() and path.samefile(checkpoint):
        raise UserError(f"-o {path}: that is the checkpoint itself: give another name")
    if path.is_dir() or (path.exists() and not force):
        raise UserError(f"{path}: exists already: add --force to replace it, or give another name with -o")


def _write(path: Path, data: bytes, force: bool) -> None:
    """All of it under the final name, or nothing."""
    try:
        with whole_file(path, replace=force) as file:
            file.write(data)
    except OSError as error:
        raise write_error(path, error) from error
