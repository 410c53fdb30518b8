"""Interpreters for versions of a project: the present one where dependencies are equal, else one of their own."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import vheatbench
from vheatbench.text import one_line

DEPENDENCY_FILES = ("setup.py", "setup.cfg", "requirements*.txt")


class InstallError(Exception):
    """An environment could not be made; the last line of what was said about it."""


def dependency_key(root: Path) -> str:
    """12 hexadecimal digits of the SHA-256 of what a project says it needs; equal where nothing is to install anew.

    Of ``pyproject.toml`` only the dependencies, the Python version and the build system count, of ``setup.py``,
    ``setup.cfg`` and ``requirements*.txt`` every character.
    """
    parts = []
    pyproject = root / "pyproject.toml"
    if pyproject.is_file():
        parts.append(_declared(pyproject.read_text(encoding="utf-8", errors="replace")))
    for pattern in DEPENDENCY_FILES:
        paths = sorted(root.glob(pattern))
        parts += [f"{path.name}\n{path.read_text(encoding='utf-8', errors='replace')}" for path in paths]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def make_environment(root: Path, folder: Path) -> str:
    """A virtual environment in ``folder`` with a project, what it needs and what measuring needs; its interpreter.

    Raises:
        InstallError: the environment cannot be made or something cannot be installed.
    """
    _run([sys.executable, "-m", "venv", str(folder)])
    python = str(folder / "bin" / "python")
    wanted = ["--editable", str(root)] if _installable(root) else []
    for path in sorted(root.glob("requirements*.txt")):
        wanted += ["--requirement", str(path)]
    if not brings_vheatbench(root):
        wanted += _own_requirements()
    if wanted:
        _run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", *wanted])
    return python


def search_path(python: str, folder: Path) -> list[str]:
    """``sys.path`` of an interpreter, without the working directory and ``PYTHONPATH``. Raises InstallError."""
    code = "import json, sys; print(json.dumps(sys.path))"
    answer = _run([python, "-E", "-c", code], folder)
    return [entry for entry in json.loads(answer) if entry]


def known_fields(python: str, path: Sequence[str], folder: Path | None) -> tuple[set[str], set[str], set[str]]:
    """Names of the axes of a case, and of the fields of a policy and of a task, in the vheatbench of ``path``.

    Raises:
        InstallError: there is none, or it cannot be imported.
    """
    code = (
        f"import sys; sys.path[:] = {list(path)!r}\n"
        "import json\n"
        "from vheatbench.case import Case\n"
        "from vheatbench.run.task import MeasureTask\n"
        "from vheatbench.suites import SuitePolicy\n"
        "print(json.dumps([list(kind.model_fields) for kind in (Case, SuitePolicy, MeasureTask)]))"
    )
    case, policy, task = map(set, json.loads(_run([python, "-c", code], folder)))
    return case, policy, task


def brings_vheatbench(root: Path) -> bool:
    """Whether a project is vheatbench itself, so that its own code measures."""
    return (root / "vheatbench" / "run" / "worker.py").is_file()


def package_folder() -> Path:
    """Where the present vheatbench lies."""
    return Path(vheatbench.__file__).resolve().parent


def _declared(text: str) -> str:
    if sys.version_info < (3, 11):
        return text
    import tomllib

    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return text
    project: dict[str, Any] = content.get("project", {})
    needed = {key: project.get(key) for key in ("dependencies", "requires-python", "dynamic")}
    poetry = content.get("tool", {}).get("poetry", {}).get("dependencies")
    return json.dumps([needed, poetry, content.get("build-system")], sort_keys=True, default=str)


def _installable(root: Path) -> bool:
    pyproject = root / "pyproject.toml"
    tables = ("[project]", "[build-system]", "[tool.poetry]")
    text = pyproject.read_text(encoding="utf-8", errors="replace") if pyproject.is_file() else ""
    return (root / "setup.py").is_file() or any(line.strip() in tables for line in text.splitlines())


def _own_requirements() -> list[str]:
    try:
        listed = metadata.requires("vheatbench") or []
    except metadata.PackageNotFoundError:  # it runs from its source, uninstalled
        return []
    return [requirement for requirement in listed if "extra ==" not in requirement]


def _run(command: list[str], folder: Path | None = None) -> str:
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        cwd=folder,
        start_new_session=True,
    ) as done:
        try:
            out, err = done.communicate()
        except BaseException:  # pip builds in processes of its own
            with contextlib.suppress(ProcessLookupError):
                os.killpg(done.pid, signal.SIGKILL)
            raise
    if done.returncode:
        lines = [line.strip() for line in (out + "\n" + err).splitlines() if line.strip()]
        told = [line for line in lines if line.startswith("ERROR:")] or lines
        raise InstallError(one_line(told[-1]) if told else f"{Path(command[0]).name} ended with {done.returncode}")
    return out
