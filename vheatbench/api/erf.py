"""``vb.erf``: where in the image a layer's centre looks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vheatbench.api.case import Device
from vheatbench.api.study import study_here, study_of_name
from vheatbench.case import DType, kind_of
from vheatbench.errors import UserError
from vheatbench.studies.erf.results import ErfResult, results_of

if TYPE_CHECKING:
    import numpy.typing as npt
    from PIL import Image
    from torch import nn

    Pictures = str | Path | Sequence[Image.Image] | npt.NDArray[Any]


def erf(
    model: str | nn.Module,
    images: Pictures | None = None,
    layer: int | str = -1,
    *,
    size: int | tuple[int, int] | None = None,
    weights: str | Path | None = None,
    conduction: float | Literal["learned"] = "learned",
    protocol: Literal["centre", "replknet"] = "centre",
    dtype: DType = "float32",
    device: Device = "auto",
    max_images: int = 50,
    target: float = 0.05,
    name: str | None = None,
    results: str | Path | None = None,
) -> ErfResult:
    """The effective receptive field of a layer: the mean of its centre's gradient with respect to the image.

    Luo et al. 2016; the rectified form of RepLKNet (Ding et al. 2022), about the pixel that the centre really looks at.
    A name is looked at in a process of its own, a live module here, and put back as it was. docs/erf.md says what the
    numbers mean.

    Args:
        model: an alias, a timm name, ``package.module:name``, or a live module that takes images of 1 or 3 channels.
        images: None for 10 photographs shipped here; a folder or file; ``"noise"`` or ``"noise:1/f"``. For a live
            module also pictures of PIL, or an array (n, height, width, 3) of 8 bits. They are cut to size and
            normalised as the model's configuration says, or as for ImageNet.
        layer: a place in the model's own list of feature maps (stages, of plain transformers blocks), or the name of a
            module, such as ``stages.2.blocks.3``.
        size: of the image in pixels, or (height, width); by default the model's own.
        weights: of a name: a checkpoint; by default its own, random or shipped ones.
        conduction: of vHeat: a constant k in cells squared in place of the learned one, 0 for none.
        protocol: ``replknet`` for exactly RepLKNet's rule.
        dtype: below 32 bits by autocast.
        device: ``cpu``, ``cuda``, or ``auto``: a GPU if there is one; of a live module where it is.
        max_images: at most.
        target: relative standard error at which there are enough images.
        name: what a live module is called; by default as its class.
        results: folder that the run is kept in, for pages and tables.

    Returns:
        ``.map`` (height, width); ``.a50`` and ``.a99``, the smallest shares of the pixels that hold 50 % and 99 % of
        it; ``.plot(ax)``; ``.record.metrics`` has every number with its interval.

    Raises:
        UserError: an unknown name or layer, images that cannot be read, a size that the model cannot take.
        RuntimeError: what the model raised.
    """
    if isinstance(layer, str) and layer == "all":
        raise UserError("layer: one layer at a time (`vheatbench erf --layer all` looks at all of them)")
    settings: dict[str, Any] = {
        "layers": [str(layer)],
        "conduction": [str(conduction) if conduction else "none"],
        "protocol": protocol,
        "dtype": dtype,
        "max_images": max_images,
        "target": target,
    }
    if not isinstance(model, str):
        if weights is not None:
            raise UserError("weights belong to names: load them into the module")
        return _of_module(model, images, settings, size, device, name, results)
    if images is not None and not isinstance(images, (str, Path)):
        raise UserError("a name is looked at in a process of its own, which gets no pictures: give a folder or file")
    if kind_of(model) != "model":
        raise UserError(f"{model!r} is no model: 'vheatbench models' lists those that there are")
    settings |= {
        "models": [model],
        "resolutions": [size if size is not None else _own_size(model)],
        "images": None if images is None else str(images),
        "weights": [] if weights is None else [str(weights)],
    }
    with study_of_name("erf", settings, "erf", device, results) as run:
        return results_of(run)[0][0]


def _own_size(name: str) -> tuple[int, int]:
    from vheatbench.subjects.catalog import find_subject

    return find_subject(name).own_size()


def _of_module(
    model: nn.Module,
    images: Pictures | None,
    asked: dict[str, Any],
    size: int | tuple[int, int] | None,
    device: Device,
    name: str | None,
    results: str | Path | None,
) -> ErfResult:
    from vheatbench.api.inputs import Inputs
    from vheatbench.api.live import builder_of, device_of, memory_limit_gib, untouched
    from vheatbench.api.weights import weights_of
    from vheatbench.studies import settings_of
    from vheatbench.studies.erf.plan import ErfSettings, job_of_module
    from vheatbench.studies.erf.run import measure_job
    from vheatbench.subjects.input_size import own_size
    from vheatbench.suites import SuitePolicy

    called = name or type(model).__name__
    where = device_of(model) if device == "auto" else device
    settings = settings_of(ErfSettings, {**asked, "models": [called], "device": where})
    pictures = _pictures(images, settings.max_images, settings.seed)
    policy = SuitePolicy(memory_limit_gib=memory_limit_gib())
    with untouched(model, weights=False):
        model.eval().requires_grad_(False).float()
        height, width = own_size(None, lambda: model, {}) if size is None else _both(size)
        channels = _colours(model)
        job = job_of_module(called, model, (channels, height, width), weights_of(model)[0], settings, pictures)
        builder = builder_of(model, Inputs(1, channels, (height, width)))
        with study_here(
            "erf",
            list(job.cases),
            lambda path: measure_job(job, settings, pictures, path, lambda words, share: None, policy, builder),
            results,
        ) as run:
            (found,), _ = results_of(run)
    return found


def _colours(model: nn.Module) -> int:
    """Channels of the images: those that the model or its first convolution says, else 3. Raises UserError."""
    from torch import nn

    convolutions = (module.in_channels for module in model.modules() if isinstance(module, nn.Conv2d))
    colours = int(getattr(model, "in_chans", None) or next(convolutions, 3))
    if colours not in (1, 3):
        raise UserError(f"the module takes images of {colours} channels: photographs have 3, or 1 as grey")
    return colours


def _both(size: int | tuple[int, int]) -> tuple[int, int]:
    from vheatbench.suites import parse_resolution

    try:
        return parse_resolution(size)
    except ValueError as error:
        raise UserError(f"size: {error}") from None


def _pictures(images: Pictures | None, count: int, seed: int) -> Any:
    import numpy as np
    from PIL import Image

    from vheatbench.studies.images.photographs import given_images, open_images

    if images is None or isinstance(images, (str, Path)):
        return open_images(None if images is None else str(images), count, seed)
    if isinstance(images, (list, tuple)):
        pictures = [one for one in images if isinstance(one, Image.Image)]
        if len(pictures) == len(images):
            return given_images(pictures, count, seed)
    array = np.asarray(images)
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[-1] != 3:
        raise UserError(
            f"images of shape {array.shape} in {array.dtype}: give a folder, pictures of PIL, or (n, height, width, 3) "
            "with values 0 to 255 in uint8; they are normalised here"
        )
    return given_images([Image.fromarray(one) for one in array], count, seed)
