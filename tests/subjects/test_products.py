"""Which way products go: the defaults, and what a trial has to show before another way is taken."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from vheatbench.case import Case
from vheatbench.subjects import onednn, products
from vheatbench.subjects.catalog import build


@pytest.fixture(autouse=True)
def asked_anew() -> Iterator[None]:
    products.forget()
    yield
    products.forget()


class Clock:
    """A clock that the ways turn forward themselves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def way(self, *seconds: float):
        """Takes the given times in turn."""
        calls = iter(range(10**6))

        def run() -> None:
            self.now += seconds[next(calls) % len(seconds)]

        return run


@pytest.mark.parametrize(
    ("other", "chosen"),
    [((1.0,), "usual"), ((0.85,), "usual"), ((0.7,), "other"), ((0.2, 3.0), "usual"), ((2.0,), "usual")],
)
def test_another_way_is_taken_where_it_is_faster_by_the_margin_in_almost_every_round(other, chosen):
    clock = Clock()
    found = products.compare("usual", {"usual": clock.way(1.0), "other": clock.way(*other)}, clock)
    assert found.way == chosen
    if len(other) == 1:
        assert found.gains == {"other": pytest.approx(1 / other[0])}


def test_the_fastest_of_those_that_beat_the_default():
    clock = Clock()
    ways = {"a": clock.way(0.5), "usual": clock.way(1.0), "b": clock.way(0.4), "c": clock.way(0.6)}
    assert products.compare("usual", ways, clock).way == "b"


def test_rounds_of_warming_up_do_not_count():
    clock = Clock()
    slow_at_first = [9.0, 9.0] + [0.5] * products.ROUNDS
    assert (
        products.compare("usual", {"usual": clock.way(1.0), "other": clock.way(*slow_at_first)}, clock).way == "other"
    )


@pytest.mark.parametrize(
    ("capability", "limit", "way"),
    [("AVX512", None, "inside"), ("AVX2", None, "after"), ("AVX512", "AVX2", "after"),
     ("AVX512", "AVX512_CORE_AMX", "inside")],
)  # fmt: skip
def test_defaults_hang_on_the_instruction_set(capability, limit, way, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        monkeypatch.delenv(name, raising=False)
    if limit is not None:
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    monkeypatch.setattr(onednn, "works", lambda dtype: True)
    assert products.inference_linear() == way
    assert products.transform() == "batched"
    assert products.training_product() == "torch"


def test_the_first_question_has_the_ways_tried_and_the_answer_stays(monkeypatch):
    if not onednn.works(torch.float32):
        pytest.skip("no oneDNN in this torch")
    monkeypatch.setenv("VHEATBENCH_TUNE", "1")
    asked: list[set[str]] = []
    monkeypatch.setattr(
        products, "compare", lambda default, ways: (asked.append(set(ways)), products.Choice("torch", default, {}))[1]
    )
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        assert products.inference_linear() == products.inference_linear() == "torch"
    assert asked == [{"inside", "after", "torch"}]


@pytest.mark.parametrize("question", ["linear layers", "training products", "transforms"])
def test_the_ways_of_every_question_run(question):
    if not onednn.works(torch.float32):
        pytest.skip("no oneDNN in this torch")
    default, ways_of = products._QUESTIONS[question]
    ways = ways_of(torch.Generator().manual_seed(0))
    assert default() in ways
    with torch.no_grad():
        for run in ways.values():
            run()


def test_without_onednn_everything_is_torchs_own(monkeypatch):
    monkeypatch.setattr(onednn, "works", lambda dtype: False)
    assert (products.inference_linear(), products.training_product(), products.transform()) == (
        "torch", "torch", "batched",
    )  # fmt: skip


def test_the_choice_is_in_the_record():
    facts = build(Case(subject="test_vheat", resolution=64)).facts
    assert facts["products"] == products.describe(trains=False)
    assert set(facts["products"]) == {"linear layers", "transforms"}
    training = build(Case(subject="test_vheat", resolution=64, mode="forward_backward")).facts["products"]
    assert set(training) == {"training products"}
    assert "products" not in build(Case(subject="test_vheat_official", resolution=64)).facts
