"""The command line. One file per command: parse, call, print. Nothing heavy is imported here."""

from __future__ import annotations

import sys

import typer

from vheatbench import __version__
from vheatbench.cli.commands import Commands
from vheatbench.cli.exits import FAILED, code_of
from vheatbench.cli.output import forget_stdout, prepare_streams
from vheatbench.errors import StoreError, UserError, WorkerError

app = typer.Typer(
    name="vheatbench",
    cls=Commands,
    help="What does vHeat's heat conduction, O(N^1.5), cost against attention on this hardware?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


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
