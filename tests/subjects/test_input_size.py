"""How models are made to take a size: the known-good table, and that nothing changes in silence."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from vheatbench.case import Case
from vheatbench.errors import UserError
from vheatbench.measure.flops import count_flops
from vheatbench.subjects.catalog import Built, build, find_subject
from vheatbench.subjects.input_size import fit_input_size

GIGA = 1e9


pytestmark = pytest.mark.usefixtures("one_thread")


def built_for(subject: str, size: int | tuple[int, int], device: str = "meta", **options) -> Built:
    return build(Case(subject=subject, resolution=size, mode="forward", options=options), device)


def how(built: Built) -> str:
    return built.facts["input"]["how"]


def changed(built: Built) -> dict[str, str]:
    return built.facts["input"]["changed"]


def macs(built: Built) -> float:
    return count_flops(lambda: built.model(torch.empty(1, *built.input_shape, device="meta"))).macs / GIGA


def logits(built: Built) -> torch.Tensor:
    images = torch.randn(2, *built.input_shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return built.model.eval()(images)


def images(size: tuple[int, int]) -> torch.Tensor:
    return torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1))


# The table of the research notes: how the size is taken, and GMACs. Every family at one size; test_flops.py
# has Swin, ViT and vHeat at more.

IMG_SIZE, AS_BUILT = "img_size=", "takes any size as built"

TABLE = [
    ("vit_small_patch16_224", IMG_SIZE, {(800, 1280): 233.7}),
    ("deit3_small_patch16_224", IMG_SIZE, {384: 15.5}),
    ("vit_small_patch16_dinov3", AS_BUILT, {(800, 1280): 234.0}),
    ("vit_small_patch16_rope_224", IMG_SIZE, {512: 31.7}),
    ("swin_tiny_patch4_window7_224", IMG_SIZE, {(800, 1280): 95.6}),
    ("swinv2_tiny_window8_256", IMG_SIZE, {512: 23.7}),
    ("swinv2_cr_tiny_224", IMG_SIZE, {512: 30.6}),
    ("convnext_tiny", AS_BUILT, {1024: 93.1}),
    ("mambaout_tiny", AS_BUILT, {512: 23.3}),
    ("davit_tiny", AS_BUILT, {512: 24.6}),
    ("focalnet_tiny_srf", AS_BUILT, {512: 23.0}),
    ("pvt_v2_b2", AS_BUILT, {384: 12.6}),
    ("poolformer_s24", AS_BUILT, {512: 17.7}),
    ("hiera_tiny_224", IMG_SIZE, {512: 29.9}),
    ("sam2_hiera_tiny", AS_BUILT, {512: 30.5}),
    ("mvitv2_tiny", IMG_SIZE, {512: 39.4}),
    ("maxvit_tiny_tf_224", IMG_SIZE, {512: 33.2}),
    ("gcvit_tiny", IMG_SIZE, {512: 35.6}),
    ("vheat_tiny", IMG_SIZE, {(800, 1280): 114.7}),
]


@pytest.mark.parametrize(("name", "way", "known"), TABLE, ids=[row[0] for row in TABLE])
def test_known_good_table(name: str, way: str, known: dict[int | tuple[int, int], float]) -> None:
    for size, expected in known.items():
        built = built_for(name, size)
        assert macs(built) == pytest.approx(expected, abs=0.05)
        assert how(built).startswith(way)
        if way == AS_BUILT:
            assert changed(built) == {}
            assert built.facts["arguments"] == {}


def test_own_size_changes_nothing() -> None:
    for name in ("swin-t", "vit-t", "vheat-t", "convnext_atto"):
        built = built_for(name, find_subject(name).default_size or 224)
        assert how(built) == "built at its own size"
        assert changed(built) == {}
        assert not any("oneDNN" not in warning for warning in built.warnings)  # of products, not of the size


# really executed: the meta device can pass where the real run fails


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("test_vit", [(64, 64), (96, 128)]),
        ("test_vit_relpos", [(96, 96)]),
        ("test_vheat", [(96, 96), (64, 128)]),
        ("test_convnext", [(96, 96), (75, 101)]),
        ("test_maxvit", [(96, 96)]),
        ("vit_tiny_patch16_dinov3_qkvb", [(64, 64), (96, 160)]),
        ("pvt_v2_b0", [(64, 64), (96, 160)]),
        ("mvitv2_tiny", [(96, 96)]),
        ("davit_tiny", [(96, 160)]),
        ("efficientformerv2_s0", [(256, 384)]),
        ("crossvit_9_240", [(480, 480)]),
    ],
)
def test_really_runs(name: str, sizes: list[tuple[int, int]]) -> None:
    for size in sizes:
        built = built_for(name, size, "cpu")
        assert built.input_shape == (3, *size)
        out = logits(built)
        assert out.shape == (2, built.model.num_classes or built.model.num_features)
        assert torch.isfinite(out).all()


def test_mvitv2_is_sized_at_construction() -> None:
    """Without img_size the meta device lets it pass and a real run dies of an IndexError."""
    assert how(built_for("mvitv2_tiny", 96)) == "img_size=(96, 96)"
    default = timm.create_model("mvitv2_tiny").eval()
    with pytest.raises((IndexError, RuntimeError)):
        default(images((288, 288)))


def test_crossvit_does_not_pretend() -> None:
    """As built it resizes any image to its own 240: cost would seem not to depend on the size."""
    assert macs(built_for("crossvit_9_240", 480)) > 3.5 * macs(built_for("crossvit_9_240", 240))
    with pytest.raises(UserError, match=r"cannot take 256x256"):
        built_for("crossvit_9_240", 256)


def test_efficientformerv2_resizes_its_biases_and_says_so() -> None:
    built = built_for("efficientformerv2_s0", 384)
    assert how(built) == "img_size=(384, 384)"
    assert changed(built)["stages.2.blocks.4.token_mixer.attention_biases"] == "8x49 -> 8x144"


# Swin, narrowed where it is really run

NARROW = {"embed_dim": 24, "num_heads": (1, 2, 4, 8)}


@pytest.fixture(scope="module")
def swin_at_320() -> Built:
    return built_for("swin-t", 320, "cpu", **NARROW)


def same_weights(built: Built, **kwargs) -> nn.Module:
    model = timm.create_model("swin_tiny_patch4_window7_224", **NARROW, **kwargs).eval()
    model.load_state_dict(built.model.state_dict())
    return model


def blocks(model: nn.Module) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    return [(block.window_size, block.shift_size) for stage in model.layers for block in stage.blocks]


def test_swin_keeps_its_window_and_every_shift(swin_at_320: Built) -> None:
    assert blocks(swin_at_320.model) == [((7, 7), (0, 0)), ((7, 7), (3, 3))] * 6
    assert changed(swin_at_320) == {"shift_size": "0x0 -> 3x3"}, "the last stage, one window at 224, shifts now"
    assert swin_at_320.warnings == []


def test_swin_equals_the_partition_that_is_made_at_run_time(swin_at_320: Built) -> None:
    x = images((320, 320))
    dynamic = same_weights(swin_at_320, strict_img_size=False, always_partition=True)
    with torch.no_grad():
        assert torch.allclose(swin_at_320.model.eval()(x), dynamic(x), atol=1e-6)


def test_swin_that_is_only_not_strict_is_another_model(swin_at_320: Built) -> None:
    x = images((320, 320))
    lax = same_weights(swin_at_320, strict_img_size=False)
    assert blocks(lax)[-1] == ((7, 7), (0, 0))
    with torch.no_grad():
        right, wrong = swin_at_320.model.eval()(x), lax(x)
    assert (right - wrong).abs().max() > 0.01 * right.abs().max()


def test_swin_resized_afterwards_would_change_its_window(swin_at_320: Built) -> None:
    with torch.device("meta"):
        model = timm.create_model("swin_tiny_patch4_window7_224")
    model.set_input_size((512, 512))
    assert blocks(model)[0][0] == (16, 16)
    assert blocks(built_for("swin-t", 512).model)[0][0] == (7, 7)


def test_swin_is_sized_at_construction_even_where_it_would_take_the_size() -> None:
    built = built_for("swin-t", 512, strict_img_size=False)
    assert how(built) == "img_size=(512, 512)"
    assert blocks(built.model)[-1] == ((7, 7), (3, 3))


def test_swin_not_square_and_small() -> None:
    wide = built_for("swin-t", (224, 320))
    assert blocks(wide.model)[-1] == ((7, 7), (0, 3)), "one window high, more than one wide"
    assert changed(wide) == {"shift_size": "0x0 -> 0x3"}
    small = built_for("swin-t", 96)
    assert [block[0] for block in blocks(small.model)][::2] == [(7, 7), (7, 7), (6, 6), (6, 6), (6, 6), (3, 3)]
    assert changed(small)["window_size"] == "7x7 -> 6x6, 7x7 -> 3x3"
    assert "attention window" in small.warnings[0]


def test_swinv2_at_224_is_warned_of() -> None:
    built = built_for("swinv2-t", 224)
    assert built.warnings == ["another input size changed the attention window: 8x8 -> 7x7"]
    assert built_for("swinv2-t", 256).warnings == []
    assert built_for("swinv2-t", 512).warnings == []
    assert changed(built_for("swinv2-t", 512)) == {"shift_size": "0x0 -> 4x4"}


# ViT


def test_vit_position_embedding_is_resized_and_recorded() -> None:
    assert changed(built_for("vit-t", (224, 320))) == {"pos_embed": "1x197x192 -> 1x281x192"}
    assert changed(built_for("test_vit", 64))["pos_embed"] == "1x101x64 -> 1x17x64"


def test_vit_equals_dynamic_size_with_resampled_positions() -> None:
    fixed = built_for("test_vit", (96, 128), "cpu").model.eval()
    dynamic = timm.create_model("test_vit", dynamic_img_size=True).eval()
    fixed.load_state_dict({**dynamic.state_dict(), "pos_embed": fixed.pos_embed})
    x = images((96, 128))
    with torch.no_grad():
        grid = dynamic._pos_embed(dynamic.patch_embed(x)) - _without_positions(dynamic, x)
        fixed.pos_embed.copy_(grid)
        assert torch.allclose(fixed(x), dynamic(x), atol=1e-6)
        assert not torch.equal(fixed.pos_embed[:, :49], dynamic.pos_embed[:, :49])


def _without_positions(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The tokens of a ViT before positions are added, class token first."""
    patches = model.patch_embed(x).flatten(1, 2)
    return torch.cat([model.cls_token.expand(len(x), -1, -1), patches], dim=1)


