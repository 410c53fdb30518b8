"""Backbones of detectors and segmenters: timm models with maps at strides 4, 8, 16 and 32."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import timm
from timm.models import is_model, model_entrypoint
from torch import Tensor, nn

from vheatbench.errors import UserError
from vheatbench.subjects.catalog import find_subject
from vheatbench.subjects.heat_operator import FrequencyResize
from vheatbench.subjects.meta import on_meta
from vheatbench.subjects.weights import HeadError, LoadedCheckpoint, WeightSet, identify, load_weights

STRIDES = [4, 8, 16, 32]
"""Pixels per cell of the maps that a feature pyramid takes."""

FREQUENCIES = 512
"""Image size that vHeat's frequency embeddings are made for in the official detectors and segmenters. Maps of
other sizes resize them on every pass."""

DROP_PATH = {
    "1x": {"vheat_tiny": 0.2, "vheat_small": 0.3, "vheat_base": 0.5, "swin_": 0.2},
    "3x": {"vheat_tiny": 0.2, "vheat_small": 0.5, "swin_": 0.2},
    "160k": {"vheat_tiny": 0.3, "vheat_small": 0.4, "vheat_base": 0.5, "swin_": 0.3},
}
"""Stochastic depth by schedule and beginning of a timm name: of vHeat's and of OpenMMLab's published configurations.

vHeat-T's for detection set ``drop_path``, which its constructor does not take: the 0.2 of the Swin-T configuration
that they build on is in force."""


def published_drop_path(full_name: str, schedule: str) -> float | None:
    """Stochastic depth of a published training; None where there is none, and for the model's own."""
    known = DROP_PATH.get(schedule, {})
    return next((rate for start, rate in known.items() if full_name.startswith(start)), None)


def drop_path_argument(rate: float | None) -> dict[str, Any]:
    """Of the timm model; nothing where the rate is to be the model's own."""
    return {} if rate is None else {"drop_path_rate": rate}


def timm_name(name: str) -> str:
    """The timm model behind an alias such as ``vheat-t``, checked to have the maps of :data:`STRIDES`.

    Raises:
        UserError: unknown, or a model without four such maps (a plain ViT has one stride).
    """
    subject = find_subject(name)
    if not is_model(subject.full_name.split(".")[0]):
        raise UserError(f"backbone {name!r} is no timm model: register it in timm, then its name works here")
    try:
        reductions = _reductions(subject.full_name)
    except Exception as error:  # whatever timm or the model says to features_only is the reason
        raise UserError(f"backbone {name!r} gives no feature maps: {str(error).splitlines()[0]}") from None
    if reductions[-len(STRIDES) :] != STRIDES:
        raise UserError(f"backbone {name!r} has maps at strides {reductions}: a pyramid needs {STRIDES}")
    return subject.full_name


@functools.cache
def _reductions(full_name: str) -> list[int]:
    """Strides of a timm model's maps; kept, for a suite asks for the same backbone case after case."""
    with on_meta():
        found: Any = timm.create_model(full_name, features_only=True)
    return cast("list[int]", found.feature_info.reduction())


def backbone_arguments(full_name: str, size: tuple[int, int] | None = None) -> dict[str, Any]:
    """Constructor arguments that make a timm model take images of a size (height, width), or of any.

    A Swin of fixed size has its masks ready, one of any size computes them on every pass; both shift and fill up
    windows everywhere, as the official detectors do, and give the same output. vHeat has embeddings for
    :data:`FREQUENCIES`, as the official detectors do.
    """
    family = model_entrypoint(full_name.split(".")[0]).__module__.rpartition(".")[2]
    if family in ("vheat", "official"):
        return {"img_size": FREQUENCIES}
    if family == "swin_transformer":
        return {"always_partition": True, **({"img_size": size} if size else {"strict_img_size": False})}
    if family.startswith("swin_transformer_v2") and size:
        return {"img_size": size}
    return {}


class StageMaps(nn.Module):
    """A timm backbone's maps at strides 4, 8, 16, 32, each behind a LayerNorm of its own.

    Args:
        name: alias or timm name.
        size: height and width of all images; None for images of any size.
        options: further arguments of the timm model; they win over what the size asks for.

    Raises:
        UserError: see :func:`timm_name`, or arguments that the model does not take.
    """

    def __init__(self, name: str, size: tuple[int, int] | None = None, **options: Any) -> None:
        super().__init__()
        full_name = timm_name(name)
        arguments = {**backbone_arguments(full_name, size), **options}
        try:
            body: Any = timm.create_model(full_name, features_only=True, **arguments)
        except (TypeError, ValueError) as error:
            raise UserError(
                f"backbone {name!r} cannot be built with {arguments}: {str(error).splitlines()[0]}"
            ) from None
        self.channels = cast("list[int]", body.feature_info.channels()[-len(STRIDES) :])
        self.channels_last = getattr(body, "output_fmt", "NCHW") == "NHWC"
        self.body = body
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for channels in self.channels)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images (B, 3, H, W) to four maps (B, C, H / stride, W / stride)."""
        maps = self.body(images)[-len(STRIDES) :]
        if not self.channels_last:
            maps = [x.permute(0, 2, 3, 1) for x in maps]
        return [norm(x).permute(0, 3, 1, 2) for norm, x in zip(self.norms, maps, strict=True)]


def load_backbone(
    body: nn.Module,
    full_name: str,
    path: Path,
    use: WeightSet = "model",
    rule: FrequencyResize = "zeropad",
    trust_pickle: bool = False,
) -> LoadedCheckpoint:
    """Load a classification checkpoint into a backbone: everything but the classifier and the last norm.

    Args:
        body: what ``timm.create_model(full_name, features_only=True)`` gives.
        full_name: the timm model.
        path: the checkpoint, see :func:`vheatbench.subjects.weights.load_checkpoint`.
        rule: how vHeat's frequency embeddings become those of :data:`FREQUENCIES`; the official detectors pad zeros.

    Raises:
        UserError: not a checkpoint of this model.
    """
    arguments = backbone_arguments(full_name)
    classifier = timm.create_model(full_name, **arguments)
    try:
        loaded = load_weights(classifier, path, use, rule, trust_pickle)
    except HeadError as error:  # of a fine-tuned classifier, whose head is not wanted here
        classifier = timm.create_model(full_name, num_classes=error.classes, **arguments)
        loaded = load_weights(classifier, path, use, rule, trust_pickle)
    source = classifier.state_dict()
    # timm names a stage of a feature extractor ``stages_0``, which is ``stages.0`` of the classifier
    names = {key: key if key in source else re.sub(r"^(\w+?)_(\d+)\.", r"\1.\2.", key) for key in body.state_dict()}
    missing = [key for key, name in names.items() if name not in source]
    if missing:
        raise UserError(f"{path}: {missing[0]} of the backbone is not in the checkpoint of {full_name}")
    body.load_state_dict({key: source[name] for key, name in names.items()})
    return loaded


@dataclass(frozen=True)
class Beginning:
    """A classification checkpoint that a detector or segmenter begins with."""

    path: Path
    use: WeightSet = "model"
    rule: FrequencyResize = "zeropad"
    trust_pickle: bool = False

    def __str__(self) -> str:
        """What tells it from others. Raises UserError where the file cannot be read."""
        return f"{identify(self.path).words}, set {self.use!r}, {self.rule}"

    def load_into(self, body: nn.Module, full_name: str) -> None:
        """See :func:`load_backbone`."""
        load_backbone(body, full_name, self.path, self.use, self.rule, self.trust_pickle)
