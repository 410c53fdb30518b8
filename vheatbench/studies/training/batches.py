"""Batches of a training: which images, in which order, augmented how, all a function of seed and place alone.

Every image draws its augmentation from a generator seeded with (seed, epoch, image), and every step its mixing and
its dropped paths from one seeded with (seed, epoch, update, step, process). So a training that is continued in the
middle of an epoch, or has another number of loading processes, sees the very same numbers, and no state of a
generator has to be kept.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from timm.data import create_transform
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from vheatbench.errors import UserError
from vheatbench.run.distributed import Group
from vheatbench.studies.images.labelled import Batch, ImageTensors, LabelledImages, collate
from vheatbench.studies.training.recipe import Recipe

ORDER, IMAGE, STEP = 0, 1, 2
"""What a seed is for: no two uses share one."""


def seed_generators(*words: int) -> None:
    """Seed Python's, numpy's and torch's generators with a mix of whole numbers."""
    first, second = (int(word) for word in np.random.SeedSequence(words).generate_state(2, np.uint64))
    random.seed(first)
    np.random.seed(first % 2**32)
    # torch.manual_seed keeps a stack trace for every kind of device that is not in use: milliseconds an image
    torch.default_generator.manual_seed(second % 2**63)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(second % 2**63)


class TrainingOrder(Sampler[list[tuple[int, int]]]):
    """The images of an epoch, batch by batch: a new permutation every epoch, cut into whole updates.

    An update takes the same images whatever the number of processes and of accumulated steps. What is left over at
    the end of an epoch is left out.
    """

    def __init__(self, images: int, recipe: Recipe, group: Group) -> None:
        """Raises UserError where a batch cannot be divided or mixed, or the images make up none."""
        self._images, self._recipe, self._group = images, recipe, group
        share = group.size * recipe.accumulation
        if recipe.batch % share:
            raise UserError(
                f"batch {recipe.batch} cannot be divided among {group.size} processes with {recipe.accumulation} "
                "accumulated steps: give --override batch=N that can"
            )
        self.step_images = recipe.batch // share
        self.updates = images // recipe.batch
        """Of an epoch."""
        if not self.updates:
            raise UserError(f"{images} training images are fewer than a batch of {recipe.batch}: --override batch=N")
        if recipe.mixes and self.step_images % 2:
            raise UserError(
                f"mixup mixes images in pairs: a step of {self.step_images} images per process cannot be mixed; "
                "give --override batch=N, or mixup=0 and cutmix=0"
            )
        self._epoch = self._first = 0

    def begin(self, epoch: int, first_update: int) -> None:
        """What the next iteration gives: the updates of an epoch from one on."""
        self._epoch, self._first = epoch, first_update

    def __len__(self) -> int:
        return (self.updates - self._first) * self._recipe.accumulation

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """Pairs of epoch and image, ``step_images`` at a time."""
        recipe, group = self._recipe, self._group
        generator = np.random.default_rng((recipe.seed, ORDER, self._epoch))
        order = generator.permutation(self._images)
        for update in range(self._first, self.updates):
            mine = order[update * recipe.batch : (update + 1) * recipe.batch][group.rank :: group.size]
            for step in range(recipe.accumulation):
                some = mine[step * self.step_images : (step + 1) * self.step_images]
                yield [(self._epoch, int(image)) for image in some]


class Augmented(Dataset[Any]):
    """Training images as tensors, by (epoch, image)."""

    def __init__(self, images: LabelledImages, recipe: Recipe) -> None:
        self._tensors = ImageTensors(images, training_transform(recipe))
        self._seed = recipe.seed

    def __getitem__(self, key: tuple[int, int]) -> tuple[int, Tensor | str]:
        epoch, index = key
        seed_generators(self._seed, IMAGE, epoch, index)
        return self._tensors[index]


class _Share(Dataset[Any]):
    """Every n-th image: a process's share of the test images, none of them twice."""

    def __init__(self, tensors: ImageTensors, group: Group) -> None:
        self._tensors, self._rows = tensors, range(group.rank, len(tensors), group.size)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, place: int) -> tuple[int, Tensor | str]:
        return self._tensors[self._rows[place]]


def training_transform(recipe: Recipe) -> Callable[..., Tensor]:
    """timm's augmentation for training as the recipe has it: an image of PIL to a normalised tensor."""
    whole = recipe.random_crop is None
    return create_transform(
        (3, recipe.resolution, recipe.resolution),
        is_training=True,
        scale=(1.0, 1.0) if whole else recipe.random_crop,
        ratio=(1.0, 1.0) if whole else None,
        hflip=recipe.horizontal_flip,
        color_jitter=recipe.color_jitter or 0.0,
        auto_augment=recipe.auto_augment,
        interpolation=recipe.interpolation,
        mean=recipe.mean,
        std=recipe.std,
        re_prob=recipe.random_erasing,
        re_mode="pixel",
    )


def test_transform(recipe: Recipe) -> Callable[..., Tensor]:
    """timm's for evaluation: resize, centre crop, normalise."""
    return create_transform(
        (3, recipe.resolution, recipe.resolution),
        is_training=False,
        interpolation=recipe.interpolation,
        mean=recipe.mean,
        std=recipe.std,
        crop_pct=recipe.crop_pct,
    )


def training_loader(images: LabelledImages, recipe: Recipe, order: TrainingOrder, pin: bool) -> DataLoader[Any]:
    """Batches of an epoch in the order's turn; its workers stay from epoch to epoch."""
    # not timm's create_loader: it takes no sampler, and so cannot begin in the middle of an epoch
    return DataLoader(
        Augmented(images, recipe),
        batch_sampler=order,
        collate_fn=collate,
        num_workers=recipe.workers,
        persistent_workers=recipe.workers > 0,
        pin_memory=pin,
    )


def test_loader(images: LabelledImages, recipe: Recipe, group: Group, pin: bool) -> DataLoader[Any]:
    """This process's share of the test images."""
    return DataLoader(
        _Share(ImageTensors(images, test_transform(recipe)), group),
        batch_size=recipe.eval_batch,
        collate_fn=collate,
        num_workers=recipe.workers,
        pin_memory=pin,
    )


def on_device(batch: Batch, images: LabelledImages, device: torch.device) -> tuple[Tensor, Tensor]:
    """Images (B, 3, H, W) and targets (B,) of a batch on the device.

    Raises:
        UserError: an image that cannot be read, by name.
    """
    for index, reason in batch.broken.items():
        raise UserError(
            f"{images.root / images.names[index]}: the image cannot be read ({reason}): replace or remove it"
        )
    assert batch.images is not None
    targets = torch.tensor([images.targets[index] for index in batch.indices])
    return batch.images.to(device, non_blocking=True), targets.to(device, non_blocking=True)
