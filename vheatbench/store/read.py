"""Reading runs: a damaged line is set aside and named, everything else is kept."""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import re
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from pydantic import ValidationError

from vheatbench.case import Case
from vheatbench.errors import UserError
from vheatbench.files import GIB, MIB, open_regular, read_bytes, reason_of
from vheatbench.store.history import HISTORY_NAME
from vheatbench.store.schema import Footer, Header, Record
from vheatbench.store.upgrade import check_version, upgrade
from vheatbench.text import printable, some

if TYPE_CHECKING:
    import pandas as pd

PARTIAL = ".partial"
"""What the name of a run file ends in until the run is finished."""
MOST_BYTES = 2 * GIB
"""Of a run file: hundreds of times the largest that is known."""
MOST_LINE_BYTES = 64 * MIB
"""Of what is read to see whether a file is a run: the first line of a file of zeros does not end."""


class MissingRunError(UserError):
    """There is no such run, as opposed to one that cannot be read."""


@dataclass(frozen=True)
class Run:
    """One run file as it could be read."""

    path: Path
    header: Header
    records: list[Record]
    """In the order of the file."""
    footer: Footer | None = None
    problems: list[str] = field(default_factory=list)
    """What is wrong with the file, one line each; empty for a whole and finished run."""

    @cached_property
    def done(self) -> set[tuple[str, int]]:
        """Case id and round of every record, whatever its status."""
        return {(record.case_id, record.round) for record in self.records}

    @cached_property
    def case_ids(self) -> list[str]:
        """Ids of the cases that have a record, each once, in the order of the file."""
        return list(dict.fromkeys(record.case_id for record in self.records))

    @cached_property
    def missing(self) -> list[tuple[Case, int]]:
        """Case and round of everything planned that has no record, round by round in planned order."""
        return [(case, number) for case, number in self.header.planned if (case.id, number) not in self.done]

    @property
    def device_name(self) -> str:
        """The GPU or processor that the run was measured on, in words."""
        environment = self.header.environment
        gpus = environment.get("gpus") or []
        if gpus and any(case.device == "cuda" for case in self.header.plan):
            return str(gpus[0].get("name", "a GPU"))
        cpu = environment.get("cpu") or {}
        return f"{cpu.get('name', 'an unknown processor')} ({cpu.get('affinity_cores', '?')} cores)"

    @property
    def complete(self) -> bool:
        """True for a finished run in which everything planned has a record."""
        return self.footer is not None and not self.missing

    def to_pandas(self) -> pd.DataFrame:
        """One row per record, as :func:`vheatbench.store.export.to_frame`: metrics are columns, in their own units."""
        from vheatbench.store.export import to_frame

        return to_frame(self)

    def __str__(self) -> str:
        failed = sum(record.status != "ok" for record in self.records)
        more = f", {failed} not ok" if failed else ""
        return f"{self.header.suite} on {self.device_name}: {len(self.records)} records{more}, {self.path}"

    def _repr_html_(self) -> str:
        from vheatbench.report.notebook import run_html

        return run_html(self)


def read_run(path: str | Path) -> Run:
    """The run in ``path``, finished (``.jsonl``) or not (``.partial``).

    Lines that cannot be read are left out and named in ``problems``. Raises UserError where nothing can
    be read: no such file, no run file, a damaged header, a schema that is too new.
    """
    path = Path(path)
    data = _read_bytes(path)
    lines = data.split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    header, version = read_header(path, lines[0])
    records: list[Record] = []
    problems: list[str] = []
    footer = None
    offset = len(lines[0]) + 1
    for number, text in enumerate(lines[1:], start=2):
        at_end = number == len(lines)
        try:
            line = _upgraded(text, version)
            if line.get("line") == "footer":
                if not at_end:
                    raise ValueError("a footer in the middle of the file, ignored")
                footer = Footer.model_validate(line)
                problems += mismatches(path, footer, hashlib.sha256(data[:offset]).hexdigest(), len(records))
            else:
                records.append(_record(line))
        except ValueError as error:
            cut_off = at_end and not data.endswith(b"\n")
            problem = "the last line is cut off, left out" if cut_off else _one_line(error)
            problems.append(f"{path}:{number}: {problem}")
        offset += len(text) + 1
    run = Run(path, header, records, footer, problems)
    problems += gaps(run)
    return run


