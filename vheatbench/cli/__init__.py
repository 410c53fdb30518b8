"""The command line. One file per command: parse, call, print. Nothing heavy is imported here."""

from __future__ import annotations

import sys
from typing import Any

import typer
from typer.core import TyperGroup

from vheatbench import __version__
from vheatbench.cli import (
    ab,
    compare,
    convert,
    detect,
    env,
    erf,
    export,
    heat,
    merge,
    models,
    profile,
    report,
    run,
    segment,
    show,
    suites,
    track,
    train,
)
from vheatbench.cli import eval as evaluation
from vheatbench.cli.exits import FAILED, code_of
from vheatbench.cli.output import forget_stdout, prepare_streams
from vheatbench.errors import StoreError, UserError, WorkerError
from vheatbench.stop import heeded


class _Commands(TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        """Every command can be stopped: what nobody in it has answered is answered here."""
        with heeded():
            return super().invoke(ctx)


app = typer.Typer(
    name="vheatbench",
    cls=_Commands,
    help="What does vHeat's heat conduction, O(N^1.5), cost against attention on this hardware?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run")(run.run)
app.command("ab")(ab.ab)
app.command("profile")(profile.profile)
app.command("compare")(compare.compare)
app.command("report")(report.report)
app.command("show")(show.show)
app.command("suites")(suites.suites)
app.command("models")(models.models)
app.command("env")(env.env)
app.command("merge")(merge.merge)
app.command("erf")(erf.erf)
app.add_typer(heat.app, name="heat")
app.add_typer(detect.app, name="detect")
app.add_typer(segment.app, name="segment")
app.add_typer(track.app, name="track")
app.command("export")(export.export)
app.command("eval")(evaluation.evaluate)
app.command("convert")(convert.convert)
app.command("train")(train.train)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"vheatbench {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", help="Print the version and exit.", callback=_print_version, is_eager=True
    ),
) -> None:
    pass


def main() -> None:
    """Entry point: what goes wrong is one line and an exit code, never a traceback."""
    prepare_streams()
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except (UserError, StoreError, WorkerError) as error:
        print(f"vheatbench: {error}", file=sys.stderr)
        raise SystemExit(code_of(error)) from None
    except OSError as error:  # stdout on a full disk, no folder for temporary files, no more processes
        forget_stdout()
        print(f"vheatbench: {error}", file=sys.stderr)
        raise SystemExit(FAILED) from None
