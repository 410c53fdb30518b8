"""The documentation site: what it is made of is there, and it is built without a warning."""

from __future__ import annotations

import importlib
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import vheatbench as vb
from support.command import commands

ROOT = Path(__file__).parents[1]
spec = importlib.util.spec_from_file_location("docs_site", ROOT / "scripts" / "docs_site.py")
assert spec is not None
assert spec.loader is not None
docs_site = importlib.util.module_from_spec(spec)
spec.loader.exec_module(docs_site)


def pages_of(nav: object) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    parts = nav.values() if isinstance(nav, dict) else nav
    return [page for part in parts for page in pages_of(part)]


def test_every_page_has_its_place_once():
    nav = pages_of(yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))["nav"])
    assert len(nav) == len(set(nav))
    made = {*docs_site.ON_SITE.values(), *(page for page in nav if page.startswith("reference/"))}
    pages = {path.name for pattern in ("*.md", "*.ipynb") for path in (ROOT / "docs").glob(pattern)}
    assert pages == set(nav) - made


def test_the_reference_has_every_command_and_option():
    page = docs_site.commands_page()
    for name, command in commands().items():
        inner = getattr(command, "commands", None) or {"": command}
        for word, one in inner.items():
            title = f" vheatbench {name} {word}".rstrip()
            (section,) = re.findall(rf"^#+{title}$(.*?)(?=^#|\Z)", page, re.M | re.S)
            missing = [
                option
                for parameter in one.params
                for option in parameter.opts
                if f"`{option}`".lower() not in section.lower()
            ]
            assert missing == [], title


def test_the_reference_has_every_name_of_the_package():
    named = {name.rpartition(".")[2] for names in docs_site.PYTHON.values() for name in names}
    public = {name for name in vb.__all__ if name not in ("__version__", "heat")}
    assert public | {"diffuse", "diffusivity"} <= named


@pytest.mark.parametrize(
    "name", [*(name for names in docs_site.PYTHON.values() for name in names), *docs_site.SUITES, *docs_site.RECORDS]
)
def test_what_the_reference_shows_is_there_and_explained(name):
    module, _, attribute = f"vheatbench.{name}".rpartition(".")
    assert getattr(importlib.import_module(module), attribute).__doc__


def test_links_out_of_the_pages_lead_somewhere():
    for page in (ROOT / "docs").glob("*.md"):
        text = docs_site.on_page_markdown(page.read_text("utf-8"))
        assert "](../" not in text, page.name
        for path in re.findall(re.escape(docs_site.SOURCE) + r"([^)#]*)", text):
            assert (ROOT / path).exists(), path
    for source in docs_site.ON_SITE:
        text = docs_site.seen_from_docs((ROOT / source).read_text("utf-8"))
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
            assert (ROOT / "docs" / target).exists() or target in docs_site.ON_SITE.values(), target


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="the extra 'docs' is not installed")
def test_the_site_is_built_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    shown = (tmp_path / "site" / "reference" / "python" / "index.html").read_text("utf-8")
    assert ":func:" not in re.sub("<[^>]+>", "", shown)
