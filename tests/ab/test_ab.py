"""``vheatbench ab``: two versions in turns, from refs to exit code; what is due, faults, going on after Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from support import forked
from support.git_folder import commit, git, worktrees
from vheatbench import cli
from vheatbench.ab import worktree
from vheatbench.ab.arm import Side
from vheatbench.ab.rounds import Answer, Pair, Rounds, Turn
from vheatbench.ab.turns import TurnProgress
from vheatbench.analysis.history import entries_of
from vheatbench.analysis.paired_ratio import turn_log_ratios
from vheatbench.case import Case
from vheatbench.metrics import with_role
from vheatbench.run import process
from vheatbench.store import Metric, Record, read_run

PATIENCE_S = 60
TESTS = Path(__file__).parents[1]

OWN = """
import os, random

MACS = 1000


def model(round_, factor=1.0):
    noise = random.Random(f"{round_} {os.getpid()}")
    return [1e-3 * factor * (1 + 0.01 * noise.random()) for _ in range(9)], MACS


def other(round_):
    return model(round_)
"""


class Answered(NamedTuple):
    code: int
    out: str
    err: str


Ab = Callable[..., Answered]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a repository with a model, a suite and a tag on its commit; light workers."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(worktree.tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setattr(process, "WORKER", "support.ab_worker")
    monkeypatch.setattr(process, "_Process", forked.Popen)
    monkeypatch.setenv("STUB", str(tmp_path))
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    (folder / "own.py").write_text(OWN)
    (folder / "suite.yaml").write_text(json.dumps({"subjects": ["own:model"], "axes": {"resolution": [32]}}))
    commit(folder, "first", tag="v1")
    return folder


@pytest.fixture
def ab(project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ab:
    """The command; ``--suite`` and ``--rounds 8`` unless said otherwise."""

    def run(*arguments: str, suite: str = "./suite.yaml", rounds: str | None = "8") -> Answered:
        usual = [] if "--resume" in arguments else ["--suite", suite, "--device", "cpu"]
        usual += ["--rounds", rounds] if rounds is not None and "--resume" not in arguments else []
        monkeypatch.setattr(sys, "argv", ["vheatbench", "ab", *usual, *arguments])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        assert worktrees(project) == 0
        assert list((project.parent / "tmp").iterdir()) == []
        return Answered(code, said.out, said.err)

    return run


def change(project: Path, old: str, new: str, tag: str = "v2") -> None:
    """A commit with a change in the model."""
    text = (project / "own.py").read_text()
    assert old in text
    (project / "own.py").write_text(text.replace(old, new))
    commit(project, new, tag)


def verdict(project: Path) -> dict[str, Any]:
    return json.loads((project / "verdict.json").read_text())


def log(project: Path) -> list[list[str]]:
    path = project.parent / "log"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


# What is due


def records(pair: Pair, rounds: int, start: int = 0, status: str = "ok") -> list[list[Record]]:
    common = {"status": status, "started": "2026-01-01T00:00:00+00:00"}
    return [
        [Record(case=case, case_id=case.id, round=n, **common) for n in range(start, start + rounds)] for case in pair
    ]  # type: ignore[arg-type]


def a_pair(size: int = 32) -> Pair:
    case = Case(subject="own:model", resolution=size)
    return Pair(case, case)


def the_rounds(answers: dict[int, Answer], pairs: list[Pair] | None = None, seed: int = 0) -> Rounds:
    return Rounds(pairs or [a_pair()], (4, 6), 2, seed, lambda records: answers[len(records)])


def due(rounds: Rounds, taken: list[list[Record]]) -> list[int]:
    return [turn.round for turn in rounds.due(*taken)]


@pytest.mark.parametrize(
    ("answers", "numbers"),
    [
        ({4: "settled"}, [0, 1, 2, 3]),
        ({4: "open", 6: "open"}, [0, 1, 2, 3, 4, 5]),
        ({4: "open", 6: "settled"}, [0, 1, 2, 3, 4, 5]),
        ({4: "flagged"}, [0, 1, 2, 3, 6, 7]),
        ({4: "open", 6: "flagged"}, [0, 1, 2, 3, 4, 5, 6, 7]),
    ],
)
def test_rounds_are_due_until_the_answer_is_there(answers: dict[int, Answer], numbers: list[int]) -> None:
    pair, rounds = a_pair(), the_rounds(answers)
    taken: list[list[Record]] = [[], []]
    seen = []
    while found := due(rounds, taken):
        seen += found
        for side, new in zip(taken, records(pair, 1, found[0]), strict=True):
            side += new
    assert seen == numbers


def test_half_a_round_is_completed() -> None:
    taken = records(a_pair(), 2)
    taken[1].pop()
    assert due(the_rounds({}), taken) == [1]


def test_a_failure_ends_a_case_and_not_the_others() -> None:
    pairs = [a_pair(32), a_pair(64)]
    bad = records(pairs[0], 1, status="oom")
    good = records(pairs[0], 1)
    assert [turn.pair for turn in the_rounds({}, pairs).due(good[0], bad[1])] == [pairs[1]]
    # the other half of a round that was cut off still says whose failure it is
    assert [turn.round for turn in the_rounds({}, pairs[:1]).due([], bad[1])] == [0]


def test_sides_take_turns_in_a_drawn_order() -> None:
    pairs = [a_pair(size) for size in range(32, 32 + 50)]
    rounds = the_rounds({}, pairs)
    firsts = Counter()
    for pair in pairs:
        for number in (0, 2, 4):
            order = [rounds.order(pair, number)[0], rounds.order(pair, number + 1)[0]]
            assert sorted(order) == ["base", "head"]  # of two rounds, each begins one
            firsts[order[0]] += 1
    assert 50 < firsts["base"] < 100
    assert [rounds.order(p, 0) for p in pairs] != [the_rounds({}, pairs, seed=1).order(p, 0) for p in pairs]


def test_progress_counts_down_to_the_first_look() -> None:
    """What comes after it, the rounds decide: no remaining time is foretold there."""
    pairs = [a_pair(32), a_pair(64)]
    rounds = the_rounds({}, pairs)
    first, second = rounds.looks[:2]
    told: list[tuple[float, str, str]] = []

    class Shown:
        def update(self, share: float, count: str, now: str = "") -> None:
            told.append((share, count, now))

        def line(self, label: str, words: str, status: str = "ok") -> None:
            told.append((0.0, status, f"{label}: {words}"))

    progress = TurnProgress(rounds, Shown())
    sides: tuple[Side, Side] = ("base", "head")
    for round_, due in ((0, 2), (0, 1), (first - 1, 1), (first, 2), (rounds.looks[-1], 2)):
        progress.started(Turn(pairs[0], round_, sides), due)
    assert [share for share, _, _ in told] == pytest.approx([0, 0.5 / first, 1 - 0.5 / first, 1, 1])
    assert told[2][1] == f"round {first}/{first}"
    assert told[3][1] == f"round {first + 1}/{second}"
    assert told[4][1] == f"confirmation 1/{rounds.confirmation}"
    bad = records(pairs[0], 1, status="oom")[1][0]
    progress.taken(Turn(pairs[0], first, sides), {"head": bad}, 0)
    assert told[-1][1] == "oom"
    assert told[-1][2].startswith(f"{pairs[0].base.label}: head oom")


def test_cases_are_shuffled_in_every_round() -> None:
    pairs = [a_pair(size) for size in range(32, 40)]
    rounds = the_rounds({}, pairs)
    taken: list[list[Record]] = [[], []]
    orders = []
    for _ in range(2):
        turns = rounds.due(*taken)
        orders.append([turn.pair for turn in turns])
        for pair in pairs:
            for side, new in zip(taken, records(pair, 1, turns[0].round), strict=True):
                side += new
    assert orders[0] != orders[1] != pairs
    assert sorted(p.base.id for p in orders[0]) == sorted(p.base.id for p in pairs)


# Verdicts


def test_identical_code_ends_0(project: Path, ab: Ab) -> None:
    change(project, "MACS = 1000", "MACS = 1000  # the same")
    answer = ab("--base", "v1", "--head", "v2")
    assert answer.code == 0, answer.err
    assert "same: nothing got worse" in answer.out
    assert verdict(project)["outcome"] == "pass"
    assert verdict(project)["exit_code"] == 0
    runs = {side: read_run(next((project / "results").glob(f"*-{side}.jsonl"))) for side in ("base", "head")}
    for side, run in runs.items():
        assert run.complete
        assert run.header.suite == "suite"
        assert run.header.pairing["side"] == side
        commit_ = git(project, "rev-parse", {"base": "v1", "head": "v2"}[side])
        assert run.header.pairing["code"]["commit"] == commit_
        assert run.header.environment["project"] == {"commit": commit_, "dirty": False}
        assert [entry.commit for entry in entries_of(run)] == [commit_]
        assert sorted(record.round for record in run.records) == list(range(8))
    assert runs["base"].header.pairing["id"] == runs["head"].header.pairing["id"]
    assert Counter(side for side, _, _ in log(project)) == {"base": 8, "head": 8}
    # turns, not blocks: neither side is measured three times in a row
    order = "".join(side[0] for side, _, _ in log(project))
    assert "bbb" not in order
    assert "hhh" not in order


def test_slower_code_ends_3_names_the_case_and_is_confirmed(project: Path, ab: Ab) -> None:
    change(project, "factor=1.0", "factor=1.25")
    (project / "suite.yaml").write_text(
        json.dumps({"subjects": ["own:model", "own:other"], "axes": {"resolution": [32]}})
    )
    change(project, "return model(round_)", "return model(round_, 1.0)", tag="v3")
    answer = ab("--base", "v1", "--head", "v3")
    assert answer.code == 3
    assert "own:model 32 b1 float32 infer: latency_s regressed" in answer.out
    worse = [case for case in verdict(project)["cases"] if case["verdict"] == "regressed"]
    assert [(case["case"].split()[0], case["metric"]) for case in worse] == [("own:model", "latency_s")]
    assert 1.2 < worse[0]["gate"]["ratio"] < 1.3
    # fresh rounds for the flagged case alone
    taken = Counter(subject for _, subject, _ in log(project))
    assert taken == {"own:model": 32, "own:other": 16}
    assert "confirmation 8/8" in answer.err


def test_what_fresh_rounds_do_not_confirm_is_no_regression(project: Path, ab: Ab) -> None:
    change(project, "factor=1.0):", "factor=1.0):\n    factor = 1.25 if round_ < 8 else 1.0")
    answer = ab("--base", "v1", "--head", "v2")
    assert answer.code == 0
    assert "not confirmed: 8 fresh rounds say same" in answer.out
    assert verdict(project)["verdict"] == "suspect"


def test_rounds_are_added_while_the_answer_is_open(project: Path, ab: Ab) -> None:
    # 4 % to 6 % slower: within or beyond 5 %, nobody can tell
    change(project, "factor=1.0):", "factor=1.0):\n    factor = 1.03 + 0.04 * (round_ % 2)")
    answer = ab("--base", "v1", "--head", "v2", rounds="10,12")
    assert answer.code == 0
    assert verdict(project)["verdict"] == "suspect"
    assert Counter(side for side, _, _ in log(project)) == {"base": 12, "head": 12}
    assert "[round 11/12 " in answer.err


def test_one_more_multiply_add_ends_3_after_one_round(project: Path, ab: Ab) -> None:
    change(project, "MACS = 1000", "MACS = 1001")
    answer = ab("--base", "v1", "--head", "v2", "--metric", "macs", rounds=None)
    assert answer.code == 3
    assert "1,000 MAC/image" in answer.out
    assert len(log(project)) == 2
    assert ab("--base", "v1", "--head", "v1", "--metric", "macs", rounds=None).code == 0


def test_too_few_rounds_for_timings_end_4(project: Path, ab: Ab) -> None:
    answer = ab("--base", "v1", "--head", "v1", rounds="2")
    assert answer.code == 4
    assert "2 rounds are too few to judge a timing" in answer.err


def test_another_machine_ends_5_before_anything_is_measured(project: Path, ab: Ab) -> None:
    change(project, "MACS = 1000", "MACS = 1000\nMACHINE = 'another processor'")
    answer = ab("--base", "v1", "--head", "v2")
    assert answer.code == 5
    assert "processor: a processor / another processor" in answer.err
    assert log(project) == []
    assert verdict(project)["exit_code"] == 5


def test_a_head_that_cannot_be_imported_ends_6(project: Path, ab: Ab) -> None:
    change(project, "import os, random", "import os, random, nonsense")
    answer = ab("--base", "v1", "--head", "v2", "--json", "--markdown", "summary.md")
    assert answer.code == 6
    assert "No module named 'nonsense'" in (project / "summary.md").read_text()
    assert "head (v2 (" in answer.err
    assert "No module named 'nonsense'" in answer.err
    assert json.loads(answer.out) == verdict(project)
    assert verdict(project)["exit_code"] == 6
    assert log(project) == []


def test_a_base_that_cannot_be_imported_ends_6_too(project: Path, ab: Ab) -> None:
    change(project, "import os, random", "import os, random, nonsense")
    answer = ab("--base", "v2", "--head", "v1")
    assert answer.code == 6
    assert "base (v2 (" in answer.err
    assert "no case could be measured: ModuleNotFoundError: No module named 'nonsense'" in answer.err
    assert len(log(project)) == 2


def test_a_head_that_fails_ends_6_and_its_reason_is_kept(project: Path, ab: Ab) -> None:
    change(project, "noise = ", "raise ValueError('as asked')\n    noise = ")
    answer = ab("--base", "v1", "--head", "v2")
    assert answer.code == 6
    assert "no case could be measured: ValueError: as asked" in answer.err
    head = read_run(next((project / "results").glob("*-head.jsonl")))
    assert [record.status for record in head.records] == ["failed"]
    assert len(log(project)) == 2


def test_a_case_that_no_longer_fits_ends_3(project: Path, ab: Ab) -> None:
    change(project, "noise = ", "raise MemoryError('too much')\n    noise = ")
    answer = ab("--base", "v1", "--head", "v2")
    assert answer.code == 3
    assert "no longer fits" in answer.out


def test_a_model_that_only_the_head_has_is_left_out_aloud(project: Path, ab: Ab) -> None:
    (project / "own.py").write_text(OWN + "\n\ndef new(round_):\n    return model(round_)\n")
    commit(project, "new model", "v2")
    (project / "suite.yaml").write_text(
        json.dumps({"subjects": ["own:model", "own:new"], "axes": {"resolution": [32]}})
    )
    answer = ab("--base", "v1", "--head", "v2", rounds="1")
    assert "base (v1 (" in answer.err
    assert "'own' has no function 'new'" in answer.err
    assert "own:new 32 b1 float32 infer: failed in the base" in answer.out
    assert ab("--base", "v2", "--head", "v1").code == 6


# The working tree


def test_the_working_tree_as_it_is(project: Path, ab: Ab) -> None:
    text = (project / "own.py").read_text()
    (project / "own.py").write_text(text.replace("MACS = 1000", "MACS = 1001"))
    answer = ab("--base", "HEAD", "--metric", "macs", rounds=None)
    assert answer.code == 3
    assert "uncommitted changes" in answer.err
    header = read_run(next((project / "results").glob("*-head.jsonl"))).header
    code = header.pairing["code"]
    assert header.environment["project"] == {"commit": code["commit"], "dirty": True}
    assert (code["ref"], code["changed_files"], len(code["changes"])) == (".", 1, 12)


def test_a_working_tree_that_changes_meanwhile_is_no_version(project: Path, ab: Ab) -> None:
    (project / "own.py").write_text(OWN + "\nopen('own.py', 'a').write('# more')\n")
    answer = ab("--base", "HEAD", "--metric", "macs", rounds=None)
    assert answer.code == 6
    assert "the working tree was changed while it was measured" in answer.err


def test_a_package_in_a_subfolder(project: Path, ab: Ab, monkeypatch: pytest.MonkeyPatch) -> None:
    part = project / "part"
    part.mkdir()
    for name in ("own.py", "suite.yaml"):
        (project / name).rename(part / name)
    commit(project, "moved", "v2")
    (part / "own.py").write_text(OWN.replace("MACS = 1000", "MACS = 1001"))
    monkeypatch.chdir(part)
    assert ab("--base", "v2", "--metric", "macs", rounds=None).code == 3
    assert [folder for folder, _, _ in log(project)] == ["part", "part"]
    answer = ab("--base", "v1", "--metric", "macs", rounds=None)
    assert answer.code == 6
    assert "base (v1 (" in answer.err
    assert "it has no folder part" in answer.err


def test_what_a_worker_starts_finds_the_same_version(project: Path, ab: Ab, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "own.py").write_text(OWN.replace("MACS = 1000", "MACS = int(os.environ['PYTHONPATH'] == os.getcwd())"))
    commit(project, "where?", "v2")
    monkeypatch.setenv("PYTHONPATH", str(project))
    assert ab("--base", "v2", "--metric", "macs", rounds=None).code == 0
    for run in (project / "results").glob("*.jsonl"):
        assert [record.metrics["macs"].value for record in read_run(run).records] == [1]


# Models, and code with itself


def test_two_models(project: Path, ab: Ab) -> None:
    (project / "own.py").write_text(OWN + "\n\ndef quick(round_):\n    return model(round_, 0.5)[0], 1\n")
    answer = ab("--base-model", "own:model", "--head-model", "own:quick")
    assert answer.code == 0
    assert verdict(project)["verdict"] == "improved"
    assert "own:model 32 b1 float32 infer -> own:quick 32 b1 float32 infer" in answer.out
    assert ab("--base-model", "own:quick", "--head-model", "own:model").code == 3


def test_the_noise_floor_is_kept_and_heeded(project: Path, ab: Ab) -> None:
    answer = ab("--aa", rounds="8,12")
    assert answer.code == 0
    assert "identical code against itself, 8 rounds per comparison" in answer.out
    assert Counter(folder for folder, _, _ in log(project)) == {"project": 24}
    floor = json.loads(next((project / "results").glob("noise-floor-*.json")).read_text())
    margin = floor["metrics"]["latency_s"]["margin"]
    assert 0 < margin < 0.01
    assert floor["rounds"] == 8
    refused = ab("--base", "v1", "--margin", "0.01%")
    assert refused.code == 2
    assert "below the noise floor" in refused.err
    assert len(log(project)) == 24
    as_json = ab("--aa", "--base", "v1", "--json")
    assert json.loads(as_json.out)["fingerprint"] == floor["fingerprint"]


# Bad input


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "what is compared? give --base REF"),
        (["--base", "nowhere"], "there is no version 'nowhere' in project"),
        (["--base=-v"], "'-v' is no git ref"),
        (["--base", "v1", "--head=--output=x"], "'--output=x' is no git ref"),
        (["--base", "v1", "--base-model", "a", "--head-model", "b"], "either versions"),
        (["--base-model", "own:model"], "give both --base-model and --head-model"),
        (["--base-model", "own:model", "--head-model", "own:model"], "measured by --aa"),
        (["--aa", "--base", "v1", "--head", "main"], "--aa compares code with itself"),
        (["--base", "v1", "--rounds", "5,3"], "give growing numbers of rounds"),
        (["--base", "v1", "--rounds", "many"], "--rounds 'many'"),
        (["--aa", "--rounds", "5"], "--aa needs 8 rounds or more"),
        (["--base", "v1", "--margin", "much"], "--margin 'much'"),
        (["--base", "v1", "--location", "mean"], "unknown location 'mean'"),
        (["--base", "v1", "--burst", "0"], "--burst 0"),
        (["--base", "v1", "--model", "own:nothing"], "'own' has no function 'nothing'"),
        (["--base-model", "own:model", "--head-model", "own:nothing"], "'own' has no function 'nothing'"),
        (["--base", "v1", "--metric", "macs,nosuch"], "--metric 'nosuch': no case has it; there are: activation_peak"),
        (["--base", "v1", "--margin", "latency=3%"], "--margin 'latency': no case has it; there are:"),
        (["--base", "v1", "--device", "tpu"], "unknown device 'tpu'"),
        (["--base", "v1", "--resume", "abc"], "leave --base out"),
        (["--resume", "abc"], "there is no unfinished comparison 'abc'"),
    ],
)
def test_bad_input_is_one_line_and_code_2(ab: Ab, project: Path, arguments: list[str], words: str) -> None:
    answer = ab(*arguments, rounds=None)
    assert answer.code == 2
    assert words in answer.err
    assert log(project) == []
    assert not (project / "verdict.json").exists()


def test_outside_of_a_repository(ab: Ab, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.parent)
    answer = ab("--base", "v1", suite=str(project / "suite.yaml"))
    assert answer.code == 2
    assert "is in no git repository" in answer.err


# Interruptions


def interrupted(project: Path, with_signal: signal.Signals, *arguments: str) -> Answered:
    """The command, cut off while it measures the second round."""
    search = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    environment = {**os.environ, "PYTHONPATH": search, "TMPDIR": str(project.parent / "tmp")}
    command = [
        sys.executable,
        "-m",
        "support.ab_worker",
        "ab",
        "--suite",
        "./suite.yaml",
        "--device",
        "cpu",
        *arguments,
    ]
    (project.parent / "hold").write_text("1")
    running = forked.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    end = time.monotonic() + PATIENCE_S
    while len(log(project)) < 3:
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)
    running.send_signal(with_signal)
    out, err = running.communicate(timeout=PATIENCE_S)
    (project.parent / "hold").unlink()
    return Answered(running.returncode, out, err)


@pytest.mark.parametrize("with_signal", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_comparison_goes_on(project: Path, ab: Ab, with_signal: signal.Signals) -> None:
    change(project, "factor=1.0", "factor=1.25")
    stopped = interrupted(project, with_signal, "--base", "v1", "--head", "main", "--rounds", "8")
    assert stopped.code == 128 + with_signal
    assert "Traceback" not in stopped.err
    assert worktrees(project) == 0
    assert list((project.parent / "tmp").iterdir()) == []
    partial = sorted(path.name for path in (project / "results").iterdir())
    assert len(partial) == 2
    assert all(name.endswith(".partial") for name in partial)
    id_ = stopped.err.split("vheatbench ab --resume ")[1].split()[0]
    started = len(log(project))
    kept = sum(len(read_run(project / "results" / name).records) for name in partial)
    assert kept == 2, "whole rounds, without the one that was cut off"
    # the branch has moved on meanwhile
    change(project, "factor=1.25", "factor=1.0", tag="v3")
    answer = ab("--resume", id_)
    assert answer.code == 3, answer.err
    assert len(log(project)) == started + (32 - kept)
    for side in ("base", "head"):
        run = read_run(next((project / "results").glob(f"*-{id_}-{side}.jsonl")))
        assert sorted(record.round for record in run.records) == list(range(16))
    again = ab("--resume", id_)
    assert again.code == 2
    assert f"`vheatbench compare {id_}-base {id_}-head` shows it again" in again.err


def test_a_changed_working_tree_is_not_gone_on_with(project: Path, ab: Ab) -> None:
    stopped = interrupted(project, signal.SIGINT, "--base", "v1", "--rounds", "8")
    assert stopped.code == 130
    (project / "own.py").write_text(OWN + "# changed")
    answer = ab("--resume", "latest")
    assert answer.code == 2
    assert "the working tree is not what it was when the comparison began" in answer.err


def test_a_crash_between_the_ends_of_the_two_files(project: Path, ab: Ab) -> None:
    assert ab("--base", "v1", "--head", "v1").code == 0
    whole = next((project / "results").glob("*-head.jsonl"))
    whole.rename(whole.with_name(whole.name + ".partial"))
    # nor is a file in the way whose process was killed before it had a header
    (project / "results" / "20990101T000000Z-suite-h-0123abcd-head.jsonl.partial").touch()
    answer = ab("--resume", "latest")
    assert answer.code == 0, answer.err
    assert len(log(project)) == 16
    assert whole.exists()


def test_one_side_is_not_continued_as_a_run_of_its_own(project: Path, ab: Ab, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ab("--base", "v1", "--head", "v1", rounds="1").code == 4
    whole = next((project / "results").glob("*-head.jsonl"))
    partial = whole.rename(whole.with_name(whole.name + ".partial"))
    monkeypatch.setattr(sys, "argv", ["vheatbench", "run", "--resume", str(partial)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 2


# With torch

TORCH = """
from torch import nn


