"""The command line as people meet it: help, bad input, output for eyes and for programs, odd terminals.

Most of it runs with stub workers (``stub_worker``), so that no test waits for torch.
"""

from __future__ import annotations

import csv
import json
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from support import forked
from support.command import Called, assert_refused, finished
from support.records import failed, record
from support.stub_worker import PYTHONPATH, a_suite, measured
from vheatbench import cli
from vheatbench.cli.commands import COMMANDS
from vheatbench.cli.execute import exit_code
from vheatbench.store import read_run

TESTS = Path(__file__).parents[1]
HEAVY = {"torch", "timm", "torchvision", "fvcore", "pandas", "matplotlib", "scipy", "numpy"}


def process_with(
    *arguments: object,
    stub: Path | None = None,
    cwd: Path | None = None,
    run: Callable[..., subprocess.CompletedProcess[bytes]] = forked.run,
    **variables: str,
) -> subprocess.CompletedProcess[bytes]:
    """``python -m vheatbench`` (with a ``stub`` folder: with stub workers) as a process, output as bytes."""
    names = {"PYTHONPATH": PYTHONPATH, "STUB": str(stub), **variables}
    return run(
        [sys.executable, "-m", "support.stub_worker" if stub else "vheatbench", *map(str, arguments)],
        env={**os.environ, **names},
        cwd=cwd or stub,
        capture_output=True,
        timeout=120,
    )


# Help, and what it costs


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help(command: str) -> None:
    result = CliRunner().invoke(cli.app, [*command.split(), "--help"])
    assert result.exit_code == 0
    assert "Usage:" in result.output
    if not command:
        assert all(name in result.output for name in COMMANDS)


def test_no_arguments_is_help_and_version_is_a_line(call: Callable[..., Called]) -> None:
    assert "Usage:" in "".join(call()[1:])
    code, out, err = call("--version")
    assert (code, err) == (0, "")
    assert re.fullmatch(r"vheatbench \d+\.\d+\.\d+\S*\n", out)


def imported_by(code: str, cwd: Path) -> set[str]:
    """Heavy packages that are imported when ``code`` has run."""
    code += "\nimport sys; print('\\n', *{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": PYTHONPATH},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return HEAVY & set(done.stdout.splitlines()[-1].split())


def test_what_needs_no_torch_imports_none(tmp_path: Path) -> None:
    modules = ["cli", "store", "store.read", "store.write", "store.merge", "suites", "suite_file", "run.runner"]
    modules += ["run.progress", "errors", "case", "stats"]
    assert imported_by("\n".join(f"import vheatbench.{name}" for name in modules), tmp_path) == set()
    analysis = [path.stem for path in (TESTS.parent / "vheatbench" / "analysis").glob("[a-z]*.py")]
    assert analysis
    assert imported_by("\n".join(f"import vheatbench.analysis.{name}" for name in analysis), tmp_path) <= {"numpy"}


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0),
        (["run", "--help"], 0),
        (["show"], 0),
        (["show", "--json"], 0),
        (["merge", "latest"], 0),
        (["suites"], 0),
        (["run", "--resume", "nonexistent"], 2),
        (["run", "--suite", "nonexistent"], 2),
        (["run", "--dry-run", "--device", "cpu", "--model", "one"], 0),
        (["run", "--device", "cpu", "--model", "one", "--resolution", "32"], 0),
    ],
)
def test_the_parent_never_imports_torch(tmp_path: Path, arguments: list[str], code: int) -> None:
    finished(tmp_path / "results")
    program = f"""
import os, sys
os.environ["STUB"] = {str(tmp_path)!r}
from vheatbench import cli
from vheatbench.cli.execute import exit_code
from vheatbench.run import process
process.WORKER = "support.stub_worker"
sys.argv = ["vheatbench", *{arguments!r}]
try:
    cli.main()
except SystemExit as ended:
    assert ended.code == {code}, ended.code
"""
    assert imported_by(program, tmp_path) <= {"numpy"}


