"""Run files of any size, to be merged: what decides about a record is read, the rest stays on disk."""

from __future__ import annotations

import hashlib
import json
import os
import resource
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from vheatbench.case import Case
from vheatbench.errors import UserError
from vheatbench.files import MIB, open_regular, reason_of
from vheatbench.store.attachments import check_attachments, copy_attachments
from vheatbench.store.merge import merge_of, written_whole
from vheatbench.store.read import EMPTY, MOST_LINE_BYTES, Run, gaps, mismatches, read_header
from vheatbench.store.schema import SCHEMA_VERSION, Footer, Machine, Metric, Record
from vheatbench.store.write import RunWriter
from vheatbench.text import one_line

MEASURED = "latency_s"
"""The metric that machines are compared by."""
FACTS = ("host", "slurm", "gpu_uuid", "device_index")
"""Conditions that say where a record was measured."""

AT_ONCE = 256
"""Lines that are written together."""

Marks = Mapping[tuple[str, str], str]


@dataclass
class SlimRun:
    """A run whose records hold no samples and no metrics but the latency of what all shards measure."""

    run: Run
    places: dict[tuple[str, int], tuple[int, int]] = field(default_factory=dict)
    """First byte and length of the line of every record, by case and round."""


class MergedFile(NamedTuple):
    """Several run files in one."""

    path: Path
    warnings: list[str]


def merge_files(
    paths: Sequence[Path],
    out_dir: str | Path,
    allow_mixed: bool = False,
    machines_of: Callable[[Sequence[Run]], list[Machine]] = lambda runs: [],
    marks_of: Callable[[Sequence[Machine]], Marks] = lambda machines: MappingProxyType({}),
) -> MergedFile:
    """As :func:`vheatbench.store.merge.write_merged`, for files whose records need not fit into memory.

    Args:
        paths: of run files of one suite.
        out_dir: where the merged file goes.
        allow_mixed: see ``merge_runs``.
        machines_of: the machines that the runs were measured on, for the header.
        marks_of: of these, what is to be said of every record of a machine.

    Raises:
        UserError, StoreError: as ``write_merged``.
    """
    slim = [slim_run(path) for path in paths]
    if any(one.run.header.schema_version != SCHEMA_VERSION for one in slim):
        raise UserError(f"the runs have schemas other than {SCHEMA_VERSION}: merge them one by one with write_merged")
    runs = [one.run for one in slim]
    machines = machines_of(runs)
    (header, records, warnings), sources = merge_of(runs, allow_mixed, marks_of(machines))
    header = header.model_copy(update={"machines": machines})
    header.environment["volatile"]["merge"]["warnings"] = warnings
    for record, run in zip(records, sources, strict=True):
        check_attachments(run, record)
    of = {id(one.run): one for one in slim}
    waiting: list[tuple[bytes, tuple[str, int]]] = []
    with written_whole(out_dir, header) as writer, _Lines() as lines:
        for record, run in zip(records, sources, strict=True):
            line = lines.of(of[id(run)], record)
            if not (record.files or record.warnings or "environment" in record.conditions):
                waiting.append((line, (record.case_id, record.round)))
                if len(waiting) >= AT_ONCE:
                    _write(writer, waiting)
                continue
            _write(writer, waiting)
            whole = Record.model_validate_json(line)
            conditions = {key: record.conditions[key] for key in ("environment",) if key in record.conditions}
            changes: dict[str, Any] = {
                "warnings": [*whole.warnings, *record.warnings],
                "conditions": {**whole.conditions, **conditions},
                "files": copy_attachments(run, record, writer.path),
            }
            writer.append(whole.model_copy(update=changes))
        _write(writer, waiting)
        return MergedFile(writer.finish(), warnings)


