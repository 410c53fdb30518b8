"""``vheatbench train``: train the models of a recipe, resumably, and record what it took."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vheatbench.cli.folders import check_writable
from vheatbench.cli.options import DEVICE, JSON, QUIET, checkpoints_option, results_option
from vheatbench.cli.output import command_line
from vheatbench.cli.processes import by_torchrun, device_of, user_errors_on_rank0, working
from vheatbench.cli.processes_job import SLURM, submit_processes
from vheatbench.errors import UserError
from vheatbench.stop import stoppable

if TYPE_CHECKING:
    from vheatbench.present.progress import Display
    from vheatbench.run.distributed import Group
    from vheatbench.studies.training.data import Parts
    from vheatbench.studies.training.folder import TrainingFolder
    from vheatbench.studies.training.models import Model
    from vheatbench.studies.training.progress import Progress
    from vheatbench.studies.training.recipe import Recipe
    from vheatbench.studies.training.train import OnEpoch

AUTO = "auto"


def train(
    config: str | None = typer.Option(None, help="Recipe: a YAML file or a name in suites/train, such as digits."),
    data: Path | None = typer.Option(None, help="Folder with class folders in train and in val."),
    override: list[str] = typer.Option(
        [], help="KEY=VALUE in place of the recipe's, for example batch=1024; repeatable."
    ),
    resume: str | None = typer.Option(
        None, help="Folder of a training to continue, or auto: the newest of this recipe, else a new one."
    ),
    out: Path | None = checkpoints_option("trainings/NAME-ID"),
    results: Path = results_option("Folder for the run's file."),
    jobs: int = typer.Option(1, min=1, help="Trainings at once on a CPU, each with its share of the threads."),
    device: str = DEVICE,
    json_: bool = JSON,
    quiet: bool = QUIET,
    slurm: Annotated[str | None, SLURM] = None,
) -> None:
    """Train every model of a recipe by the vHeat paper's procedure; accuracy and loss per epoch, speed and memory.

    Several GPUs: torchrun --nproc-per-node 8 -m vheatbench train ...; the batch is that of all of them together.
    """
    with user_errors_on_rank0():
        folder, continued = _folder(config, override, data, resume, out)
        submit_processes(slurm, results)
        kind = device_of(device)
        if jobs > 1 and (kind != "cpu" or by_torchrun()):
            raise UserError(f"--jobs {jobs}: only on a CPU and without torchrun, which share one training")
    with working(kind) as group:
        path = _carry_out(folder, continued, None if data is None else str(data), group, results, quiet, jobs)
        if not group.is_main:
            return
    _print(path, json_)


def _folder(
    config: str | None, override: list[str], data: Path | None, resume: str | None, out: Path | None
) -> tuple[TrainingFolder, bool]:
    """The training that is asked for, and whether it was begun before."""
    from vheatbench.studies.training.folder import TrainingFolder, find_training, open_folder
    from vheatbench.studies.training.recipe import list_recipes, load_recipe

    recipe = load_recipe(config, override) if config is not None else None
    begun: Path | None = None
    if resume is not None and resume != AUTO:
        if out is not None and out != Path(resume):
            raise UserError(f"--resume {resume} continues in its own folder: leave --checkpoints out")
        begun = Path(resume)
    elif recipe is None:
        raise UserError(f"--config is missing: give a recipe ({', '.join(sorted(list_recipes()))}), or --resume FOLDER")
    elif resume == AUTO:
        begun = find_training(recipe, out, None if data is None else str(data))
    if begun is not None:
        folder = open_folder(begun)
        if recipe is not None:
            folder.check(recipe)
            folder = replace(folder, recipe=recipe)
        elif override:
            raise UserError("--override changes a recipe: give it by --config, or leave --override out")
        return folder, True
    assert recipe is not None
    return TrainingFolder(out or Path(), recipe, None if data is None else str(data), "", Path()), False


def _carry_out(
    folder: TrainingFolder, continued: bool, data: str | None, group: Group, results: Path, quiet: bool, jobs: int
) -> Path:
    from vheatbench.present.progress import display
    from vheatbench.run.distributed import PeerError, naming_lost_peers
    from vheatbench.studies.training.data import open_parts
    from vheatbench.studies.training.folder import FILE
    from vheatbench.studies.training.train import finished_run, train

    parts: Parts | None = None
    if data is not None and continued:
        parts = group.together(lambda: open_parts(folder.recipe, data))
        fingerprint = parts.fingerprint
        group.together(lambda: folder.check_data(data, fingerprint))
        folder = replace(folder, data=data)
    finished = finished_run(folder) if continued else None
    if finished is not None:
        print(f"{folder.path}: every model is trained to its end already", file=sys.stderr)
        return finished
    folder = replace(folder, path=group.on_main(lambda: _place(folder, continued)))
    images = parts or group.together(lambda: open_parts(folder.recipe, folder.data))
    group.on_main(lambda: _check_places(folder.path, results))
    try:
        with (
            stoppable(lambda: _kept(folder, jobs)),
            naming_lost_peers(),
            display(quiet or not group.is_main) as shown,
        ):
            on_epoch = _shown_by(shown, folder.recipe)
            return train(folder, images, group, results, command_line(), continued, on_epoch, jobs)
    except (UserError, PeerError):
        if group.is_main and (folder.path / FILE).exists():
            print(f"stopped: {_kept(folder, jobs)}", file=sys.stderr)
        raise


def _check_places(folder: Path, results: Path) -> None:
    """Raises UserError where checkpoints or the run could not be written after hours."""
    check_writable(folder, "--checkpoints")
    check_writable(results, "--results")


def _place(folder: TrainingFolder, continued: bool) -> Path:
    """Where the training is kept. Raises UserError where another one is."""
    from vheatbench.studies.training.folder import FILE, new_folder

    if continued:
        return folder.path
    if folder.path == Path():
        return new_folder(folder.recipe)
    if (folder.path / FILE).exists():
        raise UserError(
            f"--checkpoints {folder.path}: holds a training already: --resume {folder.path}, or another folder"
        )
    return folder.path


def _shown_by(shown: Display, recipe: Recipe) -> OnEpoch:
    trainings = recipe.trainings
    seen: dict[int, int] = {}  # epochs by position; what lies before the first was trained earlier

    def on_epoch(model: Model, progress: Progress) -> None:
        last = {name: values[-1] for name, values in progress.history.items()}
        average = f" ({last['ema_top1_accuracy']:.2%} EMA)" if "ema_top1_accuracy" in last else ""
        epochs = model.recipe.epochs
        seen[trainings.index((model.entry, model.recipe))] = progress.epoch
        done, total = min(seen) * epochs + sum(seen.values()), len(trainings) * epochs
        shown.update(done / total, f"{done}/{total}", model.folder)
        shown.line(
            f"{model.folder} epoch {progress.epoch}/{epochs}",
            f"loss {last['train_loss']:.4f}, test accuracy {last['top1_accuracy']:.2%}{average}, "
            f"{last['throughput_images_per_s']:.1f} images/s, {last['epoch_s']:.1f} s",
        )

    return on_epoch


def _kept(folder: TrainingFolder, jobs: int) -> str:
    """Of a training that was stopped, and how it goes on."""
    from vheatbench.run.checkpointing import CHECKPOINT
    from vheatbench.studies.training.folder import FILE

    if not (folder.path / FILE).exists():
        return "nothing was trained yet"
    command = f"vheatbench train --resume {shlex.quote(str(folder.path))}{f' --jobs {jobs}' if jobs > 1 else ''}"
    kept = "the checkpoints are kept" if any(folder.path.glob(f"*/{CHECKPOINT}")) else "there is no checkpoint yet"
    return f"{kept}; continue with: {command}"


def _print(path: Path, json_: bool) -> None:
    from vheatbench.cli.execute import exit_code
    from vheatbench.store.read import read_run

    run = read_run(path)
    if json_:
        from vheatbench.cli.output import print_records

        print_records(run)
    else:
        from vheatbench.studies.training.table import print_training

        print_training(run)
    print(path, file=sys.stderr)
    raise typer.Exit(exit_code(run.records))
