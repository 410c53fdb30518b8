"""Detection: COCO folders, schedules, training that resumes and learns, mAP against answers that are known."""

from __future__ import annotations

import json
import math
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coding
from safetensors.torch import save_file
from torch import nn
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads
from torchvision.tv_tensors import BoundingBoxes, Mask
from typer.testing import CliRunner

from support import forked
from support.shapes import write_coco, write_turned
from vheatbench.cli import app
from vheatbench.cli.folders import check_writable
from vheatbench.errors import DivergedError, StoreError, UserError
from vheatbench.run.checkpointing import read_checkpoint, write_checkpoint
from vheatbench.run.distributed import Group
from vheatbench.store.read import read_run
from vheatbench.studies.dense import answers as dense_answers
from vheatbench.studies.dense.answers import Answers
from vheatbench.studies.dense.coco import (
    CocoFolder,
    DetectionImages,
    _decompressed,
    _is_run_length,
    check_testable,
    part_of,
    read_coco,
)
from vheatbench.studies.dense.detection import (
    about_detector,
    build_detector,
    collate,
    detection_losses,
    detection_schedule,
    detections_of,
    evaluate_detector,
    score,
)
from vheatbench.studies.dense.files import read_trained, write_trained
from vheatbench.studies.dense.fit import Schedule, SeededBatchSampler, Step, fit, parameter_groups
from vheatbench.subjects import dense
from vheatbench.subjects.backbone import StageMaps, load_backbone, published_drop_path

