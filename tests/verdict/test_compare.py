"""Two sides against each other: what counts as worse, what was not compared, what may not be."""

from __future__ import annotations

import json
import math

import pytest

from support.records import ceiling, record, run_of
from support.turns import GPU, MACHINE, changed_metric, lost, on, two_runs
from vheatbench.analysis.fingerprint import differences, fingerprint
from vheatbench.errors import StoreError, UserError
from vheatbench.store import Metric
from vheatbench.verdict.compare import compare_runs
from vheatbench.verdict.derived import series_verdicts
from vheatbench.verdict.noise_floor import Floor, NoiseFloor, floor_path, read_floor, write_floor
from vheatbench.verdict.settings import Settings
from vheatbench.verdict.text import absences, as_dict, detectable, headline, markdown, rows


def verdicts(comparison, metric="latency_s"):
    return {v.case.subject: v.verdict for v in comparison.cases if v.metric == metric}


def one_of(comparison, metric):
    return next(v for v in comparison.cases if v.metric == metric)


def test_identical_code_passes():
    comparison = compare_runs(*map(list, zip(two_runs(), strict=True)))
    assert (comparison.outcome, comparison.verdict) == ("pass", "same")
    assert verdicts(comparison) == {"vheat-t": "same", "swin-t": "same"}
    assert verdicts(comparison, "macs") == {"vheat-t": "same", "swin-t": "same"}
    assert comparison.reasons == ()
    least, most = comparison.detectable
    assert 0.05 < least <= most < 0.12
    assert "could have been called regressed" in detectable(comparison)


def test_a_slower_case_regresses_and_is_named():
    base, head = two_runs({"vheat-t": 1.25})
    comparison = compare_runs([base], [head])
    assert comparison.outcome == comparison.verdict == "regressed"
    assert verdicts(comparison) == {"vheat-t": "regressed", "swin-t": "same"}
    assert comparison.cases[0].case.subject == "vheat-t", "worst first"
    assert "vheat-t 224 b1 float32 infer: latency_s regressed by 2" in comparison.reasons[0]
    assert comparison.cases[0].gate.low > math.log(1.05)
    assert comparison.cases[0].adjusted_p < 0.05


def test_a_faster_case_improves():
    base, head = two_runs({"vheat-t": 0.8})
    comparison = compare_runs([base], [head])
    assert (comparison.outcome, comparison.verdict) == ("pass", "improved")


def test_a_little_slower_than_the_margin_is_suspect_and_passes():
    base, head = two_runs({"vheat-t": 1.07}, noise=0.02)
    comparison = compare_runs([base], [head])
    assert verdicts(comparison)["vheat-t"] == "suspect"
    assert (comparison.outcome, comparison.verdict) == ("pass", "suspect")


def test_too_noisy_to_decide_is_inconclusive_but_a_faster_head_passes():
    base, head = two_runs(noise=0.3)
    comparison = compare_runs([base], [head])
    assert (comparison.outcome, comparison.verdict) == ("inconclusive", "inconclusive")
    assert "open" in comparison.reasons[0]
    base, head = two_runs({"vheat-t": 0.96, "swin-t": 0.96}, noise=0.02)
    comparison = compare_runs([base], [head])
    assert set(verdicts(comparison).values()) == {"inconclusive"}
    assert comparison.outcome == "pass", "perhaps faster, certainly no slower than the margin"


@pytest.mark.parametrize("name", ["macs", "params", "flops", "peak_allocated_bytes"])
def test_one_more_of_an_exact_metric_regresses(name):
    def one_more(side, number, one):
        return changed_metric(one, name, value=one.metrics[name].value + 1) if side == "head" else one

    comparison = compare_runs(*([run] for run in two_runs(change=one_more)))
    assert comparison.outcome == "regressed"
    assert set(verdicts(comparison, name).values()) == {"regressed"}
    assert "+1" in rows(comparison)[0].change
    assert f"{one_of(comparison, name).base + 1:,.0f}" in comparison.reasons[0]
    back = compare_runs(*([run] for run in reversed(two_runs(change=one_more))))
    assert (back.outcome, back.verdict) == ("pass", "improved")


def test_exact_metrics_need_neither_rounds_nor_pairs():
    def only_macs(extra):
        def change(side, number, one):
            return changed_metric(one, "macs", value=one.metrics["macs"].value + extra) if side == "head" else one

        runs = two_runs(rounds=1, pairing={}, change=change)
        return compare_runs([runs[0]], [runs[1]], Settings(metrics=("macs",)))

    assert only_macs(0).outcome == "pass"
    assert only_macs(1).outcome == "regressed"


