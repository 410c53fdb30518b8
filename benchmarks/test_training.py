"""A training step against the official formulation on a CPU: time as ratios, and what is saved for backward.

python -m pytest benchmarks/test_training.py --benchmark-json=training.json

``BENCH_DTYPE=float32`` leaves out bfloat16.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from benchmarks.interleaved import run_interleaved
from benchmarks.models import LOW, bfloat16_autocast, pair


@pytest.mark.parametrize(
    ("name", "size", "batch"),
    [("vheat_tiny", 224, 8), ("vheat_tiny", 384, 2), ("vheat_small", 224, 4), ("vheat_base", 224, 4)],
)
def test_forward_and_backward(name, size, batch, benchmark, report):
    """float32 and bfloat16 autocast, no drop path, so that both do the same work."""
    ours, official = pair(name, size, drop_path_rate=0.0)
    images = torch.randn(batch, 3, size, size)
    peers, saved = {}, {}
    for autocast in (False, True) if LOW else (False,):
        for label, model in (("ours", ours), ("official", official)):
            key = f"{label} autocast" if autocast else label
            peers[key] = step(model.train(), images, autocast)
            saved[key] = saved_bytes(model, images, autocast)
    rounds = benchmark.pedantic(run_interleaved, args=(peers,), kwargs={"least": 4}, rounds=1)
    report(
        {
            "model": name, "size": size, "batch": batch,
            "float32": rounds.ratio("ours", "official"),
            **({"autocast": rounds.ratio("ours autocast", "official autocast")} if LOW else {}),
            "saved_bytes": saved,
        }
    )  # fmt: skip
    assert saved["ours"] < 0.55 * saved["official"]


def step(model: nn.Module, images: Tensor, autocast: bool):
    """Forward, mean square and backward; the gradients are dropped."""

    def run() -> None:
        with bfloat16_autocast(autocast):
            loss = model(images).float().square().mean()
        loss.backward()
        model.zero_grad(set_to_none=True)

    return run


def saved_bytes(model: nn.Module, images: Tensor, autocast: bool) -> int:
    """Bytes of distinct storages that the forward pass keeps for backward, weights and buffers apart."""
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t), bfloat16_autocast(autocast):
        output = model(images)  # noqa: F841  (alive until the count is taken: its graph holds the storages)
        return sum(kept.values())