pytestmark = pytest.mark.usefixtures("one_thread")
ALONE = Group(torch.device("cpu"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_coco(tmp_path, "train2017", 6, seed=0)
    write_coco(tmp_path, "val2017", 4, seed=1)
    return tmp_path


def small_detector() -> nn.Module:
    torch.manual_seed(0)
    with mock.patch.object(dense, "PYRAMID_CHANNELS", 32):
        return dense.mask_rcnn(
            "test_vheat",
            3,
            backbone={"img_size": 64},
            anchors=(8, 16, 32, 48, 64),
            min_size=64,
            max_size=64,
            box_batch_size_per_image=16,
            rpn_batch_size_per_image=32,
            rpn_pre_nms_top_n_train=60,
            rpn_post_nms_top_n_train=30,
            rpn_pre_nms_top_n_test=40,
            rpn_post_nms_top_n_test=20,
            box_detections_per_img=8,
            mask_head=MaskRCNNHeads(32, (32, 32, 256), 1),
        )


# schedules


def test_the_schedules_of_the_papers() -> None:
    once, thrice = detection_schedule("1x", 117_266), detection_schedule("3x", 117_266)
    epoch = 117_266 / 16
    assert once.steps == round(12 * epoch)
    assert thrice.steps == round(36 * epoch)
    assert once.milestones == pytest.approx((8 * epoch, 11 * epoch), abs=2)
    assert thrice.milestones == pytest.approx((27 * epoch, 33 * epoch), abs=2)
    assert (once.lr, once.weight_decay, once.batch, once.warmup) == (1e-4, 0.05, 16, 1000)
    first, second = once.milestones
    rates = [once.rate(step) for step in (0, 499, 1000, first - 1, first, second, once.steps - 1)]
    assert rates == pytest.approx([1e-7, 5e-5, 1e-4, 1e-4, 1e-5, 1e-6, 1e-6])
    short = detection_schedule("1x", 100, steps=24)
    assert (short.steps, short.milestones, short.warmup) == (24, (16, 22), 2)


def test_every_image_is_taken_once_a_turn_whatever_the_processes() -> None:
    schedule = Schedule("x", 9, 4, 1e-3, 0, 0)
    alone = [sorted(step) for step in SeededBatchSampler(6, schedule, 0, ALONE)]
    assert len(alone) == 9
    flat = [index for step in SeededBatchSampler(6, schedule, 0, ALONE) for index, _ in step]
    assert [sorted(flat[turn : turn + 6]) for turn in range(0, 36, 6)] == [list(range(6))] * 6
    assert flat[:6] != flat[6:12], "another order each turn"
    parts = [list(SeededBatchSampler(6, schedule, 0, Group(torch.device("cpu"), rank, 2))) for rank in (0, 1)]
    assert [sorted(a + b) for a, b in zip(*parts, strict=True)] == alone
    assert [sorted(step) for step in SeededBatchSampler(6, schedule, 5, ALONE)] == alone[5:], "as if it had not stopped"


@pytest.mark.parametrize(("name", "size"), [("test_vheat", None), ("swin-t", (224, 224))])
def test_only_norms_and_position_tables_do_not_decay(name: str, size: tuple[int, int] | None) -> None:
    model = StageMaps(name, size)
    decayed, free = parameter_groups(model, 0.05)
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.05, 0.0)
    kept = {id(parameter) for parameter in free["params"]}
    norms = [module for module in model.modules() if isinstance(module, (nn.LayerNorm, nn.BatchNorm2d))]
    expected = {id(parameter) for norm in norms for parameter in norm.parameters()}
    expected |= {id(p) for n, p in model.named_parameters() if n.endswith("relative_position_bias_table")}
    assert kept == expected
    frequencies = {id(p) for n, p in model.named_parameters() if n.endswith("freq_embed")}
    assert frequencies <= {id(parameter) for parameter in decayed["params"]}


# data


def test_a_folder_is_read_and_mirrored(root: Path) -> None:
    folder = read_coco(root, "train2017")
    assert [folder.coco.cats[id_]["name"] for id_ in folder.categories] == ["square", "triangle"]
    assert folder.categories == (7, 9)
    data = DetectionImages(folder)
    seen = set()
    for seed in range(8):
        image, target = data[0, seed]
        annotation = folder.coco.imgToAnns[10][0]
        x, y, w, h = annotation["bbox"]
        left = target["boxes"][0, 0].item()
        mirrored = left != x
        seen.add(mirrored)
        expected = [64 - x - w, y, 64 - x, y + h] if mirrored else [x, y, x + w, y + h]
        assert target["boxes"][0].tolist() == expected
        assert target["labels"][0] == {7: 1, 9: 2}[annotation["category_id"]]
        rows, columns = torch.nonzero(target["masks"][0], as_tuple=True)
        box = [columns.min(), rows.min(), columns.max(), rows.max()]
        assert torch.tensor(box).float() == pytest.approx(target["boxes"][0], abs=1.5)
        colour = image[:, rows.float().mean().round().int(), columns.float().mean().round().int()]
        assert colour.argmax() == (0 if annotation["category_id"] == 7 else 1), "the mask lies on the object"
    assert seen == {True, False}


def test_parts_keep_boxes_and_masks_on_their_objects(root: Path) -> None:
    folder = read_coco(root, "train2017")
    data = DetectionImages(folder, parts=True)
    sizes = set()
    for seed in range(24):
        image, target = data[seed % 6, seed]
        count = len(target["labels"])
        assert target["masks"].shape == (count, *image.shape[-2:])
        assert target["boxes"].shape == (count, 4)
        sizes.add(tuple(image.shape[-2:]))
        if image.shape[-1] == 64:
            continue
        assert all(384 <= side <= 600 for side in image.shape[-2:])
        for box, mask, label in zip(target["boxes"], target["masks"], target["labels"], strict=True):
            assert 0 <= box[0] < box[2] <= image.shape[-1]
            assert 0 <= box[1] < box[3] <= image.shape[-2]
            rows, columns = torch.nonzero(mask, as_tuple=True)
            if len(rows) > 2000:
                edges = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]).float()
                assert (edges[:2] >= box[:2] - 10).all(), "enlarged 6 to 9 times, so a pixel is that wide"
                assert (edges[2:] <= box[2:] + 10).all()
                if label == 1:  # a square fills its box wherever it is cut
                    assert edges.tolist() == pytest.approx(box.tolist(), abs=10)
                assert image[:, mask.bool()].mean(1).argmax() == (0 if label == 1 else 1), "the mask lies on the object"
    assert (64, 64) in sizes, "half of the images are left whole"
    assert 8 <= len(sizes) <= 20
    assert all(a.equal(b) for a, b in zip(data[0, 3][1].values(), data[0, 3][1].values(), strict=True))


def test_what_lies_outside_of_a_part_is_left_out() -> None:
    image = torch.zeros(3, 200, 600)
    masks = torch.zeros(2, 200, 600, dtype=torch.uint8)
    corners = torch.tensor([[0.0, 0, 60, 200], [540, 0, 600, 200]])
    boxes = BoundingBoxes(corners, format="XYXY", canvas_size=(200, 600))
    masks[0, :, :60] = masks[1, :, 540:] = 1
    items = (image, boxes, Mask(masks))
    seen = [part_of(items, torch.tensor([1, 2]), random.Random(seed)) for seed in range(60)]
    assert {tuple(labels.tolist()) for _, labels in seen} == {(), (1,), (2,)}, "a part is too narrow for both"
    for (_, boxes, masks), labels in seen:
        assert len(labels) == len(boxes) == len(masks)
        assert all(mask.any() for mask in masks)


def test_an_image_without_an_object_left_can_be_learned_from(root: Path) -> None:
    model = small_detector().train()
    none = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0).long(), "masks": torch.zeros(0, 64, 64).byte()}
    losses = detection_losses(model, ([torch.rand(3, 64, 64)], [none]), ALONE.device)
    assert all(math.isfinite(value) for value in losses.values())


