"""Models whose answers are known without training, found by ``module:function``; and images made for them."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import torch
from PIL import Image
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from vheatbench.subjects.vheat import VHeat

LEVELS = (0, 10, 24, 45, 77, 122, 180, 250)
"""Grey of each class; no two are equally far from a third."""
SHIFTS = (0, 0, 0, 1, 6)
"""What is added to a class to get the one whose grey its image has: three of five look like their class."""


class Levels(nn.Module):
    """Logits: minus the distance of the image's mean grey to each level."""

    num_classes = len(LEVELS)

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.in_chans = channels
        self.stem = nn.Conv2d(channels, 1, 1)  # something to load weights into
        mean, std = IMAGENET_DEFAULT_MEAN[:channels], IMAGENET_DEFAULT_STD[:channels]
        if channels == 1:
            mean, std = (sum(IMAGENET_DEFAULT_MEAN) / 3,), (sum(IMAGENET_DEFAULT_STD) / 3,)
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)
        self.register_buffer("levels", torch.tensor(LEVELS, dtype=torch.float32), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        grey = ((x * self.std + self.mean) * 255).mean((1, 2, 3))
        return -(grey[:, None] - self.levels).abs() / 20


class Dying(Levels):
    """Kills its process on the call that the environment names, or has torchrun end them all."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu":
            Dying.calls += 1
            mortal = os.environ.get("RANK", "0") == os.environ.get("DYING_RANK", "0")
            if mortal and str(Dying.calls) == os.environ.get("DIE_AT_CALL"):
                if "END_TORCHRUN" in os.environ:
                    os.kill(os.getppid(), signal.SIGTERM)
                    time.sleep(60)
                os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(x)


class Odd(Levels):
    """Goes wrong on the last class's grey."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        last = logits.argmax(1) == len(LEVELS) - 1
        if self.what == "nan":
            return logits.masked_fill(last[:, None], float("nan"))
        if x.device.type == "cpu" and last.any():
            raise RuntimeError("can't allocate memory" if self.what == "oom" else "no luck")
        return logits


def levels() -> nn.Module:
    return Levels()


def grey_levels() -> nn.Module:
    return Levels(1)


def dying() -> nn.Module:
    return Dying()


def nan() -> nn.Module:
    return Odd("nan")


def oom() -> nn.Module:
    return Odd("oom")


def luckless() -> nn.Module:
    return Odd("error")


def features() -> nn.Module:
    return nn.Conv2d(3, 8, 1)


def prenorm(img_size: int = 64, num_classes: int = 10) -> nn.Module:
    return VHeat(img_size=img_size, num_classes=num_classes, dim=8, depths=(1, 1, 2, 1))


def postnorm(img_size: int = 64, num_classes: int = 10) -> nn.Module:
    return VHeat(
        img_size=img_size, num_classes=num_classes, dim=8, depths=(1, 1, 2, 1), post_norm=True, layer_scale=1e-5
    )


def write_levels(root: Path, per_class: int = 5) -> list[tuple[int, int]]:
    """Class folders of grey pictures of many sizes; per image, in order, its class and the class it looks like."""
    seen = []
    for target in range(len(LEVELS)):
        folder = root / f"class{target}"
        folder.mkdir(parents=True)
        for k in range(per_class):
            looks = (target + SHIFTS[k % len(SHIFTS)]) % len(LEVELS)
            size = (40 + 7 * k, 90 - 9 * k)
            Image.new("L", size, LEVELS[looks]).save(folder / f"{k:02}.png")
            seen.append((target, looks))
    return seen


def write_colours(root: Path, classes: int = 3, per_class: int = 7) -> None:
    """Class folders of coloured pictures with a pattern, all different."""
    generator = torch.Generator().manual_seed(0)
    for target in range(classes):
        (root / f"c{target}").mkdir(parents=True)
        for k in range(per_class):
            pixels = torch.randint(0, 256, (9, 11, 3), generator=generator, dtype=torch.uint8)
            picture = Image.fromarray(pixels.numpy()).resize((80 + k, 70), Image.Resampling.BICUBIC)
            picture.save(root / f"c{target}" / f"{k}.png")
