"""Runs from Python: carried out, read, fitted, compared and reported by what the commands use."""

from __future__ import annotations

from pathlib import Path

import pytest

import vheatbench as vb
from vheatbench.analysis.scaling import describe_scaling
from vheatbench.store import to_frame
from vheatbench.verdict.compare import compare_runs

RESULTS = Path(__file__).parents[2] / "results" / "example"
SUITE = {
    "subjects": ["test_vit", "op/heat"],
    "axes": {"resolution": [32], "grid": [7, 14], "channels": [8]},
    "policy": {"ceiling_s": 0.05, "warmup_ceiling_s": 0.1},
}


@pytest.fixture(scope="module")
def example() -> vb.store.Run:
    return vb.read_run("resolution-scaling", RESULTS)


def test_a_suite_from_python(tmp_path):
    run = vb.run(SUITE, results=tmp_path, device="cpu", quiet=True, batch=[2])
    assert run.complete
    assert run.path.parent == tmp_path
    assert run.header.suite == "python"
    assert [(r.case.subject, r.case.resolution, r.case.batch, r.status) for r in run.records] == [
        ("test_vit", (32, 32), 2, "ok"),
        ("op/heat", (7, 7), 2, "ok"),
        ("op/heat", (14, 14), 2, "ok"),
    ]
    assert "batch=[2]" in run.header.command
    assert vb.read_run("latest", tmp_path).header.run_id == run.header.run_id
    assert str(run.path) in str(run)


def test_a_run_that_its_budget_cuts_short_is_returned(tmp_path, capsys):
    run = vb.run(SUITE, results=tmp_path, device="cpu", budget_s=0.001)
    assert not run.complete
    assert len(run.missing) > 0
    assert "--resume" in capsys.readouterr().err


def test_studies_of_a_suite(tmp_path):
    run = vb.run(
        {"name": "hot", "studies": [{"heat": {"kind": "kernel", "grid": 8, "kt": [1.0]}}]}, results=tmp_path, quiet=True
    )
    assert [(r.case.mode, r.status) for r in run.records] == [("heat", "ok")]


@pytest.mark.parametrize(
    ("suite", "instead", "said"),
    [
        ("no-such-suite", {}, "unknown suite"),
        ({"subjects": ["vit-tt"]}, {}, "unknown model"),
        ({"subject": ["test_vit"]}, {}, "the suite: unknown key 'subject'"),
        ({"subjects": ["test_vit"], "axes": {"batch": [0]}}, {}, "the suite: axes.batch"),
        ({"subjects": ["test_vit"], "devices": {"tpu": {}}}, {}, "the suite: 'devices'"),
        ("smoke", {"rounds": 0}, "^rounds: "),
        ("smoke", {"no_such_field": 1}, "^no_such_field: "),
    ],
    ids=str,
)
def test_what_cannot_be_is_said_and_nothing_is_written(suite, instead, said, tmp_path):
    with pytest.raises(vb.UserError, match=said):
        vb.run(suite, results=tmp_path, quiet=True, device="cpu", **instead)
    assert list(tmp_path.iterdir()) == []


def test_a_run_as_a_table(example):
    assert example.to_pandas().equals(to_frame(example))


def test_exponents(example):
    found = vb.scaling(example)
    one = found["vheat-t"]
    expected = describe_scaling(one.series.tokens, one.series.values)
    assert one.exponent == expected.power.exponent
    assert one.low < one.exponent < one.high
    assert len(found) == len(found.to_pandas()) == len(list(found))
    assert found.to_pandas().set_index("subject").loc["vheat-t", "exponent"] == one.exponent
    assert str(found).count("\n") == len(found)
    assert "vheat-t" in found._repr_html_()
    macs = vb.scaling(example, "macs")["vheat-t"]
    assert macs.exponent == pytest.approx(describe_scaling(macs.series.tokens, macs.series.values, True).power.exponent)


@pytest.mark.parametrize("metric", ["latency", "erf_a50"])
def test_a_metric_that_no_record_has(example, metric):
    with pytest.raises(vb.UserError, match="latency_s"):
        vb.scaling(example, metric)


def test_a_subject_that_is_not_there(example):
    with pytest.raises(vb.UserError, match="vheat-t"):
        vb.scaling(example)["vheat-tt"]


def test_a_comparison_is_the_command_s(example, tmp_path):
    other = vb.run(SUITE, results=tmp_path, device="cpu", quiet=True)
    found = vb.compare(example, other.path, margin=0.2, results=tmp_path)
    expected = compare_runs([example], [other])
    assert (found.verdict, found.outcome, found.missing) == (expected.verdict, expected.outcome, expected.missing)
    assert found.settings.margin == 0.2
    assert str(found).splitlines()[0].startswith(found.verdict)
    assert found.reasons[0] in str(found)
    assert "<strong>" in found._repr_html_()
    margins = vb.compare(example, other, margin={"peak_memory_bytes": 0.5}).settings
    assert (margins.margin_of("peak_memory_bytes"), margins.margin_of("latency_s")) == (0.5, 0.05)


@pytest.mark.parametrize(("name", "start"), [("a.html", "<!doctype html>"), ("a.md", "#"), ("a.tex", "%")])
def test_reports(example, name, start, tmp_path):
    path = vb.report(example, tmp_path / name)
    assert path == tmp_path / name
    assert path.read_text("utf-8").lower().lstrip().startswith(start)


def test_a_report_of_another_kind(example, tmp_path):
    with pytest.raises(vb.UserError, match=r"\.html, \.md or \.tex"):
        vb.report(example, tmp_path / "a.pdf")
    with pytest.raises(vb.UserError, match="no run"):
        vb.report([], tmp_path / "a.html")
