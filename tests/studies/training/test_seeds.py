"""Trainings that differ in their seed: what they are, their numbers beside each other, several at once."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

from vheatbench.cli import app
from vheatbench.errors import UserError
from vheatbench.report.page import render
from vheatbench.stats import mean_interval
from vheatbench.store.read import read_run
from vheatbench.studies.images.labelled import open_labelled
from vheatbench.studies.images.packaged import TILES, photographs_parts
from vheatbench.studies.images.photographs import PHOTOGRAPHS
from vheatbench.studies.training.recipe import Recipe, load_recipe
from vheatbench.studies.training.section import training_sections
from vheatbench.studies.training.seeds import over_seeds
from vheatbench.studies.training.side_by_side import side_by_side
from vheatbench.studies.training.table import as_planned

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = {"img_size": 32, "dim": 8, "depths": [1, 1]}


def recipe_file(folder: Path, **changes: Any) -> Path:
    """Textures at 32 pixels for two updates, with two models and two seeds."""
    fields = {
        "data": "textures", "resolution": 32, "epochs": 1, "warmup_epochs": 0, "batch": 600, "learning_rate": 0.001,
        "models": [
            {"name": "one", "model": "test_vheat", "options": TINY},
            {"name": "two", "model": "test_vheat", "options": {**TINY, "dim": 4}},
        ],
        "seeds": 2, "seed": 5, "ema_decay": None, "mixup": 0, "cutmix": 0, "auto_augment": None, "random_erasing": 0,
        "workers": 0, "precision": "float32",
    }  # fmt: skip
    path = folder / "two-seeds.yaml"
    path.write_text(json.dumps({**fields, **changes}))
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same trainings one after the other (``alone``) and two at once (``together``)."""
    folder = tmp_path_factory.mktemp("seeds")
    recipe = recipe_file(folder)
    for name, jobs in (("alone", "1"), ("together", "2")):
        words = [
            "train",
            "--config",
            str(recipe),
            "--checkpoints",
            str(folder / name),
            "--results",
            str(folder / "r" / name),
        ]
        result = CliRunner().invoke(app, [*words, "--jobs", jobs, "--device", "cpu"])
        assert result.exit_code == 0, result.output
    return folder


def run_of(folder: Path, name: str) -> Any:
    (path,) = (folder / "r" / name).glob("*.jsonl")
    return read_run(path)


def test_every_model_with_every_seed_seed_by_seed() -> None:
    recipe = Recipe.model_validate({"models": ["swin-t", "vit-s"], "seed": 3, "seeds": 2})
    assert [(entry.model, one.seed, one.seeds) for entry, one in recipe.trainings] == [
        ("swin-t", 3, 1), ("vit-s", 3, 1), ("swin-t", 4, 1), ("vit-s", 4, 1),
    ]  # fmt: skip
    assert {one.digest for _, one in recipe.trainings} == {recipe.digest}
    with pytest.raises(UserError, match="seeds"):
        load_recipe("digits", ["seeds=0"])


def test_at_once_they_learn_what_they_learn_alone(trained: Path) -> None:
    alone, together = run_of(trained, "alone"), run_of(trained, "together")
    plan = [(case.analysis["name"], case.analysis["seed"]) for case in together.header.plan]
    assert plan == [("one", 5), ("two", 5), ("one", 6), ("two", 6)]
    assert [record.case_id for record in as_planned(together)] == [record.case_id for record in alone.records]
    for folder in ("one-seed5", "one-seed6", "two-seed5", "two-seed6"):
        files = [load_file(trained / name / folder / "weights.safetensors") for name in ("alone", "together")]
        assert all(np.allclose(files[0][key], files[1][key], atol=1e-5) for key in files[0])
    weights = [load_file(trained / "alone" / f"one-seed{seed}" / "weights.safetensors") for seed in (5, 6)]
    assert not np.allclose(weights[0]["head.fc.weight"], weights[1]["head.fc.weight"], atol=1e-3)


def test_a_model_needs_two_seeds_and_two_in_common_with_the_first(trained: Path) -> None:
    run = run_of(trained, "alone")
    assert [record.case.analysis["seed"] for record in run.records] == [5, 5, 6, 6]
    assert over_seeds(run.records[:2]) == []
    assert [one.name for one in over_seeds(run.records[:3])] == ["one"]
    last = run.records[3].case
    other = last.model_copy(update={"analysis": {**last.analysis, "seed": 7}})
    _, two = over_seeds([*run.records[:3], run.records[3].model_copy(update={"case": other})])
    assert (list(two.by_seed), two.change) == ([5, 7], None)


def test_records_are_shown_as_planned_however_they_ended_and_with_their_threads(trained: Path) -> None:
    run = run_of(trained, "together")
    assert as_planned(replace(run, records=run.records[::-1])) == as_planned(run)
    assert [record.case_id for record in as_planned(run)] == [case.id for case in run.header.plan]
    assert {record.conditions["threads"] for record in run.records} == {1}


