"""``vheatbench eval``: accuracy on labelled images, at one resolution or several."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from vheatbench.cli.execute import DEVICES, MEMORY_LIMIT, SHARD, How, exit_code, measure_study, say_skipped
from vheatbench.cli.options import DEVICE, JSON, QUIET, results_option
from vheatbench.cli.output import command_line, print_records
from vheatbench.cli.parse import check_choice, device_kind, resolutions_of
from vheatbench.cli.processes import by_torchrun, user_errors_on_rank0, working
from vheatbench.cli.processes_job import SLURM, submit_processes
from vheatbench.cli.resume import RESUME, refuse_beside_resume, unfinished
from vheatbench.cli.resume import resume as go_on
from vheatbench.errors import UserError
from vheatbench.stop import stoppable

if TYPE_CHECKING:
    from vheatbench.run.distributed import Group
    from vheatbench.studies.accuracy.plan import EvalSettings

DESCRIPTION = "Accuracy on labelled images, by resolution."
A_WEEK_S = 7 * 24 * 3600.0
BESIDE_RESUME = frozenset(
    {
        "resume",
        "results",
        "device",
        "devices",
        "workers",
        "skip_broken",
        "trust_pickle",
        "worst",
        "json_",
        "quiet",
        "slurm",
    }
)
"""Options that may stand beside ``--resume``: they do not change what is evaluated."""


def eval(
    context: typer.Context,
    model: str = typer.Option("vheat-t", help="An alias, a timm name or package.module:name."),
    data: Path | None = typer.Option(
        None, help="Class folders of images, or a folder saved by Hugging Face datasets. Needed."
    ),
    weights: Path | None = typer.Option(None, help="Checkpoint; without one the model's own: random, or shipped."),
    resolution: str | None = typer.Option(None, help="By commas: 224,288 or 480x640; default the model's own."),
    batch: int = typer.Option(64, min=1, help="Images at once, per process."),
    dtype: str = typer.Option("float32", help="float32, tf32, bfloat16 or float16; the last two by autocast."),
    device: str = DEVICE,
    workers: int | None = typer.Option(
        None, min=0, help="Processes that read images.  [default: 0 on a CPU, up to 8 beside a GPU]"
    ),
    use: str = typer.Option("model", help="Which set of weights, where the file has both: model, model_ema."),
    rule: str = typer.Option("bicubic", help="How vHeat's frequency embeddings are resized: bicubic, zeropad."),
    class_map: Path | None = typer.Option(
        None, help="JSON of class name to output of the head, or the head's class names, one a line."
    ),
    num_classes: int | None = typer.Option(None, min=2, help="Classes of the head, if not the model's own."),
    crop_pct: float | None = typer.Option(
        None, min=0.01, max=1.0, help="Share of the shorter side that is seen; default the model's own."
    ),
    split: str | None = typer.Option(None, help="Of a saved data set that has several."),
    limit: int | None = typer.Option(None, min=1, help="Only so many images, evenly spread over the sorted list."),
    skip_broken: bool = typer.Option(False, "--skip-broken", help="Leave images that cannot be read out, and say so."),
    trust_pickle: bool = typer.Option(
        False, "--trust-pickle", help="Run the code that the checkpoint may contain: official files need it."
    ),
    save_every: int = typer.Option(20, min=1, help="Batches after which what is done is on disk."),
    timeout: float = typer.Option(A_WEEK_S, help="Seconds that one resolution may take."),
    memory_limit: float | None = MEMORY_LIMIT,
    devices: str | None = DEVICES,
    shard_: str | None = SHARD,
    resume: str | None = RESUME,
    worst: int = typer.Option(10, min=0, max=10, help="Classes to print, the worst first."),
    results: Path = results_option("Folder for the run's file and its answers."),
    json_: bool = JSON,
    quiet: bool = QUIET,
    slurm: Annotated[str | None, SLURM] = None,
) -> None:
    """Top-1 and top-5 accuracy with intervals, loss and images/s of a model on labelled images, by resolution.

    Several GPUs: torchrun --nproc-per-node 8 -m vheatbench eval ...; every image is counted once.
    """
    if resume is not None:
        refuse_beside_resume(context, BESIDE_RESUME)
        submit_processes(slurm, results)
        now = {"skip_broken": skip_broken, "workers": workers, "trust_pickle": trust_pickle}
        if by_torchrun():
            finished = _by_torchrun({}, now, resume, device, results, quiet)
        else:
            finished = go_on(resume, results, device, devices, quiet, "eval", **now)
    else:
        settings = _settings(
            model=model,
            data=data,
            weights=weights,
            resolution=resolution,
            batch=batch,
            dtype=dtype,
            device=device,
            use=use,
            rule=rule,
            class_map=None if class_map is None else str(class_map),
            num_classes=num_classes,
            crop_pct=crop_pct,
            split=split,
            limit=limit,
            trust_pickle=trust_pickle,
            save_every=save_every,
            skip_broken=skip_broken,
            workers=workers,
        )
        submit_processes(slurm, results)
        if by_torchrun():
            finished = _by_torchrun(settings, {}, None, device, results, quiet)
        else:
            how = How(results, device, devices, timeout, memory_limit, shard_, quiet)
            finished = measure_study("accuracy", settings, "eval", DESCRIPTION, how)
    if finished is not None:
        _print(finished, json_, worst)


def _settings(*, data: Path | None, weights: Path | None, resolution: str | None, **others: Any) -> dict[str, Any]:
    from vheatbench.case import DType

    if data is None:
        raise UserError("--data is missing: give a folder of class folders with images, such as imagenet/val")
    check_choice("--dtype", others["dtype"], get_args(DType))
    check_choice("--use", others["use"], ("model", "model_ema"))
    check_choice("--rule", others["rule"], ("bicubic", "zeropad"))
    if device_kind(others.pop("device"))[1] is not None:
        raise UserError("--device: choose GPUs by --devices or CUDA_VISIBLE_DEVICES")
    return {
        "data": str(data),
        "weights": None if weights is None else str(weights),
        "resolutions": resolutions_of(resolution),
        **others,
    }


def _by_torchrun(
    asked: dict[str, Any], changes: dict[str, Any], resume: str | None, device: str, results: Path, quiet: bool
) -> Path | None:
    """Evaluate in the processes that ``torchrun`` started; the finished file in the first of them.

    Args:
        asked: settings, of a new evaluation.
        changes: of settings, of one that is resumed.
        resume: its name.
    """
    with user_errors_on_rank0():
        from vheatbench.store.read import read_run
        from vheatbench.studies.accuracy.run import settings_from

        path = None
        if resume is not None:
            path = unfinished(resume, results, "eval")
            begun = read_run(path).header.studies[0].settings
            if device_kind(device)[0] not in ("auto", begun["device"]):
                raise UserError(f"{path} was begun on {begun['device']}: leave --device out")
            asked, device = {**begun, **changes}, begun["device"]
        settings = settings_from({**asked, "device": device})
    with working(settings.device) as group:
        finished = _in_group(settings, path, results, group, quiet)
        return finished if group.is_main else None


def _in_group(settings: EvalSettings, path: Path | None, results: Path, group: Group, quiet: bool) -> Path:
    from vheatbench.present.progress import display
    from vheatbench.run.distributed import PeerError
    from vheatbench.store.write import RunWriter
    from vheatbench.studies.accuracy.evaluate import begin, evaluate, reopen
    from vheatbench.studies.accuracy.plan import make_plan
    from vheatbench.studies.accuracy.table import EvalDisplay

    plan = group.together(lambda: make_plan(settings))
    opened: list[Path] = []

    def open_run() -> RunWriter:
        writer = begin(plan, results, command_line(), DESCRIPTION, A_WEEK_S) if path is None else reopen(plan, path)
        opened.append(writer.path)
        return writer

    try:
        with stoppable(lambda: _kept(opened, settings)), display(quiet or not group.is_main) as shown:
            return evaluate(plan, open_run, group, EvalDisplay(plan.cases, len(plan.images), shown))
    except (UserError, PeerError):
        if opened:
            print(f"stopped: {_kept(opened, settings)}", file=sys.stderr)
        raise


def _kept(opened: list[Path], settings: EvalSettings) -> str:
    """Of an evaluation that was stopped, and how it goes on."""
    if not opened:
        return "nothing was answered yet"
    trust = " --trust-pickle" if settings.trust_pickle else ""
    command = f"vheatbench eval --resume {shlex.quote(str(opened[0]))}{trust}"
    return f"what was done is kept; continue with: {command}"


def _print(path: Path, json_: bool, worst: int) -> None:
    from vheatbench.store.read import read_run

    run = read_run(path)
    if json_:
        print_records(run)
    else:
        from vheatbench.studies.accuracy.table import print_accuracies

        print_accuracies(run, worst)
    print(path, file=sys.stderr)
    say_skipped(run.records)
    raise typer.Exit(exit_code(run.records))
