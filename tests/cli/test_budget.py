"""Time as a budget, and groups that stay together, from the command line; with stub workers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from support import forked
from support.stub_worker import PYTHONPATH, a_suite
from vheatbench.analysis.group_ratios import ratios_of
from vheatbench.cli.parse import duration
from vheatbench.errors import UserError
from vheatbench.store import Run, read_run

QUICK = {"turns": True, "ceiling_s": 0.05, "max_samples": 1000}


def vheatbench(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return forked.run(
        [sys.executable, "-m", "support.stub_worker", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": PYTHONPATH, "STUB": str(folder), "NO_COLOR": "1", "SPAWN": "1"},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )


def the_run(folder: Path) -> Run:
    (path,) = (folder / "results").iterdir()
    return read_run(path)


def test_a_budget_is_spent_on_whole_rounds_and_the_run_says_on_what(tmp_path: Path) -> None:
    begun = time.monotonic()
    done = vheatbench(tmp_path, "run", "--suite", a_suite(tmp_path, "vheat", "twice", **QUICK), "--budget", "6s")
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - begun < 30
    run = the_run(tmp_path)
    assert run.complete
    sessions = Counter(record.session for record in run.records)
    assert set(sessions.values()) == {2}
    assert len(sessions) >= 3, "two groups once, and at least one more round"
    assert {(record.case.size, record.round) for record in run.records} >= {("32", 0), ("64", 0)}
    assert "warm-up and samples" in done.stderr
    assert "time ÷ vheat" in done.stdout
    assert all(found.paired.ratio.value == pytest.approx(2) for found in ratios_of(run.records).values())
    assert json.loads(run.path.read_text().splitlines()[-1])["elapsed_s"] > 0


def test_a_budget_too_short_for_everything_says_what_is_missing_and_goes_on(tmp_path: Path) -> None:
    suite = a_suite(tmp_path, "a", "held", **QUICK)
    (tmp_path / "hold").touch()
    done = vheatbench(tmp_path, "run", "--suite", suite, "--budget", "4s")
    assert done.returncode == 6
    assert "without a 32 b1 float32 infer, held 32" in done.stderr
    assert "--resume" in done.stderr
    run = the_run(tmp_path)
    assert run.path.suffix == ".partial"
    assert run.records == [], "no half of a round"
    (tmp_path / "hold").unlink()
    done = vheatbench(tmp_path, "run", "--resume", "latest", "--budget", "20s")
    assert done.returncode == 0, done.stderr
    assert the_run(tmp_path).complete


def test_a_budget_that_is_spent_is_not_gone_on_with_by_itself(tmp_path: Path) -> None:
    vheatbench(tmp_path, "run", "--suite", a_suite(tmp_path, "a", "b", **QUICK))
    run = the_run(tmp_path)
    lines = run.path.read_text().splitlines()[:-1]
    header = json.loads(lines[0])
    header["policy"]["budget_s"] = 0.001
    run.path.with_name(f"{run.path.name}.partial").write_text("\n".join([json.dumps(header), *lines[1:]]) + "\n")
    run.path.unlink()
    done = vheatbench(tmp_path, "run", "--resume", "latest")
    assert done.returncode == 2
    assert "its budget of 0.001 s is spent" in done.stderr


def test_shards_are_of_whole_groups(tmp_path: Path) -> None:
    suite = a_suite(tmp_path, "a", "b", "c", **QUICK)
    for shard in ("1/2", "2/2"):
        words = ("run", "--suite", suite, "--resolution", "32,64,96", "--shard", shard)
        assert vheatbench(tmp_path, *words).returncode == 0
    runs = [read_run(path) for path in sorted((tmp_path / "results").iterdir())]
    sizes = [{record.case.size for record in run.records} for run in runs]
    assert sorted(sizes, key=len) == [{"64"}, {"32", "96"}]
    assert all(set(Counter(record.session for record in run.records).values()) == {3} for run in runs)


def test_the_dry_run_says_what_a_budget_buys(tmp_path: Path) -> None:
    suite = a_suite(tmp_path, "a", "b", **QUICK)
    # a stub foresees 7 s for each of 4 cases, in 2 groups
    long = vheatbench(tmp_path, "run", "--suite", suite, "--budget", "56s", "--dry-run").stdout
    assert "one round of every group, and about 1.0 more of all or 2 of the slowest" in " ".join(long.split())
    short = vheatbench(tmp_path, "run", "--suite", suite, "--budget", "20s", "--dry-run").stdout
    assert "too short: about 1 of 2 groups fit once" in " ".join(short.split())


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("3m", 180), ("2 min", 120), ("1.5h", 5400), (None, None)]
)
def test_times_are_seconds_minutes_or_hours(text: str | None, seconds: float | None) -> None:
    assert duration(text, "--budget") == seconds


@pytest.mark.parametrize("text", ["", "0", "0s", "-3m", "3 days", "m", "1e3", "nan", "3m 20s"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="give a time such as 90s, 3m"):
        duration(text, "--budget")
