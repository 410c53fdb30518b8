"""What mkdocs does for the documentation site beside rendering docs/*.md: pages made from the code, and links to it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.structure.files import Files

ROOT = Path(__file__).parents[1]
SOURCE = "https://github.com/vheatbench/vheatbench/blob/main/"
"""Where what is not on the site can be read."""
ON_SITE = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Pages that stand in the repository's root, and where they are on the site."""

PYTHON = {
    "Measuring": ["api.measure.measure", "api.ab.ab", "api.ab.AbResult"],
    "Runs": ["api.run.run", "api.runs.read_run", "store.read.Run"],
    "What runs say": [
        "api.scaling.scaling", "api.scaling.Growths", "api.scaling.Growth", "api.compare.compare",
        "verdict.comparison.Comparison", "api.report.report",
    ],
    "What a model sees": ["api.erf.erf", "studies.erf.results.ErfResult"],
    "How heat moves": [
        "api.heat.diffuse", "studies.heat.results.Diffusion", "api.heat.diffusivity",
        "studies.heat.results.Diffusivity",
    ],
    "Weights": ["subjects.weights.load_checkpoint", "subjects.weights.LoadedCheckpoint"],
    "Errors": ["errors.UserError", "errors.StoreError", "errors.WorkerError"],
}  # fmt: skip
SUITES = ["suites.Suite", "suites.SubjectEntry", "suites.Axes", "measure.stopping.Policy", "suites.SuitePolicy"]
RECORDS = [
    "store.schema.Header", "case.Case", "store.schema.Record", "store.schema.Metric", "store.schema.Samples",
    "store.schema.Attachment", "store.schema.Footer",
]  # fmt: skip


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that no file in docs/ is."""
    from mkdocs.structure.files import File

    pages = {target: seen_from_docs((ROOT / source).read_text("utf-8")) for source, target in ON_SITE.items()}
    pages["reference/commands.md"] = commands_page()
    pages["reference/python.md"] = "\n\n".join(
        ["# Python", "What is stable of it: [From Python](../python.md#what-stays).", *_sections()]
    )
    pages["reference/suites.md"] = _of("Suites", "The sections of a YAML file ([Suites](../suites.md)).", SUITES)
    pages["reference/records.md"] = _of("Run files", "One JSON object a line: header, records, footer.", RECORDS)
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links out of docs/ lead to the site where what they name is on it, else to the repository."""

    def moved(match: re.Match[str]) -> str:
        path, anchor = match[1], match[2] or ""
        return f"]({ON_SITE.get(path, SOURCE + path)}{anchor})"

    return re.sub(r"\]\(\.\./(?!python\.md|suites\.md)([^)#]+)(#[^)]*)?\)", moved, markdown)


def seen_from_docs(text: str) -> str:
    """A page of the root, with its links as seen from docs/."""

    def moved(match: re.Match[str]) -> str:
        path = match[1]
        inside = path.removeprefix("docs/")
        return f"]({inside if inside != path else ON_SITE.get(path, SOURCE + path)}{match[2] or ''})"

    return re.sub(r"\]\((?!https?:|#|mailto:)([^)#]+)(#[^)]*)?\)", moved, text)


def commands_page() -> str:
    """Every command with its options, from the app itself."""
    import typer

    from vheatbench.cli import app

    listed: Any = typer.main.get_command(app)
    parts = ["# Commands", "Made from the commands themselves; `vheatbench COMMAND --help` says the same."]
    for name, lazy in listed.commands.items():
        command = lazy.load()
        inner = getattr(command, "commands", None)
        parts.append(_command(f"vheatbench {name}", command, 2))
        parts += [_command(f"vheatbench {name} {one}", found, 3) for one, found in (inner or {}).items()]
    return "\n\n".join(parts)


def _command(title: str, command: Any, level: int) -> str:
    lines = [f"{'#' * level} {title}", "", _plain(command.help or "")]
    options = [parameter for parameter in command.params if not getattr(parameter, "hidden", False)]
    if options and not hasattr(command, "commands"):
        lines += ["", "| | | default |", "|---|---|---|"]
        lines += [f"| {_names(one)} | {_cell(getattr(one, 'help', None) or '')} | {_default(one)} |" for one in options]
    return "\n".join(lines)


def _names(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{str(parameter.name).upper()}`"
    return ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))


def _default(parameter: Any) -> str:
    value = parameter.default
    if getattr(parameter, "required", False):
        return "required"
    if value is None or value is False or callable(value) or type(value).__name__ == "Sentinel" or value in ([], ()):
        return ""
    words = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    return f"`{_cell(words)}`"


def _cell(text: str) -> str:
    return " ".join(_plain(text).split()).replace("|", "\\|")


def _plain(text: str) -> str:
    """Help as Markdown: double backticks are code here as well, and nothing is a tag."""
    return text.replace("\b", "").replace("<", "&lt;").strip()


def _sections() -> list[str]:
    return [part for title, names in PYTHON.items() for part in (f"## {title}", *map(_directive, names))]


def _of(title: str, words: str, names: list[str]) -> str:
    return "\n\n".join([f"# {title}", words, *map(_directive, names)])


def _directive(name: str) -> str:
    return f"::: vheatbench.{name}"


def on_page_content(html: str, **_: Any) -> str:
    """Docstrings name functions as Sphinx does; here the name alone is shown."""
    return re.sub(r":(?:func|class|data|mod|meth|attr):<code>~?", "<code>", html)
