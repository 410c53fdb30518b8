"""The GitHub Action and the workflows: pinned, read-only where strangers' code runs, none of their text in a shell."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from support.records import record, run_of
from vheatbench.cli import app, exits
from vheatbench.verdict.compare import compare_runs
from vheatbench.verdict.text import as_dict

ROOT = Path(__file__).parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
ACTION = yaml.safe_load((ROOT / "action.yml").read_text("utf-8"))
NAMES = [path.name for path in WORKFLOWS]
CODES = {0: "pass", 3: "regressed", 4: "inconclusive", 5: "incomparable", 6: "failed", 1: "crashed", 130: "crashed"}


def workflow(name: str) -> dict[str, Any]:
    loaded = yaml.safe_load((ROOT / ".github" / "workflows" / name).read_text("utf-8"))
    loaded["on"] = loaded.pop(True)  # YAML 1.1 reads the key ``on`` as a boolean
    return loaded


def steps_of(loaded: dict[str, Any]) -> list[dict[str, Any]]:
    if "runs" in loaded:
        return loaded["runs"]["steps"]
    return [step for job in loaded["jobs"].values() for step in job["steps"]]


def everything() -> list[tuple[str, dict[str, Any]]]:
    documents = [("action.yml", ACTION), *((name, workflow(name)) for name in NAMES)]
    return [(name, step) for name, document in documents for step in steps_of(document)]


def step(name: str) -> dict[str, Any]:
    return next(one for one in steps_of(ACTION) if one.get("name") == name)


# Structure


def test_all_three_workflows_are_there():
    assert {"ci.yml", "benchmark.yml", "comment.yml"} <= set(NAMES)


def test_every_action_is_pinned_to_a_major_version_of_github_or_lies_here():
    used = [one["uses"] for _, one in everything() if "uses" in one]
    assert used
    for name in used:
        assert name == "./" or re.fullmatch(r"actions/[a-z-]+@v\d+", name), name


def test_no_expression_stands_in_a_script():
    for name, one in everything():
        for script in (one.get("run"), (one.get("with") or {}).get("script")):
            assert "${{" not in (script or ""), (name, script)


def test_what_strangers_name_is_only_used_as_a_name():
    # titles, bodies, branch names of strangers: in no environment either, where a script would read them
    for name, one in everything():
        for value in (one.get("env") or {}).values():
            assert "github.event.pull_request" not in str(value), name
            assert "head_ref" not in str(value), name


@pytest.mark.parametrize("name", NAMES)
def test_permissions_are_said_and_small(name):
    loaded = workflow(name)
    granted = [loaded["permissions"], *(job["permissions"] for job in loaded["jobs"].values() if "permissions" in job)]
    writes = {key for some in granted for key, value in some.items() if value == "write"}
    allowed = {"comment.yml": {"pull-requests"}, "docs.yml": {"pages", "id-token"}}
    assert writes == allowed.get(name, set())
    assert all(job["timeout-minutes"] <= 120 for job in loaded["jobs"].values())


@pytest.mark.parametrize("name", NAMES)
def test_a_checkout_leaves_no_credentials(name):
    for one in steps_of(workflow(name)):
        if one.get("uses", "").startswith("actions/checkout"):
            assert one["with"]["persist-credentials"] is False


def test_code_of_a_pull_request_never_meets_a_token_that_writes():
    for name in NAMES:
        loaded = workflow(name)
        assert "pull_request_target" not in loaded["on"], name
        if "workflow_run" in loaded["on"]:
            assert loaded["permissions"] == {}
            for one in steps_of(loaded):
                assert not one.get("uses", "").startswith(("actions/checkout", "./"))
                assert "run" not in one


def test_the_comment_follows_the_benchmark():
    comment, benchmark = workflow("comment.yml"), workflow("benchmark.yml")
    assert comment["on"]["workflow_run"]["workflows"] == [benchmark["name"]]
    download = steps_of(comment)[0]
    assert download["with"]["name"] == ACTION["inputs"]["artifact"]["default"]
    (job,) = benchmark["jobs"].values()
    checkout, measure = job["steps"]
    assert checkout["with"]["fetch-depth"] >= 2  # HEAD^1 has to be there
    assert set(measure["with"]) <= set(ACTION["inputs"])
    required = {name for name, field in ACTION["inputs"].items() if field.get("required")}
    assert required <= set(measure["with"])


def test_ci_runs_what_the_package_promises():
    (job,) = [job for job in workflow("ci.yml")["jobs"].values() if "strategy" in job]
    promised = re.findall(r"Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text("utf-8"))
    assert job["strategy"]["matrix"]["python"] == promised
    commands = [one["run"] for one in steps_of(workflow("ci.yml")) if "run" in one]
    assert commands == ["make lint", "make test"]
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    assert {"lint", "test", "bench"} <= targets


def test_inputs_and_outputs_are_described_and_used():
    text = (ROOT / "action.yml").read_text("utf-8")
    for name, field in ACTION["inputs"].items():
        assert field["description"]
        assert f"inputs.{name} }}}}" in text, name
    for name, field in ACTION["outputs"].items():
        assert field["value"] == f"${{{{ steps.compare.outputs.{name} }}}}"
    assert all(one["shell"] == "bash" for one in steps_of(ACTION) if "run" in one)


def test_the_command_of_the_action_exists():
    group = typer.main.get_command(app)
    command = group.get_command(typer.Context(group), "ab").load()
    options = {name for parameter in command.params for name in parameter.opts}
    used = set(re.findall(r"(--[a-z-]+)=", step("Compare")["run"]))
    assert {"--suite", "--base", "--verdict"} <= used <= options


# The scripts, run


def run_step(name: str, tmp_path: Path, **variables: str) -> tuple[subprocess.CompletedProcess[str], dict[str, str]]:
    """A step of the action as GitHub runs it, and the outputs it set."""
    output, summary = tmp_path / "output", tmp_path / "summary"
    output.touch()
    variables = {"GITHUB_OUTPUT": str(output), "GITHUB_STEP_SUMMARY": str(summary), **variables}
    script = tmp_path / "step.sh"
    script.write_text(step(name)["run"], encoding="utf-8")
    command = ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", str(script)]
    path = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(command, env={**path, **variables}, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    return done, dict(line.split("=", 1) for line in output.read_text().splitlines())


def program(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.mark.parametrize(("code", "verdict"), CODES.items())
def test_the_exit_code_becomes_a_verdict(tmp_path, code, verdict):
    program(tmp_path, "vheatbench", f'printf "%s\\n" "$@" > arguments; echo "# said" > out/summary.md; exit {code}')
    hostile = '--help"; touch hacked; "$(touch hacked)`touch hacked`'
    given = {"SUITE": "smoke", "BASE": hostile, "MARGIN": "5%", "ROUNDS": "8", "OUT": "out"}
    done, outputs = run_step("Compare", tmp_path, **given)
    assert done.returncode == 0, done.stderr
    assert outputs == {"exit-code": str(code), "verdict": verdict, "compared": str(code != 4).lower()}
    assert (tmp_path / "summary").read_text() == "# said\n"
    assert not (tmp_path / "hacked").exists()
    arguments = (tmp_path / "arguments").read_text().splitlines()
    assert arguments[0] == "ab"
    assert f"--base={hostile}" in arguments


def test_nothing_compared_is_never_green(tmp_path):
    given = {"SUITE": "smoke", "BASE": "HEAD^1", "MARGIN": "5%", "ROUNDS": "8", "OUT": "out"}
    for judged, compared in (("true", "true"), ("false", "false")):
        verdict = f'{{"cases": [{{"judged": {judged}}}]}}'
        program(tmp_path, "vheatbench", f"echo '{verdict}' > out/verdict.json; exit 4")
        _, outputs = run_step("Compare", tmp_path, **given)
        assert (outputs["verdict"], outputs["compared"]) == ("inconclusive", compared)
        done, _ = run_step("Verdict", tmp_path, VERDICT="inconclusive", CODE="4", COMPARED=compared, FAIL_ON="")
        assert done.returncode == (0 if compared == "true" else 4)


def test_the_verdicts_are_the_exit_codes():
    known = {"OK": 0, "REGRESSED": 3, "INCONCLUSIVE": 4, "INCOMPARABLE": 5, "FAILED": 6}
    assert {name: getattr(exits, name) for name in known} == known


@pytest.mark.parametrize(
    ("verdict", "code", "fail_on", "ends"),
    [
        ("pass", 0, "regressed", 0), ("regressed", 3, "regressed incomparable failed", 3),
        ("inconclusive", 4, "regressed incomparable failed", 0), ("inconclusive", 4, "inconclusive", 4),
        ("incomparable", 5, "regressed incomparable failed", 5), ("failed", 6, "regressed", 0),
        ("crashed", 1, "", 1), ("crashed", 2, "regressed", 2), ("regressed", 3, "", 0),
    ],
)  # fmt: skip
def test_which_outcomes_fail_the_job(tmp_path, verdict, code, fail_on, ends):
    done, _ = run_step("Verdict", tmp_path, VERDICT=verdict, CODE=str(code), FAIL_ON=fail_on)
    assert done.returncode == ends
    expected = "" if verdict == "pass" else "::error" if ends else "::warning"
    assert done.stdout.startswith(expected)


def test_an_undecided_comparison_is_no_failure_by_default_but_is_said():
    assert ACTION["inputs"]["fail-on"]["default"].split() == ["regressed", "incomparable", "failed"]


def test_installing(tmp_path):
    program(tmp_path, "python", 'printf "%s\\n" "$@" > arguments')
    run_step("Install", tmp_path, INSTALL="", EXTRA_INSTALL="-e .", ACTION_PATH="/the/action with space")
    assert (tmp_path / "arguments").read_text().splitlines()[-3:] == ["/the/action with space", "-e", "."]
    run_step("Install", tmp_path, INSTALL="vheatbench==0.2 timm", EXTRA_INSTALL="", ACTION_PATH="/x")
    assert (tmp_path / "arguments").read_text().splitlines()[-2:] == ["vheatbench==0.2", "timm"]


# The comment, run by node with a stand-in for GitHub

node = pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
RUN = {
    "html_url": "https://example.org/run/1", "head_sha": "s" * 40, "head_branch": "topic",
    "head_repository": {"owner": {"login": "stranger"}},
}  # fmt: skip
HARNESS = """
const fs = require('fs');
const told = [];
const world = JSON.parse(fs.readFileSync('world.json', 'utf8'));
const list = async (query) => { told.push(['list', query]); return {data: world.pulls}; };
const github = {
  rest: {
    pulls: {list},
    issues: {
      listComments: 'listComments',
      createComment: async (what) => told.push(['create', what]),
      updateComment: async (what) => told.push(['update', what]),
    },
  },
  paginate: async () => world.comments,
};
const context = {repo: {owner: 'o', repo: 'r'}, payload: {workflow_run: world.run}};
const core = {notice: (text) => told.push(['notice', text])};
const main = new (Object.getPrototypeOf(async () => {}).constructor)(
  'github', 'context', 'core', 'require', fs.readFileSync('script.js', 'utf8'));
