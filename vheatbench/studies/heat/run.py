"""From what was asked of ``vheatbench heat`` to a finished run: one record per field, block or response."""

from __future__ import annotations

import io
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from vheatbench.case import Case
from vheatbench.measure.environment import environment
from vheatbench.run.device import classify
from vheatbench.store.attachments import attach
from vheatbench.store.schema import Header, Record
from vheatbench.store.write import RunWriter
from vheatbench.studies.heat.diffusion import Times, diffusion
from vheatbench.studies.heat.diffusivity import diffusivity
from vheatbench.studies.heat.model import HeatLayer, HeatModel, choose_channel, choose_layers
from vheatbench.studies.heat.numbers import Numbers
from vheatbench.studies.heat.response import point_response
from vheatbench.studies.heat.results import write_arrays
from vheatbench.studies.images.photographs import PHOTOGRAPHS, Cut, plain_box, read_photograph
from vheatbench.text import utc_now

DESCRIPTIONS = {
    "heat-diffuse": "Exact temperature fields of heat that starts in one cell",
    "heat-diffusivity": "Diffusivity k of every heat operator of a model",
    "heat-kernel": "Point response of the heat operator beside the heat kernel and finite differences",
}
CAT = PHOTOGRAPHS / "cat.jpg"
"""What fields are laid over where nothing else is given."""


@dataclass(frozen=True)
class Piece:
    """One record to be: its case, and what finds its numbers."""

    case: Case
    find: Callable[[], Numbers]
    facts: dict[str, Any]
    """Of the record's subject."""
    conditions: dict[str, Any] = field(default_factory=dict)
    image: bytes | None = None
    """PNG to lay the field over."""


def png_of(path: Path, size: tuple[int, int]) -> bytes:
    """A picture cut to ``size`` (height, width) around its middle, as PNG. Raises UserError if it cannot be read."""
    photograph = read_photograph(path)
    height, width = size
    box = plain_box(photograph.size, Cut(size, crop_pct=1.0))
    buffer = io.BytesIO()
    photograph.resize((width, height), Image.Resampling.BICUBIC, box=box).save(buffer, "PNG")
    return buffer.getvalue()


def diffusion_pieces(
    model: HeatModel,
    layers: str,
    channel: str,
    ks: Sequence[str],
    source: tuple[float, float],
    times: Times,
    image: bytes,
    image_name: str,
) -> list[Piece]:
    """Every chosen layer with every k.

    Args:
        model: what k is taken from.
        layers: see :func:`vheatbench.studies.heat.model.choose_layers`.
        channel: see :func:`vheatbench.studies.heat.model.choose_channel`.
        ks: ``learned`` or constants in cells squared, as text.
        source: share of height and of width.
        times: when to look.
        image: PNG of ``model.resolution`` to lay the fields over.
        image_name: for people.

    Raises:
        UserError: no such layer or channel.
    """
    return [
        replace(piece, image=image, conditions={**piece.conditions, "image": image_name})
        for layer in choose_layers(model.layers, layers)
        for piece in (_diffusion_piece(model, layer, channel, word, source, times) for word in ks)
    ]


def _diffusion_piece(
    model: HeatModel, layer: HeatLayer, channel: str, word: str, source: tuple[float, float], times: Times
) -> Piece:
    learned = word == "learned"
    analysis: dict[str, Any] = {"kind": "diffuse", "layer": layer.name, "k": word, "source": list(source)}
    analysis["times"] = f"{times.values[0]:g} to {times.values[-1]:g}, {len(times.values)}" + " times" * times.multiples
    if learned:
        of_block = layer.diffusivity()
        index, words = choose_channel(of_block, channel)
        k = of_block[:, :, index].contiguous()
        analysis |= {"channel": channel, "weights": model.weights_id}
        if model.rule:
            analysis["rule"] = model.rule
    else:
        index, words = None, ""
        k = torch.full(layer.grid, float(word), dtype=torch.float64)
    case = Case(subject=model.subject, resolution=model.resolution, mode="heat", analysis=analysis)
    conditions = {
        "k": "learned" if learned else f"constant {word}",
        "channel": words,
        "channel_index": index,
        "weights": model.weights,
        "rule": model.rule,
        "cell_px": list(layer.cell_px),
    }
    return Piece(case, lambda: diffusion(k, source, times, layer.cell_px, model.resolution), model.facts, conditions)


