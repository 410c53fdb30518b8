"""Suites as YAML files: finding, reading, validating, with errors that name file, line and key."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from vheatbench.case import DeviceType
from vheatbench.errors import UserError
from vheatbench.files import check_regular, read_text, reason_of
from vheatbench.suites import Axes, Reference, ReferenceRow, ReferenceTable, SubjectEntry, Suite, SuitePolicy
from vheatbench.text import one_line

MAX_FILE_BYTES = 100_000
MAX_DEPTH = 20
"""Lists and mappings within each other. PyYAML takes minutes over a file of opening brackets."""


OPTIONS = {"subjects": "model", "timeout_s": "timeout", "memory_limit_gib": "memory-limit"}
"""Command line options that are not called as the field they override."""


def suite_folders() -> list[Path]:
    """Where suites are looked for: the working directory's, then the ones shipped with the package."""
    here = Path(__file__).parent
    return [Path("suites"), here / "_suites", here.parent / "suites"]


def list_suites() -> dict[str, Path]:
    """Suite names and their files; the first folder that has a name wins."""
    found: dict[str, Path] = {}
    for folder in suite_folders():
        if folder.is_dir():
            for path in sorted(folder.glob("*.yaml")):
                found.setdefault(path.stem, path)
    return found


def load_suite(name: str, device: DeviceType = "cpu", overrides: dict[str, Any] | None = None) -> Suite:
    """Read, validate and specialise a suite.

    Args:
        name: a suite's name or the path of a YAML file.
        device: which of the file's ``devices`` sections applies.
        overrides: axes (``resolution``, ``dtype``, ...), ``subjects`` or policy fields from the
            command line, replacing the file's.

    Raises:
        UserError: no such suite, or an invalid one: file, line, key and what is allowed.
    """
    path = _find(name)
    content, lines = _parse(path)
    merged = _specialise(content, device)
    if {"resolution", "grid"} & (overrides or {}).keys():
        # a size from the command line stands for the file's, whichever of the two that has
        axes = merged.get("axes")
        if isinstance(axes, dict):
            merged["axes"] = {key: value for key, value in axes.items() if key not in ("resolution", "grid")}
    for key, value in (overrides or {}).items():
        section = "axes" if key in Axes.model_fields else "policy" if key in SuitePolicy.model_fields else None
        if section is None:
            merged[key] = value
        elif isinstance(given := merged.get(section, {}), dict):  # anything else is refused below
            merged[section] = {**given, key: value}
    merged.setdefault("name", path.stem)
    try:
        return Suite.model_validate(merged)
    except ValidationError as error:
        raise UserError(_explain(error, path, lines, device, overrides or {})) from None


def _find(name: str) -> Path:
    if name.endswith((".yaml", ".yml")) or "/" in name:
        path = Path(name)
        try:
            check_regular(path)
        except FileNotFoundError:
            what = "does not exist"
        except OSError as error:
            what = f"cannot be read ({reason_of(error)})"
        else:
            return path
        raise UserError(f"suite file {_short(name, most=300)} {what}")
    known = list_suites()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UserError(f"unknown suite {name!r}: {hint}there are {', '.join(sorted(known))}")
    return known[name]


_SECTIONS = {"name", "description", "subjects", "studies", "axes", "policy", "reference", "devices", "ceilings"}


def _parse(path: Path) -> tuple[dict[str, Any], dict[tuple[Any, ...], int]]:
    try:
        text = read_text(path, MAX_FILE_BYTES)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({reason_of(error)})") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    try:
        _check_events(text, path)
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        _check_keys(node, path)
        lines = dict(_node_lines(node, ()))
        content = loader.construct_document(node) if node is not None else None
    except yaml.constructor.ConstructorError as error:
        raise UserError(
            f"{path}:{_line(error.problem_mark)}: a suite holds plain data only ({one_line(str(error.problem))})"
        ) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise UserError(f"{path}:{line}: not valid YAML ({one_line(str(error.reason))})") from None
    except yaml.YAMLError as error:
        line = _line(getattr(error, "problem_mark", None))
        raise UserError(
            f"{path}:{line}: not valid YAML ({one_line(getattr(error, 'problem', None) or str(error))})"
        ) from None
    except (ValueError, LookupError, AttributeError) as error:  # what PyYAML lets through of a '!!bool perhaps'
        raise UserError(f"{path}: a value is not of the kind that it is written as ({one_line(str(error))})") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: a suite is a mapping with 'subjects' and 'axes', not a {type(content).__name__}")
    unknown = [key for key in content if key not in _SECTIONS]
    if unknown:
        line = lines.get((str(unknown[0]),), 1)
        raise UserError(f"{path}:{line}: unknown key {unknown[0]!r}; allowed: {', '.join(sorted(_SECTIONS))}")
    devices = content.get("devices", {})
    if (
        not isinstance(devices, dict)
        or not set(devices) <= {"cpu", "cuda"}
        or not all(isinstance(section, dict) for section in devices.values())
    ):
        raise UserError(f"{path}:{lines.get(('devices',), 1)}: 'devices' holds mappings named 'cpu' and 'cuda'")
    return content, lines


