"""``vheatbench compare`` as people and scripts meet it: names of runs, exit codes, files, bad input."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from support.command import compare
from support.run_files import written
from support.turns import GPU, MACHINE, changed_metric, lost, on, two_runs
from vheatbench.analysis.fingerprint import fingerprint
from vheatbench.cli import app, exits
from vheatbench.cli.compare import EXITS, parse_margins
from vheatbench.errors import UserError
from vheatbench.store import RunWriter
from vheatbench.verdict.compare import compare_runs
from vheatbench.verdict.comparison import Conclusion
from vheatbench.verdict.noise_floor import Floor, NoiseFloor, write_floor

pytestmark = pytest.mark.usefixtures("plain_folder")
OUTCOMES = {"pass": 0, "regressed": 3, "inconclusive": 4, "incomparable": 5, "failed": 6}


def on_gpu(name):
    """Both runs of one case on a GPU, the head on one of this name."""

    def moved(side, number, one):
        case = one.case.model_copy(update={"device": "cuda"})
        return one.model_copy(update={"case": case, "case_id": case.id})

    base, head = two_runs(change=moved)
    return [
        *on([base], environment=MACHINE),
        *on([head], environment={**MACHINE, "gpus": [{**GPU, "name": name}]}),
    ]


def grown(name):
    def change(side, number, one):
        return changed_metric(one, name, value=one.metrics[name].value + 1) if side == "head" else one

    return two_runs(change=change)


def broken():
    return two_runs(change=lambda s, n, one: lost(one, "failed", "ImportError: no x") if s == "head" else one)


@pytest.mark.parametrize(
    ("runs", "code", "said"),
    [
        (two_runs, 0, "same: nothing got worse"),
        (lambda: two_runs({"vheat-t": 1.25}), 3, "vheat-t 224 b1 float32 infer: latency_s regressed"),
        (lambda: grown("macs"), 3, "macs regressed"),
        (lambda: grown("peak_allocated_bytes"), 3, "peak_allocated_bytes regressed"),
        (lambda: two_runs(rounds=1), 4, "1 round of each side"),
        (lambda: on_gpu("NVIDIA A100"), 0, "same: nothing got worse"),
        (lambda: on_gpu("NVIDIA H100"), 5, "GPU: NVIDIA A100 / NVIDIA H100"),
        (broken, 6, "ImportError: no x"),
    ],
)
def test_exit_codes(runs, code, said, tmp_path):
    base, head = written(runs())
    found, out, _ = compare(base, head, "--verdict", "verdict.json", "--markdown", "summary.md")
    assert found == code
    assert said in out
    assert said in Path("summary.md").read_text().replace("\\_", "_")
    assert json.loads(Path("verdict.json").read_text())["exit_code"] == code


def test_every_outcome_has_its_exit_code():
    assert EXITS == OUTCOMES
    assert set(EXITS) == set(Conclusion.__args__)
    assert (exits.OK, exits.REGRESSED, exits.INCONCLUSIVE, exits.INCOMPARABLE, exits.FAILED) == (0, 3, 4, 5, 6)


def test_json_is_one_document_on_stdout_and_warnings_are_on_stderr():
    base, head = two_runs({"swin-t": 1.3})
    (head,) = on([head], environment={**head.header.environment, "packages": {"timm": "1.0.31"}})
    code, out, err = compare(*written([base, head]), "--json")
    document = json.loads(out)
    assert (code, document["exit_code"], document["verdict"]) == (3, 3, "regressed")
    worst = document["cases"][0]
    assert worst["case"].startswith("swin-t")
    assert 1.2 < worst["gate"]["low"] < worst["gate"]["ratio"] < worst["gate"]["high"] < 1.4
    assert document["detectable"]["least"] > 0.05
    assert "! timm: None / 1.0.31" in err


def test_the_table_is_worst_first_and_hides_what_did_not_change():
    paths = written(two_runs({"swin-t": 1.3}))
    _, out, _ = compare(*paths)
    assert out.index("swin-t 224") < out.index("vheat-t 224")
    assert "macs" not in out
    assert "without a change are not shown" in out
    _, out, _ = compare(*paths, "--all")
    assert "macs" in out


def test_runs_are_found_by_id_glob_and_list():
    pieces = [two_runs({"vheat-t": 1.3}, rounds=5, pairing={"id": f"p{i}"}, seed=i) for i in range(2)]
    for i, (base, head) in enumerate(pieces):
        for side, run in (("b", base), ("h", head)):
            day = [r.model_copy(update={"started": r.started.replace("01-02", f"01-0{i + 2}")}) for r in run.records]
            written(on([type(run)(run.path, run.header, day)], run_id=f"{side}{i}aaaaaa"))
    assert compare("b0", "h0")[0] == 4, "five rounds decide nothing"
    assert compare("b0,b1", "h0,h1")[0] == 3
    assert compare("results/*-b?aaaaaa.jsonl", "*-h?aaaaaa.jsonl")[0] == 3
    assert compare("b0,b1,b1", "h0,h1")[0] == 3, "the same run twice counts once"


@pytest.mark.parametrize("name", ["results/none.jsonl", "main", "results/none-*.jsonl", "latest"])
def test_no_baseline_is_never_green_unless_allowed(name):
    (head,) = written(two_runs()[1:], "elsewhere")
    code, out, err = compare(name, head, "--verdict", "verdict.json")
    assert code == 4
    assert "there is no baseline" in out
    assert err.startswith("! no run")
    assert json.loads(Path("verdict.json").read_text())["reasons"] == ["there is no baseline"]
    code, out, _ = compare(name, head, "--allow-missing-baseline")
    assert code == 0
    assert "there is no baseline" in out


def test_allowing_no_baseline_allows_nothing_else():
    assert compare(*written(two_runs({"vheat-t": 1.25})), "--allow-missing-baseline")[0] == 3


def test_a_head_that_is_not_there_is_bad_input():
    base, _ = written(two_runs())
    assert compare(base, "nothing")[0] == 2
    assert compare(base, "results/nothing-*.jsonl")[0] == 2


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"\x00\xff not a run", "not a readable run file"),
        (b'{"line": "header", "schema_version": 99}\n', "newer vheatbench"),
        (b'{"line": "header", "schema_version": 1}\n', "damaged header"),
    ],
)
def test_a_baseline_that_cannot_be_read_is_one_line(content, said):
    base, head = written(two_runs())
    Path(base).write_bytes(content)
    code, out, err = compare(base, head)
    assert (code, out) == (2, "")
    assert said in err
    assert len(err.splitlines()) == 1
    assert compare(base, head, "--allow-missing-baseline")[0] == 2, "a damaged baseline is not a missing one"


def test_damaged_lines_are_said_and_the_rest_is_compared():
    base, head = written(two_runs(rounds=12))
    lines = Path(base).read_bytes().splitlines(keepends=True)
    Path(base).write_bytes(b"".join([*lines[:3], b"garbage\n", *lines[4:]]))
    code, _, err = compare(base, head)
    assert code == 0
    assert f"{base}:4: not JSON" in err
    assert "changed after the run was finished" in err


def test_an_unfinished_head_misses_cases():
    base, head = two_runs()
    (path,) = written([base])
    with RunWriter.create("results", head.header) as writer:
        for one in head.records:
            if one.case.subject == "vheat-t":
                writer.append(one)
        partial = writer.path
    code, out, err = compare(path, partial)
    assert code == 4
    assert "only in the base: swin-t 224" in out
    assert "unfinished run" in err
    assert compare(path, partial, "--allow-missing-cases")[0] == 0


def test_margins_by_metric_and_the_measured_floor():
    runs = two_runs({"vheat-t": 1.25})
    paths = written(runs)
    assert compare(*paths, "--margin", "40%")[0] == 0
    assert compare(*paths, "--margin", "latency_s=40%")[0] == 0
    assert compare(*paths, "--margin", "peak_memory_bytes=40%")[0] == 3
    known = fingerprint(runs[0].header.environment, "cpu")
    write_floor("results", NoiseFloor(fingerprint=known, metrics={"latency_s": Floor(margin=0.093)}, rounds=10))
    code, out, err = compare(*paths)
    assert (code, out) == (2, "")
    assert "--margin 9.3%" in err
    assert compare(*paths, "--margin", "10%")[0] == 3
    Path("results", f"noise-floor-{known}.json").write_text("{")
    assert compare(*paths)[0] == 2


def test_margins_as_people_type_them():
    assert parse_margins(["5%", "latency_s=0.1", "peak_memory_bytes = 20 %"]) == {
        "": 0.05,
        "latency_s": 0.1,
        "peak_memory_bytes": 0.2,
    }
    for wrong in ("five", "-1%", "50", "latency_s=", "nan"):
        with pytest.raises(UserError, match="--margin"):
            parse_margins([wrong])


@pytest.mark.parametrize(
    "arguments",
    [
        ("--margin", "x"),
        ("--metric", "speed"),
        ("--metric", ""),
        ("--confidence", "1"),
        ("--location", "mean"),
        ("--json", "--markdown", "-"),
        ("--verdict", "/dev/null/verdict.json"),
    ],
)
def test_bad_options_end_in_one_line(arguments):
    code, _, err = compare(*written(two_runs()), *arguments)
    assert code == 2
    assert len(err.splitlines()) == 1


def test_markdown_to_stdout():
    code, out, _ = compare(*written(two_runs({"vheat-t": 1.25})), "--markdown", "-")
    assert code == 3
    assert out.startswith("### regressed: something got worse\n")
    assert "| vheat-t 224 b1 float32 infer | latency\\_s |" in out


def test_a_run_against_itself_says_nothing():
    base, _ = written(two_runs())
    code, out, _ = compare(base, base)
    assert code == 4
    assert "both sides" in out


def test_a_real_process_needs_no_torch_and_ends_with_the_code(tmp_path):
    base, head = written(two_runs({"vheat-t": 1.25}))
    blocker = tmp_path / "blocked"
    blocker.mkdir()
    for module in ("torch", "timm", "scipy"):
        (blocker / f"{module}.py").write_text(f"raise ImportError('{module} must not be imported')\n")
    environment = {**os.environ, "PYTHONPATH": str(blocker), "NO_COLOR": "1"}
    command = [sys.executable, "-m", "vheatbench", "compare", base, head, "--verdict", "verdict.json"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert (done.returncode, done.stderr) == (3, "")
    assert "latency_s regressed" in done.stdout
    done = subprocess.run([*command[:4], "none", head], capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode == 4
    shutil.copy(base, tmp_path / "empty.jsonl")
    Path("empty.jsonl").write_text("")
    done = subprocess.run(
        [*command[:4], "empty.jsonl", head], capture_output=True, text=True, env=environment, timeout=60
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_what_the_command_prints_is_what_the_analysis_found():
    runs = two_runs({"vheat-t": 1.25})
    comparison = compare_runs([runs[0]], [runs[1]])
    _, out, _ = compare(*written(runs))
    for reason in comparison.reasons:
        assert reason in out


def asked_of_ab(**request):
    """A pair of `ab` whose head takes 10 % longer, with what it was asked for in both headers."""
    kept = {"id": "p1", "request": {"margins": {"": 0.05}, "metrics": None, "location": "p25", **request}}
    return two_runs({"vheat-t": 1.1}, noise=0.002, pairing={**kept, "looks": [10, 15, 20], "alpha": 0.01})


@pytest.mark.parametrize(
    ("request_", "options", "outcome"),
    [
        ({}, [], "regressed"),
        ({"margins": {"": 0.25}}, [], "pass"),
        ({"margins": {"": 0.05, "latency_s": 0.25}}, [], "pass"),
        ({"metrics": ["macs"]}, [], "pass"),
        ({"margins": {"": 0.25}}, ["--margin", "5%"], "regressed"),
    ],
)
def test_runs_of_ab_are_compared_and_shown_by_what_it_was_asked_for(request_, options, outcome):
    paths = written(asked_of_ab(**request_))
    code, out, _ = compare(*paths, "--json", *options)
    found = json.loads(out)
    assert (found["outcome"], code) == (outcome, OUTCOMES[outcome])
    assert found["settings"]["confidence"] == pytest.approx(1 - 0.01 / 3)
    result = CliRunner().invoke(app, ["report", "--compare", *paths, *options, "-o", "page.html"])
    assert result.exit_code == 0, result.output
    assert f"Verdict: {found['verdict']}" in Path("page.html").read_text("utf-8")


def test_the_location_that_was_asked_for_stands_for_a_round():
    _, out, _ = compare(*written(asked_of_ab(location="min")), "--json")
    assert json.loads(out)["settings"]["location"] == "min"
    _, out, _ = compare(*written(asked_of_ab(location="min"), "again"), "--json", "--location", "median")
    assert json.loads(out)["settings"]["location"] == "median"


def test_the_page_heeds_the_noise_floor_as_the_command_does():
    base, head = on(two_runs(), environment=MACHINE)
    print_ = fingerprint(MACHINE, "cpu")
    write_floor("results", NoiseFloor(fingerprint=print_, metrics={"latency_s": Floor(margin=0.08)}, rounds=10))
    paths = written([base, head])
    page = ["report", "--compare", *paths, "-o", "page.html"]
    for result in (CliRunner().invoke(app, ["compare", *paths]), CliRunner().invoke(app, page)):
        assert isinstance(result.exception, UserError)
        assert "ask for --margin 8% or more" in str(result.exception)
    assert CliRunner().invoke(app, [*page, "--margin", "10%"]).exit_code == 0
    assert "a margin of 10 %" in Path("page.html").read_text("utf-8")


def test_a_header_that_does_not_say_what_was_asked_for_is_one_line():
    code, _, err = compare(*written(asked_of_ab(margins={"": "much"})))
    assert code == 2
    assert "run p1 does not say what it was asked for" in err


def test_a_margin_without_a_verdict_is_refused():
    result = CliRunner().invoke(app, ["report", *written(two_runs()), "--margin", "5%"])
    assert isinstance(result.exception, UserError)
