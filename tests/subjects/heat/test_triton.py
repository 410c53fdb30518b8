"""The heat operator's Triton path where there is no GPU: numbers in Triton's interpreter, refusals, FLOPs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from vheatbench.subjects.heat import triton as heat_triton

NUMBERS = Path(__file__).with_name("interpreted_heat_triton.py")


def maps(*shape, device="meta", dtype=torch.float32):
    return torch.empty(shape, device=device, dtype=dtype), torch.empty(shape[1:], device=device, dtype=dtype)


@pytest.mark.slow
def test_numbers_in_the_interpreter():
    pytest.importorskip("triton", reason="Triton is not installed")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(NUMBERS)]
    alone = {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    environment = {**os.environ, **alone}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        (maps(1, 7, 7, 3), None),
        (maps(1, 256, 256, 3, dtype=torch.bfloat16), None),
        (maps(1, 7, 257, 3), "256 tokens"),
        (maps(1, 257, 7, 3), "256 tokens"),
        (maps(1, 7, 7, 3, dtype=torch.float64), "x is torch.float64"),
        ((maps(1, 7, 7, 3)[0], maps(1, 7, 7, 3, dtype=torch.float64)[1]), "decay is torch.float64"),
        (maps(1, 7, 7, 3, device="cpu"), "not on cpu"),
    ],
)
def test_what_is_unsupported(tensors, reason, monkeypatch):
    monkeypatch.setattr(heat_triton, "INSTALLED", True)
    said = heat_triton.unsupported(*tensors)
    assert said is None if reason is None else reason in said
    assert "\n" not in (said or "")


@pytest.mark.parametrize(("capability", "reason"), [((7, 5), "not 7.5"), ((8, 0), None), ((9, 0), None)])
def test_old_devices_are_refused(capability, reason, monkeypatch):
    class Properties:
        major, minor = capability

    monkeypatch.setattr(heat_triton, "INSTALLED", True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Properties)
    with FakeTensorMode():
        said = heat_triton.unsupported(*maps(1, 7, 7, 3, device="cuda"))
    assert said is None if reason is None else reason in said


def test_flops_of_the_core():
    x, decay = maps(2, 14, 10, 5)
    with FlopCounterMode(display=False) as forward:
        y = heat_triton.conduct(x, decay)
        heat_triton.conduct_norm_gate(x, decay, x, None, None, 1e-5)
    core = 4 * 2 * 14 * 10 * 5 * (14 + 10)
    assert y.shape == x.shape
    assert forward.get_total_flops() == 2 * core

    with FlopCounterMode(display=False) as training:
        heat_triton.conduct(x.requires_grad_(), decay.requires_grad_()).sum().backward()
    # backward is the core again, and one multiply-add per value for the decay
    assert training.get_total_flops() == 2 * core + 2 * 2 * 14 * 10 * 5
    assert decay.grad.shape == decay.shape


def test_float32_products_follow_torch():
    before = torch.backends.cuda.matmul.allow_tf32
    try:
        for allowed, precision in ((True, "tf32"), (False, "ieee")):
            torch.backends.cuda.matmul.allow_tf32 = allowed
            assert heat_triton._float32_precision() == precision
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def test_works_where_triton_is_not_installed():
    code = (
        "import sys; sys.modules['triton'] = None\n"
        "import torch\n"
        "from vheatbench.subjects.heat import conduct, triton\n"
        "x, decay = torch.ones(1, 4, 4, 2), torch.ones(4, 4, 2)\n"
        "assert triton.unsupported(x, decay) == 'Triton is not installed'\n"
        "assert torch.allclose(conduct.conduct_heat(x, decay), x)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
