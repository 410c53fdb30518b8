"""What an evaluation will do: settings in, cases out, everything that can be wrong found before the first image."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from timm.data import create_transform, resolve_data_config
from torch import nn

from vheatbench.case import Case, DeviceType, DType, kind_of
from vheatbench.errors import UserError
from vheatbench.measure.outputs import logits_of, tensors_of
from vheatbench.studies.accuracy.classes import ClassMap, map_classes
from vheatbench.studies.images.labelled import LabelledImages, fingerprint_of, open_labelled
from vheatbench.subjects.built import Built
from vheatbench.subjects.catalog import build, find_subject
from vheatbench.subjects.heat_operator import FrequencyResize
from vheatbench.subjects.vheat import VHeat
from vheatbench.subjects.weights import LoadedCheckpoint, WeightSet, identify, load_weights
from vheatbench.suites import Resolution
from vheatbench.text import one_line


@dataclass(frozen=True)
class EvalSettings:
    """What the user asked for. Paths as they were typed."""

    model: str
    data: str
    weights: str | None = None
    resolutions: tuple[Resolution, ...] = ()
    """Height and width; none: the model's own."""
    batch: int = 64
    dtype: DType = "float32"
    device: Literal["auto"] | DeviceType = "cpu"
    """``auto``: a GPU, if there is one."""
    use: WeightSet = "model"
    rule: FrequencyResize = "bicubic"
    class_map: str | None = None
    num_classes: int | None = None
    crop_pct: float | None = None
    split: str | None = None
    limit: int | None = None
    trust_pickle: bool = False
    save_every: int = 20
    """Batches of each process after which the answers so far are on disk."""

    skip_broken: bool = False
    """Leave images that cannot be read out, and say so in the record."""
    workers: int | None = None
    """Processes of each process that read images, 0 to read them in between; None: 0 on a CPU, up to 8 beside a GPU."""

    @property
    def readers(self) -> int:
        """The number of :attr:`workers`."""
        if self.workers is not None:
            return self.workers
        # beside a CPU that computes, further processes only take its cores
        return min(8, len(os.sched_getaffinity(0))) if self.device == "cuda" else 0


@dataclass(frozen=True)
class Plan:
    """An evaluation ready to begin."""

    settings: EvalSettings
    images: LabelledImages
    classes: ClassMap
    cases: tuple[Case, ...]
    """One for each resolution."""
    weights: str
    """In words."""


@dataclass(frozen=True)
class Ready:
    """A model with its weights, and what turns a picture into its input."""

    model: nn.Module
    built: Built
    loaded: LoadedCheckpoint | None
    transform: Any
    mode: str
    """Of Pillow: RGB, or L for a model of one channel."""
    preprocessing: dict[str, Any]


def make_plan(settings: EvalSettings, load: bool = True) -> Plan:
    """Look at data, weights and model, at every size.

    Args:
        settings: for a device that is there.
        load: see that the weights fit; not where they are loaded next.

    Raises:
        UserError: no such model, data or weights; a size that the model cannot take; classes that do not match.
    """
    if kind_of(settings.model) != "model":
        raise UserError(f"--model {settings.model}: no model; 'vheatbench models' lists those that there are")
    subject = find_subject(settings.model)
    images = open_labelled(settings.data, settings.split)
    limited = images.limited(settings.limit)
    weights = subject.weights if settings.weights is None else identify(Path(settings.weights))
    options = {} if settings.num_classes is None else {"num_classes": settings.num_classes}
    sizes = settings.resolutions or (subject.own_size(options),)
    probes = [_case(settings, size, {}) for size in dict.fromkeys(sizes)]
    widths = [_outputs(settings.model, probe) for probe in probes]
    classes = map_classes(images, widths[0], None if settings.class_map is None else Path(settings.class_map))
    labels = tuple(classes.outputs[target] for target in limited.targets)
    analysis: dict[str, Any] = {"data": _digest(limited, labels), "weights": weights.short}
    usual = {"use": "model", "rule": "bicubic", "crop_pct": None}
    asked = asdict(settings)
    analysis |= {key: asked[key] for key, value in usual.items() if asked[key] != value}
    cases = tuple(_case(settings, probe.resolution, analysis) for probe in probes)
    if load:
        prepare(cases[0], settings)  # weights that do not fit are to be found now
    return Plan(settings, limited, classes, cases, weights.words)


def prepare(case: Case, settings: EvalSettings) -> Ready:
    """Build the case's model on the CPU, load its weights, and bring it into its deploy form.

    Raises:
        UserError: the weights do not fit.
    """
    built = build(case)
    model = built.model
    loaded = None
    path = None if settings.weights is None else Path(settings.weights)
    if path is None and isinstance(model, VHeat):
        path = find_subject(settings.model).file  # the same weights, resized by the rule
    if path is not None:
        loaded = load_weights(model, path, settings.use, settings.rule, settings.trust_pickle)
    channels = built.input_shape[0]
    asked = {"input_size": tuple(built.input_shape), "crop_pct": settings.crop_pct}
    config = resolve_data_config(asked, model=model)
    for key in ("mean", "std"):  # a model of grey images without a configuration of its own
        if len(config[key]) != channels:
            config[key] = (sum(config[key]) / len(config[key]),) * channels
    kept = ("input_size", "interpolation", "mean", "std", "crop_pct", "crop_mode")
    preprocessing = {key: config[key] for key in kept}
    transform = create_transform(**preprocessing, is_training=False)
    if isinstance(model, VHeat) and model.deployed_for is None:
        # the same function of the image with less to compute, and what the published throughput means
        model.deploy(case.resolution)
        built.facts["form"] = "deploy form"
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in preprocessing.items()}
    return Ready(model.eval().requires_grad_(False), built, loaded, transform, "L" if channels == 1 else "RGB", plain)


def _case(settings: EvalSettings, size: tuple[int, int], analysis: dict[str, Any]) -> Case:
    options = {} if settings.num_classes is None else {"num_classes": settings.num_classes}
    return Case(
        subject=settings.model,
        resolution=size,
        batch=settings.batch,
        dtype=settings.dtype,
        mode="eval",
        device="cpu" if settings.device == "auto" else settings.device,
        options=options,
        analysis=analysis,
    )


def _outputs(name: str, case: Case) -> int:
    """Width of the head, by a forward pass without data where the model allows it."""
    for device in ("meta", "cpu"):
        built = build(case, device)
        if built.input_shape[0] not in (1, 3):
            raise UserError(f"model {name!r} takes images of {built.input_shape[0]} channels: pictures have 3, or 1")
        try:
            with torch.inference_mode():
                output = built.model.eval()(torch.zeros(1, *built.input_shape, device=device))
        except Exception as error:  # many models cannot compute without real numbers
            failure = error
            continue
        logits = logits_of(output) if tensors_of(output) else None
        if logits is None or logits.ndim != 2:
            what = f"a {type(output).__name__} without a tensor" if logits is None else f"shape {tuple(logits.shape)}"
            raise UserError(f"model {name!r} returns {what}, not one row of logits per image")
        if logits.shape[1] < 2:
            raise UserError(f"model {name!r} has a head of {logits.shape[1]} outputs: nothing to tell apart")
        return int(logits.shape[1])
    reason = one_line(str(failure)) or type(failure).__name__
    raise UserError(f"model {name!r} cannot take {case.size} inputs: {reason}") from failure


def _digest(images: LabelledImages, labels: tuple[int, ...]) -> str:
    return fingerprint_of([(images.fingerprint,), ("labels", labels)])[:12]