def tiny():
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
"""


@pytest.mark.slow
def test_one_more_multiply_add_of_a_real_model(project: Path) -> None:
    (project / "own.py").write_text(TORCH)
    (project / "suite.yaml").write_text(
        json.dumps(
            {
                "subjects": ["own:tiny"],
                "axes": {"resolution": [32]},
                "policy": {"min_samples": 3, "ceiling_s": 0.1, "warmup_ceiling_s": 0.1, "threads": 1},
            }
        )
    )
    commit(project, "real", "real")
    (project / "own.py").write_text(TORCH.replace("nn.Linear(4, 10)", "nn.Linear(4, 10), nn.Linear(10, 10)"))
    environment = {**os.environ, "PYTHONPATH": str(TESTS.parent), "TMPDIR": str(project.parent / "tmp")}
    command = [sys.executable, "-m", "vheatbench", "ab", "--base", "real", "--suite", "./suite.yaml"]
    done = forked.run(
        [*command, "--device", "cpu", "--metric", "macs,params"],
        capture_output=True, text=True, env=environment, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert "own:tiny 32 b1 float32 infer: macs regressed" in done.stdout
    assert worktrees(project) == 0
    base, head = (read_run(next((project / "results").glob(f"*-{side}.jsonl"))) for side in ("base", "head"))
    assert isinstance(head.records[0].metrics["latency_s"], Metric)
    assert base.records[0].session == head.records[0].session is not None, "both versions lived side by side"
    assert len(turn_log_ratios(base.records[0], head.records[0])) >= 8
    known = {info.name for info in with_role("timed")}
    assert set(head.records[0].metrics) <= known  # what --metric refuses is never there
