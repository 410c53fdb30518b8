"""From what was asked of ``vheatbench heat`` to records: one per field, block or response."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from PIL import Image
from pydantic import Field

from vheatbench.case import Case
from vheatbench.errors import UserError, WorkerError
from vheatbench.run.device import classify, prepared_device
from vheatbench.run.study import Tell
from vheatbench.run.task import Group, StudyTask
from vheatbench.store.attachments import attach
from vheatbench.store.schema import Record
from vheatbench.studies import settings_of
from vheatbench.studies.heat.diffusion import Times, diffusion, parse_source, parse_times, source_cell
from vheatbench.studies.heat.diffusivity import diffusivity
from vheatbench.studies.heat.model import (
    HeatLayer,
    HeatModel,
    choose_channel,
    choose_layers,
    load_heat_model,
    own_size,
)
from vheatbench.studies.heat.numbers import Numbers
from vheatbench.studies.heat.response import point_response
from vheatbench.studies.heat.results import write_arrays
from vheatbench.studies.images.photographs import PHOTOGRAPHS, Cut, plain_box, read_photograph
from vheatbench.subjects.heat_operator import FrequencyResize
from vheatbench.suites import Resolution
from vheatbench.text import utc_now

CAT = PHOTOGRAPHS / "cat.jpg"
"""What fields are laid over where nothing else is given."""
MOST_CELLS = 2048**2
"""Of a grid for a point response: three float64 fields of it stay under 100 MiB."""
LARGEST = 1e9
"""Of k and k t in cells squared: past it every grid is uniform, and products would end in infinity."""


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


@dataclass(frozen=True)
class HeatSettings:
    """What the user asked for; which fields count depends on ``kind``."""

    kind: Literal["diffuse", "diffusivity", "kernel"]
    """Temperature fields, k of every block, or the point response of the operator."""
    model: str = "vheat-t"
    resolutions: tuple[Resolution, ...] = ()
    """None: the model's own."""
    rules: Annotated[tuple[FrequencyResize, ...], Field(min_length=1)] = ("bicubic",)
    """How frequency embeddings are resized where they must be."""
    weights: str | None = None
    trust_pickle: bool = False
    layers: str = "stages.0.blocks.0"
    channel: str = "median"
    k: Annotated[tuple[str, ...], Field(min_length=1)] = ("learned", "5")
    source: str = "0.5,0.5"
    times: str = "0.3:200:8"
    image: str | None = None
    """To lay a field over; None: a photograph of a cat."""
    grid: Resolution = (56, 56)
    kt: Annotated[tuple[float, ...], Field(min_length=1)] = (0.1, 0.5, 1.0, 5.0)
    device: str = "cpu"
    """Whatever is given, all of it is computed on the CPU."""

    def __post_init__(self) -> None:
        for k in self.k:
            if k != "learned":
                _check_conductivity(k, "k")
        for kt in self.kt:
            _check_conductivity(kt, "kt")
            if kt == 0:
                raise ValueError("kt: every k t must be positive")
        if math.prod(self.grid) > MOST_CELLS:
            raise ValueError(f"grid: at most {MOST_CELLS} cells (2048x2048)")


def _check_conductivity(value: str | float, name: str) -> None:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not 0 <= number <= LARGEST:  # also of what is no number
        raise ValueError(f"{name} {value!r}: give numbers from 0 to {LARGEST:g}, in cells squared")


def plan(asked: dict[str, Any]) -> tuple[list[Group], list[str]]:
    """The cases of a run, those of one model at one size as a group.

    Args:
        asked: :class:`HeatSettings` as JSON.

    Raises:
        UserError: no such model, layer or channel, or a setting that is not allowed.
        WorkerError: whatever the model raises when it is built.
    """
    settings = settings_of(HeatSettings, asked)
    groups: dict[str, Group] = {}
    for label, pieces in _pieces(settings):
        # of equal cases the first counts
        cases = list({piece.case.id: piece.case for piece in pieces}.values())
        groups.setdefault(cases[0].id, Group(label=label, cases=cases))
    return list(groups.values()), []


def measure(task: StudyTask, progress: Tell) -> Iterator[Record]:
    """The records of a group.

    Raises:
        UserError: the weights are not those any more that the cases were planned with.
        StoreError: an attachment cannot be written.
    """
    settings = settings_of(HeatSettings, task.settings)
    missing = {case.id for case in task.cases}
    for _, pieces in _pieces(settings, only=task.cases[0]):
        for piece in pieces:
            if piece.case.id in missing:
                missing.remove(piece.case.id)
                done = len(task.cases) - len(missing)
                progress(f"{done} of {len(task.cases)}", done / len(task.cases))
                with prepared_device(piece.case, task.policy):
                    record = measured(piece, task.run_path)
                yield record
    if missing:
        raise UserError(f"{task.label}: its weights are others than when the run was begun: begin a new run")


def _pieces(settings: HeatSettings, only: Case | None = None) -> Iterator[tuple[str, list[Piece]]]:
    """What is to be found, by group, with the group's name; of the size of ``only`` where it is given."""
    source = parse_source(settings.source)
    if settings.kind == "kernel":
        yield "point response", kernel_pieces(settings.grid, source_cell(source, settings.grid), settings.kt)
        return
    times = parse_times(settings.times)
    picture = CAT if settings.image is None else Path(settings.image)
    for size in settings.resolutions or (own_size(settings.model),):
        if only is not None and only.resolution != size:
            continue
        for rule in settings.rules:
            image = png_of(picture, size) if settings.kind == "diffuse" else b""
            model = _load(settings, size, rule)
            if settings.kind == "diffusivity":
                pieces = diffusivity_pieces(model)
            else:
                ks = [word if word == "learned" else f"{float(word):g}" for word in settings.k]
                layers, channel = settings.layers, settings.channel
                pieces = diffusion_pieces(model, layers, channel, ks, source, times, image, picture.name)
            yield " ".join(filter(None, (settings.model, pieces[0].case.size, model.rule))), pieces


def _load(settings: HeatSettings, size: tuple[int, int], rule: FrequencyResize) -> HeatModel:
    path = None if settings.weights is None else Path(settings.weights)
    try:
        return load_heat_model(settings.model, size, rule, path, settings.trust_pickle)
    except UserError:
        raise
    except Exception as error:  # whatever a model raises is said in one line
        raise WorkerError(f"{settings.model} at {size[0]}x{size[1]}: {classify(error)[1]}") from error


def measured(piece: Piece, run_path: Path) -> Record:
    """The record of a piece, its arrays beside the run. Raises StoreError where they cannot be written."""
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
