"""What README and docs tell people to type works."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from vheatbench.cli import app
from vheatbench.suite_file import load_suite

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(language: str) -> list[str]:
    return [code for page in PAGES for code in re.findall(rf"```{language}\n(.*?)```", page.read_text("utf-8"), re.S)]


@pytest.mark.parametrize("code", blocks("python"), ids=lambda code: code.splitlines()[0])
def test_python_examples_run(code):
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr


def commands() -> list[str]:
    lines = [line for code in blocks("console") for line in code.splitlines() if line.startswith("$ vheatbench")]
    return [part.strip() for line in lines for part in line[2:].split("#")[0].split("&&")]


@pytest.mark.parametrize("command", commands())
def test_commands_and_options_exist(command):
    words = shlex.split(command)[1:]
    known = typer.main.get_command(app).commands
    assert words[0] in known
    command = known[words[0]]
    command = command.commands[words[1]] if hasattr(command, "commands") else command
    options = {name for parameter in command.params for name in parameter.opts}
    used = [word.split("=")[0] for word in words if word.startswith("--")]
    assert set(used) <= options


@pytest.mark.parametrize("text", blocks("yaml"), ids=lambda text: text.splitlines()[0])
def test_suites_in_the_docs_are_valid(text, tmp_path):
    path = tmp_path / "example.yaml"
    path.write_text(text, encoding="utf-8")
    for device in ("cpu", "cuda"):
        assert load_suite(str(path), device).size > 0


def test_links_lead_to_files():
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
