"""Bytes foreseen on the meta device against what torch's CPU allocator really had alive."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from vheatbench.case import Case
from vheatbench.measure.footprint import activation_bytes
from vheatbench.measure.memory import measure_memory
from vheatbench.subjects.catalog import build
from vheatbench.subjects.paths import plain_operations

NARROW = {"embed_dim": 24, "num_heads": (1, 2, 4, 8)}
"""Options of a Swin that a test can afford to run."""


pytestmark = pytest.mark.usefixtures("one_thread")


def prepared(subject: str, size: int, mode: str, batch: int, device: str, fused: bool) -> tuple[Callable, list[Tensor]]:
    """The step of a mode, and the tensors that exist before it."""
    options = NARROW if subject == "swin-t" else {}
    case = Case(subject=subject, resolution=(size, size), mode=mode, fused_attention=fused, options=options)
    built = build(case, device)
    model = built.model
    images = torch.zeros(batch, *built.input_shape, device=device)

    def step() -> None:
        if mode == "train":
            model(images).sum().backward()
            model.zero_grad(set_to_none=True)
        else:
            with torch.no_grad():
                model(images)

    return step, [*model.parameters(), *model.buffers(), images]


def foreseen_over_real(subject: str, size: int, mode: str, batch: int = 8, fused: bool = True) -> float:
    foreseen = activation_bytes(*prepared(subject, size, mode, batch, "meta", fused))
    step, _ = prepared(subject, size, mode, batch, "cpu", fused)
    step()  # what is made once and kept is no part of a step
    real = measure_memory(step, torch.device("cpu"), weights_bytes=0, input_bytes=0, baseline=None)
    value = real["activation_peak_bytes"].value
    if value is None:
        pytest.skip(f"no true number on this machine: {real['activation_peak_bytes'].unavailable}")
    return foreseen / value


# tensors of 1000 float32 are 4000 bytes


def test_by_hand_what_is_alive_at_once_counts() -> None:
    x = torch.empty(1000, device="meta")

    def step() -> None:
        a = x * 2  # 4000
        b = a + 1  # 8000
        del a  # 4000
        c = torch.cat([b, b])  # 12000, the most
        del b  # 8000
        c.mul_(2)  # in place
        c[:10].view(2, 5)  # views
        c.sum()  # 8004

    assert activation_bytes(step, [x]) == 12_000


def test_by_hand_a_training_step() -> None:
    x, weight = torch.empty(8, 16, device="meta"), torch.empty(16, 32, device="meta", requires_grad=True)

    def step() -> None:
        hidden = (x @ weight).relu()  # product 8x32 of 1024 bytes, its relu 1024, saved
        hidden.sum().backward()

    # at the end: relu's output and the sum (4), gradients of the sum (4), of the product (1024), of the weight
    assert activation_bytes(step, [x, weight]) == 1024 + 4 + 4 + 1024 + 16 * 32 * 4


def test_what_exists_before_is_not_counted() -> None:
    x = torch.empty(1000, device="meta")
    assert activation_bytes(lambda: x.view(10, 100).t(), [x]) == 0
    assert activation_bytes(lambda: x.add_(1), [x]) == 0
    assert activation_bytes(lambda: x + 1, []) == 4000, "x itself was made before the step"


def test_memory_given_back_is_used_again() -> None:
    x = torch.empty(1000, device="meta")

    def step() -> None:
        for _ in range(50):
            x * 2

    assert activation_bytes(step, [x]) == 4000


def test_a_second_measurement_sees_nothing_of_the_first() -> None:
    x = torch.empty(1000, device="meta")
    kept: list[Tensor] = []
    assert [activation_bytes(lambda: kept.append(x + 1), [x]) for _ in range(3)] == [4000] * 3


def test_half_precision_takes_half() -> None:
    x = torch.empty(1000, device="meta", dtype=torch.bfloat16)
    assert activation_bytes(lambda: x * 2, [x]) == 2000


# Against the allocator. Models of products and norms are foreseen to the byte as soon as activations
# outweigh the weights; of convolutions oneDNN copies weights and input, which is not foreseen.


@pytest.mark.parametrize("mode", ["infer", "forward", "train"])
@pytest.mark.parametrize(("subject", "size"), [("test_vit", 160), ("test_vheat", 128)])
def test_vheat_and_vit_are_foreseen(subject: str, size: int, mode: str) -> None:
    with plain_operations():
        ratio = foreseen_over_real(subject, size, mode)
    if mode == "train":
        assert 0.98 <= ratio <= 1.0
    else:
        assert ratio == 1.0


@pytest.mark.parametrize("mode", ["infer", "train"])
def test_vheats_own_paths_keep_less_than_is_foreseen(mode: str) -> None:
    """On the meta device plain operations run; fused products and lean gradients keep less alive."""
    assert 1.0 < foreseen_over_real("test_vheat", 128, mode) < 2.0


@pytest.mark.parametrize("mode", ["infer", "train"])
def test_swin_is_foreseen_with_its_learned_bias(mode: str) -> None:
    """In inference the bias is a mask of the fused kernel; in training it learns, and a CPU computes in products."""
    assert foreseen_over_real("swin-t", 224, mode, batch=1) == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("mode", ["forward", "train"])
def test_unfused_attention_is_foreseen_with_its_matrix(mode: str) -> None:
    assert foreseen_over_real("test_vit", 160, mode, fused=False) == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize(
    ("subject", "mode", "least"),
    [
        ("test_convnext", "forward", 1.0),
        ("test_convnext", "train", 0.9),
        ("test_resnet", "forward", 0.75),
        ("test_resnet", "train", 0.95),
        ("test_efficientnet", "forward", 0.85),
        ("test_efficientnet", "train", 0.95),
    ],
)
def test_convolutions_need_up_to_a_third_more_than_foreseen(subject: str, mode: str, least: float) -> None:
    assert least <= foreseen_over_real(subject, 160, mode) <= 1.0


def test_fused_attention_grows_with_the_tokens_and_unfused_with_their_square() -> None:
    def peak(size: int, fused: bool) -> int:
        return activation_bytes(*prepared("vit-t", size, "forward", 1, "meta", fused))

    growth = {fused: peak(1024, fused) / peak(512, fused) for fused in (True, False)}
    assert growth[True] == pytest.approx(4, rel=0.02)
    assert growth[False] > 12


def test_fused_attention_with_mask_scale_and_dropout_still_runs() -> None:
    q = torch.empty(1, 2, 16, 8, device="meta")
    matrix = 2 * 16 * 16 * 4
    attention = torch.nn.functional.scaled_dot_product_attention
    plain = activation_bytes(lambda: attention(q, q, q, scale=0.5, is_causal=True), [q])
    masked = activation_bytes(lambda: attention(q, q, q, attn_mask=torch.zeros(16, 16, device="meta")), [q])
    assert plain < masked < matrix + q.nbytes + 16 * 16 * 4
    assert activation_bytes(lambda: attention(q, q, q, dropout_p=0.1), [q]) > matrix, "dropout needs the matrix"
    three = q[0]
    assert activation_bytes(lambda: attention(three, three, three), [q]) > 0
    assert activation_bytes(lambda: attention(query=q, key=q, value=q), [q]) <= plain
