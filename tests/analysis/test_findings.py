from __future__ import annotations

import re

import pytest

from support.records import ceiling, failed, operator, record, run_of
from vheatbench.analysis.axis import GRID
from vheatbench.analysis.crossover import crossover
from vheatbench.analysis.findings import (
    exponent_finding,
    failure_findings,
    model_findings,
    pair_findings,
    standing,
)
from vheatbench.analysis.groups import SubjectPair, groups_of, heat_of, pairs_of
from vheatbench.analysis.operator_findings import fastest_backends, operator_findings
from vheatbench.analysis.outcomes import outcomes_of
from vheatbench.analysis.published import published_rows
from vheatbench.case import Case
from vheatbench.report.story import story_of
from vheatbench.store import Record

SIZES = (224, 448, 896)


def power(subject, factor, alpha, **changes):
    return [record(subject, size, factor * (size / 224) ** (2 * alpha), **changes) for size in SIZES]


def test_pairs_are_of_like_cost():
    records = power("vheat-t", 0.1, 1) + power("swin-t", 0.1, 1) + power("vit-b", 0.3, 1)
    assert pairs_of(groups_of(records)[0]) == [SubjectPair("vheat-t", "swin-t")]


def test_without_a_vheat_the_first_subject_is_compared_with_all():
    records = power("swin-t", 0.1, 1) + power("vit-b", 0.3, 1)
    assert pairs_of(groups_of(records)[0]) == [SubjectPair("swin-t", "vit-b")]


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
    first, second = pair_findings(group, SubjectPair("vheat-t", "vit-s"))
    # at 896 px N has grown 16-fold: 0.08 * 16^1.3 / (0.1 * 16) = 1.84
    assert first.text.startswith("At 896 px vheat-t does 1.84× the images/s of vit-s (1.80 to 1.88)")
    assert "with 8.00× its peak memory" in first.text
    assert first.important
    assert "clearly faster at 448 px, 896 px" in second.text
    assert "clearly slower at 224 px" in second.text
    assert "Crossover: vheat-t is faster than vit-s from 325 px on" in second.text


def test_no_difference_is_called_when_the_intervals_overlap():
    records = power("vheat-t", 0.1, 1, spread=0.1) + power("swin-t", 0.101, 1, spread=0.1)
    first, second = pair_findings(groups_of(records)[0], SubjectPair("vheat-t", "swin-t"))
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
        record("vheat-t", 224, 0.1, spread=0.4),
        failed("vit-b", 1024, "oom", "out of memory"),
        failed("vit-b", 512, "timeout", "over its time limit of 1 s"),
    ]
    texts = [finding.text for finding in failure_findings(outcomes_of(records))]
    assert texts[0] == "1 case did not fit into memory: vit-b 1024 b1 float32 infer."
    assert "ran over its time: vit-b 512" in texts[1]
    assert texts[2] == "1 of 3 cases is noisy (median known to worse than ±10 %): vheat-t 224 b1 float32 infer."


def test_noisy_is_what_the_interval_over_rounds_says():
    warned = [record("swin-t", 640, latency, round=i) for i, latency in enumerate((0.1, 0.1, 0.101))]
    warned[0].warnings.append("noisy: the median is known to ±12% only")
    apart = [record("vheat-t", 640, latency, round=i) for i, latency in enumerate((0.1, 0.09, 0.12))]
    (finding,) = failure_findings(outcomes_of([*warned, *apart]))
    assert finding.text.endswith(
        "1 of 2 cases is noisy (median known to worse than ±10 %): vheat-t 640 b1 float32 infer."
    )


def field(subject, stopped, **changes):
    case = Case(subject=subject, resolution=224, mode="erf", analysis={"layer": "stages.3"})
    return Record(
        case=case, case_id=case.id, status="ok", conditions={"stopped_by": stopped},
        started="2026-01-02T03:04:05+00:00", **changes,
    )  # fmt: skip


