"""``vb.heat``: how heat moves in a vHeat, and how well its blocks conduct."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vheatbench.api.study import study_here, study_of_name
from vheatbench.errors import UserError
from vheatbench.store.read import Run
from vheatbench.store.schema import Record
from vheatbench.studies.heat.results import Diffusion, Diffusivity, diffusions_of, diffusivities_of

if TYPE_CHECKING:
    from torch import nn

    from vheatbench.studies.heat.model import HeatModel
    from vheatbench.studies.heat.run import Piece

__all__ = ["diffuse", "diffusivity"]


def diffuse(
    model: str | nn.Module = "vheat-t",
    layer: str = "stages.0.blocks.0",
    *,
    k: float | Literal["learned"] = "learned",
    channel: int | str = "median",
    source: tuple[float, float] = (0.5, 0.5),
    times: Sequence[float] | str = "0.3:200:8",
    size: int | tuple[int, int] | None = None,
    weights: str | Path | None = None,
    image: str | Path | None = None,
    name: str | None = None,
    results: str | Path | None = None,
) -> Diffusion:
    """The exact temperature of heat that begins in one cell and spreads by the k of one channel of one block.

    Args:
        model: a vHeat: a name, or a live module, which stays untouched.
        layer: a block.
        k: ``learned``, or a constant in cells squared.
        channel: whose k: ``median`` or a quantile such as ``q0.9`` of the channels' mean k, or a channel's number.
        source: where it begins, as share of height and width.
        times: mean k t in cells squared; or as the command takes them: ``FROM:TO:COUNT``, ``1x,10x`` for multiples of
            one application of the operator.
        size: of the image in pixels, or (height, width), of a name; by default the model's own. A live module is
            looked at as it is.
        weights: of a name: a checkpoint; by default its own, random or shipped ones.
        image: to lay the field over; by default a photograph shipped here.
        name: what a live module is called; by default as its class.
        results: folder that the run is kept in, for pages and tables.

    Returns:
        ``.frames`` (times, height, width) in cells, 1 in the source's cell at time 0; ``.times``, ``.mean_kt``, ``.k``.

    Raises:
        UserError: no vHeat, no such layer or channel, or a value that is not allowed.
        RuntimeError: what the model raised.
    """
    from vheatbench.studies.heat.diffusion import parse_source, parse_times
    from vheatbench.studies.heat.run import CAT, diffusion_pieces, png_of

    moments = times if isinstance(times, str) else ",".join(map(repr, times))
    where = ",".join(map(repr, source))
    asked = {
        "layers": layer,
        "channel": str(channel),
        "k": [str(k)],
        "source": where,
        "times": moments,
        "image": None if image is None else str(image),
    }

    def pieces(heat: HeatModel) -> list[Piece]:
        picture = CAT if image is None else Path(image)
        png = png_of(picture, heat.resolution)
        word = "learned" if k == "learned" else f"{float(k):g}"
        spot, when = parse_source(where), parse_times(moments)
        return diffusion_pieces(heat, layer, str(channel), [word], spot, when, png, picture.name)

    with _run("diffuse", model, asked, pieces, size, weights, name, results) as run:
        found = diffusions_of(run)[0]
    if len(found) > 1:
        raise UserError(f"layer {layer!r} is {len(found)} blocks: name one, such as {found[0].layer}")
    return found[0]


def diffusivity(
    model: str | nn.Module = "vheat-t",
    *,
    size: int | tuple[int, int] | None = None,
    weights: str | Path | None = None,
    name: str | None = None,
    results: str | Path | None = None,
) -> list[Diffusivity]:
    """The diffusivity k of every block of a vHeat: over frequencies, over channels, and what it does to them.

    Args:
        model: a vHeat: a name, or a live module, which stays untouched.
        size: as in :func:`diffuse`, like the next three.
        weights: of a name: a checkpoint.
        name: what a live module is called.
        results: folder that the run is kept in.

    Returns:
        A result for each block, from input to output: ``.mean_map`` (height, width) by frequency in cells squared,
        ``.channel_quantiles``, ``.decay_quantiles``; ``.record.metrics`` has the numbers.

    Raises:
        UserError: no vHeat, or one in the deploy form, which keeps the decay and not k.
        RuntimeError: what the model raised.
    """
    from vheatbench.studies.heat.run import diffusivity_pieces

    with _run("diffusivity", model, {}, diffusivity_pieces, size, weights, name, results) as run:
        return diffusivities_of(run)[0]


def _run(
    kind: str,
    model: str | nn.Module,
    asked: dict[str, Any],
    pieces: Any,
    size: int | tuple[int, int] | None,
    weights: str | Path | None,
    name: str | None,
    results: str | Path | None,
) -> AbstractContextManager[Run]:
    """The run, as a context: of a name by a worker, of a live module by what ``pieces`` gives of it."""
    if isinstance(model, str):
        settings = {
            "kind": kind,
            "model": model,
            "resolutions": [] if size is None else [size],
            "weights": None if weights is None else str(weights),
            **asked,
        }
        return study_of_name("heat", settings, f"heat-{kind}", "cpu", results)
    if size is not None or weights is not None:
        raise UserError("size and weights belong to names: a live module is looked at as it is")
    return _of_module(kind, model, pieces, name, results)


@contextlib.contextmanager
def _of_module(kind: str, model: nn.Module, pieces: Any, name: str | None, results: str | Path | None) -> Iterator[Run]:
    from vheatbench.api.live import untouched
    from vheatbench.studies.heat.run import measured

    with untouched(model, weights=False):
        model.cpu().float()  # as names are
        found: list[Piece] = pieces(_heat_model(model, name))

        def records(path: Path) -> Iterator[Record]:
            return (measured(piece, path) for piece in found)

        with study_here(f"heat-{kind}", [piece.case for piece in found], records, results) as run:
            yield run


def _heat_model(model: nn.Module, name: str | None) -> HeatModel:
    from vheatbench.api.weights import weights_of
    from vheatbench.studies.heat.model import HeatModel, heat_layers, image_size

    known, digest = weights_of(model)
    kind = type(model)
    facts = {
        "name": f"{kind.__module__}.{kind.__qualname__}",
        "form": "live module, as it was given",
        "weights": known.words,
        "weights_sha256": digest,
    }
    layers = heat_layers(model)
    return HeatModel(name or kind.__name__, image_size(model), layers, "", known.words, facts)
