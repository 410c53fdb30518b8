"""The fingerprint: complete, publishable, and comparable where it should be."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.fake_pynvml import FakeGpu, FakePynvml
from support.git_folder import commit, git
from vheatbench.analysis.fingerprint import facts
from vheatbench.measure import environment as module
from vheatbench.measure.checkout import checkout, checkout_at
from vheatbench.measure.environment import environment
from vheatbench.run.runner import inspect_machine


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setitem(sys.modules, "pynvml", FakePynvml([FakeGpu()]))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("VHEATBENCH_HOST", "node7")
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    monkeypatch.setenv("LD_PRELOAD", "/opt/lib/libjemalloc.so.2:/usr/lib/libfoo.so")
    monkeypatch.setenv("TORCH_HOME", "/home/somebody/.cache/torch")
    monkeypatch.setenv("TIMM_API_TOKEN", "hush")
    return environment()


def test_the_fingerprint(found: dict[str, Any]) -> None:
    assert json.loads(json.dumps(found)) == found
    assert found["host"] == "node7"
    assert found["python"].startswith("3.")
    assert found["packages"]["torch"]
    assert found["packages"]["vheatbench"]
    assert found["torch"]["default_threads"] >= 1
    assert found["torch"]["cpu_capability"]
    assert found["cpu"]["kind"] == "cpu"
    assert [gpu["name"] for gpu in found["gpus"]] == ["NVIDIA H200"]
    assert found["gpus_note"] is None
    assert set(found["volatile"]) == {"load_average", "uptime_s", "free_memory_bytes", "cpu_frequency_mhz"}


def test_variables_without_folders_and_secrets(found: dict[str, Any]) -> None:
    variables = found["variables"]
    assert variables["OMP_NUM_THREADS"] == "4"
    assert variables["LD_PRELOAD"] == "libjemalloc.so.2:libfoo.so"
    assert variables["TORCH_HOME"] == "torch"
    assert "hush" not in json.dumps(found)
    assert "PATH" not in variables


def test_no_path_of_the_machine(found: dict[str, Any]) -> None:
    text = json.dumps(found)
    for path in (sys.executable, sys.prefix, os.getcwd(), str(Path.home()) + "/", "/home/somebody", "/opt/lib"):
        assert path not in text


def test_the_hosts_name_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VHEATBENCH_HOST", raising=False)
    monkeypatch.setattr("socket.gethostname", lambda: "here")
    assert environment()["host"] == "here"


def test_gpus_without_a_known_order_are_listed_with_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    monkeypatch.setitem(sys.modules, "pynvml", FakePynvml([FakeGpu(), FakeGpu(uuid="GPU-b", bus=2)]))
    gpus, note = module._gpus()
    assert [gpu["name"] for gpu in gpus] == ["NVIDIA H200"] * 2
    assert "index" not in gpus[0]
    assert "PCI_BUS_ID" in str(note)
    monkeypatch.setitem(sys.modules, "pynvml", FakePynvml([], init_error="DriverNotLoaded"))
    gpus, note = module._gpus()
    assert gpus == []
    assert "not loaded" in str(note)


def test_what_must_match(found: dict[str, Any]) -> None:
    key = facts(found, "cuda")
    assert json.loads(json.dumps(key)) == key
    assert key["GPU"] == ["NVIDIA H200"]
    assert key["driver"] == "570.86.15"
    assert key["Python"].count(".") == 1
    assert "OMP_NUM_THREADS=4" in key["variables"]

    def changed(change) -> dict[str, Any]:
        other = copy.deepcopy(found)
        change(other)
        return facts(other, "cuda")

    assert changed(lambda e: e.update(host="x", kernel="y", volatile={}, code=None)) == key
    assert changed(lambda e: e["variables"].update(TORCH_HOME="elsewhere")) == key
    assert changed(lambda e: e["cpu"].update(name="other")) != key
    assert changed(lambda e: e["cpu"].update(affinity_cores=1)) != key
    assert changed(lambda e: e["gpus"][0].update(name="NVIDIA A100")) != key
    assert changed(lambda e: e["gpus"][0].update(driver_version="1")) != key
    assert changed(lambda e: e["packages"].update(torch="2.6")) != key
    assert changed(lambda e: e["torch"].update(cudnn=1)) != key
    assert changed(lambda e: e.update(python="2.7.1")) != key
    assert changed(lambda e: e["variables"].update(OMP_NUM_THREADS="1")) != key
    assert changed(lambda e: e["variables"].update(NVIDIA_TF32_OVERRIDE="0")) != key


def test_an_older_fingerprint_has_a_key_too() -> None:
    assert facts({}, "cpu")["processor"] is None
    assert facts({}, "cpu")["Python"] is None


def test_the_checkouts_commit(tmp_path: Path) -> None:
    assert checkout_at(tmp_path) is None
    git(tmp_path, "init", "--quiet")
    assert checkout_at(tmp_path) is None  # nothing committed yet
    (tmp_path / "a").write_text("1")
    clean = {"commit": commit(tmp_path, "a"), "dirty": False}
    assert checkout_at(tmp_path) == clean
    (tmp_path / "untracked").mkdir()
    (tmp_path / "untracked" / "b").write_text("1")
    assert checkout_at(tmp_path) == clean
    assert checkout_at(tmp_path / "untracked") is None, "what is installed in a project is not the project"
    assert checkout(tmp_path / "untracked") == clean
    (tmp_path / "a").write_text("2")
    assert checkout_at(tmp_path) == {**clean, "dirty": True}


def test_the_measured_project_and_vheatbench_have_a_name_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commits = {}
    for name in ("project", "tool"):
        (tmp_path / name / "package").mkdir(parents=True)
        (tmp_path / name / "package" / "__init__.py").write_text(name)
        commits[name] = {"commit": commit(tmp_path / name, name), "dirty": False}
    monkeypatch.setattr(module.vheatbench, "__file__", str(tmp_path / "tool" / "package" / "__init__.py"))

    def found(folder: str) -> list[Any]:
        monkeypatch.chdir(tmp_path / folder)
        there = environment()
        return [there["project"], there["vheatbench"]]

    assert found("project/package") == [commits["project"], commits["tool"]]
    assert found(".") == [None, commits["tool"]]
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "project" / ".git"))  # as in a hook
    assert found("tool") == [commits["tool"], commits["tool"]]


def test_workers_name_the_project_that_they_are_started_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models.py").write_text("")
    expected = {"commit": commit(tmp_path, "models"), "dirty": False}
    monkeypatch.chdir(tmp_path)
    assert inspect_machine([]).environment["project"] == expected


def test_git_that_is_missing_or_slow_is_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".git").mkdir()
    for error in (FileNotFoundError("git"), subprocess.TimeoutExpired("git", 2)):

        def fail(*_: Any, error: Exception = error, **__: Any) -> None:
            raise error

        monkeypatch.setattr("subprocess.run", fail)
        assert checkout_at(tmp_path) is None
