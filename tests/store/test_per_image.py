"""The largest batch that fits: its steps are of unequal size, so costs are compared and fitted per image."""

from __future__ import annotations

import csv
import io

import pytest
from typer.testing import CliRunner

from support.command import compare
from support.records import operator, record, run_of
from support.run_files import written
from support.turns import two_runs
from vheatbench.analysis.crossover import ratio_at
from vheatbench.analysis.findings import crossovers_of, model_findings
from vheatbench.analysis.groups import groups_of
from vheatbench.analysis.history import entries_of, select, trends_of
from vheatbench.analysis.outcomes import outcomes_of
from vheatbench.analysis.roofline import Roofline, roofline_of
from vheatbench.cli import app
from vheatbench.report.across import across_section
from vheatbench.report.exports import otava_csv
from vheatbench.report.markdown import markdown_of
from vheatbench.report.page import render
from vheatbench.report.section import section_of
from vheatbench.run.progress import outcome as progress_line
from vheatbench.store import Metric, to_frame
from vheatbench.store.history import TrackedMetric
from vheatbench.store.per_image import PER_IMAGE, compared, compared_name
from vheatbench.verdict.compare import compare_runs
from vheatbench.verdict.regroup import log_ratios
from vheatbench.verdict.settings import Settings

pytestmark = pytest.mark.usefixtures("plain_folder")
MIB = 2.0**20


def at_largest(one, batch: int, each: float | None = None):
    """The record as that of the largest batch: ``batch`` images fit, each takes ``each`` seconds and 10 MiB."""
    case = one.case.model_copy(update={"batch": "largest"})
    each = one.metrics["latency_s"].value if each is None else each
    step = batch * each
    samples = {
        name: found.model_copy(update={"values": [v * step / one.metrics["latency_s"].value for v in found.values]})
        for name, found in one.samples.items()
    }
    metrics = {
        **one.metrics,
        "latency_s": one.metrics["latency_s"].model_copy(
            update={"value": step, "low": step * 0.99, "high": step * 1.01}
        ),
        "throughput_images_per_s": one.metrics["throughput_images_per_s"].model_copy(
            update={"value": 1 / each, "low": 0.99 / each, "high": 1.01 / each}
        ),
        "peak_memory_bytes": one.metrics["peak_memory_bytes"].model_copy(update={"value": 10 * MIB * batch}),
        "peak_allocated_bytes": Metric(
            value=1e6 * batch, unit="bytes", direction="lower", how="allocator", deterministic=True
        ),
        "largest_batch": Metric(value=batch, unit="images", direction="higher", how="searched"),
    }
    return one.model_copy(update={"case": case, "case_id": case.id, "metrics": metrics, "samples": samples})


def pair(base: int, head: int, slower: float = 1.0, **options):
    """Two runs in turns at the largest batch, which is ``base`` and ``head``; the head's images take longer."""
    sizes = {"base": base, "head": head}
    return two_runs(
        {"vheat-t": slower},
        cases={("vheat-t", 224): 0.001},
        change=lambda s, _, one: at_largest(one, sizes[s]),
        **options,
    )


def found_in(comparison):
    return {v.metric: v for v in comparison.cases}


# Compared


def test_equal_images_per_second_are_the_same_and_half_the_batch_is_a_regression():
    base, head = pair(4096, 2048)
    comparison = compare_runs([base], [head])
    by_metric = found_in(comparison)
    assert (comparison.outcome, comparison.verdict) == ("regressed", "regressed")
    assert [v.metric for v in comparison.cases if v.verdict == "regressed"] == ["largest_batch"]
    assert "largest_batch regressed from 4,096 to 2,048 images" in comparison.reasons[0]
    time = by_metric["latency_per_image_s"]
    assert (time.verdict, time.unit) == ("same", "s/image")
    assert time.base == pytest.approx(0.001, rel=0.02)
    assert by_metric["peak_memory_per_image_bytes"].verdict == "same"
    assert not {"latency_s", "peak_memory_bytes", "peak_allocated_bytes"} & by_metric.keys()
    assert 0.05 < comparison.detectable[0] < 0.12


def test_twice_the_batch_improves_and_grows_no_memory():
    comparison = compare_runs(*([run] for run in pair(2048, 4096)))
    assert (comparison.outcome, comparison.verdict) == ("pass", "improved")
    assert {v.metric for v in comparison.cases if v.verdict == "improved"} == {"largest_batch"}


def test_a_slower_image_is_found_though_the_step_takes_less():
    base, head = pair(4096, 2048, slower=1.5)
    time = found_in(compare_runs([base], [head]))["latency_per_image_s"]
    assert time.verdict == "regressed"
    assert time.worsening == pytest.approx(0.405, abs=0.03)