def test_a_field_that_stopped_short_of_its_precision_is_named():
    words = "stopped at 20 images (no gain from twice as many): relative standard error 71.9%, wanted 5.0%"
    records = [field("vheat-t", "precision"), field("deit-s", "plateau", warnings=["other", words])]
    (finding,) = failure_findings(outcomes_of(records))
    named = f"deit-s 224 stages.3 ({words})"
    assert finding.text == f"1 of 2 receptive fields stopped short of the precision asked for: {named}."
    (health,) = story_of([], outcomes_of(records), "records").caveats
    assert health.text == "1 of 2 receptive fields stopped short of the precision asked for.", "which stands below"
    well = outcomes_of([field("vheat-t", "precision"), field("swin-t", "precision")])
    (health,) = story_of([], well, "records").caveats
    assert health.text == "All 2 cases were measured; none failed, all reached the precision asked for."
    (finding,) = failure_findings(outcomes_of([field("swin-t", "max-images")]))
    assert finding.text.endswith(": swin-t 224 stages.3 (max-images).")


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
    assert "pass +0.00 %" in output
    assert "FAIL −49.33 %" in output
    assert "A paper." in output
    print_run(run_of([record("vheat-t", 224, 0.1)]))
    assert "published" not in capsys.readouterr().out


# Operators

GRIDS = (14, 28, 56, 112)


def curve(subject, at_14, alpha, grids=GRIDS, macs=1.5, **changes):
    """Latency at a grid of 14, growing with N^alpha; multiply-adds growing with N^macs."""
    return [
        operator(subject, grid, at_14 * (grid / 14) ** (2 * alpha), flop=768.0 * grid ** (2 * macs), **changes)
        for grid in grids
    ]


def operators(*records):
    (group,) = groups_of([record for curve in records for record in curve])
    return group


def heat_and_others(**changes):
    return operators(
        curve("op/attention", 1e-4, 2, macs=2, **changes),
        curve("op/window-attention", 3e-4, 1, macs=1, **changes),
        curve("op/attention-math", 2e-4, 2, GRIDS[:3], **changes),
        curve("op/heat-official", 6e-4, 1.5, **changes),
        curve("op/heat-matmul", 4e-4, 1.5, **changes),
        curve("op/heat", 3e-4, 1.5, **changes),
    )


def test_operators_are_grouped_by_what_they_are_part_of_and_ceilings_are_no_group():
    records = [
        operator("op/heat", 14, 1, case={"part": "layer", "mode": "forward_backward", "channels": 192}),
        operator("op/heat", 14, 1, case={"part": "layer", "mode": "infer", "batch": 8}),
        ceiling("ceiling/copy", 1e9),
        ceiling("ceiling/copy", 2e9, dtype="bfloat16"),
        operator("op/attention", 14, 1),
        operator("op/heat", 28, 1),
        record("vheat-t", 224, 0.1),
    ]
    groups = groups_of(records)
    assert [group.title for group in groups] == [
        "b1 float32 infer",
        "core, forward, C=96, float32, b1",
        "layer, infer, C=96, float32, b8",
        "layer, forward and backward, C=192, float32, b1",
    ]
    assert [series.subject for series in groups[1].series("latency_s")] == ["op/heat", "op/attention"]
    assert [[one.case.dtype for one in group.ceilings] for group in groups] == [["float32"]] * 4


def test_tokens_of_an_operator_are_the_cells_of_its_grid():
    (series,) = operators(curve("op/heat", 1, 1)).series("latency_s")
    assert series.tokens == [196, 784, 3136, 12544]
    assert series.axis == GRID
    (counted,) = operators(curve("op/heat", 1, 1)).series("macs")
    assert counted.tokens == series.tokens
    (model,) = groups_of(power("vheat-t", 0.1, 1))[0].series("latency_s")
    assert model.tokens == [196, 784, 3136]


