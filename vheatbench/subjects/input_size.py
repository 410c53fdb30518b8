"""How a model is made to take another input size than the one it was designed for.

Every family of timm has its own way, and some ways silently change the model: a Swin built for 224 and
told not to be strict leaves its last stage unshifted at 512, and ``set_input_size`` replaces the window
of 7 by one of 16. So the way is chosen here, once, and what it changes is found by comparing the model
with the same model at its own size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from vheatbench.errors import UserError, is_out_of_memory
from vheatbench.subjects.meta import on_meta
from vheatbench.text import first_line_of

BY_IMG_SIZE = (
    "beit",
    "crossvit",
    "deit",
    "gcvit",
    "hiera",
    "maxxvit",
    "mvitv2",
    "swin_transformer",
    "swin_transformer_v2",
    "swin_transformer_v2_cr",
    "vision_transformer",
    "vision_transformer_sam",
)
"""Modules of timm whose models take ``img_size=(height, width)`` at construction and need it: for these a
forward pass at another size fails, or changes shifts, windows or position embeddings on the fly, or
(crossvit) resizes the image back to its own size.
(mvitv2 even passes on the meta device without it, and fails on a real one.) Our own models say the same of
themselves by the attribute ``sized_when_built``."""


@dataclass(frozen=True)
class Sizing:
    """The constructor arguments that make a model take a size, and what they change."""

    how: str
    kwargs: dict[str, Any]
    channels: int
    """Of the input image."""
    changed: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


Size = tuple[int, int]


def fit_input_size(
    name: str,
    factory: Callable[..., nn.Module],
    default_size: tuple[int, int] | None,
    size: tuple[int, int],
    options: dict[str, Any],
) -> Sizing:
    """Find how ``factory`` builds a model for inputs of ``size`` (height, width).

    Works on the meta device, so it costs no memory and a fraction of a second.

    Raises:
        UserError: no known way works; the message carries the model's own reason.
    """
    text = f"{size[0]}x{size[1]}"
    with on_meta():
        default = _try_build(factory, options)
    if isinstance(default, TypeError):
        raise UserError(f"model {name!r} cannot be built with {options}: {first_line_of(default)}")
    if isinstance(default, Exception):
        # A few models compute with real numbers while they are built: no comparison, only the size.
        return _by_trial(name, factory, size, options, default)
    _check_patches(name, default, size)
    if default_size == size or "img_size" in options:
        how = "built at its own size" if default_size == size else "img_size in the options"
        return Sizing(how, {}, _channels(default, size, options)[0])
    problem: Exception | None = None
    if not _sized_when_built(default):
        channels, problem = _channels(default, size, options, tried=True)
        if problem is None:
            return Sizing("takes any size as built", {}, channels)
    for kwargs in ({"img_size": size}, {"dynamic_img_size": True}):
        with on_meta():
            model = _try_build(factory, {**options, **kwargs})
        if isinstance(model, Exception):
            # "unexpected keyword" says nothing about the size: keep the model's own reason
            if problem is None or not isinstance(model, TypeError):
                problem = model
            continue
        channels, problem = _channels(model, size, options, tried=True)
        if problem is None:
            changed = _differences(default, model)
            how = ", ".join(f"{key}={value}" for key, value in kwargs.items())
            return Sizing(how, kwargs, channels, changed, _warnings(changed))
    assert problem is not None
    raise UserError(f"model {name!r} cannot take {text} inputs: {first_line_of(problem)}")


def own_size(default_size: tuple[int, int] | None, factory: Callable[..., nn.Module], options: dict[str, Any]) -> Size:
    """The size (height, width) that a model is made for: the catalog's, else what the model says of itself, else 224.

    A function of the user's is asked by building its model on the meta device.
    """
    if default_size is not None:
        return default_size
    with on_meta():
        model = _try_build(factory, options)
    cfg = getattr(model, "pretrained_cfg", None) or {}
    patches = getattr(model, "patch_embed", None)
    known = getattr(model, "img_size", None) or getattr(patches, "img_size", None) or (cfg.get("input_size") or ())[-2:]
    if isinstance(known, int):
        return known, known
    if isinstance(known, (tuple, list)) and len(known) == 2 and all(isinstance(side, int) for side in known):
        return known[0], known[1]
    return 224, 224


def _check_patches(name: str, model: nn.Module, size: tuple[int, int]) -> None:
    """Patch embeddings that do not pad drop the pixels that fill no patch, without a word: refuse."""
    embed = getattr(model, "patch_embed", None)
    patch, conv = getattr(embed, "patch_size", None), getattr(embed, "proj", None)
    if not isinstance(patch, tuple) or not isinstance(conv, nn.Conv2d) or getattr(embed, "dynamic_img_pad", False):
        return
    if conv.stride != patch:  # patches that overlap, as in PVT v2, and pad
        return
    if size[0] % patch[0] or size[1] % patch[1]:
        near = [max(p, round(side / p) * p) for side, p in zip(size, patch, strict=True)]
        raise UserError(
            f"model {name!r} cuts images into {_shape(patch)} patches and would drop the rest of a "
            f"{size[0]}x{size[1]} input: use {near[0]}x{near[1]}"
        )


def _by_trial(
    name: str, factory: Callable[..., nn.Module], size: tuple[int, int], options: dict[str, Any], why: Exception
) -> Sizing:
    note = f"not built on the meta device ({first_line_of(why)}), so what the size changes was not compared"
    for kwargs in ({"img_size": size}, {}):
        model = _try_build(factory, {**options, **kwargs})
        if isinstance(model, nn.Module):
            how = f"img_size={size}" if kwargs else "as built"
            return Sizing(how, dict(kwargs), _channels(model, size, options)[0], {}, [note])
        problem = model
    raise UserError(f"model {name!r} cannot be built: {first_line_of(problem)}")


def _try_build(factory: Callable[..., nn.Module], kwargs: dict[str, Any]) -> nn.Module | Exception:
    try:
        return factory(**kwargs).eval()
    except UserError:
        raise
    except Exception as error:  # whatever a model's constructor raises is the answer here
        if is_out_of_memory(error):  # which says nothing of the size
            raise
        return error


def _sized_when_built(model: nn.Module) -> bool:
    package, _, family = type(model).__module__.rpartition(".")
    return (package == "timm.models" and family in BY_IMG_SIZE) or getattr(model, "sized_when_built", False)


def _channels(
    model: nn.Module, size: Size, options: dict[str, Any], tried: bool = False
) -> tuple[int, Exception | None]:
    """Channels of the input, and why a forward pass fails; ``tried``: make one even where the channels are known.

    What the options or the model say counts, or its configuration where the first convolution agrees. Otherwise that,
    3, and what the convolutions take are tried: they are registered in any order, the first may lie in the neck.
    """
    stated = options.get("in_chans", getattr(model, "in_chans", None))
    cfg = getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None) or {}
    configured = (cfg.get("input_size") if isinstance(cfg, dict) else getattr(cfg, "input_size", None)) or ()
    convolutions = [module.in_channels for module in model.modules() if isinstance(module, nn.Conv2d)]
    candidates = list(dict.fromkeys([*configured[:1], 3, *convolutions]))
    if isinstance(stated, int):
        candidates = [stated]
    elif configured and convolutions[:1] == [configured[0]]:
        candidates = candidates[:1]
    if len(candidates) == 1 and not tried:
        return candidates[0], None
    problems = []
    for channels in candidates:
        problem = _forward_problem(model, channels, size)
        if problem is None:
            return channels, None
        problems.append(problem)
    return candidates[0], problems[0]


def _forward_problem(model: nn.Module, channels: int, size: Size) -> Exception | None:
    device = next((tensor.device for tensor in model.parameters()), torch.device("meta"))
    try:
        with torch.no_grad():
            model(torch.empty(1, channels, *size, device=device))
    except Exception as error:  # the model's own reason is what the user needs
        if is_out_of_memory(error):
            raise
        return error
    return None


def _differences(default: nn.Module, model: nn.Module) -> dict[str, str]:
    """What another size did to the model: resized parameters, windows and shifts."""
    changed = {}
    before = {key: tuple(value.shape) for key, value in default.named_parameters()}
    for key, value in model.named_parameters():
        if key in before and before[key] != tuple(value.shape):
            changed[key] = f"{_shape(before[key])} -> {_shape(tuple(value.shape))}"
    for attribute in ("window_size", "shift_size"):
        old, new = _geometry(default, attribute), _geometry(model, attribute)
        changes = dict.fromkeys(f"{old[key]} -> {new[key]}" for key in old if old[key] != new.get(key, old[key]))
        if changes:
            changed[attribute] = ", ".join(changes)
    return changed


def _geometry(model: nn.Module, attribute: str) -> dict[str, str]:
    """The window or shift of every module that has one, e.g. ``7x7``."""
    values = {}
    for name, module in model.named_modules():
        value = getattr(module, attribute, None)
        if isinstance(value, int):
            value = (value, value)
        if isinstance(value, (tuple, list)) and all(isinstance(v, int) for v in value):
            values[name] = _shape(tuple(value))
    return values


def _warnings(changed: dict[str, str]) -> list[str]:
    if "window_size" in changed:
        return [f"another input size changed the attention window: {changed['window_size']}"]
    return []


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(str(n) for n in shape)