def list_runs(results_dir: str | Path) -> list[Path]:
    """Every run file in ``results_dir``, unfinished ones too, newest first; none if it does not exist.

    The time is the one in the file's name, for renamed files that of the last change. Raises UserError
    if ``results_dir`` cannot be listed.
    """
    ages = []
    try:
        for path in Path(results_dir).iterdir():
            if not path.name.endswith((".jsonl", ".jsonl" + PARTIAL)) or path.name == HISTORY_NAME:
                continue
            # A crash in the middle of the final rename leaves both names of one file.
            if path.suffix == PARTIAL and path.with_suffix("").exists():
                continue
            try:
                facts = path.stat()
            except FileNotFoundError:  # finished, thus renamed, since the directory was listed
                continue
            if not stat.S_ISREG(facts.st_mode):
                continue
            changed = facts.st_mtime
            stamp = re.match(r"\d{8}T\d{6}Z", path.name)
            when = stamp.group() if stamp else time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(changed))
            ages.append((when, changed, path))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"cannot list the runs in {results_dir}: {error.strerror}") from error
    return [path for _, _, path in sorted(ages, reverse=True)]


def begun_runs(results_dir: str | Path) -> Iterator[Path]:
    """As :func:`list_runs`, but only files with a header: what ``latest`` chooses from.

    Without one there is no run to speak of: its process was killed before it began, or the file is of another program.
    """
    return filter(_has_header, list_runs(results_dir))


def find_run(name: str, results_dir: str | Path) -> Path:
    """The run file that ``name`` means: a path; ``latest``, the newest with a header; a suite's name, for its
    newest run; or a file name or run id in ``results_dir`` or the unique beginning of one.

    Raises UserError where nothing or more than one file matches, naming the nearest.
    """
    newest = next(begun_runs(results_dir), None) if name == "latest" else None
    if newest is not None:
        return newest
    if name and Path(name).exists() and not Path(name).is_dir():
        return Path(name)  # also what is no regular file, which read_run refuses by name
    runs = list_runs(results_dir)
    if not runs or name == "latest":
        raise MissingRunError(f"no run named {name!r}: there are no runs in {results_dir} yet")
    names = {path: (path.name, path.name.split(".jsonl")[0], str(_line_of(path, 1).get("run_id", ""))) for path in runs}
    matches = [path for path in runs if name in names[path]]
    if not matches and name:
        matches = [path for path in runs if any(known.startswith(name) for known in names[path])]
    if len(matches) == 1:
        return matches[0]
    of_suite = next((path for path in runs if name and suite_of(path) == name), None)
    if of_suite is not None:
        return of_suite
    if matches:
        raise UserError(f"{name!r} is the beginning of {len(matches)} runs: {some((path.name for path in matches), 5)}")
    known = {text: path for path in reversed(runs) for text in names[path]}
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    near = list(dict.fromkeys(known[text] for text in close)) or runs
    raise MissingRunError(
        f"no run named {name!r} in {results_dir}; the nearest: {some((path.name for path in near), 5)}"
    )


def find_measured(name: str, results_dir: str | Path) -> Path:
    """As :func:`find_run`, but ``latest`` is the newest run with records: one that was stopped at once has none.

    Where no run has records, the newest.
    """
    path = find_run(name, results_dir)
    if name != "latest" or _has_records(path):
        return path
    return next(filter(_has_records, list_runs(results_dir)), path)


def newest_of_each_suite(results_dir: str | Path) -> list[Path]:
    """The newest run of every suite that has records, of the machine that the newest of all is of; newest first.

    Sides of a comparison in turns (``ab``) are left out: they are there for their verdict. Raises MissingRunError
    where there is no run.
    """
    newest = find_measured("latest", results_dir)
    host = _host_of(newest)
    found: dict[str, Path] = {}
    for path in begun_runs(results_dir):
        header = _line_of(path, 1)
        if not header.get("pairing") and _host_of(path) == host and _has_records(path):
            found.setdefault(str(header.get("suite")), path)
    return list(found.values()) or [newest]


def _host_of(path: Path) -> str:
    environment = _line_of(path, 1).get("environment")
    return str(environment.get("host")) if isinstance(environment, dict) else ""


def _has_header(path: Path) -> bool:
    return _line_of(path, 1).get("line") == "header"


