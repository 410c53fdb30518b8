"""Precisions that the processor has no instructions for: measured when asked for, with a warning."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from vheatbench.case import Case
from vheatbench.measure import precision
from vheatbench.measure.precision import slow_precision
from vheatbench.run.inspect import inspect
from vheatbench.run.measure_case import measure_case
from vheatbench.run.task import Forecast, InspectTask, MeasureTask
from vheatbench.suites import SuitePolicy

QUICK = SuitePolicy(min_samples=3, ceiling_s=0.05, warmup_ceiling_s=0.05)


@pytest.mark.parametrize(
    ("flags", "onednn", "slow"),
    [
        ("avx2", False, ["bfloat16", "float16"]),
        ("avx512f", True, ["bfloat16", "float16"]),
        ("avx512f avx512_bf16", True, ["float16"]),
        ("avx512_bf16 avx512_fp16", True, []),
        ("avx512_bf16 avx512_fp16", False, ["bfloat16", "float16"]),
        ("asimdhp bf16", True, []),
        ("", True, []),
    ],
)
def test_both_the_processor_and_onednn_must_have_it(
    monkeypatch: pytest.MonkeyPatch, flags: str, onednn: bool, slow: list[str]
) -> None:
    monkeypatch.setattr(precision, "_flags", lambda: set(flags.split()))
    monkeypatch.setattr(precision, "_onednn_computes_in", lambda dtype: onednn)
    warned = [dtype for dtype in ("float32", "bfloat16", "float16") if slow_precision(dtype, "cpu")]
    assert warned == slow


def test_gpus_before_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    assert [bool(slow_precision(name, "cuda")) for name in ("float32", "float16", "bfloat16", "tf32")] == [
        False, False, True, True,
    ]  # fmt: skip


def test_less_of_the_processor_is_less_precisions() -> None:
    """The variables with which any processor is one with AVX2 only."""
    code = (
        "import json; from vheatbench.measure.precision import slow_precision\n"
        "print(json.dumps([slow_precision(name, 'cpu') for name in ('float32', 'bfloat16', 'float16')]))"
    )
    variables = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert [len(texts) for texts in found] == [0, 1, 1]
    assert "no instructions for bfloat16" in found[1][0]


@pytest.mark.usefixtures("one_thread")
def test_the_record_and_the_forecast_warn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_onednn_computes_in", lambda dtype: False)
    low = Case(subject="op/attention", resolution=4, dtype="bfloat16")
    full = low.model_copy(update={"dtype": "float32"})
    record = measure_case(MeasureTask(case=low, policy=QUICK))
    assert record.status == "ok", record.reason
    assert [text for text in record.warnings if "no instructions" in text] == slow_precision("bfloat16", "cpu")
    forecasts = inspect(InspectTask(cases=[low, full], foresee=True)).forecasts
    assert [forecast.warnings for forecast in forecasts] == [slow_precision("bfloat16", "cpu"), []]


def test_the_dry_run_prints_a_warning_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from vheatbench.cli.plan import print_plan

    plan = [Case(subject="vit-t", resolution=side, dtype="bfloat16") for side in (32, 64)]
    forecasts = [Forecast(case_id=case.id, macs=1.0, peak_bytes=1, seconds=1.0, warnings=["slow"]) for case in plan]
    suite = SimpleNamespace(name="s", policy=SuitePolicy())
    print_plan(suite, plan, SimpleNamespace(forecasts=forecasts, memory_bytes={}))  # type: ignore[arg-type]
    out, err = capsys.readouterr()
    assert out.count("1 warning") == 2
    assert err == "! vit-t 32 b1 bfloat16 infer (and 1 more): slow\n"
