"""Tables on the terminal: at every width every cell's text appears whole, whichever command prints it."""

from __future__ import annotations

import ast
import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.box import HEAVY_HEAD
from rich.cells import cell_len
from typer.testing import CliRunner

import vheatbench
from support import forked
from support.heat_records import diffusion_run, diffusivity_run, kernel_run
from support.records import ceiling, failed, operator, record, run_of
from vheatbench.case import Case
from vheatbench.cli import app
from vheatbench.present import terminal
from vheatbench.present.terminal import PIPE_WIDTH, Column, layout, print_warnings, stdout_width
from vheatbench.store import Metric, Record, Run, Samples
from vheatbench.store.schema import Footer

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "results" / "example").glob("*.jsonl"))
WIDTHS = (60, 80, 120)
REASON = "out of memory: the allocator asked for 12.5 GiB where 3.25 GiB were left, and the kernel ended the process"
COLUMNS = (
    Column("model", "name"),
    Column("size", "name", right=True),
    *map(Column, ("latency ms", "images/s", "GMAC/image", "params M", "peak MiB")),
    Column("verdict", "words"),
    Column("notes", "notes"),
)
ROWS = (
    ("vheat-t-official", "224", "79.14 ±5.8%", "12.64 ±5.6%", "4.491", "28.29", "40.71 ±8.1%", "same", "3 rounds"),
    ("日本語の模型", "1024", "—", "", "", "", "", "regressed", REASON),
)
SUM = ("sum", "", "1", "2", "3", "4", "5", "", "")


def is_whole(cell: str, text: str) -> bool:
    """Whether a cell's words follow each other in what was printed: on one line, below it, or in the last column."""
    lines = [re.sub("[┃│]", " ", line) for line in text.splitlines()]
    last = [re.split("[┃│]", line)[-2] for line in text.splitlines() if line.startswith("│")]
    return any(" ".join(cell.split()) in " ".join(" ".join(column).split()) for column in (lines, last))


# The layout


@pytest.mark.parametrize("width", [20, *WIDTHS, 200])
def test_every_cell_is_whole_and_no_line_too_long(width):
    lines = layout(COLUMNS, ROWS, width, HEAVY_HEAD, title="A title " * 12, caption="A caption " * 12, total=SUM)
    shown = "\n".join(line.plain for line in lines)
    for cell in (*(cell for row in (*ROWS, SUM) for cell in row), *(column.heading for column in COLUMNS[:-1])):
        assert is_whole(cell, shown), cell
    assert max(cell_len(line.plain) for line in lines) <= width
    if width >= 60:
        assert all(any(cell in line for line in shown.splitlines()) for row in ROWS for cell in row[2:7])


def test_what_fits_is_a_table_what_does_not_goes_under_its_row_or_into_blocks():
    def kind(width: int) -> tuple[bool, bool]:
        lines = [line.plain for line in layout(COLUMNS, ROWS, width, HEAVY_HEAD)]
        return lines[0].startswith("┏"), any("notes" in line for line in lines)

    assert [kind(width) for width in (200, 130, 100, 80)] == [
        (True, True),
        (True, False),
        (False, False),
        (False, False),
    ]
    aligned = {
        line.plain.index("images/s") for line in layout(COLUMNS, [ROWS[0]] * 3, 80, HEAVY_HEAD) if "images/s" in line
    }
    assert len(aligned) == 1, "a heading stands at the same place in every block"


