"""The newest run of every suite on one machine: what a page without arguments is made of."""

from __future__ import annotations

from pathlib import Path
from zlib import crc32

import pytest
from typer.testing import CliRunner

from support.records import record, run_of
from vheatbench.cli import app
from vheatbench.errors import UserError
from vheatbench.store import RunWriter
from vheatbench.store.read import newest_of_each_suite


def write(folder: Path, suite: str, created: str, host: str = "here", records: int = 1, **header: object) -> Path:
    run = run_of(
        [record("vheat-t", 224 + 32 * i, 0.1) for i in range(records)],
        suite=suite, created=created, run_id=f"{crc32(repr((suite, created, host)).encode()):08x}",
        environment={"host": host, "cpu": {"name": "A processor", "affinity_cores": 2}, "gpus": []}, **header,
    )  # fmt: skip
    with RunWriter.create(folder, run.header) as writer:
        for one in run.records:
            writer.append(one)
        return writer.finish()


def test_each_suite_once_of_the_machine_of_the_newest(tmp_path: Path) -> None:
    write(tmp_path, "overview", "2026-01-01T00:00:00+00:00")
    old = write(tmp_path, "operators", "2026-01-02T00:00:00+00:00")
    write(tmp_path, "elsewhere", "2026-01-03T00:00:00+00:00", host="another")
    write(tmp_path, "sides", "2026-01-04T00:00:00+00:00", pairing={"id": "p", "side": "base"})
    new = write(tmp_path, "overview", "2026-01-05T00:00:00+00:00")
    write(tmp_path, "stopped", "2026-01-04T12:00:00+00:00", records=0)
    assert newest_of_each_suite(tmp_path) == [new, old]


def test_without_runs_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there are no runs in"):
        newest_of_each_suite(tmp_path / "none")


def test_the_command_puts_them_on_one_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "results", "overview", "2026-01-01T00:00:00+00:00")
    write(tmp_path / "results", "paper", "2026-01-02T00:00:00+00:00")
    result = CliRunner().invoke(app, ["report"])
    assert result.exit_code == 0, result.output
    text = Path("reports/this-machine.html").read_text("utf-8")
    assert "paper and overview on A processor (2 cores)" in text
    assert text.count('<div id="r0-records"') == text.count('<div id="r1-records"') == 1
