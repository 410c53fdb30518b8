"""Training one model: the loop over epochs and updates, its losses, its checkpoints, its test accuracy."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from timm.utils import ModelEmaV3, NativeScaler, dispatch_clip_grad
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from vheatbench.errors import DivergedError, UserError
from vheatbench.measure.outputs import logits_of, loss_note, training_loss
from vheatbench.run.checkpointing import CHECKPOINT, read_checkpoint, write_checkpoint, write_weights
from vheatbench.run.distributed import Group
from vheatbench.studies.images.labelled import Batch, LabelledImages
from vheatbench.studies.training.batches import (
    STEP,
    TrainingOrder,
    on_device,
    seed_generators,
    test_loader,
    training_loader,
)
from vheatbench.studies.training.losses import LossFile
from vheatbench.studies.training.optimization import (
    make_criterion,
    make_mixup,
    make_optimizer,
    make_schedule,
    precision_of,
)
from vheatbench.studies.training.peak import PeakMemory
from vheatbench.studies.training.progress import Progress
from vheatbench.studies.training.recipe import Recipe
from vheatbench.subjects.weights import all_finite
from vheatbench.text import one_line


class Trainer:
    """One model on its way through a recipe.

    Loss, gradients and weights are those of the whole batch, however many processes share it. Batch norms see the
    images of all GPUs; on CPUs those of their own process, and the first one's statistics are tested and kept.
    """

    def __init__(
        self,
        model: nn.Module,
        train: LabelledImages,
        test: LabelledImages,
        recipe: Recipe,
        group: Group,
        folder: Path,
        on_epoch: Callable[[Progress], None] = lambda progress: None,
    ) -> None:
        """
        Args:
            model: freshly built, with the same weights in every process.
            train: images to learn from.
            test: images to measure the accuracy on; the same classes.
            recipe: how.
            group: the processes that train together.
            folder: for the checkpoint and ``losses.csv``; only the first process writes.
            say: called in the first process after every epoch.

        Raises:
            UserError: the recipe does not fit data, processes or model.
        """
        self.recipe, self.group, self.folder, self._on_epoch = recipe, group, folder, on_epoch
        self._train, self._test = train, test
        self.order = TrainingOrder(len(train), recipe, group)
        device = group.device
        if group.size > 1 and device.type == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        self.model = model.to(device)
        if recipe.gradient_checkpointing:
            group.together(lambda: _checkpoint_gradients(model))
        self.optimizer = make_optimizer(model, recipe)
        self._scheduler = make_schedule(self.optimizer, recipe, self.order.updates)
        self.precision = precision_of(recipe, device)
        self._scaler = NativeScaler(device.type) if self.precision == "float16" else None
        self.ema = ModelEmaV3(model, decay=recipe.ema_decay) if recipe.ema_decay is not None else None
        self._mixup = make_mixup(recipe, len(train.classes)) if recipe.mixes else None
        self._criterion = make_criterion(recipe)
        self._peak = PeakMemory(device)
        self.progress = Progress()
        self._shared: nn.Module = self.model
        if group.size > 1:
            where = [device.index] if device.type == "cuda" else None
            self._shared = DistributedDataParallel(self.model, device_ids=where)
        pin = device.type == "cuda"
        self._loader = training_loader(train, recipe, self.order, pin)
        self._test_loader = test_loader(test, recipe, group, pin)
        self._losses = LossFile(folder / "losses.csv") if group.is_main else None

    def restore(self) -> bool:
        """Go on from the folder's checkpoint; False if there is none.

        Raises:
            UserError: the checkpoint is not of this model, or damaged.
        """
        path = self.folder / CHECKPOINT
        state = self.group.together(lambda: read_checkpoint(path))
        if len(set(self.group.gather(state is None))) > 1:
            raise UserError(f"{path}: not every process sees it: put the training's folder on a disk that all share")
        if state is None:
            return False
        self.group.together(lambda: self._take(state, path))
        return True  # the rate stands in the optimizer; the schedule follows from the number of the update

    def _take(self, state: dict[str, Any], path: Path) -> None:
        try:
            self.model.load_state_dict(state["model"])
            if self.ema is not None:
                self.ema.module.load_state_dict(state["ema"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self._scaler is not None:
                self._scaler.load_state_dict(state["scaler"])
            self.progress = Progress(**state["progress"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"{path}: does not fit this model ({one_line(str(error))})") from None

    @property
    def _updates_done(self) -> int:
        return self.progress.epoch * self.order.updates + self.progress.update

    def fit(self) -> Progress:
        """Train to the end.

        Raises:
            DivergedError: a loss or weight is not finite; the checkpoint is that of before.
            UserError: an image cannot be read.
            StoreError: a checkpoint cannot be written; the one before is kept.
        """
        losses = self._losses
        self.group.on_main(lambda: losses.keep(self._updates_done) if losses else None)
        while self.progress.epoch < self.recipe.epochs:
            if self.progress.update < self.order.updates:
                self._epoch()
                self._save()  # the test may meet an image that cannot be read: what was learned is safe
            self._finish_epoch()
            self._save()
            if self.group.is_main:
                self._on_epoch(self.progress)
        return self.progress

    def _epoch(self) -> None:
        recipe, progress = self.recipe, self.progress
        self._shared.train()
        self.order.begin(progress.epoch, progress.update)
        batches = iter(self._loader)
        pending: list[tuple[float, Tensor]] = []
        started = time.perf_counter()
        for update in range(progress.update, self.order.updates):
            pending.append((self.optimizer.param_groups[0]["lr"], self._update(batches, update)))
            self._scheduler.step_update(self._updates_done + len(pending))
            done, last = update + 1, update + 1 == self.order.updates
            save = recipe.checkpoint_every is not None and done % recipe.checkpoint_every == 0 and not last
            if save or last or done % recipe.log_every == 0:
                self._look(pending)
                now = time.perf_counter()
                progress.seconds, started = progress.seconds + now - started, now
            if save:
                self._save()
                started = time.perf_counter()

    def _update(self, batches: Iterator[Batch], update: int) -> Tensor:
        """Accumulate gradients and take one step; the mean loss of this process's images, detached."""
        recipe, group, device = self.recipe, self.group, self.group.device
        total = torch.zeros((), device=device)
        for step in range(recipe.accumulation):
            before = time.perf_counter()
            images, targets = group.together(lambda: on_device(next(batches), self._train, device))
            self.progress.waited += time.perf_counter() - before
            seed_generators(recipe.seed, STEP, self.progress.epoch, update, step, group.rank)
            if self._mixup is not None:
                images, targets = self._mixup(images, targets)
            last = step + 1 == recipe.accumulation
            alone = isinstance(self._shared, DistributedDataParallel) and not last
            with self._shared.no_sync() if alone else contextlib.nullcontext():  # type: ignore[operator]
                with self._autocast():
                    output = self._shared(images)
                    loss = self._loss(output, targets) / recipe.accumulation
                self._backward(loss, last)
            self.progress.loss_note = loss_note(output)
            total += loss.detach()
        self.optimizer.zero_grad()
        if self.ema is not None:
            self.ema.update(self.model)
        return total

    def _loss(self, output: Any, targets: Tensor) -> Tensor:
        return training_loss(output, lambda logits: self._criterion(logits, targets))

    def _backward(self, loss: Tensor, last: bool) -> None:
        """Gradients, and after the last step of an update the optimizer's step on the clipped ones."""
        clip, parameters = self.recipe.clip_gradients, self.model.parameters()
        if self._scaler is not None:
            self._scaler(loss, self.optimizer, clip_grad=clip, parameters=parameters, need_update=last)
            return
        loss.backward()
        if last:
            if clip is not None:
                dispatch_clip_grad(parameters, clip)
            self.optimizer.step()

    def _autocast(self) -> torch.autocast:
        low = self.precision if self.precision != "float32" else "bfloat16"  # float32 is no autocast at all
        return torch.autocast(self.group.device.type, getattr(torch, low), enabled=self.precision != "float32")

    def _look(self, pending: list[tuple[float, Tensor]]) -> None:
        """Fetch the losses since the last look, in every process those of the whole batch; check and write them."""
        losses = torch.stack([loss for _, loss in pending])
        if self.group.size > 1:
            torch.distributed.all_reduce(losses)
            losses /= self.group.size
        progress = self.progress
        rows = []
        for (rate, _), loss in zip(pending, losses.tolist(), strict=True):
            if not math.isfinite(loss):
                raise DivergedError(f"the loss is {loss} at update {progress.update + 1} of epoch {progress.epoch + 1}")
            rows.append((self._updates_done + 1, progress.epoch + 1, rate, loss))
            progress.losses.append(loss)
            progress.update += 1
        pending.clear()
        losses_file = self._losses
        self.group.on_main(lambda: losses_file.add(rows) if losses_file else None)

    def _finish_epoch(self) -> None:
        """Measure the accuracy and turn the epoch's numbers into its row of the history."""
        progress = self.progress
        before = time.perf_counter()
        top1, loss = self._measure(self.model)
        row = {
            "train_loss": math.fsum(progress.losses) / len(progress.losses),
            "test_loss": loss,
            "top1_accuracy": top1,
            "epoch_s": progress.seconds,
            "waiting_s": progress.waited,
            "test_s": time.perf_counter() - before,
            "throughput_images_per_s": self.order.updates * self.recipe.batch / progress.seconds,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
        }
        if self.ema is not None:
            row["ema_top1_accuracy"], _ = self._measure(self.ema.module)
        for name, value in row.items():
            progress.history.setdefault(name, []).append(value)
        progress.epoch, progress.update = progress.epoch + 1, 0
        progress.losses, progress.seconds, progress.waited = [], 0.0, 0.0

    @torch.no_grad()
    def _measure(self, model: nn.Module) -> tuple[float, float]:
        """Share of right answers on the test images, and mean cross-entropy."""
        model.eval()
        if self.group.size > 1:
            for buffer in model.buffers():
                torch.distributed.broadcast(buffer, 0)

        def answers() -> tuple[int, float]:
            right, loss = 0, 0.0
            for batch in self._test_loader:
                images, targets = on_device(batch, self._test, self.group.device)
                with self._autocast():
                    output = model(images)
                logits = logits_of(output).double()
                right += int((logits.argmax(1) == targets).sum())
                loss += float(nn.functional.cross_entropy(logits, targets, reduction="sum"))
            return right, loss

        found = self.group.gather_or_raise(answers)
        top1 = sum(part for part, _ in found) / len(self._test)
        loss = math.fsum(part for _, part in found) / len(self._test)
        if not math.isfinite(loss):
            raise DivergedError(f"the test loss is {loss} after epoch {self.progress.epoch + 1}")
        return top1, loss

    def _save(self) -> None:
        """A checkpoint, unless a weight is not finite: then the one before is the better one."""
        if not all_finite(self.model):
            epoch = self.progress.epoch + bool(self.progress.update)
            raise DivergedError(f"a weight is not finite any more in epoch {epoch}")
        peak = self._peak.bytes()
        if peak is not None:
            self.progress.peak_bytes = max(peak, self.progress.peak_bytes or 0)
        state = {
            "model": self.model.state_dict(),
            "ema": self.ema.module.state_dict() if self.ema is not None else None,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self._scaler.state_dict() if self._scaler is not None else None,
            "progress": asdict(self.progress),
        }
        self.group.on_main(lambda: write_checkpoint(self.folder / CHECKPOINT, state))

    @property
    def saved(self) -> bool:
        """Whether there is a checkpoint."""
        return (self.folder / CHECKPOINT).exists()

    @property
    def peak_how(self) -> str:
        """How ``progress.peak_bytes`` was taken."""
        return self._peak.how

    def write_weights(self, about: dict[str, str]) -> None:
        """``weights.safetensors``, with a moving average also ``weights_ema.safetensors``. Raises StoreError."""
        write_weights(self.folder / "weights.safetensors", self.model.state_dict(), about)
        if self.ema is not None:
            write_weights(self.folder / "weights_ema.safetensors", self.ema.module.state_dict(), about)


def _checkpoint_gradients(model: nn.Module) -> None:
    if not hasattr(model, "set_grad_checkpointing"):
        raise UserError("gradient_checkpointing: this model has none; set it to false")
    model.set_grad_checkpointing(True)  # type: ignore[operator]