def test_exact_metrics_that_are_higher_when_better_and_neutral_ones():
    def add(side, number, one):
        value = 31 if side == "head" else 32
        extra = {
            "largest_batch": Metric(value=value, unit="images", direction="higher", how="x", deterministic=True),
            "input_bytes": Metric(value=value, unit="bytes", how="x", deterministic=True),
        }
        return one.model_copy(update={"metrics": {**one.metrics, **extra}})

    comparison = compare_runs(*([run] for run in two_runs(change=add)))
    assert set(verdicts(comparison, "largest_batch").values()) == {"regressed"}
    assert set(verdicts(comparison, "input_bytes").values()) == {"changed"}
    assert not any("input_bytes" in reason for reason in comparison.reasons)


def test_an_exact_metric_that_varies_between_rounds_is_no_proof():
    def flicker(side, number, one):
        extra = 64 if side == "head" and number == 3 else 0
        return changed_metric(one, "peak_allocated_bytes", value=1e8 + extra)

    comparison = compare_runs(*([run] for run in two_runs(change=flicker)))
    assert set(verdicts(comparison, "peak_allocated_bytes").values()) == {"suspect"}
    assert comparison.outcome == "pass"


def test_the_resident_set_is_gated_with_its_own_margin():
    def grown(factor):
        def change(side, number, one):
            noise = 1 + 0.004 * ((number * 7) % 5)
            return changed_metric(
                one, "peak_memory_bytes", value=2e8 * noise * (factor if side == "head" else 1), deterministic=False
            )

        return compare_runs(*([run] for run in two_runs(change=change)))

    assert grown(1.08).outcome == "pass"
    assert set(verdicts(grown(1.3), "peak_memory_bytes").values()) == {"regressed"}


def test_a_resident_set_that_grew_too_little_to_be_seen_is_not_judged():
    def unseen(side, number, one):
        metric = Metric(unit="bytes", direction="lower", how="VmHWM", unavailable="growth too small for RSS")
        gone = side == "head" and number > 1
        return one.model_copy(update={"metrics": {**one.metrics, "peak_memory_bytes": metric}}) if gone else one

    comparison = compare_runs(*([run] for run in two_runs(change=unseen)))
    assert comparison.outcome == "pass"
    found = next(v for v in comparison.cases if v.metric == "peak_memory_bytes")
    assert (found.verdict, found.judged) == ("inconclusive", False)
    assert "missing in 8 of 10 rounds" in found.reason
    runs = two_runs(change=lambda side, number, one: unseen(side, 9, one))
    comparison = compare_runs([runs[0]], [runs[1]])
    assert comparison.outcome == "pass"
    assert any("head has no peak_memory_bytes: growth too small" in v.reason for v in comparison.cases)


def test_a_timing_or_an_exact_metric_that_is_gone_is_open():
    for name in ("latency_s", "macs"):

        def gone(side, number, one, name=name):
            kept = {key: metric for key, metric in one.metrics.items() if side == "base" or key != name}
            return one.model_copy(update={"metrics": kept})

        comparison = compare_runs(*([run] for run in two_runs(change=gone)))
        assert comparison.outcome == "inconclusive"
        assert f"the head has no {name}" in comparison.reasons[0]


def test_other_noisy_metrics_are_judged_only_if_asked_for():
    def slower_to_compile(side, number, one):
        metric = Metric(value=20.0 if side == "head" else 10.0, unit="s", direction="lower", how="clock")
        return one.model_copy(update={"metrics": {**one.metrics, "compile_time_s": metric}})

    runs = two_runs(change=slower_to_compile)
    assert compare_runs([runs[0]], [runs[1]]).outcome == "pass"
    asked = compare_runs([runs[0]], [runs[1]], Settings(metrics=("compile_time_s",)))
    assert asked.outcome == "regressed"
    assert {v.metric for v in asked.cases} == {"compile_time_s"}


def test_throughput_is_turned_round():
    base, head = two_runs({"vheat-t": 1.25, "swin-t": 0.8})
    comparison = compare_runs([base], [head], Settings(metrics=("throughput_images_per_s",)))
    assert verdicts(comparison, "throughput_images_per_s") == {"vheat-t": "regressed", "swin-t": "improved"}
    row = next(row for row in rows(comparison) if "vheat-t" in row.case)
    assert row.change.startswith("−19.8 %")
    gate = as_dict(comparison)["cases"][0]["gate"]
    assert gate["low"] <= gate["ratio"] <= gate["high"] < 1


def test_a_metric_that_nobody_has_is_an_error():
    base, head = two_runs()
    with pytest.raises(UserError, match=r"no record has a metric 'speed'.*latency_s"):
        compare_runs([base], [head], Settings(metrics=("speed",)))


