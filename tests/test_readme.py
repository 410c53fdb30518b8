"""What README and docs tell people to type works."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

import support.command
from support import forked
from vheatbench.studies import settings_of
from vheatbench.studies.accuracy.plan import EvalSettings
from vheatbench.studies.erf.plan import ErfSettings
from vheatbench.studies.heat.run import HeatSettings
from vheatbench.studies.profile.run import ProfileSettings
from vheatbench.suite_file import load_suite

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


class Block(NamedTuple):
    """A fenced block of a page."""

    page: Path
    language: str
    code: str


BLOCKS = [
    Block(page, language, code)
    for page in PAGES
    for language, code in re.findall(r"^```([^\n]*)\n(.*?)^```$", page.read_text("utf-8"), re.S | re.M)
]


def blocks(*languages: str) -> list[str]:
    return [block.code for block in BLOCKS if block.language in languages]


def test_every_fenced_block_is_of_a_language_that_is_checked_here():
    """A fence spelt otherwise would escape the tests below."""
    known = {"python", "console", "yaml", "yml", "text"}
    assert [(block.page.name, block.code) for block in BLOCKS if block.language not in known] == []
    for page in PAGES:
        fences = re.findall(r"^\s*(?:```|~~~)", page.read_text("utf-8"), re.M)
        assert len(fences) == 2 * sum(block.page == page for block in BLOCKS), page.name


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where somebody has measured a receptive field and heat, beside the runs of the repository."""
    path = tmp_path_factory.mktemp("examples")
    small = ("--model", "test_vheat", "--resolution", "32")
    for arguments in (
        ("erf", *small, "--max-images", "2", "--quiet"),
        ("heat", "diffuse", *small, "--source", "0.5,0.5"),
    ):
        command = [sys.executable, "-m", "vheatbench", *arguments, "--out", "figures"]
        done = forked.run(command, cwd=path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
    (path / "results" / "example").symlink_to(ROOT / "results" / "example")
    return path


@pytest.mark.parametrize("code", blocks("python"), ids=lambda code: code.splitlines()[0])
def test_python_examples_run(code, folder):
    result = forked.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr


def commands() -> list[str]:
    """What is typed at a prompt, and what workflows run."""
    typed = [line[2:] for code in blocks("console", "text") for line in _joined(code) if line.startswith("$ ")]
    ran = [line.partition("- run: ")[2] for code in blocks("yml") for line in _joined(code)]
    parts = [part.strip() for line in typed + ran for part in re.split("&&|>>?", line.split(" #")[0])]
    return [
        part.partition("vheatbench ")[2] for part in parts if re.match("vheatbench |torchrun .* -m vheatbench ", part)
    ]


def _joined(code: str) -> list[str]:
    return code.replace("\\\n", " ").splitlines()


@pytest.mark.parametrize("command", commands())
def test_commands_and_options_exist(command):
    words = shlex.split(command)
    known = support.command.commands()
    assert words[0] in known
    command = known[words[0]]
    command = command.commands[words[1]] if hasattr(command, "commands") else command
    options = {name for parameter in command.params for name in parameter.opts}
    used = [word.split("=")[0] for word in words if word.startswith("--")]
    assert set(used) <= options


SETTINGS = {"erf": ErfSettings, "heat": HeatSettings, "accuracy": EvalSettings, "profile": ProfileSettings}


@pytest.mark.parametrize("text", blocks("yaml"), ids=lambda text: text.splitlines()[0])
def test_suites_in_the_docs_are_valid(text, tmp_path):
    path = tmp_path / "example.yaml"
    path.write_text(text, encoding="utf-8")
    for device in ("cpu", "cuda"):
        suite = load_suite(str(path), device)
        assert suite.size + len(suite.studies) > 0
        for entry in suite.studies:
            assert settings_of(SETTINGS[entry.study], entry.settings)


@pytest.mark.parametrize("text", blocks("yml"), ids=lambda text: text.splitlines()[0])
def test_configurations_of_other_tools_are_yaml(text):
    assert yaml.safe_load(text)


def test_links_lead_to_files():
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
