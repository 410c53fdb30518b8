"""Counted FLOPs against the closed form, against published numbers, against fvcore."""

from __future__ import annotations

import itertools

import pytest
import timm
import timm.layers
import torch
from fvcore.nn import FlopCountAnalysis
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from vheatbench.case import Case
from vheatbench.measure.flops import (
    TRAIN_FACTOR,
    FlopCount,
    count_flops,
    count_with_fvcore,
    disagreement,
    flop_metrics,
)
from vheatbench.subjects.catalog import ALIASES, build
from vheatbench.subjects.closed_form import closed_form_macs, heat_operator_macs

GIGA = 1e9
SIZES = [(224, 224), (320, 320), (512, 512), (1024, 1024), (480, 640)]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def _fused() -> None:
    timm.layers.set_fused_attn(True, experimental=True)


def on_meta(name: str, size: tuple[int, int], **options) -> nn.Module:
    with torch.device("meta"):
        return timm.create_model(ALIASES.get(name, name), img_size=size, **options).eval()


def shallow(name: str, size: tuple[int, int]) -> dict[str, object]:
    """Fewer blocks at sizes beyond 224, to save time: what a block costs is what depends on the size."""
    if size == (224, 224):
        return {}
    if name.startswith(("vit", "deit")):
        return {"depth": 2}
    return {"depths": (2, 2, 2, 2) if name.startswith("swin") else (1, 1, 2, 1)}


def count(model: nn.Module, size: tuple[int, int], batch: int = 1) -> FlopCount:
    return count_flops(lambda: model(torch.empty(batch, 3, *size, device="meta")))


def macs(subject: str, size: int = 224, batch: int = 1, **axes) -> float:
    """Multiply-adds per image the way a case counts them."""
    built = build(Case(subject=subject, resolution=(size, size), **axes), "meta")
    model = built.model.eval()
    return count(model, built.input_shape[1:], batch).macs / batch


# the closed form


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", ["vheat-t", "vheat-s", "vheat-b"])
def test_vheat_equals_closed_form_in_both_forms_and_at_batch_1_and_4(name: str, size: tuple[int, int]) -> None:
    model = on_meta(name, size, **shallow(name, size))
    for _ in ("training form", "deploy form"):
        for batch in (1, 4):
            assert count(model, size, batch).macs == closed_form_macs(model, batch, size)
        if model.deployed_for is None:
            model.deploy()
    assert model.deployed_for == size


@pytest.mark.parametrize(
    ("name", "size"),
    list(itertools.product(["swin-t", "swin-s", "swin-b", "vit-s", "vit-b", "deit-s"], SIZES)),
    ids=str,
)
def test_baselines_equal_closed_form(name: str, size: tuple[int, int]) -> None:
    model = on_meta(name, size, **shallow(name, size))
    assert count(model, size, 2).macs == closed_form_macs(model, 2, size)


@pytest.mark.parametrize("name", ["deit_tiny_distilled_patch16_224", "vit_tiny_patch16_224", "swin_s3_tiny_224"])
def test_relatives_with_other_heads_and_windows_equal_closed_form(name: str) -> None:
    model = on_meta(name, (224, 224))
    assert count(model, (224, 224), 3).macs == closed_form_macs(model, 3, (224, 224))


