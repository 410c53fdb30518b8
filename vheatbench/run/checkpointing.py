"""Checkpoints: written whole or not at all, read without running code that they may contain."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import torch
from safetensors.torch import save as safetensors_bytes
from torch import Tensor

from vheatbench.errors import StoreError, UserError
from vheatbench.files import GIB, check_regular, whole_file
from vheatbench.text import one_line

CHECKPOINT_VERSION = 1
CHECKPOINT = "checkpoint.pt"
MOST_BYTES = 64 * GIB
"""Of a checkpoint, with the optimizer's state in it."""


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint in place of the one before, which stays until the new one is whole and on disk.

    Args:
        path: the file.
        state: tensors, numbers, words, lists and mappings.

    Raises:
        StoreError: it cannot be written; the checkpoint before is untouched.
    """
    kept = "the checkpoint before is kept" if path.exists() else "there is no checkpoint yet"
    write_whole(path, lambda file: torch.save({"version": CHECKPOINT_VERSION, **state}, file), kept)


def read_checkpoint(path: Path) -> dict[str, Any] | None:
    """What :func:`write_checkpoint` wrote; None if there is no such file. Tensors are on the CPU.

    Raises:
        UserError: not a checkpoint, damaged, or of a newer version.
    """
    try:
        check_regular(path, MOST_BYTES)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        return None
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: not a checkpoint that can be read ({one_line(str(error))})") from None
    version = state.get("version") if isinstance(state, dict) else None
    if version != CHECKPOINT_VERSION:
        raise UserError(f"{path}: a checkpoint of version {version}, this vheatbench reads {CHECKPOINT_VERSION}")
    return state


def write_weights(path: Path, weights: dict[str, Tensor], about: dict[str, str]) -> None:
    """Write a state dict as safetensors, which ``vheatbench eval --weights`` reads. Raises StoreError."""
    # own storage for each: safetensors refuses tensors that share one
    content = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()}
    data = safetensors_bytes(content, about)
    write_whole(path, lambda file: file.write(data), "the checkpoint has them too")


def write_whole(path: Path, write: Callable[[IO[bytes]], object], kept: str) -> None:
    """Write a file of a training, whole or not at all.

    Raises:
        StoreError: it cannot be written; ``kept`` says what is safe.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as file:
            write(file)
    except (OSError, RuntimeError) as error:  # torch's writer reports a full disk as a RuntimeError
        cause = error if isinstance(error, OSError) else error.__context__
        reason = getattr(cause, "strerror", None) or one_line(str(error))
        raise StoreError(f"cannot write {path}: {reason}; {kept}: free space and continue with --resume") from error
