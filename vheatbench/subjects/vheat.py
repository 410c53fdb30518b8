"""vHeat backbones, registered in timm as ``vheat_tiny``, ``vheat_small`` and ``vheat_base``.

Written from the paper (Wang et al., "vHeat: Building Vision Models upon Heat Conduction", CVPR 2025)
and checked against what the official implementation computes. Inside a stage everything is channels
last, (B, H, W, C), so that the linear layers and norms need no copies; stages exchange (B, C, H, W)
views, which is what timm's tools expect.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import ClassifierHead, to_2tuple, trunc_normal_
from timm.models import (
    build_model_with_cfg,
    generate_default_cfgs,
    register_model,
    register_notrace_function,
)
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from vheatbench.subjects.batch_parts import by_parts
from vheatbench.subjects.heat_operator import FrequencyResize
from vheatbench.subjects.heat_stage import HeatStage, Stem
from vheatbench.subjects.packed import settle
from vheatbench.subjects.paths import has_hooks, path_for
from vheatbench.subjects.weights import convert_official, fit_frequencies, unwrapped

STRIDE = 32
"""Pixels per cell of the last stage: heights and widths must be multiples of it."""


@register_notrace_function
def check_size(height: int, width: int) -> None:
    """Refuse sizes whose stages would have no exact grid. Raises ValueError."""
    if height % STRIDE or width % STRIDE or height < STRIDE or width < STRIDE:
        sides = (height, width)
        nearest = "x".join(str(max(STRIDE, round(side / STRIDE) * STRIDE)) for side in sides)
        above = "x".join(str(-(-side // STRIDE) * STRIDE) for side in sides)
        raise ValueError(
            f"vHeat takes heights and widths divisible by {STRIDE}, not {height}x{width}: "
            f"resize to {nearest}{'' if above == nearest else f' or pad to {above}'}"
        )


class VHeat(nn.Module):
    """vHeat image backbone.

    Args:
        img_size: height and width that the frequency embeddings are made for; other sizes (multiples
            of 32) work too, with embeddings resized on every call by ``freq_resize``.
        in_chans: input channels.
        num_classes: width of the classifier; 0 for none.
        global_pool: ``avg``, ``max``, ``avgmax``, ``catavgmax`` or ``""``.
        dim: channels of the first stage, doubled in each later one.
        depths: blocks of each stage.
        mlp_ratio: width of the MLP over the stage's channels.
        post_norm: norms after op and MLP instead of before.
        layer_scale: initial value of the layer scale, None for none.
        drop_rate: dropout before the classifier.
        drop_path_rate: stochastic depth of the last block; grows linearly from 0.
        freq_resize: ``bicubic`` or ``zeropad``, see :func:`vheatbench.subjects.heat_operator.resize_frequencies`.
    """

    sized_when_built = True
    """``img_size`` is given to the constructor: at another size the forward pass resizes the embeddings on the fly."""
    in_parts = True
    """Whether a batch goes through the early stages a few images at a time on a CPU."""
    packs = True
    """Whether the deploy form keeps a second copy of its weights on a CPU: :mod:`vheatbench.subjects.packed`."""
    stem_type: type[Stem] = Stem
    stage_type: type[HeatStage] = HeatStage

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "avg",
        dim: int = 96,
        depths: tuple[int, ...] = (2, 2, 6, 2),
        mlp_ratio: float = 4.0,
        post_norm: bool = False,
        layer_scale: float | None = None,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        freq_resize: FrequencyResize = "bicubic",
    ) -> None:
        super().__init__()
        if freq_resize not in ("bicubic", "zeropad"):
            raise ValueError(f"freq_resize is 'bicubic' or 'zeropad', not {freq_resize!r}")
        self.img_size = self._checked(img_size)
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.deployed_for: tuple[int, int] | None = None
        self.stem = self.stem_type(in_chans, dim)

        blocks = sum(depths)
        rates = [drop_path_rate * i / max(blocks - 1, 1) for i in range(blocks)]
        stages: list[nn.Module] = []
        self.feature_info = []
        in_dim = dim
        for i, depth in enumerate(depths):
            out_dim, reduction = dim * 2**i, 4 * 2**i
            first = sum(depths[:i])
            stages.append(
                self.stage_type(
                    in_dim,
                    out_dim,
                    self._grid(i, self.img_size),
                    rates[first : first + depth],
                    mlp_ratio,
                    post_norm,
                    layer_scale,
                    freq_resize,
                )
            )
            self.feature_info.append({"num_chs": out_dim, "reduction": reduction, "module": f"stages.{i}"})
            in_dim = out_dim
        self.stages = nn.Sequential(*stages)
        self.num_features = self.head_hidden_size = in_dim
        self.norm: nn.Module = nn.LayerNorm(in_dim, eps=1e-5)
        self.head = ClassifierHead(in_dim, num_classes, pool_type=global_pool, drop_rate=drop_rate)
        self.apply(_init_weights)

    def _stages(self) -> list[HeatStage]:
        return cast("list[HeatStage]", list(self.stages))

    @property
    def freq_resize(self) -> FrequencyResize:
        """How frequency embeddings are made to fit another grid: ``bicubic`` or ``zeropad``."""
        return self._stages()[0].freq_resize

    @staticmethod
    def _checked(img_size: int | tuple[int, int]) -> tuple[int, int]:
        height, width = to_2tuple(img_size)
        check_size(height, width)
        return int(height), int(width)

    @staticmethod
    def _grid(stage: int, img_size: tuple[int, int]) -> tuple[int, int]:
        stride = 4 * 2**stage
        return img_size[0] // stride, img_size[1] // stride

    @torch.inference_mode(False)  # what is made here is the model's, and may be trained later
    def set_input_size(self, img_size: int | tuple[int, int]) -> None:
        """Resize the frequency embeddings for another height and width, for good."""
        if self.deployed_for is not None:
            raise ValueError("a deployed vHeat keeps its size: build the model anew, then deploy it")
        self.img_size = self._checked(img_size)
        for i, stage in enumerate(self._stages()):
            stage.set_grid(self._grid(i, self.img_size))

    @torch.inference_mode(False)
    def deploy(self, img_size: int | tuple[int, int] | None = None, fold: bool = True, pack: bool = True) -> VHeat:
        """Turn into the deploy form for one input size, in place; the output stays the same.

        k depends on nothing but weights, so every block's decay exp(-k w^2) is computed once and kept
        as a constant (a parameter without gradient, counted as the official code counts it); the layers
        that predict k and the frequency embeddings are dropped. The published vHeat MACs and throughput
        are those of this form. It cannot be trained and takes no other size.

        Args:
            img_size: height and width to deploy for; default the size the model was built for.
            fold: also move what is exact to move into its neighbours: the bias of the depthwise convolution
                through the linear layer behind it, layer scales into norms or linear layers, the affine part
                of the norm before the MLP into the MLP. False keeps the official code's parameters.
            pack: on a CPU keep the weights of linear layers and convolutions a second time, as oneDNN multiplies by
                them: faster with few tokens, for as much memory again as the weights take.
        """
        if self.deployed_for is not None:
            raise ValueError(f"already deployed for {self.deployed_for[0]}x{self.deployed_for[1]}")
        self.deployed_for = self._checked(img_size if img_size is not None else self.img_size)
        for i, stage in enumerate(self._stages()):
            stage.deploy(self._grid(i, self.deployed_for), fold)
        for module in self.modules():
            # in the layout of the maps; else every call of the convolution would copy its weight into it
            if isinstance(module, nn.Conv2d):
                module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)
        if pack and self.packs:
            settle(self)
        return self.eval()

    def _check_input(self, x: Tensor) -> None:
        check_size(x.shape[2], x.shape[3])
        if self.deployed_for is not None:
            check_deployed(x.shape[2], x.shape[3], self.deployed_for)

    @torch.jit.ignore
    def no_weight_decay(self) -> set[str]:
        return {f"stages.{i}.freq_embed" for i in range(len(self.stages))}

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        if coarse:
            return {"stem": r"^stem", "blocks": r"^stages\.(\d+)"}
        return {
            "stem": r"^stem",
            "blocks": [
                (r"^stages\.(\d+)\.(?:downsample|freq_embed)", (0,)),
                (r"^stages\.(\d+)\.blocks\.(\d+)", None),
                (r"^norm", (99999,)),
            ],
        }

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        for stage in self._stages():
            stage.grad_checkpointing = enable

    @torch.jit.ignore
    def get_classifier(self) -> nn.Module:
        return self.head.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        self.num_classes = num_classes
        self.head.reset(num_classes, pool_type=global_pool)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Final features and the outputs of chosen stages, as timm's method of this name.

        Args:
            x: images, shape (B, in_chans, H, W).
            indices: stages to take: the last n for an int, these for a list, all for None.
            norm: apply the final norm to the last stage's output.
            stop_early: leave out stages after the last one taken.
            output_fmt: ``NCHW``, the only one.
            intermediates_only: return the list alone.
        """
        assert output_fmt == "NCHW", "output_fmt must be NCHW"
        take_indices, max_index = feature_take_indices(len(self.stages), indices)
        self._check_input(x)
        intermediates: list[Tensor] = []
        last = len(self.stages) - 1
        x = self.stem(x)
        for i, stage in enumerate(self.stages):
            if stop_early and i > max_index:
                break
            x = stage(x)
            if i in take_indices:
                intermediates.append(self._norm(x) if norm and i == last else x)
        if intermediates_only:
            return intermediates
        if not (stop_early and max_index < last):
            x = self._norm(x)
        return x, intermediates

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop the stages after the last one taken, and on request norm and head; as timm's."""
        take_indices, max_index = feature_take_indices(len(self.stages), indices)
        self.stages = self.stages[: max_index + 1]
        if prune_norm:
            self.norm = nn.Identity()
        if prune_head:
            self.reset_classifier(0, "")
        return take_indices

    def _norm(self, x: Tensor) -> Tensor:
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def forward_features(self, x: Tensor) -> Tensor:
        """Images (B, in_chans, H, W) to normed features (B, 8 dim, H/32, W/32)."""
        self._check_input(x)
        if self.in_parts and path_for(x) == "fused" and x.shape[0] > 1 and not has_hooks(*self.modules()):
            # half of the first stage's channels at four times its tokens; behind the stem every stage halves its maps
            largest = x[0].numel() // self.in_chans * self.stem.conv2.conv.out_channels / 8
            return self._norm(by_parts(x, [self.stem, *self.stages], largest))
        return self._norm(self.stages(self.stem(x)))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Features to logits (B, num_classes), or to pooled features (B, 8 dim)."""
        return self.head(x, pre_logits=True) if pre_logits else self.head(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


@register_notrace_function
def check_deployed(height: int, width: int, deployed_for: tuple[int, int]) -> None:
    """Refuse an input that the precomputed decay does not fit. Raises ValueError."""
    if (height, width) != deployed_for:
        raise ValueError(
            f"this vHeat was deployed for {deployed_for[0]}x{deployed_for[1]}, the input is {height}x{width}: "
            f"deploy a fresh model with deploy(({height}, {width}))"
        )


def _init_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def checkpoint_filter_fn(state_dict: dict[str, Any], model: nn.Module) -> dict[str, Tensor]:
    """timm's hook for pretrained files: official or own names, embeddings resized to the model."""
    assert isinstance(model, VHeat)
    for container in ("model", "state_dict"):
        if isinstance(state_dict.get(container), dict):
            state_dict = state_dict[container]
    state = unwrapped(state_dict, model.state_dict(), convert_official)
    return fit_frequencies(state, model, model.freq_resize)