def diffusivity_pieces(model: HeatModel) -> list[Piece]:
    """Every block of a model."""
    pieces = []
    for layer in model.layers:
        analysis = {"kind": "diffusivity", "layer": layer.name, "weights": model.weights_id}
        if model.rule:
            analysis["rule"] = model.rule
        case = Case(subject=model.subject, resolution=model.resolution, mode="heat", analysis=analysis)
        conditions = {
            "depth": layer.depth,
            "rule": model.rule,
            "weights": model.weights,
            "grid": list(layer.grid),
            "cell_px": list(layer.cell_px),
        }
        pieces.append(Piece(case, _diffusivity_of(model, layer), model.facts, conditions))
    return pieces


def _diffusivity_of(model: HeatModel, layer: HeatLayer) -> Callable[[], Numbers]:
    random = model.weights == "random"
    return lambda: diffusivity(layer.diffusivity(), layer.cell_px, model.resolution, random)


def kernel_pieces(grid: tuple[int, int], cell: tuple[int, int], kts: Sequence[float]) -> list[Piece]:
    """Every k t."""
    facts = {"name": "heat conduction, the core of the operator", "weights": "none"}
    pieces = []
    for kt in kts:
        analysis = {"kind": "kernel", "kt_cells2": kt, "source": list(cell)}
        case = Case(subject="op/heat", resolution=grid, mode="heat", channels=1, analysis=analysis)
        pieces.append(Piece(case, _response_of(grid, cell, kt), facts))
    return pieces


def _response_of(grid: tuple[int, int], cell: tuple[int, int], kt: float) -> Callable[[], Numbers]:
    return lambda: point_response(grid, cell, kt)


def carry_out(
    suite: str,
    pieces: Sequence[Piece],
    results_dir: str | Path,
    command: str,
    done: Callable[[Record], None] = lambda record: None,
) -> Path:
    """Find the numbers of every piece and write the run; what fails becomes a record that says so.

    Args:
        suite: one of :data:`DESCRIPTIONS`.
        pieces: what to find; of equal cases the first counts.
        results_dir: folder of the run's file.
        command: the command line, for the header.
        done: called with every record once it is on disk.

    Returns:
        The finished run file.

    Raises:
        UserError: the run cannot be begun in ``results_dir``.
        StoreError: a record or an attachment cannot be written; those before are safe.
    """
    first: dict[str, Piece] = {}
    for piece in pieces:
        first.setdefault(piece.case.id, piece)
    header = Header(
        run_id=secrets.token_hex(4),
        suite=suite,
        description=DESCRIPTIONS[suite],
        command=command,
        created=utc_now(),
        environment=environment(),
        plan=[piece.case for piece in first.values()],
    )
    with RunWriter.create(results_dir, header) as writer:
        for piece in first.values():
            record = _record(piece, writer.path)
            writer.append(record)
            done(record)
        return writer.finish()


def _record(piece: Piece, run_path: Path) -> Record:
    started, clock = utc_now(), time.monotonic()
    record = Record(case=piece.case, case_id=piece.case.id, status="ok", subject=piece.facts, started=started)
    try:
        numbers = piece.find()
    except Exception as error:  # the record says what happened, and the others are found all the same
        record.status, record.reason = classify(error)
        return record
    record.metrics = numbers.metrics
    record.conditions = {**piece.conditions, **numbers.conditions}
    record.warnings = numbers.warnings
    record.files["arrays"] = attach(run_path, f"{piece.case.id}.npz", write_arrays(**numbers.arrays))
    if piece.image is not None:
        record.files["image"] = attach(run_path, "image.png", piece.image)
    record.elapsed_s = time.monotonic() - clock
    return record
