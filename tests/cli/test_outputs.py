"""Every output of every command: a full disk leaves the old file whole and ends in 6; nothing writes otherwise."""

from __future__ import annotations

import ast
import gzip
import json
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure
from typer.testing import CliRunner

import vheatbench
from support.command import commands
from support.disks import OLD, small_disk
from support.heat_records import diffusion_run
from support.records import record
from support.run_files import entry, write_run
from vheatbench.cli import app, profile
from vheatbench.cli.export import FORMATS as EXPORTS
from vheatbench.errors import StoreError
from vheatbench.present.style import FORMATS, save
from vheatbench.run.checkpointing import write_checkpoint, write_weights
from vheatbench.store.attachments import attach
from vheatbench.store.history import add_to_history
from vheatbench.studies.heat.animation import save_animation
from vheatbench.studies.heat.results import diffusions_of
from vheatbench.studies.training.losses import LossFile
from vheatbench.verdict.noise_floor import Floor, NoiseFloor, write_floor

COMMANDS = {
    ("report", "--output"): [["--format", name, "latest"] for name in ("html", "md", "tex")],
    ("export", "--output"): [["--format", name, "latest"] for name in EXPORTS],
    ("track export", "--output"): [["--branch", "main"]],
    ("show", "--csv"): [["latest"]],
    ("compare", "--verdict"): [["latest", "latest"]],
    ("compare", "--markdown"): [["latest", "latest"]],
    ("profile", "--trace"): [[], ["--resolution", "32"]],
}
"""Options that name a file, and what goes before them."""
ELSEWHERE = {
    ("ab", "--verdict"): "present of compare",
    ("ab", "--markdown"): "present of compare",
    ("ab", "--results"): "run files, the noise floor",
    ("run", "--results"): "run files",
    ("merge", "--results"): "run files",
    ("erf", "--figures"): "figures",
    ("heat diffuse", "--figures"): "figures, animations",
    ("heat diffusivity", "--figures"): "figures",
    ("heat kernel", "--figures"): "figures",
    ("export-model", "--output"): "test_export_model",
    ("convert", "--output"): "test_convert: a full disk",
    ("train", "--checkpoints"): "checkpoints, weights, losses",
    ("detect train", "--checkpoints"): "checkpoints, weights",
    ("segment train", "--checkpoints"): "checkpoints, weights",
}
"""Options whose files are written by functions that are tried below, or by the writer of runs (test_store_faults)."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a run and a history in ``results``."""
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "results", [record("vheat-t", 224, 0.1), record("vit-s", 224, 0.2)])
    add_to_history("results", [entry(n, 0.1) for n in range(3)])
    steps = record("vheat-t", 224, 0.1)
    case = steps.case.model_copy(update={"mode": "profile", "analysis": {"step": "infer", "depth": 2, "steps": 1}})
    steps = steps.model_copy(update={"case": case, "case_id": case.id})
    path = write_run(tmp_path / "profiled", [steps])
    data = gzip.compress(json.dumps({"traceEvents": [secrets.token_hex(250)]}).encode())
    steps.files["trace"] = attach(path, "trace.json.gz", data)
    path.unlink()
    write_run(tmp_path / "profiled", [steps])
    monkeypatch.setattr(profile, "measure_study", lambda *_: path)
    monkeypatch.setattr("vheatbench.studies.profile.table.print_profile", lambda run: None)
    return tmp_path


@pytest.mark.parametrize(
    ("command", "option", "arguments"),
    [(*key, arguments) for key, several in COMMANDS.items() for arguments in several],
)
def test_a_full_disk_leaves_the_old_file(folder: Path, command: str, option: str, arguments: list[str]) -> None:
    if "parquet" in arguments:
        pytest.importorskip("pyarrow")
    path = folder / "out" / "old.file"
    words = [*command.split(), *arguments, option, str(path)]
    done = CliRunner().invoke(app, words)
    assert path.stat().st_size > 64, done.output
    path.write_bytes(OLD)
    with small_disk():
        full = CliRunner().invoke(app, words)
    assert isinstance(full.exception, StoreError), full.output
    assert "old.file" in str(full.exception)
    assert path.read_bytes() == OLD
    assert [one.name for one in path.parent.iterdir()] == ["old.file"]


def _figure() -> Figure:
    figure = Figure(figsize=(1, 1))
    figure.subplots().plot([0, 1])
    return figure