def test_vheat_embeddings_are_resized_and_recorded() -> None:
    assert changed(built_for("test_vheat", (64, 128))) == {
        "stages.0.freq_embed": "16x16x16 -> 16x32x16",
        "stages.1.freq_embed": "8x8x32 -> 8x16x32",
        "stages.2.freq_embed": "4x4x64 -> 4x8x64",
        "stages.3.freq_embed": "2x2x128 -> 2x4x128",
    }


# refusals


@pytest.mark.parametrize(
    ("name", "size", "instead"),
    [
        ("vit-s", (230, 250), "224x256"),
        ("swin-t", (230, 250), "232x248"),
        ("vheat-t", (230, 250), "resize to 224x256 or pad to 256x256"),
        ("vit_small_patch14_dinov2", (512, 512), "518x518"),
        ("eva02_small_patch14_224", (384, 384), "378x378"),
        ("vit_small_patch16_dinov3", (8, 250), "16x256"),
        ("vit_base_patch32_224", (8, 8), "32x32"),
    ],
)
def test_sizes_that_drop_pixels_are_refused_with_one_that_fits(name: str, size: tuple[int, int], instead: str) -> None:
    with pytest.raises(UserError, match=rf"{name}.*{size[0]}x{size[1]}.*{instead}$"):
        built_for(name, size)


