"""The flow of ``vheatbench detect`` and ``vheatbench segment``: options, processes, progress, results."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from vheatbench.cli.folders import check_writable
from vheatbench.cli.options import OLD
from vheatbench.cli.output import command_line
from vheatbench.cli.parse import check_choice
from vheatbench.cli.processes import device_of, user_errors_on_rank0, working
from vheatbench.cli.processes_job import SLURM
from vheatbench.errors import StoreError, UserError
from vheatbench.stop import stoppable

if TYPE_CHECKING:
    from torch import nn

    from vheatbench.present.progress import Display
    from vheatbench.run.distributed import Group
    from vheatbench.studies.dense.answers import Answers, OnProgress
    from vheatbench.studies.dense.detection import DetectionResult
    from vheatbench.studies.dense.fit import Schedule, Step
    from vheatbench.studies.dense.segmentation import SegmentationResult
    from vheatbench.studies.dense.task import About, DataFolder, Task

EVERY_S = 10.0
"""Between two lines of progress in a log."""

BackboneName = Annotated[str, typer.Option(help="Backbone: an alias or a timm name with maps at strides 4 to 32.")]
BackboneWeights = Annotated[
    Path | None, typer.Option(help="Classification checkpoint to begin with; else random weights.")
]
Use = Annotated[str, typer.Option(help="Which set of weights, where the file has both: model, model_ema.")]
Rule = Annotated[str, typer.Option(help="How vHeat's frequency embeddings are resized: bicubic, zeropad.")]
TrustPickle = Annotated[
    bool,
    typer.Option("--trust-pickle", help="Run the code that the checkpoint may contain: official files need it."),
]
LearningRate = Annotated[float, typer.Option(help="Learning rate after the warm-up.")]
DropPath = Annotated[
    float | None,
    typer.Option(min=0, max=0.99, help="Stochastic depth of the last block, instead of the published training's."),
]
Precision = Annotated[str, typer.Option(help="float32, or bfloat16 by autocast.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Workers = Annotated[int, typer.Option(min=0, help="Processes that read images, per process that trains.")]
SaveEvery = Annotated[int, typer.Option(min=1, help="Steps after which what is done is on disk.")]
Seed = Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Of weights, order and augmentation.")]
Out = Annotated[Path, typer.Option("--checkpoints", OLD, help="Folder for the checkpoint and the weights.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue the training in --checkpoints.")]
TestSplit = Annotated[str, typer.Option(help="Part of the data to answer.")]
TrainSplit = Annotated[str, typer.Option(help="Part of the data to learn from.")]
Results = Annotated[Path, typer.Option("--results", help="Folder for the run's file.")]
Json = Annotated[bool, typer.Option("--json", help="Print what was found as JSON on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
Slurm = Annotated[str | None, SLURM]


@dataclass(frozen=True)
class Training:
    """What is to be trained: found out together by all processes, before the first step."""

    task: Task
    folder: DataFolder
    about: About
    schedule: Schedule


@dataclass(frozen=True)
class Test:
    """How weights are to be tested, and on what."""

    task: Task
    folder: DataFolder
    evaluate: Callable[[nn.Module, Group, OnProgress, Answers], DetectionResult | SegmentationResult]
    options: dict[str, Any] = field(default_factory=dict)
    """What of the test was chosen, as the record has it."""


def train(
    plan: Callable[[Group], Training],
    *,
    lr: float,
    backbone_weights: Path | None,
    use: str,
    rule: str,
    trust_pickle: bool,
    dtype: str,
    device: str,
    workers: int,
    save_every: int,
    out: Path,
    resume: bool,
    quiet: bool,
) -> None:
    """Carry a training out and print the path of its weights. Most arguments are the options of both commands.

    Args:
        plan: reads the data; may raise UserError.
    """
    with user_errors_on_rank0():
        if not (math.isfinite(lr) and lr > 0):
            raise UserError(f"--lr {lr:g}: give a number above 0")
        check_choice("--dtype", dtype, ("float32", "bfloat16"))
        check_choice("--use", use, ("model", "model_ema"))
        check_choice("--rule", rule, ("bicubic", "zeropad"))
        _check_new(out, resume)
        kind = device_of(device)
    with working(kind) as group:
        import torch

        from vheatbench.present.progress import display
        from vheatbench.studies.dense import task as tasks
        from vheatbench.subjects.backbone import Beginning

        def planned() -> Training:
            found = plan(group)
            check_writable(out, "--checkpoints")
            return found

        training = group.together(planned)
        _print_notes(training.folder, group, quiet)
        shown = display(quiet or not group.is_main, EVERY_S)
        beginning = None
        if backbone_weights is not None:
            beginning = Beginning(backbone_weights, use, rule, trust_pickle)  # type: ignore[arg-type]
        with _naming_what_is_kept(lambda: _checkpoint_kept(out, shown.begun), group), shown:
            path = tasks.train(
                training.task, training.folder, training.about, training.schedule, group, out,
                beginning=beginning, resume=resume, workers=workers, save_every=save_every, on_step=_steps_on(shown),
                autocast=torch.bfloat16 if dtype == "bfloat16" else None,
            )  # fmt: skip
        main = group.is_main
    if main:
        print(path)


def evaluate(
    model: str,
    plan: Callable[[About], Test],
    *,
    weights: Path,
    data: Path,
    device: str,
    results: Path,
    json_: bool,
    quiet: bool,
) -> None:
    """Test weights, write the run and print it. Most arguments are the options of both commands.

    Args:
        model: what the weights must be of: ``maskrcnn``, ``upernet``.
        plan: from what the weights' file says of them; reads the data, and may raise UserError.
    """
    path: Path | None = None
    with user_errors_on_rank0():
        kind = device_of(device)
    with working(kind) as group:
        from vheatbench.present.progress import display
        from vheatbench.studies.dense.answers import Answers
        from vheatbench.studies.dense.files import TrainedFile, read_trained
        from vheatbench.studies.dense.record import write_evaluation
        from vheatbench.text import utc_now

        def planned() -> tuple[TrainedFile, Test, nn.Module, Answers]:
            trained = read_trained(weights, model)
            test = plan(trained.about)
            network = test.task.build(trained.about)
            trained.load_into(network)
            place = (test.folder.fingerprint, str(test.folder.image_folder.resolve()), group.device.type)
            kept = Answers.of(results, f"{test.task.command}-eval", trained.sha256, *place, *test.options.items())
            check_writable(results, "--results")
            return trained, test, network.eval().to(group.device), kept

        started = utc_now()
        trained, test, network, kept = group.together(planned)
        _print_notes(test.folder, group, quiet)
        shown = display(quiet or not group.is_main, EVERY_S)
        with _naming_what_is_kept(lambda: _answers_kept(kept), group), shown:
            result = test.evaluate(network, group, _images_on(shown), kept)
        if group.is_main:
            path = write_evaluation(
                test.task, trained, test.folder, result, results,
                data_name=data.resolve().name, options=test.options, command=command_line(), started=started,
                device=cast("Literal['cpu', 'cuda']", kind),
            )  # fmt: skip
            kept.forget()
    if path is not None:
        _show(path, json_)


def _check_new(out: Path, resume: bool) -> None:
    """Raises UserError where a training would write over another."""
    from vheatbench.run.checkpointing import CHECKPOINT

    if not resume and (out / CHECKPOINT).exists():
        raise UserError(f"{out} holds a training: continue it with --resume, or give another --checkpoints")


def _print_notes(folder: DataFolder, group: Group, quiet: bool) -> None:
    """What is to be known of the data before work begins, once."""
    lines = ["" if quiet else folder.summary, *(f"! {line}" for line in folder.warnings), str(folder.turned)]
    if group.is_main:
        for line in filter(None, lines):
            print(line, file=sys.stderr)


@contextlib.contextmanager
def _naming_what_is_kept(kept: Callable[[], str], group: Group) -> Iterator[None]:
    """Where the work is stopped, say what of it is kept and how it goes on; ``kept`` is empty where nothing is."""
    from vheatbench.run.distributed import PeerError, naming_lost_peers

    try:
        with stoppable(lambda: kept() or "nothing is kept yet"), naming_lost_peers():
            yield
    except (UserError, StoreError, PeerError):
        words = kept() if group.is_main else ""
        if words:
            print(f"stopped: {words}", file=sys.stderr)
        raise


def _checkpoint_kept(out: Path, begun: bool) -> str:
    """Of a training; nothing of one that was refused before its first step."""
    from vheatbench.run.checkpointing import CHECKPOINT

    there = begun and (out / CHECKPOINT).exists()
    again = command_line() if "--resume" in sys.argv else f"{command_line()} --resume"
    return f"the checkpoint in {out} is kept; continue with: {again}" if there else ""


def _answers_kept(kept: Answers) -> str:
    """Of a test."""
    return f"what was answered is kept; continue with: {command_line()}" if kept.some else ""


def _steps_on(shown: Display) -> Callable[[Step], None]:
    def on_step(step: Step) -> None:
        parts = " ".join(f"{name.removeprefix('loss_')} {value:.3g}" for name, value in step.losses.items())
        words = f"loss {step.loss:.4g} ({parts}) lr {step.lr:.2g}"
        shown.update(step.step / step.of, f"{step.step}/{step.of}", words)

    return on_step


def _images_on(shown: Display) -> OnProgress:
    def on_progress(done: int, of: int, before: bool) -> None:
        words = f"going on after {done} of {of} images" if before else "images"
        shown.update(done / of, f"{done}/{of}", words)

    return on_progress


def _show(path: Path, json_: bool) -> None:
    """Print the run of a test: a table of scores in percent, or its record as JSON."""
    from vheatbench.store.read import read_run

    run = read_run(path)
    if json_:
        from vheatbench.cli.output import print_records

        print_records(run)
    else:
        from vheatbench.studies.dense.table import print_scores

        print_scores(run)
    print(path, file=sys.stderr)
