from __future__ import annotations

import pytest
from records import failed, record, run_of

from vheatbench.analysis.crossover import crossover
from vheatbench.analysis.findings import (
    Pair,
    exponent_finding,
    failure_findings,
    groups_of,
    pair_findings,
    pairs_of,
    standing,
)
from vheatbench.analysis.outcomes import outcomes_of
from vheatbench.analysis.published import published_rows

SIZES = (224, 448, 896)


def power(subject, factor, alpha, **changes):
    return [record(subject, size, factor * (size / 224) ** (2 * alpha), **changes) for size in SIZES]


def test_pairs_are_of_like_cost():
    records = power("vheat-t", 0.1, 1) + power("swin-t", 0.1, 1) + power("vit-b", 0.3, 1)
    assert pairs_of(groups_of(records)[0]) == [Pair("vheat-t", "swin-t")]


def test_without_a_vheat_the_first_subject_is_compared_with_all():
    records = power("swin-t", 0.1, 1) + power("vit-b", 0.3, 1)
    assert pairs_of(groups_of(records)[0]) == [Pair("swin-t", "vit-b")]


def test_groups_do_not_mix_variants_or_devices():
    records = [
        record("vheat-t", 224, 0.1),
        record("vheat-t", 224, 0.1, case={"dtype": "bfloat16"}),
        record("vheat-t", 224, 0.1, case={"device": "cuda"}),
    ]
    assert [(g.device, g.variant) for g in groups_of(records)] == [
        ("cpu", "b1 float32 infer"),
        ("cpu", "b1 bfloat16 infer"),
        ("cuda", "b1 float32 infer"),
    ]


def test_speed_and_memory_at_the_largest_common_size():
    records = power("vheat-t", 0.1, 1) + power("vit-s", 0.08, 1.3, memory=200 * 2**20)
    group = groups_of(records)[0]
    first, second = pair_findings(group, Pair("vheat-t", "vit-s"))
    # at 896 px N has grown 16-fold: 0.08 * 16^1.3 / (0.1 * 16) = 1.84
    assert first.text.startswith("At 896 px vheat-t does 1.84× the images/s of vit-s (1.80 to 1.88)")
    assert "with 8.00× its peak memory" in first.text
    assert first.important
    assert "clearly faster at 448 px, 896 px" in second.text
    assert "clearly slower at 224 px" in second.text
    assert "Crossover: vheat-t is faster than vit-s from 325 px on" in second.text


def test_no_difference_is_called_when_the_intervals_overlap():
    records = power("vheat-t", 0.1, 1, spread=0.1) + power("swin-t", 0.101, 1, spread=0.1)
    first, second = pair_findings(groups_of(records)[0], Pair("vheat-t", "swin-t"))
    assert "no clear difference" in first.text
    assert second.text == "vheat-t against swin-t: within the noise at 224 px, 448 px, 896 px."


def test_standing_reads_intervals_not_values():
    series = {
        s.subject: s
        for s in groups_of(power("vheat-t", 0.1, 1) + power("swin-t", 0.15, 1))[0].series("throughput_images_per_s")
    }
    a, b = series["vheat-t"], series["swin-t"]
    assert "clearly faster at 224 px, 448 px, 896 px" in standing(a, b, crossover(a, b))
    assert "clearly slower" in standing(b, a, crossover(b, a))


def test_exponents_are_those_of_the_data():
    finding = exponent_finding(groups_of(power("vheat-t", 0.1, 1.5) + power("vit-s", 0.1, 2))[0])
    assert "vheat-t N^1.50" in finding.text
    assert "vit-s N^2.00" in finding.text
    assert "196 to 3136 patches" in finding.text
    assert exponent_finding(groups_of([record("vheat-t", 224, 0.1)])[0]) is None


def test_what_did_not_fit_is_said():
    records = [
        record("vheat-t", 224, 0.1, warnings=["noisy: the median is known to ±40% only"]),
        failed("vit-b", 1024, "oom", "out of memory"),
        failed("vit-b", 512, "timeout", "over its time limit of 1 s"),
    ]
    texts = [finding.text for finding in failure_findings(outcomes_of(records))]
    assert texts[0] == "1 case did not fit into memory: vit-b 1024 b1 float32 infer."
    assert "ran over its time: vit-b 512" in texts[1]
    assert texts[2].startswith("1 of 3 cases are noisy")


def test_outcomes_join_rounds_and_keep_failures():
    records = [record("vheat-t", 224, latency, round=i) for i, latency in enumerate((0.1, 0.3, 0.2))]
    records.append(failed("vheat-t", 224, "timeout", "slow").model_copy(update={"round": 3}))
    (outcome,) = outcomes_of(records)
    assert outcome.status == "ok"
    assert outcome.rounds == 3
    assert outcome.reason == "slow"
    point = outcome.points["latency_s"]
    assert point.value == 0.2
    assert point.low == pytest.approx(0.099)
    assert point.high == pytest.approx(0.303)


def test_outcomes_are_sorted_by_variant_size_and_first_appearance():
    records = [record("vit-s", 448, 1), record("vheat-t", 224, 1), record("vit-s", 224, 1)]
    assert [o.case.label for o in outcomes_of(records)] == [
        "vit-s 224 b1 float32 infer", "vheat-t 224 b1 float32 infer", "vit-s 448 b1 float32 infer",
    ]  # fmt: skip


def test_published_numbers_pass_and_fail_by_the_exact_value():
    reference = {
        "tolerance": 0.01,
        "models": {
            "vheat-t": {"params": 29e6, "exact_params": 28.1e6, "macs": 4.6e9, "exact_macs": 4.7e9, "throughput": 1514},
            "swin-t": {"params": 29e6},
        },
    }
    records = [
        record("vheat-t", 224, 0.1),
        record("swin-t", 224, 0.1),
        record("vheat-t", 448, 0.4),
        record("vit-s", 224, 1),
    ]
    rows = published_rows(outcomes_of(records), reference)
    assert [row.subject for row in rows] == ["vheat-t", "swin-t"]
    assert rows[0].params.passed is True
    assert rows[0].params.difference == pytest.approx(28 / 28.1 - 1)
    assert rows[0].macs.passed is False
    assert rows[0].throughput.measured == 10
    assert rows[0].throughput.passed is None
    assert rows[1].params.passed is None
    training = [record("vheat-t", 224, 0.1, case={"mode": "train"})]
    assert published_rows(outcomes_of(training), reference) == []
    assert run_of(records).header.suite == "resolution-scaling"


def test_the_published_table_on_the_terminal(capsys):
    from vheatbench.cli.table import print_run

    models = {"vheat-t": {"params": 29e6, "exact_params": 28e6, "exact_macs": 9e9, "throughput": 1514}}
    reference = {"source": "A paper.", "tolerance": 0.01, "models": models}
    print_run(run_of([record("vheat-t", 224, 0.1)], reference=reference))
    output = capsys.readouterr().out
    assert "pass +0.00%" in output
    assert "FAIL -49.33%" in output
    assert "A paper." in output
    print_run(run_of([record("vheat-t", 224, 0.1)]))
    assert "published" not in capsys.readouterr().out
