"""Merging files whose records stay on disk gives what merging them in memory gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.records import record
from vheatbench.errors import UserError
from vheatbench.store import Header, Record, Run, RunWriter, read_run, write_merged
from vheatbench.store.attachments import attach
from vheatbench.store.machine import machine_of
from vheatbench.store.slim import merge_files, slim_run

SHARDS = 3


def shard(folder: Path, number: int, environment: dict[str, Any] | None = None, finish: bool = True) -> Path:
    """A shard with a group of its own, a failure in the second, and the group at 32 that all have."""
    records = [record(name, size, 0.001 * size) for size in (32, 32 * (number + 1)) for name in ("vit-s", "vit-b")]
    records[-1].status = "failed" if number == 2 else "ok"
    for one in records:
        one.conditions = {"host": "h", "slurm": {"node": f"node{number}"}, "threads": 2}
    header = Header(
        run_id=f"run{number}", suite="s", command="c", created=f"2026-01-01T00:00:0{number}Z",
        environment={"host": f"h{number}", **(environment or {})}, plan=[one.case for one in records],
        shard=f"{number}/{SHARDS}", common=[one.case_id for one in records[:2]],
    )  # fmt: skip
    with RunWriter.create(folder / f"{number}", header) as writer:
        for one in records:
            files = {"map": attach(writer.path, "map.bin", b"12")} if number == 3 and one is records[-1] else {}
            writer.append(one.model_copy(update={"files": files}))
        return writer.finish() if finish else writer.path


def content(run: Run) -> tuple[list[dict[str, Any]], list[str], list[str]]:
    return (
        [one.model_dump() for one in run.records],
        [case.id for case in run.header.plan],
        run.header.environment["volatile"]["merge"]["warnings"],
    )


def test_it_is_what_is_merged_in_memory(tmp_path: Path) -> None:
    paths = [shard(tmp_path, number) for number in range(1, SHARDS + 1)]
    merged = merge_files(paths, tmp_path / "slim")
    whole = read_run(write_merged([read_run(path) for path in paths], tmp_path / "whole"))
    assert content(read_run(merged.path)) == content(whole)
    assert not whole.problems
    assert merged.warnings == []
    assert len(whole.records) == 8
    (file,) = (tmp_path / "slim").glob("*/map.bin")
    assert file.read_bytes() == b"12"


def test_it_holds_nothing_of_a_record_that_decides_nothing(tmp_path: Path) -> None:
    run = slim_run(shard(tmp_path, 1)).run
    assert [list(one.metrics) for one in run.records] == [["latency_s"]] * 2 + [[]] * 2
    assert not any(one.samples or one.subject for one in run.records)
    assert {machine_of(one) for one in run.records} == {("node1", "")}


def test_what_is_marked_is_marked_on_disk(tmp_path: Path) -> None:
    paths = [shard(tmp_path, 1), shard(tmp_path, 2, {"torch": "2"})]
    with pytest.raises(UserError, match="torch"):
        merge_files(paths, tmp_path)
    merged = merge_files(paths, tmp_path, allow_mixed=True, marks_of=lambda machines: {("node2", ""): "slow"})
    own = {one.case.resolution[0]: one for one in read_run(merged.path).records}
    assert own[96].warnings[-1] == "slow"
    assert own[96].conditions["environment"] == {"torch": "2"}
    assert own[96].conditions["threads"] == 2
    assert own[96].samples
    assert own[64].warnings == []


def test_what_is_damaged_or_unfinished_is_said(tmp_path: Path) -> None:
    paths = [shard(tmp_path, number, finish=number != 2) for number in (1, 2)]
    lines = paths[0].read_bytes().splitlines(keepends=True)
    broken = json.loads(lines[4])
    lines[4] = json.dumps({**broken, "case_id": "0" * 12}).encode() + b"\n"
    paths[0].write_bytes(b"".join(lines))
    with paths[1].open("ab") as file:
        file.write(b'{"line":"rec')
    expected = [problem for path in paths for problem in read_run(path).problems]
    warnings = merge_files(paths, tmp_path).warnings
    assert len(expected) == 6
    for problem in expected:
        assert problem.split(": ")[0] in " ".join(warnings)
    assert "unfinished run: 4 of 4" in " ".join(warnings)
    assert isinstance(slim_run(paths[0]).run.records[0], Record)