def _check_events(text: str, path: Path) -> None:
    """Refuse what a short file can be made to explode with: aliases and endless nesting."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise UserError(f"{path}:{_line(event.start_mark)}: YAML aliases are not allowed, write it out")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise UserError(f"{path}:{_line(event.start_mark)}: nested more than {MAX_DEPTH} levels deep")


def _check_keys(node: yaml.Node | None, path: Path) -> None:
    """Refuse a key that stands twice in one mapping: YAML itself silently takes the last."""
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise UserError(
                        f"{path}:{_line(key.start_mark)}: {_short(key.value)} stands twice, "
                        f"first in line {seen[key.value]}: keep one"
                    )
                seen[key.value] = _line(key.start_mark)
            _check_keys(value, path)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _check_keys(value, path)


def _short(value: Any, most: int = 80) -> str:
    """A value from the file as Python writes it, cut to what fits a line."""
    text = repr(value)
    return text if len(text) <= most else f"{text[: most - 20]}... ({len(text):,} characters)"


def _line(mark: Any) -> int:
    return mark.line + 1 if mark is not None else 1


def _node_lines(node: yaml.Node | None, path: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], int]]:
    if node is None:
        return
    yield path, node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                yield from _node_lines(value, (*path, key.value))
                yield (*path, key.value), key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            yield from _node_lines(value, (*path, i))


def _specialise(content: dict[str, Any], device: DeviceType) -> dict[str, Any]:
    """The file with the section of the device merged in, one level deep."""
    merged = {key: value for key, value in content.items() if key != "devices"}
    for key, value in content.get("devices", {}).get(device, {}).items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = {**merged[key], **value}
        else:
            merged[key] = value
    return merged


def _explain(
    error: ValidationError,
    path: Path,
    lines: dict[tuple[Any, ...], int],
    device: str,
    overrides: dict[str, Any],
) -> str:
    """The first problem on one line: where, what, and what is allowed."""
    first = error.errors()[0]
    # a union reports every branch: its tags ('int', "literal['largest']") are not part of the place
    tag = re.compile(r"[\[\]]|^(int|bool)$")
    location = tuple(part for part in first["loc"] if not (isinstance(part, str) and tag.search(part)))
    key = ".".join(str(part) for part in location) or "the suite"
    origin = location[1] if len(location) > 1 and location[0] in ("axes", "policy") else location[0] if location else ""
    if location == ("policy",):  # fields that do not go together: name the one that was typed
        origin = next((key for key in overrides if key in SuitePolicy.model_fields), origin)
    if origin in overrides:
        where = f"--{OPTIONS.get(str(origin), str(origin).replace('_', '-'))}"
    else:
        line = next(
            (
                lines[prefix]
                for n in range(len(location), 0, -1)
                for prefix in (("devices", device, *location[:n]), location[:n])
                if prefix in lines
            ),
            1,
        )
        where = f"{path}:{line}: {key}"
    given = first.get("input")
    context = first.get("ctx", {})
    kind = first["type"]
    if kind == "literal_error" or (kind.startswith("int_") and "batch" in location):
        allowed = "a whole number of at least 1, or 'largest'" if "batch" in location else context.get("expected")
        what = f"{_short(given)} is not allowed; allowed: {allowed}"
    elif kind in ("bool_parsing", "bool_type"):
        others = ", freezing, cudagraphs" if "compile" in location else ""
        what = f"{_short(given)} is not allowed; allowed: true, false{others}"
    elif kind.startswith("int_") and "channels" in location:
        what = f"{_short(given)} is not allowed; allowed: a whole number of at least 1"
    elif kind in ("list_type", "dict_type", "model_type"):
        what = f"must be a {'list' if kind == 'list_type' else 'mapping'}, not {_short(given)}"
    elif kind == "extra_forbidden":
        models: dict[str, type[BaseModel]] = {"axes": Axes, "policy": SuitePolicy, "subjects": SubjectEntry}
        in_table = location[1:2] == ("tables",) and len(location) == 4
        models["reference"] = Reference if len(location) == 2 else ReferenceTable if in_table else ReferenceRow
        model = models.get(str(location[0]), Suite) if len(location) > 1 else Suite
        what = f"unknown key; allowed: {', '.join(model.model_fields)}"
    elif kind == "too_short":
        what = "is empty: give at least one value"
    elif kind == "missing":
        what = "is missing"
    else:
        what = one_line(first["msg"].removeprefix("Value error, ")) + (
            f", not {_short(given)}" if kind != "value_error" and not isinstance(given, dict) else ""
        )
    more = (
        f" (and {error.error_count() - 1} more)" if kind not in ("literal_error",) and error.error_count() > 2 else ""
    )
    return f"{where}: {what}{more}"
