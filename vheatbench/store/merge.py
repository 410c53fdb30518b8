"""Shards of one suite, measured apart, as one run."""

from __future__ import annotations

import re
import secrets
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby, zip_longest
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from vheatbench.case import Case
from vheatbench.errors import StoreError, UserError
from vheatbench.store.alike import differing_keys, flat, gpu_kinds
from vheatbench.store.attachments import check_attachments, copy_attachments, folder_of
from vheatbench.store.machine import machine_of
from vheatbench.store.read import Run
from vheatbench.store.schema import Header, Machine, Record
from vheatbench.store.write import RunWriter
from vheatbench.text import some, utc_now


class Merged(NamedTuple):
    """What several runs are together."""

    header: Header
    records: list[Record]
    """In planned order, round by round."""
    warnings: list[str]
    """What is missing, was left out or does not quite fit, one line each."""


def merge_runs(runs: list[Run], *, allow_mixed: bool = False) -> Merged:
    """The runs of one suite (shards ``i/n``, or parts of it) as one, with a new id and no shard.

    Of two records of the same case and round an ``ok`` one wins, else the first. Where environments
    differ, ``allow_mixed`` marks the header and every record concerned, else it is a UserError; so are
    different suites, policies, rounds, schemas or numbers of shards, and runs without any record.
    """
    return merge_of(runs, allow_mixed)[0]


def merge_of(
    runs: list[Run], allow_mixed: bool, marks: Mapping[tuple[str, str], str] = MappingProxyType({})
) -> tuple[Merged, list[Run]]:
    """The runs as one, and for each of its records the run that it comes from."""
    if not runs:
        raise UserError("nothing to merge: name at least one run file")
    first = runs[0].header
    for run in runs:
        _check_same_suite(runs[0], run)
    shards, of = _shards(runs)
    differing = {key for run in runs for key in differing_keys(first.environment, run.header.environment)}
    if differing and not allow_mixed:
        raise UserError(
            f"the runs come from different environments ({_differing_words(differing, runs)}): their numbers are "
            "not comparable; merge only what was measured alike, or allow mixed environments explicitly"
        )
    warnings = [problem for run in runs for problem in run.problems]
    absent = [f"{i}/{of}" for i in range(1, of + 1) if i not in shards]
    if absent:
        warnings.append(f"missing shards: {some(absent, 5)}")
    plan = _union([run.header.plan for run in sorted(runs, key=_shard_order)])
    kept, repeated = _records(runs, plan, marks)
    records = [record for record, _ in kept]
    if not records:
        raise UserError(f"nothing to merge: {some([str(run.path) for run in runs], 5)} hold no record")
    if repeated:
        warnings.append(
            f"{len(repeated)} records of cases that have another were left out: "
            + some([f"{record.case.label} (round {record.round})" for record in repeated], 5)
        )
    header = first.model_copy(
        update={
            "run_id": secrets.token_hex(4),
            "command": _command(runs),
            "created": utc_now(),
            "environment": _environment(runs, sorted(differing)),
            "plan": plan,
            "shard": None,
        }
    )
    missing = Run(Path(), header, records).missing
    if missing:
        labels = [f"{case.label} (round {number})" for case, number in missing]
        warnings.append(f"{len(missing)} planned measurements are missing: {some(labels, 5)}")
    return Merged(header, records, warnings), [run for _, run in kept]


def write_merged(
    runs: list[Run],
    out_dir: str | Path,
    *,
    allow_mixed: bool = False,
    machines: Sequence[Machine] = (),
    marks: Mapping[tuple[str, str], str] = MappingProxyType({}),
) -> Path:
    """Merges ``runs`` into a new finished run file in ``out_dir`` and returns its path.

    The files of its records are copied along. The warnings of ``merge_runs`` stand in its header,
    ``environment["volatile"]["merge"]["warnings"]``.

    Args:
        runs: of one suite.
        out_dir: where the file goes.
        allow_mixed: see :func:`merge_runs`.
        machines: that they were measured on, for the header.
        marks: a warning for every record of a machine (:func:`vheatbench.store.machine.machine_of`).

    Raises:
        UserError: as ``merge_runs``; a file of a record is missing or has changed; nothing can be written there.
        StoreError: the merged run could not be written to its end. Nothing is left of it.
    """
    (header, records, warnings), sources = merge_of(runs, allow_mixed, marks)
    header = header.model_copy(update={"machines": list(machines)})
    header.environment["volatile"]["merge"]["warnings"] = warnings
    for record, run in zip(records, sources, strict=True):
        check_attachments(run, record)
    with written_whole(out_dir, header) as writer:
        for record, run in zip(records, sources, strict=True):
            files = copy_attachments(run, record, writer.path)
            writer.append(record.model_copy(update={"files": files}))
        return writer.finish()


@contextmanager
def written_whole(out_dir: str | Path, header: Header) -> Iterator[RunWriter]:
    """A new run in ``out_dir``, which the block finishes; where it does not, nothing is left of it.

    Its records are on disk when it is finished, not one by one: they are somewhere else.

    Raises:
        UserError: nothing can be written there.
        StoreError: it could not be written to its end.
    """
    with RunWriter.create(out_dir, header, sync=False) as writer:
        try:
            yield writer
        except BaseException as error:
            # half of a merged run would pass for the latest, and resuming it would measure the other half here
            if writer.lost is None:
                writer.path.unlink()
            shutil.rmtree(folder_of(writer.path), ignore_errors=True)
            if isinstance(error, StoreError):
                reason = getattr(error.__cause__, "strerror", None) or error
                raise StoreError(f"cannot write the merged run to {out_dir}: {reason}; merge again") from error
            raise


