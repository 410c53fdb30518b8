"""What a run of receptive fields will measure: settings in, jobs out, all checked before anything is measured."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from timm.data import resolve_model_data_config
from torch import nn

from vheatbench.case import Case, DeviceType, DType
from vheatbench.errors import UserError
from vheatbench.studies.erf.conduction import conducts, constant_k
from vheatbench.studies.erf.features import Layer, find_layers, survey_failed
from vheatbench.studies.erf.gradient import Protocol
from vheatbench.studies.images.photographs import RESAMPLING, SINGLE, Cut, ImageSet
from vheatbench.subjects.catalog import build, find_subject
from vheatbench.subjects.weights import RANDOM, CheckpointError, Weights, identify, load_weights
from vheatbench.suites import Resolution


@dataclass(frozen=True)
class ErfSettings:
    """What the user asked for."""

    models: Annotated[tuple[str, ...], Field(min_length=1)]
    """The first one's preprocessing decides how photographs are cut, for all."""
    resolutions: Annotated[tuple[Resolution, ...], Field(min_length=1)] = ((224, 224),)
    layers: Annotated[tuple[str, ...], Field(min_length=1)] = ("last",)
    weights: tuple[str, ...] = ()
    """``random``, for every model; ``FILE``, for the first; ``MODEL=FILE``. None: random."""
    trust_pickle: bool = False
    conduction: Annotated[tuple[str, ...], Field(min_length=1)] = ("learned",)
    """``learned``, ``none`` or a constant k; for models with heat operators."""
    images: str | None = None
    protocol: Protocol = "centre"
    dtype: DType = "float32"
    device: Literal["auto"] | DeviceType = "cpu"
    """``auto``: a GPU, if there is one."""
    target: Annotated[float, Field(ge=0)] = 0.05
    """Relative standard error of the deciding numbers that is precise enough."""
    max_images: Annotated[int, Field(ge=1, le=100_000)] = 50
    batch: Annotated[int, Field(ge=1)] = 5
    """Images at once; at least two such batches are taken."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the images; random weights always have seed 0."""


