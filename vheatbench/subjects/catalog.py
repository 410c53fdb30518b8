"""From a name to something that can be measured: aliases, every timm model, and the user's own."""

from __future__ import annotations

import fnmatch
import functools
import importlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import timm
import timm.layers
import torch
from timm.models import is_model, list_models, model_entrypoint
from timm.utils import reparameterize_model
from torch import nn

import vheatbench.subjects.official  # noqa: F401  (registers vHeat as its authors wrote it)
from vheatbench.case import OWN_WEIGHTS, Case
from vheatbench.errors import UserError
from vheatbench.subjects import products
from vheatbench.subjects.built import Built
from vheatbench.subjects.fused import fuses
from vheatbench.subjects.heat_operator import HeatOperator
from vheatbench.subjects.input_size import Sizing, fit_input_size, own_size
from vheatbench.subjects.meta import on_meta
from vheatbench.subjects.micro import SHIPPED, TRAINED, trained_name
from vheatbench.subjects.operators import build_operator, list_operators
from vheatbench.subjects.weights import RANDOM, Weights, identify
from vheatbench.text import did_you_mean, first_line_of

ALIASES = {
    "vheat-t": "vheat_tiny",
    "vheat-s": "vheat_small",
    "vheat-b": "vheat_base",
    "vheat-t-official": "vheat_tiny_official",
    "vheat-s-official": "vheat_small_official",
    "vheat-b-official": "vheat_base_official",
    "swin-t": "swin_tiny_patch4_window7_224",
    "swin-s": "swin_small_patch4_window7_224",
    "swin-b": "swin_base_patch4_window7_224",
    "swinv2-t": "swinv2_tiny_window8_256",
    "swinv2-s": "swinv2_small_window8_256",
    "swinv2-b": "swinv2_base_window8_256",
    "vit-t": "vit_tiny_patch16_224",
    "vit-s": "vit_small_patch16_224",
    "vit-b": "vit_base_patch16_224",
    "deit-t": "deit_tiny_patch16_224",
    "deit-s": "deit_small_patch16_224",
    "deit-b": "deit_base_patch16_224",
    "dinov3-s": "vit_small_patch16_dinov3",
    "dinov3-b": "vit_base_patch16_dinov3",
    "convnext-t": "convnext_tiny",
    "convnext-s": "convnext_small",
    "convnext-b": "convnext_base",
    "mambaout-t": "mambaout_tiny",
    "vheat-micro": "vheat_micro",
    "vheat-mini": "vheat_mini",
    "swin-micro": "swin_micro",
    "vit-micro": "vit_micro",
}

DOWNSTREAM = ("maskrcnn:", "upernet:")
"""What stands before the backbone's name in that of a detector or segmenter."""


@dataclass(frozen=True)
class Subject:
    """A name that was understood: what it is called and what builds it."""

    name: str
    full_name: str
    """timm's name or ``package.module:name``."""
    factory: Callable[..., nn.Module]
    default_size: tuple[int, int] | None
    family: str
    """Module that defines the model, e.g. ``timm.models.swin_transformer``."""
    form: str | None = None
    """What is measured in every mode, for a subject that has one form only; such a one is not trained."""
    task: str | None = None
    """What a detector or segmenter does beyond its backbone."""
    weights: Weights = RANDOM
    """That it is built with."""
    file: Path | None = None
    """Of its weights, where this package ships them."""

    def own_size(self, options: dict[str, Any] | None = None) -> tuple[int, int]:
        """Height and width that the model is made for, see :func:`vheatbench.subjects.input_size.own_size`."""
        return own_size(self.default_size, self.factory, options or {})


def find_subject(name: str) -> Subject:
    """Look a name up.

    Takes an alias (``vheat-t``), any timm model name with or without a pretrained tag, or
    ``package.module:name`` for a function or class of the user's that returns a module, or for a model
    that the module registers in timm. The working directory is searched for such modules. ``maskrcnn:`` and
    ``upernet:`` before a name put the detector or segmenter of the papers over that backbone. A small model that this
    package ships trained is ``vheat-micro:photographs``.

    Raises:
        UserError: unknown name, with near matches; a module that cannot be imported.
    """
    if name.startswith(DOWNSTREAM):
        from vheatbench.subjects.dense import downstream_subject

        full_name, factory, form, task = downstream_subject(name)
        return Subject(name, full_name, factory, None, "vheatbench.subjects.dense", form, task)
    trained = trained_name(name)
    if trained is not None:
        return _trained_subject(name, trained)
    if ":" in name:
        return _own_subject(name)
    full_name = ALIASES.get(name.lower(), name)
    base = full_name.split(".")[0]
    if not is_model(base):
        hint = did_you_mean(name.lower(), [*ALIASES, *list_models()])
        raise UserError(
            f"unknown model {name!r}{f' ({hint})' if hint else ''}; 'vheatbench models [PATTERN]' lists all"
        )
    return _timm_subject(name, full_name)