# Bad input


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--suite", "smok"], "unknown suite 'smok': did you mean 'smoke'?"),
        (["--suite", ""], "unknown suite ''"),
        (["--suite", "./none.yaml"], "suite file './none.yaml' does not exist"),
        (["--model", "unknown"], "unknown model 'unknown'"),
        (["--model", ""], "has an empty value"),
        (["--device", "gpu"], "unknown device 'gpu': auto, cpu, cuda or cuda:INDEX"),
        (["--device", "cpu:1"], "unknown device 'cpu:1'"),
        (["--device", "cuda:"], "unknown device 'cuda:'"),
        (["--dtype", "float8"], "--dtype: 'float8' is not allowed; allowed: "),
        (["--mode", "inference"], "--mode: 'inference' is not allowed; allowed: "),
        (["--memory-format", "nhwc"], "--memory-format: 'nhwc' is not allowed"),
        (["--compile", "maybe"], "--compile: 'maybe' is none of true, false, freezing, cudagraphs"),
        (["--fused-attention", "freezing"], "--fused-attention: 'freezing' is neither true nor false"),
        (["--suite", "smoke", "--model", "op/heat"], "operators are measured on grids of tokens: give grid (--grid 14"),
        (["--model", "op/heat", "--grid", "big"], "--grid: 'big' is no resolution"),
        (["--model", "op/heat", "--grid", "14", "--part", "all"], "--part: 'all' is not allowed; allowed: 'core' or"),
        (["--model", "op/heat", "--grid", "14", "--channels", "0"], "--channels: channels are whole numbers of at"),
        (["--suite", "smoke", "--grid", "14"], "grid, channels and part belong to operators"),
        (["--model", "one", "--part", "core"], "grid, channels and part belong to operators"),
        (["--resolution", ""], "'' has an empty value"),
        (["--resolution", "224,,512"], "'224,,512' has an empty value"),
        (["--resolution", "0"], "--resolution: "),
        (["--resolution", "big"], "--resolution: "),
        (["--resolution", "-224"], "--resolution: "),
        (["--batch", "0"], "--batch: a batch is a whole number of at least 1, or 'largest'"),
        (["--batch", "-1"], "--batch: "),
        (["--batch", "many"], "--batch: 'many' is not allowed"),
        (["--batch", "²"], "--batch: '²' is not allowed"),
        (["--batch", "9" * 5000], "--batch: "),
        (["--shard", "3/2"], "--shard '3/2': give i/n with 1 <= i <= n, for example 2/5"),
        (["--shard", "0/2"], "--shard '0/2'"),
        (["--shard", "1"], "--shard '1'"),
        (["--shard", "5/9", "--model", "one", "--resolution", "32"], "the suite has only 1 groups of cases"),
        (["--devices", "x"], "--devices 'x': give GPU numbers such as 0,1, or all"),
        (["--devices", ""], "--devices ''"),
        (["--devices", "²"], "--devices '²'"),
        (["--devices", "0", "--device", "cuda:1"], "name GPUs both"),
        (["--devices", "0"], "CUDA was asked for, but there is none here"),
        (["--device", "cuda"], "CUDA was asked for, but there is none here"),
        (["--device", "cuda:3"], "CUDA was asked for, but there is none here"),
        (["--rounds", "0"], "--rounds: "),
        (["--timeout", "0"], "--timeout"),
        (["--timeout", "nan"], "--timeout"),
        (["--timeout", "inf", "--device", "cpu"], "--timeout: "),
        (["--memory-limit", "-1"], "--memory-limit"),
        (["--threads", "0"], "--threads: "),
        (["--suite", "smoke", "--out", "file/below", "--device", "cpu"], "cannot write a run to file/below/"),
        (["--resume", "latest"], "there are no runs in results yet"),
        (["--resume", "./file"], "file is not an unfinished run"),
    ],
)
def test_bad_options_of_run_are_one_line(
    call: Callable[..., Called], tmp_path: Path, arguments: list[str], words: str
) -> None:
    (tmp_path / "file").touch()
    assert_refused(call("run", *arguments), words)
    assert not (tmp_path / "results").exists()
    assert measured(tmp_path) == []


