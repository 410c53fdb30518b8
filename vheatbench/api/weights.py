"""What tells the weights of live modules apart."""

from __future__ import annotations

import hashlib

import torch
from torch import nn

from vheatbench.subjects.weights import Weights


def weights_of(model: nn.Module) -> tuple[Weights, str]:
    """The weights of a live module as records say them, and the SHA-256 of names, types and values of its state."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    found = digest.hexdigest()
    return Weights(f"live ({found[:12]})", found[:12]), found
