"""Feature maps of any layer of any model, as (B, C, H, W), several from one forward pass."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vheatbench.errors import UserError
from vheatbench.measure.outputs import tensors_of
from vheatbench.studies.erf.centre import Axis, Geometry, Size
from vheatbench.text import one_line, some


@dataclass(frozen=True)
class Layer:
    """A layer whose output is a map, and where its cells look."""

    name: str
    """Such as ``stages.3``."""
    index: int | None
    """Among what the model's ``forward_intermediates`` gives; None: the module's output, caught by a hook."""
    depth: int
    """Position among the layers that were asked for, from 0, in the order in which the model computes them."""
    grid: Size
    axes: tuple[Axis, Axis]
    """Of its cells, down and across."""
    how_centre: str
    """In words, how the axes were found."""


def find_layers(name: str, model: nn.Module, images: Tensor, wanted: Sequence[str]) -> list[Layer]:
    """The layers that ``wanted`` names, in the order in which the model computes them.

    Args:
        name: of the model, for messages.
        model: in evaluation mode; may be on the meta device.
        images: (1, C, H, W) on its device.
        wanted: each ``last``, ``all``, an index such as ``2`` or ``-1`` into the model's own list of feature maps
            (stages, of plain transformers blocks), or a module's name such as ``stages.2.blocks.3``.

    Raises:
        UserError: an unknown layer (those that there are are listed), one whose output is no map, or a model that
            has none.
    """
    image: Size = (int(images.shape[2]), int(images.shape[3]))
    geometry = Geometry(image)
    with torch.no_grad():
        with geometry.watching(model):
            listed = _listed(model, images)
        if not listed:
            raise UserError(f"model {name!r} gives no feature maps: no layer's output has rows and columns")
        chosen = _choose(name, model, list(listed), wanted)
        order: list[str] = []
        maps = read_features(model, images, [(layer, listed.get(layer)) for layer in chosen], order.append)
    ranks = {layer: rank for rank, layer in enumerate(order)}
    # what the model lists without naming its module keeps its place in the list
    chosen_maps = sorted(zip(chosen, maps, strict=True), key=lambda pair: ranks.get(pair[0], -1))
    layers = []
    for depth, (layer, features) in enumerate(chosen_maps):
        grid = (int(features.shape[2]), int(features.shape[3]))
        layers.append(Layer(layer, listed.get(layer), depth, grid, geometry.axes(grid), geometry.how(grid)))
    return layers


def read_features(
    model: nn.Module,
    images: Tensor,
    layers: Sequence[tuple[str, int | None]],
    computed: Callable[[str], None] | None = None,
) -> list[Tensor]:
    """Maps (B, C, H, W) of the layers, each given as (name, index), from one forward pass over ``images``.

    What the model's list gives are the outputs of its stages or blocks without the model's final norm.
    ``computed`` is called with the names in the order in which the model computes them.

    Raises:
        UserError: a module's output has no rows and columns, or it was not called.
    """
    modules = dict(model.named_modules())
    caught: dict[str, Any] = {}
    indices = [index for _, index in layers if index is not None]
    with ExitStack() as hooks:
        for layer, index in layers:
            if layer in modules and (index is None or computed is not None):
                hook = modules[layer].register_forward_hook(_catch(caught, layer, computed))
                hooks.callback(hook.remove)
        listed: dict[int, Tensor] = {}
        if indices:
            early = len(indices) == len(layers)
            maps = _intermediates(model, images, sorted(set(indices)), stop_early=early)
            listed = dict(zip(sorted(set(indices)), maps, strict=True))
        else:
            getattr(model, "forward_features", model)(images)
    features = []
    for layer, index in layers:
        if index is not None:
            features.append(listed[index])
        elif layer in caught:
            features.append(as_map(layer, caught[layer], model, (int(images.shape[2]), int(images.shape[3]))))
        else:
            raise UserError(f"layer {layer!r} is not called when the model computes its features")
    return features


def as_map(layer: str, output: Any, model: nn.Module, image: Size) -> Tensor:
    """A module's output as (B, C, H, W): from (B, C, H, W), (B, H, W, C), or tokens (B, N, C).

    Of several tensors, in whatever they are packed, the first is taken.

    Raises:
        UserError: it is none of these, or both of the first two would fit.
    """
    output = next(iter(tensors_of(output).values()), None)
    if not isinstance(output, Tensor) or output.ndim not in (3, 4):
        raise UserError(f"layer {layer!r} gives no map with rows and columns")
    if output.ndim == 3:
        prefix = int(getattr(model, "num_prefix_tokens", 0))
        grid = _token_grid(model, output.shape[1] - prefix, image)
        if grid is None:
            raise UserError(f"layer {layer!r}: its {output.shape[1]} tokens do not fill rows and columns")
        return output[:, prefix:].unflatten(1, grid).permute(0, 3, 1, 2)
    first = _fits((int(output.shape[2]), int(output.shape[3])), image)
    last = _fits((int(output.shape[1]), int(output.shape[2])), image)
    if first == last:
        why = "could be (B, C, H, W) as well as (B, H, W, C)" if first else "has another aspect than the image"
        raise UserError(f"layer {layer!r}: its output {tuple(output.shape)} {why}")
    return output if first > last else output.permute(0, 3, 1, 2)


def _listed(model: nn.Module, images: Tensor) -> dict[str, int | None]:
    """The model's own feature maps, by name, with their index where the model gives them itself."""
    info = getattr(model, "feature_info", None)
    entries = [dict(entry) for entry in getattr(info, "info", info) or [] if isinstance(entry, dict)]
    names = [str(entry["module"]) for entry in entries if entry.get("module")]
    if hasattr(model, "forward_intermediates"):
        count = len(_intermediates(model, images, None))
        if len(names) != count or len(set(names)) != count:
            names = [f"intermediate.{i}" for i in range(count)]
        return {name: i for i, name in enumerate(names)}
    modules = dict(model.named_modules())
    candidates = [name for name in names if name in modules] or [
        name for name in modules if name and name.count(".") < 2
    ]
    image: Size = (int(images.shape[2]), int(images.shape[3]))
    return dict.fromkeys(_giving_maps(model, images, {name: modules[name] for name in candidates}, image))