main(github, context, core, require).then(() => fs.writeFileSync('told.json', JSON.stringify(told)));
"""


def comment(tmp_path: Path, verdict: Any, *, pulls=None, comments=()) -> list[list[Any]]:
    """What the workflow asks of GitHub, given the artifact of a benchmark."""
    script = steps_of(workflow("comment.yml"))[1]["with"]["script"]
    (tmp_path / "artifact").mkdir(exist_ok=True)
    if verdict is not None:
        text = verdict if isinstance(verdict, str) else json.dumps(verdict)
        (tmp_path / "artifact" / "verdict.json").write_text(text)
    pulls = [{"number": 7, "head": {"sha": "s" * 40}}] if pulls is None else pulls
    (tmp_path / "world.json").write_text(json.dumps({"run": RUN, "pulls": pulls, "comments": list(comments)}))
    (tmp_path / "script.js").write_text(script)
    (tmp_path / "harness.js").write_text(HARNESS)
    done = subprocess.run(["node", "harness.js"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads((tmp_path / "told.json").read_text())


def a_verdict(**changes) -> dict[str, Any]:
    row = {"case": "vheat-t 224", "metric": "latency_s", "verdict": "regressed", "gate": {"ratio": 1.25}}
    exact = {"case": "vheat-t 224", "metric": "macs", "verdict": "regressed", "gate": None, "base": 100, "head": 101}
    same = {**row, "case": "vit-s 224", "verdict": "same"}
    return {"outcome": "regressed", "reasons": ["vheat-t 224: slower"], "cases": [row, exact, same], **changes}


@node
def test_a_comment_is_written_once_and_then_edited(tmp_path):
    asked, created = comment(tmp_path, a_verdict())
    assert asked[1]["head"] == "stranger:topic"
    assert (created[0], created[1]["issue_number"]) == ("create", 7)
    body = created[1]["body"]
    assert body.startswith("<!-- vheatbench -->\n**vheatbench: regressed**")
    assert "| `vheat-t 224 ` | `latency_s ` | `regressed ` | +25.0 % |" in body
    assert "| `vheat-t 224 ` | `macs ` | `regressed ` | +1.0 % |" in body
    assert "vit-s" not in body
    assert RUN["html_url"] in body
    ours = {"id": 5, "user": {"type": "Bot"}, "body": body}
    others = {"id": 4, "user": {"type": "User"}, "body": "<!-- vheatbench --> fake"}
    _, updated = comment(tmp_path, a_verdict(outcome="pass"), comments=[others, ours])
    assert (updated[0], updated[1]["comment_id"]) == ("update", 5)
    assert "**vheatbench: pass**" in updated[1]["body"]


@node
@pytest.mark.parametrize(
    "verdict",
    [None, "", "not json", "[]", "null", "7", {"outcome": "great"}, {"outcome": "constructor"}, {"outcome": ["pass"]},
     {"outcome": {"toString": 1}}, {"outcome": "pass", "reasons": "x" * 5_000_000}],
)  # fmt: skip
def test_no_verdict_or_no_sane_one(tmp_path, verdict):
    _, created = comment(tmp_path, verdict)
    assert "no verdict" in created[1]["body"]
    assert len(created[1]["body"]) < 500


@node
def test_an_artifact_that_is_a_link_is_not_followed(tmp_path):
    (tmp_path / "artifact").mkdir()
    (tmp_path / "secret").write_text(json.dumps(a_verdict()))
    (tmp_path / "artifact" / "verdict.json").symlink_to(tmp_path / "secret")
    _, created = comment(tmp_path, None)
    assert "no verdict" in created[1]["body"]


@node
def test_text_of_strangers_stays_text(tmp_path):
    evil = "x` | [click](https://evil.example) <img src=x> @maintainer\n# big \u202e " + "y" * 500
    row = {"case": evil, "metric": evil, "verdict": evil, "gate": {"ratio": "<b>"}}
    hostile = a_verdict(
        reasons=[evil, None, {"a": 1}], cases=[row, None, 5, {"case": {"toString": 1}, "base": "<", "head": 1}]
    )
    body = comment(tmp_path, hostile)[1][1]["body"]
    for line in body.splitlines()[3:]:
        outside = re.sub(r"`[^`]*`", "", line)
        assert not re.search(r"[<@#\[y]", outside), line
    (row_line,) = [line for line in body.splitlines() if line.startswith("| `x")]
    assert row_line.count("|") == 5
    assert "\u202e" not in body


@node
def test_the_comment_reads_what_compare_writes(tmp_path):
    base, head = ([record("vheat-t", 224, 0.1, macs=macs)] for macs in (100.0, 101.0))
    found = as_dict(compare_runs([run_of(base, run_id="a")], [run_of(head, run_id="b")]))
    body = comment(tmp_path, found)[1][1]["body"]
    assert f"**vheatbench: {found['outcome']}**" in body
    assert "| `vheat-t 224 b1 float32 infer ` | `macs ` | `regressed ` | +1.0 % |" in body
    assert "`vheat-t 224 b1 float32 infer: macs regressed" in body


@node
def test_many_rows_fit_into_a_comment(tmp_path):
    row = a_verdict()["cases"][0]
    body = comment(tmp_path, a_verdict(cases=[row] * 100, reasons=["r" * 1000] * 100))[1][1]["body"]
    assert len(body) < 65_536
    assert "60 more rows in the summary" in body


@node
def test_no_open_pull_request_no_comment(tmp_path):
    told = comment(tmp_path, a_verdict(), pulls=[{"number": 8, "head": {"sha": "another"}}])
    assert [what for what, _ in told] == ["list", "notice"]