@pytest.mark.parametrize("arguments", [["--no-such-option"], ["--rounds", "two"], ["extra"]])
def test_usage_errors_are_exit_code_2(call: Callable[..., Called], arguments: list[str]) -> None:
    code, out, err = call("run", *arguments)
    assert (code, out) == (2, "")
    assert "Usage:" in err
    assert "Traceback" not in err


def cut_in_header(data: bytes) -> bytes:
    return data[: data.index(b"\n") // 2]


def newer(data: bytes) -> bytes:
    return re.sub(rb'"schema_version":\d+', b'"schema_version":99', data, count=1)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (cut_in_header, "is not a readable run file"),
        (newer, "was written by a newer vheatbench (schema 99"),
        (lambda data: b"", "is empty"),
        (lambda data: os.urandom(0) + b"\x00\xff" * 99 + b"\n" + data, "is not a readable run file"),
        (lambda data: b"[]\n", "is not a readable run file"),
    ],
)
def test_unreadable_runs_are_one_line(
    call: Callable[..., Called], tmp_path: Path, damage: Callable[[bytes], bytes], words: str
) -> None:
    path = finished(tmp_path / "results")
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(damage(path.read_bytes()))
    path.unlink()
    for arguments in (["show", partial], ["show", "--json", partial], ["merge", partial], ["run", "--resume", partial]):
        assert_refused(call(*arguments), words)
    assert_refused(call("show", "no-such-run"), "no run named 'no-such-run'")
    assert_refused(call("merge", tmp_path / "results"), "no run named")


def test_a_damaged_line_is_named_and_the_rest_is_shown(call: Callable[..., Called], tmp_path: Path) -> None:
    path = finished(tmp_path / "results")
    lines = path.read_bytes().split(b"\n")
    lines[1] = lines[1][:-20]
    path.write_bytes(b"\n".join(lines))
    code, out, err = call("show")
    assert code == 0
    assert "two" in out
    assert "one" not in out
    assert f"! results/{path.name}:2: not JSON" in err
    code, out, err = call("merge", path)
    assert code == 0
    assert f"! {path}:2: not JSON" in err
    path.write_bytes(b"\n".join(lines)[:-150])
    assert call("show")[0] == 0


def test_a_full_disk_is_one_line_for_merge_too(
    call: Callable[..., Called], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = finished(tmp_path / "results")
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data) if b"header" in bytes(data[:20]) else full())

    def full() -> int:
        raise OSError(28, "No space left on device")

    code, out, err = call("merge", path)
    assert (code, out) == (6, "")
    assert err.startswith("vheatbench: cannot write ")
    assert err.count("\n") == 1


