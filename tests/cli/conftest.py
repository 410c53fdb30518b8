"""What tests of several commands share."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from support import forked
from support.command import Called
from vheatbench import cli
from vheatbench.run import process


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Called]:
    """``vheatbench ARGUMENTS`` in this process, in a folder of its own, with stub workers."""
    monkeypatch.setattr(process, "WORKER", "support.stub_worker")
    monkeypatch.setattr(process, "_Process", forked.Popen)
    monkeypatch.setenv("STUB", str(tmp_path))
    for name in ("CUDA_VISIBLE_DEVICES", "STUB_GPUS", "STUB_TORCH", "COLUMNS", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Called:
        monkeypatch.setattr(sys, "argv", ["vheatbench", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert isinstance(ended.value.code, int)
        return ended.value.code, *capsys.readouterr()

    return call
