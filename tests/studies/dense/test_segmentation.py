"""Segmentation: ADE20K folders, the schedule, known confusion, training that learns, and the commands."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from typer.testing import CliRunner

from support import forked
from support.shapes import write_ade, write_turned
from vheatbench.cli import app
from vheatbench.errors import UserError
from vheatbench.run.checkpointing import read_checkpoint, write_checkpoint
from vheatbench.run.distributed import Group
from vheatbench.studies.dense import ade
from vheatbench.studies.dense.ade import SegmentationCrops, read_ade
from vheatbench.studies.dense.fit import fit
from vheatbench.studies.dense.labels import IGNORED, LabelCounts, Numbering, ranges
from vheatbench.studies.dense.segmentation import (
    SCALES,
    SegmentationResult,
    collate,
    confusion_of,
    evaluate_segmenter,
    predict,
    segmentation_losses,
    segmentation_schedule,
    windows,
)
from vheatbench.subjects.dense import UperNet

pytestmark = pytest.mark.usefixtures("one_thread")
ALONE = Group(torch.device("cpu"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_ade(tmp_path, "training", 6, seed=0)
    write_ade(tmp_path, "validation", 4, seed=1)
    return tmp_path


def small_segmenter() -> UperNet:
    torch.manual_seed(0)
    return UperNet("test_vheat", 3, channels=32, backbone={"img_size": 64})


def test_the_schedule_of_the_papers() -> None:
    schedule = segmentation_schedule("160k")
    assert (schedule.steps, schedule.lr, schedule.weight_decay, schedule.warmup) == (160_000, 6e-5, 0.01, 1500)
    rates = [schedule.rate(step) for step in (0, 749, 80_000, 159_999)]
    assert rates == pytest.approx([6e-5 / 1500, 3e-5 * (1 - 749 / 160_000), 3e-5, 6e-5 / 160_000])
    assert segmentation_schedule("160k", steps=20).warmup == 2


# data


def test_labels_are_shifted_and_zero_is_ignored(root: Path) -> None:
    folder = read_ade(root, "training", Numbering.of(3))
    image, label = folder.pair(0)
    assert image.shape == (3, 64, 64)
    assert set(label[-1].tolist()) == {IGNORED}
    assert set(label[:-1].unique().tolist()) <= {0, 1, 2}
    assert label[0, 0] == 2, "class 3 of the file, the ground"


def test_crops_keep_labels_on_their_pixels(root: Path) -> None:
    folder = read_ade(root, "training", Numbering.of(3))
    crops = SegmentationCrops(folder, 48)
    shapes = set()
    for seed in range(12):
        image, label = crops[seed % 6, seed]
        shapes.add((tuple(image.shape), tuple(label.shape)))
        for kind, channel in ((0, 0), (1, 1)):
            inside = image[:, label == kind]
            if inside.shape[1] > 200:
                assert inside.mean(1).argmax() == channel, "squares are red, triangles green"
    assert shapes == {((3, 48, 48), (48, 48))}
    assert all(a.equal(b) for a, b in zip(crops[0, 5], crops[0, 5], strict=True)), "the seed decides"
    assert not crops[0, 5][0].equal(crops[0, 6][0])


def test_crops_of_one_class_are_drawn_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for part in ("images", "annotations"):
        (tmp_path / part / "training").mkdir(parents=True)
    labels = np.ones((64, 256), dtype=np.uint8)
    labels[:, 224:] = 2
    Image.fromarray(labels).save(tmp_path / "annotations" / "training" / "a.png")
    Image.fromarray(np.full((64, 256, 3), 128, dtype=np.uint8)).save(tmp_path / "images" / "training" / "a.png")
    crops = SegmentationCrops(read_ade(tmp_path, "training", Numbering.of(2)), 64)

    def mixed() -> int:
        return sum(set(crops[0, seed][1].unique().tolist()) >= {0, 1} for seed in range(40))

    often = mixed()
    monkeypatch.setattr(ade, "TRIES", 1)
    assert often > mixed() + 8


def test_crops_are_filled_with_the_mean_colour(root: Path) -> None:
    crops = SegmentationCrops(read_ade(root, "training", Numbering.of(3)), 64)
    small = next(crops[0, seed] for seed in range(40) if (crops[0, seed][1][-1] == IGNORED).all())
    image, label = small
    assert (label[-1] == IGNORED).all()
    assert (image[:, -1, -1] == 0).all()


def test_labels_without_a_class_are_nothing_to_test(root: Path) -> None:
    for path in (root / "annotations" / "validation").iterdir():
        Image.fromarray(np.zeros((64, 64), dtype=np.uint8)).save(path)
    with pytest.raises(UserError, match=r"no pixel of any label map has a class.*: 0 \(ignored\) 100.0 %"):
        read_ade(root, "validation", Numbering.of(3))


def test_more_than_255_classes_are_told_apart(tmp_path: Path) -> None:
    write_ade(tmp_path, "training", 1, seed=0)
    label = tmp_path / "annotations" / "training" / "0.png"
    Image.fromarray(np.repeat(np.array([255, 256, 300, 0], dtype=np.uint16), 16 * 64).reshape(64, 64)).save(label)
    folder = read_ade(tmp_path, "training", Numbering.of(300))
    assert folder.label(0)[::16, 0].tolist() == [254, 255, 299, IGNORED], "255 is one of the classes"


def test_bad_folders_are_refused(root: Path) -> None:
    with pytest.raises(UserError, match="no such folder; ADE20K's format"):
        read_ade(root, "testing", Numbering.of(3))
    with pytest.raises(UserError, match=r"label 3 beyond the 2 classes, which are 1 to 2: .* --ignore-index 2"):
        read_ade(root, "training", Numbering.of(2))
    folder = read_ade(root, "training", Numbering.of(3))
    labels = root / "annotations" / "training"
    Image.new("L", (64, 60)).save(labels / "0.png")
    with pytest.raises(UserError, match=r"0.png: is 64x60 pixels, its image 0.jpg is 64x64"):
        folder.pair(0)
    with pytest.raises(UserError, match=r"0.jpg: is 64x64 pixels, its annotations are for 64x60"):
        read_ade(root, "training", Numbering.of(3))
    Image.new("RGB", (64, 64)).save(labels / "1.png")
    with pytest.raises(UserError, match="one channel of class numbers, this one has 3"):
        folder.pair(1)
    (root / "images" / "training" / "2.jpg").write_text("no image")
    with pytest.raises(UserError, match="cannot be read as an image"):
        folder.pair(2)
    (labels / "3.png").unlink()
    with pytest.raises(UserError, match=r"1 of 6 images have no label map in .*: 3.png"):
        read_ade(root, "training", Numbering.of(3))
    for path in (root / "images" / "validation").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="no images"):
        read_ade(root, "validation", Numbering.of(3))


def write_labels(root: Path, split: str, *maps: np.ndarray) -> None:
    """Label maps, each with an image of noise."""
    for part in ("images", "annotations"):
        (root / part / split).mkdir(parents=True)
    for number, values in enumerate(maps):
        noise = np.random.default_rng(number).integers(0, 255, (*values.shape, 3), dtype=np.uint8)
        Image.fromarray(noise).save(root / "images" / split / f"{number}.jpg")
        Image.fromarray(values).save(root / "annotations" / split / f"{number}.png")


def mask(low: int, high: int) -> np.ndarray:
    """A sixth of it is ``high``."""
    values = np.full((72, 100), low, dtype=np.uint8)
    values[20:50, 30:70] = high
    return values


@pytest.mark.parametrize(
    ("numbering", "expected"),
    [
        (Numbering.of(150), [-1, 0, 149, 252, 253, -1]),
        (Numbering.of(150, reduce_zero_label=False), [0, 1, 150, 253, 254, -1]),
        (Numbering.of(150, ignore_index=0), [-1, -1, 149, 252, 253, 254]),
        (Numbering.of(256), [-1, 0, 149, 252, 253, 254]),
    ],
)
def test_numbers_are_reduced_and_ignored_as_in_mmsegmentation(numbering: Numbering, expected: list[int]) -> None:
    assert numbering.classes_of(np.array([0, 1, 150, 253, 254, 255])).tolist() == expected
    if numbering.ignore_index == 255 and numbering.reduce_zero_label:
        # the lines of its LoadAnnotations, on bytes
        theirs = np.arange(256, dtype=np.uint8)
        theirs[theirs == 0] = 255
        theirs = theirs - 1
        theirs[theirs == 254] = 255
        ours = numbering.classes_of(np.arange(256))
        assert np.where(ours == IGNORED, 255, ours).tolist() == theirs.tolist()


@pytest.mark.parametrize(
    ("values", "numbering", "words"),
    [
        (mask(0, 255), Numbering.of(150), r"no pixel.* 0 \(ignored\) 83.3 %, 255 \(ignored\) 16.7 %.*renumber"),
        (mask(0, 255), Numbering.of(255, ignore_index=300), "one class alone occurs"),
        (mask(0, 255), Numbering.of(2, False, 7), r"label 255 beyond the 2 classes, which are 0 to 1"),
        (mask(0, 1), Numbering.of(150), r"one class alone.*give --no-reduce-zero-label where 0 is a class"),
        (mask(1, 2), Numbering.of(2, ignore_index=1), "one class alone occurs"),
    ],
)
def test_labels_that_tell_nothing_apart_are_refused(
    tmp_path: Path, values: np.ndarray, numbering: Numbering, words: str
) -> None:
    write_labels(tmp_path, "training", values, values)
    with pytest.raises(UserError, match=words) as caught:
        read_ade(tmp_path, "training", numbering)
    assert "\n" not in str(caught.value)


def test_labels_are_counted_and_absent_classes_named(tmp_path: Path) -> None:
    write_labels(tmp_path, "training", mask(0, 1), mask(1, 4))
    folder = read_ade(tmp_path, "training", Numbering.of(6, reduce_zero_label=False))
    assert folder.counts.pixels == {0: 6000, 1: 1200 + 6000, 4: 1200}
    assert folder.counts.warnings == ["3 of 6 classes never occur in the labels: 2 to 3, 5"]
    assert str(folder.counts) == "labels of 2 maps: 0 41.7 %, 1 50.0 %, 4 8.3 %"
    assert folder.label(0)[0, 0] == 0
    whole = LabelCounts(Numbering.of(3), {1: 1, 2: 1, 3: 1}, 1, "here")
    assert whole.warnings == []
    assert ranges([]) == ""


def test_an_ignored_class_is_neither_absent_nor_counted(tmp_path: Path) -> None:
    write_labels(tmp_path, "training", mask(1, 2), mask(2, 3))
    folder = read_ade(tmp_path, "training", Numbering.of(3, ignore_index=1))
    assert folder.counts.warnings == []
    assert folder.label(0).unique().tolist() == [IGNORED, 0]
    model = nn.Sequential(nn.Conv2d(3, 3, 1)).eval()
    confusion = evaluate_segmenter(model, folder, ALONE, 72).confusion
    assert confusion.sum(1).tolist() == [6000, 0, 1200]


@pytest.mark.parametrize(("orientation", "stored"), [(3, False), (6, False), (6, True)])
def test_images_are_turned_as_their_label_maps_have_them(tmp_path: Path, orientation: int, stored: bool) -> None:
    values = mask(1, 2)
    values[:10, :10] = 2
    shown = np.repeat(np.where(values == 2, 255, 0).astype(np.uint8)[..., None], 3, 2)
    drawn = np.ascontiguousarray(np.rot90(values)) if stored else values
    write_labels(tmp_path, "training", drawn)
    write_turned(tmp_path / "images" / "training" / "0.jpg", shown, orientation)
    image, label = read_ade(tmp_path, "training", Numbering.of(2)).pair(0)
    assert ((image.mean(0) > 0.5) == (label == 1)).float().mean() > 0.99


# scores


def test_confusion_and_miou_by_hand() -> None:
    label = torch.tensor([[0, 0, 1], [1, IGNORED, 1]])
    answer = torch.tensor([[0, 1, 1], [1, 2, 1]])
    confusion = confusion_of(answer, label, 4)
    assert confusion[:2, :2].tolist() == [[1, 1], [0, 3]], "true classes are rows"
    assert confusion.sum() == 5, "the ignored pixel counts for nothing"
    result = SegmentationResult(confusion, 1, 1.0)
    assert result.ious == [1 / 2, 3 / 4, None, None]
    assert result.miou == pytest.approx((1 / 2 + 3 / 4) / 2)
    assert result.accuracy == pytest.approx(4 / 5)


class ByColour(nn.Module):
    """Red is class 0, green class 1, dark class 2."""

    def forward(self, images: Tensor) -> Tensor:
        red, green = images[:, 0], images[:, 1]
        dark = torch.full_like(red, 0.2)
        return 20 * torch.stack([red, green, dark], 1)


@pytest.mark.parametrize(("scales", "mirror"), [((1.0,), False), (SCALES, True)])
def test_a_model_that_knows_has_a_high_score(root: Path, scales: tuple[float, ...], mirror: bool) -> None:
    result = evaluate_segmenter(ByColour(), read_ade(root, "validation", Numbering.of(3)), ALONE, 64, scales, mirror)
    assert result.miou > 0.9
    assert result.confusion.sum() == 4 * 63 * 64, "all pixels but the ignored row"


def test_windows_cover_an_image_as_the_published_test_does() -> None:
    assert list(windows(512, 683, 512)) == [(0, 0), (0, 171)], "every 341 pixels, the last at the edge"
    assert list(windows(512, 512, 512)) == [(0, 0)]
    assert list(windows(300, 512, 512)) == [(0, 0)], "a smaller image is one window"
    assert list(windows(512, 853, 512)) == [(0, 0), (0, 341)]
    assert len(list(windows(1024, 2048, 512))) == 3 * 6
    covered = torch.zeros(100, 130)
    for top, left in windows(100, 130, 48):
        assert top + 48 <= 100
        assert left + 48 <= 130
        covered[top : top + 48, left : left + 48] += 1
    assert covered.min() >= 1


def test_windows_are_averaged_where_they_overlap() -> None:
    asked = []

    class Counting(nn.Module):
        """The n-th window is answered n: where two overlap, their mean decides."""

        def forward(self, images: Tensor) -> Tensor:
            asked.append(tuple(images.shape[-2:]))
            level = torch.full(images[:, 0].shape, float(len(asked)))
            return torch.stack([level, torch.full_like(level, 1.4)], 1)

    answer = predict(Counting(), torch.rand(3, 48, 80), 48, window=48)
    assert asked == [(48, 48), (48, 48)]
    assert (answer[:, :32] == 1).all(), "1 against 1.4"
    assert (answer[:, 32:] == 0).all(), "1.5 and 2 against 1.4"


def test_one_window_is_the_whole_image(root: Path) -> None:
    folder = read_ade(root, "validation", Numbering.of(3))
    model = small_segmenter().eval()
    whole, window = (evaluate_segmenter(model, folder, ALONE, 64, window=side).confusion for side in (None, 64))
    assert whole.equal(window)
    narrow = evaluate_segmenter(model, folder, ALONE, 64, window=32).confusion
    assert not narrow.equal(whole), "a window sees less"


def test_processes_share_the_images_without_overlap(root: Path) -> None:
    class Unheard(Group):
        """One of two processes, whose answers nobody gathers."""

        def gather_or_raise(self, work: Any) -> list[Any]:
            return [work()]

        def on_main(self, work: Any) -> Any:
            return work()

        together = on_main

    folder = read_ade(root, "training", Numbering.of(3))
    parts = [evaluate_segmenter(ByColour(), folder, Unheard(ALONE.device, rank, 4), 64) for rank in range(4)]
    whole = evaluate_segmenter(ByColour(), folder, ALONE, 64)
    assert sum(part.confusion for part in parts).equal(whole.confusion)
    assert all(part.confusion.sum() > 0 for part in parts)


def test_scales_and_mirrors_are_all_asked_and_turned_back() -> None:
    asked = []

    class Left(nn.Module):
        """Class 0 in the left half of whatever it is shown, if that is brighter."""

        def forward(self, images: Tensor) -> Tensor:
            asked.append(tuple(images.shape[-2:]))
            bright = images.mean(1)
            return torch.stack([bright, -bright], 1)

    image = torch.zeros(3, 32, 64)
    image[:, :, :32] = 1
    answer = predict(Left(), image, 64, SCALES, mirror=True)
    assert (answer[:, :28] == 0).all()
    assert (answer[:, 36:] == 1).all()
    assert asked == [(round(64 * s), round(128 * s)) for s in SCALES for _ in (0, 1)]
    long = torch.zeros(3, 10, 1000)
    asked.clear()
    predict(Left(), long, 64)
    assert asked == [(32, 256)], "the longer side is at most four times the shorter's aim"


# training


def test_the_losses_leave_ignored_pixels_out() -> None:
    model = small_segmenter().train()
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    nothing = torch.full((2, 64, 64), IGNORED)
    assert [float(value) for value in segmentation_losses(model, (images, nothing), ALONE.device).values()] == [0, 0]
    losses = segmentation_losses(model, (images, torch.zeros(2, 64, 64).long()), ALONE.device)
    assert set(losses) == {"decoder", "auxiliary"}
    sum(losses.values()).backward()
    without = [name for name, p in model.named_parameters() if p.grad is None]
    assert without == [], "every parameter learns, or several processes would wait for it"


def test_the_auxiliary_head_counts_less_and_pixels_count_alike() -> None:
    class Flat(nn.Module):
        def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
            return torch.zeros(2, 4, 8, 8), torch.zeros(2, 4, 2, 2)

    labels = torch.full((2, 8, 8), IGNORED)
    labels[0, 0, :3] = 1
    losses = segmentation_losses(Flat(), (torch.zeros(2, 3, 8, 8), labels), ALONE.device)
    assert float(losses["decoder"]) == pytest.approx(np.log(4))
    assert float(losses["auxiliary"]) == pytest.approx(0.4 * np.log(4))


def test_evaluation_has_no_auxiliary_head() -> None:
    model = small_segmenter().eval()
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 64, 70)).shape == (1, 3, 64, 70)


@pytest.mark.slow
def test_a_segmenter_learns(root: Path, tmp_path: Path) -> None:
    write_ade(tmp_path / "more", "training", 24, seed=0)
    folder = read_ade(tmp_path / "more", "training", Numbering.of(3))
    other = read_ade(root, "validation", Numbering.of(3))
    model = small_segmenter()
    before = evaluate_segmenter(model.eval(), other, ALONE, 64).miou
    schedule = segmentation_schedule("160k", batch=6, lr=2e-3, steps=60)
    data = SegmentationCrops(folder, 64)
    fit(model, data, schedule, segmentation_losses, collate, ALONE, tmp_path / "out", about={}, save_every=60)
    after = evaluate_segmenter(model.eval(), other, ALONE, 64).miou
    assert before < 0.5
    assert after > max(0.6, before + 0.2)


# the command


def command(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(one) for one in arguments])


def test_the_commands_train_and_evaluate(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    trained = command("segment", "train", "--model", "test_vheat", "--data", root, "--classes", 3, "--batch", 2,
                      "--steps", 2, "--crop", 64, "--channels", 16, "--device", "cpu", "--out", out, "-q")  # fmt: skip
    assert trained.exit_code == 0, trained.exception
    assert trained.stdout.split() == [str(out / "test_vheat.safetensors")]
    values = {}
    for extra in ([], ["--multi-scale"]):
        found = command("segment", "eval", "--weights", out / "test_vheat.safetensors", "--data", root, "--device",
                        "cpu", "--results", tmp_path / "results", "--json", "-q", *extra)  # fmt: skip
        assert found.exit_code == 0, found.exception
        record = json.loads(found.stdout)["records"][0]
        assert record["case"]["subject"] == "upernet:test_vheat"
        assert record["case"]["analysis"]["schedule"] == "160k"
        assert record["case"]["analysis"]["test"] == "slide"
        assert "in windows of 64 pixels every 42" in next(iter(record["metrics"].values()))["how"]
        values |= {name: metric["value"] for name, metric in record["metrics"].items() if "miou" in name}
    assert set(values) == {"miou", "miou_multi_scale"}
    assert all(0 <= value <= 1 for value in values.values())
    wrong = command("detect", "eval", "--weights", out / "test_vheat.safetensors", "--data", root, "--device", "cpu")
    assert "not weights that `vheatbench detect train` wrote" in str(wrong.exception)


@pytest.mark.slow
def test_two_processes_name_a_bad_image_once_and_train_without_it(root: Path, tmp_path: Path) -> None:
    options = ["--model", "test_vheat", "--data", root, "--classes", 3, "--batch", 4, "--steps", 3, "--crop", 64]
    options += ["--channels", 16, "--device", "cpu", "--out", tmp_path / "out", "--save-every", 1, "--workers", 1]
    runner = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", "-m"]
    words = [*runner, "vheatbench", "segment", "train", *map(str, options)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    image = root / "images" / "training" / "4.jpg"
    good = image.read_bytes()
    image.write_bytes(good[: len(good) // 2])
    done = forked.run(words, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode != 0
    assert done.stderr.count("4.jpg: cannot be read as an image") == 1
    assert "in fit" not in done.stderr, "no traceback of ours"
    image.write_bytes(good)
    resume = ["--resume"] if (tmp_path / "out" / "checkpoint.pt").exists() else []
    assert bool(resume) == ("is kept; continue with: vheatbench " in done.stderr)
    done = forked.run([*words, *resume], capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "test_vheat.safetensors").exists()


def test_a_resumed_training_is_that_of_the_same_data(root: Path, tmp_path: Path) -> None:
    options = ["--model", "test_vheat", "--data", root, "--classes", 3, "--batch", 2, "--steps", 1, "--crop", 64]
    options += ["--channels", 16, "--device", "cpu", "--out", tmp_path / "out", "-q"]
    assert command("segment", "train", *options).exit_code == 0
    assert command("segment", "train", *options, "--resume").exit_code == 0, "nothing is left to do"
    label = root / "annotations" / "training" / "0.png"
    Image.fromarray(np.ones((64, 64), dtype=np.uint8)).save(label)
    changed = command("segment", "train", *options, "--resume")
    assert "is of another training: data was" in str(changed.exception)


def test_the_numbering_of_labels_goes_with_the_training(tmp_path: Path) -> None:
    for split in ("training", "validation"):
        write_labels(tmp_path / "data", split, mask(0, 1), mask(0, 1))
    out = tmp_path / "out"
    options = ["--model", "test_vheat", "--data", tmp_path / "data", "--classes", 3, "--batch", 2, "--steps", 1]
    options += ["--crop", 64, "--channels", 16, "--device", "cpu", "--out", out]
    refused = command("segment", "train", *options)
    assert "give --no-reduce-zero-label" in str(refused.exception)
    assert not out.exists()
    options.append("--no-reduce-zero-label")
    trained = command("segment", "train", *options, "-q")
    assert trained.exit_code == 0, trained.exception
    assert "labels of 2 maps" not in trained.stderr
    again = command("segment", "train", *options, "--resume")
    assert again.exit_code == 0, again.exception
    assert "labels of 2 maps: 0 83.3 %, 1 16.7 %\n! 1 of 3 classes never occur in the labels: 2\n" in again.stderr
    other = command("segment", "train", *options, "--ignore-index", 2, "--resume")
    assert "is of another training: ignore_index was 255, is 2" in str(other.exception)
    found = command("segment", "eval", "--weights", out / "test_vheat.safetensors", "--data", tmp_path / "data",
                    "--device", "cpu", "--results", tmp_path / "results", "--json", "-q")  # fmt: skip
    assert found.exit_code == 0, found.exception
    record = json.loads(found.stdout)["records"][0]
    data = record["conditions"]["data"]
    assert (data["reduce_zero_label"], data["ignore_index"]) == (False, 255)
    assert data["labels"] == {"0": 12000, "1": 2400}
    assert record["subject"]["training"]["labels"] == data["labels"]
    assert record["warnings"] == ["1 of 3 classes never occur in the labels: 2"]
    wrong = command("segment", "eval", "--weights", out / "test_vheat.safetensors", "--data", tmp_path / "data",
                    "--device", "cpu", "--results", tmp_path / "results", "--reduce-zero-label")  # fmt: skip
    assert "one class alone occurs" in str(wrong.exception)


def test_a_training_that_does_not_say_its_numbering_had_the_defaults(root: Path, tmp_path: Path) -> None:
    options = ["--model", "test_vheat", "--data", root, "--classes", 3, "--batch", 2, "--steps", 1, "--crop", 64]
    options += ["--channels", 16, "--device", "cpu", "--out", tmp_path / "out", "-q"]
    assert command("segment", "train", *options).exit_code == 0
    path = tmp_path / "out" / "checkpoint.pt"
    state = read_checkpoint(path)
    assert state is not None
    for name in ("reduce_zero_label", "ignore_index"):
        del state["about"][name]
    write_checkpoint(path, state)
    done = command("segment", "train", *options, "--resume")
    assert done.exit_code == 0, done.exception
    assert Numbering.trained({"classes": 3}) == Numbering(3, True, 255)
    assert Numbering.trained({"classes": 3, "reduce_zero_label": False, "ignore_index": None}) == Numbering(
        3, False, None
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--data", "nowhere"], "no such folder; ADE20K's format"),
        (["train", "--data", "d", "--schedule", "1x"], "--schedule '1x' is not allowed; allowed: 160k, 80k"),
        (
            ["eval", "--data", "d", "--weights", "w", "--test", "half"],
            "--test 'half' is not allowed; allowed: slide, whole",
        ),
        (["eval", "--data", "d", "--weights", "none.safetensors"], "none.safetensors: cannot be read"),
    ],
)
def test_wrong_options_are_one_line(arguments: list[str], words: str) -> None:
    done = command("segment", *arguments, "--device", "cpu")
    assert isinstance(done.exception, UserError)
    assert words in str(done.exception)
    assert "\n" not in str(done.exception)
