"""Models on the meta device: the same parameters and buffers as torch's own way of building them there."""

from __future__ import annotations

import pytest
import timm
import torch

import vheatbench.subjects.vheat  # noqa: F401  (registers the models)
from vheatbench.subjects.meta import on_meta

SWIN = "swin_tiny_patch4_window7_224"


def described(model: torch.nn.Module) -> list[tuple[object, ...]]:
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return [
        (name, type(one), one.shape, one.stride(), one.dtype, one.device, one.requires_grad) for name, one in tensors
    ]


@pytest.mark.parametrize("name", ["test_vheat", SWIN, "test_vit", "resnet18"])
def test_a_model_has_the_shapes_types_and_devices_that_torch_gives_it(name: str) -> None:
    with torch.device("meta"):
        expected = timm.create_model(name)
    with on_meta():
        found = timm.create_model(name)
    assert described(found) == described(expected)
    assert all(one.is_meta for one in found.parameters())


def test_buffers_of_a_model_that_is_moved_there_or_converted_follow_it() -> None:
    model = timm.create_model("test_vheat").to("meta")
    cosines = [(one.shape, one.dtype, one.is_meta) for name, one in model.named_buffers() if ".cos_" in name]
    assert cosines[:2] == [((16, 16), torch.float32, True)] * 2
    model.bfloat16()
    assert {one.dtype for _, one in model.named_buffers()} == {torch.bfloat16}
    back = model.to_empty(device="cpu").float()
    expected = dict(timm.create_model("test_vheat").named_buffers())
    assert all(torch.equal(one, expected[name]) for name, one in back.named_buffers() if ".cos_" in name)


def test_bounds_that_are_tensors_are_still_checked() -> None:
    with on_meta(), pytest.raises(RuntimeError):
        torch.empty(2, 3).clamp_(min=torch.empty(5))


def test_tensors_with_values_are_filled_as_ever() -> None:
    with on_meta():
        assert torch.ones(2, device="cpu").clamp_(max=0.5).tolist() == [0.5, 0.5]