def test_separate_sessions_never_fail_on_timings_alone():
    base, head = two_runs({"vheat-t": 2.0, "swin-t": 0.5}, pairing={})
    comparison = compare_runs([base], [head])
    assert verdicts(comparison) == {"vheat-t": "suspect", "swin-t": "inconclusive"}
    assert (comparison.outcome, comparison.verdict) == ("pass", "suspect")
    assert "separate sessions" in comparison.cases[0].reason


@pytest.mark.parametrize(("order", "why"), [("blocks", "not taken in turns"), ("abab", "base came first in 10 of 10")])
def test_rounds_that_were_not_interleaved_are_suspect_at_most_whatever_the_header_says(order, why):
    base, head = two_runs({"vheat-t": 1.5}, order=order)
    comparison = compare_runs([base], [head])
    assert verdicts(comparison)["vheat-t"] == "suspect"
    assert comparison.outcome == "pass"
    assert why in comparison.cases[0].reason


@pytest.mark.parametrize("started", ["2026-01-02T03:04:05+00:00", "yesterday"])
def test_rounds_that_do_not_say_when_they_were_taken_are_suspect_at_most(started):
    runs = two_runs({"vheat-t": 1.5}, change=lambda side, number, one: one.model_copy(update={"started": started}))
    comparison = compare_runs([runs[0]], [runs[1]])
    assert verdicts(comparison)["vheat-t"] == "suspect"
    assert "do not say when" in comparison.cases[0].reason


@pytest.mark.parametrize("pairing", [{"id": "p1"}, {}])
def test_a_few_rounds_decide_nothing_and_one_says_what_to_do(pairing):
    for rounds, words in ((7, "7 rounds of each side"), (1, "1 round of each side")):
        base, head = two_runs({"vheat-t": 3.0}, rounds=rounds, pairing=pairing)
        comparison = compare_runs([base], [head])
        assert set(verdicts(comparison).values()) == {"inconclusive"}
        assert comparison.outcome == "inconclusive"
        assert words in comparison.reasons[0]
        assert "vheatbench ab" in comparison.reasons[0]
    assert "No timing had the rounds" in detectable(comparison)


def test_fresh_rounds_must_confirm_a_regression():
    def only_at_first(side, number, one):
        slow = side == "head" and number < 10 and one.case.subject == "vheat-t"
        return _scaled(one, 1.4) if slow else one

    pairing = {"id": "p1", "confirm_from": 10}
    runs = two_runs(rounds=20, change=only_at_first, pairing=pairing)
    comparison = compare_runs([runs[0]], [runs[1]])
    assert verdicts(comparison)["vheat-t"] == "suspect"
    assert "not confirmed: 10 fresh rounds say same" in comparison.cases[0].reason
    runs = two_runs({"vheat-t": 1.4}, rounds=20, pairing=pairing)
    comparison = compare_runs([runs[0]], [runs[1]])
    assert verdicts(comparison)["vheat-t"] == "regressed"
    assert comparison.cases[0].gate.rounds == 10


def _scaled(one, factor):
    samples = one.samples["latency_s"]
    longer = samples.model_copy(update={"values": [factor * value for value in samples.values]})
    return one.model_copy(update={"samples": {"latency_s": longer}})


def test_several_looks_share_the_error_probability():
    base, head = two_runs(rounds=15, pairing={"id": "p1", "looks": [10, 15, 20], "alpha": 0.01})
    gates = [v.gate for v in compare_runs([base], [head]).cases if v.metric == "latency_s"]
    assert gates[0].confidence == pytest.approx(1 - 0.01 / 3)


def test_rounds_of_several_runs_count_together():
    pieces = [two_runs({"vheat-t": 1.3}, rounds=5, pairing={"id": f"p{i}"}, seed=i) for i in range(2)]
    bases = [on([base], run_id=f"b{i}")[0] for i, (base, _) in enumerate(pieces)]
    heads = [on([head], run_id=f"h{i}")[0] for i, (_, head) in enumerate(pieces)]
    for i, run in enumerate((*bases, *heads)):
        day = f"2026-01-0{1 + i % 2}"
        run.records[:] = [r.model_copy(update={"started": r.started.replace("2026-01-02", day)}) for r in run.records]
    comparison = compare_runs([*bases, bases[0]], heads)
    assert verdicts(comparison)["vheat-t"] == "regressed"
    assert comparison.cases[0].gate.rounds == 10


def test_a_case_that_stopped_fitting_regresses_even_in_one_round():
    def full(side, number, one):
        hit = side == "head" and number == 4 and one.case.subject == "vheat-t"
        return lost(one, "oom", "out of memory: 9 GiB") if hit else one

    comparison = compare_runs(*([run] for run in two_runs(change=full)))
    assert comparison.outcome == "regressed"
    assert "no longer fits" in comparison.reasons[0]
    assert "1 of 10 rounds" in comparison.reasons[0]
    back = compare_runs(*([run] for run in reversed(two_runs(change=full))))
    assert back.outcome == "pass"


