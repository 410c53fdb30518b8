"""Two models in turns: what the ratio is made of, and what stays as it was."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import vheatbench as vb
from vheatbench.analysis.paired_ratio import Paired
from vheatbench.api.ab import AbResult
from vheatbench.case import Case
from vheatbench.stats import Interval, median
from vheatbench.store.schema import Record

SHAPE = (1, 3, 32, 32)


def model() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def turns_of(record: Record) -> list[float]:
    samples, medians, start = record.samples["latency_s"], [], 0
    for count in samples.turns:
        medians.append(median(samples.values[start : start + count]))
        start += count
    return medians


def test_live_modules_take_turns_in_this_process():
    a, b = model().train(), model().train()
    weights = [p.clone() for p in (*a.parameters(), *b.parameters())]
    result = vb.ab(a, b, SHAPE, seconds=0.2, threads=1)
    (one,), (other,) = result.a, result.b
    assert one.session == other.session is not None
    assert len(one.samples["latency_s"].turns) == len(other.samples["latency_s"].turns) >= 8
    ratios = [y / x for x, y in zip(turns_of(one), turns_of(other), strict=True)]
    assert result.ratio.value == pytest.approx(math.exp(median([math.log(r) for r in ratios])))
    assert result.ratio.low <= result.ratio.value <= result.ratio.high
    assert result.paired is not None
    assert result.paired.rounds == 1
    assert "between processes" in result.note
    assert "between processes" in str(result)
    assert (one.case.subject, other.case.subject) == ("Sequential a", "Sequential b")
    assert all(module.training for module in (*a.modules(), *b.modules()))
    assert all(torch.equal(p, q) for p, q in zip((*a.parameters(), *b.parameters()), weights, strict=True))
    assert all(p.requires_grad for p in (*a.parameters(), *b.parameters()))


def test_training_steps_in_turns_change_no_weight():
    a, b = model(), model()
    before = [t.clone() for m in (a, b) for t in m.state_dict().values()]
    result = vb.ab(a, b, (2, 3, 16, 16), mode="train", names=("old", "new"), seconds=0.05)
    assert [result.a[0].case.subject, result.b[0].case.subject] == ["old", "new"]
    after = [t for m in (a, b) for t in m.state_dict().values()]
    assert all(torch.equal(p, q) for p, q in zip(before, after, strict=True))


def test_a_name_beside_a_live_module_is_built_here():
    result = vb.ab("test_vit", model(), SHAPE, seconds=0.05)
    assert result.a[0].subject["name"] == "test_vit"
    assert result.a[0].session == result.b[0].session


def test_names_take_turns_in_processes_of_their_own():
    result = vb.ab("test_vheat", "test_vit", SHAPE, rounds=2, seconds=0.05)
    assert [record.round for record in result.a] == [record.round for record in result.b] == [0, 1]
    assert len({record.session for record in result.a}) == 2
    assert result.paired is not None
    assert result.paired.rounds == 2
    assert result.note == ""


def result(low: float, high: float) -> AbResult:
    case = Case(subject="a", resolution=(8, 8))
    records = [
        Record(case=c, case_id=c.id, status="ok", started="2026-01-01T00:00:00Z")
        for c in (case, case.model_copy(update={"subject": "b"}))
    ]
    log = Interval(math.log((low * high) ** 0.5), math.log(low), math.log(high), 0.95)
    return AbResult((records[0],), (records[1],), Paired(log, 6))


@pytest.mark.parametrize(
    ("low", "high", "faster", "said"),
    [
        (1.1, 1.3, "a", "a is faster"),
        (0.7, 0.9, "b", "b is faster"),
        (0.9, 1.1, None, "neither is shown to be faster"),
        (1.0, 1.1, None, "neither is shown to be faster"),
    ],
)
def test_who_is_faster(low, high, faster, said):
    found = result(low, high)
    assert found.faster == faster
    assert said in str(found)
    assert said in found._repr_html_()


def test_without_a_ratio_the_reason_is_said():
    found = result(1, 2)
    broken = found.a[0].model_copy(update={"status": "oom", "reason": "out of memory: it was"})
    with pytest.raises(vb.UserError, match="out of memory: it was"):
        _ = AbResult((broken,), found.b, None).ratio


@pytest.mark.parametrize(
    ("a", "b", "how", "said"),
    [
        ("test_vit", "test_vit", {}, "both sides"),
        (model(), model(), {"rounds": 3}, "fresh processes"),
        ("test_vit", "vit-tt", {"rounds": 1}, "vit-tt"),
        ("test_vit", "test_vheat", {"rounds": 0}, "rounds"),
    ],
    ids=lambda value: str(value)[:12],
)
def test_what_cannot_be_is_said(a, b, how, said):
    with pytest.raises(vb.UserError, match=said):
        vb.ab(a, b, SHAPE, seconds=0.05, **how)
