"""Deploy form against the official formulation on a CPU: the same weights, interleaved, as ratios.

python -m pytest benchmarks/test_deploy.py --benchmark-json=deploy.json
python benchmarks/table.py deploy.json

``OFFICIAL_VHEAT=.../vHeat.py`` before the first measures the authors' own file beside our transcription of it.
``BENCH_DTYPE=float32`` leaves out bfloat16, which takes most of the time where it is emulated.
"""

from __future__ import annotations

import pytest
import torch

from benchmarks.interleaved import run_interleaved
from benchmarks.models import LOW, difference, inference, original, pair

MODELS = ("vheat_tiny", "vheat_small", "vheat_base")


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("size", [224, 384, 512, 768])
@pytest.mark.parametrize("name", MODELS)
def test_eager(name, size, batch, benchmark, report):
    """float32, and bfloat16 (weights cast) against autocast, the only way the official code runs in it."""
    ours, official = pair(name, size)
    authors = original(ours, name, size)
    ours.deploy()
    official.deploy()
    images = torch.randn(batch, 3, size, size)
    peers = {"ours": inference(ours, images), "official": inference(official, images)}
    if authors is not None:
        peers["original"] = inference(authors, images)
        assert difference(peers["ours"](), peers["original"]()) < 5e-6
    agreement = difference(peers["ours"](), peers["official"]())
    assert agreement < 5e-6
    if LOW:
        low, _ = pair(name, size)
        low.deploy().to(torch.bfloat16)
        peers["ours bfloat16"] = inference(low, images.bfloat16())
        peers["official autocast"] = inference(official, images, autocast=True)
        assert difference(peers["ours bfloat16"](), peers["official"]()) < 2e-2
    rounds = benchmark.pedantic(run_interleaved, args=(peers,), rounds=1)
    ratios = {"float32": rounds.ratio("ours", "official")}
    if authors is not None:
        ratios["float32 / original"] = rounds.ratio("ours", "original")
        ratios["transcription / original"] = rounds.ratio("official", "original")
    if LOW:
        ratios["bfloat16 / autocast"] = rounds.ratio("ours bfloat16", "official autocast")
        ratios["bfloat16 / float32"] = rounds.ratio("ours bfloat16", "official")
    report({"model": name, "size": size, "batch": batch, "agreement": agreement} | ratios)


@pytest.mark.parametrize(
    ("name", "batch", "dtype"),
    [
        ("vheat_tiny", 1, torch.float32),
        ("vheat_tiny", 8, torch.float32),
        ("vheat_small", 1, torch.float32),
        ("vheat_base", 1, torch.float32),
        ("vheat_tiny", 1, torch.bfloat16),
        ("vheat_tiny", 8, torch.bfloat16),
    ],
)
def test_frozen(name, batch, dtype, benchmark, report):
    """Both compiled with inductor's freezing, at 224 px."""
    import torch._inductor.config as inductor

    ours, official = pair(name, 224)
    ours.deploy().to(dtype).requires_grad_(False)
    official.deploy().requires_grad_(False)
    images = torch.randn(batch, 3, 224, 224)
    autocast = dtype != torch.float32
    torch._dynamo.reset()
    peers = {
        "frozen": inference(torch.compile(ours, fullgraph=True), images.to(dtype)),
        "official frozen": inference(torch.compile(official, fullgraph=True), images, autocast),
        "ours": inference(ours, images.to(dtype)),
        "official": inference(official, images, autocast),
    }
    with inductor.patch(freezing=True):
        agreement = difference(peers["frozen"](), peers["official"]())
        peers["official frozen"]()
    assert agreement < (2e-2 if autocast else 5e-6)
    rounds = benchmark.pedantic(run_interleaved, args=(peers,), rounds=1)
    report(
        {
            "model": name, "size": 224, "batch": batch, "dtype": str(dtype), "agreement": agreement,
            "frozen / official": rounds.ratio("frozen", "official"),
            "frozen / official frozen": rounds.ratio("frozen", "official frozen"),
            "official frozen / official": rounds.ratio("official frozen", "official"),
            "eager / official frozen": rounds.ratio("ours", "official frozen"),
        }
    )  # fmt: skip