def write_one_white(root: Path, orientations: dict[str, int], size: tuple[int, int] = (96, 64)) -> None:
    """Images that show a white box at the top left, 96 wide and 64 high, stored turned; annotated for ``size``."""
    shown = np.zeros((64, 96, 3), np.uint8)
    shown[5:25, 5:35] = 255
    (root / "train2017").mkdir(parents=True)
    (root / "annotations").mkdir()
    box = {"bbox": [5, 5, 30, 20], "segmentation": [[5, 5, 35, 5, 35, 25, 5, 25]]}
    images, objects = [], []
    for number, (name, orientation) in enumerate(orientations.items()):
        write_turned(root / "train2017" / name, shown, orientation)
        images.append({"id": number, "file_name": name, "width": size[0], "height": size[1]})
        objects.append({"id": number + 1, "image_id": number, "category_id": 1, **box})
    content = {"images": images, "annotations": objects, "categories": [{"id": 1, "name": "thing"}]}
    (root / "annotations" / "instances_train2017.json").write_text(json.dumps(content))


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_boxes_lie_on_images_that_exif_turns(tmp_path: Path, orientation: int) -> None:
    write_one_white(tmp_path, {"0.jpg": orientation})
    folder = read_coco(tmp_path, "train2017")
    assert str(folder.turned) == (
        "images that EXIF turns: 1 as viewers show them, as the sizes of their annotations have it"
    )
    for seed in range(4):
        image, target = DetectionImages(folder)[0, seed]
        assert image.shape == (3, 64, 96)
        x, y, right, bottom = target["boxes"][0].int().tolist()
        assert image[:, y:bottom, x:right].mean() > 0.95
        assert image.mean() < 0.12, "white is the box alone"


def test_images_annotated_as_stored_stay_so(tmp_path: Path) -> None:
    write_one_white(tmp_path, {"quarter.jpg": 6, "half.jpg": 3}, (64, 96))
    path = tmp_path / "annotations" / "instances_train2017.json"
    content = json.loads(path.read_text())
    content["images"][1].update(width=96, height=64)
    path.write_text(json.dumps(content))
    folder = read_coco(tmp_path, "train2017")
    assert [folder.image(id_).size for id_ in folder.ids] == [(64, 96), (96, 64)]
    white = [np.argwhere(np.asarray(folder.image(id_).convert("L")) > 128).min(0).tolist() for id_ in folder.ids]
    assert white == [[61, 5], [39, 61]], "a half turn goes with what the sizes of the others tell"
    only = json.loads(path.read_text())
    only["images"], only["annotations"] = only["images"][1:], only["annotations"][1:]
    path.write_text(json.dumps(only))
    alone = read_coco(tmp_path, "train2017")
    assert np.argwhere(np.asarray(alone.image(1).convert("L")) > 128).min(0).tolist() == [5, 5], "as viewers show it"
    assert alone.fingerprint != folder.fingerprint


def test_turns_that_nothing_decides_are_refused_by_name(tmp_path: Path) -> None:
    write_one_white(tmp_path, {"a.jpg": 6, "b.jpg": 6, "c.jpg": 3})
    path = tmp_path / "annotations" / "instances_train2017.json"
    content = json.loads(path.read_text())
    content["images"][1].update(width=64, height=96)
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"c\.jpg: EXIF turns it, .* those of a\.jpg do, those of b\.jpg do not"):
        read_coco(tmp_path, "train2017")
    content["images"][2].update(width=60, height=60)
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"c\.jpg: is 96x64 as stored and 96x64 as its EXIF orientation 3 shows it"):
        read_coco(tmp_path, "train2017")


def test_tiny_images_are_not_learned_from(root: Path) -> None:
    path = root / "annotations" / "instances_train2017.json"
    content = json.loads(path.read_text())
    content["images"][0]["height"] = 31
    path.write_text(json.dumps(content))
    Image.new("RGB", (64, 31)).save(root / "train2017" / "0.png")
    assert DetectionImages(read_coco(root, "train2017")).ids == [11, 12, 13, 14, 15]


@pytest.mark.parametrize(
    ("name", "schedule", "rate"),
    [("vheat_tiny", "1x", 0.2), ("vheat_small", "1x", 0.3), ("vheat_small", "3x", 0.5), ("vheat_base", "1x", 0.5),
     ("vheat_tiny", "160k", 0.3), ("vheat_small", "160k", 0.4), ("swin_small_patch4_window7_224", "160k", 0.3),
     ("swin_tiny_patch4_window7_224", "3x", 0.2), ("convnext_tiny", "1x", None), ("vheat_base", "3x", None)],
)  # fmt: skip
def test_stochastic_depth_is_that_of_the_published_trainings(name: str, schedule: str, rate: float | None) -> None:
    assert published_drop_path(name, schedule) == rate


