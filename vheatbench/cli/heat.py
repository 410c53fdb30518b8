"""``vheatbench heat``: temperature fields, diffusivity and point response of the heat operator."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from vheatbench.cli import exits
from vheatbench.cli.execute import MEMORY_LIMIT, SHARD, TIMEOUT, How, exit_code, measure_study, say_skipped
from vheatbench.cli.folders import REPORTS, check_writable
from vheatbench.cli.options import DEVICE, JSON, QUIET, figures_option, results_option
from vheatbench.cli.output import print_records
from vheatbench.cli.parse import check_choice, comma_list, resolution_of, resolutions_of
from vheatbench.cli.resume import RESUME, refuse_beside_resume
from vheatbench.cli.resume import resume as go_on
from vheatbench.errors import UserError
from vheatbench.stop import stoppable

if TYPE_CHECKING:
    from vheatbench.store.read import Run

app = typer.Typer(
    help="Show heat conduction itself: fields, diffusivity, and the operator against theory.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

RULES = ("bicubic", "zeropad")
LARGEST = 1e9
"""Of k and k t in cells squared (see ``studies.heat.run``)."""

MODEL = typer.Option("vheat-t", help="A vHeat: an alias, a timm name or package.module:name.")
WEIGHTS = typer.Option(None, help="Checkpoint; without one, random weights (they hardly conduct).")
TRUST = typer.Option(
    False, "--trust-pickle", help="Run code that the checkpoint may contain: the official ones need it."
)
OUT = figures_option("reports/heat-...")
RESULTS = results_option("Folder for the run's file.")


@app.command("diffuse")
def diffuse(
    context: typer.Context,
    model: str = MODEL,
    layer: str = typer.Option(
        "stages.0.blocks.0", help="Blocks, stages (1: all blocks of stages.1) by commas, or all."
    ),
    channel: str = typer.Option("median", help="Whose k: median, a quantile of mean k such as q0.9, or a number."),
    k: str = typer.Option("learned,5", help="learned and constants in cells squared, by commas."),
    source: str = typer.Option("0.5,0.5", help="Where the heat begins: share of height, share of width."),
    times: str = typer.Option(
        "0.3:200:8",
        help="When to look: FROM:TO:COUNT or values by commas, as mean k t in cells squared; "
        "with x (1x or 1x:100x:8) as times the operator is applied.",
    ),
    image: Path | None = typer.Option(
        None, help="Picture to lay the field over; it changes no number.  [default: a photograph of a cat]"
    ),
    resolution: str | None = typer.Option(None, help="For example 512 or 480x640 (height x width); default its own."),
    rule: str = typer.Option("bicubic", help="How frequencies are resized where they must be: bicubic, zeropad."),
    weights: Path | None = WEIGHTS,
    trust_pickle: bool = TRUST,
    out: Path | None = OUT,
    results: Path = RESULTS,
    timeout: float = TIMEOUT,
    memory_limit: float | None = MEMORY_LIMIT,
    shard_: str | None = SHARD,
    device: str = DEVICE,
    resume: str | None = RESUME,
    json_: bool = JSON,
    quiet: bool = QUIET,
) -> None:
    """The exact temperature field of heat that starts in one cell, by the model's own k and by a constant one."""
    check_choice("--rule", rule, RULES)
    settings = {
        "model": model,
        "layers": layer,
        "channel": channel,
        "k": [_k(word) for word in comma_list(k) or []],
        "source": source,
        "times": times,
        "image": None if image is None else str(image),
        "resolutions": [] if resolution is None else [resolution_of(resolution)],
        "rules": [rule],
        "weights": None if weights is None else str(weights),
        "trust_pickle": trust_pickle,
    }
    check_cpu(device)
    how = How(results, timeout=timeout, memory_limit=memory_limit, shard=shard_, quiet=quiet)
    _carry_out(context, "diffuse", settings, how, resume, out, json_)


@app.command("diffusivity")
def diffusivity(
    context: typer.Context,
    model: str = MODEL,
    resolution: str | None = typer.Option(None, help="Sizes such as 224,512 or 480x640, by commas; default its own."),
    rule: str = typer.Option("bicubic", help="How frequencies are resized where they must be: bicubic,zeropad."),
    weights: Path | None = WEIGHTS,
    trust_pickle: bool = TRUST,
    out: Path | None = OUT,
    results: Path = RESULTS,
    timeout: float = TIMEOUT,
    memory_limit: float | None = MEMORY_LIMIT,
    shard_: str | None = SHARD,
    device: str = DEVICE,
    resume: str | None = RESUME,
    json_: bool = JSON,
    quiet: bool = QUIET,
) -> None:
    """k of every block: its distribution over channels and frequencies, its reach, how fast frequencies fade."""
    rules = comma_list(rule) or []
    for name in rules:
        check_choice("--rule", name, RULES)
    settings = {
        "model": model,
        "resolutions": resolutions_of(resolution),
        "rules": rules,
        "weights": None if weights is None else str(weights),
        "trust_pickle": trust_pickle,
    }
    check_cpu(device)
    how = How(results, timeout=timeout, memory_limit=memory_limit, shard=shard_, quiet=quiet)
    _carry_out(context, "diffusivity", settings, how, resume, out, json_)


@app.command("kernel")
def kernel(
    context: typer.Context,
    grid: str = typer.Option("56", help="Cells: 56, or 28x56 (height x width)."),
    kt: str = typer.Option("0.1,0.5,1,5", help="k times t in cells squared, by commas."),
    source: str = typer.Option("0.5,0.5", help="Where the heat begins: share of height, share of width."),
    out: Path | None = OUT,
    results: Path = RESULTS,
    timeout: float = TIMEOUT,
    memory_limit: float | None = MEMORY_LIMIT,
    shard_: str | None = SHARD,
    device: str = DEVICE,
    resume: str | None = RESUME,
    json_: bool = JSON,
    quiet: bool = QUIET,
) -> None:
    """The operator's response to heat in one cell, beside the exact heat kernel and finite differences."""
    settings = {
        "grid": resolution_of(grid, "--grid"),
        "kt": [_number(word, "--kt") for word in comma_list(kt) or []],
        "source": source,
    }
    check_cpu(device)
    how = How(results, timeout=timeout, memory_limit=memory_limit, shard=shard_, quiet=quiet)
    _carry_out(context, "kernel", settings, how, resume, out, json_)


def check_cpu(device: str) -> None:
    """Raises UserError for a GPU: all of it is computed in float64 on the CPU."""
    if device not in ("auto", "cpu"):
        raise UserError(f"--device {device}: heat is computed exactly, in float64 on the CPU: leave it at auto or cpu")


def _k(word: str) -> str:
    """``learned``, or a constant written in one way."""
    return word if word == "learned" else f"{_number(word, '--k', 'learned or '):g}"


def _number(word: str, option: str, other: str = "") -> float:
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not 0 <= value <= LARGEST:  # also of what is no number
        raise UserError(f"{option} {word!r}: give {other}numbers from 0 to {LARGEST:g}, in cells squared")
    return value


DESCRIPTIONS = {
    "diffuse": "Exact temperature fields of heat that starts in one cell",
    "diffusivity": "Diffusivity k of every heat operator of a model",
    "kernel": "Point response of the heat operator beside the heat kernel and finite differences",
}


def _carry_out(
    context: typer.Context,
    kind: str,
    settings: dict[str, Any],
    how: How,
    resume: str | None,
    out: Path | None,
    json_: bool,
) -> None:
    """Find the numbers, write the run, print it, draw it; say by the exit code whether all went well."""
    from vheatbench.store.read import read_run

    suite = f"heat-{kind}"

    def check() -> None:
        check_writable(out if out is not None else REPORTS, "--figures")

    if resume is not None:
        refuse_beside_resume(context)
        check()
        trust = bool(settings.get("trust_pickle"))
        path = go_on(resume, how.results, "auto", None, how.quiet, suite, trust_pickle=trust)
    else:
        path = measure_study("heat", {"kind": kind, **settings}, suite, DESCRIPTIONS[kind], how, check)
    run = read_run(path)
    with stoppable(lambda: f"the run is finished: {path}"):
        _show(run, out if out is not None else REPORTS / f"{suite}-{run.header.run_id}", json_)
    say_skipped(run.records)
    code = exit_code(run.records)
    if code != exits.OK:
        raise typer.Exit(code)


def _show(run: Run, folder: Path, json_: bool) -> None:
    from vheatbench.studies.heat.figures import save_heat_figures
    from vheatbench.studies.heat.table import print_heat

    if not json_:
        print_heat(run)
    print(f"the run is in {run.path}", file=sys.stderr)
    figures = save_heat_figures(run, folder)
    print(f"figures are in {folder} ({len(figures)} files)", file=sys.stderr)
    if json_:
        print_records(run, figures=[str(path) for path in figures])
