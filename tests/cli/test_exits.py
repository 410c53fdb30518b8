"""Exit codes: one table of them in the docs, and every way to fail has the right one."""

from __future__ import annotations

import errno
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from support.command import Called, assert_refused, finished
from support.stub_worker import a_suite
from vheatbench.cli import exits
from vheatbench.errors import StoreError, UserError, WorkerError
from vheatbench.run import process

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| (\d+) \| (\w+) \|", re.M)


def test_the_table_in_the_docs_is_that_of_the_code() -> None:
    table = {int(code): name for code, name in ROW.findall((ROOT / "docs" / "exit-codes.md").read_text("utf-8"))}
    assert table == {value: name.lower() for name, value in vars(exits).items() if name.isupper() and name[0] != "_"}


def test_there_is_one_table_of_them() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    heads = [page.name for page in pages if re.search(r"^\|[^|]*\bcode\b[^|]*\|", page.read_text("utf-8"), re.M)]
    assert heads == ["exit-codes.md"]


def test_the_codes_of_signals_are_128_and_their_number() -> None:
    codes = [exits.HUNG_UP, exits.INTERRUPTED, exits.TERMINATED]
    assert codes == [128 + number for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)]


def test_a_full_disk_is_nobodys_wrong_input() -> None:
    def met(number: int, error: Exception) -> Exception:
        try:
            try:
                raise OSError(number, os.strerror(number))
            except OSError:
                raise error from None
        except Exception as raised:
            return raised

    assert exits.code_of(met(errno.ENOENT, UserError("no such file"))) == 2
    assert exits.code_of(met(errno.ENOSPC, UserError("cannot write"))) == 6
    assert exits.code_of(met(errno.EIO, StoreError("cannot write"))) == 6
    assert exits.code_of(WorkerError("died")) == 6


def test_a_run_that_finds_the_disk_full_at_its_first_byte_failed(
    call: Callable[..., Called], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = finished(tmp_path / "results")

    def full(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    code, out, err = call("merge", path)
    assert (code, out) == (6, "")
    assert err.startswith("vheatbench: cannot write ")


def test_an_inspection_that_dies_failed(
    call: Callable[..., Called], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "WORKER", "no_such_module")
    code, out, err = call("run", "--device", "cpu", "--suite", a_suite(tmp_path, "one"))
    assert (code, out) == (6, "")
    assert "this machine could not be inspected" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("content", ["", "damaged\n", '{"line": "header"}\n'])
def test_a_history_that_cannot_be_read_is_refused(call: Callable[..., Called], tmp_path: Path, content: str) -> None:
    finished(tmp_path / "results")
    (tmp_path / "history.jsonl").write_text(content)
    assert_refused(call("report", "--history", "history.jsonl"), "history.jsonl is no history: ")
    assert not (tmp_path / "reports").exists()
