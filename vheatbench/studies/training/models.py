"""The models of a recipe, and the case that each of them is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import timm.layers
import torch
from torch import nn

from vheatbench.case import Case, DeviceType
from vheatbench.errors import UserError
from vheatbench.studies.training.batches import training_transform
from vheatbench.studies.training.data import Parts
from vheatbench.studies.training.optimization import make_optimizer, precision_of
from vheatbench.studies.training.recipe import ModelEntry, Recipe
from vheatbench.subjects.catalog import find_subject
from vheatbench.subjects.input_size import fit_input_size
from vheatbench.text import first_line_of


@dataclass(frozen=True)
class Model:
    """How a model of the recipe is built."""

    entry: ModelEntry
    recipe: Recipe
    """Of its seed."""
    case: Case
    factory: Callable[[], nn.Module]
    facts: dict[str, Any]
    warnings: list[str]
    folder: str
    """Name of its folder within the training's."""


def plan_models(recipe: Recipe, parts: Parts, device: torch.device) -> list[Model]:
    """Every model of the recipe, checked without allocating it.

    Raises:
        UserError: an unknown model, arguments that it does not take, a size that it cannot take; an optimizer or an
            augmentation that timm does not know.
    """
    _check_names(recipe)
    return [_plan(entry, seeded, parts, device, recipe.seeds > 1) for entry, seeded in recipe.trainings]


def _plan(entry: ModelEntry, recipe: Recipe, parts: Parts, device: torch.device, several: bool) -> Model:
    subject = find_subject(entry.model)
    own = {} if entry.drop_path is None else {"drop_path_rate": entry.drop_path}
    options = {**entry.options, **own, "num_classes": len(parts.train.classes)}
    size = (recipe.resolution, recipe.resolution)
    # as in every measurement: fused attention wherever a model has it, chosen when it is built
    timm.layers.set_fused_attn(enable=True, experimental=True)
    sizing = fit_input_size(subject.name, subject.factory, subject.default_size, size, options)
    named = {"name": entry.name} if entry.name else {}
    kind: DeviceType = "cuda" if device.type == "cuda" else "cpu"
    case = Case(
        subject=entry.model,
        resolution=size,
        batch=recipe.batch,
        dtype=precision_of(recipe, device),  # type: ignore[arg-type]
        mode="fit",
        device=kind,
        options=options,
        analysis={
            **named,
            "recipe": f"{recipe.name}-{recipe.digest}",
            "epochs": recipe.epochs,
            "seed": recipe.seed,
            "data": parts.fingerprint,
        },
    )
    arguments = {**options, **sizing.kwargs}
    facts = {
        "name": subject.full_name,
        "family": subject.family,
        "form": "training form",
        "weights": f"trained from {subject.weights.words if subject.file else f'random ones, seed {recipe.seed}'}",
        "arguments": {key: list(value) if isinstance(value, tuple) else value for key, value in arguments.items()},
        "input": {"how": sizing.how, "changed": sizing.changed},
    }

    def factory() -> nn.Module:
        torch.manual_seed(recipe.seed)
        return subject.factory(**arguments)

    folder = f"{entry.label}-seed{recipe.seed}" if several else entry.label
    return Model(entry, recipe, case, factory, facts, list(sizing.warnings), folder)


def _check_names(recipe: Recipe) -> None:
    """What only timm can tell of a recipe, before anything is written."""
    _try(f"optimizer {recipe.optimizer!r}", recipe, lambda: make_optimizer(nn.Linear(2, 2), recipe))
    _try(f"auto_augment {recipe.auto_augment!r}", recipe, lambda: training_transform(recipe))


def _try(what: str, recipe: Recipe, make: Callable[[], object]) -> None:
    try:
        make()
    except Exception as error:  # assertions, ValueErrors, TypeErrors, as it comes
        raise UserError(f"the recipe {recipe.name!r}: {what}: timm cannot make it ({first_line_of(error)})") from None