@pytest.mark.parametrize(
    ("base", "head", "verdict"),
    [
        (2048, 2048, "same"),
        (2048, 1792, "suspect"),  # 2047 may fit where 1792 was found
        (2048, 1536, "regressed"),
        (4, 3, "regressed"),  # small batches are found exactly
        (1792, 2048, "same"),
        (1536, 2048, "improved"),
    ],
)
def test_a_largest_batch_counts_by_the_least_that_the_search_allows(base, head, verdict):
    assert found_in(compare_runs(*([run] for run in pair(base, head))))["largest_batch"].verdict == verdict


def test_a_largest_batch_that_varies_between_rounds_proves_nothing():
    runs = two_runs(
        cases={("vheat-t", 224): 0.001},
        change=lambda side, n, one: at_largest(one, 64 if side == "head" or n % 2 else 96),
    )
    assert found_in(compare_runs([runs[0]], [runs[1]]))["largest_batch"].verdict == "same"


def test_separate_sessions_too():
    comparison = compare_runs(*([run] for run in pair(4096, 2048, rounds=1, pairing={})))
    assert comparison.outcome == "regressed"
    assert "largest_batch" in comparison.reasons[0]


def test_a_margin_and_a_wish_for_a_step_hold_per_image():
    base, head = pair(4096, 2048, slower=1.5)
    asked = compare_runs([base], [head], Settings(metrics=("latency_s",), margins={"latency_s": 0.6}))
    assert [(v.metric, v.verdict) for v in asked.cases] == [("latency_per_image_s", "same")]
    lenient = Settings(margins={"largest_batch": 2.0, "latency_per_image_s": 0.6})
    assert compare_runs([base], [head], lenient).outcome == "pass"


def test_counts_of_an_operator_are_not_exact_where_the_batch_was_found():
    def larger(side, n, one):
        batch = 128 if side == "head" else 256
        step = operator("op/heat", 28, 0.1, round=n, flop=batch * 1e6 + 1000, bytes=batch * 4096.0)
        return at_largest(step.model_copy(update={"started": one.started}), batch, 1e-4)

    by_metric = found_in(compare_runs(*([run] for run in two_runs(cases={("vheat-t", 224): 0.1}, change=larger))))
    assert {name: v.verdict for name, v in by_metric.items() if v.verdict == "regressed"} == {
        "largest_batch": "regressed"
    }


def test_the_command_ends_as_the_batch_says():
    code, out, _ = compare(*written(pair(4096, 2048)))
    assert code == 3
    assert "4096 images" in out
    assert "2048 images" in out


def test_the_noise_of_identical_code_is_that_of_an_image():
    base, head = pair(4096, 2048)
    ratios = log_ratios(base.records, head.records, "latency_s")
    assert len(ratios) == 10
    assert max(map(abs, ratios)) < 0.1


# Fitted and told

SIZES = (224, 320, 448, 640)
BATCHES = (4096, 1536, 640, 256)


