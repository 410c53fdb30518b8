"""Carrying a recipe out: its data, its models one after the other, one record each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from vheatbench.errors import DivergedError, StoreError, UserError
from vheatbench.measure.environment import environment
from vheatbench.measure.host import load_average, threads
from vheatbench.run.device import classify
from vheatbench.run.distributed import Group, PeerError
from vheatbench.run.recording import new_header
from vheatbench.store.read import PARTIAL, read_run
from vheatbench.store.schema import Header, Record
from vheatbench.store.write import RunWriter
from vheatbench.studies.training.batches import TrainingOrder
from vheatbench.studies.training.data import Parts, open_parts
from vheatbench.studies.training.folder import TrainingFolder
from vheatbench.studies.training.models import Model, plan_models
from vheatbench.studies.training.progress import Progress
from vheatbench.studies.training.recipe import Recipe
from vheatbench.studies.training.record import add_curves, fill
from vheatbench.studies.training.side_by_side import side_by_side
from vheatbench.studies.training.trainer import Trainer
from vheatbench.text import one_line, utc_now

OnEpoch = Callable[[Model, Progress], None]


def train(
    folder: TrainingFolder,
    parts: Parts,
    group: Group,
    results: Path,
    command: str,
    resume: bool,
    on_epoch: OnEpoch,
    jobs: int = 1,
) -> Path:
    """Train every model of the folder's recipe; the run's file.

    A model that fails is a record that says why, and the next is trained.

    Args:
        folder: of the training; its ``run`` is read only where it is resumed.
        parts: the data.
        group: the processes that train together. Files are written by the first.
        results: folder for the run's file.
        command: the command line.
        resume: go on from the folder's checkpoints instead of beginning anew.
        on_epoch: called in the first process after every epoch.
        jobs: trainings at once, in processes of their own; more than one only in a group of one, on a CPU.

    Returns:
        The finished run file.

    Raises:
        UserError: a recipe that does not fit the data or the models, an image that cannot be read.
        StoreError: a file cannot be written; what is there is safe.
        PeerError: another process failed or is gone.
    """
    models = group.together(lambda: plan_models(folder.recipe, parts, group.device))
    # a batch that does not fit is said before anything is written
    group.together(lambda: TrainingOrder(len(parts.train), folder.recipe, group))
    held: list[RunWriter] = []

    def begin() -> tuple[TrainingFolder, set[str]]:
        writer = _reopened(folder.run, models) if resume else None
        begun = folder
        if writer is None:
            writer = RunWriter.create(results, _header(folder.recipe, models, command))
            begun = replace(folder, run=writer.path, fingerprint=parts.fingerprint)
            begun.save()
        held.append(writer)
        return begun, {case_id for case_id, _ in writer.done}

    begun, done = group.on_main(begin)
    todo = [i for i, model in enumerate(models) if model.case.id not in done]
    try:
        for record in _records(models, todo, begun, parts, group, resume, on_epoch, jobs):
            if resume and folder.fingerprint != parts.fingerprint:
                record.warnings.append("the images changed while it trained: the epochs did not see the same data")
            group.on_main(lambda record=record: held[0].append(record))  # type: ignore[misc]
        return group.on_main(lambda: held[0].finish())
    except StoreError as error:
        raise StoreError(str(error).replace("--resume`", "").replace("--resume", f"--resume {begun.path}")) from error
    finally:
        for writer in held:
            writer.close()


def _records(
    models: list[Model],
    todo: list[int],
    folder: TrainingFolder,
    parts: Parts,
    group: Group,
    resume: bool,
    on_epoch: OnEpoch,
    jobs: int,
) -> Iterator[Record]:
    """The records of the models ``todo``, one after the other or ``jobs`` at once."""
    jobs = min(jobs, len(todo))
    if jobs <= 1:
        for i in todo:
            yield _trained(models[i], folder, parts, group, resume, partial(on_epoch, models[i]))
        return
    each = max(threads() // jobs, 1)
    training = partial(_alone, folder, resume)
    yield from side_by_side(training, todo, jobs, each, lambda i, progress: on_epoch(models[i], progress))


def _alone(folder: TrainingFolder, resume: bool, position: int, on_epoch: Callable[[Progress], None]) -> Record:
    """Train one of the folder's models in this process."""
    parts = open_parts(folder.recipe, folder.data)
    device = torch.device("cpu")
    model = plan_models(folder.recipe, parts, device)[position]
    return _trained(model, folder, parts, Group(device), resume, on_epoch)


def finished_run(folder: TrainingFolder) -> Path | None:
    """The run file of a training in which every model was trained to its end; None if there is something to do."""
    path = folder.run.with_suffix("") if folder.run.suffix == PARTIAL else folder.run
    if not path.is_file():
        return None
    run = read_run(path)
    return path if run.complete and all(record.status == "ok" for record in run.records) else None


def _header(recipe: Recipe, models: list[Model], command: str) -> Header:
    return new_header(
        "train",
        recipe.description,
        command,
        environment(),
        plan=[model.case for model in models],
        policy={"recipe": recipe.model_dump(mode="json")},
    )


def _reopened(path: Path, models: list[Model]) -> RunWriter | None:
    """The unfinished run, if it is there and can be gone on with; a model that failed there gets a new one."""
    if path.suffix != PARTIAL or not path.is_file():
        return None
    run = read_run(path)
    same = [case.id for case in run.header.plan] == [model.case.id for model in models]
    if not same or any(record.status != "ok" for record in run.records):
        return None
    return RunWriter.resume(path)


def _trained(
    model: Model,
    folder: TrainingFolder,
    parts: Parts,
    group: Group,
    resume: bool,
    on_epoch: Callable[[Progress], None],
) -> Record:
    record = Record(
        case=model.case,
        case_id=model.case.id,
        status="ok",
        started=utc_now(),
        subject=model.facts,
        warnings=model.warnings,
        conditions={
            "name": model.entry.label,
            "processes": group.size,
            "threads": threads(),
            "load_average": load_average(),
            "train_images": len(parts.train),
            "test_images": len(parts.test),
        },
    )
    started = time.monotonic()
    trainer: Trainer | None = None
    try:
        built = model.factory()
        trainer = Trainer(
            built,
            parts.train,
            parts.test,
            model.recipe,
            group,
            folder.path / model.folder,
            on_epoch,
        )
        if resume:
            trainer.restore()
        progress = trainer.fit()
        parameters = sum(one.numel() for one in built.parameters())
        record.warnings += [progress.loss_note] if progress.loss_note else []
        fill(record, progress, len(parts.test), parameters, trainer.peak_how)
        about = {
            "model": model.entry.model,
            "recipe": model.case.analysis["recipe"],
            "seed": str(model.recipe.seed),
            "epochs": str(progress.epoch),
        }
        write = trainer.write_weights
        group.on_main(lambda: write(about))
    except (UserError, StoreError, PeerError):
        raise
    except Exception as error:  # whatever a model does while it trains is its result
        if group.size > 1 and not isinstance(error, DivergedError):
            raise  # the other processes know nothing of it, and cannot go on without this one
        record.status, record.reason = classify(error)
        if isinstance(error, DivergedError):
            kept = "the checkpoint before is kept" if trainer and trainer.saved else "there was no checkpoint yet"
            record.reason = one_line(f"diverged: {error}; {kept}")
        if trainer is not None:
            add_curves(record, trainer.progress)
    record.elapsed_s = time.monotonic() - started
    return record
