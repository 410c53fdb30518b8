"""A folder in COCO's format: images, and boxes and masks in ``annotations/instances_<split>.json``."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2 import functional
from torchvision.tv_tensors import BoundingBoxes, Mask

from vheatbench.errors import UserError
from vheatbench.files import GIB, read_bytes, reason_of
from vheatbench.image_file import NONE_TURNED, Turned, by, in_threads, read_header, read_image, turned_by
from vheatbench.studies.dense.fit import SampleKey
from vheatbench.text import one_line, some

MOST_BYTES = 8 * GIB
"""Of an annotation file: Objects365, the largest that is public, has 6."""
FARTHEST = 16
"""Lengths of an image's longer side within which boxes and polygons must lie: pycocotools draws all that they cross."""
LEAST_SIDE = 32
"""Pixels of an image's shorter side, under which it is not learned from."""
RESIZED_SIDES, LONGEST, PART_SIDES = (400, 500, 600), 1333, (384, 600)
"""Of the 3x schedule's parts: shorter sides of the image before, the most of its longer, range of a part's sides."""

Items = tuple[Tensor, BoundingBoxes, Mask]
"""An image, and the boxes and masks on it."""
Target = dict[str, Tensor]
"""``boxes`` (N, 4) as corners in pixels, ``labels`` (N), ``masks`` (N, H, W)."""


@dataclass(frozen=True)
class CocoFolder:
    """One split of a data set, checked."""

    annotations: Path
    image_folder: Path
    coco: Any
    """``pycocotools.coco.COCO``."""
    ids: tuple[int, ...]
    """Of images, in order."""
    categories: tuple[int, ...]
    """Ids of categories in order: label i + 1 of the model is the i-th."""
    fingerprint: str
    """12 digits of the SHA-256 of the annotation file, of the images' names and sizes in bytes, and of those turned."""
    turned: Turned = NONE_TURNED
    """Images that EXIF turns."""
    summary: ClassVar[str] = ""
    """As :attr:`vheatbench.studies.dense.ade.AdeFolder.summary`: there is nothing to tell of boxes."""
    warnings: ClassVar[list[str]] = []

    @property
    def facts(self) -> dict[str, Any]:
        """What a record says of the data beside its fingerprint."""
        return {"turned": str(self.turned)} if str(self.turned) else {}

    def objects(self, id_: int) -> list[dict[str, Any]]:
        """Annotations of one image to learn from: no crowds, no boxes without area."""
        found = self.coco.imgToAnns[id_]
        return [one for one in found if not one.get("iscrowd", 0) and min(one["bbox"][2:]) >= 1]

    @property
    def ids_to_learn_from(self) -> list[int]:
        """Of images with an object that are not tiny."""
        sizes = {id_: min(self.coco.imgs[id_]["width"], self.coco.imgs[id_]["height"]) for id_ in self.ids}
        return [id_ for id_ in self.ids if sizes[id_] >= LEAST_SIDE and self.objects(id_)]

    def image(self, id_: int) -> Image.Image:
        """One image in colour.

        Raises:
            UserError: it cannot be read, or has another size than the annotations say.
        """
        entry = self.coco.imgs[id_]
        path = self.image_folder / entry["file_name"]
        image = read_image(path, upright=path not in self.turned.as_stored).convert("RGB")
        if image.size != (entry["width"], entry["height"]):
            raise UserError(
                f"{path}: is {by(image.size)} pixels, {self.annotations.name} says "
                f"{entry['width']}x{entry['height']}: boxes and masks would not fit"
            )
        return image


def read_coco(root: Path, split: str) -> CocoFolder:
    """Read and check ``root/annotations/instances_<split>.json`` and the images in ``root/<split>``.

    Images that EXIF turns are taken as their annotations have them, see :func:`vheatbench.image_file.turned_by`.

    Raises:
        UserError: a file that is missing or not in this format, images that are not there, cannot be read or have
            another size than annotated, annotations of unknown categories or images; pycocotools is not installed.
    """
    try:
        from pycocotools import mask as coding
        from pycocotools.coco import COCO
    except ImportError:
        raise UserError("COCO's format needs pycocotools: pip install 'vheatbench[downstream]'") from None
    annotations, images = root / "annotations" / f"instances_{split}.json", root / split
    try:
        data = read_bytes(annotations, MOST_BYTES)
        content = json.loads(data)
    except OSError as error:
        raise UserError(f"{annotations}: cannot be read ({reason_of(error)}); a COCO folder has it") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{annotations}: not JSON ({one_line(str(error))})") from None
    _check(content, annotations)
    if not images.is_dir():
        raise UserError(f"{images}: no such folder, which {annotations.name} needs")
    sizes = {entry["file_name"]: _size_of(images / entry["file_name"]) for entry in content["images"]}
    missing = [name for name, size in sizes.items() if size is None]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(content['images'])} images of {annotations} are not in {images}: {some(missing)}"
        )
    # pycocotools takes an annotation with the number 0 for none at all
    numbered = enumerate(content["annotations"], 1)
    objects = [{**one, "id": number, "iscrowd": int(one.get("iscrowd") or 0)} for number, one in numbered]
    coco = COCO()
    coco.dataset = {**content, "annotations": objects}
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    for one in objects:
        if one.get("area") is None:
            one["area"] = float(coding.area(coco.annToRLE(one)))
    paths = [images / entry["file_name"] for entry in content["images"]]
    annotated = {path: (entry["width"], entry["height"]) for path, entry in zip(paths, content["images"], strict=True)}
    turned = turned_by(dict(zip(paths, in_threads(read_header, paths), strict=True)), annotated)
    digest = hashlib.sha256(data + json.dumps(sorted(sizes.items())).encode() + turned.key(images)).hexdigest()[:12]
    return CocoFolder(annotations, images, coco, tuple(sorted(coco.imgs)), tuple(sorted(coco.cats)), digest, turned)