def test_a_case_that_fits_now_improves():
    def full(side, number, one):
        return lost(one, "oom", "out of memory") if side == "base" and one.case.subject == "vheat-t" else one

    comparison = compare_runs(*([run] for run in two_runs(change=full)))
    assert verdicts(comparison, "status") == {"vheat-t": "improved"}
    assert (comparison.outcome, comparison.verdict) == ("pass", "improved")


@pytest.mark.parametrize("status", ["failed", "timeout", "skipped"])
def test_a_broken_head_is_a_failed_measurement(status):
    def broken(side, number, one):
        return lost(one, status, "ImportError: no") if side == "head" and one.case.subject == "vheat-t" else one

    comparison = compare_runs(*([run] for run in two_runs(change=broken)))
    assert comparison.outcome == "failed"
    assert any("ImportError: no" in reason for reason in comparison.reasons)
    assert verdicts(comparison)["swin-t"] == "same", "the others are compared all the same"
    everything = compare_runs(
        *([run] for run in two_runs(change=lambda s, n, one: lost(one, status, "no") if s == "head" else one))
    )
    assert everything.outcome == "failed"


def test_a_head_that_fails_only_now_and_then_is_a_failed_measurement_too():
    def flaky(side, number, one):
        return lost(one, "timeout", "over its time") if side == "head" and number == 3 else one

    comparison = compare_runs(*([run] for run in two_runs(change=flaky)))
    assert comparison.outcome == "failed"
    assert "timeout in the head in 1 of 10 rounds" in comparison.reasons[0]
    back = compare_runs(*([run] for run in reversed(two_runs(change=flaky))))
    assert back.outcome == "pass"
    assert "in the base in 1 of 10 rounds" in absences(back)[0]


def test_what_failed_on_both_sides_is_said_and_never_the_same():
    def broken(side, number, one):
        return lost(one, "oom", "too large") if one.case.subject == "vheat-t" else one

    comparison = compare_runs(*([run] for run in two_runs(change=broken)))
    assert comparison.outcome == "pass"
    assert "vheat-t" not in {v.case.subject for v in comparison.cases}
    assert absences(comparison) == ["vheat-t 224 b1 float32 infer: oom on both sides: too large"]
    nothing = compare_runs(*([run] for run in two_runs(change=lambda s, n, one: lost(one, "oom", "too large"))))
    assert nothing.outcome == "inconclusive"
    assert nothing.reasons == ("nothing was compared",)


@pytest.mark.parametrize("value", [0.0, -0.1, math.nan, math.inf])
@pytest.mark.parametrize(("side", "outcome"), [("head", "failed"), ("base", "inconclusive")])
def test_timings_that_are_none_never_crash(value, side, outcome):
    def spoil(where, number, one):
        if where != side or number != 2 or one.case.subject != "vheat-t":
            return one
        samples = one.samples["latency_s"].model_copy(update={"values": [0.1, value, 0.1]})
        return one.model_copy(update={"samples": {"latency_s": samples}})

    comparison = compare_runs(*([run] for run in two_runs(change=spoil)))
    assert verdicts(comparison) == {"vheat-t": "incomparable", "swin-t": "same"}
    assert comparison.outcome == outcome
    assert "round 2 has a timing" in markdown(comparison)
    json.dumps(as_dict(comparison), allow_nan=False)


def test_missing_new_and_renamed_cases_are_said_and_never_the_same():
    cases = {("vheat-t", 224): 0.1, ("swin-t", 224): 0.1, ("vit-s", 448): 0.2}

    def as_small(side, number, one):
        renamed = one.case.subject == "swin-tiny"
        return changed_metric(one, "macs", value=4.49e9) if renamed else one

    base = two_runs(cases=cases)[0]
    head = two_runs(cases={("vheat-t", 224): 0.1, ("swin-tiny", 224): 0.1}, change=as_small)[1]
    comparison = compare_runs([base], [head])
    assert [case.subject for case in comparison.missing] == ["vit-s"]
    assert [(a.subject, b.subject) for a, b in comparison.renamed] == [("swin-t", "swin-tiny")]
    assert comparison.new == ()
    assert comparison.outcome == "inconclusive"
    assert "2 cases of the base not in the head" in comparison.reasons[0]
    assert any(line.startswith("probably renamed: swin-t 224") for line in absences(comparison))
    assert compare_runs([base], [head], Settings(allow_missing=True)).outcome == "pass"
    more = compare_runs([head], [base])
    assert [case.subject for case in more.new] == ["vit-s"]