def test_means_and_changes_over_seeds(trained: Path) -> None:
    run = run_of(trained, "alone")
    values = {"one": (0.9, 0.8), "two": (0.7, 0.5)}
    for record in run.records:
        name, seed = record.conditions["name"], record.case.analysis["seed"]
        record.metrics["top1_accuracy"].value = values[name][seed - 5]
    one, two = over_seeds(run.records)
    assert (one.name, one.by_seed, one.change) == ("one", {5: 0.9, 6: 0.8}, None)
    assert one.mean.value == pytest.approx(0.85)
    # Student's t of one degree of freedom, times the standard error
    assert one.mean.high - one.mean.value == pytest.approx(12.7062 * 0.05, rel=1e-4)
    assert two.change is not None
    assert two.change.value == pytest.approx(-0.25)
    assert two.change.low == pytest.approx(-0.25 - 12.7062 * 0.05, rel=1e-4)
    assert not two.changed()
    (section,) = training_sections(run, "r0fit")
    drawn = [record.samples["top1_accuracy"].values[0] for record in run.records if record.conditions["name"] == "one"]
    assert [row[:2] for row in section.charts[0].rows] == [("one", "1"), ("two", "1")]
    assert float(section.charts[0].rows[0][2]) == pytest.approx(100 * sum(drawn) / 2, rel=1e-3)
    assert section.tables[0].rows[1][3:] == ("60.00 (-67.06 to 187.06)", "-25.00 (-88.53 to +38.53)")
    assert [row[:3] for row in section.tables[1].rows] == [(n, s, "1") for s in ("5", "6") for n in ("one", "two")]
    text = section.findings[0][0].text
    assert "two -25.0 points (-88.5 to +38.5)" in text
    assert "hold 0" in text
    assert "Over seeds" in render([run])


def test_a_mean_and_its_interval() -> None:
    # Moore and McCabe's textbook way by hand: 4, 6, 8 has mean 6, deviation 2, t(0.975, 2) = 4.3027
    found = mean_interval([4.0, 6.0, 8.0])
    assert found.value == 6
    assert found.high - 6 == pytest.approx(4.3027 * 2 / 3**0.5, rel=1e-4)
    with pytest.raises(ValueError, match="two values"):
        mean_interval([1.0])


def _killed(position: int, on_epoch: Any) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def _wrong(position: int, on_epoch: Any) -> Any:
    raise UserError(f"image {position} cannot be read")


@pytest.mark.parametrize(("training", "words"), [(_killed, "is gone"), (_wrong, "image 0 cannot be read")])
def test_a_process_that_fails_is_one_line(training: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        list(side_by_side(training, [0], 1, 1, lambda position, progress: None))


def test_jobs_share_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    result = CliRunner().invoke(
        app, ["train", "--config", str(recipe_file(tmp_path)), "--jobs", "2", "--device", "cpu"]
    )
    assert isinstance(result.exception, UserError)
    assert "--jobs 2: only on a CPU and without torchrun" in str(result.exception)


def test_crops_of_photographs_share_no_pixel_with_tests() -> None:
    train, test = photographs_parts()
    assert (len(train), len(test), len(train.classes)) == (4000, 1000, 10)
    assert np.bincount(test.targets).tolist() == [100] * 10
    place = train.classes.index("coffee")
    with Image.open(PHOTOGRAPHS / "coffee.jpg") as file:
        coffee = np.asarray(file.convert("RGB"))
    tile = coffee.shape[0] // TILES, coffee.shape[1] // TILES
    windows = np.lib.stride_tricks.sliding_window_view(coffee, (64, 64), axis=(0, 1))
    for part, tested in ((train, False), (test, True)):
        for index in [i for i, target in enumerate(part.targets) if target == place][:8]:
            crop = np.asarray(part.read(index)).transpose(2, 0, 1)
            corner = windows[:, :, :, 0, 0] == crop[:, 0, 0]
            found = [(y, x) for y, x in np.argwhere(corner.all(2)) if (windows[y, x] == crop).all()]
            assert len(found) == 1
            (y, x) = found[0]
            row, column = y // tile[0], x // tile[1]
            assert (y + 63) // tile[0] == row
            assert (x + 63) // tile[1] == column
            assert ((0, 2, 1, 3)[row] == column) == tested


def test_packaged_images_are_evaluated_by_their_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_labelled("textures").fingerprint == open_labelled(Path("textures")).fingerprint
    assert len(open_labelled("textures")) == 300
    with pytest.raises(UserError, match="--split val"):
        open_labelled("textures", "val")
    with pytest.raises(UserError, match=r"--data texture: no such folder \(did you mean 'textures'"):
        open_labelled("texture")
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "textures" / "own"
    folder.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(folder / "one.png")
    assert open_labelled("textures").classes == ("own",)
