"""The list of commands: what it shows without importing them, and that it is theirs."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from support.command import Called, commands
from vheatbench.cli.commands import COMMANDS, LazyCommand


def test_the_list_shows_what_each_command_says_of_itself() -> None:
    assert {name: command.help.split("\n\n")[0] for name, command in commands().items()} == COMMANDS


def test_listing_imports_no_command(call: Callable[..., Called], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LazyCommand, "load", lambda command: pytest.fail(f"{command.name} was imported"))
    code, out, _ = call("--help")
    assert code == 0
    assert all(name in out for name in COMMANDS)


@pytest.mark.parametrize(
    ("words", "meant"), [(["shwo"], "show"), (["heat", "kernle"], "kernel"), (["run", "--siute"], "--suite")]
)
def test_what_is_misspelt_is_a_usage_error_with_a_hint(
    call: Callable[..., Called], words: list[str], meant: str
) -> None:
    code, out, err = call(*words)
    assert (code, out) == (2, "")
    assert meant in err


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("s", ["show", "suites", "slurm", "segment"]),
        ("heat ", ["diffuse", "diffusivity", "kernel"]),
        ("heat kernel --k", ["--kt"]),
        ("run --dry", ["--dry-run"]),
    ],
)
def test_shell_completion(
    call: Callable[..., Called], monkeypatch: pytest.MonkeyPatch, typed: str, expected: list[str]
) -> None:
    words = f"vheatbench {typed}"
    asked = {"_VHEATBENCH_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    for name, value in asked.items():
        monkeypatch.setenv(name, value)
    code, out, _ = call()
    assert (code, out.split()) == (0, expected)
