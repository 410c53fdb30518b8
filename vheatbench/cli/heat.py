"""``vheatbench heat``: temperature fields, diffusivity and point response of the heat operator."""

from __future__ import annotations

import contextlib
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from vheatbench.cli import exits
from vheatbench.cli.folders import REPORTS, check_writable
from vheatbench.cli.output import command_line
from vheatbench.cli.parse import comma_list
from vheatbench.errors import UserError
from vheatbench.stop import stoppable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vheatbench.store.read import Run
    from vheatbench.store.schema import Record
    from vheatbench.studies.heat.model import HeatModel
    from vheatbench.studies.heat.run import Piece

app = typer.Typer(
    help="Show heat conduction itself: fields, diffusivity, and the operator against theory.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

RULES = ("bicubic", "zeropad")
MOST_CELLS = 2048**2
"""Of a grid for ``heat kernel``: three float64 fields of it stay under 100 MiB."""
LARGEST = 1e9
"""Of k and k t in cells squared: past it every grid is uniform, and products would end in infinity."""

MODEL = typer.Option("vheat-t", help="A vHeat: an alias, a timm name or package.module:name.")
WEIGHTS = typer.Option(None, help="Checkpoint; without one, random weights (they hardly conduct).")
TRUST = typer.Option(
    False, "--trust-pickle", help="Run code that the checkpoint may contain: the official ones need it."
)
OUT = typer.Option(None, help="Folder for figures and animations.  [default: reports/heat-...]")
RESULTS = typer.Option(Path("results"), help="Folder for the run's file.")
JSON = typer.Option(False, "--json", help="Print the records as JSON on stdout.")


@app.command("diffuse")
def diffuse(
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
    json_: bool = JSON,
) -> None:
    """The exact temperature field of heat that starts in one cell, by the model's own k and by a constant one."""
    ks = [_k(word) for word in comma_list(k) or []]
    _check_rules([rule])
    with _to_stderr():
        from vheatbench.studies.heat.diffusion import parse_source, parse_times
        from vheatbench.studies.heat.run import CAT, diffusion_pieces, png_of

        when, where = parse_times(times), parse_source(source)
        picture = image if image is not None else CAT
        size = _own_size(model) if resolution is None else _resolution(resolution)
        png = png_of(picture, size)
        found = _load(model, size, rule, weights, trust_pickle)
        pieces = diffusion_pieces(found, layer, channel, ks, where, when, png, picture.name)
    _finish("heat-diffuse", pieces, results, out, json_)


@app.command("diffusivity")
def diffusivity(
    model: str = MODEL,
    resolution: str | None = typer.Option(None, help="Sizes such as 224,512 or 480x640, by commas; default its own."),
    rule: str = typer.Option("bicubic", help="How frequencies are resized where they must be: bicubic,zeropad."),
    weights: Path | None = WEIGHTS,
    trust_pickle: bool = TRUST,
    out: Path | None = OUT,
    results: Path = RESULTS,
    json_: bool = JSON,
) -> None:
    """k of every block: its distribution over channels and frequencies, its reach, how fast frequencies fade."""
    rules = comma_list(rule) or []
    _check_rules(rules)
    words = comma_list(resolution)
    sizes = [_resolution(word) for word in words] if words is not None else [_own_size(model)]
    with _to_stderr():
        from vheatbench.studies.heat.run import diffusivity_pieces

        pieces = []
        for size in sizes:
            for name in rules:
                pieces += diffusivity_pieces(_load(model, size, name, weights, trust_pickle))
    _finish("heat-diffusivity", pieces, results, out, json_)


@app.command("kernel")
def kernel(
    grid: str = typer.Option("56", help="Cells: 56, or 28x56 (height x width)."),
    kt: str = typer.Option("0.1,0.5,1,5", help="k times t in cells squared, by commas."),
    source: str = typer.Option("0.5,0.5", help="Where the heat begins: share of height, share of width."),
    out: Path | None = OUT,
    results: Path = RESULTS,
    json_: bool = JSON,
) -> None:
    """The operator's response to heat in one cell, beside the exact heat kernel and finite differences."""
    size = _resolution(grid, "--grid")
    if size[0] * size[1] > MOST_CELLS:
        raise UserError(f"--grid {grid}: at most {MOST_CELLS} cells (2048x2048)")
    kts = [_number(word, "--kt") for word in comma_list(kt) or []]
    if min(kts) <= 0:
        raise UserError(f"--kt {kt}: every k t must be positive")
    with _to_stderr():
        from vheatbench.studies.heat.diffusion import parse_source, source_cell
        from vheatbench.studies.heat.run import kernel_pieces

        pieces = kernel_pieces(size, source_cell(parse_source(source), size), kts)
    _finish("heat-kernel", pieces, results, out, json_)


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


def _resolution(text: str, option: str = "--resolution") -> tuple[int, int]:
    from vheatbench.suites import parse_resolution

    try:
        return parse_resolution(text)
    except ValueError as error:
        raise UserError(f"{option}: {error}") from None


def _check_rules(rules: Sequence[str]) -> None:
    for name in rules:
        if name not in RULES:
            raise UserError(f"--rule {name!r} is none of {', '.join(RULES)}")


@contextlib.contextmanager
def _to_stderr() -> Iterator[None]:
    """Models and libraries print what they like; stdout is for the data."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def _own_size(model: str) -> tuple[int, int]:
    with _to_stderr():
        from vheatbench.studies.heat.model import own_size

        return own_size(model)


def _load(model: str, size: tuple[int, int], rule: str, weights: Path | None, trust_pickle: bool) -> HeatModel:
    from vheatbench.run.device import classify
    from vheatbench.studies.heat.model import load_heat_model

    try:
        return load_heat_model(model, size, rule, weights, trust_pickle)  # type: ignore[arg-type]
    except UserError:
        raise
    except Exception as error:  # whatever a model raises is said in one line
        print(f"vheatbench: {model} at {size[0]}x{size[1]}: {classify(error)[1]}", file=sys.stderr)
        raise typer.Exit(exits.FAILED) from None


def _finish(suite: str, pieces: Sequence[Piece], results: Path, out: Path | None, json_: bool) -> None:
    """Find the numbers, write the run, print it, draw it; say by the exit code whether all went well."""
    from vheatbench.cli.output import print_json
    from vheatbench.cli.run import exit_code, say_skipped
    from vheatbench.store.read import read_run
    from vheatbench.studies.heat.table import print_heat

    check_writable(out if out is not None else REPORTS, "--out")
    run = read_run(_carry_out(suite, pieces, results))
    if not json_:
        print_heat(run)
    print(f"the run is in {run.path}", file=sys.stderr)
    folder = out if out is not None else REPORTS / f"{suite}-{run.header.run_id}"
    figures = _draw(run, folder)
    if json_:
        records = [record.model_dump(mode="json") for record in run.records]
        print_json({"path": str(run.path), "records": records, "figures": [str(path) for path in figures]})
    say_skipped(run.records)
    code = exit_code(run.records)
    if code != exits.OK:
        raise typer.Exit(code)


def _carry_out(suite: str, pieces: Sequence[Piece], results: Path) -> Path:
    from rich.console import Console
    from rich.progress import Progress

    from vheatbench.studies.heat.run import carry_out

    progress = Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
    task = progress.add_task("conducting", total=len(pieces))

    def advance(_: Record) -> None:
        progress.advance(task)

    with (
        stoppable(lambda: f"what was found is in {results}; all of it anew: {command_line()}"),
        progress,
        _to_stderr(),
    ):
        return carry_out(suite, pieces, results, command_line(), advance)


def _draw(run: Run, folder: Path) -> list[Path]:
    from vheatbench.studies.heat.figures import save_heat_figures

    with _to_stderr():
        figures = save_heat_figures(run, folder)
    print(f"figures are in {folder} ({len(figures)} files)", file=sys.stderr)
    return figures