def _giving_maps(model: nn.Module, images: Tensor, candidates: dict[str, nn.Module], image: Size) -> list[str]:
    """Those of the modules that give maps, in the order in which they are computed."""
    found: list[str] = []
    caught: dict[str, Any] = {}
    with ExitStack() as hooks:
        for name, module in candidates.items():
            hooks.callback(module.register_forward_hook(_catch(caught, name, found.append)).remove)
        getattr(model, "forward_features", model)(images)
    maps = []
    for name in dict.fromkeys(found):
        try:
            features = as_map(name, caught[name], model, image)
        except UserError:
            continue
        if features.shape[2] > 1 or features.shape[3] > 1:
            maps.append(name)
    return maps


def _intermediates(
    model: nn.Module, images: Tensor, indices: list[int] | None, stop_early: bool = False
) -> list[Tensor]:
    maps = model.forward_intermediates(  # type: ignore[operator]
        images, indices=indices, output_fmt="NCHW", intermediates_only=True, stop_early=stop_early
    )
    return list(maps)


def _catch(
    caught: dict[str, Any], layer: str, computed: Callable[[str], None] | None
) -> Callable[[nn.Module, Any, Any], None]:
    def hook(module: nn.Module, args: Any, output: Any) -> None:
        caught[layer] = output
        if computed is not None:
            computed(layer)

    return hook


def _choose(name: str, model: nn.Module, listed: list[str], wanted: Sequence[str]) -> list[str]:
    modules = {path for path, _ in model.named_modules() if path}
    chosen: list[str] = []
    for word in wanted:
        if word == "all":
            chosen += listed
        elif word == "last":
            chosen.append(listed[-1])
        elif word.lstrip("-").isdecimal():
            if not -len(listed) <= int(word) < len(listed):
                raise UserError(f"model {name!r} has no layer {word}: 0 to {len(listed) - 1} are {some(listed, 6)}")
            chosen.append(listed[int(word)])
        elif word in listed or word in modules:
            chosen.append(word)
        else:
            near = difflib.get_close_matches(word, sorted(modules), n=3, cutoff=0.6)
            hint = f" (did you mean {', '.join(near)}?)" if near else ""
            raise UserError(
                f"model {name!r} has no layer {word!r}{hint}: last, all, 0 to {len(listed) - 1} "
                f"({some(listed, 6)}), or the name of a module"
            )
    return list(dict.fromkeys(chosen))


def _token_grid(model: nn.Module, tokens: int, image: Size) -> Size | None:
    feat_size = getattr(getattr(model, "patch_embed", None), "dynamic_feat_size", None)
    if callable(feat_size):
        height, width = feat_size(image)
        if height * width == tokens:
            return int(height), int(width)
    height = round((tokens * image[0] / image[1]) ** 0.5) if tokens > 0 else 0
    if height < 1 or tokens % height or not _fits((height, tokens // height), image):
        return None
    return height, tokens // height


def _fits(grid: Size, image: Size) -> int:
    """How well a grid has the image's aspect: 2 exactly, 1 up to one cell, 0 not, or it is finer."""
    height, width = grid
    if height > image[0] or width > image[1]:
        return 0
    return 2 if height * image[1] == width * image[0] else int(abs(height - width * image[0] / image[1]) <= 1)


def survey_failed(name: str, error: Exception) -> UserError:
    """What to say where a model fails while its layers are looked for."""
    return UserError(f"model {name!r}: its layers cannot be found: {one_line(str(error)) or type(error).__name__}")