def test_text_is_taken_literally_on_one_line(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    text = "a[bold]b :warning: [/] c\x1b[31m"
    terminal.print_table([Column("n", "name")], [[f"{text}\nd"]])
    assert "│ a[bold]b :warning: [/] c [31m d │" in capsys.readouterr().out


def test_rows_must_have_a_cell_per_column_and_notes_are_last():
    with pytest.raises(ValueError, match="1 cells for 2 columns"):
        layout([Column("a"), Column("b")], [["1"]], 80, HEAVY_HEAD)
    with pytest.raises(ValueError, match="last column"):
        layout([Column("a", "notes"), Column("b")], [["1", "2"]], 80, HEAVY_HEAD)


def test_a_table_without_rows_is_no_fault():
    assert layout(COLUMNS, [], 200, HEAVY_HEAD)
    assert layout(COLUMNS, [], 20, HEAVY_HEAD) == []


def test_notes_without_any_are_no_column():
    shown = "\n".join(
        line.plain for line in layout([Column("a"), Column("notes", "notes")], [["1", ""]], 80, HEAVY_HEAD)
    )
    assert "notes" not in shown


@pytest.mark.parametrize(
    ("columns", "width"), [("72", 72), ("0", PIPE_WIDTH), ("-5", PIPE_WIDTH), ("wide", PIPE_WIDTH), (None, PIPE_WIDTH)]
)
def test_the_width_of_a_pipe(columns, width, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns is not None:
        monkeypatch.setenv("COLUMNS", columns)
    assert stdout_width() == width


def test_warnings_are_general_ones_first_then_each_text_once(capsys):
    print_warnings(["file:3: a bad line"], [("one", ["noisy", "hot"]), ("two", ["noisy"]), ("three", ["noisy"])])
    assert capsys.readouterr().err.splitlines() == [
        "! file:3: a bad line", "! one (and 2 more): noisy", "! one: hot",
    ]  # fmt: skip


# Every command


def metric(value: float, half: float = 0.0) -> Metric:
    ends = {"low": value - half, "high": value + half, "confidence": 0.95} if half else {}
    return Metric(value=value, unit="u", how="h", **ends)


def made(case: Case, **fields) -> Record:
    return Record(**{"case": case, "case_id": case.id, "status": "ok", "started": "2026-01-02T03:04:05+00:00"} | fields)


def show_run(_: Path) -> None:
    from vheatbench.cli.table import print_run

    half = [
        record("vheat-t", size, 0.0123 * size, case={"dtype": "bfloat16"}, warnings=["noisy"]) for size in (224, 512)
    ]
    print_run(run_of([record("vheat-t-official", 224, 0.0817), *half, failed("swin-t", 2048, "oom", REASON)]))


def show_operators(_: Path) -> None:
    from vheatbench.cli.table import print_run

    print_run(run_of([operator("op/window-attention", 112, 2e-3), ceiling("ceiling/copy", 2e9)]))


def show_erf(_: Path) -> None:
    from vheatbench.studies.erf.table import COLUMNS as columns
    from vheatbench.studies.erf.table import print_fields

    names = [column.name for column in columns]
    cases = [
        Case(subject=name, resolution=224, mode="erf", analysis={"layer": "stages.3", "weights": "random"})
        for name in ("vheat-t-official", "swin-t")
    ]
    values = {name: metric(0.1234 + 0.1 * i, 0.01) for i, name in enumerate(names)}
    good = made(cases[0], metrics=values, conditions={"n_images": 37}, warnings=["few images"])
    print_fields(run_of([good, made(cases[1], status="failed", reason=REASON)]))


def show_heat(folder: Path) -> None:
    from vheatbench.studies.heat.table import print_heat

    for run in (diffusion_run, diffusivity_run, kernel_run):
        found = run(folder)
        case = found.records[-1].case
        print_heat(run_of([*found.records, made(case, status="failed", reason=REASON)]))


def show_accuracies(_: Path) -> None:
    from vheatbench.studies.accuracy.table import print_accuracies

    shown = ("top1_accuracy", "top1_gain", "top5_accuracy", "loss", "throughput_images_per_s", "pipeline_images_per_s")
    values = {name: metric(0.5432 + i / 10, 0.0123) for i, name in enumerate(shown)} | {"images": metric(5_000)}
    taken = [["a long name of another class", 17], ["tench", 3]]
    worst = {"name": "hen-of-the-woods", "correct": 31, "images": 50, "accuracy": 0.62, "low": 0.48, "high": 0.74}
    cases = [Case(subject="vheat-t", resolution=size, mode="eval", analysis={"data": "x"}) for size in (224, 384)]
    good = made(cases[0], metrics=values, conditions={"worst_classes": [{**worst, "taken_for": taken}]})
    print_accuracies(run_of([good, made(cases[1], status="oom", reason=REASON)]))


def show_scores(_: Path) -> None:
    from vheatbench.studies.dense.table import print_scores

    values = {
        name: Metric(value=0.1 + i / 10, unit="share", direction="higher", how="h")
        for i, name in enumerate(("box_map", "box_map_small", "mask_map"))
    }
    case = Case(subject="maskrcnn:vheat-t", resolution=(800, 1333), mode="eval", analysis={"data": "x"})
    about = {"weights": "vheat_t.safetensors (sha256 0123456789ab)"}
    print_scores(run_of([made(case, metrics={**values, "images": metric(5000)}, subject=about)], suite="detect-eval"))


def show_training(_: Path) -> None:
    from vheatbench.metrics import names
    from vheatbench.studies.training.table import print_training

    cases = [Case(subject=name, resolution=32, mode="fit", analysis={"recipe": "x"}) for name in ("vheat-t", "vit-t")]
    values = {name: metric(0.7654 + i, 0.01) for i, name in enumerate(names("training"))}
    samples = {"train_loss": Samples(unit="nat", values=[1.0] * 12)}
    good = made(cases[0], metrics=values, samples=samples, conditions={"name": "a name of the recipe's own"})
    print_training(run_of([good, made(cases[1], status="failed", reason=REASON)]))


def show_comparison(_: Path) -> None:
    from vheatbench.cli.compare import present
    from vheatbench.verdict.compare import compare_runs
    from vheatbench.verdict.settings import Settings

    def side(factor: float):
        gone = [failed("swin-t", 224, "oom", REASON)] if factor > 1 else [record("swin-t", 224, 0.1)]
        return run_of(
            [record("vheat-t-official", 1024, 0.1 * factor, macs=4e9 * factor), *gone], run_id=f"run-{factor}"
        )

    present(compare_runs([side(1.0)], [side(1.25)], Settings()), 3, everything=True)


def show_trends(_: Path) -> None:
    from vheatbench.analysis.history import entries_of, trends_of
    from vheatbench.cli.track import _print_tables

    def finished(latency: float) -> Run:
        run = run_of([record("vheat-t-official", 1024, latency)])
        return Run(run.path, run.header, run.records, Footer(records=1, sha256="0" * 64, finished="2026-01-02"))

    entries = [
        entry.model_copy(update={"run_id": f"{i:08x}", "created": f"2026-01-{i + 1:02}T00:00:00+00:00"})
        for i in range(20)
        for entry in entries_of(finished(0.1 if i < 10 else 0.15))
    ]
    _print_tables(trends_of(entries, metrics=["latency_s", "peak_memory_bytes"]))


def show_plan(_: Path) -> None:
    from vheatbench.cli.plan import print_plan
    from vheatbench.run.task import Forecast, Inspection
    from vheatbench.suite_file import load_suite

    suite = load_suite("smoke", "cpu")
    plan = suite.plan("cpu")
    forecasts = [
        Forecast(case_id=case.id, macs=1.234e9 * (i + 1), peak_bytes=2**30 * (i + 1), seconds=12.0 + i)
        for i, case in enumerate(plan)
    ]
    print_plan(
        suite, plan, Inspection(environment={}, cuda_devices=0, forecasts=forecasts, memory_bytes={"cpu": 2**31})
    )


def show_profile(_: Path) -> None:
    from vheatbench.measure.trace import Operator
    from vheatbench.studies.profile.results import Profile, Row
    from vheatbench.studies.profile.table import print_profile

    rows = [Row(f"stages.{i}.blocks", i, 0.123 * i, 123_000_000 * i, 2**22 * i, 45_600 * i) for i in range(1, 5)]
    kernel = "void at::native::vectorized_elementwise_kernel<4, at::native::SiLU, std::array<char*, 2ul>>(int)"
    operators = [(kernel, Operator(0.05, 12.0)), ("aten::mkldnn_convolution", Operator(0.02, 7.0))]
    case = Case(subject="vheat-t", resolution=224, mode="profile", analysis={"step": "infer", "depth": 2, "steps": 5})
    found = Profile(case, "A processor", "deploy form", "float32", 5, 0.1, 0.2, rows, rows[:2], operators)
    values = {"step_s": metric(0.1, 0.01), "profiled_step_s": metric(0.2, 0.01)}
    print_profile(run_of([made(case, metrics=values, conditions=json.loads(json.dumps(found.conditions())))]))


def show_suites(_: Path) -> None:
    assert CliRunner().invoke(app, ["suites"], catch_exceptions=False).exit_code == 0


def example(path: Path) -> Callable[[Path], None]:
    def show_example(_: Path) -> None:
        done = CliRunner().invoke(app, ["show", str(path)], catch_exceptions=False)
        print(done.stdout)

    return show_example


PRINTERS = (
    show_run, show_operators, show_erf, show_heat, show_accuracies, show_scores, show_training, show_comparison,
    show_trends, show_plan, show_profile, show_suites, *map(example, EXAMPLES),
)  # fmt: skip


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("show", PRINTERS, ids=lambda show: show.__name__)
def test_every_commands_table_is_whole(show, width, tmp_path, monkeypatch, capsys):
    tables: list[tuple[list[Column], list[list[str]], str]] = []
    laid_out = terminal.layout

    def remember(columns, rows, width, box, **texts):
        rows = [list(row) for row in rows]
        lines = laid_out(columns, rows, width, box, **texts)
        total = texts.get("total")
        tables.append((list(columns), rows + ([list(total)] if total else []), "\n".join(line.plain for line in lines)))
        return lines

    monkeypatch.setattr(terminal, "layout", remember)
    monkeypatch.setenv("COLUMNS", str(width))
    show(tmp_path)
    out = capsys.readouterr().out
    assert tables
    for columns, rows, shown in tables:
        if show is not show_suites:
            assert shown in out
        for row in rows:
            for cell in row:
                assert is_whole(cell, shown), cell
        for i, column in enumerate(columns):
            if column.role != "notes" and any(row[i] for row in rows):
                assert is_whole(column.heading, shown), column.heading
        numbers = [cell for row in rows for cell, column in zip(row, columns, strict=True) if column.role == "number"]
        assert all(any(cell in line for line in shown.splitlines()) for cell in numbers)


def test_a_run_on_a_terminal_of_80_columns():
    """In a real terminal, whose size nobody tells but itself."""
    main, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environment = {key: value for key, value in os.environ.items() if key != "COLUMNS"} | {"TERM": "dumb"}
    path = next(path for path in EXAMPLES if "resolution-scaling" in path.name)
    program = forked.Popen(
        [sys.executable, "-m", "vheatbench", "show", str(path)], env=environment, cwd=ROOT, stdin=side, stdout=side,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(side)
    shown = b""
    while select.select([main], [], [], 60)[0]:
        try:
            data = os.read(main, 65536)
        except OSError:  # the other side is closed
            break
        shown += data
    os.close(main)
    assert program.wait(60) == 0
    lines = shown.decode().splitlines()
    assert max(map(len, lines)) <= 80
    for text in (
        "vheat-t-official",
        "size 640",
        "latency ms 337 ±12.2 %",
        "allocated MiB 241.7",
        "3 rounds, 1 warning",
    ):
        assert any(text in line for line in lines), text


def test_one_place_builds_tables():
    """No other module makes a rich table, or a console on stdout."""
    package = Path(vheatbench.__file__).parent
    for path in package.rglob("*.py"):
        if path == Path(terminal.__file__):
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            assert not (isinstance(node, ast.ImportFrom) and node.module == "rich.table"), path
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Console":
                assert "stderr" in {keyword.arg for keyword in node.keywords}, path
