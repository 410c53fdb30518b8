"""The arrows of the house: who may import whom. Read from the source, imports inside functions included."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "vheatbench"

EVERYBODYS = {"case", "errors", "files", "image_file", "metrics", "numbers", "stats", "stop", "text", "yaml_file"}
"""What everybody may import."""

ARROWS = {
    "suites": {"measure.stopping"},
    "suite_file": {"suites"},
    "store": set(),
    "subjects": set(),
    "engines": {"subjects"},
    "measure": {"store.schema"},
    "run": {"subjects", "engines", "measure", "store", "suites"},
    "slurm": {"run", "store", "suites"},
    "analysis": {"store"},
    "verdict": {"analysis", "store"},
    "ab": {"run", "verdict", "analysis", "store", "suites", "measure.checkout"},
    "present": {"store.schema", "analysis.findings"},
    "studies": {
        "run",
        "subjects",
        "engines",
        "measure",
        "store",
        "analysis",
        "present",
        "suites",
        "suite_file",
        "studies.images",
    },
    "report": {"studies", "present", "analysis", "verdict", "store"},
}
"""Room to what it may import beside itself: a room, or one file of it. ``cli`` and ``api`` may import anything; nothing
imports ``api``, and what is above it by name only (``vheatbench/__init__.py``) loads it when it is asked for."""

NOTEBOOKS = {
    ("store.read", "report.notebook"),
    ("store.schema", "report.notebook"),
    ("present.parts", "report.notebook"),
    ("verdict.comparison", "report.notebook"),
}
"""The one arrow back: ``_repr_html_`` of what a notebook shows."""

WITHOUT_TORCH = ("store", "slurm", "analysis", "verdict", "present", "report")


class Arrow(NamedTuple):
    """One import: the module that imports, what it imports, and where."""

    source: str
    target: str
    name: str
    place: str


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imports(path: Path) -> Iterator[tuple[str, str, int]]:
    """Module, name in it (empty for a module as a whole) and line of every import of the package."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "", node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield from ((node.module, alias.name, node.lineno) for alias in node.names)


def arrows() -> Iterator[Arrow]:
    known = {name for name, _ in modules()}
    for source, path in modules():
        for module, name, line in imports(path):
            if module.split(".")[0] != "vheatbench":
                continue
            target = module.removeprefix("vheatbench").lstrip(".")
            inner = f"{target}.{name}".lstrip(".")
            yield Arrow(
                source,
                inner if inner in known else target,
                "" if inner in known else name,
                f"{path.relative_to(ROOT)}:{line}",
            )


def room(module: str) -> str:
    """The folder of a module; every study is a room of its own."""
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "studies" and len(parts) > 1 else parts[0]


def allowed(source: str, target: str) -> bool:
    here, there = room(source), room(target)
    if here in ("cli", "api", "__main__", "") or here == there or there == "" or there in EVERYBODYS:
        return True
    if (source, target) in NOTEBOOKS:
        return True
    granted = ARROWS.get(here.split(".")[0], set())
    if here.startswith("studies.") and there.startswith("studies"):
        return there in granted or there == "studies"
    return any(target == one or target.startswith(f"{one}.") for one in granted)


def test_every_import_follows_the_arrows() -> None:
    assert [f"{a.place}: {a.source} -> {a.target}" for a in arrows() if not allowed(a.source, a.target)] == []


def test_no_private_name_crosses_a_folder() -> None:
    private = [a for a in arrows() if a.name.startswith("_") and not a.name.startswith("__")]
    assert [f"{a.place}: {a.target}.{a.name}" for a in private if room(a.source) != room(a.target)] == []


def test_rooms_that_show_import_no_torch() -> None:
    heavy = {"torch", "timm", "torchvision", "fvcore"}
    found = []
    for source, path in modules():
        if room(source) in WITHOUT_TORCH:
            found += [
                f"{path.relative_to(ROOT)}:{line}" for module, _, line in imports(path) if module.split(".")[0] in heavy
            ]
    assert found == []


def test_an_arrow_that_is_not_there_is_seen() -> None:
    assert not allowed("store.read", "analysis.groups")
    assert not allowed("studies.erf.plan", "studies.heat.run")
    assert not allowed("measure.timing", "store.read")
    assert not allowed("report.page", "cli.run")
    assert not allowed("run.runner", "api.run")
    assert allowed("api.run", "run.runner")
    assert allowed("measure.timing", "store.schema")
    assert allowed("studies.erf.plan", "studies.images.photographs")
    assert allowed("ab.request", "run.runner")