def _size_of(path: Path) -> int | None:
    """Bytes of a file; None where there is none."""
    try:
        return path.stat().st_size if path.is_file() else None
    except OSError:
        return None


def _check(content: Any, path: Path) -> None:
    keys = ("images", "annotations", "categories")
    if not isinstance(content, dict) or not all(isinstance(content.get(key), list) for key in keys):
        raise UserError(f"{path}: not COCO's format, which has lists 'images', 'annotations' and 'categories'")
    needed = {
        "images": ("id", "file_name", "width", "height"),
        "annotations": ("id", "image_id", "category_id", "bbox", "segmentation"),
        "categories": ("id", "name"),
    }
    for key, fields in needed.items():
        for number, entry in enumerate(content[key]):
            absent = [field for field in fields if not isinstance(entry, dict) or field not in entry]
            if absent:
                raise UserError(f"{path}: {key}[{number}] has no {absent[0]!r}")
    if not content["images"] or not content["categories"]:
        raise UserError(f"{path}: has no {'images' if not content['images'] else 'categories'}")
    for number, entry in enumerate(content["images"]):
        sides = (entry["width"], entry["height"])
        if not isinstance(entry["file_name"], str) or not all(type(side) is int and side > 0 for side in sides):
            raise UserError(f"{path}: images[{number}]: file_name is a text, width and height are numbers above 0")
    for key in ("images", "categories"):
        ids = [entry["id"] for entry in content[key]]
        if not all(type(one) is int for one in ids):
            raise UserError(f"{path}: {key}: ids are whole numbers")
        seen: set[int] = set()
        again = next((one for one in ids if one in seen or seen.add(one)), None)  # type: ignore[func-returns-value]
        if again is not None:
            raise UserError(f"{path}: two {key} have the id {again}")
    images = {entry["id"]: (entry["height"], entry["width"]) for entry in content["images"]}
    categories = {entry["id"] for entry in content["categories"]}
    for number, entry in enumerate(content["annotations"]):
        for field, known, what in (("category_id", categories, "category"), ("image_id", images, "image")):
            if type(entry[field]) is not int or entry[field] not in known:
                raise UserError(f"{path}: annotation {entry['id']} is of {what} {entry[field]}, which is not listed")
        wrong = _wrong_with(entry, images[entry["image_id"]])
        if wrong:
            raise UserError(f"{path}: annotations[{number}]: {wrong}")


def _wrong_with(entry: dict[str, Any], size: tuple[int, int]) -> str:
    """What is wrong with an annotation of an image of a size (height, width); empty for a good one."""
    most = FARTHEST * max(size)
    box, area = entry["bbox"], entry.get("area")
    if not isinstance(box, list) or len(box) != 4 or not all(_is_number(one, most) for one in box) or min(box[2:]) < 0:
        return f"bbox is left, top, width and height in pixels, not {str(box)[:80]}"
    if entry.get("iscrowd", 0) not in (0, 1, None):
        return f"iscrowd is 0 or 1, not {str(entry['iscrowd'])[:80]}"
    if area is not None and not (_is_number(area, most * most) and area >= 0):
        return f"area is a number of pixels, not {str(area)[:80]}"
    mask = entry["segmentation"]
    if isinstance(mask, dict):
        return "" if _is_run_length(mask, size) else "its run-length code is not one of its image's size"
    if isinstance(mask, list) and mask and all(_is_polygon(part, most) for part in mask):
        return ""
    return "segmentation is a list of polygons or a run-length code: Mask R-CNN needs a mask of every object"


def _is_number(value: object, most: float) -> bool:
    return type(value) in (int, float) and -most <= value <= most  # type: ignore[operator]


def _is_polygon(value: object, most: float) -> bool:
    if not isinstance(value, list) or len(value) < 6 or len(value) % 2:
        return False
    return all(_is_number(one, most) for one in value)


