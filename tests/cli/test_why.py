"""``vheatbench show --why``: one case from its samples to its numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from support.command import Called, assert_refused
from support.records import failed, record, run_of
from vheatbench.store import RunWriter
from vheatbench.store.schema import Samples


@pytest.fixture
def results(tmp_path: Path) -> str:
    """A run of two models in two rounds of turns, and one that failed."""
    records = []
    for number in range(2):
        for name, latency in (("vheat-t", 0.1), ("swin-t", 0.2)):
            one = record(name, 224, latency, round=number, session=f"s{number}", spent_s={"samples": 1.5, "wait": 2.0})
            one.samples["latency_s"] = Samples(
                unit="s", values=[latency] * 8, warmup=[1.0], loops=2, stopped_by="ceiling", turns=[2, 2, 2, 2]
            )
            records.append(one)
    run = run_of([*records, failed("swin-t", 640, "oom", "tried to allocate 9 GiB")], rounds=2)
    with RunWriter.create(tmp_path, run.header) as writer:
        for one in run.records:
            writer.append(one)
        writer.finish()
    return str(tmp_path)


def test_a_number_is_told_from_its_samples_on(call: Callable[..., Called], results: str) -> None:
    code, out, _ = call("show", "--results", results, "--why", "swin-t 224")
    assert code == 0
    assert out.startswith("swin-t 224 b1 float32 infer\n")
    assert out.count("8 samples of 2 steps in 4 turns, after 1 to warm up, ended by ceiling") == 2
    assert "latency_s: 200.0 ms (198.0 to 202.0), median of 2 rounds, interval 50%" in out
    assert "time over vheat-t: 2.00" in out
    assert "from the turns of 2 rounds, interval 50%" in out
    assert "samples 1.5, wait 2.0" in out
    assert "GMAC per image (counted)" in out


def test_a_case_without_a_number_has_its_reason(call: Callable[..., Called], results: str) -> None:
    code, out, _ = call("show", "--results", results, "--why", "640")
    assert code == 0
    assert "oom: tried to allocate 9 GiB" in out


@pytest.mark.parametrize(
    ("words", "expected"), [("swin-t", "names 2 cases: "), ("resnet50", "no case of this run; there are vheat-t 224")]
)
def test_words_that_name_no_one_case_are_refused(
    call: Callable[..., Called], results: str, words: str, expected: str
) -> None:
    assert_refused(call("show", "--results", results, "--why", words), expected)