def _cfg(url: str = "", **kwargs: Any) -> dict[str, Any]:
    return {
        "url": url,
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "pool_size": (7, 7),
        # the official test resizes by 256 / 224 before the central crop
        "crop_pct": 0.875,
        "interpolation": "bicubic",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": "stem.conv1.conv",
        "classifier": "head.fc",
        **kwargs,
    }


# No weights can be downloaded: the official files are fetched by hand and read by load_checkpoint.
default_cfgs = generate_default_cfgs(
    {
        "vheat_tiny.untrained": _cfg(),
        "vheat_small.untrained": _cfg(),
        "vheat_base.untrained": _cfg(),
        "test_vheat.untrained": _cfg(input_size=(3, 64, 64), pool_size=(2, 2), crop_pct=1.0),
    }
)


def create_vheat(variant: str, pretrained: bool = False, cls: type[VHeat] = VHeat, **kwargs: Any) -> VHeat:
    """A registered variant by timm's builder; ``features_only`` gives the maps of all its stages."""
    stages = range(len(kwargs["depths"]))
    return build_model_with_cfg(
        cls,
        variant,
        pretrained,
        pretrained_filter_fn=checkpoint_filter_fn,
        feature_cfg={"out_indices": tuple(stages), "flatten_sequential": True},
        **kwargs,
    )


