"""A training recipe: a YAML file in ``suites/train``, validated, with values overridden from the command line."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from vheatbench.errors import UserError
from vheatbench.suite_file import suite_folders
from vheatbench.yaml_file import Place, explain, find_yaml, read_yaml, yaml_files

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

LIKE_512 = 512
"""Images per update that the recipe's learning rates are given for; they grow with the batch (Goyal et al., 2017)."""

FREE = ("description", "workers", "log_every", "checkpoint_every", "eval_batch")
"""What may change between a training and its continuation: no weight depends on it."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ModelEntry(_Part):
    """A model to train: the catalog's name, what it is called here, and what its constructor is given."""

    model: str = Field(min_length=1)
    name: str = Field(default="", pattern=r"^[A-Za-z0-9._-]*$")
    """Of the folder with its checkpoints, of its curve and its row; the model's own where not given."""
    options: dict[str, Any] = Field(default_factory=dict)
    drop_path: float | None = Field(default=None, ge=0, lt=1)
    """Stochastic depth of the last block, growing linearly from 0; None leaves the model's own."""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"model": value} if isinstance(value, str) else value

    @property
    def label(self) -> str:
        """What the model is called in tables, and in its folder's name: no sign that a path gives a meaning to."""
        return self.name or self.model.replace("/", "-").replace(":", "-")


class Recipe(_Part):
    """How models are trained. The defaults are those of the vHeat paper's ImageNet-1K training (section 4.1, appendix).

    Learning rates are those of a batch of 512 images and scaled by the batch over 512.
    """

    name: str = Field(default="", pattern=r"^[A-Za-z0-9._-]*$")
    description: str = ""
    models: list[ModelEntry] = Field(min_length=1)
    data: Literal["folder", "digits", "mnist_5k", "textures", "photographs"] = "folder"
    """``folder``: ``--data DIR`` with class folders in ``train`` and ``val``. The others come inside a package, see
    :mod:`vheatbench.studies.images.packaged`."""
    num_classes: int | None = Field(default=None, ge=2)
    """Of the head; None: as many as the data has."""
    resolution: int = Field(default=224, ge=1)
    """Height and width of the input in pixels."""
    seed: int = Field(default=0, ge=0, lt=2**31 - 1000)
    seeds: int = Field(default=1, ge=1, le=1000)
    """Times that each model is trained: with ``seed``, with the next number, and so on."""

    epochs: int = Field(default=300, ge=1)
    batch: int = Field(default=2048, ge=1)
    """Images per update, over all processes and accumulated steps."""
    accumulation: int = Field(default=1, ge=1)
    """Steps whose gradients are summed up to one update."""
    optimizer: str = "adamw"
    """A name of timm's ``create_optimizer_v2``."""
    betas: tuple[float, float] | None = None
    """None: the optimizer's own, (0.9, 0.999) of AdamW."""
    learning_rate: float = Field(default=5e-4, gt=0)
    warmup_learning_rate: float = Field(default=5e-7, ge=0)
    min_learning_rate: float = Field(default=5e-6, ge=0)
    warmup_epochs: float = Field(default=20, ge=0)
    weight_decay: float = Field(default=0.08, ge=0)
    clip_gradients: float | None = Field(default=5.0, gt=0)
    """Largest norm of all gradients."""
    ema_decay: float | None = Field(default=0.9999, gt=0, lt=1)
    """Of the moving average of the weights, which is evaluated and kept beside them; null for none."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of activations (autocast). ``auto``: float16 with loss scaling on CUDA, float32 on a CPU."""
    gradient_checkpointing: bool = False

    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    mixup: float = Field(default=0.8, ge=0)
    cutmix: float = Field(default=1.0, ge=0)
    mixup_switch: float = Field(default=0.5, ge=0, le=1)
    """How often cutmix takes the place of mixup."""
    random_crop: tuple[float, float] | None = (0.08, 1.0)
    """Share of the image that a random crop takes; null for the whole image."""
    horizontal_flip: float = Field(default=0.5, ge=0, le=1)
    color_jitter: float | None = Field(default=0.4, gt=0)
    """Used where there is no ``auto_augment``, as in timm."""
    auto_augment: str | None = "rand-m9-mstd0.5-inc1"
    random_erasing: float = Field(default=0.25, ge=0, le=1)
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    crop_pct: float = Field(default=0.875, gt=0, le=1)
    """Of the test images: side of the centre crop over the shorter side of the resized image."""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    workers: int = Field(default=8, ge=0)
    """Processes that load images, per process that trains."""
    eval_batch: int = Field(default=256, ge=1)
    """Test images per step and process."""
    log_every: int = Field(default=50, ge=1)
    """Updates between looks at the loss: then the losses are written, and one that is not finite ends the training."""
    checkpoint_every: int | None = Field(default=None, ge=1)
    """Updates between checkpoints within an epoch; there is always one at the end of an epoch."""

    @field_validator("models")
    @classmethod
    def _distinct(cls, models: list[ModelEntry]) -> list[ModelEntry]:
        labels = [entry.label for entry in models]
        again = next((label for label in labels if labels.count(label) > 1), None)
        if again is not None:
            raise ValueError(f"two models are called {again!r}: give each a 'name'")
        return models

    @model_validator(mode="after")
    def _leaves_the_warmup(self) -> Recipe:
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"warmup_epochs {self.warmup_epochs:g} take up all {self.epochs} epochs, and the learning rate never "
                "falls: change both, for example --override epochs=30 --override warmup_epochs=2"
            )
        return self

    @property
    def digest(self) -> str:
        """8 hexadecimal digits of what the weights depend on but models and seeds: equal for equal training."""
        content = self.model_dump(mode="json", exclude={"models", "name", "seed", "seeds", *FREE})
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]

    @property
    def trainings(self) -> list[tuple[ModelEntry, Recipe]]:
        """Every model with the recipe of one seed, seed by seed: what is compared is trained close together."""
        seeds = [self.seed + i for i in range(self.seeds)]
        alone = [self.model_copy(update={"seed": seed, "seeds": 1}) for seed in seeds]
        return [(entry, recipe) for recipe in alone for entry in self.models]

    @property
    def mixes(self) -> bool:
        """Whether images of a batch are mixed."""
        return self.mixup > 0 or self.cutmix > 0

    def scaled(self, learning_rate: float) -> float:
        """A learning rate for this batch."""
        return learning_rate * self.batch / LIKE_512

    def differences(self, other: Recipe) -> list[str]:
        """What this recipe has other than ``other``, ``epochs: 300, not 100`` each; what is :data:`FREE` left out."""
        mine, theirs = self.model_dump(mode="json"), other.model_dump(mode="json")
        return [
            f"{key}: {_text(theirs[key])}, not {_text(mine[key])}"
            for key in mine
            if key not in FREE and mine[key] != theirs[key]
        ]