def _command(runs: list[Run]) -> str:
    """That all shards were started by, as a cluster's are; else the merge itself."""
    commands = {run.header.command for run in runs}
    if len(commands) == 1 and all(run.header.shard for run in runs):
        return commands.pop()
    return "vheatbench merge " + shlex.join(str(run.path) for run in runs)


def _differing_words(differing: set[str], runs: list[Run]) -> str:
    """The entries that differ, GPUs by their names."""
    names = {
        " + ".join(str(gpu.get("name")) for gpu in gpu_kinds(run.header.environment)) or "none": None for run in runs
    }
    words = [f"gpus: {', '.join(names)}" if key == "gpus" and len(names) > 1 else key for key in sorted(differing)]
    return some(words, 5)


def _check_same_suite(one: Run, other: Run) -> None:
    for name in ("suite", "policy", "rounds", "schema_version"):
        a, b = getattr(one.header, name), getattr(other.header, name)
        if a != b:
            raise UserError(f"{one.path} and {other.path} cannot be merged: {name} is {a!r} and {b!r}")


def _shards(runs: list[Run]) -> tuple[set[int], int]:
    """The numbers of the shards that are there and how many there should be; 0 for runs without."""
    found: set[int] = set()
    counts: set[int] = set()
    for run in runs:
        if run.header.shard is not None:
            match = re.fullmatch(r"([1-9]\d{0,5})/([1-9]\d{0,5})", run.header.shard, re.ASCII)
            if match is None or int(match[1]) > int(match[2]):
                raise UserError(f"{run.path} cannot be merged: its shard {run.header.shard!r} is not i/n")
            found.add(int(match[1]))
            counts.add(int(match[2]))
    if len(counts) > 1:
        raise UserError(f"the runs are shards of different divisions: of {some(sorted(counts), 5)}")
    return found, counts.pop() if counts else 0


def _shard_order(run: Run) -> int:
    return int(run.header.shard.split("/")[0]) if run.header.shard else 0


def _union(plans: list[list[Case]]) -> list[Case]:
    # Shard i of n holds every n-th group from the i-th on: taking one of each in turn restores the order.
    groups = [[list(cases) for _, cases in groupby(plan, lambda case: case.point)] for plan in plans]
    cases = (case for turn in zip_longest(*groups, fillvalue=[]) for group in turn for case in group)
    return list({case.id: case for case in cases}.values())


def _records(
    runs: list[Run], plan: list[Case], marks: Mapping[tuple[str, str], str]
) -> tuple[list[tuple[Record, Run]], list[Record]]:
    """The records to keep, in planned order, each with its run; those left out for another of its case and round.

    What every shard measures is no repetition; that of a machine with a mark is kept last.
    """
    first = runs[0].header.environment
    kept: dict[tuple[str, int], tuple[Record, Run]] = {}
    repeated = []
    for run in runs:
        differing = differing_keys(first, run.header.environment)
        for record in run.records:
            key = (record.case_id, record.round)
            marked = _marked(record, run, differing) if differing else record
            mark = marks.get(machine_of(record))
            if mark is not None:
                marked = marked.model_copy(update={"warnings": [*marked.warnings, mark]})
            common = record.case_id in run.header.common
            other = kept.get(key)
            if other is None:
                kept[key] = marked, run
            elif (record.status == "ok", mark is None) > (other[0].status == "ok", machine_of(other[0]) not in marks):
                kept[key] = marked, run
                repeated += [] if common else [other[0]]
            elif not common:
                repeated.append(record)
    order = {case.id: place for place, case in enumerate(plan)}
    records = sorted(kept.values(), key=lambda one: (one[0].round, order.get(one[0].case_id, len(order))))
    return records, repeated


def _marked(record: Record, run: Run, differing: list[str]) -> Record:
    entries = flat(run.header.environment)
    return record.model_copy(
        update={
            "warnings": [
                *record.warnings,
                f"merged from run {run.header.run_id}, whose environment differs: {some(differing, 5)}",
            ],
            "conditions": {**record.conditions, "environment": {key: entries.get(key) for key in differing}},
        }
    )


def _environment(runs: list[Run], differing: list[str]) -> dict[str, Any]:
    environment = dict(runs[0].header.environment)
    hosts = list(dict.fromkeys(str(run.header.environment.get("host", "unknown")) for run in runs))
    environment["host"] = hosts[0] if len(hosts) == 1 else f"{len(hosts)}-hosts"
    sources = [
        {"run_id": run.header.run_id, "shard": run.header.shard, "host": run.header.environment.get("host")}
        for run in runs
    ]
    volatile = environment.get("volatile")
    environment["volatile"] = {
        **(volatile if isinstance(volatile, dict) else {}),
        "merge": {"runs": sources},
    }
    if differing:
        # Not volatile: a mixed run must not pass for one that was measured in its first environment.
        each = [flat(run.header.environment) for run in runs]
        environment["mixed"] = {key: [entries.get(key) for entries in each] for key in differing}
    return environment
