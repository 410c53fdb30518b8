"""Weights of trained detectors and segmenters: safetensors that say what model they belong to."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vheatbench.errors import UserError
from vheatbench.files import check_regular, sha256_of
from vheatbench.run.checkpointing import MOST_BYTES, write_weights
from vheatbench.subjects.weights import check_finite
from vheatbench.text import one_line, some

KEY = "vheatbench"
"""Of the file's metadata: what the model is, as JSON."""


@dataclass(frozen=True)
class TrainedFile:
    """Weights and what they belong to."""

    path: Path
    sha256: str
    about: dict[str, Any]
    """``task``, ``backbone``, ``classes``, ``schedule`` and what else the model was built with."""
    state: dict[str, Tensor]

    def load_into(self, model: nn.Module) -> None:
        """Raises UserError where the weights are not those of the model."""
        own = model.state_dict()
        wrong = [key for key in own if key not in self.state or own[key].shape != self.state[key].shape]
        wrong += [key for key in self.state if key not in own]
        if wrong:
            raise UserError(
                f"{self.path}: not the weights of this version's {self.about.get('task')} ({some(wrong, 1)} missing, "
                "unknown or of another size): train it again"
            )
        model.load_state_dict(self.state)


def write_trained(path: Path, model: nn.Module, about: dict[str, Any]) -> None:
    """Write a trained model's weights. Raises StoreError."""
    write_weights(path, model.state_dict(), {KEY: json.dumps(about, sort_keys=True)})


def _parsed(text: str) -> dict[str, Any]:
    """What a file says of its model; other files have other words under the same key."""
    try:
        about = json.loads(text)
    except ValueError:
        return {}
    return about if isinstance(about, dict) else {}


def read_trained(path: Path, task: str) -> TrainedFile:
    """Read what :func:`write_trained` wrote.

    Raises:
        UserError: no such file, not the weights of such a task, or weights that are not finite.
    """
    from safetensors import SafetensorError, safe_open

    try:
        check_regular(path, MOST_BYTES)
        with safe_open(path, framework="pt") as file:
            about = _parsed((file.metadata() or {}).get(KEY, "{}"))
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (it is no mapping)
        digest = sha256_of(path)
    except (OSError, SafetensorError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as safetensors ({one_line(str(error))})") from None
    if about.get("task") != task:
        command = "detect" if task == "maskrcnn" else "segment"
        raise UserError(f"{path}: not weights that `vheatbench {command} train` wrote")
    check_finite(state, path)
    return TrainedFile(path, digest, about, state)