def test_stochastic_depth_reaches_the_backbone(root: Path) -> None:
    folder = read_coco(root, "train2017")
    about = about_detector("vheat-t", folder, "1x", (64,), 64, (8, 16, 32, 48, 64), 0.25)
    assert about["drop_path"] == 0.25
    with torch.device("meta"):
        paths = [m.drop_prob for m in build_detector(about).modules() if hasattr(m, "drop_prob")]
    assert max(paths) == pytest.approx(0.25)


def test_crowds_and_images_without_objects_are_not_trained_on(root: Path) -> None:
    path = root / "annotations" / "instances_train2017.json"
    content = json.loads(path.read_text())
    for one in content["annotations"]:
        if one["image_id"] == 10:
            one["iscrowd"] = 1
    content["annotations"] = [one for one in content["annotations"] if one["image_id"] != 11]
    path.write_text(json.dumps(content))
    assert DetectionImages(read_coco(root, "train2017")).ids == [12, 13, 14, 15]
    path.write_text(json.dumps({**content, "annotations": []}))
    with pytest.raises(UserError, match="no image of at least 32 pixels has an object"):
        DetectionImages(read_coco(root, "train2017"))


def changed(key: str, number: int, **fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content[key][number].update(fields)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (changed("annotations", 0, category_id=8), "annotation 1 is of category 8, which is not listed"),
        (changed("annotations", 1, image_id=99), "annotation 2 is of image 99, which is not listed"),
        (changed("images", 0, file_name="gone.png"), "1 of 6 images of"),
        (lambda content: content["annotations"][0].pop("bbox"), "annotations[0] has no 'bbox'"),
        (lambda content: content["images"].clear(), "has no images"),
        (lambda content: content["categories"].clear(), "has no categories"),
        (lambda content: content.pop("categories"), "not COCO's format"),
        (changed("annotations", 0, category_id=[7]), "annotation 1 is of category [7], which is not listed"),
        (changed("annotations", 0, bbox=[1, 2, 3]), "bbox is left, top, width and height in pixels, not [1"),
        (changed("annotations", 0, bbox=None), "annotations[0]: bbox is"),
        (changed("annotations", 1, bbox=[0, 0, math.nan, 1]), "annotations[1]: bbox is"),
        (changed("annotations", 1, bbox=[0, 0, 10**400, 1]), "annotations[1]: bbox is"),
        (changed("annotations", 1, bbox=[0, 0, -1, 1]), "annotations[1]: bbox is"),
        (changed("annotations", 1, iscrowd="no"), "annotations[1]: iscrowd is 0 or 1, not no"),
        (changed("annotations", 1, area="12"), "annotations[1]: area is a number of pixels, not 12"),
        (changed("annotations", 1, area=math.nan), "annotations[1]: area is"),
        (changed("annotations", 0, segmentation=[]), "annotations[0]: segmentation is a list of polygons"),
        (changed("annotations", 0, segmentation="abc"), "Mask R-CNN needs a mask of every object"),
        (changed("annotations", 0, segmentation=[[1, 2]]), "annotations[0]: segmentation is"),
        (changed("annotations", 0, segmentation=[[1, 2, 3, 4, 5, 6, 7]]), "annotations[0]: segmentation is"),
        (changed("annotations", 0, segmentation=[[1, 2, 1e12, 4, 5, 6]]), "annotations[0]: segmentation is"),
        (changed("annotations", 0, segmentation={"size": [64, 60], "counts": [64 * 60]}), "run-length code is not one"),
        (changed("annotations", 0, segmentation={"size": [64, 64], "counts": [3]}), "run-length code is not one"),
        (changed("annotations", 0, segmentation={"size": [64, 64], "counts": ["a"]}), "run-length code is not one"),
        (changed("annotations", 0, segmentation={"size": [64, 64], "counts": "zz"}), "run-length code is not one"),
        (changed("images", 1, id=10), "two images have the id 10"),
        (changed("images", 1, id="a"), "images: ids are whole numbers"),
        (changed("images", 1, file_name=3), "images[1]: file_name is a text"),
        (changed("images", 1, width="64"), "images[1]: file_name is a text, width and height are numbers above 0"),
    ],
)
def test_bad_annotation_files_are_refused(root: Path, change: Callable[[dict[str, Any]], None], words: str) -> None:
    path = root / "annotations" / "instances_train2017.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(UserError) as caught:
        read_coco(root, "train2017")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32))
def test_compressed_masks_are_read_as_pycocotools_does(height: int, width: int, seed: int) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < 0.4
    compressed = coding.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    runs = np.diff(np.flatnonzero(np.diff(mask.ravel("F"), prepend=False, append=not mask.ravel("F")[-1])), prepend=0)
    assert _decompressed(compressed) == runs.tolist()
    assert _is_run_length({"size": [height, width], "counts": compressed}, (height, width))
    assert not _is_run_length({"size": [height, width], "counts": compressed + "1"}, (height, width))


