"""Which output of a model's head means which class of the data."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from vheatbench.errors import UserError
from vheatbench.files import MIB, read_text, reason_of
from vheatbench.studies.images.labelled import LabelledImages

SOME = 3
"""Names shown of a list that may be long."""
MOST_BYTES = 64 * MIB
"""Of a class map."""


@dataclass(frozen=True)
class ClassMap:
    """Classes of the data on outputs of the head."""

    outputs: tuple[int, ...]
    """The head's output of every class of the data."""
    names: dict[int, str]
    """What outputs are called, where it is known."""
    words: str
    """Where it comes from, for people."""
    width: int
    """Outputs of the head."""

    def name(self, output: int) -> str:
        """Of an output of the head."""
        return self.names.get(output, f"output {output}")


def map_classes(images: LabelledImages, outputs: int, path: Path | None = None) -> ClassMap:
    """Match the classes of the data with a head of ``outputs`` outputs.

    Without a file, class i (by sorted names) is output i, and there must be as many classes as outputs.

    Args:
        images: the data.
        outputs: width of the head.
        path: JSON ``{"class name": output}``, or text with the name of one class a line, in the order of outputs,
            as timm's class maps have it. It may name more classes than the data has.

    Raises:
        UserError: classes and head do not match, or the file cannot be read or does not fit.
    """
    if path is None:
        if len(images.classes) != outputs:
            raise UserError(
                f"the model's head has {outputs} classes, {images.root} has {len(images.classes)}: give --class-map "
                "FILE (JSON of class name to output, or the head's class names, one a line), or --num-classes for "
                f"another head{_nested(images)}"
            )
        return ClassMap(tuple(range(outputs)), dict(enumerate(images.classes)), "sorted names", outputs)
    known = _read(path)
    missing = [name for name in images.classes if name not in known]
    if missing:
        more = f" and {len(missing) - SOME} more" if len(missing) > SOME else ""
        raise UserError(f"--class-map {path}: has no {', '.join(missing[:SOME])}{more}, which {images.root} has")
    beyond = [f"{name}: {known[name]}" for name in images.classes if not 0 <= known[name] < outputs]
    if beyond:
        raise UserError(f"--class-map {path}: the head has outputs 0 to {outputs - 1}, not {', '.join(beyond[:SOME])}")
    mapped = [known[name] for name in images.classes]
    twice = [name for name in images.classes if mapped.count(known[name]) > 1]
    if twice:
        raise UserError(f"--class-map {path}: {', '.join(twice[:SOME])} are one output: merge the folders instead")
    return ClassMap(tuple(mapped), {number: name for name, number in known.items()}, f"by {path.name}", outputs)


def _nested(images: LabelledImages) -> str:
    """A hint where a folder of splits was given for one of them."""
    split = next((name for name in images.classes if name in ("val", "validation", "test")), None)
    return f" (is {images.root / split} what is meant?)" if split else ""


def _read(path: Path) -> dict[str, int]:
    try:
        text = read_text(path, MOST_BYTES)
    except OSError as error:
        raise UserError(f"--class-map {path}: cannot be read ({reason_of(error)})") from None
    except UnicodeDecodeError:
        raise UserError(f"--class-map {path}: not a text file") from None
    if path.suffix != ".json":
        names = [line.strip() for line in text.splitlines() if line.strip()]
        if len(set(names)) != len(names):
            raise UserError(f"--class-map {path}: a class name stands on two lines")
        return {name: i for i, name in enumerate(names)}
    try:
        known = json.loads(text)
    except ValueError as error:
        raise UserError(f"--class-map {path}: not JSON ({error})") from None
    numbers = isinstance(known, dict) and all(type(value) is int for value in known.values())
    if not numbers:
        raise UserError(f"--class-map {path}: give an object of class names and whole numbers")
    return dict(known)