def _is_run_length(value: dict[str, Any], size: tuple[int, int]) -> bool:
    counts = value.get("counts")
    if isinstance(counts, str):
        counts = _decompressed(counts)
    if value.get("size") != list(size) or not isinstance(counts, list):
        return False
    return all(type(one) is int and one >= 0 for one in counts) and sum(counts) == size[0] * size[1]


def _decompressed(text: str) -> list[int] | None:
    """The counts of a compressed run-length code, as pycocotools' maskApi.c has it; None for a text that is none.

    Five bits and one that more follow in every character, from ``0`` on, lowest bits first and the last of them the
    sign; from the fourth count on, the difference to the count two before.
    """
    counts: list[int] = []
    number = bits = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64:
            return None
        number |= (code & 31) << bits
        bits += 5
        if not code & 32:
            number -= (1 << bits) if code & 16 else 0
            counts.append(number + (counts[-2] if len(counts) > 2 else 0))
            number = bits = 0
    return None if bits else counts


class DetectionImages(Dataset[tuple[Tensor, Target]]):
    """Training images with boxes, labels and masks, mirrored half of the time.

    Args:
        folder: from :func:`read_coco`.
        parts: half of the images are enlarged or reduced, then a part of them taken, see :func:`part_of`: the 3x
            schedule's augmentation, first that of DETR (Carion et al., 2020, section 4).
    """

    def __init__(self, folder: CocoFolder, parts: bool = False) -> None:
        self.folder, self.parts = folder, parts
        self.labels = {category: i + 1 for i, category in enumerate(folder.categories)}
        self.ids = folder.ids_to_learn_from
        if not self.ids:
            raise UserError(
                f"{folder.annotations}: no image of at least {LEAST_SIDE} pixels has an object to learn from"
            )

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, key: SampleKey) -> tuple[Tensor, Target]:
        """Image (3, H, W) in 0 to 1; boxes (N, 4) as corners, labels (N), masks (N, H, W)."""
        index, seed = key
        id_ = self.ids[index]
        chance = random.Random(seed)
        image = functional.pil_to_tensor(self.folder.image(id_)).float() / 255
        objects = self.folder.objects(id_)
        boxes = torch.tensor([one["bbox"] for one in objects], dtype=torch.float32)
        boxes[:, 2:] += boxes[:, :2]
        masks = np.stack([self.folder.coco.annToMask(one) for one in objects])
        canvas = (image.shape[-2], image.shape[-1])
        items = (image, BoundingBoxes(boxes, format="XYXY", canvas_size=canvas), Mask(torch.from_numpy(masks)))
        if chance.random() < 0.5:
            items = tuple(map(functional.horizontal_flip, items))
        labels = torch.tensor([self.labels[one["category_id"]] for one in objects])
        if self.parts and chance.random() < 0.5:
            items, labels = part_of(items, labels, chance)
        image, boxes, masks = (item.as_subclass(Tensor) for item in items)
        return image, {"boxes": boxes, "labels": labels, "masks": masks}


def part_of(items: Items, labels: Tensor, chance: random.Random) -> tuple[Items, Tensor]:
    """A part of the image resized to a shorter side of 400, 500 or 600, 384 to 600 pixels high and wide.

    Objects outside of it are left out, which may be all of them; boxes end at its edges. torchvision's random
    transforms draw from one global generator; here the sample's own decides, and torchvision does the geometry.

    Args:
        items: image, boxes and masks.
        labels: of the objects.
        chance: decides size and place.
    """
    height, width = items[0].shape[-2:]
    scale = min(chance.choice(RESIZED_SIDES) / min(height, width), LONGEST / max(height, width))
    size = [round(height * scale), round(width * scale)]
    high, wide = (chance.randint(min(PART_SIDES[0], side), min(PART_SIDES[1], side)) for side in size)
    top, left = chance.randint(0, size[0] - high), chance.randint(0, size[1] - wide)
    image, boxes, masks = (
        functional.crop(functional.resize(item, size, antialias=True), top, left, high, wide) for item in items
    )
    there = (boxes[:, 2:] > boxes[:, :2]).all(1)
    return (image, boxes[there], masks[there]), labels[there]


def check_testable(folder: CocoFolder, trained: Sequence[int]) -> None:
    """Raises UserError where a model was trained on other categories than the folder has, or that has no object."""
    if not folder.coco.anns:
        raise UserError(f"{folder.annotations}: has no annotations: nothing to test")
    if list(folder.categories) != list(trained):
        raise UserError(
            f"{folder.annotations}: has {len(folder.categories)} categories (ids {_some(folder.categories)}), "
            f"the weights were trained on {len(trained)} (ids {_some(trained)})"
        )


def _some(ids: Sequence[int]) -> str:
    return ", ".join(map(str, ids[:4])) + (", ..." if len(ids) > 4 else "")