def test_missing_files_and_sizes_that_differ_are_refused(root: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_coco(root, "test2017")
    folder = read_coco(root, "val2017")
    Image.new("RGB", (64, 60)).save(root / "val2017" / "0.png")
    with pytest.raises(UserError, match=r"is 64x60 pixels, instances_val2017\.json says 64x64"):
        folder.image(10)
    (root / "val2017" / "1.png").write_text("no image")
    with pytest.raises(UserError, match="cannot be read as an image"):
        folder.image(11)
    with pytest.raises(UserError, match=r"1\.png: cannot be read as an image"):
        read_coco(root, "val2017")
    Image.new("RGB", (64, 64)).save(root / "val2017" / "1.png")
    with pytest.raises(UserError, match=r"0\.png: is 64x60 pixels, its annotations are for 64x64"):
        read_coco(root, "val2017")
    (root / "annotations" / "instances_val2017.json").write_text("{")
    with pytest.raises(UserError, match="not JSON"):
        read_coco(root, "val2017")
    with pytest.raises(
        UserError, match=r"has 2 categories \(ids 7, 9\), the weights were trained on 3 \(ids 1, 2, 3\)"
    ):
        check_testable(folder, [1, 2, 3])


# scores


class Oracle(nn.Module):
    """Answers image by image what it is given."""

    def __init__(self, folder: CocoFolder, shift: float, only: int | None = None) -> None:
        super().__init__()
        self.folder, self.shift, self.only, self.asked = folder, shift, only, iter(folder.ids)

    def forward(self, images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        objects = self.folder.coco.imgToAnns[next(self.asked)]
        objects = [one for one in objects if self.only in (None, one["category_id"])]
        boxes = torch.tensor([one["bbox"] for one in objects], dtype=torch.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        masks = [torch.from_numpy(self.folder.coco.annToMask(one))[None].float() for one in objects]
        labels = torch.tensor([self.folder.categories.index(one["category_id"]) + 1 for one in objects])
        return [
            {
                "boxes": boxes + self.shift,
                "labels": labels.long(),
                "scores": torch.ones(len(objects)),
                "masks": torch.stack(masks) if masks else torch.zeros(0, 1, 64, 64),
            }
        ]


def test_numbers_from_zero_and_missing_fields_change_no_score(root: Path) -> None:
    path = root / "annotations" / "instances_val2017.json"
    content = json.loads(path.read_text())
    whole = evaluate_detector(Oracle(read_coco(root, "val2017"), 0), read_coco(root, "val2017"), ALONE).scores
    assert (whole["box_map"], whole["mask_map"]) == pytest.approx((1, 1)), "of an oracle"
    for number, one in enumerate(content["annotations"]):
        one["id"] = number  # 0 is none to pycocotools
        del one["area"], one["iscrowd"]
    path.write_text(json.dumps(content))
    folder = read_coco(root, "val2017")
    assert evaluate_detector(Oracle(folder, 0), folder, ALONE).scores == whole
    areas = [one["area"] for one in folder.coco.anns.values()]
    boxes = [one["bbox"][2] * one["bbox"][3] for one in folder.coco.anns.values()]
    assert all(0 < area <= box for area, box in zip(areas, boxes, strict=True))
    assert any(area < 0.7 * box for area, box in zip(areas, boxes, strict=True)), "of the mask, a triangle's"


def test_a_masks_size_is_its_own_and_not_its_boxs(tmp_path: Path) -> None:
    """A false mask of 30x30 pixels in a box of 200x200 counts among the small ones, before the true one."""
    path = write_coco(tmp_path, "val2017", 1, seed=0, size=300)
    content = json.loads(path.read_text())
    square = {"segmentation": [[10.0, 10.0, 30.0, 10.0, 30.0, 30.0, 10.0, 30.0]], "bbox": [10, 10, 20, 20]}
    content["annotations"] = [{"id": 1, "image_id": 10, "category_id": 7, "area": 400, "iscrowd": 0, **square}]
    path.write_text(json.dumps(content))
    folder = read_coco(tmp_path, "val2017")
    masks = np.zeros((2, 1, 300, 300), dtype=np.float32)
    masks[0, 0, 100:130, 100:130] = 1
    masks[1, 0, 10:30, 10:30] = 1
    output = {
        "boxes": torch.tensor([[90.0, 90.0, 290.0, 290.0], [10.0, 10.0, 30.0, 30.0]]),
        "labels": torch.tensor([1, 1]), "scores": torch.tensor([0.9, 0.8]), "masks": torch.from_numpy(masks),
    }  # fmt: skip
    found = detections_of(output, 10, folder)
    assert score(folder, found, "segm")["mask_map_small"] == pytest.approx(0.5)
    assert score(folder, found, "bbox")["box_map_small"] == pytest.approx(1)


def test_an_evaluation_that_was_stopped_goes_on(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dense_answers, "CHUNK", 1)
    folder = read_coco(root, "val2017")
    whole = evaluate_detector(Oracle(folder, 3), folder, ALONE)
    kept = Answers.of(tmp_path, "detect-eval", "these weights", folder.fingerprint)
    (root / "val2017" / "2.png").rename(root / "hidden.png")
    with pytest.raises(UserError, match=r"2\.png: cannot be read"):
        evaluate_detector(Oracle(folder, 3), folder, ALONE, kept=kept)
    (root / "hidden.png").rename(root / "val2017" / "2.png")
    assert kept.some
    assert kept.path is not None
    with kept.path.open("a") as file:
        file.write('{"start": 2, "of"')  # killed while it wrote
    oracle = Oracle(folder, 3)
    oracle.asked = iter(folder.ids[2:])
    resumed = evaluate_detector(oracle, folder, ALONE, kept=kept)
    assert (resumed.scores, resumed.detections) == (whole.scores, whole.detections)
    assert next(oracle.asked, None) is None, "nothing was asked twice"
    with pytest.raises(UserError, match="the same evaluation is running already"):
        evaluate_detector(Oracle(folder, 3), folder, ALONE, kept=Answers(kept.path))
    kept.close()
    assert [chunk["start"] for chunk in kept.open(4)] == [0, 1, 2, 3]
    kept.close()
    assert kept.open(5) == [], "of another number of images"
    assert not kept.some
    kept.forget()
    assert list(tmp_path.glob("*.answers")) == []
    assert Answers.of(tmp_path, "detect-eval", "w").path != Answers.of(tmp_path, "detect-eval", "v").path


def test_other_pictures_under_the_same_names_are_other_data(root: Path) -> None:
    before = read_coco(root, "val2017").fingerprint
    assert read_coco(root, "val2017").fingerprint == before
    Image.new("RGB", (64, 64)).save(root / "val2017" / "0.png")
    assert read_coco(root, "val2017").fingerprint != before


def test_a_file_of_another_version_says_which_weights_are_missing(tmp_path: Path) -> None:
    model = nn.Linear(2, 2)
    write_trained(tmp_path / "w.safetensors", model, {"task": "maskrcnn"})
    trained = read_trained(tmp_path / "w.safetensors", "maskrcnn")
    with pytest.raises(UserError, match=r"not the weights of this version's maskrcnn \(0\.weight and 3 more missing"):
        trained.load_into(nn.Sequential(model))
    nn.init.constant_(model.weight, math.inf)
    write_trained(tmp_path / "w.safetensors", model, {"task": "maskrcnn"})
    with pytest.raises(UserError, match=r"the weights are not finite, the training diverged: weight"):
        read_trained(tmp_path / "w.safetensors", "maskrcnn")


def test_answers_whose_file_is_removed_are_not_called_kept(tmp_path: Path) -> None:
    kept = Answers(tmp_path / "x.answers")
    kept.open(2)
    kept.add({"start": 0, "of": 2})
    (tmp_path / "x.answers").unlink()
    with pytest.raises(StoreError, match="was removed or moved"):
        kept.add({"start": 1, "of": 2})
    kept.close()


def test_known_answers_have_known_scores(root: Path) -> None:
    folder = read_coco(root, "val2017")
    perfect = evaluate_detector(Oracle(folder, 0), folder, ALONE)
    assert perfect.scores["box_map"] == pytest.approx(1)
    assert perfect.scores["mask_map"] == pytest.approx(1)
    assert perfect.images == 4
    assert perfect.detections == len(folder.coco.anns)
    assert not any(name.endswith("large") for name in perfect.scores), "there is no large object to find"
    beside = evaluate_detector(Oracle(folder, 200), folder, ALONE)
    assert beside.scores["box_map"] == 0
    assert beside.scores["mask_map"] == pytest.approx(1), "boxes moved, masks did not"
    kinds = {one["category_id"] for one in folder.coco.anns.values()}
    assert kinds == {7, 9}
    half = evaluate_detector(Oracle(folder, 0, only=7), folder, ALONE)
    assert half.scores["box_map"] == pytest.approx(0.5), "one of two categories"
    assert score(folder, [], "bbox")["box_map"] == 0


# training


def train(folder: CocoFolder, out: Path, steps: int, until: int | None = None, **options: Any) -> list[Step]:
    """``steps`` of two images; ends as killed after ``until``."""
    model, told = small_detector(), []

    def tell(step: Step) -> None:
        told.append(step)
        if step.step == until:
            raise KeyboardInterrupt

    schedule = Schedule("x", steps, 2, 1e-3, 0.05, 2, (4,), seed=3)
    data = DetectionImages(folder)
    options = {"about": {"data": folder.fingerprint}, "save_every": 1, **options}
    fit(model, data, schedule, detection_losses, collate, ALONE, out, on_step=tell, **options)
    return told


@pytest.mark.slow
def test_a_training_that_was_killed_goes_on_as_if_it_had_not_been(root: Path, tmp_path: Path) -> None:
    folder = read_coco(root, "train2017")
    whole = train(folder, tmp_path / "a", 4)
    assert [step.step for step in whole] == [1, 2, 3, 4]
    assert set(whole[0].losses) >= {"loss_classifier", "loss_box_reg", "loss_mask"}
    with pytest.raises(KeyboardInterrupt):
        train(folder, tmp_path / "b", 4, until=3)
    resumed = train(folder, tmp_path / "b", 4, resume=True)
    assert [step.step for step in resumed] == [3, 4], "the third was done but not yet on disk"
    assert [step.loss for step in resumed] == [step.loss for step in whole[2:]]
    with pytest.raises(UserError, match=r"is of another training: data was '\w{12}', is 'other'"):
        train(folder, tmp_path / "b", 4, resume=True, about={"data": "other"})
    with pytest.raises(UserError, match="steps was 4, is 5"):
        train(folder, tmp_path / "b", 5, resume=True)
    with pytest.raises(UserError, match="no checkpoint to resume"):
        train(folder, tmp_path / "c", 4, resume=True)


def test_a_loss_that_is_not_finite_stops(root: Path, tmp_path: Path) -> None:
    def losses(model: nn.Module, batch: Any, device: torch.device) -> dict[str, torch.Tensor]:
        weight = next(model.parameters())
        return {"it": weight.sum() * (math.nan if len(seen) == 2 else 1)}

    seen: list[Step] = []
    model = nn.Linear(2, 2)
    data = DetectionImages(read_coco(root, "train2017"))
    schedule = Schedule("x", 5, 2, 1e-3, 0, 0)
    with pytest.raises(DivergedError, match="not finite at step 3: the checkpoint after step 2 is kept"):
        fit(model, data, schedule, losses, collate, ALONE, tmp_path, about={}, save_every=1, on_step=seen.append)
    assert torch.isfinite(next(model.parameters())).all()


def test_weights_that_are_not_finite_are_not_kept(root: Path, tmp_path: Path) -> None:
    def losses(model: nn.Module, batch: Any, device: torch.device) -> dict[str, torch.Tensor]:
        weight = next(model.parameters())
        broken = len(seen) == 2
        return {"it": (weight * 0).sqrt().sum() if broken else weight.sum()}  # a finite loss, an infinite gradient

    seen: list[Step] = []
    data = DetectionImages(read_coco(root, "train2017"))
    schedule = Schedule("x", 3, 2, 1e-3, 0, 0)
    with pytest.raises(DivergedError, match="a weight is not finite after step 3: the checkpoint after step 2 is kept"):
        fit(nn.Linear(2, 2), data, schedule, losses, collate, ALONE, tmp_path, about={}, save_every=1,
            on_step=seen.append)  # fmt: skip
    state = read_checkpoint(tmp_path / "checkpoint.pt")
    assert state is not None
    assert state["step"] == 2
    assert all(value.isfinite().all() for value in state["model"].values())


@pytest.mark.parametrize("workers", [0, 1])
def test_bad_images_are_one_line_whoever_reads_them(root: Path, tmp_path: Path, workers: int) -> None:
    folder = read_coco(root, "train2017")
    for path in (root / "train2017").iterdir():
        path.write_text("no image")
    with pytest.raises(UserError, match=r"\.png: cannot be read as an image \(cannot identify[^\n]*$"):
        train(folder, tmp_path / "out", 1, workers=workers)


def test_a_resumed_training_keeps_its_precision_and_its_beginning(root: Path, tmp_path: Path) -> None:
    folder = read_coco(root, "train2017")
    train(folder, tmp_path, 1, initial="w.pth (0123)")
    with pytest.raises(UserError, match="dtype was 'float32', is 'bfloat16'"):
        train(folder, tmp_path, 1, resume=True, autocast=torch.bfloat16)
    with pytest.raises(UserError, match=r"initial was 'w\.pth \(0123\)', is 'v\.pth'"):
        train(folder, tmp_path, 1, resume=True, initial="v.pth")
    assert train(folder, tmp_path, 1, resume=True) == [], "what is not given again is what it was"
    write_checkpoint(tmp_path / "checkpoint.pt", {"model": {}})
    with pytest.raises(UserError, match="not a checkpoint of `detect train`"):
        train(folder, tmp_path, 1, resume=True)


def test_classification_weights_go_into_the_backbone(tmp_path: Path) -> None:
    torch.manual_seed(5)
    classifier = timm.create_model("test_vheat", img_size=64)
    save_file(classifier.state_dict(), tmp_path / "w.safetensors")
    maps = StageMaps("test_vheat")
    loaded = load_backbone(maps.body, "test_vheat", tmp_path / "w.safetensors", rule="bicubic")
    assert len(loaded.resized) == 4, "64 to 512"
    own = maps.body.state_dict()
    assert own["stages_2.blocks.1.op.out_linear.weight"].equal(classifier.stages[2].blocks[1].op.out_linear.weight)
    tuned = timm.create_model("test_vheat", img_size=64, num_classes=7)
    save_file(tuned.state_dict(), tmp_path / "tuned.safetensors")
    load_backbone(maps.body, "test_vheat", tmp_path / "tuned.safetensors", rule="bicubic")
    own = maps.body.state_dict()
    assert own["stages_2.blocks.1.op.out_linear.weight"].equal(tuned.stages[2].blocks[1].op.out_linear.weight)
    save_file({"a": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError):
        load_backbone(maps.body, "test_vheat", tmp_path / "other.safetensors")


@pytest.mark.slow
def test_a_detector_learns(root: Path, tmp_path: Path) -> None:
    write_coco(tmp_path / "more", "train2017", 24, seed=0)
    folder, other = read_coco(tmp_path / "more", "train2017"), read_coco(root, "val2017")
    model = small_detector()
    before = evaluate_detector(model.eval(), other, ALONE).scores
    data = DetectionImages(folder)
    schedule = Schedule("x", 40, 4, 1e-3, 0.05, 6, (32,))
    fit(model, data, schedule, detection_losses, collate, ALONE, tmp_path / "out", about={}, save_every=40)
    after = evaluate_detector(model.eval(), other, ALONE).scores
    assert before["box_map_50"] < 0.05
    assert after["box_map_50"] > 0.3
    assert after["mask_map_50"] > 0.3


# the command


def command(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(one) for one in arguments])


@pytest.mark.slow
def test_the_commands_train_resume_and_evaluate(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ["--model", "test_vheat", "--data", root, "--batch", 2, "--side", 64, "--max-side", 64, "--steps", 1]
    options += ["--anchors", "8,16,32,48,64", "--device", "cpu", "--out", out, "-q"]
    # two processes: each sees one image of the step, and both end with the same weights
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    runner = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", "-m"]
    words = [*runner, "vheatbench", "detect", "train", *map(str, options)]
    done = forked.run(words, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(out / "test_vheat.safetensors")], "the first process speaks"
    again = command("detect", "train", *options)
    assert isinstance(again.exception, UserError)
    assert "--resume" in str(again.exception)
    found = command("detect", "eval", "--weights", out / "test_vheat.safetensors", "--data", root, "--device", "cpu",
                    "--results", tmp_path / "results", "--json", "-q")  # fmt: skip
    assert found.exit_code == 0, found.exception
    record = json.loads(found.stdout)["records"][0]
    assert record["case"]["subject"] == "maskrcnn:test_vheat"
    assert record["case"]["mode"] == "eval"
    assert record["case"]["analysis"]["schedule"] == "1x"
    assert record["case"]["analysis"]["steps"] == "1 of 36", "12 turns of six images, two a step"
    assert not list((tmp_path / "results").glob(".*")), "nothing is left to go on with"
    assert 0 <= record["metrics"]["box_map"]["value"] <= 1
    assert record["metrics"]["images"]["value"] == 4
    path = json.loads(found.stdout)["path"]
    assert read_run(path).problems == []
    shown = command("show", path)
    assert shown.exit_code == 0, shown.exception
    assert shown.stdout.startswith("maskrcnn:test_vheat, test_vheat.safetensors (sha256 ")
    assert "box mAP" in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--data", "nowhere"], "instances_train2017.json: cannot be read"),
        (["train", "--data", "d", "--schedule", "2x"], "--schedule '2x' is not allowed; allowed: 1x, 3x"),
        (["train", "--data", "d", "--anchors", "8"], "give five sides"),
        (["train", "--data", "d", "--dtype", "float16"], "--dtype 'float16' is not allowed; allowed: float32"),
        (["train", "--data", "d", "--lr", "-1"], "--lr -1: give a number above 0"),
        (["eval", "--data", "d", "--weights", "none.safetensors"], "none.safetensors: cannot be read"),
    ],
)
def test_wrong_options_are_one_line(arguments: list[str], words: str) -> None:
    done = command("detect", *arguments, "--device", "cpu")
    assert isinstance(done.exception, UserError)
    assert words in str(done.exception)
    assert "\n" not in str(done.exception)


def test_a_folder_that_cannot_be_written_to_is_found_before_the_first_step(root: Path) -> None:
    options = ["--model", "test_vheat", "--device", "cpu", "--out", "/dev/null/x"]
    done = command("detect", "train", "--data", root, *options)
    assert str(done.exception) == (
        "--checkpoints /dev/null/x: cannot be written (Not a directory)"
    )  # fmt: skip
    with pytest.raises(UserError, match="--results /dev/null: cannot be written"):
        check_writable(Path("/dev/null"), "--results")