def scaled():
    """vheat-t takes N^0.91 an image, swin-t as long at 224 and less at the others, each at the batch that fits."""
    records = []
    for size, batch in zip(SIZES, BATCHES, strict=True):
        tokens = (size / 16) ** 2
        records.append(at_largest(record("vheat-t", size, 1.0), batch, 1e-5 * tokens**0.91))
        records.append(at_largest(record("swin-t", size, 1.0), batch // 2, 2e-5 * tokens**0.91))
    return records


def test_a_scaling_run_is_fitted_by_the_time_of_an_image():
    (group,) = groups_of(scaled())
    section = section_of(group, "s", ["vheat-t", "swin-t"], False)
    exponents = next(table for table in section.tables if table.id == "s-exponents")
    alpha = {(row[0], row[1]): row[2] for row in exponents.rows}
    assert alpha["vheat-t", "Time per image"].startswith("0.91")
    chart = next(chart for chart in section.charts if chart.id == "s-latency_s")
    assert chart.title == "Time per image"
    assert float(chart.rows[0][3]) == pytest.approx(1e3 * 1e-5 * 196**0.91, rel=1e-3)
    assert {chart.id for chart in section.charts} >= {"s-peak_memory_bytes", "s-largest_batch"}
    texts = " ".join(finding.text for finding in model_findings(group))
    assert "Time per image grows" in texts
    assert "N^0.91" in texts
    assert "1.00× its peak memory per image" in texts
    assert "-0." not in texts


def test_crossovers_and_ratios_are_of_images():
    (group,) = groups_of(scaled())
    vheat, swin = group.series("latency_s")
    assert (vheat.metric, vheat.unit) == ("latency_per_image_s", "s/image")
    assert ratio_at(swin, vheat, 640).value == pytest.approx(2)
    assert "peak_memory_per_image_bytes" in {found.metric for found in crossovers_of(group)}


def test_the_page_of_two_runs_says_that_they_are_as_fast():
    runs = [
        run_of([r], run_id=i) for i, r in (("a", scaled()[0]), ("b", at_largest(scaled()[0], 2048, 1e-5 * 196**0.91)))
    ]
    section = across_section(runs, ["vheat-t"], ("log",))
    ((_, _, _, _, speed, memory),) = next(t for t in section.tables if t.id == "across-ratios").rows
    assert speed.startswith("1.00×")
    assert memory == "1.00×"
    text = render(runs)
    assert "2.00×" not in text
    assert "time per image (ms)" in text


def test_an_operator_reaches_what_its_images_took():
    batch = 64
    one = at_largest(operator("op/heat", 28, 0.1, flop=batch * 1e6, bytes=batch * 1e5), batch, 1e-3)
    points = outcomes_of([one])[0].points
    assert points["rate_flop_per_s"].value == pytest.approx(1e9)
    assert points["bandwidth_bytes_per_s"].value == pytest.approx(1e8)
    from support.records import ceiling

    found = roofline_of(groups_of([one, ceiling("ceiling/copy", 1e9), ceiling("ceiling/matmul", 4e9)])[0])
    assert isinstance(found, Roofline)
    assert found.points[0].rate == pytest.approx(1e9)


def test_one_run_may_hold_fixed_and_largest_batches():
    records = [record("vheat-t", 224, 0.05, case={"batch": 8}), scaled()[0]]
    by_batch = {outcome.case.batch: outcome.points for outcome in outcomes_of(records)}
    assert "latency_s" in by_batch[8]
    assert "latency_per_image_s" not in by_batch[8]
    assert "latency_s" not in by_batch["largest"]
    assert len(groups_of(records)) == 2
    assert entries_of(_finished(records))[0].metrics["latency_per_image_s"].unit == "s/image"


# Everything that reads them


def _finished(records, **header):
    from vheatbench.store import Footer, Run

    run = run_of(records, **header)
    footer = Footer(records=len(records), sha256="0", finished=run.header.created)
    return Run(run.path, run.header, run.records, footer)


def test_tables_show_images_not_steps(tmp_path):
    (path,) = written([run_of(scaled())])
    out = CliRunner().invoke(app, ["show", path]).stdout
    assert "ms/image" in out
    assert "peak MiB/image" in out
    assert "latency ms" not in out
    text = markdown_of([run_of(scaled())])
    assert "time per image (ms)" in text
    assert progress_line(scaled()[0]).startswith(f"{1e3 * 1e-5 * 196**0.91:.4g} ms/image")


def test_the_table_for_other_programs_has_both():
    frame = to_frame(run_of([scaled()[0], record("vheat-t", 224, 0.05)]))
    assert frame["latency_per_image_s"][0] == pytest.approx(frame["latency_s"][0] / 4096)
    assert frame["latency_per_image_s"].isna()[1]


def test_the_history_follows_the_image():
    runs = [
        _finished([at_largest(record("vheat-t", 224, 1.0), batch, 1e-3)], run_id=str(i), created=f"2026-01-0{i + 1}")
        for i, batch in enumerate((4096, 2048))
    ]
    entries = [entry for run in runs for entry in entries_of(run)]
    (trend,) = trends_of(entries, metrics=["latency_s"])
    assert (trend.metric, trend.unit) == ("latency_per_image_s", "s/image")
    assert trend.values == pytest.approx([1e-3, 1e-3])
    rows = list(csv.DictReader(io.StringIO(otava_csv(select(entries), ["latency_per_image_s"]).text)))
    assert [float(value) for row in rows for name, value in row.items() if "image" in name] == pytest.approx([1e-3] * 2)


def test_lines_of_an_older_history_are_read_per_image():
    one = at_largest(record("vheat-t", 224, 1.0), 2048, 1e-3)
    (entry,) = entries_of(_finished([one]))
    (case,) = entry.cases.values()
    old = {name: (m.value, m.low, m.high, 1) for name, m in one.metrics.items()}
    facts = {n: TrackedMetric(unit=m.unit, deterministic=m.deterministic) for n, m in one.metrics.items()}
    older = entry.model_copy(
        update={"metrics": facts, "cases": {one.case_id: case.model_copy(update={"readings": old})}}
    )
    (trend,) = trends_of([older], metrics=["latency_s"])
    assert (trend.metric, trend.values) == ("latency_per_image_s", [pytest.approx(1e-3)])


def test_a_record_that_does_not_know_its_batch_has_no_cost():
    one = scaled()[0]
    one = one.model_copy(update={"metrics": {n: m for n, m in one.metrics.items() if n != "largest_batch"}})
    metric = compared(one).metrics["latency_per_image_s"]
    assert metric.value is None
    assert "how many images" in metric.unavailable
    assert "latency_per_image_s" not in outcomes_of([one])[0].points


def test_no_cost_of_a_step_is_left_and_a_fixed_batch_is_as_it_was():
    one = compared(scaled()[0])
    assert not PER_IMAGE.keys() & one.metrics.keys()
    assert compared(one) is one
    fixed = record("vheat-t", 224, 0.1)
    assert compared(fixed) is fixed
    assert compared_name(fixed.case, "latency_s") == "latency_s"