def test_another_model_of_a_similar_name_is_not_a_renamed_one():
    base = two_runs(cases={("vheat-t", 224): 0.1, ("vit-s", 224): 0.1})[0]
    head = two_runs(cases={("vheat-t", 224): 0.1, ("vit-b", 224): 0.1})[1]
    comparison = compare_runs([base], [head])
    assert comparison.renamed == ()
    assert [case.subject for case in comparison.missing] == ["vit-s"]
    assert [case.subject for case in comparison.new] == ["vit-b"]


@pytest.mark.parametrize(("macs", "known"), [(4e9, True), (4.01e9, False)])
def test_names_that_are_not_alike_are_the_same_model_only_if_it_counts_the_same(macs, known):
    def counted(side, number, one):
        return changed_metric(one, "macs", value=macs) if one.case.subject == "zzz" else one

    base = two_runs(cases={("vheat-t", 224): 0.1, ("alpha-net", 224): 0.1})[0]
    head = two_runs(cases={("vheat-t", 224): 0.1, ("zzz", 224): 0.1}, change=counted)[1]
    assert bool(compare_runs([base], [head]).renamed) == known


def test_a_case_with_other_options_is_probably_the_same_renamed():
    def windowed(side, number, one):
        options = {"window_size": 14 if side == "head" else 7}
        case = one.case.model_copy(update={"options": options})
        return one.model_copy(update={"case": case, "case_id": case.id}) if one.case.subject == "swin-t" else one

    comparison = compare_runs(*([run] for run in two_runs(change=windowed)))
    assert [(a.options, b.options) for a, b in comparison.renamed] == [({"window_size": 7}, {"window_size": 14})]


def test_a_new_case_alone_passes():
    base = two_runs(cases={("vheat-t", 224): 0.1})[0]
    head = two_runs()[1]
    comparison = compare_runs([base], [head])
    assert comparison.outcome == "pass"
    assert absences(comparison) == ["only in the head: swin-t 224 b1 float32 infer"]


def test_nothing_in_common_is_never_green():
    base = two_runs(cases={("vheat-t", 224): 0.1})[0]
    head = two_runs(cases={("vit-b", 448): 0.1})[1]
    comparison = compare_runs([base], [head], Settings(allow_missing=True))
    assert comparison.outcome == "inconclusive"
    assert "no case in common" in comparison.reasons[0]


def test_no_baseline_no_head_and_a_run_against_itself_are_never_green():
    base, head = two_runs()
    assert compare_runs([], [head]).reasons == ("there is no baseline",)
    assert compare_runs([base], []).outcome == "inconclusive"
    same = compare_runs([base], [base])
    assert same.outcome == "inconclusive"
    assert "both sides" in same.reasons[0]


def test_another_gpu_is_incomparable_and_no_ratio_is_printed():
    cases = {("vheat-t", 224): 0.1}
    other = {**MACHINE, "gpus": [{**GPU, "name": "NVIDIA H100"}]}

    def on_cuda(side, number, one):
        case = one.case.model_copy(update={"device": "cuda"})
        return one.model_copy(update={"case": case, "case_id": case.id})

    base, head = two_runs({"vheat-t": 1.5}, cases=cases, change=on_cuda)
    (base,), (head,) = on([base], environment=MACHINE), on([head], environment=other)
    comparison = compare_runs([base], [head])
    assert comparison.outcome == comparison.verdict == "incomparable"
    assert "GPU: NVIDIA A100 / NVIDIA H100" in comparison.reasons[0]
    assert all(v.metric in ("macs", "flops", "params") for v in comparison.cases)
    assert "%" not in markdown(comparison).split("The smallest worsening")[0].replace("%)", "")
    counted = compare_runs([base], [head], Settings(metrics=("macs",)))
    assert counted.outcome == "pass", "what is counted from the model needs no machine"


