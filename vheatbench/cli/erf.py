"""``vheatbench erf``: effective receptive fields, numbers and figures."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import typer

from vheatbench.cli import exits
from vheatbench.cli.execute import DEVICES, MEMORY_LIMIT, SHARD, TIMEOUT, How, exit_code, measure_study, say_skipped
from vheatbench.cli.folders import REPORTS, check_writable
from vheatbench.cli.options import DEVICE, JSON, QUIET, figures_option, results_option
from vheatbench.cli.output import print_records
from vheatbench.cli.parse import check_choice, comma_list, device_kind, resolutions_of
from vheatbench.cli.resume import RESUME, refuse_beside_resume
from vheatbench.cli.resume import resume as go_on
from vheatbench.errors import StoreError, UserError
from vheatbench.stop import stoppable

if TYPE_CHECKING:
    from vheatbench.store.read import Run


def erf(
    context: typer.Context,
    model: str = typer.Option("vheat-t", help="An alias, a timm name or package.module:name."),
    compare: str | None = typer.Option(None, help="Further models, by commas: the same images for all."),
    weights: list[str] = typer.Option(
        [], help="FILE (for --model), MODEL=FILE, or 'random'; repeatable; default the model's own: random, or shipped."
    ),
    images: str | None = typer.Option(
        None, help="A folder or file; 'noise' (white), 'noise:1/f'; default: 10 photographs shipped here."
    ),
    resolution: str = typer.Option("224", help="By commas: 224,512 or 480x640 (height x width)."),
    layer: str = typer.Option("last", help="By commas: last, all, an index, a module such as stages.2.blocks.3."),
    protocol: str = typer.Option("centre", help="centre, or replknet for exactly RepLKNet's rule."),
    conduction: str | None = typer.Option(
        None, help="Of vHeat, by commas: learned, none (k = 0), a constant k such as 5; default learned."
    ),
    dtype: str = typer.Option("float32", help="float32, tf32, bfloat16 or float16; the last two by autocast."),
    device: str = DEVICE,
    target: float = typer.Option(0.05, min=0, help="Relative standard error at which there are enough images."),
    max_images: int = typer.Option(50, min=1, max=100_000, help="Images at most."),
    batch: int = typer.Option(5, min=1, help="Images at once; at least two such batches are taken."),
    seed: int = typer.Option(0, min=0, help="Of views, noise and the choice from a folder."),
    trust_pickle: bool = typer.Option(False, "--trust-pickle", help="Run the code that a checkpoint may contain."),
    timeout: float = TIMEOUT,
    memory_limit: float | None = MEMORY_LIMIT,
    devices: str | None = DEVICES,
    shard_: str | None = SHARD,
    resume: str | None = RESUME,
    out: Path | None = figures_option("reports/erf-RUN"),
    results: Path = results_option("Folder for the run's file and its maps."),
    json_: bool = JSON,
    quiet: bool = QUIET,
) -> None:
    """Where a layer's centre looks: effective receptive fields of one or several models, with intervals."""
    figures = out if out is not None else REPORTS
    if resume is not None:
        refuse_beside_resume(context)
        check_writable(figures, "--figures")
        path = go_on(resume, results, device, devices, quiet, "erf", trust_pickle=trust_pickle)
    else:
        settings = _settings(
            models=list(dict.fromkeys([model, *(comma_list(compare) or [])])),
            weights=weights,
            images=images,
            resolution=resolution,
            layers=comma_list(layer) or [],
            protocol=protocol,
            conduction=comma_list(conduction) or ["learned"],
            dtype=dtype,
            device=device,
            numbers={"target": target, "max_images": max_images, "batch": batch, "seed": seed},
            trust_pickle=trust_pickle,
        )
        path = measure_study(
            "erf",
            settings,
            "erf",
            "Effective receptive fields: where in the image a layer's centre looks.",
            How(results, device, devices, timeout, memory_limit, shard_, quiet),
            lambda: check_writable(figures, "--figures"),
        )
    _show(path, out, json_)


def _show(path: Path, out: Path | None, json_: bool) -> None:
    """Draw and print the run, and say by the exit code whether all of it was measured."""
    from vheatbench.store.read import read_run

    run = read_run(path)
    with stoppable(lambda: f"the run is finished: {path}"):
        figures, full = _figures(run, out)
        if json_:
            print_records(run, figures=[str(figure) for figure in figures])
        else:
            from vheatbench.studies.erf.table import print_fields

            print_fields(run)
    _say_files(path, figures)
    say_skipped(run.records)
    raise typer.Exit(exit_code(run.records) or (exits.FAILED if full else exits.OK))


def _settings(
    *,
    models: list[str],
    resolution: str,
    layers: list[str],
    weights: list[str],
    conduction: list[str],
    images: str | None,
    protocol: str,
    dtype: str,
    device: str,
    numbers: dict[str, Any],
    trust_pickle: bool,
) -> dict[str, Any]:
    from vheatbench.case import DType, kind_of

    check_choice("--dtype", dtype, get_args(DType))
    check_choice("--protocol", protocol, ("centre", "replknet"))
    for name in models:
        if kind_of(name) != "model":
            raise UserError(f"{name!r} is no model: 'vheatbench models' lists those that there are")
    if device_kind(device)[1] is not None:
        raise UserError(f"--device {device}: choose a GPU by --devices or CUDA_VISIBLE_DEVICES")
    return {
        "models": models,
        "resolutions": resolutions_of(resolution),
        "layers": layers,
        "weights": weights,
        "trust_pickle": trust_pickle,
        "conduction": conduction,
        "images": images,
        "protocol": protocol,
        "dtype": dtype,
        **numbers,
    }


def _figures(run: Run, out: Path | None) -> tuple[list[Path], bool]:
    """The figures of what was measured, and whether the disk was full.

    They can be drawn again, so no failure here loses a number.
    """
    from vheatbench.present.terminal import print_warnings
    from vheatbench.studies.erf.figures import save_erf_figures
    from vheatbench.studies.erf.results import results_of

    found, problems = results_of(run)
    print_warnings(problems)
    if not found:
        return [], False
    folder = out if out is not None else REPORTS / f"erf-{run.header.run_id}"
    try:
        return save_erf_figures(found, folder), False
    except (UserError, StoreError) as error:
        print(f"! --figures {folder}: no figures: {error}; the numbers are kept", file=sys.stderr)
        return [], isinstance(error, StoreError)


def _say_files(path: Path, figures: list[Path]) -> None:
    print(path, file=sys.stderr)
    for figure in figures:
        print(figure, file=sys.stderr)
    print(f"report: vheatbench report {shlex.quote(str(path))}", file=sys.stderr)
