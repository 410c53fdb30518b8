"""Runs in the formats of other tools: right numbers, documented shapes, nothing that failed passed off as a number."""

from __future__ import annotations

import csv
import io
import json
import re

import pandas as pd
import pytest
from typer.testing import CliRunner

from support.records import failed, record
from support.run_files import ENVIRONMENT, entry, write_run
from vheatbench.analysis.history import entries_of
from vheatbench.cli import app
from vheatbench.errors import UserError
from vheatbench.report import exports
from vheatbench.store import read_run
from vheatbench.store.history import add_to_history

EVIL = 'evil | `x` <img src=x onerror=alert(1)> @everyone #1 [a](b) \u202e "q"'


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run with two cases, one of which did not fit; its folder is the working one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    records = [record("vheat-t", 224, 0.1), failed("vit-s", 1024, "oom", "out of memory")]
    return read_run(write_run(tmp_path / "results", records))


def export(*arguments):
    return CliRunner().invoke(app, ["export", "latest", "--format", *map(str, arguments)])


# github-action-benchmark


def test_smaller_is_better(run):
    done = export("gab-smaller")
    rows = {row["name"].split(": ")[1]: row for row in json.loads(done.stdout)}
    assert set(rows) == {"latency_s", "macs", "flops", "params", "peak_memory_bytes"}
    latency = rows["latency_s"]
    assert latency["name"] == "vheat-t 224 b1 float32 infer on cpu: latency_s"
    assert (latency["unit"], latency["value"], latency["range"]) == ("s", 0.1, "± 0.001")
    assert "run aaaa0001" in latency["extra"]
    assert (rows["peak_memory_bytes"]["unit"], rows["peak_memory_bytes"]["value"]) == ("bytes", 100 * 2**20)
    assert "range" not in rows["macs"]
    assert "left out: vit-s 1024 b1 float32 infer on cpu: oom" in done.stderr
    assert "vit-s" not in done.stdout


def test_bigger_is_better(run):
    (row,) = json.loads(export("gab-bigger").stdout)
    assert (row["name"].split(": ")[1], row["unit"], row["value"]) == ("throughput_images_per_s", "images/s", 10.0)


@pytest.mark.parametrize("name", ["gab-smaller", "gab-bigger"])
def test_every_row_is_what_the_action_reads(run, name):
    rows = json.loads(export(name).stdout)
    assert len({row["name"] for row in rows}) == len(rows) > 0
    for row in rows:
        assert set(row) <= {"name", "unit", "value", "range", "extra"}
        assert isinstance(row["value"], float)
        assert all(isinstance(row[key], str) for key in row if key != "value")


def test_nothing_but_failures_is_no_export(tmp_path):
    write_run(tmp_path, [failed("vit-s", 1024, "oom", "out of memory")])
    for name in ("gab-smaller", "gab-bigger", "bmf", "otava"):
        done = CliRunner().invoke(app, ["export", "latest", "--results", str(tmp_path), "--format", name])
        assert isinstance(done.exception, UserError), name
        assert "nothing to export" in str(done.exception)


# Bencher


def bencher_accepts(content) -> None:
    """https://bencher.dev/bmf.json: objects of objects of numbers, ``value`` among them."""
    assert isinstance(content, dict)
    for name, measures in content.items():
        assert 0 < len(name) <= 1024
        assert isinstance(measures, dict)
        for measure, metric in measures.items():
            assert 0 < len(measure) <= 64
            assert "value" in metric
            assert set(metric) <= {"value", "lower_value", "upper_value"}
            assert all(type(number) in (int, float) for number in metric.values())


def test_bencher_metric_format_with_bounds(run):
    done = export("bmf")
    content = json.loads(done.stdout)
    bencher_accepts(content)
    (measures,) = content.values()
    assert measures["latency_s"] == {"value": 0.1, "lower_value": 0.1 * 0.99, "upper_value": 0.1 * 1.01}
    assert measures["throughput_images_per_s"]["value"] == 10.0
    assert measures["peak_memory_bytes"] == {"value": 100 * 2**20}
    assert measures["macs"] == {"value": 4.56e9}
    assert "vit-s 1024" in done.stderr


def test_names_too_long_for_bencher_are_cut():
    long = {"c": {"label": "x" * 2000, "readings": {"m" * 100: (1.0, None, None, 1)}}}
    metrics = {"m" * 100: {"unit": "s"}}
    bencher_accepts(json.loads(exports.bencher_metric_format([entry(1, 0.1, cases=long, metrics=metrics)]).text))


def test_names_are_the_same_in_every_run_and_unique_in_one():
    twins = {key: {"label": "same", "readings": {"latency_s": (0.1, None, None, 1)}} for key in ("a", "b")}
    both = [entry(1, 0.1, cases=twins), entry(1, 0.1, cases=twins, device="cuda")]
    content = json.loads(exports.bencher_metric_format(both).text)
    assert list(content) == ["same on cpu", "same on cpu (b)", "same on cuda", "same on cuda (b)"]