def test_another_number_of_threads_is_incomparable():
    base, head = two_runs()
    (head,) = on([head], policy={"threads": 1})
    comparison = compare_runs([base], [head])
    assert comparison.outcome == "incomparable"
    assert "threads asked for: all / 1" in comparison.reasons[0]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"gpus": [{**GPU, "name": "NVIDIA H100"}]}, "GPU: NVIDIA A100 / NVIDIA H100"),
        ({"gpus": [GPU, GPU]}, "GPU: NVIDIA A100 / 2 x NVIDIA A100"),
        ({"gpus": [{**GPU, "driver_version": "580"}]}, "driver: 570.1 / 580"),
        ({"gpus": [{**GPU, "power_limit_w": 300.0}]}, "power limit (W): 400.0 / 300.0"),
        ({"cpu": {**MACHINE["cpu"], "affinity_cores": 4}}, "cores: 8 / 4"),
        ({"packages": {"torch": "2.7.0", "timm": "1.0.20"}}, "torch: 2.6.0 / 2.7.0"),
        ({"variables": {"OMP_NUM_THREADS": "4"}}, "variables: OMP_NUM_THREADS=8 / OMP_NUM_THREADS=4"),
        ({"variables": {"OMP_NUM_THREADS": "8", "PYTORCH_CUDA_ALLOC_CONF": "x"}}, None),
        ({"python": "3.12.1"}, "Python: 3.11 / 3.12"),
    ],
)
def test_what_makes_machines_incomparable(changed, words):
    found = differences(MACHINE, {**MACHINE, **changed}, "cuda")
    assert len(found) == 1
    assert words is None or found == [words]
    assert fingerprint(MACHINE, "cuda") != fingerprint({**MACHINE, **changed}, "cuda")


@pytest.mark.parametrize(
    "changed",
    [
        {"host": "elsewhere"},
        {"code": {"commit": "abc", "dirty": True}},
        {"volatile": {"load_average": 9.0}},
        {"packages": {"torch": "2.6.0", "timm": "1.0.31", "vheatbench": "9"}},
        {"python": "3.11.9"},
        {"variables": {"OMP_NUM_THREADS": "8", "CUDA_VISIBLE_DEVICES": "1"}},
    ],
)
def test_what_does_not(changed):
    for device in ("cpu", "cuda"):
        assert differences(MACHINE, {**MACHINE, **changed}, device) == []
        assert fingerprint(MACHINE, device) == fingerprint({**MACHINE, **changed}, device)


def test_another_version_of_an_engine_matters_to_its_cases_only():
    def by(engine):
        def change(side, number, one):
            case = one.case.model_copy(update={"engine": engine})
            return one.model_copy(update={"case": case, "case_id": case.id})

        base, head = two_runs(change=change)
        old, new = ({**run.header.environment, "packages": {"openvino": v}} for run, v in ((base, "1"), (head, "2")))
        (base,), (head,) = on([base], environment=old), on([head], environment=new)
        return compare_runs([base], [head])

    assert by("eager").outcome == "pass"
    assert by("onnxruntime").outcome == "pass"
    comparison = by("openvino")
    assert comparison.outcome == "incomparable"
    assert "openvino: 1 / 2" in comparison.reasons[0]


def test_a_gpu_matters_only_to_cases_on_it_and_an_unknown_one_matters():
    other = {**MACHINE, "gpus": []}
    assert differences(MACHINE, other, "cpu") == []
    assert differences(other, other, "cuda") == ["GPU: unknown / unknown"]
    assert differences({}, {}, "cpu") == []
    assert differences({"cpu": None, "gpus": 3, "packages": "x"}, {}, "cuda") == ["GPU: unknown / unknown"]
    assert len(fingerprint({}, "cpu")) == 12


def test_another_timm_and_another_way_of_building_are_warned_about():
    def unfused(side, number, one):
        subject = {**one.subject, "attention": "unfused"} if side == "head" else one.subject
        return one.model_copy(update={"subject": subject})

    base, head = two_runs(change=unfused)
    (base,) = on([base], environment={**base.header.environment, "packages": {"timm": "1.0.20"}})
    (head,) = on([head], environment={**head.header.environment, "packages": {"timm": "1.0.31"}})
    comparison = compare_runs([base], [head])
    assert comparison.outcome == "pass"
    assert any(line.startswith("timm: 1.0.20 / 1.0.31") for line in comparison.warnings)
    assert any("built differently: attention" in line for line in comparison.warnings)


def test_two_models_are_compared_where_they_are_named_as_a_pair():
    _, head = two_runs({"vheat-t": 0.7}, cases={("vheat-t", 224): 0.1})
    other = two_runs(cases={("swin-t", 224): 0.1})[0]
    pairs = {other.records[0].case_id: head.records[0].case_id}
    comparison = compare_runs([other], [head], Settings(metrics=("latency_s",)), pairs)
    assert comparison.verdict == "improved"
    assert comparison.cases[0].label.startswith("swin-t 224 b1 float32 infer -> vheat-t 224")


def test_pairs_of_different_cases_are_read_from_the_header_either_way_round():
    base = two_runs(cases={("swin-t", 224): 0.1})[0]
    head = two_runs({"vheat-t": 0.7}, cases={("vheat-t", 224): 0.1})[1]
    pairing = {"id": "p1", "pairs": {base.records[0].case_id: head.records[0].case_id}}
    (base,), (head,) = on([base], pairing={**pairing, "side": "base"}), on([head], pairing={**pairing, "side": "head"})
    assert verdicts(compare_runs([base], [head])) == {"vheat-t": "improved"}
    turned = compare_runs([head], [base])
    assert verdicts(turned) == {"swin-t": "regressed"}
    assert any("turned round" in line for line in turned.warnings)