@pytest.mark.parametrize("name", ["convnext_atto", "davit_tiny", "pvt_v2_b0", "test_resnet"])
def test_models_that_pad_take_odd_sizes(name: str) -> None:
    assert how(built_for(name, (230, 250))) == AS_BUILT


def test_a_model_that_pads_on_request_takes_odd_sizes() -> None:
    built = built_for("vit-t", (230, 250), dynamic_img_pad=True, dynamic_img_size=True)
    assert built.model(torch.empty(1, 3, 230, 250, device="meta")).shape == (1, 1000)


@pytest.mark.parametrize(
    ("name", "size"), [("maxvit_tiny_tf_224", (230, 250)), ("mvitv2_tiny", (128, 256)), ("hiera_tiny_224", (230, 250))]
)
def test_what_a_model_cannot_take_is_refused_with_its_reason_on_one_line(name: str, size: tuple[int, int]) -> None:
    with pytest.raises(UserError) as caught:
        built_for(name, size)
    assert f"model {name!r} cannot take {size[0]}x{size[1]} inputs: " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_img_size_in_the_options_is_left_alone() -> None:
    built = built_for("vit-t", 96, img_size=96)
    assert how(built) == "img_size in the options"
    assert built.facts["arguments"] == {"img_size": 96}


# anyone's models


