"""A vHeat model as conduction sees it: its heat operators in order, each with its frequency embedding."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vheatbench.case import Case, kind_of
from vheatbench.errors import UserError
from vheatbench.subjects.catalog import build, find_subject
from vheatbench.subjects.heat_operator import FrequencyResize, HeatOperator
from vheatbench.subjects.heat_stage import HeatStage
from vheatbench.subjects.vheat import VHeat
from vheatbench.subjects.weights import load_weights


@dataclass(frozen=True)
class HeatLayer:
    """One heat operator of a model at one resolution."""

    name: str
    """Of its block, such as ``stages.1.blocks.0``."""
    depth: int
    """Position in the model, from 0."""
    operator: HeatOperator
    embedding: Tensor
    """Frequency embedding of its stage on this grid, (H, W, C)."""
    grid: tuple[int, int]
    cell_px: tuple[float, float]
    """Height and width in pixels of a cell."""

    @torch.no_grad()
    def diffusivity(self) -> Tensor:
        """k of every frequency and channel, (H, W, C), in cells squared: as the model computes it, in float64."""
        return self.operator.diffusivity(self.embedding).double()


@dataclass(frozen=True)
class HeatModel:
    """The heat operators of a model, and what records say of it."""

    subject: str
    resolution: tuple[int, int]
    layers: list[HeatLayer]
    rule: str
    """How the embeddings were resized to this resolution; empty where they were not."""
    weights: str
    """``random``, or the file's name and the first 12 digits of its SHA-256."""
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def weights_id(self) -> str:
        """``random``, or the first 12 digits of the file's SHA-256: what tells cases apart."""
        return "random" if self.weights == "random" else str(self.facts["weights_sha256"])[:12]


def own_size(subject: str) -> tuple[int, int]:
    """Height and width that a model is made for; 224 where it does not say. Raises UserError for an unknown name."""
    if kind_of(subject) != "model":
        raise UserError(f"{subject!r} is no model: heat shows vHeat models, such as vheat-t")
    return find_subject(subject).own_size()


def heat_layers(model: nn.Module) -> list[HeatLayer]:
    """All heat operators of a vHeat model, in order, on the grids of the size it was built or last resized for.

    Raises:
        UserError: there are none, or the model is in the deploy form, which keeps the decay and not k.
    """
    model = _vheat(model)
    height, width = model.img_size
    layers: list[HeatLayer] = []
    for name, stage in _stages(model):
        assert stage.freq_embed is not None
        grid = (stage.freq_embed.shape[0], stage.freq_embed.shape[1])
        embedding = stage.embedding(*grid)
        assert embedding is not None
        cell_px = (height / grid[0], width / grid[1])
        for i, block in enumerate(stage._blocks()):
            layers.append(HeatLayer(f"{name}.blocks.{i}", len(layers), block.op, embedding, grid, cell_px))
    return layers


def image_size(model: nn.Module) -> tuple[int, int]:
    """Height and width in pixels that a vHeat was built or last resized for. Raises as :func:`heat_layers`."""
    return _vheat(model).img_size


