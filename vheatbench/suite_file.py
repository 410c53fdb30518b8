"""Suites as YAML files: which there are, and how a device's section and the command line change them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from vheatbench.case import DeviceType, kind_of
from vheatbench.errors import UserError
from vheatbench.suites import OF_OPERATORS, Axes, Suite, SuitePolicy
from vheatbench.yaml_file import Place, YamlFile, explain, find_yaml, read_yaml, yaml_files

OPTIONS = {"subjects": "model", "timeout_s": "timeout", "memory_limit_gib": "memory-limit", "budget_s": "budget"}
"""Command line options that are not called as the field they override."""


def suite_folders() -> list[Path]:
    """Where suites are looked for: the working directory's, then the ones shipped with the package."""
    here = Path(__file__).parent
    return [Path("suites"), here / "_suites", here.parent / "suites"]


def list_suites() -> dict[str, Path]:
    """Suite names and their files; the first folder that has a name wins."""
    return yaml_files(suite_folders())


def _option(field: str) -> str:
    """What the command line calls a field that it overrides."""
    return f"--{OPTIONS.get(field, field.replace('_', '-'))}"


def load_suite(
    name: str,
    device: DeviceType = "cpu",
    overrides: dict[str, Any] | None = None,
    called: Callable[[str], str] = _option,
) -> Suite:
    """Read, validate and specialise a suite.

    Args:
        name: a suite's name or the path of a YAML file.
        device: which of the file's ``devices`` sections applies.
        overrides: axes (``resolution``, ``dtype``, ...), ``subjects`` or policy fields from the
            command line, replacing the file's.
        called: what a field of ``overrides`` is called where it was typed, for messages.

    Raises:
        UserError: no such suite, or an invalid one: file, line, key and what is allowed.
    """
    return _suite(_read(find_yaml(name, "suite", list_suites(), "suites")), device, overrides, called)


def suite_of(
    content: dict[str, Any],
    device: DeviceType = "cpu",
    overrides: dict[str, Any] | None = None,
    called: Callable[[str], str] = str,
) -> Suite:
    """As :func:`load_suite`, of what such a file holds. Without a name of its own it is called ``python``."""
    return _suite(_checked(_Given(Path("python"), "suite", content, {})), device, overrides, called)


class _Given(YamlFile):
    """What a file would hold, from a program: its places have no lines."""

    def where(self, place: Place, section: Place = ()) -> str:
        return f"the suite: {'.'.join(map(str, place))}" if place else "the suite"


def _suite(file: YamlFile, device: DeviceType, overrides: dict[str, Any] | None, called: Callable[[str], str]) -> Suite:
    merged = _specialise(file.content, device)
    if "subjects" in (overrides or {}):
        merged.pop("studies", None)  # they look at the file's own models
    if isinstance(axes := merged.get("axes"), dict):
        merged["axes"] = {key: value for key, value in axes.items() if key not in _replaced(axes, overrides or {})}
    for key, value in (overrides or {}).items():
        section = "axes" if key in Axes.model_fields else "policy" if key in SuitePolicy.model_fields else None
        if section is None:
            merged[key] = value
        elif isinstance(given := merged.get(section, {}), dict):  # anything else is refused below
            merged[section] = {**given, key: value}
    merged.setdefault("name", file.path.stem)
    try:
        return Suite.model_validate(merged)
    except ValidationError as error:
        raise UserError(explain(error, Suite, _where(file, device, overrides or {}, called), _allowed)) from None


def _replaced(axes: dict[str, Any], overrides: dict[str, Any]) -> set[str]:
    """Axes of the file that do not stand beside what the command line asks for.

    In a file of models and operators other subjects need the axes of their own kind only; elsewhere a size stands for
    the file's, whichever of the two that has, and so does an engine.
    """
    sizes, engines = {"resolution", "grid"}, {"engine", "compile"}
    found = engines if engines & overrides.keys() else set()
    if not sizes <= axes.keys():
        return found | (sizes if sizes & overrides.keys() else set())
    kinds = {kind_of(str(name)) for name in overrides.get("subjects", [])}
    if kinds == {"operator"}:
        return found | {"resolution"}
    return found | {"grid", *OF_OPERATORS} if kinds == {"model"} else found


_SECTIONS = {"name", "description", "subjects", "studies", "axes", "policy", "reference", "devices", "ceilings"}


def _read(path: Path) -> YamlFile:
    """A file with the sections of a suite, whose contents are not looked at. Raises UserError."""
    return _checked(read_yaml(path, "suite", "'subjects' and 'axes'"))


def _checked(file: YamlFile) -> YamlFile:
    content = file.content
    unknown = [key for key in content if key not in _SECTIONS]
    if unknown:
        where = file.where((str(unknown[0]),)).rpartition(": ")[0]
        raise UserError(f"{where}: unknown key {unknown[0]!r}; allowed: {', '.join(sorted(_SECTIONS))}")
    devices = content.get("devices", {})
    if (
        not isinstance(devices, dict)
        or not set(devices) <= {"cpu", "cuda"}
        or not all(isinstance(section, dict) for section in devices.values())
    ):
        where = file.where(("devices",)).rpartition(": ")[0]
        raise UserError(f"{where}: 'devices' holds mappings named 'cpu' and 'cuda'")
    return file


def _specialise(content: dict[str, Any], device: DeviceType) -> dict[str, Any]:
    """The file with the section of the device merged in, one level deep."""
    merged = {key: value for key, value in content.items() if key != "devices"}
    for key, value in content.get("devices", {}).get(device, {}).items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = {**merged[key], **value}
        else:
            merged[key] = value
    return merged


def _where(
    file: YamlFile, device: str, overrides: dict[str, Any], called: Callable[[str], str]
) -> Callable[[Place], str]:
    """Where a place was given: an option of the command line, or a line of the file."""

    def where(place: Place) -> str:
        origin = str(place[place[0] in ("axes", "policy") and len(place) > 1] if place else "")
        if place == ("policy",):  # fields that do not go together: name the one that was typed
            origin = next((key for key in overrides if key in SuitePolicy.model_fields), origin)
        if origin in overrides:
            return called(origin)
        return file.where(place, ("devices", device))

    return where


def _allowed(kind: str, place: Place) -> str | None:
    """What the axes take that have values of several types."""
    if kind == "literal_error" or kind.startswith("int_"):
        if "batch" in place:
            return "a whole number of at least 1, or 'largest'"
        if "channels" in place:
            return "a whole number of at least 1"
    if kind.startswith("bool_") and "compile" in place:
        return "true, false, freezing, cudagraphs"
    return None
