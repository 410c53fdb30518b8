"""Parts of carrying a case out that no CPU run reaches."""

from __future__ import annotations

import pytest
from records import record

from vheatbench.run.carry_out import _energy
from vheatbench.store import Samples


def conditions(start, end, **unavailable):
    return {"energy_start_j": start, "energy_end_j": end, "elapsed_s": 4.0, "unavailable": unavailable}


def test_energy_is_shared_by_warm_up_and_samples():
    one = record("vheat-t", 224, 0.1)
    one.samples["latency_s"] = Samples(unit="s", values=[0.1] * 6, warmup=[0.1] * 3, loops=2)
    one.conditions = conditions(100.0, 400.0)
    _energy(one, loops=2, batch=10)
    # 3 steps of warm-up and 6 samples of 2 steps, 10 images each: 300 J over 150 images in 4 s
    assert one.metrics["energy_per_image_j"].value == pytest.approx(2.0)
    assert one.metrics["mean_power_w"].value == pytest.approx(75.0)


def test_missing_energy_gives_its_reason():
    one = record("vheat-t", 224, 0.1)
    one.conditions = conditions(None, None, nvml="no NVIDIA driver here")
    _energy(one, loops=1, batch=1)
    assert one.metrics["energy_per_image_j"].value is None
    assert "no NVIDIA driver here" in one.metrics["energy_per_image_j"].unavailable
