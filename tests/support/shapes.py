"""Tiny data sets in COCO's and ADE20K's formats: a red square or a green triangle on a dark ground."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

COLOURS = {7: (230, 40, 40), 9: (40, 220, 60)}
"""By category of COCO's file; in label maps the squares are 1 and the triangles 2."""


def _drawn(chance: random.Random, size: int) -> tuple[Image.Image, list[dict[str, Any]]]:
    """One object in the upper half, or one in each half."""
    image = Image.new("RGB", (size, size), tuple(chance.randrange(60) for _ in range(3)))
    pen = ImageDraw.Draw(image)
    objects = []
    for half in range(chance.choice((1, 2))):
        side = chance.randrange(size // 4, int(0.42 * size))
        x = chance.randrange(1, size - side - 1)
        y = chance.randrange(1, size // 2 - side) + half * size // 2
        kind = chance.choice(tuple(COLOURS))
        corners = [(x, y), (x + side, y), (x + side, y + side), (x, y + side)]
        if kind == 9:
            corners = [(x + side // 2, y), (x + side, y + side), (x, y + side)]
        pen.polygon(corners, fill=COLOURS[kind])
        area = side * side * (1 if kind == 7 else 0.5)
        polygon = [float(value) for corner in corners for value in corner]
        objects.append({"category_id": kind, "bbox": [x, y, side, side], "area": area, "segmentation": [polygon]})
    return image, objects


def write_coco(root: Path, split: str, images: int, seed: int, size: int = 64) -> Path:
    """Write ``root/split`` and its annotation file, whose path is returned."""
    chance = random.Random(seed)
    folder = root / split
    folder.mkdir(parents=True)
    (root / "annotations").mkdir(exist_ok=True)
    listed, annotations = [], []
    for number in range(images):
        image, objects = _drawn(chance, size)
        image.save(folder / f"{number}.png")
        listed.append({"id": number + 10, "file_name": f"{number}.png", "width": size, "height": size})
        for one in objects:
            annotations.append({"id": len(annotations) + 1, "image_id": number + 10, "iscrowd": 0, **one})
    categories = [{"id": 7, "name": "square"}, {"id": 9, "name": "triangle"}]
    path = root / "annotations" / f"instances_{split}.json"
    path.write_text(json.dumps({"images": listed, "annotations": annotations, "categories": categories}))
    return path


def write_ade(root: Path, split: str, images: int, seed: int, size: int = 64) -> None:
    """Write ``root/images/split`` and ``root/annotations/split``; the ground is class 3, the lowest row none."""
    chance = random.Random(seed)
    folder, labels = root / "images" / split, root / "annotations" / split
    for path in (folder, labels):
        path.mkdir(parents=True)
    for number in range(images):
        image, _ = _drawn(chance, size)
        pixels = np.asarray(image).astype(int)
        label = np.full((size, size), 3, dtype=np.uint8)
        for kind, colour in COLOURS.items():
            label[np.abs(pixels - colour).sum(-1) < 30] = {7: 1, 9: 2}[kind]
        label[-1] = 0
        image.save(folder / f"{number}.jpg", quality=95)
        Image.fromarray(label).save(labels / f"{number}.png")


QUARTERS = {3: 2, 6: 1, 8: 3}
"""Quarter turns to the left of the pixels that EXIF's orientations stand for."""


def write_turned(path: Path, shown: np.ndarray, orientation: int) -> None:
    """Write a JPEG that viewers show like this; its pixels are stored turned, as a camera held otherwise does."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(np.rot90(shown, QUARTERS[orientation]))
    Image.fromarray(stored).save(path, exif=exif.tobytes(), quality=95)
