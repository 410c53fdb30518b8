"""Runs on disk: what is written comes back, is found, merged and exported."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.stored import CASES, a_header, a_record, write_run
from vheatbench.case import Case
from vheatbench.errors import UserError
from vheatbench.store import (
    Header,
    Metric,
    Record,
    Run,
    RunWriter,
    Samples,
    find_run,
    list_runs,
    merge_runs,
    read_run,
    run_file_name,
    to_frame,
    write_csv,
    write_merged,
    write_parquet,
)
from vheatbench.store.read import find_measured
from vheatbench.store.upgrade import UPGRADES


def a_run(header: Header, *records: Record, name: str = "run.jsonl") -> Run:
    return Run(Path(name), header, list(records))


# Writing and reading


def test_a_finished_run_comes_back_as_it_was(tmp_path: Path) -> None:
    records = [a_record(case, value=n + 1) for n, case in enumerate(CASES)]
    path = write_run(tmp_path / "new" / "dir", a_header(), *records)
    run = read_run(path)
    assert (run.header, run.records, run.problems, run.complete) == (a_header(), records, [], True)
    assert run.done == {(case.id, 0) for case in CASES}
    assert run.case_ids == [case.id for case in CASES]
    assert run.footer is not None
    assert run.footer.records == 4
    *before, last = path.read_bytes().splitlines(keepends=True)
    assert json.loads(last)["sha256"] == hashlib.sha256(b"".join(before)).hexdigest()
    assert [child.name for child in path.parent.iterdir()] == [path.name]


def test_file_name_says_when_what_where() -> None:
    assert run_file_name(a_header()) == "20250301T120000Z-quick-node-7-0123abcd.jsonl"
    strange = a_header(suite="../../ä b/", environment={}, created="2025-03-01T14:00:00+02:00", run_id="é")
    assert run_file_name(strange) == "20250301T120000Z-b-unknown-unknown.jsonl"
    long = a_header(suite="x" * 999, run_id="y" * 999, environment={"host": "z" * 999})
    assert len(run_file_name(long)) < 220


def test_an_unfinished_run_says_how_far_it_got(tmp_path: Path) -> None:
    with RunWriter.create(tmp_path, a_header(rounds=2)) as writer:
        writer.append(a_record(CASES[1]))
        assert writer.done == {(CASES[1].id, 0)}
    run = read_run(writer.path)
    assert writer.path.suffix == ".partial"
    assert not run.complete
    assert "unfinished run: 1 of 8 measurements" in run.problems[0]
    assert run.missing[:2] == [(CASES[0], 0), (CASES[2], 0)]
    with pytest.raises(ValueError, match="closed"):
        writer.append(a_record())


def test_a_finished_run_with_gaps_is_not_complete(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path, a_header(), a_record(CASES[0])))
    assert not run.complete
    assert ["1 of 4 cases have a record" in problem for problem in run.problems] == [True]


def test_what_is_not_timed_has_one_round(tmp_path: Path) -> None:
    study = Case(subject="vheat-t", resolution=224, mode="erf")
    header = a_header(plan=[CASES[0], study], rounds=3)
    assert header.planned == [(CASES[0], 0), (study, 0), (CASES[0], 1), (CASES[0], 2)]
    records = [a_record(CASES[0], round=number) for number in range(3)]
    assert read_run(write_run(tmp_path, header, *records)).missing == [(study, 0)]
    run = read_run(write_run(tmp_path / "whole", header, *records, a_record(study)))
    assert run.complete
    assert run.problems == []


def test_resume_goes_on_and_the_footer_fits(tmp_path: Path) -> None:
    with RunWriter.create(tmp_path, a_header()) as writer:
        writer.append(a_record(CASES[0]))
    with RunWriter.resume(writer.path) as writer:
        assert writer.header == a_header()
        assert writer.done == {(CASES[0].id, 0)}
        for case in CASES[1:]:
            writer.append(a_record(case))
        run = read_run(writer.finish())
    assert run.complete
    assert run.problems == []
    with pytest.raises(UserError, match=r"only a \.partial"):
        RunWriter.resume(run.path)


@pytest.mark.parametrize(
    "changes",
    [
        {"conditions": {"temperature_c": float("nan")}},
        {"samples": {"latency": Samples(unit="s", values=[float("inf")])}},
        {"subject": {"weights": Path("w.pt")}},
        {"case_id": "another"},
    ],
)
def test_what_cannot_be_read_back_is_not_written(tmp_path: Path, changes: dict[str, Any]) -> None:
    with RunWriter.create(tmp_path, a_header()) as writer:
        before = writer.path.read_bytes()
        with pytest.raises(ValueError, match=r"no JSON form|does not belong"):
            writer.append(a_record(**changes))
        assert writer.path.read_bytes() == before


numbers = st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(codec=None), max_size=20)  # half surrogate pairs included
values = st.recursive(
    st.none() | st.booleans() | st.integers() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
metrics = st.builds(Metric, value=numbers, unit=texts, how=texts, low=st.none() | numbers) | st.builds(
    Metric, unit=texts, how=texts, unavailable=texts
)
records = st.builds(
    lambda options, **fields: a_record(Case(subject="x", resolution=1, options=options), **fields),
    options=st.dictionaries(texts, values, max_size=2),
    value=st.floats(-1e300, 1e300),
    status=st.sampled_from(["ok", "oom", "failed"]),
    reason=st.none() | texts,
    metrics=st.dictionaries(texts, metrics, max_size=3),
    samples=st.dictionaries(texts, st.builds(Samples, unit=texts, values=st.lists(numbers)), max_size=2),
    conditions=st.dictionaries(texts, values, max_size=3),
    warnings=st.lists(texts, max_size=2),
)


@settings(max_examples=50, deadline=None, derandomize=True, database=None)
@given(record=records)
def test_any_record_survives_the_file(record: Record, tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda fd: None)  # only for speed
        run = read_run(write_run(tmp_path_factory.mktemp("run"), a_header(plan=[record.case]), record))
    assert run.problems == []
    assert run.records == [record]


def test_two_thousand_records_are_read_quickly(tmp_path: Path) -> None:
    cases = [Case(subject="vheat-t", resolution=n) for n in range(1, 2001)]
    line = a_record().model_dump(mode="json")
    lines = [a_header(plan=cases).model_dump_json()]
    lines += [json.dumps({**line, "case": case.model_dump(mode="json"), "case_id": case.id}) for case in cases]
    path = tmp_path / "big.jsonl.partial"
    path.write_text("\n".join(lines) + "\n")
    assert len(read_run(path).records) == 2000


# Older and newer files


def test_older_files_are_upgraded_step_by_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def renamed(line: dict[str, Any]) -> dict[str, Any]:
        return {**line, "status": line.pop("state")} if line["line"] == "record" else line

    def seconds(line: dict[str, Any]) -> dict[str, Any]:
        return {**line, "elapsed_s": line["elapsed_ms"] / 1000} if line["line"] == "record" else line

    monkeypatch.setitem(UPGRADES, -1, renamed)
    monkeypatch.setitem(UPGRADES, 0, seconds)
    old = a_record().model_dump(mode="json", exclude={"status", "elapsed_s"})
    old |= {"state": "oom", "elapsed_ms": 1500}
    path = tmp_path / "old.jsonl.partial"
    header = a_header(schema_version=-1).model_dump_json()
    path.write_text("\n".join([header, json.dumps(old), '{"line": "record"}', ""]))
    run = read_run(path)
    assert run.header.schema_version == 1
    assert [(record.status, record.elapsed_s) for record in run.records] == [("oom", 1.5)]
    assert f"{path}:3: cannot be upgraded from schema -1" in run.problems[0]
    with pytest.raises(UserError, match="begun with schema -1"):
        RunWriter.resume(path)


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (7, r"x.jsonl was written by a newer vheatbench \(schema 7, .* up to 1\): upgrade vheatbench"),
        (0, "schema 0, too old"),
        ("1", "no schema version"),
        (None, "no schema version"),
        (True, "no schema version"),
    ],
)
def test_other_schemas_are_refused(tmp_path: Path, version: Any, message: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps({**a_header().model_dump(mode="json"), "schema_version": version}) + "\n")
    with pytest.raises(UserError, match=message):
        read_run(path)


# Finding


def test_runs_are_found_by_path_name_id_and_latest(tmp_path: Path) -> None:
    old = write_run(tmp_path, a_header(run_id="aaaa1111", created="2024-01-01T00:00:00Z"))
    new = write_run(tmp_path, a_header(run_id="aaaa2222", suite="alpha", created="2025-01-01T00:00:00Z"))
    renamed = old.rename(tmp_path / "before-the-change.jsonl")
    (tmp_path / "notes.txt").write_text("x")
    assert set(list_runs(tmp_path)) == {new, renamed}
    for name in (str(renamed), renamed.name, "before-the-change", "before", "aaaa1111", "aaaa1"):
        assert find_run(name, tmp_path) == renamed
    for name in ("20250101T000000Z-alpha", "aaaa2"):
        assert find_run(name, tmp_path) == new
    with pytest.raises(UserError, match=r"'aaaa' is the beginning of 2 runs: .*before-the-change.jsonl"):
        find_run("aaaa", tmp_path)
    with pytest.raises(UserError, match=r"no run named 'befor-the-chang'.*nearest: before-the-change.jsonl"):
        find_run("befor-the-chang", tmp_path)
    with pytest.raises(UserError, match="no run named ''"):
        find_run("", tmp_path)


def test_newest_first_also_where_the_suite_sorts_earlier(tmp_path: Path) -> None:
    stamps = ["20240101T000000Z-z", "20260101T000000Z-a", "20250101T000000Z-m"]
    header = a_header().model_dump_json()
    for stamp in stamps:
        (tmp_path / f"{stamp}.jsonl").write_text(header)
    (tmp_path / "20270101T000000Z-live.jsonl.partial").write_text(header)
    (tmp_path / "20260101T000000Z-a.jsonl.partial").write_text("x")  # left by a crash during the rename
    assert [path.name[:4] for path in list_runs(tmp_path)] == ["2027", "2026", "2025", "2024"]
    assert find_run("latest", tmp_path).name == "20270101T000000Z-live.jsonl.partial"


def test_latest_passes_over_what_has_no_header(tmp_path: Path) -> None:
    header = a_header().model_dump_json()
    for number, content in enumerate(["", header[:40], "rubbish\n", '{"line":"record"}\n', "[" * 100_000]):
        (tmp_path / f"2030010{number + 1}T000000Z-x.jsonl.partial").write_text(content)
    os.mkfifo(tmp_path / "20310101T000000Z-x.jsonl")
    for find in (find_run, find_measured):
        with pytest.raises(UserError, match="there are no runs in"):
            find("latest", tmp_path)
    old = write_run(tmp_path, a_header(created="2024-01-01T00:00:00Z"), a_record())
    assert find_run("latest", tmp_path) == find_measured("latest", tmp_path) == old
    assert len(list_runs(tmp_path)) == 6


def test_the_latest_with_records_is_reported(tmp_path: Path) -> None:
    with RunWriter.create(tmp_path, a_header(run_id="empty", created="2027-01-01T00:00:00Z")) as writer:
        empty = writer.path
    assert find_measured("latest", tmp_path) == empty
    with RunWriter.create(tmp_path, a_header(run_id="full", created="2026-01-01T00:00:00Z")) as writer:
        writer.append(a_record())
        full = writer.finish()
    assert find_run("latest", tmp_path) == empty
    assert find_measured("latest", tmp_path) == full
    assert find_measured("empty", tmp_path) == empty


def test_an_exact_id_wins_over_a_longer_one(tmp_path: Path) -> None:
    short = write_run(tmp_path, a_header(run_id="ab"))
    write_run(tmp_path, a_header(run_id="abc"))
    assert find_run("ab", tmp_path) == short


def test_no_runs_and_no_directory(tmp_path: Path) -> None:
    assert list_runs(tmp_path / "none") == []
    with pytest.raises(UserError, match="there are no runs in"):
        find_run("latest", tmp_path / "none")
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="cannot list the runs"):
        list_runs(tmp_path / "file")


# Merging


def shards(**second: Any) -> list[Run]:
    one = a_run(a_header(run_id="1", shard="1/2", plan=CASES[::2]), a_record(CASES[0]), a_record(CASES[2]))
    two_header = a_header(**{"run_id": "2", "shard": "2/2", "plan": CASES[1::2], **second})
    return [a_run(two_header, a_record(CASES[1]), a_record(CASES[3])), one]


def test_shards_make_the_whole_in_planned_order(tmp_path: Path) -> None:
    header, records, warnings = merge_runs(shards())
    assert warnings == []
    assert header.plan == CASES
    assert header.shard is None
    assert header.run_id not in {"1", "2"}
    assert [record.case for record in records] == CASES
    run = read_run(write_merged(shards(), tmp_path))
    assert run.complete
    assert run.problems == []
    assert run.records == records
    sources = run.header.environment["volatile"]["merge"]["runs"]
    assert [source["shard"] for source in sources] == ["2/2", "1/2"]


def test_shards_that_one_command_has_started_keep_it() -> None:
    assert merge_runs(shards()).header.command == "vheatbench run quick"
    assert merge_runs(shards(command="vheatbench run other")).header.command.startswith("vheatbench merge ")
    unsharded = [run for run in shards() if run.header.shard == "1/2"]
    unsharded[0].header.shard = None
    assert merge_runs(unsharded).header.command.startswith("vheatbench merge ")


def test_missing_shards_and_cases_are_said(tmp_path: Path) -> None:
    one = a_run(a_header(shard="2/3", plan=CASES), a_record(CASES[0]))
    header, _, warnings = merge_runs([one])
    assert header.plan == CASES
    assert warnings[0] == "missing shards: 1/3, 3/3"
    assert warnings[1].startswith("3 planned measurements are missing: swin-t 224")
    written = read_run(write_merged([one], tmp_path))
    assert written.header.environment["volatile"]["merge"]["warnings"] == warnings
    assert not written.complete


def test_ok_wins_over_failed_and_else_the_first() -> None:
    plan = {"plan": CASES[:2]}
    oom = a_record(CASES[0], status="oom", reason="x")
    runs = [
        a_run(a_header(**plan), oom, a_record(CASES[1], 1.0)),
        a_run(a_header(**plan), a_record(CASES[0], 2.0), a_record(CASES[1], 2.0)),
        a_run(a_header(**plan), a_record(CASES[0], 3.0), a_record(CASES[1], 3.0, status="failed")),
    ]
    _, records, warnings = merge_runs(runs)
    assert [record.metrics["latency_s"].value for record in records] == [2.0, 1.0]
    assert len(warnings) == 1
    assert warnings[0].startswith("4 records of cases that have another were left out: vheat-t 224")


def test_rounds_are_not_duplicates() -> None:
    record = a_record(CASES[0])
    again = a_record(CASES[0], round=1)
    header = a_header(plan=CASES[:1], rounds=2)
    assert merge_runs([a_run(header, again), a_run(header, record)])[1:] == ([record, again], [])


def test_problems_of_the_parts_are_kept() -> None:
    run = Run(Path("a"), a_header(plan=CASES[:1]), [a_record(CASES[0])], problems=["a:3: not JSON"])
    assert merge_runs([run]).warnings == ["a:3: not JSON"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"suite": "other"}, "suite is 'other' and 'quick'"),
        ({"policy": {"floor": 3}}, "policy is"),
        ({"rounds": 2}, "rounds is 2 and 1"),
        ({"schema_version": 0}, "schema_version is 0 and 1"),
        ({"shard": "2/3"}, "different divisions: of 2, 3"),
        ({"shard": "3/2"}, "'3/2' is not i/n"),
        ({"shard": "zwei"}, "'zwei' is not i/n"),
        ({"environment": {"host": "b", "gpu": {"name": "A100", "driver": "570"}}}, r"\(gpu.name, torch\)"),
    ],
)
def test_what_does_not_belong_together_is_not_merged(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        merge_runs(shards(**change))


def test_volatile_entries_may_differ() -> None:
    environment = {**a_header().environment, "host": "b", "load_average": [9], "volatile": {"x": 1}}
    header, _, warnings = merge_runs(shards(environment=environment))
    assert warnings == []
    assert header.environment["host"] == "2-hosts"
    assert "mixed" not in header.environment


def test_mixed_environments_are_marked_where_allowed() -> None:
    environment = {**a_header().environment, "torch": "2.9"}
    header, records, _ = merge_runs(shards(environment=environment), allow_mixed=True)
    assert header.environment["mixed"] == {"torch": ["2.9", "2.6"]}
    assert [record.conditions for record in records] == [{"environment": {"torch": "2.6"}}, {}] * 2
    assert "environment differs: torch" in records[0].warnings[0]


def test_nothing_to_merge() -> None:
    for runs in ([], [a_run(a_header())]):
        with pytest.raises(UserError, match="nothing to merge"):
            merge_runs(runs)


# Exporting


def test_a_frame_has_one_row_per_record(tmp_path: Path) -> None:
    largest = Case(subject="vit", resolution=(224, 448), batch="largest", options={"patch": 14})
    missing = Metric(unit="bytes", how="NVML", unavailable="no NVML")
    reason = "does not fit\udc80, at all"
    failed = a_record(largest, status="oom", reason=reason, metrics={"memory_bytes": missing})
    named_like_a_column = {"batch": Metric(value=8, unit="images", how="search")}
    run = a_run(a_header(), a_record(), failed, a_record(CASES[1], metrics=named_like_a_column))
    frame = to_frame(run)
    assert list(frame["latency_s"].dropna()) == [0.25]
    assert (frame["latency_s_low"][0], frame["latency_s_high"][0]) == (0.125, 0.5)
    assert frame["memory_bytes"].isna().all()
    assert str(frame["memory_bytes"].dtype) == "float64"
    assert list(frame["batch_policy"]) == ["fixed", "largest", "fixed"]
    assert frame["batch"].isna().tolist() == [False, True, False]
    assert frame["metric_batch"][2] == 8
    assert (frame["height"][1], frame["width"][1], frame["options"][1]) == (224, 448, '{"patch": 14}')
    write_csv(run, tmp_path / "run.csv")
    lines = (tmp_path / "run.csv").read_text().splitlines()
    assert len(lines) == 4
    assert '"does not fit\\udc80, at all"' in lines[2]
    with pytest.raises(UserError, match="cannot be written"):
        write_csv(run, tmp_path / "run.csv" / "below")


def test_a_run_without_records_has_an_empty_frame() -> None:
    frame = to_frame(a_run(a_header()))
    assert len(frame) == 0
    assert "status" in frame.columns


def test_parquet_or_the_way_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = a_run(a_header(), a_record())
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "pyarrow", None)
        with pytest.raises(UserError, match="pip install pyarrow"):
            write_parquet(run, tmp_path / "run.parquet")
    pytest.importorskip("pyarrow")
    import pandas as pd

    write_parquet(run, tmp_path / "run.parquet")
    assert pd.read_parquet(tmp_path / "run.parquet").equals(to_frame(run))


def test_the_store_imports_nothing_heavy() -> None:
    code = (
        "import sys, vheatbench.store; "
        "assert not {'torch', 'timm', 'pandas', 'numpy'} & set(sys.modules), 'heavy import'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_a_suites_name_means_its_newest_run(tmp_path):
    for day, suite in ((1, "smoke"), (3, "smoke"), (2, "smoke"), (4, "smoke-large")):
        header = a_header(suite=suite, created=f"2026-01-0{day}T00:00:00+00:00", run_id=f"0000000{day}")
        with RunWriter.create(tmp_path, header) as writer:
            writer.finish()
    assert find_run("smoke", tmp_path).name.startswith("20260103T000000Z-smoke-")