def load_heat_model(
    subject: str,
    resolution: tuple[int, int],
    rule: FrequencyResize = "bicubic",
    weights: Path | None = None,
    trust_pickle: bool = False,
) -> HeatModel:
    """Build a model and resize its frequency embeddings to ``resolution`` once, from the size they belong to.

    Random embeddings belong to the model's own size, those of a file to the grid that they have there.

    Args:
        subject: a catalog name.
        resolution: height and width in pixels.
        rule: how embeddings are resized where they must be.
        weights: a checkpoint; None for those that the subject is built with, mostly random ones from seed 0.
        trust_pickle: see :func:`vheatbench.subjects.weights.load_checkpoint`.

    Raises:
        UserError: unknown name, no vHeat, in the deploy form, a size that it cannot take, an unfit checkpoint.
    """
    known = find_subject(subject)
    weights = weights or known.file
    own = resolution if weights is not None else own_size(subject)
    built = build(Case(subject=subject, resolution=own, mode="heat"))
    model = _vheat(built.model, subject)
    facts, words, used = dict(built.facts), "random", ""
    if weights is not None:
        loaded = load_weights(model, weights, rule=rule, trust_pickle=trust_pickle)
        words = known.weights.words if weights == known.file else f"{loaded.file} ({loaded.sha256[:12]})"
        facts |= {"weights": f"{loaded.file}: {loaded.weights}", "weights_sha256": loaded.sha256}
        used = rule if loaded.resized else ""
    elif model.img_size != resolution:
        for _, stage in _stages(model):
            stage.freq_resize = rule
        try:
            model.set_input_size(resolution)
        except ValueError as error:
            raise UserError(f"model {subject!r}: {error}") from None
        used = rule
    facts["frequencies"] = f"resized by the rule {used!r}" if used else "at their own size"
    return HeatModel(subject, resolution, heat_layers(model), used, words, facts)


def choose_layers(layers: list[HeatLayer], text: str) -> list[HeatLayer]:
    """The layers that ``text`` names: ``all``, a stage (``1`` or ``stages.1``: all of its blocks), a block.

    Several by commas. Raises UserError for a name that is none, with those there are.
    """
    chosen: dict[str, HeatLayer] = {}
    for word in (word.strip() for word in text.split(",")):
        prefix = f"stages.{word}" if word.isdecimal() else word
        found = [x for x in layers if word == "all" or x.name == prefix or x.name.startswith(f"{prefix}.blocks.")]
        if not found:
            raise UserError(f"--layer {word!r} is no stage or block of the model: all, {_listed(layers)}")
        chosen |= {layer.name: layer for layer in found}
    return sorted(chosen.values(), key=lambda layer: layer.depth)


def choose_channel(k: Tensor, text: str) -> tuple[int, str]:
    """A channel and its description, from ``median``, a quantile of channels such as ``q0.9``, or a number.

    Quantiles are of each channel's mean k over frequencies: the channel with that rank is taken, because a mean
    over channels of fields is the field of no k.

    Args:
        k: (H, W, C).
        text: as typed.

    Raises:
        UserError: neither of these, or there is no such channel.
    """
    channels = k.shape[-1]
    if text.isdecimal():
        if int(text) >= channels:
            raise UserError(f"--channel {text}: the layer has channels 0 to {channels - 1}")
        return int(text), f"channel {int(text)}"
    try:
        share = 0.5 if text == "median" else float(text.removeprefix("q")) if text.startswith("q") else -1.0
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise UserError(f"--channel {text!r} is neither median nor a quantile such as q0.9 nor a channel's number")
    ranked = torch.argsort(k.mean((0, 1)), stable=True)
    index = int(ranked[round(share * (channels - 1))])
    which = "median" if share == 0.5 else f"quantile {share:g}"
    return index, f"channel {index} ({which} of mean k)"


def _vheat(model: nn.Module, subject: str = "") -> VHeat:
    found = next((module for module in model.modules() if isinstance(module, VHeat)), None)
    if found is None:
        name = subject or type(model).__name__
        raise UserError(f"model {name!r} has no heat operators: heat shows vHeat models, such as vheat-t")
    if found.deployed_for is not None:
        raise UserError("a deployed vHeat keeps the decay of its operators, not k: give the model undeployed")
    return found


def _stages(model: VHeat) -> Iterator[tuple[str, HeatStage]]:
    for name, module in model.named_modules():
        if isinstance(module, HeatStage):
            yield name, module


def _listed(layers: list[HeatLayer]) -> str:
    stages: dict[str, int] = {}
    for layer in layers:
        stage = layer.name.partition(".blocks.")[0]
        stages[stage] = stages.get(stage, 0) + 1
    return ", ".join(
        f"{stage}.blocks.0" + (f" to {stage}.blocks.{count - 1}" if count > 1 else "")
        for stage, count in stages.items()
    )
