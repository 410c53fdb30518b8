"""YAML files that people write (suites, recipes): found by name, read with line numbers, errors that name the key."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from vheatbench.errors import UserError
from vheatbench.files import check_regular, read_text, reason_of
from vheatbench.text import did_you_mean, one_line

MAX_FILE_BYTES = 100_000
MAX_DEPTH = 20
"""Lists and mappings within each other. PyYAML takes minutes over a file of opening brackets."""

Place = tuple[Any, ...]
"""Keys and indices from the top of a file down to a value."""

_UNION_TAG = re.compile(r"[\[\]]|^(int|bool|function-.*)$")
"""What pydantic puts into the place of an error to say which branch of a union it tried."""


@dataclass(frozen=True)
class YamlFile:
    """A mapping from a file, and where everything in it stands."""

    path: Path
    what: str
    """What the file is: ``suite``, ``recipe``."""
    content: dict[Any, Any]
    lines: dict[Place, int]

    def where(self, place: Place, section: Place = ()) -> str:
        """``file.yaml:3: axes.batch``, by the line of the innermost part of the place that the file has.

        ``section``: a place whose content is merged into the top of the file; what stands there comes first.
        """
        known = (
            self.lines[prefix]
            for n in range(len(place), 0, -1)
            for prefix in ((*section, *place[:n]), place[:n])
            if prefix in self.lines
        )
        return f"{self.path}:{next(known, 1)}: {'.'.join(map(str, place)) or f'the {self.what}'}"


def yaml_files(folders: Iterable[Path]) -> dict[str, Path]:
    """Names of the YAML files in some folders, and their paths; the first folder that has a name wins."""
    found: dict[str, Path] = {}
    for folder in folders:
        if folder.is_dir():
            for path in sorted(folder.glob("*.yaml")):
                found.setdefault(path.stem, path)
    return found


def find_yaml(name: str, what: str, known: dict[str, Path], folder: str) -> Path:
    """The file of a name or path.

    Args:
        name: as it was typed.
        what: what the file is, for errors.
        known: from :func:`yaml_files`.
        folder: where the documentation has the known files: their paths there are understood from anywhere.

    Raises:
        UserError: there is none; with those there are.
    """
    path = Path(name)
    names = ", ".join(sorted(known))
    if name.endswith((".yaml", ".yml")) or "/" in name:
        try:
            check_regular(path)
        except FileNotFoundError:
            if path.stem in known and path.parent.as_posix().endswith(folder):
                return known[path.stem]
            problem = "does not exist"
        except OSError as error:
            problem = f"cannot be read ({reason_of(error)})"
        else:
            return path
        raise UserError(f"{what} file {short(name, most=300)} {problem}; there are {names}")
    if name in known:
        return known[name]
    if path.is_file():
        return path
    hint = did_you_mean(name, known, most=1)
    raise UserError(f"unknown {what} {name!r}: {hint}{' ' if hint else ''}there are {names}")


def read_yaml(path: Path, what: str, keys: str) -> YamlFile:
    """Read a mapping of plain data, of which no key stands twice and nothing is an alias.

    Args:
        path: the file.
        what: what it is, for errors.
        keys: the keys that make it one, for errors.

    Raises:
        UserError: it cannot be read or is something else; with the line.
    """
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
            f"{path}:{_line(error.problem_mark)}: a {what} holds plain data only ({one_line(str(error.problem))})"
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
        raise UserError(f"{path}: a {what} is a mapping with {keys}, not a {type(content).__name__}")
    return YamlFile(path, what, content, lines)


def explain(
    error: ValidationError,
    model: type[BaseModel],
    where: Callable[[Place], str],
    allowed: Callable[[str, Place], str | None] = lambda kind, place: None,
) -> str:
    """The first problem on one line: where, what, and what is allowed.

    Args:
        error: pydantic's.
        model: what was validated.
        where: where a place was given: :meth:`YamlFile.where`, or an option of the command line.
        allowed: what may stand in a place, by pydantic's kind of error; None where pydantic says it well itself.
    """
    first = error.errors(include_url=False)[0]
    place = tuple(part for part in first["loc"] if not (isinstance(part, str) and _UNION_TAG.search(part)))
    given, kind = first.get("input"), first["type"]
    usual = {"literal_error": first.get("ctx", {}).get("expected"), "bool_parsing": "true, false"}
    usual["bool_type"] = usual["bool_parsing"]
    values = allowed(kind, place) or usual.get(kind)
    if values is not None:
        what = f"{short(given)} is not allowed; allowed: {values}"
    elif kind in ("list_type", "dict_type", "model_type"):
        what = f"must be a {'list' if kind == 'list_type' else 'mapping'}, not {short(given)}"
    elif kind == "extra_forbidden":
        known = list(_model_at(model, place).model_fields)
        hint = did_you_mean(str(place[-1]), known, most=1)
        what = f"unknown key; {hint}{' ' if hint else ''}allowed: {', '.join(known)}"
    elif kind == "too_short":
        what = "is empty: give at least one value"
    elif kind == "missing":
        what = "is missing"
    else:
        what = one_line(first["msg"].removeprefix("Value error, "))
        if kind != "value_error" and not isinstance(given, dict):
            what += f", not {short(given)}"
    more = f" (and {error.error_count() - 1} more)" if kind != "literal_error" and error.error_count() > 2 else ""
    return f"{where(place)}: {what}{more}"


def short(value: Any, most: int = 80) -> str:
    """A value from a file as Python writes it, cut to what fits a line."""
    text = repr(value)
    return text if len(text) <= most else f"{text[: most - 20]}... ({len(text):,} characters)"


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
                        f"{path}:{_line(key.start_mark)}: {short(key.value)} stands twice, "
                        f"first in line {seen[key.value]}: keep one"
                    )
                seen[key.value] = _line(key.start_mark)
            _check_keys(value, path)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _check_keys(value, path)


def _node_lines(node: yaml.Node | None, place: Place) -> Iterator[tuple[Place, int]]:
    if node is None:
        return
    yield place, _line(node.start_mark)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                yield from _node_lines(value, (*place, key.value))
                yield (*place, key.value), _line(key.start_mark)
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            yield from _node_lines(value, (*place, i))


def _line(mark: Any) -> int:
    return mark.line + 1 if mark is not None else 1


def _model_at(model: type[BaseModel], place: Place) -> type[BaseModel]:
    """The model whose key the last part of a place is: lists and mappings on the way hold models of one kind."""
    for part in place[:-1]:
        if part in model.model_fields:
            model = _model_in(model.model_fields[part].annotation) or model
    return model


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part)) is not None), None)