def list_subjects(pattern: str = "*") -> list[tuple[str, str]]:
    """Pairs of (timm name or operator, alias or empty) whose name or alias matches a wildcard pattern.

    ``maskrcnn:PATTERN`` and ``upernet:PATTERN`` list what may stand behind them; backbones without maps at strides 4 to
    32 are refused only when they are built, for building all takes minutes.
    """
    prefix = next((start for start in DOWNSTREAM if f"{pattern.rstrip('*')}:".lower().startswith(start)), None)
    if prefix is not None:
        inner = list_subjects(pattern[len(prefix) :] or "*")
        return [(prefix + name, alias and prefix + alias) for name, alias in inner if is_model(name)]
    alias_of = {full: alias for alias, full in ALIASES.items()}
    alias_of |= {name: name.replace("_", "-").replace(".", ":") for name in SHIPPED}
    if not any(sign in pattern for sign in "*?["):
        pattern = f"*{pattern}*"
    operators = [(name, "") for name in list_operators(pattern.lower())]
    return operators + [
        (name, alias_of.get(name, ""))
        for name in [*list_models(), *SHIPPED]
        if fnmatch.fnmatch(name, pattern.lower()) or fnmatch.fnmatch(alias_of.get(name, ""), pattern.lower())
    ]


def build(case: Case, device: torch.device | str = "cpu") -> Built:
    """Build a case's model or operator with random weights from a fixed seed, in the form its mode measures.

    ``infer`` takes the deploy form where the model has one (vHeat's ``deploy()``, timm's
    reparameterisation); the other modes the training form. On ``torch.device("meta")`` nothing
    is allocated: enough for counting and for checking that a size is possible.

    Raises:
        UserError: the subject is unknown or cannot take the resolution.
    """
    if case.kind == "operator":
        built = build_operator(case, device)
        own, taken = own_products(case, *built.model.modules())
        return replace(built, facts=built.facts | taken, warnings=[*built.warnings, *own])
    subject = find_subject(case.subject)
    if subject.form is not None and case.trains:
        raise UserError(
            f"{case.subject} is measured in modes infer and forward, not {case.mode}: its losses need annotated images"
        )
    # One policy for every model, set before any is built: timm reads it at construction, and by default
    # runs ViT with fused attention but Swin without.
    timm.layers.set_fused_attn(enable=case.fused_attention, experimental=case.fused_attention)
    torch.manual_seed(0)
    device = torch.device(device)
    sizing = _sizing(subject, case)
    kwargs = {**case.options, **sizing.kwargs}
    model = _construct(subject, kwargs, device).train(case.trains)
    form = "training form"
    if subject.form is not None:
        form = subject.form
    elif case.mode == "infer":
        if device.type == "meta" and _fusable(model):
            # timm's reparameterisation computes with real weights
            model = _construct(subject, kwargs, torch.device("cpu")).eval()
        model, form = _deploy(model)
        model.to(device)
    facts: dict[str, Any] = {
        "name": subject.full_name,
        "family": subject.family,
        "form": form,
        "weights": subject.weights.words,
        "arguments": {key: _plain(value) for key, value in kwargs.items()},
        "input": {"how": sizing.how, "changed": sizing.changed},
        "attention": _describe_attention(model),
    }
    if subject.task is not None:
        facts["task"] = subject.task
    own, taken = own_products(case, *model.modules())
    return Built(model, (sizing.channels, *case.resolution), facts | taken, [*sizing.warnings, *own])


OWN_PRODUCTS = (
    "its linear layers are written for this processor (oneDNN with packed weights, with bias and residual inside the "
    "product, or torch's own where that is faster), where timm's models and the other operators call torch's own: "
    "part of any speed difference is due to this (vheat-t-official does without)"
)


def own_products(case: Case, *modules: nn.Module) -> tuple[list[str], dict[str, Any]]:
    """A warning where a comparison with others would also compare implementations of the same product, and which."""
    ours = any(isinstance(module, HeatOperator) and module.backend != "official" for module in modules)
    dtype = getattr(torch, case.dtype) if case.dtype != "tf32" else torch.float32
    if not (ours and case.device == "cpu" and case.engine == "eager" and fuses(torch.empty(0, dtype=dtype))):
        return [], {}
    return [OWN_PRODUCTS], {"products": products.describe(case.trains)} if dtype == torch.float32 else {}