SIZES = (224, 320, 448, 640, 896)


def scaled(alpha, factor=0.1):
    return {("vheat-t", size): factor * (size / 224) ** (2 * alpha) for size in SIZES}


def test_a_changed_exponent_regresses():
    def steeper(side, number, one):
        return _refit(one, 0.2) if side == "head" else one

    comparison = compare_runs(*([run] for run in two_runs(cases=scaled(1.0), noise=0.003, change=steeper)))
    found = next(v for v in comparison.series if v.what == "exponent")
    assert found.verdict == "regressed"
    assert found.base.startswith("N^1.0")
    assert found.head.startswith("N^1.199")
    assert any("exponent of vheat-t" in reason for reason in comparison.reasons)
    runs = two_runs(cases=scaled(1.0), noise=0.003, change=steeper)
    alone = compare_runs([runs[0]], [runs[1]], Settings(margin=1.0))
    assert set(verdicts(alone).values()) == {"same"}
    assert alone.outcome == "regressed", "by the exponent alone"
    same = compare_runs(*([run] for run in two_runs(cases=scaled(1.0), noise=0.003)))
    assert [v.verdict for v in same.series] == ["same"]


def test_exponents_and_crossovers_of_identical_code_raise_no_alarms():
    sizes = {("vheat-t", 224): 0.12, ("vheat-t", 320): 0.22, ("vheat-t", 448): 0.5}
    sizes |= {("vit-s", 224): 0.1, ("vit-s", 320): 0.24, ("vit-s", 448): 0.6}
    alarms = 0
    for seed in range(100):
        base, head = two_runs(cases=sizes, noise=0.05, seed=seed)
        found = series_verdicts(base.records, head.records, 0.05, None)
        assert {v.what for v in found} >= {"exponent"}
        alarms += any(v.verdict == "regressed" for v in found)
    assert alarms <= 5
    few = two_runs(cases=sizes, rounds=7, noise=0.05)
    assert compare_runs([few[0]], [few[1]]).series == ()


def test_a_changed_exponent_of_separate_sessions_is_suspect():
    runs = two_runs(
        cases=scaled(1.0), noise=0.003, pairing={},
        change=lambda side, number, one: _refit(one, 0.2) if side == "head" else one,
    )  # fmt: skip
    comparison = compare_runs([runs[0]], [runs[1]])
    assert next(v.verdict for v in comparison.series) == "suspect"
    assert comparison.outcome == "pass"


def _refit(one, steeper):
    factor = (one.case.resolution[0] / 224) ** (2 * steeper)
    metric = one.metrics["latency_s"]
    longer = changed_metric(
        one, "latency_s", value=metric.value * factor, low=metric.low * factor, high=metric.high * factor
    )
    return _scaled(longer, factor)


def test_a_crossover_that_moves_up_regresses():
    cases = {**scaled(1.0, 0.12), **{("vit-s", size): 0.1 * (size / 224) ** 3 for size in SIZES}}

    def later(side, number, one):
        slow = side == "head" and one.case.subject == "vheat-t"
        return _times(one, 1.5) if slow else one

    comparison = compare_runs(*([run] for run in two_runs(cases=cases, noise=0.005, change=later)))
    found = next(v for v in comparison.series if v.what == "crossover")
    assert found.verdict == "regressed"
    assert "from" in found.base
    same = compare_runs(*([run] for run in two_runs(cases=cases, noise=0.005)))
    assert next(v.verdict for v in same.series if v.what == "crossover") == "same"


def _times(one, factor):
    metric = one.metrics["latency_s"]
    longer = changed_metric(
        one, "latency_s", value=metric.value * factor, low=metric.low * factor, high=metric.high * factor
    )
    return _scaled(longer, factor)


def test_analyses_are_compared_by_their_intervals_and_never_fail():
    def erf(radius, **case):
        metric = Metric(value=radius, low=radius - 2, high=radius + 2, confidence=0.95, unit="px", how="counted")
        one = record("vheat-t", 224, 1.0, case={"mode": "erf", "analysis": {"layer": "last"}, **case})
        return one.model_copy(update={"metrics": {"erf_radius_px": metric}, "samples": {}})

    def compared(radius):
        base = run_of([erf(80.0)], run_id="b")
        # another machine: an analysis does not care
        head = run_of([erf(radius)], run_id="h", environment=MACHINE)
        return compare_runs([base], [head])

    assert verdicts(compared(81.0), "erf_radius_px") == {"vheat-t": "unchanged"}
    changed = compared(90.0)
    assert verdicts(changed, "erf_radius_px") == {"vheat-t": "changed"}
    assert changed.outcome == "inconclusive", "nothing was judged"


