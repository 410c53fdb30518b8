"""The command line in the process of the test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer
from typer.testing import CliRunner

from support import stub_worker
from support.runner import a_case, a_run
from vheatbench.cli import app
from vheatbench.errors import UserError

Called = tuple[int, str, str]


def commands() -> dict[str, Any]:
    """Every command by name, with its options and its own commands."""
    listed: Any = typer.main.get_command(app)
    return {name: command.load() for name, command in listed.commands.items()}


def finished(folder: Path, *subjects: str) -> Path:
    """A finished run of stub records in ``folder``."""
    plan = [a_case(subject) for subject in subjects or ("one", "two")]
    with a_run(folder, plan) as writer:
        for case in plan:
            writer.append(stub_worker.answer_record(case, 0))
        return writer.finish()


def assert_refused(called: Called, words: str) -> None:
    """One line that says so, and exit code 2."""
    code, out, err = called
    assert code == 2, err
    assert out == ""
    assert err.startswith("vheatbench: "), err
    assert err.count("\n") == 1, err
    assert err.endswith("\n")
    assert words in err


def compare(*arguments):
    """Exit code, stdout and stderr."""
    result = CliRunner().invoke(app, ["compare", *map(str, arguments)])
    if isinstance(result.exception, UserError):  # main() makes a line of it
        return 2, result.stdout, f"{result.stderr}vheatbench: {result.exception}"
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr
