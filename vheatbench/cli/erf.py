"""``vheatbench erf``: effective receptive fields, numbers and figures."""

from __future__ import annotations

import contextlib
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import typer

from vheatbench.cli import exits
from vheatbench.cli.folders import REPORTS, check_writable
from vheatbench.cli.output import command_line
from vheatbench.cli.parse import comma_list, device_kind
from vheatbench.errors import StoreError, UserError
from vheatbench.stop import end, stoppable

if TYPE_CHECKING:
    from vheatbench.store.read import Run
    from vheatbench.studies.erf.plan import ErfSettings
    from vheatbench.studies.erf.run import ErfProgress


def erf(
    model: str = typer.Option("vheat-t", help="An alias, a timm name or package.module:name."),
    compare: str | None = typer.Option(None, help="Further models, by commas: the same images for all."),
    weights: list[str] = typer.Option(
        [], help="FILE (for --model), MODEL=FILE, or 'random'. May be given several times; default random."
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
    device: str = typer.Option("auto", help="auto, cpu or cuda."),
    target: float = typer.Option(0.05, min=0, help="Relative standard error at which there are enough images."),
    max_images: int = typer.Option(50, min=1, max=100_000, help="Images at most."),
    batch: int = typer.Option(5, min=1, help="Images at once; at least two such batches are taken."),
    seed: int = typer.Option(0, min=0, help="Of views, noise and the choice from a folder."),
    trust_pickle: bool = typer.Option(False, "--trust-pickle", help="Run the code that a checkpoint may contain."),
    out: Path | None = typer.Option(None, help="Folder for figures; default reports/erf-RUN."),
    results: Path = typer.Option(Path("results"), help="Folder for the run's file and its maps."),
    json_: bool = typer.Option(False, "--json", help="Print the records as JSON on stdout."),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="No progress."),
) -> None:
    """Where a layer's centre looks: effective receptive fields of one or several models, with intervals."""
    _prepare_libraries()
    # models and libraries print what they like; stdout is for the table
    with contextlib.redirect_stdout(sys.stderr):
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
        path, interrupted = _measure(settings, results, out if out is not None else REPORTS, quiet)
        from vheatbench.store.read import read_run

        run = read_run(path)
        figures, full = ([], False) if interrupted else _figures(run, out)
    if json_:
        from vheatbench.cli.output import print_json

        records = [record.model_dump(mode="json") for record in run.records]
        print_json({"path": str(path), "figures": [str(figure) for figure in figures], "records": records})
    else:
        from vheatbench.studies.erf.table import print_fields

        print_fields(run)
    _say_files(path, figures)
    if interrupted:
        end(f"what was measured is kept; all of it anew: {command_line()}")
    from vheatbench.cli.run import exit_code, say_skipped

    say_skipped(run.records)
    raise typer.Exit(exit_code(run.records) or (exits.FAILED if full else exits.OK))


def _prepare_libraries() -> None:
    """What must be in the environment before torch is imported."""
    import os

    from vheatbench.run.process import calm_threads

    os.environ.update(calm_threads())


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
) -> ErfSettings:
    from vheatbench.case import DType, kind_of
    from vheatbench.suites import parse_resolution

    for option, value, allowed in (("dtype", dtype, get_args(DType)), ("protocol", protocol, ("centre", "replknet"))):
        if value not in allowed:
            raise UserError(f"--{option} {value!r} is not allowed; allowed: {', '.join(allowed)}")
    for name in models:
        if kind_of(name) != "model":
            raise UserError(f"{name!r} is no model: 'vheatbench models' lists those that there are")
    try:
        sizes = tuple(dict.fromkeys(parse_resolution(text) for text in comma_list(resolution) or []))
    except ValueError as error:
        raise UserError(f"--resolution: {error}") from None
    kind, index = device_kind(device)
    if index is not None:
        raise UserError(f"--device {device}: the first visible GPU is used; choose it by CUDA_VISIBLE_DEVICES")
    if kind != "cpu":
        import torch

        there = torch.cuda.is_available()
        if kind == "cuda" and not there:
            raise UserError("CUDA was asked for, but torch sees no CUDA device")
        kind = "cuda" if there else "cpu"
    if dtype == "tf32" and kind == "cpu":
        raise UserError("tf32 is a mode of NVIDIA GPUs: use float32 or bfloat16 on a CPU")
    from vheatbench.studies.erf.plan import ErfSettings

    return ErfSettings(
        models=tuple(models),
        resolutions=sizes,
        layers=tuple(layers),
        weights=tuple(weights),
        trust_pickle=trust_pickle,
        conduction=tuple(conduction),
        images=images,
        protocol=protocol,  # type: ignore[arg-type]
        dtype=dtype,  # type: ignore[arg-type]
        device=kind,  # type: ignore[arg-type]
        **numbers,
    )


def _measure(settings: ErfSettings, results: Path, figures: Path, quiet: bool) -> tuple[Path, bool]:
    from vheatbench.present.terminal import print_warnings
    from vheatbench.studies.erf.plan import make_plan
    from vheatbench.studies.erf.progress import make_progress
    from vheatbench.studies.erf.run import measure_plan
    from vheatbench.studies.images.photographs import open_images

    images = open_images(settings.images, settings.max_images, settings.seed)
    plan = make_plan(settings, images)
    check_writable(figures, "--out")
    print_warnings(plan.notes)
    progress: ErfProgress
    with (
        stoppable(lambda: "nothing was measured yet"),
        make_progress(len(plan.jobs), settings.target, quiet) as progress,
    ):
        return measure_plan(plan, settings, images, results, command_line(), progress)


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
        print(f"! --out {folder}: no figures: {error}; the numbers are kept", file=sys.stderr)
        return [], isinstance(error, StoreError)


def _say_files(path: Path, figures: list[Path]) -> None:
    print(path, file=sys.stderr)
    for figure in figures:
        print(figure, file=sys.stderr)
    print(f"report: vheatbench report {shlex.quote(str(path))}", file=sys.stderr)