def list_recipes() -> dict[str, Path]:
    """Names of the recipes that are found, and their files; the working directory's first."""
    return yaml_files(folder / "train" for folder in suite_folders())


def load_recipe(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read and validate a recipe.

    Args:
        name: path of a YAML file or the name of a recipe in ``suites/train``.
        overrides: ``key=value`` each, the value as in YAML.

    Raises:
        UserError: no such recipe, a misspelt key, a value that is not allowed; with file and line.
    """
    file = read_yaml(find_yaml(name, "recipe", list_recipes(), "suites/train"), "recipe", "'models'")
    changed = dict(_override(text) for text in overrides)
    content = {"name": file.path.stem} | {str(key): value for key, value in file.content.items()} | changed
    if changed and "description" not in changed and content.get("description"):
        # what the file says of itself is not all true any more
        content["description"] = f"{content['description']}, but {', '.join(one.strip() for one in overrides)}"
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:

        def where(place: Place) -> str:
            return f"--override {place[0]}" if place and place[0] in changed else file.where(place)

        raise UserError(explain(error, Recipe, where)) from None


def _override(text: str) -> tuple[str, Any]:
    key, sign, value = text.partition("=")
    if not sign or not key.strip():
        raise UserError(f"--override {text!r}: give key=value, for example epochs=10")
    try:
        return key.strip(), _number(yaml.safe_load(value))
    except (yaml.YAMLError, ValueError):
        raise UserError(f"--override {text!r}: the value is not valid YAML") from None


def _number(value: Any) -> Any:
    # YAML 1.1 takes 5e-4 for a word: only 5.0e-4 is a number to it
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _text(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 80 else f"{text[:60]}..."