_SIZINGS: dict[tuple[str, str], Sizing] = {}


def _sizing(subject: Subject, case: Case) -> Sizing:
    """How the subject takes the size; found once per process, for a worker builds its model twice."""
    key = (subject.full_name, f"{case.resolution} {case.options}")
    if key not in _SIZINGS:
        _SIZINGS[key] = fit_input_size(
            subject.name, subject.factory, subject.default_size, case.resolution, case.options
        )
    return _SIZINGS[key]


def _construct(subject: Subject, kwargs: dict[str, Any], device: torch.device) -> nn.Module:
    try:
        if device.type != "meta":
            return subject.factory(**kwargs)
        try:
            with on_meta():
                return subject.factory(**kwargs)
        except (RuntimeError, NotImplementedError):  # it computes with real numbers while it is built
            return subject.factory(**kwargs).to(device)
    except TypeError as error:
        raise UserError(f"model {subject.name!r} cannot be built with {kwargs}: {first_line_of(error)}") from error


def _deploy(model: nn.Module) -> tuple[nn.Module, str]:
    own = getattr(model, "deploy", None)
    if callable(own):
        deployed = own()
        return deployed if isinstance(deployed, nn.Module) else model, "deploy form"
    if _fusable(model):
        return reparameterize_model(model, inplace=True), "deploy form (reparameterised)"
    return model, "as trained (no deploy form)"


def _fusable(model: nn.Module) -> bool:
    # RepVGG's own code has a flag of this name, which is no way to deploy
    return not callable(getattr(model, "deploy", None)) and any(
        hasattr(module, name) for module in model.modules() for name in ("reparameterize", "fuse", "switch_to_deploy")
    )


def _describe_attention(model: nn.Module) -> str:
    flags = [bool(m.fused_attn) for m in model.modules() if hasattr(m, "fused_attn")]
    if not flags:
        return "no attention module of timm's"
    if all(flags):
        return f"fused in all {len(flags)} modules"
    return f"fused in {sum(flags)} of {len(flags)} modules"


def _timm_subject(name: str, full_name: str) -> Subject:
    entry = model_entrypoint(full_name.split(".")[0])
    cfg = timm.get_pretrained_cfg(full_name, allow_unregistered=True)
    size = cfg.input_size[-2:] if cfg is not None and cfg.input_size else None

    def factory(**kwargs: Any) -> nn.Module:
        return timm.create_model(full_name, **kwargs)

    return Subject(name, full_name, factory, size, entry.__module__)


@functools.lru_cache(maxsize=32)  # its file is hashed
def _trained_subject(name: str, full_name: str) -> Subject:
    """A model with the weights of it that are shipped."""
    subject = _timm_subject(name, full_name)

    def factory(**kwargs: Any) -> nn.Module:
        # there is no file to read where nothing is computed
        on_device = torch.get_default_device().type != "meta"
        return timm.create_model(full_name, pretrained=on_device, **kwargs)

    file = TRAINED / f"{full_name}.safetensors"
    short = identify(file).short
    return replace(subject, factory=factory, weights=Weights(f"{OWN_WEIGHTS[0]}{short})", short), file=file)


def _own_subject(name: str) -> Subject:
    module_name, _, attribute = name.partition(":")
    untrained = ALIASES.get(module_name.lower(), module_name)
    if is_model(untrained):
        here = [own.partition(".")[2] for own in SHIPPED if own.partition(".")[0] == untrained]
        raise UserError(
            f"model {name!r}: no weights {attribute!r} of {module_name} are shipped ({', '.join(here) or 'none are'}); "
            f"files are given by --weights, where a command has it"
        )
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever the user's module raises while it is imported
        reason = f"{type(error).__name__}: {first_line_of(error)}"
        raise UserError(f"model {name!r}: cannot import {module_name!r} ({reason})") from error
    if is_model(attribute):
        return _timm_subject(name, attribute)
    factory = getattr(module, attribute, None)
    if not callable(factory):
        raise UserError(f"model {name!r}: {module_name!r} has no function or class {attribute!r}")

    def checked(**kwargs: Any) -> nn.Module:
        model = factory(**kwargs)
        if not isinstance(model, nn.Module):
            raise UserError(f"model {name!r}: {attribute} returned a {type(model).__name__}, not a torch module")
        return model

    own = Weights(OWN_WEIGHTS[1], "own")
    return Subject(name, name, checked, None, module_name, weights=own)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