def test_heat_meets_every_other_operator_and_its_backends_the_official_one():
    assert pairs_of(heat_and_others()) == [
        SubjectPair("op/heat", "op/attention"),
        SubjectPair("op/heat", "op/attention-math"),
        SubjectPair("op/heat", "op/window-attention"),
        SubjectPair("op/heat", "op/heat-official"),
        SubjectPair("op/heat-matmul", "op/heat-official"),
    ]
    without = operators(curve("op/attention", 1, 2), curve("op/linear-attention", 1, 1))
    assert pairs_of(without) == [SubjectPair("op/attention", "op/linear-attention")]
    assert operator_findings(without)[0].text.startswith("At a grid of 112×112 op/attention is 0.02×")


def test_the_fastest_backend_stands_for_heat_where_auto_was_not_measured():
    group = operators(
        curve("op/heat-matmul", 1, 1.5),
        curve("op/heat-symmetric", 2, 1.2),
        curve("op/heat-triton", 0.1, 1.5, GRIDS[:2]),
        curve("op/attention", 1, 2),
    )
    # at 28, the largest grid of all three
    assert heat_of(group) == "op/heat-triton"
    assert (
        heat_of(operators(curve("op/heat-matmul", 1, 1.5), curve("op/heat-symmetric", 2, 1.2))) == "op/heat-symmetric"
    )
    apart = operators(curve("op/heat-symmetric", 1, 1, (14,)), curve("op/heat-matmul", 2, 1, (28,)))
    assert heat_of(apart) == "op/heat-matmul"  # none in common: the first in order
    assert heat_of(operators(curve("op/attention", 1, 2))) is None


def test_findings_speak_of_operators_and_grids():
    texts = [finding.text for finding in operator_findings(heat_and_others())]
    speed, exponents, crossings, backends = texts
    # 1e-4 * 64^2 / (3e-4 * 64^1.5) = 8/3; 3e-4 * 64 / (3e-4 * 64^1.5) = 1/8
    assert speed == (
        "At a grid of 112×112 op/heat is 2.67× (2.61 to 2.72) as fast as op/attention, "
        "0.12× (0.12 to 0.13) as fast as op/window-attention."
    )
    assert exponents.startswith(
        "Latency grows with the number of tokens N (grids 14×14 to 112×112) as "
        "op/heat N^1.50 (1.50 to 1.50; at the large end 1.50; theory 1.5; multiply-adds 1.50), "
        "op/attention N^2.00 (2.00 to 2.00; at the large end 2.00; theory 2; multiply-adds 2.00), "
        "op/window-attention N^1.00 (1.00 to 1.00; at the large end 1.00; theory 1; multiply-adds 1.00)."
    )
    # 3 n^1.5 = n^2 at 9 times as many tokens, a side of 42; the noise moves that by 1 %
    assert "op/heat is faster than op/attention from a grid of about 42×42 on (95 % interval 41 to 42)" in crossings
    assert "op/heat is not faster than op/window-attention at any measured grid, 14×14 to 112×112" in crossings
    assert "op/attention-math" not in " ".join(texts)  # a detail beside op/attention: in the tables
    assert backends == (
        "Fastest backend of heat conduction: op/heat-matmul at 14×14, 1.50× (1.47 to 1.53) as fast as "
        "op/heat-official; op/heat-matmul at 112×112, 1.50× (1.47 to 1.53) as fast as op/heat-official."
    )
    assert not re.search(r"px|images/s|patches", " ".join(texts))


def test_a_layer_is_expected_between_its_projections_and_its_core():
    text = operator_findings(heat_and_others(case={"part": "layer"}))[1].text
    assert "theory 1 to 1.5" in text
    assert "theory 1 to 2" in text
    assert "theory 1;" in text
    assert "A layer adds projections" in text


def test_what_holds_of_several_operators_alike_is_said_once():
    group = operators(*(curve(f"op/{name}", 1e-3, 1.5) for name in ("linear-attention", "depthwise-conv", "x")),
                      curve("op/heat", 1e-4, 1.5))  # fmt: skip
    text = next(f.text for f in operator_findings(group) if f.text.startswith("Crossovers"))
    assert text == (
        "Crossovers: op/heat is faster than op/linear-attention, op/depthwise-conv and op/x at every measured grid, "
        "14×14 to 112×112."
    )