@register_model
def vheat_tiny(pretrained: bool = False, **kwargs: Any) -> VHeat:
    """vHeat-T: 96 channels, 2-2-6-2 blocks, pre-norm."""
    args = {"dim": 96, "depths": (2, 2, 6, 2), "drop_path_rate": 0.1}
    return create_vheat("vheat_tiny", pretrained, **{**args, **kwargs})


@register_model
def vheat_small(pretrained: bool = False, **kwargs: Any) -> VHeat:
    """vHeat-S: 96 channels, 2-2-18-2 blocks, post-norm, layer scale."""
    args = {"dim": 96, "depths": (2, 2, 18, 2), "post_norm": True, "layer_scale": 1e-5, "drop_path_rate": 0.3}
    return create_vheat("vheat_small", pretrained, **{**args, **kwargs})


@register_model
def vheat_base(pretrained: bool = False, **kwargs: Any) -> VHeat:
    """vHeat-B: 128 channels, 2-2-18-2 blocks, post-norm, layer scale."""
    args = {"dim": 128, "depths": (2, 2, 18, 2), "post_norm": True, "layer_scale": 1e-5, "drop_path_rate": 0.5}
    return create_vheat("vheat_base", pretrained, **{**args, **kwargs})


@register_model
def test_vheat(pretrained: bool = False, **kwargs: Any) -> VHeat:
    """A vHeat of 0.2 M parameters at 64x64, for tests and smoke runs, in the manner of timm's ``test_vit``."""
    args = {"img_size": 64, "dim": 16, "depths": (1, 1, 2, 1)}
    return create_vheat("test_vheat", pretrained, **{**args, **kwargs})


test_vheat.__test__ = False  # type: ignore[attr-defined]  # not a test for pytest to collect