# Otava


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_otava_has_a_row_per_run_in_order_and_no_empty_cell(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    oom = {"case00000001": {"label": "vheat-t 224", "status": "oom"}}
    add_to_history(tmp_path / "results", [entry(2, 0.3), entry(0, 0.1), entry(1, 0.2, cases=oom), entry(3, 0.4)])
    done = CliRunner().invoke(app, ["track", "export"])
    assert done.exit_code == 0, done.output
    rows = rows_of(done.stdout)
    assert list(rows[0]) == ["time", "commit", "run", "vheat-t_224.latency_s"]
    assert [float(row["vheat-t_224.latency_s"]) for row in rows] == [0.1, 0.3, 0.4]
    assert [row["run"] for row in rows] == ["run00000", "run00002", "run00003"]
    assert rows[0]["time"].endswith("+00:00")
    assert all(cell for row in rows for cell in row.values())
    assert "left out: run run00001" in done.stderr


def test_otava_drops_a_column_that_most_runs_lack():
    two = {
        "a": {"label": "old", "readings": {"latency_s": (1.0, None, None, 1)}},
        "b": {"label": "new", "readings": {"latency_s": (2.0, None, None, 1)}},
    }
    made = exports.otava_csv([entry(0, 1, cases={"a": two["a"]}), entry(1, 1, cases={"a": two["a"]}),
                              entry(2, 1, cases=two)])  # fmt: skip
    assert list(rows_of(made.text)[0]) == ["time", "commit", "run", "old.latency_s"]
    assert len(rows_of(made.text)) == 3
    assert made.left_out == ["column new.latency_s: most runs have no value"]


def test_otava_never_mixes_machines_or_branches(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    add_to_history(
        tmp_path / "results", [entry(0, 0.1), entry(1, 0.1, branch="b"), entry(2, 0.1, fingerprint="e" * 12)]
    )
    done = CliRunner().invoke(app, ["track", "export"])
    assert isinstance(done.exception, UserError)
    assert "--branch and --machine" in str(done.exception)
    done = CliRunner().invoke(app, ["track", "export", "--branch", "main", "--machine", "eee", "-o", "o.csv"])
    assert (done.exit_code, done.stdout) == (0, "o.csv\n")
    assert len(rows_of((tmp_path / "o.csv").read_text())) == 1
    for wrong in (["--format", "bmf"], ["--case", "nope"], ["--metric", "nope"]):
        assert isinstance(CliRunner().invoke(app, ["track", "export", "--branch", "b", *wrong]).exception, UserError)


def test_otava_of_one_run(run):
    (row,) = rows_of(export("otava").stdout)
    assert float(row["vheat-t_224_b1_float32_infer.peak_memory_bytes"]) == 100 * 2**20
    assert row["commit"] == ENVIRONMENT["code"]["commit"]


# CSV, Parquet


def test_csv_on_stdout_and_in_a_file(run, tmp_path):
    frame = pd.read_csv(io.StringIO(export("csv").stdout))
    assert list(frame["status"]) == ["ok", "oom"]
    assert export("csv", "-o", "a.csv").stdout == "a.csv\n"
    pd.testing.assert_frame_equal(frame, pd.read_csv("a.csv"))


def test_parquet_needs_a_file(run):
    assert "--output" in str(export("parquet").exception)


# Markdown


def test_markdown(run):
    text = export("markdown").stdout
    assert "| `vheat-t 224 b1 float32 infer` | 10.00 ±1.0 % | 100.0 ±1.0 % | 100.0 | 4.560 | ok |" in text
    assert "| `vit-s 1024 b1 float32 infer` | — | — | — | — | oom |" in text
    header = next(line for line in text.splitlines() if line.startswith("| case"))
    assert header == (
        "| case | throughput (images/s) | latency (ms) | peak memory (MiB) | multiply-adds (GMAC per image) | status |"
    )


def test_markdown_from_outside_stays_text():
    evil = {"c": {"label": EVIL, "readings": {"latency_s": (0.1, None, None, 1)}}}
    text = exports.markdown([entry(1, 0.1, cases=evil, suite=EVIL, machine=EVIL, commit=EVIL)]).text
    for line in text.splitlines():
        outside = re.sub(r"`[^`]*`", "", line)
        assert "<" not in outside
        assert "@" not in outside
        assert "evil" not in outside
    (row,) = [line for line in text.splitlines() if line.startswith("| `evil")]
    assert row.count("|") == 4
    assert "\u202e" not in text


def test_markdown_is_cut_below_the_limit_and_says_so():
    cases = {
        f"{k}": {"label": f"case {k} " + "x" * 90, "readings": {"latency_s": (0.1, None, None, 1)}} for k in range(2000)
    }
    made = exports.markdown([entry(1, 0.1, cases=cases), entry(2, 0.1)])
    assert 60_000 < len(made.text) < exports.MARKDOWN_LIMIT
    shown = made.text.count("`case ")
    assert f"{2000 + 1 - shown - made.text.count('`vheat-t 224`')} rows are left out" in made.text
    assert made.left_out
    assert exports.markdown([entry(1, 0.1)]).left_out == []


# What cannot be


def test_bad_input(run, tmp_path):
    assert "none of gab-smaller" in str(export("xml").exception)
    assert "cannot be written" in str(export("bmf", "-o", run.path / "below").exception)
    write_run(tmp_path / "results", [record("vheat-t", 224, 0.1)], "bbbb", "2026-02-02T03:04:05+00:00", finish=False)
    assert "unfinished" in str(export("bmf").exception)


def test_a_damaged_run_is_exported_with_a_warning(run):
    text = run.path.read_text()
    run.path.write_text(text.replace('"status":"oom"', '"status":"what"'))
    done = export("bmf")
    assert done.exit_code == 0
    assert f"! {run.path.name}" in done.stderr.replace("results/", "")


def test_entries_of_the_run_are_the_source(run):
    (made,) = entries_of(run)
    names = {row["name"] for row in json.loads(exports.github_action_benchmark([made], "lower").text)}
    names |= {row["name"] for row in json.loads(exports.github_action_benchmark([made], "higher").text)}
    assert {name.split(": ")[1] for name in names} == set(made.metrics)