def test_ceilings_give_shares_of_the_roof_and_nothing_else():
    group = operators(curve("op/heat", 1e-4, 1.5), [ceiling("ceiling/copy", 1e11), ceiling("ceiling/matmul", 1e11)])
    assert group.series("latency_s")[0].subject == "op/heat"
    assert len(group.series("latency_s")) == 1
    assert pairs_of(group) == []
    # 8 * 96 * 14^3 / 1e-4 = 21.07 GFLOP/s at every grid, of 100
    assert operator_findings(group)[-1].text == (
        "Reached of what the measured ceilings allow: op/heat 21 % at 112×112 (bound by compute)."
    )
    assert operator_findings(group)[-1].chart == "roofline"


def test_the_fastest_backend_by_grid():
    group = operators(
        curve("op/heat-official", 2e-4, 1.5, spread=0.01),
        curve("op/heat-matmul", 1e-4, 1.5, spread=0.01),
        curve("op/heat-symmetric", 2e-4, 1.25, spread=0.01),
        curve("op/heat", 1e-4, 1.5, spread=0.01),
    )
    rows = fastest_backends(group)
    assert [(row.resolution[0], row.backend, row.rivals) for row in rows] == [
        (14, "op/heat-matmul", ()),
        (28, "op/heat-matmul", ()),
        (56, "op/heat-matmul", ("op/heat-symmetric",)),  # both grow to the same: 16 ^ 0.25 = 2
        (112, "op/heat-symmetric", ()),
    ]
    assert rows[0].over_official[:3] == pytest.approx((2, 2 * 0.99 / 1.01, 2 * 1.01 / 0.99))
    assert rows[0].auto.value == 1
    # auto stayed with matmul: 64^1.5 * 1e-4 over 64^1.25 * 2e-4
    assert rows[3].auto.value == pytest.approx(64**0.25 / 2)
    assert fastest_backends(operators(curve("op/heat", 1, 1), curve("op/heat-fft", 1, 1))) == []


# A model and its official formulation


def test_the_official_formulation_is_a_baseline_and_no_focus():
    records = [
        one
        for subject in ("vheat-t-official", "vheat-t", "vheat-s", "vheat-s-official", "swin-t")
        for one in power(subject, 0.2 if "official" in subject else 0.1, 1)
    ]
    (group,) = groups_of(records)
    # all have the same multiply-adds here
    assert pairs_of(group) == [
        SubjectPair("vheat-t", "vheat-t-official"),
        SubjectPair("vheat-t", "swin-t"),
        SubjectPair("vheat-s", "vheat-s-official"),
        SubjectPair("vheat-s", "swin-t"),
    ]
    first, second, _ = model_findings(groups_of(records[:6])[0])
    assert first.text.startswith(
        "At 896 px vheat-t does 2.00× the images/s of its official formulation (vheat-t-official) (1.96 to 2.04)"
    )
    assert second.text == "vheat-t against vheat-t-official: clearly faster at 224 px, 448 px, 896 px."
    assert pairs_of(groups_of(power("vheat-t-official", 0.1, 1) + power("vit-s", 0.1, 1))[0]) == [
        SubjectPair("vheat-t-official", "vit-s")
    ]


def test_auto_stands_for_the_backend_that_it_chose_where_that_was_not_measured_by_name():
    auto = [operator("op/heat", 14, 1e-3)]
    auto[0].subject["kernel"] = "matmul"
    others = [operator("op/heat-official", 14, 3e-3), operator("op/heat-fft", 14, 2e-3)]
    (row,) = fastest_backends(operators(auto, others))
    assert (row.backend, row.auto) == ("op/heat", None)
    by_name = [operator("op/heat-matmul", 14, 0.9e-3)]
    (row,) = fastest_backends(operators(auto, others, by_name))
    assert row.backend == "op/heat-matmul"
    assert row.auto is not None