def slim_run(path: str | Path) -> SlimRun:
    """Read a run file, line by line. Raises UserError as ``read_run``; a line that cannot be read is a problem."""
    path = Path(path)
    digest = hashlib.sha256()
    footer: Footer | None = None
    try:
        with open_regular(path) as file:
            first = file.readline(MOST_LINE_BYTES)
            if not first:
                raise UserError(EMPTY.format(path))
            if len(first) == MOST_LINE_BYTES:
                raise UserError(f"{path} is no run file: its first line is larger than {MOST_LINE_BYTES // MIB} MiB")
            header, _ = read_header(path, first)
            found = SlimRun(Run(path, header, []))
            records, problems = found.run.records, found.run.problems
            plan, common = {case.id: case for case in header.plan}, frozenset(header.common)
            digest.update(first)
            offset = len(first)
            for number, text in enumerate(iter(lambda: file.readline(MOST_LINE_BYTES), b""), start=2):
                try:
                    line = _loaded(text)
                    if line.get("line") == "footer":
                        footer = Footer.model_validate(line)
                        problems += mismatches(path, footer, digest.hexdigest(), len(records))
                    else:
                        records.append(_slim(line, plan, common))
                        found.places.setdefault((records[-1].case_id, records[-1].round), (offset, len(text)))
                except (ValueError, LookupError, TypeError, AttributeError) as error:
                    cut = not text.endswith(b"\n")
                    problems.append(
                        f"{path}:{number}: {'the last line is cut off, left out' if cut else one_line(str(error))}"
                    )
                digest.update(text)
                offset += len(text)
    except OSError as error:
        raise UserError(f"cannot read {str(path)!r}: {reason_of(error)}") from error
    found.run = replace(found.run, footer=footer)
    problems += gaps(found.run)
    return found


def _slim(line: dict[str, Any], plan: Mapping[str, Case], common: frozenset[str]) -> Record:
    """A record without what only its readers need."""
    id_ = str(line["case_id"])
    case = plan.get(id_)
    if case is None:
        case = Case.model_validate(line["case"])
        if case.id != id_:
            raise ValueError(f"case_id {id_} does not belong to its case")
    metrics = {}
    if id_ in common and MEASURED in line["metrics"]:
        metrics = {MEASURED: Metric.model_validate(line["metrics"][MEASURED])}
    conditions = {key: line["conditions"][key] for key in FACTS if key in line["conditions"]}
    small = {key: line[key] for key in ("round", "status", "started")}
    # every field that pydantic has a default factory for: it looks at the factory's signature for each record
    return Record.model_construct(
        case=case, case_id=id_, metrics=metrics, conditions=conditions, warnings=[], samples={}, subject={},
        spent_s={}, files=Record.model_validate(line).files if line.get("files") else {}, **small,
    )  # fmt: skip


def _write(writer: RunWriter, waiting: list[tuple[bytes, tuple[str, int]]]) -> None:
    if waiting:
        writer.append_lines([line for line, _ in waiting], [key for _, key in waiting])
        waiting.clear()


class _Lines:
    """Lines of records as they stand in their files, of which as many stay open as this process may have."""

    def __init__(self) -> None:
        self._open: dict[Path, int] = {}
        self._most = max(8, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 128)

    def __enter__(self) -> _Lines:
        return self

    def __exit__(self, *error: object) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)

    def of(self, slim: SlimRun, record: Record) -> bytes:
        offset, length = slim.places[record.case_id, record.round]
        path = slim.run.path
        if path not in self._open and len(self._open) < self._most:
            self._open[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        if path in self._open:
            line = os.pread(self._open[path], length, offset)
        else:
            with open_regular(path) as file:
                file.seek(offset)
                line = file.read(length)
        return line if line.endswith(b"\n") else line + b"\n"


def _loaded(text: bytes) -> dict[str, Any]:
    """As ``parse_line``, without a look at every number: the lines are copied, and who reads them looks."""
    try:
        line = json.loads(text, parse_constant=_not_finite)
    except UnicodeDecodeError:
        raise ValueError("not UTF-8 text") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at character {error.pos + 1}") from None
    if not isinstance(line, dict):
        raise ValueError("not a JSON object")
    return line


def _not_finite(text: str) -> None:
    raise ValueError(f"not a finite number: {text}")
