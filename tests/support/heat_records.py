"""Synthetic runs of ``vheatbench heat``, computed with numpy alone, with their attachments in a folder of the test."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from support.records import run_of
from vheatbench.case import Case
from vheatbench.store import Metric, Record, Run
from vheatbench.store.attachments import attach
from vheatbench.studies.heat.results import write_arrays
from vheatbench.studies.heat.temperature import cosine_matrix, field_at


def metrics(**values: float | None) -> dict[str, Metric]:
    return {
        name: Metric(value=value, unit="u", how="h", unavailable="no" if value is None else None)
        for name, value in values.items()
    }


def record(path: Path, case: Case, conditions: dict, arrays: dict, image: bytes | None = None, **values) -> Record:
    files = {"arrays": attach(path, f"{case.id}.npz", write_arrays(**arrays))}
    if image is not None:
        files["image"] = attach(path, "image.png", image)
    return Record(
        case=case, case_id=case.id, status="ok", metrics=metrics(**values), conditions=conditions, files=files,
        started="2026-01-02T03:04:05+00:00",
    )  # fmt: skip


def picture(height: int, width: int) -> bytes:
    rows, columns = np.mgrid[:height, :width]
    pixels = np.stack([rows % 256, columns % 256, (rows + columns) % 256], -1).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def diffuse(
    path: Path, k, times, subject: str = "vheat-t", layer: str = "stages.0.blocks.1", weights: str = "random",
    grid: tuple[int, int] = (9, 12), source: tuple[int, int] = (2, 7), word: str = "learned", image: bool = True,
) -> Record:  # fmt: skip
    """Heat from a cell by ``k``: a number, or an array per frequency."""
    height, width = grid
    k = np.full(grid, float(k)) if np.isscalar(k) else k
    start = np.zeros(grid)
    start[source] = 1
    coefficients = cosine_matrix(height) @ start @ cosine_matrix(width).T
    frames = np.stack([field_at(coefficients, k, t) for t in times])
    place = [(source[0] + 0.5) / height, (source[1] + 0.5) / width]
    analysis = {"kind": "diffuse", "layer": layer, "k": word, "source": [0.25, 0.6]}
    case = Case(subject=subject, resolution=(16 * height, 16 * width), mode="heat", analysis=analysis)
    conditions = {
        "k": "learned" if word == "learned" else f"constant {word}",
        "channel": "channel 3 (median of mean k)" if word == "learned" else "",
        "weights": weights, "source": place, "cell_px": [16, 16],
    }  # fmt: skip
    arrays = {"k": k, "coefficients": coefficients, "times": times, "frames": frames}
    length = np.sqrt(2 * k.mean())
    return record(
        path, case, conditions, arrays, picture(16 * height, 16 * width) if image else None,
        k_mean_cells2=k.mean(), k_zero_share=(k == 0).mean(), source_kept=field_at(coefficients, k, 1)[source],
        diffusion_length_cells=length, diffusion_length_px=16 * length, diffusion_length_share=length / height,
        undershoot=max(0.0, -frames.min()), mass_error=1e-15,
    )  # fmt: skip


def random_k(grid: tuple[int, int] = (9, 12), scale: float = 0.01) -> np.ndarray:
    """As a freshly initialised model has it: tiny, and half of it exactly 0."""
    return np.maximum(np.random.default_rng(0).normal(0, scale, grid), 0)


def diffusion_run(folder: Path, **changes) -> Run:
    """A learned and a constant k at the same mean kt."""
    path = folder / "run.jsonl"
    k, kts = random_k(), np.array([0, 0.3, 3, 30, 200])
    layers = changes.pop("layers", ["stages.0.blocks.1"])
    rows = [diffuse(path, k, kts / k.mean(), layer=layer, **changes) for layer in layers]
    rows += [diffuse(path, 5.0, kts / 5, word="5", layer=layer, **changes) for layer in layers]
    return Run(path, run_of([]).header, rows)


def block(
    path: Path, layer: str, depth: int, grid: tuple[int, int], rule: str = "", scale: float = 0.01, **changes
) -> Record:
    """One block whose k is ``scale`` at low frequencies; zero padding leaves a quarter of the map."""
    height, width = grid
    rng = np.random.default_rng(depth)
    k = np.abs(rng.normal(scale, scale / 4, (height, width, 6))) + 1e-6
    k[..., :3] *= rng.random((height, width, 3)) > 0.5
    if rule == "zeropad":
        k[height // 2 :], k[:, width // 2 :] = 0, 0
    w = np.hypot(*np.meshgrid(np.pi * np.arange(height) / height, np.pi * np.arange(width) / width, indexing="ij"))
    order = np.argsort(w.ravel())
    bins = np.array_split(order, min(8, len(order)))
    decay = np.exp(-k * w[:, :, None] ** 2).reshape(-1, 6)
    radial = np.array([w.ravel()[b].mean() for b in bins])
    spectrum = np.array([np.quantile(decay[b], (0.25, 0.5, 0.75)) for b in bins])
    resolution = changes.pop("resolution", (224, 224))
    analysis = {"kind": "diffusivity", "layer": layer, "weights": "random", **({"rule": rule} if rule else {})}
    case = Case(subject=changes.pop("subject", "vheat-t"), resolution=resolution, mode="heat", analysis=analysis)
    cell = resolution[0] / height
    conditions = {"depth": depth, "rule": rule, "weights": changes.pop("weights", "random"), "cell_px": [cell, cell]}
    arrays = {
        "mean_map": k.mean(-1), "zero_map": (k == 0).mean(-1),
        "channel_quantiles": np.quantile(k.reshape(-1, 6), (0, 0.25, 0.5, 0.75, 1), axis=0).T,
        "edges": np.geomspace(1e-6, 1e3, 73), "counts": np.zeros(72),
        "radial_frequency": radial, "decay_quantiles": spectrum,
    }  # fmt: skip
    length = np.sqrt(2 * k.mean())
    below = np.flatnonzero(spectrum[:, 1] <= 0.5)
    least, q25, median, q75, most = np.quantile(k, (0, 0.25, 0.5, 0.75, 1))
    return record(
        path, case, conditions, arrays, k_mean_cells2=k.mean(), k_min_cells2=least, k_q25_cells2=q25,
        k_median_cells2=median, k_q75_cells2=q75, k_max_cells2=most, k_zero_share=(k == 0).mean(),
        diffusion_length_cells=length, diffusion_length_px=cell * length,
        diffusion_length_share=cell * length / min(resolution), decay_mean=decay.mean(),
        half_decay_frequency_rad_per_cell=float(radial[below[0]]) if len(below) else None,
    )  # fmt: skip


LAYERS = (("stages.0.blocks.0", 8), ("stages.1.blocks.0", 6), ("stages.1.blocks.1", 6))


def diffusivity_run(folder: Path, scale: float = 0.01, **changes) -> Run:
    """Three blocks in two stages, at their own size and at twice that under both rules."""
    path = folder / "run.jsonl"
    rows = [block(path, layer, i, (n, n), scale=scale, **changes) for i, (layer, n) in enumerate(LAYERS)]
    for rule in ("bicubic", "zeropad"):
        rows += [
            block(path, layer, i, (2 * n, 2 * n), rule, scale, resolution=(448, 448), **changes)
            for i, (layer, n) in enumerate(LAYERS)
        ]
    return Run(path, run_of([]).header, rows)


def kernel_run(folder: Path, kts=(0.1, 1.0, 5.0), grid: tuple[int, int] = (12, 14)) -> Run:
    """Responses of which only the operator's is exact; errors and undershoot are made up."""
    path = folder / "run.jsonl"
    rows = []
    for kt in kts:
        start = np.zeros(grid)
        start[5, 6] = 1
        field = field_at(cosine_matrix(grid[0]) @ start @ cosine_matrix(grid[1]).T, kt, 1)
        case = Case(
            subject="op/heat", resolution=grid, mode="heat", channels=1,
            analysis={"kind": "kernel", "kt_cells2": kt, "source": [5, 6]},
        )  # fmt: skip
        arrays = {"operator": field, "neumann": 1.01 * field, "finite_difference": 0.9 * field}
        undershoot = 0.015 if kt < 0.5 else 0.0
        rows.append(
            record(path, case, {}, arrays, mass_error=3e-16, undershoot=undershoot, overshoot=0.0, peak=field.max(),
                   neumann_error=1e-5 if kt >= 1 else 0.2, finite_difference_error=0.1)
        )  # fmt: skip
    return Run(path, run_of([]).header, rows)
