"""Small models of like size, the one without conduction, and the weights that are shipped."""

from __future__ import annotations

import pytest
import timm
import torch
from safetensors import safe_open

from vheatbench.case import Case
from vheatbench.errors import UserError
from vheatbench.studies.images.labelled import ImageTensors, open_labelled
from vheatbench.studies.training.batches import test_transform as transform_of
from vheatbench.studies.training.recipe import load_recipe
from vheatbench.subjects.catalog import build, find_subject, list_subjects
from vheatbench.subjects.heat_operator import HeatOperator
from vheatbench.subjects.micro import SHIPPED, TRAINED
from vheatbench.subjects.vheat import VHeat

pytestmark = pytest.mark.usefixtures("one_thread")


def parameters_of(name: str) -> int:
    return sum(one.numel() for one in timm.create_model(name).parameters())


def test_the_small_ones_are_of_like_size() -> None:
    counts = [parameters_of(name) for name in ("vheat_micro", "vheat_micro_still", "swin_micro", "vit_micro")]
    assert max(counts) < 1.1 * min(counts)
    assert counts[0] == counts[1]
    assert 0.9 * 175_000 < counts[0] < 1.1 * 175_000
    assert 1.3e6 < parameters_of("vheat_mini") < 1.5e6


@pytest.mark.parametrize(
    ("name", "grids"), [("vheat_micro", [16, 8, 4]), ("swin_micro", [16, 8, 4]), ("vit_micro", [8])]
)
def test_their_maps_are_features(name: str, grids: list[int]) -> None:
    model = timm.create_model(name, features_only=True).eval()
    maps = model(torch.zeros(1, 3, 64, 64))
    sides = [one.shape[2] if name != "swin_micro" else one.shape[1] for one in maps]
    assert sorted(set(sides), reverse=True) == grids


def test_without_conduction_k_is_0_and_stays_0() -> None:
    torch.manual_seed(0)
    model = timm.create_model("vheat_micro_still", num_classes=3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.5)
    images = torch.randn(2, 3, 64, 64)
    for _ in range(2):
        model(images).square().mean().backward()
        optimizer.step()
    operators = [module for module in model.modules() if isinstance(module, HeatOperator)]
    assert len(operators) == 7
    assert not any(one.requires_grad for operator in operators for one in operator.to_k.parameters())
    stage = model.stages[1]
    embedding = stage.freq_embed
    with torch.no_grad():
        for operator in (block.op for block in stage._blocks()):
            assert operator.diffusivity(embedding).abs().max() == 0
            seen = operator.observe(torch.randn(2, 8, 8, 32), embedding)
            assert torch.allclose(seen.before, seen.after, atol=1e-5)
        conducting = timm.create_model("vheat_micro", num_classes=3)
        other = next(conducting.stages[1]._blocks().__iter__()).op
        assert other.diffusivity(conducting.stages[1].freq_embed).max() > 0


def test_the_files_are_small_and_say_what_they_are() -> None:
    files = [TRAINED / f"{name}.safetensors" for name in SHIPPED]
    assert sum(file.stat().st_size for file in files) < 4 * 2**20
    assert sorted(TRAINED.glob("*.safetensors")) == sorted(files)
    for name, file in zip(SHIPPED, files, strict=True):
        with safe_open(file, "pt") as opened:
            about = opened.metadata()
        assert about["model"].replace("-", "_") == name.partition(".")[0]
        assert 0.5 < float(about["top1_accuracy"]) < 1


@pytest.mark.parametrize("name", SHIPPED)
def test_it_answers_as_right_as_its_file_says(name: str) -> None:
    subject = find_subject(name.replace("_", "-").replace(".", ":"))
    assert subject.file is not None
    with safe_open(subject.file, "pt") as opened:
        stated = float(opened.metadata()["top1_accuracy"])
    recipe = load_recipe("conduction")
    images = open_labelled("photographs").limited(300)
    tensors = ImageTensors(images, transform_of(recipe))
    model = subject.factory().eval()
    with torch.inference_mode():
        answers = model(torch.stack([tensors[i][1] for i in range(300)])).argmax(1)  # type: ignore[misc]
    right = (answers == torch.tensor(images.targets)).float().mean().item()
    assert right == pytest.approx(stated, abs=0.05)


def test_the_weights_are_loaded_by_name_at_every_size() -> None:
    for name in ("vheat-micro:photographs", "vheat_micro.photographs"):
        built = build(Case(subject=name, resolution=96, mode="forward"))
        assert built.facts["weights"] == find_subject(name).weights.words
        assert built.facts["weights"].startswith("shipped (")
        model = built.model
        assert isinstance(model, VHeat)
        assert model.stages[0].freq_embed is not None
        assert model.stages[0].freq_embed.shape == (24, 24, 16)
    plain = build(Case(subject="vheat-micro", resolution=96, mode="forward"))
    assert plain.facts["weights"] == "random, seed 0"
    one, other = (each.head.fc.weight for each in (plain.model, model))
    assert not torch.equal(one, other)


def test_they_are_listed_by_both_names() -> None:
    assert ("vheat_micro.photographs", "vheat-micro:photographs") in list_subjects("vheat-micro*")
    assert ("vheat_micro", "vheat-micro") in list_subjects("vheat_micro")


def test_weights_that_are_not_shipped_are_named() -> None:
    with pytest.raises(UserError, match="no weights 'cats' of vheat-micro are shipped \\(photographs\\)"):
        find_subject("vheat-micro:cats")
    with pytest.raises(UserError, match="no weights 'photographs' of swin-t are shipped \\(none are\\)"):
        find_subject("swin-t:photographs")