FUNCTIONS: dict[str, Callable[[Path], Any]] = {
    **{f"x.{suffix}": lambda path, suffix=suffix: save(_figure(), path.with_name("x"), [suffix]) for suffix in FORMATS},
    "attached.npz": lambda path: attach(path.parent.with_name("r.jsonl"), path.name, bytes(1000)),
    "weights.safetensors": lambda path: write_weights(path, {"w": torch.ones(99)}, {}),
    "checkpoint.pt": lambda path: write_checkpoint(path, {"w": torch.ones(99)}),
    "noise-floor-abc.json": lambda path: write_floor(
        path.parent, NoiseFloor(fingerprint="abc", metrics={"latency_s": Floor(margin=0.1)}, rounds=3)
    ),
    "losses.csv": lambda path: LossFile(path).add([(n, 1, 0.5, 0.25) for n in range(99)]),
    "history.jsonl": lambda path: add_to_history(path, [entry(9, 0.5)]),
}
"""File of a folder ``r.files``, and what writes it."""


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_full_disk_leaves_what_functions_write(tmp_path: Path, name: str) -> None:
    path = tmp_path / "r.files" / name
    path.parent.mkdir()
    FUNCTIONS[name](path)
    path.write_bytes(OLD + b"\n")
    with small_disk(), pytest.raises(StoreError):
        FUNCTIONS[name](path)
    assert path.read_bytes() == OLD + b"\n"
    assert [one.name for one in path.parent.iterdir()] == [name]


def test_a_full_disk_leaves_animations(tmp_path: Path) -> None:
    found = diffusions_of(diffusion_run(tmp_path))[0]
    for suffix in (".png", ".gif"):
        (tmp_path / f"film{suffix}").write_bytes(OLD)
    with small_disk(), pytest.raises(StoreError):
        save_animation(found, tmp_path / "film")
    assert {path.read_bytes() for path in tmp_path.glob("*film*")} == {OLD}


def _options(commands: dict[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    for name, command in commands.items():
        yield from _options(getattr(command, "commands", {}), f"{above}{name} ")
        for option in command.params:
            if {"--out", "--output", "--csv", "--markdown", "--verdict"} & set(option.opts):
                yield f"{above}{name}", option.opts[0]


def test_no_option_that_names_an_output_is_left_out() -> None:
    assert set(_options(commands())) == {*COMMANDS, *ELSEWHERE}


WRITES = {"write_text", "write_bytes", "savefig", "to_parquet", "to_csv", "rename", "chmod", "symlink_to"}
READS = {"read_text", "read_bytes"}
ALLOWED = {
    "files.py": "the one that does it",
    "store/write.py": "run files: its own writer, which appends and is resumed",
    "store/history.py": "appends by files.append",
    "present/style.py": "savefig into memory",
    "present/theme.py": "savefig into memory",
    "store/export.py": "tables into memory",
    "cli/export.py": "a table to standard output",
    "studies/dense/answers.py": "appends by files.append",
    "studies/training/losses.py": "appends by files.append",
    "studies/profile/shares.py": "a trace in a temporary folder of its own",
    "measure/memory.py": "/proc",
    "measure/environment.py": "/proc",
    "measure/host.py": "/proc and /sys",
    "measure/precision.py": "/proc",
    "run/process.py": "/proc",
    "run/worker.py": "a pipe",
    "ab/interpreter.py": "the project that is measured",
    "ab/worktree.py": "git's own files",
    "ab/arm.py": "a link in a worktree",
    "report/page.py": "templates of this package",
    "cli/output.py": "/dev/null",
    "slurm/shared.py": "/proc",
    "slurm/folder.py": "small files of its own in the run's folder; appends a line at a time",
    "slurm/processes.py": "the same of a job of several processes",
    "slurm/status.py": "the first and last lines of run files that are being written",
    "cli/slurm.py": "logs that Slurm writes",
    "engines/export.py": "exported models, under a lock and a name of their own until they are whole",
    "engines/model_file.py": "an exported model, copied into a whole file",
    "store/slim.py": "run files that stay open while their lines are copied",
}


def _calls(path: Path) -> Iterator[str]:
    text = path.read_text(encoding="utf-8")
    if not any(word in text for word in (*WRITES, *READS, "open(", "os.replace", "flock")):
        return  # to parse all files takes seconds
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Attribute):
            owner = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
            name = node.func.attr
            if name in WRITES | READS and owner != "files":
                yield name
            elif (owner, name) in (("os", "replace"), ("os", "open"), ("fcntl", "flock")):
                yield f"{owner}.{name}"
            elif name == "open" and owner != "Image":
                modes = [one.value for one in node.args if isinstance(one, ast.Constant) and isinstance(one.value, str)]
                if any(set(mode) <= set("rwxab+t") for mode in modes):
                    yield f"open({modes})"
        elif isinstance(node.func, ast.Name) and node.func.id == "open":
            yield "open"


def test_nothing_writes_or_reads_files_in_a_way_of_its_own() -> None:
    root = Path(vheatbench.__file__).parent
    found = {path.relative_to(root).as_posix(): set(_calls(path)) for path in root.rglob("*.py")}
    alone = {name: calls for name, calls in found.items() if calls and name not in ALLOWED}
    assert not alone, "use vheatbench.files"