def test_no_room_for_temporary_files_ends_the_run_with_a_hint(
    call: Callable[..., Called], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, count = tempfile.TemporaryFile, iter(range(99))

    def rare(*arguments: Any, **options: Any) -> Any:
        if next(count) >= 6:  # an inspection and a case take three each
            raise OSError(28, "No space left on device", "/tmp/x")
        return real(*arguments, **options)

    monkeypatch.setattr(tempfile, "TemporaryFile", rare)
    code, out, err = call("run", "--device", "cpu", "--quiet", "--suite", a_suite(tmp_path, "one"))
    assert (code, out) == (6, "")
    assert re.fullmatch(
        r"vheatbench: .*No space left on device.*; the 1 records so far are safe: "
        r"continue with `vheatbench run --resume results/\S+\.partial`\n",
        err,
    )
    monkeypatch.undo()


# Output


def test_run_prints_a_table_and_plain_lines_of_progress(call: Callable[..., Called], tmp_path: Path) -> None:
    code, out, err = call("run", "--device", "cpu", "--suite", a_suite(tmp_path, "one", "two"))
    assert code == 0
    assert "stub on an unknown processor" in out
    for heading in ("model", "size", "latency ms", "images/s", "GMAC/image"):
        assert heading in out
    lines = err.splitlines()
    dated = [re.match(r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d \[(\d/\d) \d", line) for line in lines[:4]]
    assert [match and match[1] for match in dated] == ["1/4", "2/4", "3/4", "4/4"]
    assert all(re.search(r": 2 ms  1234 images/s  \[1 warnings\]$", line) for line in lines[:4])
    (path,) = (tmp_path / "results").iterdir()
    assert lines[-2:] == [f"results/{path.name}", f"report: vheatbench report results/{path.name}"]
    assert "! one 32 b1 float32 infer (and 3 more): noisy: the median is known to ±12% only" in lines
    assert read_run(path).complete
    assert "\x1b" not in out + err


def test_skipped_cases_are_in_the_last_line(call: Callable[..., Called], tmp_path: Path) -> None:
    code, _, err = call("run", "--device", "cpu", "--suite", a_suite(tmp_path, "one", "skips"))
    assert code == 0
    assert err.splitlines()[-1].startswith("2 of 4 cases were skipped, not measured: skips ")
    assert err.endswith(": no such size\n")


@pytest.mark.parametrize(
    ("statuses", "code"),
    [
        (["ok", "oom", "skipped"], 0),
        (["oom", "oom"], 6),
        (["skipped"], 6),
        ([], 6),
        (["ok", "failed"], 6),
        (["ok", "timeout"], 6),
    ],
)
def test_a_run_in_which_nothing_was_measured_failed(statuses: list[str], code: int) -> None:
    records = [
        failed("one", 32, status, "because") if status != "ok" else record("one", 32, 0.1) for status in statuses
    ]
    assert exit_code(records) == code


def test_run_json_is_all_there_is_on_stdout(call: Callable[..., Called], tmp_path: Path) -> None:
    suite = a_suite(tmp_path, "one", "fails")
    code, out, err = call("run", "--json", "--quiet", "--device", "cpu", "--suite", suite)
    assert code == 6
    found = json.loads(out)
    assert Path(found["path"]).is_file()
    assert sorted(record["status"] for record in found["records"]) == ["failed", "failed", "ok", "ok"]
    assert len(err.splitlines()) == 2  # quiet: only where the run is


def test_show_for_eyes_and_for_programs(call: Callable[..., Called], tmp_path: Path) -> None:
    path = finished(tmp_path / "results", "one", "two")
    code, out, _ = call("show")
    assert code == 0
    assert out.count("± is half the interval of the median") == 1
    assert "2.000 ±1.0 %" in out
    code, out, _ = call("show", "stubbed", "--json", "--csv", "table.csv")
    assert code == 0
    found = json.loads(out)
    assert found["header"]["run_id"] == "stubbed"
    assert [record["case"]["subject"] for record in found["records"]] == ["one", "two"]
    assert found["problems"] == []
    with (tmp_path / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["subject"] for row in rows] == ["one", "two"]
    assert_refused(call("show", path, "--csv", path / "below.csv"), "cannot be written")


def test_dry_run_shows_costs_and_what_cannot_fit(call: Callable[..., Called], tmp_path: Path) -> None:
    base = ["run", "--dry-run", "--device", "cpu", "--suite", a_suite(tmp_path, "one", "two")]
    code, out, err = call(*base, "--batch", "1,largest")
    assert (code, err) == (0, "")
    assert len(re.findall(r"\bone (?:32|64) b(?:1|largest) ", out)) == 4
    assert out.count("shown for one image") == 4
    assert "about 0:56 in all" in out
    assert "0 cases cannot fit" in out
    code, out, _ = call(*base, "--json")
    found = json.loads(out)
    assert len(found["cases"]) == len(found["forecasts"]) == 4
    assert not (tmp_path / "results").exists()
    assert measured(tmp_path) == []


def test_shards_and_merge_make_the_whole_run(call: Callable[..., Called], tmp_path: Path) -> None:
    base = ["run", "--device", "cpu", "--quiet", "--suite", a_suite(tmp_path, "one", "two", "three", rounds=2)]
    whole = json.loads(call(*base, "--json", "--out", "whole")[1])
    shards = [json.loads(call(*base, "--json", "--shard", f"{i}/2")[1])["path"] for i in (1, 2)]
    code, out, err = call("merge", *shards, "--out", "merged")
    assert (code, err) == (0, "")
    merged = read_run(out.strip())
    assert merged.complete
    key = [(record["case_id"], record["round"]) for record in whole["records"]]
    assert {(record.case_id, record.round) for record in merged.records} == set(key)
    assert len(merged.records) == len(key) == 12
    assert [case.id for case in merged.header.plan] == list(dict.fromkeys(i for i, _ in key))
    code, out, err = call("merge", shards[0], "--out", "merged")
    assert code == 0
    assert "! missing shards: 2/2" in err
    assert_refused(call("merge", shards[0], finished(tmp_path / "other")), "cannot be merged: policy is")


def test_operators_and_ceilings_run_like_models(call: Callable[..., Called], tmp_path: Path) -> None:
    base = ["run", "--device", "cpu", "--suite", a_suite(tmp_path, "one"), "--model", "op/heat,op/attention"]
    code, out, err = call(*base, "--grid", "14,28x7", "--channels", "32", "--part", "layer", "--ceilings", "--json")
    assert code == 0, err
    cases = [record["case"] for record in json.loads(out)["records"]]
    assert [case["subject"] for case in cases[:2]] == ["ceiling/copy", "ceiling/matmul"]
    assert {(c["subject"], *c["resolution"], c["channels"], c["part"]) for c in cases[2:]} == {
        (name, *grid, 32, "layer") for name in ("op/heat", "op/attention") for grid in ((14, 14), (28, 7))
    }
    assert "ceiling/copy 8192 b1 float32 infer: 2 ms" in err
    assert re.search(r"op/heat 28x7 b1 float32 infer layer C=32: 2 ms  \[", err), "a stub counts nothing"
    code, _, err = call(*base, "--grid", "14", "--compile", "freezing", "--quiet")
    assert code == 0, err


def test_suites_lists_every_suite(call: Callable[..., Called]) -> None:
    code, out, err = call("suites", "--json")
    assert (code, err) == (0, "")
    rows = {row["name"]: row for row in json.loads(out)}
    assert rows["smoke"]["cases_cpu"] == 4
    assert all(row["cases_cpu"] and row["cases_cuda"] for row in rows.values()), "a shipped suite is invalid"
    code, out, _ = call("suites")
    assert code == 0
    assert all(name in out for name in rows)


def test_models_lists_by_pattern(call: Callable[..., Called]) -> None:
    code, out, err = call("models", "vheat", "--json")
    assert (code, err) == (0, "")
    assert {"name": "vheat_tiny", "alias": "vheat-t"} in json.loads(out)
    assert "vheat_tiny" in call("models", "vheat-t")[1]
    assert {"name": "op/heat", "alias": None} in json.loads(call("models", "op/*", "--json")[1])
    assert_refused(call("models", "no-such-model-at-all"), "no model matches 'no-such-model-at-all'")


def test_env_is_the_fingerprint(call: Callable[..., Called]) -> None:
    code, out, err = call("env", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["packages"]["torch"]
    code, out, _ = call("env")
    assert code == 0
    assert "torch" in out


# Terminals, pipes, encodings


def in_terminal(arguments: list[str], folder: Path, **variables: str) -> tuple[int, str]:
    """Exit code and everything that a terminal of 80 columns would have shown."""
    main, terminal = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH, "STUB": str(folder), "TERM": "xterm", **variables}
    program = forked.Popen(
        [sys.executable, "-m", "support.stub_worker", *arguments],
        env=environment, cwd=folder, stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True,
    )  # fmt: skip
    os.close(terminal)
    shown = b""
    while True:
        ready, _, _ = select.select([main], [], [], 60)
        assert ready, f"nothing more to see after {shown!r}"
        try:
            data = os.read(main, 65536)
        except OSError:  # the other side is closed
            break
        if not data:
            break
        shown += data
    os.close(main)
    return program.wait(60), shown.decode()


def test_a_terminal_shows_live_progress(tmp_path: Path) -> None:
    options = json.dumps({"model": "one", "options": {"a": "[bold]x[/nothing]"}})
    (tmp_path / "suite.yaml").write_text(
        f'{{"subjects": [{options}, "fails"], "axes": {{"resolution": [32]}}, "policy": {{"turns": false}}}}'
    )
    arguments = ["run", "--device", "cpu", "--suite", "./suite.yaml"]
    code, shown = in_terminal(arguments, tmp_path, COLUMNS="150")
    assert code == 6
    assert "\x1b[?25l" in shown  # the cursor is hidden while the bar is drawn,
    assert "\x1b[?25h" in shown  # and is back
    assert re.search("[012]/2 0:0", shown), "whichever moment it was drawn at"
    assert "●" in shown
    assert "a=[bold]x[/nothing]" in shown
    assert "Traceback" not in shown


@pytest.mark.parametrize("variables", [{"COLUMNS": "20"}, {"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_narrow_plain_and_dumb_terminals(tmp_path: Path, variables: dict[str, str]) -> None:
    arguments = ["run", "--device", "cpu", "--model", "one", "--resolution", "32"]
    code, shown = in_terminal(arguments, tmp_path, **variables)
    assert code == 0, shown
    assert "Traceback" not in shown
    if "NO_COLOR" in variables:
        assert not re.search(r"\x1b\[(3|4|9|10)\d", shown)


def test_a_terminal_that_shows_ascii_only(tmp_path: Path) -> None:
    finished(tmp_path / "results")
    done = process_with("show", stub=tmp_path, PYTHONIOENCODING="ascii")
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False), done.stderr
    assert done.stdout.isascii()
    assert b"2.000 +-1.0 %" in done.stdout
    assert b"known to +-12% only" in done.stderr
    assert json.loads(process_with("show", "--json", stub=tmp_path, PYTHONIOENCODING="ascii").stdout)
    for arguments in (["--help"], ["suites"], ["run", "--device", "cpu", "--model", "one,exits", "--dry-run"]):
        done = process_with(*arguments, stub=tmp_path, PYTHONIOENCODING="ascii")
        assert (done.returncode, done.stdout.isascii()) == (0, True), done.stderr
    # The C locale: Python takes it for UTF-8, unless it is told not to.
    for utf8 in ("1", "0"):
        locale = {"LC_ALL": "C", "PYTHONUTF8": utf8, "PYTHONCOERCECLOCALE": utf8}
        done = process_with("show", stub=tmp_path, run=subprocess.run, **locale)
        assert done.returncode == 0, done.stderr


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/caf\xe9 results"
    try:
        os.mkdir(folder)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    name = os.fsdecode(folder)
    common: dict[str, Any] = {"stub": tmp_path, "run": subprocess.run, "LC_ALL": "C.UTF-8"}
    done = process_with("run", "--device", "cpu", "--model", "one", "--resolution", "32", "--out", name, **common)
    assert done.returncode == 0, done.stderr
    assert b"caf\xe9 results/" in done.stderr
    done = process_with("show", "--json", "--results", name, **common)
    assert json.loads(done.stdout)["records"]
    done = process_with("merge", "latest", "--out", name, **common)
    assert done.returncode == 0, done.stderr
    assert Path(os.fsdecode(done.stdout.strip())).is_file()


def test_a_reader_that_goes_away_early(tmp_path: Path) -> None:
    finished(tmp_path / "results", *(f"subject-{i}" for i in range(1000)))  # more than a pipe holds
    base = f"PYTHONUNBUFFERED= PYTHONPATH='{PYTHONPATH}' {sys.executable} -m support.stub_worker"
    for arguments in ("show", "show --json", "suites"):
        command = f"set -o pipefail; {base} {arguments} 2>errors | head -n 1"
        done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0
        assert done.stdout.count("\n") == 1
        errors = (tmp_path / "errors").read_text()
        assert "Traceback" not in errors
        assert "Exception" not in errors


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's /dev/full")
def test_stdout_that_is_full_or_closed(tmp_path: Path) -> None:
    finished(tmp_path / "results")
    base = f"PYTHONUNBUFFERED= PYTHONPATH='{PYTHONPATH}' {sys.executable} -m support.stub_worker"
    for arguments in ("show --json", "show", "--version"):  # more and less than a buffer holds
        command = f"{base} {arguments} >/dev/full"
        full = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True)
        assert full.returncode == 6
        assert full.stderr.startswith("vheatbench: [Errno 28] No space left on device\n")
        assert "Exception" not in full.stderr
    closed = subprocess.run(["bash", "-c", f"{base} show --json >&-"], cwd=tmp_path, capture_output=True, text=True)
    assert (closed.returncode, closed.stderr) == (0, "")
    both = subprocess.run(["bash", "-c", f"{base} show >&- 2>&-"], cwd=tmp_path)
    assert both.returncode == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's /dev/full")
@pytest.mark.parametrize("streams", ["<&-", "<&- >&- 2>&-", "2>/dev/full", "2>&1 | true"])
def test_a_measurement_ends_well_whatever_its_streams_are(tmp_path: Path, streams: str) -> None:
    base = f"set -o pipefail; PYTHONPATH='{PYTHONPATH}' STUB=. {sys.executable} -m support.stub_worker"
    command = f"{base} run --device cpu --suite {a_suite(tmp_path, 'one')} {streams}"
    assert subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, timeout=120).returncode == 0
    (path,) = (tmp_path / "results").iterdir()
    run = read_run(path)
    assert run.complete
    assert [record.status for record in run.records] == ["ok", "ok"]


def test_a_results_folder_that_is_a_link_with_spaces(call: Callable[..., Called], tmp_path: Path) -> None:
    (tmp_path / "a big disk").mkdir()
    (tmp_path / "my results").symlink_to(tmp_path / "a big disk")
    arguments = ["run", "--device", "cpu", "--quiet", "--model", "one", "--resolution", "32", "--out", "my results"]
    code, _, err = call(*arguments)
    assert code == 0
    (path,) = (tmp_path / "a big disk").iterdir()
    assert err.splitlines()[-1] == f"report: vheatbench report 'my results/{path.name}'"
    header = read_run(path).header
    assert header.command.endswith("--out 'my results'")
    assert call("show", "--results", "my results")[0] == 0
    shutil.rmtree(tmp_path / "a big disk")
    assert_refused(call(*arguments), "cannot write a run to my results/")


# With real workers


def test_a_real_run_from_end_to_end(tmp_path: Path) -> None:
    arguments = ["--suite", "smoke", "--model", "test_vit", "--resolution", "64", "--device", "cpu"]
    done = process_with("run", *arguments, "--json", "--threads", "1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (record,) = json.loads(done.stdout)["records"]
    assert record["status"] == "ok"
    assert record["metrics"]["macs_fvcore"]["value"] > 0
    assert b"[1/1 " in done.stderr
    header = read_run(tmp_path / json.loads(done.stdout)["path"]).header
    assert header.command.startswith("vheatbench run --suite smoke --model test_vit")
    assert header.environment["packages"]["torch"]


def test_real_refusals_and_forecasts(tmp_path: Path) -> None:
    done = process_with("run", "--device", "cpu", "--model", "vheat-t,swni-t", "--resolution", "225", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"vheatbench: ")
    assert done.stderr.count(b"\n") == 1
    assert b"225" in done.stderr
    arguments = ["--model", "test_vheat", "--resolution", "64", "--batch", "1,100000000", "--device", "cpu"]
    done = process_with("run", *arguments, "--dry-run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert b"1 cases cannot fit" in done.stdout
    assert re.search(rb"b100000000 .*cannot fit: \d+ MiB are available", done.stdout)
