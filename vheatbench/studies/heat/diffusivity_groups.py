"""Which blocks of which models belong together, and what a group of them is called."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vheatbench.present.style import shorten, size_words
from vheatbench.studies.heat.labels import weights_words
from vheatbench.studies.heat.results import Diffusivity

RULES = ("", "bicubic", "zeropad")

Blocks = Sequence[Diffusivity]
"""Of one model at one size under one resizing rule, by depth."""


def series_of(results: Sequence[Diffusivity]) -> list[list[Diffusivity]]:
    """Blocks of one model at one size under one resizing rule, by depth; a model's own size first."""
    series: dict[tuple[Any, ...], list[Diffusivity]] = {}
    for one in sorted(results, key=lambda result: result.depth):
        rule = RULES.index(one.rule) if one.rule in RULES else len(RULES)
        series.setdefault((one.subject, one.weights, min(rule, 1), one.resolution, rule, one.rule), []).append(one)
    return [series[key] for key in sorted(series)]


def models_of(series: Sequence[list[Diffusivity]]) -> list[list[list[Diffusivity]]]:
    """Series of the same model with the same weights."""
    models: dict[tuple[str, str], list[list[Diffusivity]]] = {}
    for blocks in series:
        models.setdefault((blocks[0].subject, blocks[0].weights), []).append(blocks)
    return list(models.values())


def rules_of(of_model: Sequence[list[Diffusivity]]) -> list[list[list[Diffusivity]]]:
    """For each size that a model was resized to: its own size and what each rule makes of it."""
    sizes = dict.fromkeys(blocks[0].resolution for blocks in of_model if blocks[0].rule)
    own = [blocks for blocks in of_model if not blocks[0].rule]
    found = [own[:1] + [b for b in of_model if b[0].rule and b[0].resolution == size] for size in sizes]
    return [compared for compared in found if len(compared) > 1]


def stages_of(blocks: Blocks) -> list[list[Diffusivity]]:
    """The blocks by stage, from input to output."""
    stages: dict[str, list[Diffusivity]] = {}
    for one in blocks:
        stages.setdefault(stage_of(one), []).append(one)
    return list(stages.values())


def stage_of(result: Diffusivity) -> str:
    """Such as ``stages.2`` of ``stages.2.blocks.5``."""
    return result.layer.split(".blocks.")[0]


def last_blocks(compared: Sequence[Blocks]) -> list[list[Diffusivity]]:
    """The last block of every stage, a row each: at a model's own size and as each rule makes it."""
    return [[stage[-1] for stage in same] for same in zip(*map(stages_of, compared), strict=False)]


def variant(result: Diffusivity) -> str:
    """Size and resizing rule in words: ``224 px``, ``512 px (zeropad)``."""
    return size_words(result.resolution) + (f" ({result.rule})" if result.rule else "")


def model_words(blocks: Blocks, size: bool = True) -> str:
    """Which model, at which size, with which weights; random weights are always named."""
    one = blocks[0]
    return ", ".join([shorten(one.subject), *([variant(one)] if size else []), weights_words(one.weights)])
