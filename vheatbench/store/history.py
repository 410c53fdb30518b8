"""History: what runs measured, in one compact line per run and device, in one file that only grows.

A run file holds everything and is read in tens of milliseconds; a history line holds values and intervals
only, so that thousands of runs are read in seconds. The run files stay the source: a lost history is made
again from them with ``vheatbench track add``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from vheatbench.errors import StoreError, UserError
from vheatbench.files import GIB, append, check_regular, lock, read_bytes, reason_of
from vheatbench.numbers import Value
from vheatbench.store.schema import Direction, Status
from vheatbench.text import one_line

HISTORY_NAME = "history.jsonl"
HISTORY_VERSION = 1
MOST_BYTES = GIB
"""Of a history: tens of thousands of runs."""

Reading = tuple[float, float | None, float | None, int]
"""Value, lower and upper end of its interval (None without one), and the rounds or samples behind it."""


def estimate(reading: Reading | None) -> Value | None:
    """A reading as a value with its interval."""
    return Value(*reading[:3]) if reading is not None else None


class _Model(BaseModel):
    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)


class TrackedMetric(_Model):
    """What the numbers of a metric are, the same for all cases of an entry."""

    unit: str
    direction: Direction = "neutral"
    deterministic: bool = False


class TrackedSamples(_Model):
    """Raw readings in the order they were taken; where there were too many, evenly spaced ones of them."""

    of: int
    """How many there were."""
    values: list[float]


class TrackedCase(_Model):
    """One case of an entry."""

    label: str
    status: Status = "ok"
    readings: dict[str, Reading] = Field(default_factory=dict)
    """Metric name to value and interval."""
    samples: dict[str, TrackedSamples] = Field(default_factory=dict)
    """Only of what has no run file to keep them."""


class HistoryEntry(_Model):
    """What one run measured on one kind of device: a line of the history.

    It knows nothing of ``Case``: the tests of pytest-benchmark are cases too.
    """

    line: Literal["history"] = "history"
    version: int = HISTORY_VERSION
    run_id: str
    device: str
    file: str
    """Name of the file that was added, without its folder."""
    suite: str
    when: str
    """UTC, ISO 8601, in seconds."""
    branch: str = ""
    commit: str = ""
    dirty: bool = False
    """Whether the code differed from the commit."""
    fingerprint: str
    """Of machine and software: entries of different fingerprints are no series."""
    machine: str
    """The same in words."""
    metrics: dict[str, TrackedMetric]
    cases: dict[str, TrackedCase]
    """By case id."""

    @field_validator("when")
    @classmethod
    def _utc(cls, text: str) -> str:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
        if moment.tzinfo is None:  # what writes no zone (pytest-benchmark before 4) means UTC
            moment = moment.replace(tzinfo=timezone.utc)
        return moment.astimezone(timezone.utc).isoformat(timespec="seconds")

    @model_validator(mode="after")
    def _units(self) -> HistoryEntry:
        for case in self.cases.values():
            for name in case.readings:
                if name not in self.metrics:
                    raise ValueError(f"readings of {name} without a unit")
        return self

    @property
    def units(self) -> dict[str, str]:
        """Metrics that a case has a value of, to the unit that each is in."""
        held = dict.fromkeys(name for case in self.cases.values() for name in case.readings)
        return {name: self.metrics[name].unit for name in held}

    @property
    def key(self) -> tuple[str, str]:
        """What there is one entry of."""
        return self.run_id, self.device


@dataclass(frozen=True)
class History:
    """The entries of a history file, oldest first."""

    path: Path
    entries: list[HistoryEntry]
    problems: list[str] = field(default_factory=list)
    """Lines that were set aside, ``file:line`` and why."""


@dataclass(frozen=True)
class Added:
    """What became of an attempt to add entries."""

    entries: list[HistoryEntry]
    known: list[HistoryEntry]
    """Not added: their run and device are in the history already."""
    problems: list[str]


def history_path(target: str | Path) -> Path:
    """The history file that ``target`` means: the file itself, or the one in the folder ``target``."""
    path = Path(target)
    return path / HISTORY_NAME if path.is_dir() or path.suffix != ".jsonl" else path


def read_history(target: str | Path) -> History:
    """The history in a file or in a folder of runs, oldest run first.

    Lines that cannot be read are left out and named in ``problems``; so is the second line of the same run
    and device. Raises UserError if there is no file, it cannot be read, or no line of it can.
    """
    path = history_path(target)
    try:
        data = read_bytes(path, MOST_BYTES)
    except FileNotFoundError:
        raise UserError(f"there is no history {path}: begin one with `vheatbench track add RUN`") from None
    except OSError as error:
        raise UserError(f"cannot read the history {path}: {reason_of(error)}") from error
    entries, problems = _parse(path, data)
    if not entries:
        reason = f"no line of it can be read; {problems[0]}" if problems else "it is empty"
        raise UserError(f"{path} is no history: {reason}")
    return History(path, sorted(entries, key=lambda entry: entry.when), problems)


def add_to_history(target: str | Path, entries: Iterable[HistoryEntry]) -> Added:
    """Append entries whose run and device are not in the history yet; when this returns, they are on disk.

    Processes take turns by a lock on the file. A line that a crash cut off is closed, not removed: the reader
    sets it aside.

    Raises:
        UserError: the file cannot be opened.
        StoreError: it cannot be written; it is then as it was before.
        ValueError: an entry has no JSON form.
    """
    path = history_path(target)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            check_regular(path, MOST_BYTES)
        fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
    except OSError as error:
        raise UserError(f"cannot write the history {path}: {reason_of(error)}") from error
    try:
        lock(fd, wait=True)
        data = read_bytes(path, MOST_BYTES)
        present, problems = _parse(path, data)
        keys = {entry.key for entry in present}
        added: list[HistoryEntry] = []
        known: list[HistoryEntry] = []
        for entry in entries:
            (known if entry.key in keys else added).append(entry)
            keys.add(entry.key)
        lines = b"".join(map(_encode, added))
        if lines:
            append(fd, lines if data.endswith(b"\n") or not data else b"\n" + lines)
    except OSError as error:
        raise StoreError(f"cannot write the history {path}: {reason_of(error)}; it is as it was before") from error
    finally:
        os.close(fd)
    return Added(added, known, problems)


def _encode(entry: HistoryEntry) -> bytes:
    content = entry.model_dump(exclude_defaults=True) | {"line": entry.line, "version": entry.version}
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # half a surrogate pair, from a name that is not UTF-8, would make a line that no JSON reader takes
    return text.encode(errors="replace") + b"\n"


def _parse(path: Path, data: bytes) -> tuple[list[HistoryEntry], list[str]]:
    entries: dict[tuple[str, str], HistoryEntry] = {}
    problems = []
    for number, text in enumerate(data.split(b"\n"), start=1):
        if not text.strip():
            continue
        try:
            entry = _entry(text)
        except ValueError as error:
            problems.append(f"{path}:{number}: {_reason(error)}; the line is left out")
            continue
        if entry.key in entries:
            problems.append(f"{path}:{number}: run {entry.run_id} on {entry.device} again; the line is left out")
        entries.setdefault(entry.key, entry)
    return list(entries.values()), problems


def _entry(text: bytes) -> HistoryEntry:
    try:
        entry = HistoryEntry.model_validate_json(text)
    except ValidationError:
        # a line of a newer version may have another form: then the version is what is wrong with it
        _check_version(_version(text))
        raise
    _check_version(entry.version)
    return entry


def _version(text: bytes) -> object:
    try:
        return json.loads(text).get("version")
    except (ValueError, AttributeError, RecursionError):
        return None


def _check_version(version: object) -> None:
    if isinstance(version, int) and version > HISTORY_VERSION:
        raise ValueError(f"written by a newer vheatbench (history version {version}): upgrade vheatbench")


def _reason(error: ValueError) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        return one_line(f"{where}: {first['msg']}" if where else str(first["msg"]))
    return one_line(str(error))


def thinned(values: Sequence[float], most: int = 200) -> TrackedSamples:
    """``values``, or ``most`` evenly spaced ones of them, the first and the last among them."""
    of = len(values)
    if of > most:
        values = [values[i * (of - 1) // (most - 1)] for i in range(most)]
    return TrackedSamples(of=of, values=list(values))