def _has_records(path: Path) -> bool:
    return _line_of(path, 2).get("line") == "record"


def suite_of(path: Path) -> str | None:
    """The suite in a file's header; None where there is no readable one. Names alone can be ambiguous."""
    suite = _line_of(path, 1).get("suite")
    return str(suite) if suite is not None else None


def _line_of(path: Path, number: int) -> dict[str, Any]:
    """The first or second line of a file; empty where it cannot be read."""
    try:
        with open_regular(path) as file:
            lines = [file.readline(MOST_LINE_BYTES) for _ in range(number)]
        return parse_line(lines[-1])
    except (OSError, ValueError):
        return {}


def parse_line(text: bytes) -> dict[str, Any]:
    """The JSON object on one line of a run file; raises ValueError with a short reason."""
    try:
        line = json.loads(text.decode(), parse_constant=_not_finite, parse_float=_finite)
    except UnicodeDecodeError:
        raise ValueError("not UTF-8 text") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at character {error.pos + 1}") from None
    except RecursionError:
        raise ValueError("not JSON of a run: nested too deeply") from None
    if not isinstance(line, dict):
        raise ValueError("not a JSON object")
    return line


def _finite(text: str) -> float:
    # 1e999 is valid JSON, but Python reads it as infinity.
    value = float(text)
    if not math.isfinite(value):
        _not_finite(text)
    return value


def _not_finite(text: str) -> NoReturn:
    raise ValueError(f"not a finite number: {text[:20]}")


EMPTY = "{} is empty: its run ended before it began; delete it"


def _read_bytes(path: Path) -> bytes:
    try:
        data = read_bytes(path, MOST_BYTES)
    except FileNotFoundError:
        raise UserError(f"there is no run file {path}") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a directory, not a run file: name one of the .jsonl files in it") from None
    except OSError as error:
        raise UserError(f"cannot read {str(path)!r}: {reason_of(error)}") from error
    if not data:
        raise UserError(EMPTY.format(path))
    return data


def read_header(path: Path, text: bytes) -> tuple[Header, int]:
    """The header on the first line of a run file, and the schema that it was written in. Raises UserError."""
    try:
        line = parse_line(text)
    except ValueError as error:
        raise UserError(f"{path} is not a readable run file: {path}:1: {_one_line(error)}") from None
    if line.get("line") != "header":
        raise UserError(f"{path} is not a run file of vheatbench: its first line is no header")
    version = check_version(line.get("schema_version"), str(path))
    try:
        return Header.model_validate(_upgraded(text, version)), version
    except ValueError as error:
        raise UserError(f"{path} has a damaged header: {path}:1: {_one_line(error)}") from None


def _upgraded(text: bytes, version: int) -> dict[str, Any]:
    line = parse_line(text)
    try:
        return upgrade(line, version)
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"cannot be upgraded from schema {version}: {error!r}") from error


def _record(line: dict[str, Any]) -> Record:
    if line.get("line") != "record":
        raise ValueError(f"neither a record nor a footer, but {line.get('line')!r:.40}")
    record = Record.model_validate(line)
    if record.case_id != record.case.id:
        raise ValueError(f"case_id {record.case_id} does not belong to its case, which is {record.case.id}")
    return record


def mismatches(path: Path, footer: Footer, sha256: str, records: int) -> list[str]:
    """What of a file is not as its footer says: the SHA-256 of what stands before it, and the number of records."""
    problems = []
    if footer.sha256 != sha256:
        problems.append(f"{path}: changed after the run was finished (its SHA-256 is not the footer's)")
    if footer.records != records:
        problems.append(f"{path}: the footer counts {footer.records} records, {records} can be read")
    return problems


def gaps(run: Run) -> list[str]:
    """In one line, that a run is not whole; empty where it is."""
    planned = len(run.header.planned)
    unit = "cases" if run.header.rounds == 1 else f"measurements ({run.header.rounds} rounds of each timed case)"
    progress = f"{planned - len(run.missing)} of {planned} {unit}"
    if run.footer is None:
        return [f"{run.path}: unfinished run: {progress}"]
    if run.missing:
        return [f"{run.path}: finished with gaps: {progress} have a record"]
    return []


def _one_line(error: ValueError) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        text = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    else:
        text = str(error)
    return printable(text)  # it may quote the file