@pytest.mark.parametrize(
    "name",
    [
        "vit_small_patch16_18x2_224",  # parallel blocks
        "vit_pwee_patch16_reg1_gap_256",  # blocks without a separate MLP
        "vit_dwee_patch16_reg1_gap_256",  # differential attention
        "aimv2_large_patch14_224",  # gated MLP
        "vit_tiny_r_s16_p8_224",  # convolutional stem
        "test_vit3",  # attention pooling
        "resnet18",
    ],
)
def test_no_closed_form_where_the_formula_does_not_hold(name: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(name)
    assert closed_form_macs(model, 1, (224, 224)) is None


def test_heat_operator_by_hand() -> None:
    parts = heat_operator_macs(batch=2, height=4, width=6, channels=5, train_form=True)
    assert parts == {
        "dwconv": 2 * 24 * 5 * 9,
        "linear": 2 * 24 * 5 * 10,
        "dct_idct": 2 * 2 * 24 * 5 * 10,  # two transforms, each H W C (H + W)
        "out_linear": 2 * 24 * 25,
        "to_k": 24 * 25,  # once, whatever the batch
    }
    assert heat_operator_macs(2, 4, 6, 5)["to_k"] == 0


def test_transform_grows_with_the_power_of_one_and_a_half() -> None:
    small, large = (heat_operator_macs(1, n, n, 8)["dct_idct"] for n in (16, 64))
    tokens = (64 / 16) ** 2
    assert large / small == tokens**1.5


# published numbers


@pytest.mark.parametrize(
    ("name", "readme", "deploy", "training", "deploy_params", "training_params"),
    [
        ("vheat-t", 4.6, 4.589, 4.936, 29.56, 30.85),
        ("vheat-s", 8.5, 8.477, 9.171, 50.06, 52.22),
        ("vheat-b", 14.9, 14.925, 16.158, 87.50, 92.13),
    ],
)
def test_vheat_reproduces_readme_and_official_code(
    name: str, readme: float, deploy: float, training: float, deploy_params: float, training_params: float
) -> None:
    """MACs of README and of the official code (fvcore, norms included) within 1 %, parameters to the digit."""
    model = on_meta(name, (224, 224))
    assert count(model, (224, 224)).macs / GIGA == pytest.approx(training, rel=0.01)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(training_params, abs=0.006)
    model.deploy(fold=False)
    found = count(model, (224, 224)).macs / GIGA
    assert found == pytest.approx(deploy, rel=0.01)
    assert found == pytest.approx(readme, rel=0.01)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(deploy_params, abs=0.006)


@pytest.mark.parametrize(
    ("name", "readme", "params"), [("swin-t", 4.5, 28.29), ("swin-s", 8.7, 49.61), ("swin-b", 15.4, 87.77)]
)
def test_swin_reproduces_readme(name: str, readme: float, params: float) -> None:
    model = on_meta(name, (224, 224))
    assert count(model, (224, 224)).macs / GIGA == pytest.approx(readme, rel=0.01)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(params, abs=0.006)


def test_training_form_pays_for_k_once_per_pass() -> None:
    model = on_meta("vheat-t", (224, 224))
    per_image = [count(model, (224, 224), batch).macs / batch / GIGA for batch in (1, 8, 64)]
    assert per_image == pytest.approx([4.908, 4.604, 4.567], abs=0.0005)
    model.deploy()
    one, many = (count(model, (224, 224), batch).macs / batch for batch in (1, 64))
    assert one == many, "the deploy form has nothing to share"


def test_attention_of_vit_is_counted_at_1024() -> None:
    """350.8 G is what a counter that does not know fused attention finds."""
    assert macs("vit-b", 1024) / GIGA == pytest.approx(659.8, abs=0.05)
    assert count(on_meta("vit-b", (512, 512)), (512, 512)).macs / GIGA == pytest.approx(107.028, abs=0.0005)


@pytest.mark.parametrize("name", ["test_vit", "swin-t"])
def test_fused_attention_changes_no_count(name: str) -> None:
    assert macs(name, 320, fused_attention=True) == macs(name, 320, fused_attention=False)


@pytest.mark.parametrize("name", ["test_vit", "test_vheat"])
def test_meta_device_counts_what_a_real_run_counts(name: str) -> None:
    """On a CPU the fused kernel runs, on the meta device its definition in products."""
    counts = []
    for device in ("meta", "cpu"):
        built = build(Case(subject=name, resolution=(96, 96)), device)
        images = torch.zeros(2, *built.input_shape, device=device)
        counts.append(count_flops(lambda model=built.model, images=images: model(images)))
    assert counts[0].flops == counts[1].flops
    if name == "test_vit":
        assert any("scaled_dot_product" in operator for operator in counts[1].by_operator)


def test_models_that_pool_by_attention_are_counted() -> None:
    """torch's counter fails on them without gradients: its hooks find a view of a parameter (SigLIP's)."""
    found = macs("test_vit3", 160)
    timm.layers.set_fused_attn(False)
    assert found == macs("test_vit3", 160, fused_attention=False) > 0


# what nobody counts


class Mixer(nn.Module):
    """Token mixing by a Fourier transform, as in GFNet."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.irfft2(torch.fft.rfft2(x))


@torch.library.custom_op("vheatbench_tests::secret", mutates_args=())
def secret(x: Tensor) -> Tensor:
    return x @ x


@secret.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


def test_a_fourier_transform_is_listed_as_not_counted() -> None:
    found = count_flops(lambda: Mixer()(torch.empty(1, 3, 32, 32, device="meta")))
    assert found.flops == 0
    assert found.suspicious == ["aten._fft_c2r", "aten._fft_r2c"]


def test_a_custom_kernel_and_a_matrix_vector_product_are_suspicious() -> None:
    x = torch.empty(8, 8, device="meta")
    assert count_flops(lambda: secret(x)).suspicious == ["vheatbench_tests.secret"]
    assert count_flops(lambda: torch.mv(x, x[0])).suspicious == ["aten.mv"]


def test_elementwise_work_is_listed_and_not_suspicious() -> None:
    x = torch.empty(1, 3, 8, 8, device="meta")

    def forward() -> None:
        y = nn.functional.interpolate(nn.functional.gelu(x), scale_factor=2, mode="bilinear")
        torch.cummax(y.softmax(-1).exp(), 0)

    found = count_flops(forward)
    assert found.suspicious == []
    assert set(found.uncounted) == {
        "aten.gelu",
        "aten.upsample_bilinear2d",
        "aten._softmax",
        "aten.exp",
        "aten.cummax",
    }


@pytest.mark.parametrize("name", ["vheat-t", "convnext_atto", "swinv2-t", "efficientformerv2_s0"])
def test_nothing_suspicious_in_the_baselines(name: str) -> None:
    built = build(Case(subject=name, resolution=(256, 256)), "meta")
    found = count(built.model, (256, 256))
    assert found.suspicious == []
    assert all(calls > 0 for calls in found.uncounted.values())


# per image, training


def test_metrics_per_image_and_three_passes_for_training() -> None:
    counted = FlopCount(flops=8000, by_operator={})
    plain = flop_metrics(counted, batch=4, form="deploy form")
    assert (plain["flops"].value, plain["flops"].unit) == (2000, "FLOP/image")
    assert (plain["macs"].value, plain["macs"].unit) == (1000, "MAC/image")
    assert all(metric.deterministic and metric.direction == "lower" for metric in plain.values())
    assert "deploy form" in plain["macs"].how
    assert "batch 4" in plain["macs"].how
    train = flop_metrics(counted, batch=4, form="training form", train=True)
    assert train["flops"].value == TRAIN_FACTOR * 2000 == 6000
    assert "times 3" in train["flops"].how


def forward_and_backward(groups: int) -> tuple[int, int]:
    conv = nn.Conv2d(16, 16, 3, padding=1, groups=groups, device="meta")
    images = torch.empty(1, 16, 8, 8, device="meta", requires_grad=True)
    forward, both = FlopCounterMode(display=False), FlopCounterMode(display=False)
    with forward:
        conv(images)
    with both:
        conv(images).sum().backward()
    return forward.get_total_flops(), both.get_total_flops() - forward.get_total_flops()


def test_why_backward_is_not_counted() -> None:
    """Of a depthwise convolution torch's counter makes groups + 1 passes instead of 2.

    Should this fail with a newer torch, TRAIN_FACTOR may be replaced by counting.
    """
    for groups, ratio in ((1, 2), (4, 5), (16, 17)):
        forward, backward = forward_and_backward(groups)
        assert backward == ratio * forward


def test_three_passes_is_what_training_counts_where_torch_counts_right() -> None:
    """A ViT has no grouped convolution: forward and backward are 3 forward passes but for the first layer."""
    model = on_meta("vit-t", (224, 224)).train()
    counter = FlopCounterMode(display=False)
    with counter:
        model(torch.empty(1, 3, 224, 224, device="meta")).sum().backward()
    forward = count(model, (224, 224)).flops
    patches = 196 * 192 * 768 * 2  # no gradient of the image is needed
    # attention's backward computes the scores anew in some kernels, never on the meta device
    assert counter.get_total_flops() == TRAIN_FACTOR * forward - patches


# fvcore


@pytest.mark.parametrize(
    ("name", "size", "mode"),
    [
        ("test_vheat", 64, "infer"),
        ("test_vheat", 96, "forward"),
        ("test_vit", 160, "infer"),
        ("test_convnext", 160, "infer"),
        ("swin_tiny_patch4_window7_224", 224, "infer"),
    ],
)
def test_fvcore_with_handlers_agrees(name: str, size: int, mode: str) -> None:
    case = Case(subject=name, resolution=(size, size), mode=mode)
    other = count_with_fvcore(build(case).model, torch.zeros(1, 3, size, size))
    ours = count(build(case, "meta").model.eval(), (size, size)).macs
    assert abs(disagreement(ours, other.products)) < 0.01
    assert other.macs > other.products, "norms are in the one and not in the other"


def test_fvcore_on_vheat_tiny_is_the_published_number() -> None:
    model = build(Case(subject="vheat-t", resolution=(224, 224), mode="forward")).model.deploy(fold=False)
    other = count_with_fvcore(model, torch.zeros(1, 3, 224, 224))
    assert other.macs / GIGA == pytest.approx(4.589, abs=0.001)


def test_plain_fvcore_misses_fused_attention_and_the_handler_finds_it() -> None:
    model = build(Case(subject="vit-t", resolution=(512, 512))).model
    images = torch.zeros(1, 3, 512, 512)
    ours = count(on_meta("vit-t", (512, 512)), (512, 512)).macs
    attention = 12 * 2 * 1025**2 * 192
    with torch.no_grad():
        plain = FlopCountAnalysis(model, images).unsupported_ops_warnings(False).tracer_warnings("none")
        missing = 1 - plain.total() / ours
    assert missing == pytest.approx(attention / ours, abs=0.01)
    assert missing > 0.3, "attention is a third of ViT-T at 512: without a handler it looks linear"
    assert plain.unsupported_ops()["aten::scaled_dot_product_attention"] == 12
    other = count_with_fvcore(model, images)
    assert abs(disagreement(ours, other.products)) < 0.001
    assert "aten::scaled_dot_product_attention" not in other.skipped


def test_plain_fvcore_miscounts_the_broadcast_products_of_the_heat_operator() -> None:
    model = build(Case(subject="test_vheat", resolution=(64, 64))).model
    images = torch.zeros(1, 3, 64, 64)
    plain = FlopCountAnalysis(model, images).unsupported_ops_warnings(False).tracer_warnings("none")
    with torch.no_grad():
        without = plain.by_operator()["matmul"]
    stages = ((16, 16, 1), (8, 32, 1), (4, 64, 2), (2, 128, 1))  # grid, channels, blocks
    right = sum(blocks * 2 * (n**3 * c + n**3 * c) for n, c, blocks in stages)
    first_row_only = sum(blocks * 2 * (n**3 * c + n**2 * c) for n, c, blocks in stages)
    assert without == first_row_only < right
    other = count_with_fvcore(model, images)
    assert other.products == closed_form_macs(model, 1, (64, 64))


def test_disagreement_is_signed_and_safe() -> None:
    assert disagreement(100, 101) == pytest.approx(0.01)
    assert disagreement(100, 99) == pytest.approx(-0.01)
    assert disagreement(0, 5) == float("inf")