@dataclass(frozen=True)
class Preprocessing:
    """What a model's own configuration says of its input."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    crop_pct: float

    @classmethod
    def of(cls, model: nn.Module) -> Preprocessing:
        """timm's, or its defaults (ImageNet's mean and deviation) for a model without one."""
        config = resolve_model_data_config(model)
        known = config["interpolation"] in RESAMPLING
        return cls(
            tuple(config["mean"]),
            tuple(config["std"]),
            config["interpolation"] if known else "bicubic",
            float(config["crop_pct"]),
        )


@dataclass(frozen=True)
class Job:
    """What one forward pass per batch measures: all layers of one model at one size, with one set of weights."""

    base: Case
    layers: tuple[Layer, ...]
    cases: tuple[Case, ...]
    """One for each layer."""
    weights: Weights
    path: Path | None
    """Of the weights; None for those that the model is built with."""
    conduction: str
    """Empty for a model without heat operators."""
    preprocessing: Preprocessing
    cut: Cut

    @property
    def label(self) -> str:
        words = [self.base.subject, self.base.size]
        if self.path is not None:
            words.append(self.path.name)
        if self.conduction not in ("", "learned"):
            words.append(f"k={0 if self.conduction == 'none' else self.conduction}")
        return " ".join(words)


@dataclass(frozen=True)
class Plan:
    """All jobs of a run, and what the user should know about them."""

    jobs: list[Job]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Survey:
    """A model at one size as it was looked at without being computed."""

    layers: list[Layer]
    preprocessing: Preprocessing
    conducts: bool


def make_plan(settings: ErfSettings, images: ImageSet, only: Case | None = None) -> Plan:
    """The jobs, in the order of models, sizes, weights, conduction.

    Args:
        settings: for a device that is there.
        images: that they name.
        only: a case; jobs of its model at its size are all that is needed.

    Raises:
        UserError: an unknown model, layer or size, weights that cannot be read or are another model's, a conduction
            that is no number, or one for models that do not conduct.
    """
    for name in settings.models:
        find_subject(name)
    weights = _weights(settings)
    conduction = list(dict.fromkeys(_canonical(word) for word in settings.conduction))
    pairs = [(name, size) for name in settings.models for size in settings.resolutions]
    if only is not None:
        pairs = [pair for pair in pairs if pair in (pairs[0], (only.subject, only.resolution))]
    surveys = {(name, size): _survey(name, size, settings) for name, size in pairs}
    if conduction != ["learned"] and not any(survey.conducts for survey in surveys.values()):
        raise UserError(f"--conduction: none of {', '.join(settings.models)} has heat conduction")
    if only is None:
        _check_weights(weights, settings)
    leader = next(iter(surveys.values())).preprocessing
    jobs: list[Job] = []
    for (name, size), survey in surveys.items():
        if only is not None and (name, size) != (only.subject, only.resolution):
            continue  # it only decides how photographs are cut
        for known, path in weights[name]:
            words = conduction if survey.conducts else [""]
            base = _case(name, size, settings)
            jobs += [_job(base, survey, known, path, word, leader, settings, images) for word in words]
    notes = [f"{SINGLE}; give --images a folder of several"] if images.single else []
    return Plan(jobs, notes + _notes(settings, weights))


def job_of_module(
    name: str,
    model: nn.Module,
    input_shape: tuple[int, ...],
    known: Weights,
    settings: ErfSettings,
    images: ImageSet,
) -> Job:
    """The job of a model that is there, in evaluation mode.

    Args:
        name: what it is called.
        model: on any device.
        input_shape: (channels, height, width).
        known: its weights.
        settings: of which models, sizes and weights are not looked at, and of conduction the first.
        images: that the settings name.

    Raises:
        UserError: an unknown layer, a model without feature maps, or conduction for one that does not conduct.
    """
    device = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
    kind = next((tensor.dtype for tensor in model.parameters()), torch.float32)
    zeros = torch.zeros(1, *input_shape, device=device, dtype=kind)
    try:
        layers = find_layers(name, model, zeros, settings.layers)
    except UserError:
        raise
    except Exception as error:  # whatever a model raises
        raise survey_failed(name, error) from error
    survey = _Survey(layers, Preprocessing.of(model), conducts(model))
    word = _canonical(settings.conduction[0])
    if word != "learned" and not survey.conducts:
        raise UserError(f"conduction: {name} has no heat conduction")
    base = _case(name, (input_shape[1], input_shape[2]), settings)
    word = word if survey.conducts else ""
    return _job(base, survey, known, None, word, survey.preprocessing, settings, images)


def _job(
    base: Case,
    survey: _Survey,
    known: Weights,
    path: Path | None,
    conduction: str,
    leader: Preprocessing,
    settings: ErfSettings,
    images: ImageSet,
) -> Job:
    """The job of one model at one size with one set of weights; ``leader`` decides how photographs are cut."""
    how = "squash" if settings.protocol == "replknet" else "crop"
    cut = Cut(base.resolution, leader.interpolation, leader.crop_pct, how)  # type: ignore[arg-type]
    digest = images.digest(cut)[:12]
    cases = tuple(_with_analysis(base, layer, known, settings, digest, conduction) for layer in survey.layers)
    return Job(base, tuple(survey.layers), cases, known, path, conduction, survey.preprocessing, cut)


def _case(name: str, size: tuple[int, int], settings: ErfSettings) -> Case:
    device = "cpu" if settings.device == "auto" else settings.device
    return Case(subject=name, resolution=size, dtype=settings.dtype, mode="erf", device=device)


def _with_analysis(
    base: Case, layer: Layer, weights: Weights, settings: ErfSettings, digest: str, conduction: str
) -> Case:
    analysis: dict[str, Any] = {
        "layer": layer.name,
        "weights": weights.short,
        "protocol": settings.protocol,
        "images": digest,
    }
    if conduction not in ("", "learned"):
        analysis["conduction"] = conduction
    return base.model_copy(update={"analysis": analysis})


def _survey(name: str, size: tuple[int, int], settings: ErfSettings) -> _Survey:
    """Look at a model on the meta device, or for real where it cannot be there."""
    case = _case(name, size, settings)
    for device in ("meta", "cpu"):
        built = build(case, device)
        colours = built.input_shape[0]
        if colours not in (1, 3):
            raise UserError(f"model {name!r} takes images of {colours} channels: photographs have 3, or 1 as grey")
        try:
            layers = find_layers(name, built.model, torch.zeros(1, *built.input_shape, device=device), settings.layers)
            return _Survey(layers, Preprocessing.of(built.model), conducts(built.model))
        except UserError:
            raise
        except Exception as error:  # whatever a model raises; many cannot compute without real numbers
            failure = error
    raise survey_failed(name, failure) from failure


def _weights(settings: ErfSettings) -> dict[str, list[tuple[Weights, Path | None]]]:
    """The sets of weights of every model; a file is read once to name it by its hash."""
    chosen: dict[str, list[tuple[Weights, Path | None]]] = {name: [] for name in settings.models}
    for word in settings.weights:
        if word == "random":
            for name, sets in chosen.items():
                if find_subject(name).file is not None:
                    raise UserError(
                        f"--weights random: {name} is trained; {name.partition(':')[0]} is it with random ones"
                    )
                sets.append((RANDOM, None))
            continue
        model, sign, file = word.partition("=")
        name = model
        if not sign or name not in chosen:
            name, file = settings.models[0], word
        path = Path(file)
        if not path.exists():
            if sign and file == word:
                models = ", ".join(settings.models)
                raise UserError(
                    f"--weights {word}: {model!r} is none of the models here ({models}), and no file has the whole name"
                )
            raise UserError(f"--weights {word}: no such file (FILE, MODEL=FILE or random)")
        chosen[name].append((identify(path), path))
    # a model is built with its own weights, whatever they are
    return {name: list(dict.fromkeys(sets)) or [(find_subject(name).weights, None)] for name, sets in chosen.items()}


def _check_weights(weights: dict[str, list[tuple[Weights, Path | None]]], settings: ErfSettings) -> None:
    """Load every file once: one of another model is to be found before anything is measured."""
    for name, sets in weights.items():
        for _, path in sets:
            if path is not None:
                model = build(_case(name, settings.resolutions[0], settings)).model
                try:
                    load_weights(model, path, trust_pickle=settings.trust_pickle)
                except CheckpointError as error:
                    raise UserError(f"--weights {error}") from None


def _canonical(conduction: str) -> str:
    """The same word for the same k."""
    k = constant_k(conduction)
    return "learned" if k is None else "none" if k == 0 else f"{k:g}"


def _notes(settings: ErfSettings, weights: dict[str, list[tuple[Weights, Path | None]]]) -> list[str]:
    random = [name for name, sets in weights.items() if all(path is None for _, path in sets)]
    trained = any(path is not None for sets in weights.values() for _, path in sets)
    if trained and random:
        return [f"{', '.join(random)}: random weights, beside trained ones: give --weights {random[0]}=FILE"]
    return []