def test_ceilings_are_the_machine_and_are_not_judged():
    base, head = (run_of([ceiling("ceiling/copy", rate)], run_id=name) for name, rate in (("b", 2e10), ("h", 1e10)))
    comparison = compare_runs([base], [head])
    assert not any(v.judged for v in comparison.cases)
    assert comparison.outcome == "inconclusive"


def test_a_margin_below_the_noise_floor_is_refused_with_that_number(tmp_path):
    base, head = two_runs()
    found = NoiseFloor(
        fingerprint=fingerprint(head.header.environment, "cpu"), metrics={"latency_s": Floor(margin=0.0712)}, rounds=10
    )
    write_floor(tmp_path, found)
    floor = read_floor(tmp_path, found.fingerprint)
    assert floor == found
    with pytest.raises(UserError, match=r"--margin 7\.2%"):
        compare_runs([base], [head], Settings(floor=floor))
    assert compare_runs([base], [head], Settings(margin=0.08, floor=floor)).outcome == "pass"
    elsewhere = floor.model_copy(update={"fingerprint": "0" * 12})
    comparison = compare_runs([base], [head], Settings(floor=elsewhere))
    assert any("another machine" in line for line in comparison.warnings)


def test_a_floor_that_cannot_be_read_or_written_is_one_line(tmp_path):
    assert read_floor(tmp_path, "abc") is None
    floor_path(tmp_path, "abc").write_text('{"fingerprint": "abc", "metrics": {"latency_s": {"margin": -1}}}')
    with pytest.raises(UserError, match="delete it"):
        read_floor(tmp_path, "abc")
    floor_path(tmp_path, "abc").write_text("")
    with pytest.raises(UserError, match="delete it"):
        read_floor(tmp_path, "abc")
    write_floor(tmp_path, NoiseFloor(fingerprint="other", metrics={}, rounds=8))
    floor_path(tmp_path, "other").rename(floor_path(tmp_path, "abc"))
    with pytest.raises(UserError, match="another machine"):
        read_floor(tmp_path, "abc")
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        write_floor(tmp_path / "file", NoiseFloor(fingerprint="a", metrics={}, rounds=8))


@pytest.mark.parametrize(
    "wrong",
    [{"margin": -0.1}, {"margin": math.nan}, {"margins": {"x": 20.0}}, {"confidence": 1.0}, {"location": "mean"}],
)
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(UserError):
        Settings(**wrong)


def test_the_location_is_that_of_the_samples():
    def spread(side, number, one):
        values = [0.1, 0.1, *[0.2 if side == "head" else 0.1] * 8]
        samples = one.samples["latency_s"].model_copy(update={"values": values})
        return one.model_copy(update={"samples": {"latency_s": samples}})

    runs = two_runs(change=spread)
    assert set(verdicts(compare_runs([runs[0]], [runs[1]])).values()) == {"regressed"}
    assert set(verdicts(compare_runs([runs[0]], [runs[1]], Settings(location="min"))).values()) == {"same"}


def test_markdown_is_cut_below_what_github_takes_and_says_so():
    cases = {(f"model{i:03}", 224): 0.1 for i in range(300)}
    runs = two_runs(
        cases=cases, change=lambda s, n, one: lost(one, "failed", "| <b>@all</b> é" * 20) if s == "head" else one
    )
    text = markdown(compare_runs([runs[0]], [runs[1]]))
    assert len(text.encode()) <= 65_536
    assert "more lines were cut" in text
    assert "<b>" not in text
    assert "@all" not in text
    small = markdown(compare_runs(*([run] for run in two_runs())))
    assert "cut" not in small


def test_a_failed_case_and_a_regressed_one_are_both_named():
    def change(side, number, one):
        return lost(one, "failed", "boom") if side == "head" and one.case.subject == "swin-t" else one

    comparison = compare_runs(*([run] for run in two_runs({"vheat-t": 1.5}, change=change)))
    assert comparison.outcome == "regressed"
    assert [("vheat-t" in r, "boom" in r) for r in comparison.reasons] == [(True, False), (False, True)]


def test_every_outcome_has_a_headline_and_a_document():
    base, head = two_runs()
    for comparison in (compare_runs([base], [head]), compare_runs([], [head]), compare_runs([base], [base])):
        assert headline(comparison).startswith(comparison.verdict)
        document = json.loads(json.dumps(as_dict(comparison), allow_nan=False))
        assert document["verdict"] == comparison.verdict
