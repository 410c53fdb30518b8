"""The training loop of detectors and segmenters: AdamW by a schedule of steps, resumable to the bit on a CPU.

Everything random depends on the seed and the step alone, so a run that was killed goes on as if it had
not been: which images a step takes, how they are augmented, and what the model draws.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, Sampler

from vheatbench.errors import DivergedError, UserError
from vheatbench.run.checkpointing import CHECKPOINT, read_checkpoint, write_checkpoint
from vheatbench.run.distributed import Group
from vheatbench.subjects.weights import all_finite

SampleKey = tuple[int, int]
"""What a data set is asked for: which image, and the seed of its augmentation."""
RANDOM = "random"
"""What the weights are called that a training began with if no others were given."""
NO_DECAY = ("norm", "relative_position_bias_table", "pos_embed")
"""Parts of names of parameters without weight decay, as in vHeat's and OpenMMLab's published configurations: biases
and vHeat's frequency embeddings do decay there."""


@dataclass(frozen=True)
class Schedule:
    """How long, how fast and on how many images a step."""

    name: str
    steps: int
    batch: int
    """Images of a step over all processes."""
    lr: float
    weight_decay: float
    warmup: int
    """Steps over which the rate grows linearly from nearly 0."""
    milestones: tuple[int, ...] = ()
    """Steps after which the rate is a tenth; empty for a linear fall to 0 at the end."""
    seed: int = 0
    published: int | None = None
    """Steps of the published schedule; other than ``steps`` where that was cut short or drawn out."""

    def rate(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        factor = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        if self.milestones:
            return self.lr * factor * 0.1 ** sum(step >= milestone for milestone in self.milestones)
        return self.lr * factor * (1 - step / self.steps)


@dataclass(frozen=True)
class Step:
    """What is reported of one step."""

    step: int
    of: int
    lr: float
    loss: float
    losses: dict[str, float]


class SeededBatchSampler(Sampler[list[SampleKey]]):
    """The images of every step from ``start`` on, of one process: a shuffle per pass over the data."""

    def __init__(self, images: int, schedule: Schedule, start: int, group: Group) -> None:
        self.images, self.schedule, self.start, self.group = images, schedule, start, group

    def __len__(self) -> int:
        return self.schedule.steps - self.start

    def __iter__(self) -> Iterator[list[SampleKey]]:
        orders: dict[int, list[int]] = {}
        for step in range(self.start, self.schedule.steps):
            places = range(step * self.schedule.batch, (step + 1) * self.schedule.batch)
            keys = []
            for place in places[self.group.rank :: self.group.size]:
                turn, within = divmod(place, self.images)
                if turn not in orders:
                    orders = {turn - 1: orders.get(turn - 1, []), turn: self._order(turn)}
                keys.append((orders[turn][within], self.schedule.seed * 1_000_003 + place))
            yield keys

    def _order(self, turn: int) -> list[int]:
        order = list(range(self.images))
        random.Random(f"{self.schedule.seed} {turn}").shuffle(order)
        return order


def fit(
    model: nn.Module,
    data: Dataset[Any],
    schedule: Schedule,
    losses_of: Callable[[nn.Module, Any, torch.device], dict[str, Tensor]],
    collate: Callable[[list[Any]], Any],
    group: Group,
    out: Path,
    *,
    about: dict[str, Any],
    resume: bool = False,
    workers: int = 0,
    autocast: torch.dtype | None = None,
    save_every: int = 1000,
    on_step: Callable[[Step], None] = lambda step: None,
    initial: str | None = None,
    earlier: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    """Train in place, and keep a checkpoint in ``out``; what is known of the training, for the trained file.

    Args:
        model: on the group's device.
        data: takes a :data:`SampleKey`; it has a length.
        losses_of: (model, batch, device) to named losses, whose sum is minimised.
        about: what the checkpoint is of; a resumed training must be of the same.
        autocast: low precision, or None for float32.
        initial: the weights that it began with, in words; None while resuming for those that it was begun with.
        earlier: what of ``about`` a checkpoint means that does not say it.

    Raises:
        UserError: a batch that does not divide among the processes; a checkpoint of something else; an image or
            annotation that cannot be used.
        DivergedError: the loss or a weight is not finite.
        PeerError: another process failed or is gone.
        StoreError: a checkpoint cannot be written; the one before is kept.
    """
    device = group.device
    optimizer = torch.optim.AdamW(parameter_groups(model, schedule.weight_decay), lr=schedule.lr)
    path = out / CHECKPOINT
    dtype = str(autocast or torch.float32).removeprefix("torch.")
    about = {**about, **_plain(schedule), "dtype": dtype, "initial": initial}

    def begin() -> tuple[int, str]:
        if schedule.batch % group.size:
            raise UserError(f"--batch {schedule.batch} does not divide among {group.size} processes")
        return _resume(path, model, optimizer, about, earlier) if resume else (0, initial or RANDOM)

    start, about["initial"] = group.together(begin)
    wrapped = DistributedDataParallel(model) if group.size > 1 else model
    wrapped.train()
    batches = iter(
        DataLoader(
            ErrorsAsItems(data),
            batch_sampler=SeededBatchSampler(len(data), schedule, start, group),  # type: ignore[arg-type]
            collate_fn=partial(_collated, collate),
            num_workers=workers,
            pin_memory=device.type == "cuda",
        )
    )

    def save(done: int) -> None:
        if not all_finite(model):
            raise DivergedError(f"a weight is not finite after step {done}: {left(saved)}")
        state = {"step": done, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
        group.on_main(lambda: write_checkpoint(path, {**state, "about": about}))

    def left(saved: int) -> str:
        kept = f"the checkpoint after step {saved} is kept" if saved else "there is no checkpoint yet"
        return f"{kept}; try a smaller --lr"

    saved = start
    for step in range(start, schedule.steps):
        batch = group.together(lambda: _next(batches))
        torch.manual_seed((schedule.seed * schedule.steps + step) * group.size + group.rank)
        lr = schedule.rate(step)
        for parameters in optimizer.param_groups:
            parameters["lr"] = lr
        with torch.autocast(device.type, autocast or torch.float32, enabled=autocast is not None):
            losses = losses_of(wrapped, batch, device)
            loss = torch.stack(list(losses.values())).sum()
        values = {name: float(value.detach()) for name, value in losses.items()}
        if group.any(not all(math.isfinite(one) for one in values.values())):
            raise DivergedError(f"the loss is not finite at step {step + 1}: {left(saved)}")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        on_step(Step(step + 1, schedule.steps, lr, sum(values.values()), values))
        if (step + 1) % save_every == 0 or step + 1 == schedule.steps:
            save(step + 1)
            saved = step + 1
    return {
        "steps": schedule.steps,
        "published_steps": schedule.published or schedule.steps,
        "batch": schedule.batch,
        "lr": schedule.lr,
        "dtype": dtype,
        "initial": about["initial"],
    }


class ErrorsAsItems(Dataset[Any]):
    """Items, or the bad input that one met: a loading process could raise it with its traceback only."""

    def __init__(self, data: Dataset[Any]) -> None:
        self.data = data

    def __getitem__(self, key: SampleKey) -> Any:
        try:
            return self.data[key]
        except UserError as error:
            return error


def _collated(collate: Callable[[list[Any]], Any], items: list[Any]) -> Any:
    return next((item for item in items if isinstance(item, UserError)), None) or collate(items)


def _next(batches: Iterator[Any]) -> Any:
    batch = next(batches)
    if isinstance(batch, UserError):
        raise batch
    return batch


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups: what decays, and what a part of :data:`NO_DECAY` in its name keeps from it."""
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (free if any(part in name for part in NO_DECAY) else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]


def _plain(schedule: Schedule) -> dict[str, Any]:
    plain = {**asdict(schedule), "milestones": list(schedule.milestones)}
    plain.pop("published")
    return plain


def _resume(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, about: dict[str, Any], earlier: Mapping[str, Any]
) -> tuple[int, str]:
    """Steps done, and the weights that it was begun with."""
    state = read_checkpoint(path)
    if state is None:
        raise UserError(f"{path}: no checkpoint to resume; leave --resume out to begin")
    before = state.get("about")
    if not isinstance(before, dict):
        raise UserError(f"{path}: not a checkpoint of `detect train` or `segment train`")
    before = {**earlier, **before}
    if about["initial"] is None:
        about = {**about, "initial": before.get("initial")}
    differing = [key for key in sorted({*about, *before}) if about.get(key) != before.get(key)]
    if differing:
        first = differing[0]
        raise UserError(
            f"{path} is of another training: {first} was {before.get(first)!r}, is {about.get(first)!r}"
            + (f" (and {len(differing) - 1} more differ)" if len(differing) > 1 else "")
        )
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"]), str(before["initial"])