class Fixed(nn.Module):
    """Takes 32x32, nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(32 * 32 * 3, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x.flatten(1))


class Sized(nn.Module):
    def __init__(self, img_size: tuple[int, int] = (32, 32)) -> None:
        super().__init__()
        self.linear = nn.Linear(img_size[0] * img_size[1] * 3, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x.flatten(1))


class Computing(nn.Module):
    """Looks at numbers while it is built, which the meta device has not got."""

    def __init__(self) -> None:
        super().__init__()
        self.rates = [rate.item() for rate in torch.linspace(0, 1, 3)]
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x).mean((2, 3))


def test_own_models() -> None:
    assert fit_input_size("m", Fixed, None, (32, 32), {}).how == AS_BUILT
    with pytest.raises(UserError, match=r"'m' cannot take 64x32 inputs: .*6144"):
        fit_input_size("m", Fixed, None, (64, 32), {})
    sizing = fit_input_size("m", Sized, None, (64, 32), {})
    assert sizing.kwargs == {"img_size": (64, 32)}
    assert sizing.changed == {"linear.weight": "10x3072 -> 10x6144"}
    computing = fit_input_size("m", Computing, None, (64, 32), {})
    assert computing.how == "as built"
    assert "not compared" in computing.warnings[0]
    with pytest.raises(UserError, match=r"cannot be built with \{'depth': 3\}"):
        fit_input_size("m", Fixed, None, (32, 32), {"depth": 3})


class HeadFirst(nn.Module):
    """Registers its neck before the stem, as nothing forbids."""

    def __init__(self, in_chans: int = 3) -> None:
        super().__init__()
        self.neck = nn.Conv2d(64, 32, 1)
        self.stem = nn.Conv2d(in_chans, 64, 16, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.neck(self.stem(x)).mean((2, 3))


def channels(model: nn.Module, **options: int) -> int:
    return fit_input_size("m", lambda **_: model, (64, 64), (64, 64), options).channels


def test_input_channels_are_what_the_model_takes_not_its_first_convolution() -> None:
    with torch.device("meta"):
        three, one, said = HeadFirst(), HeadFirst(1), HeadFirst(7)
        configured, wrongly = HeadFirst(4), HeadFirst(1)
    said.in_chans = 7
    configured.pretrained_cfg = {"input_size": (4, 64, 64)}
    wrongly.default_cfg = {"input_size": (3, 64, 64)}
    assert [channels(model) for model in (three, one, said, configured, wrongly)] == [3, 1, 7, 4, 1]
    assert channels(three, in_chans=5) == 5
    assert fit_input_size("m", HeadFirst, None, (32, 48), {}).channels == 3
    assert fit_input_size("m", lambda: HeadFirst(1), None, (32, 48), {}).channels == 1
    assert built_for("resnet18", 64, in_chans=2).input_shape == (2, 64, 64)


def test_a_model_says_itself_that_it_is_sized_when_built() -> None:
    """Wherever its module lies: a vHeat that resizes its embeddings in every pass is another measurement."""
    vheat = find_subject("test_vheat").factory
    own = type("Elsewhere", (type(vheat()),), {"__module__": "somewhere.else"})
    small = {"dim": 16, "depths": (1, 1, 2, 1)}
    assert fit_input_size("m", lambda **kw: own(**small, **kw), (64, 64), (96, 64), {}).kwargs == {"img_size": (96, 64)}


def test_a_family_is_known_by_its_package_too() -> None:
    """Someone's own ``swin_transformer.py`` need not take img_size."""
    own = type("Own", (Computing,), {"__module__": "swin_transformer", "__init__": nn.Module.__init__})
    own.forward = lambda self, x: x.mean((2, 3))
    assert fit_input_size("m", own, None, (64, 32), {}).how == AS_BUILT


def test_a_failing_constructor_gives_its_own_reason() -> None:
    def broken() -> nn.Module:
        raise RuntimeError("no such layer\nand more")

    with pytest.raises(UserError, match=r"'m' cannot be built: no such layer$"):
        fit_input_size("m", broken, None, (32, 32), {})
