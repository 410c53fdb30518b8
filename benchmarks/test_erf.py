"""Receptive fields: stopping by itself against the usual 50 images one at a time, interleaved, as ratios.

python -m pytest benchmarks/test_erf.py --benchmark-json=erf.json && python benchmarks/test_erf.py erf.json

Smaller or larger by environment: ERF_MODELS=vheat-t ERF_SIZES=224,512 ERF_DTYPES=float32 ERF_IMAGES=50 ERF_ROUNDS=3
ERF_SOURCE=photographs (or noise:1/f, a folder). Models are built and images opened outside of what is timed.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.interleaved import run_interleaved
from vheatbench.studies.erf.centre import central_cells
from vheatbench.studies.erf.estimates import GroupedMean, metrics_of, numbers_of
from vheatbench.studies.erf.gradient import GradientBatches, centre_of
from vheatbench.studies.erf.plan import ErfSettings, Job, make_plan
from vheatbench.studies.erf.run import measure_fields
from vheatbench.studies.images.photographs import ImageSet, open_images
from vheatbench.subjects.catalog import build

COMPARED = ("erf_a50", "erf_a99", "erf_entropy_area", "erf_radius_px")


def chosen(name: str, default: str) -> list[str]:
    """A comma list from the environment."""
    return os.environ.get(name, default).split(",")


IMAGES = int(chosen("ERF_IMAGES", "50")[0])
ROUNDS = int(chosen("ERF_ROUNDS", "3")[0])
SOURCE = chosen("ERF_SOURCE", "photographs")[0]


def one_at_a_time(model: torch.nn.Module, job: Job, images: ImageSet) -> np.ndarray:
    """The protocol of RepLKNet's and VMamba's scripts, with our centre so that the numbers compare: (H, W).

    One image at a time, float32, gradients possible for every parameter, the mean over all images.
    """
    (layer,) = job.layers
    rows, columns = (central_cells(n) for n in layer.grid)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (job.preprocessing.mean, job.preprocessing.std))
    total = np.zeros(job.base.resolution)
    for i in range(images.count):
        pixels = torch.from_numpy(images.image(i, job.cut)).permute(2, 0, 1).float() / 255
        image = ((pixels - mean) / std)[None].requires_grad_()
        (features,) = model.forward_intermediates(image, indices=[layer.index], intermediates_only=True)
        cells = features[:, :, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        score = torch.relu(cells).sum() / (len(rows) * len(columns))
        (gradient,) = torch.autograd.grad(score, image)
        total += torch.relu(gradient).sum((0, 1)).numpy()
    return total / images.count


def by_itself(
    model: torch.nn.Module, job: Job, images: ImageSet, settings: ErfSettings
) -> tuple[dict[str, float], int]:
    """What ``vheatbench erf`` does after building the model: the numbers, and the images it took."""
    ours = job.preprocessing
    gradients = GradientBatches(model, job.layers, torch.device("cpu"), ours.mean, ours.std, dtype=settings.dtype)
    fields = measure_fields(gradients, job, settings, images, lambda words, share: None)
    metrics = metrics_of(fields.estimates[0], job.base.resolution, fields.means[0].n, replknet=False)
    values = {name: metric.value for name, metric in metrics.items() if metric.value is not None}
    return values, fields.means[0].n


@pytest.mark.parametrize("dtype", chosen("ERF_DTYPES", "float32,bfloat16"))
@pytest.mark.parametrize("size", [int(size) for size in chosen("ERF_SIZES", "224,512")])
@pytest.mark.parametrize("name", chosen("ERF_MODELS", "vheat-t,swin-t,deit-s"))
def test_stopping_by_itself(name, size, dtype, benchmark, report):
    """Seconds of both protocols, and how far the numbers are from those of all images in float32."""
    images = open_images(None if SOURCE == "photographs" else SOURCE, IMAGES)
    settings = ErfSettings((name,), ((size, size),), dtype=dtype, max_images=IMAGES)
    (job,) = make_plan(settings, images).jobs
    usual, frozen = build(job.base).model.eval(), build(job.base).model.eval().requires_grad_(False)
    found: dict[str, Any] = {}
    peers = {
        "usual": lambda: found.update(usual=one_at_a_time(usual, job, images)),
        "ours": lambda: found.update(ours=by_itself(frozen, job, images, settings)),
    }
    rounds = benchmark.pedantic(run_interleaved, args=(peers,), kwargs={"least": ROUNDS, "most": ROUNDS}, rounds=1)
    centre = centre_of(job.layers[0], "centre", job.base.resolution)
    reference = numbers_of(found["usual"], centre)
    values, n = found["ours"]
    report(
        {
            "model": name, "size": size, "dtype": dtype, "images": SOURCE, "n_images": n, "of": IMAGES,
            "ours / usual": rounds.ratio("ours", "usual"),
            "differences": {key: values[key] / reference[key] - 1 for key in COMPARED},
            "reference": {key: reference[key] for key in COMPARED},
        }
    )  # fmt: skip
    assert n <= IMAGES
    assert all(np.isfinite(value) for value in values.values())


def test_both_protocols_agree_on_the_same_images():
    """Batched, frozen and grouped, the same images give the same mean map: only stopping earlier differs."""
    images = open_images(None, 4)
    settings = ErfSettings(("test_vheat",), ((64, 64),), target=0, max_images=4)
    (job,) = make_plan(settings, images).jobs
    model = build(job.base).model.eval()
    ours = job.preprocessing
    mean = GroupedMean((64, 64), images.sources)
    mean.add(
        GradientBatches(model, job.layers, torch.device("cpu"), ours.mean, ours.std)(images.batch(range(4), job.cut))[0]
    )
    usual = one_at_a_time(model, job, images)
    np.testing.assert_allclose(mean.mean(), usual, rtol=1e-3, atol=1e-4 * usual.max())


def main(path: str) -> None:
    """A Markdown table of a benchmark file."""
    print(
        "| model | size | dtype | images | times as fast (cpu) | A50 | A99 | entropy area | radius |\n"
        + "|---" * 9
        + "|"
    )
    for entry in json.loads(Path(path).read_text())["benchmarks"]:
        row = entry["extra_info"]
        ratio = row["ours / usual"]
        cells = [row["model"], str(row["size"]), row["dtype"], f"{row['n_images']} of {row['of']} ({row['images']})"]
        cells.append(f"{ratio['wall']:.1f} [{ratio['wall_low']:.1f}, {ratio['wall_high']:.1f}] ({ratio['cpu']:.1f})")
        cells += [f"{row['differences'][key]:+.1%}" for key in COMPARED]
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main(sys.argv[1])
