"""What the page says in short, several runs side by side, the verdict, and large runs."""

from __future__ import annotations

import math
import re

import pytest
from typer.testing import CliRunner

from support.pages import SIZES, Page, a_run, operator_run
from support.records import failed, operator, record, run_of
from vheatbench.analysis.findings import Finding
from vheatbench.analysis.groups import groups_of
from vheatbench.analysis.outcomes import outcomes_of
from vheatbench.cli import app
from vheatbench.present.parts import Chart, Section
from vheatbench.report.across import across_section, labels_of
from vheatbench.report.page import render
from vheatbench.report.story import MOST, story_of
from vheatbench.report.verdict_section import verdict_section
from vheatbench.store import RunWriter
from vheatbench.verdict.compare import compare_runs

H100 = {"cpu": {"name": "A processor", "affinity_cores": 2}, "gpus": [], "packages": {"torch": "2.6.0"}, "host": "b"}
SAME = {"cpu": {"name": "A processor", "affinity_cores": 2}, "gpus": [], "host": "elsewhere"}


def told(run):
    groups = [(group, f"g{i}") for i, group in enumerate(groups_of(run.records))]
    return story_of(groups, outcomes_of(run.records), "records")


def of_one_size(**header):
    """A run without charts, where nothing is asked of them: to draw them takes seconds."""
    return run_of([record(subject, SIZES[0], 0.1) for subject in ("vheat-t", "swin-t")], **header)


# The story


def test_the_story_has_cost_crossovers_memory_and_what_is_missing():
    run = a_run()
    latency = run.records[1].metrics["latency_s"]
    run.records[1].metrics["latency_s"] = latency.model_copy(update={"high": latency.value * 1.5})
    cost, crossing, memory = told(run).sentences
    # vheat-t takes 0.1 s * (640/224)^2.2, swin-t 0.12 s * (640/224)^2, vit-s 0.08 s * (640/224)^2.8
    growth = 640 / 224
    ratios = 1.2 / growth**0.2, 0.8 * growth**0.6
    assert (
        cost.text == f"At 640 px, swin-t takes {ratios[0]:.2f}× and vit-s takes {ratios[1]:.1f}× the time of vheat-t."
    )
    assert cost.anchor == "g0-latency_s"
    assert crossing.text == (
        "vheat-t is faster than swin-t only up to about 560 px; faster than vit-s from about 320 px on."
    )
    assert crossing.anchor == "g0-crossovers"
    assert memory.text == "At 640 px, swin-t takes 1.0× and vit-s takes 1.0× the peak memory of vheat-t."
    (health,) = told(run).caveats
    assert "1 case did not fit into memory: vit-s 1024" in health.text
    assert health.text.endswith("1 of 13 cases is noisy (median known to worse than ±10 %)."), "which stands below"
    assert health.anchor == "records"


def test_on_equal_footing_own_products_are_told_beside():
    records = [
        record(name, size, at * size / 224)
        for size in SIZES[:2]
        for name, at in (("vheat-t", 0.1), ("vheat-t-official", 0.2), ("swin-t", 0.3))
    ]
    cost, crossing, *_ = told(run_of(records)).sentences
    assert cost.text == (
        "At 320 px, swin-t takes 1.5× the time of vheat-t where all run by plain PyTorch; by its own products "
        "vheat-t itself takes 0.50× that time."
    )
    assert crossing.text == "By plain PyTorch vheat-t is faster than swin-t at every measured size (224 to 320 px)."


@pytest.mark.parametrize(("spread", "words"), [(0.05, "about 1"), (0.2, "0.73 to 1.6")])
def test_what_the_interval_does_not_tell_from_one_is_about_one_or_says_how_wide_it_is(spread, words):
    records = [
        record(name, size, at, spread=spread) for size in SIZES[:2] for name, at in (("vheat-t", 1), ("vit-s", 1.1))
    ]
    assert told(run_of(records)).sentences[0].text == f"At 320 px, vit-s takes {words}× the time of vheat-t."


@pytest.mark.parametrize(("others", "claim"), [(0.5, "slower than swin-t"), (2.0, "faster than swin-t")])
def test_a_crossing_that_noise_allows_is_told_with_the_claim(others, claim):
    spreads = dict(zip(SIZES, (0.01, 0.01, 0.6), strict=False))
    records = [
        record(name, size, at * size, spread=spread)
        for size, spread in spreads.items()
        for name, at in (("vheat-t", 1.0), ("swin-t", others))
    ]
    text = told(run_of(records)).sentences[1].text
    assert text.startswith(f"vheat-t is {claim} at every measured size")
    assert "though noise allows a crossing" in text


def test_a_warning_of_most_cases_of_a_subject_stands_beside_the_story():
    cases = [("vheat-t", 224), ("vheat-t", 448), ("swin-t", 224), ("swin-t", 448)]
    records = [record(name, size, 0.1 * size / 224, warnings=["its products are <fast>."] * (name == "vheat-t"))
               for name, size in cases]  # fmt: skip
    records[2].warnings.append("only once")
    run = run_of(records)
    groups = [(group, "g0") for group in groups_of(run.records)]
    caveat, _health = story_of(groups, outcomes_of(run.records), "r0-records", "r0-warnings").caveats
    assert (caveat.text, caveat.anchor) == ("Of vheat-t: its products are <fast>.", "r0-warnings")
    assert "Of vheat-t: its products are &lt;fast&gt;." in render([run])
    assert not any("once" in one.text for one in told(run).everything)


def test_of_one_size_the_story_tells_the_warning_of_its_subject():
    records = [
        record(name, 224, at, warnings=[f"of {name}", "more"]) for name, at in (("swin-t", 0.2), ("vheat-t", 0.1))
    ]
    speed, caveat, _health = told(run_of(records)).everything
    assert speed.text == "At 224 px, swin-t takes 2.0× the time of vheat-t."
    assert caveat.text == "Of vheat-t: of vheat-t."
    records[1].warnings.clear()
    found = told(run_of(records)).everything
    assert [one.text.startswith("Of ") for one in found] == [False, False], "swin-t's is of no ratio"


def test_the_story_says_when_all_went_well_and_when_nothing_can_be_compared():
    alone = told(run_of([record("vheat-t", 224, 0.1)]))
    assert alone.sentences == []
    assert [one.text for one in alone.caveats] == ["The only case was measured and not flagged as noisy."]


def test_the_story_of_operators_begins_with_the_exponents_at_the_large_end():
    records = [
        operator(name, grid, 1e-5 * (grid / 14) ** (2 * alpha), flop=grid ** (2 * alpha))
        for grid in (14, 28, 56)
        for name, alpha in (("op/heat", 1.5), ("op/attention", 2.0))
    ]
    growth, speed = told(run_of(records)).sentences
    assert growth.text == (
        "Alone, on the largest grids of N tokens, the time of op/heat grows as N^1.5, its multiply-adds as N^1.50; the "
        "time of op/attention grows as N^2.0, its multiply-adds as N^2.00."
    )
    assert speed.text.startswith("At 56×56 op/heat is 4.00× (3.92 to 4.08) as fast as op/attention")


def studied(monkeypatch):
    """A page of a run with a study that has six findings, five of them important; and its section."""
    chart = Chart("r0erf-maps", "Maps", "<svg></svg>", "", "", (), ())
    found = [(Finding(f"Field {i}.", "", important=i > 0), "r0erf-maps") for i in range(6)]
    section = Section("r0erf", "Effective receptive fields", findings=found, charts=[chart])
    monkeypatch.setattr("vheatbench.report.page._studies", lambda *_: {"sees": [section]})
    return render([a_run()])


def test_what_matters_of_a_study_stands_in_the_story_and_all_of_it_under_its_topic(monkeypatch):
    page = studied(monkeypatch)
    story = re.search(r'<ul class="story">.*?</ul>', page, flags=re.S)[0]
    assert story.count("<li>") == MOST
    assert re.findall(r"Field \d\.", story) == ["Field 1.", "Field 2."], "before the memory"
    assert 'href="#r0erf-maps">Chart</a>' in story
    topic = re.search(r'<section id="topic-sees".*?</section>', page, flags=re.S)[0]
    assert re.findall(r"Field \d\.", topic) == [f"Field {i}." for i in range(6)]
    assert "5 more findings" in topic


def test_topics_stand_in_their_order_whatever_runs_there_are():
    operators = operator_run(parts=("core",), modes=("infer",))
    page = render([operators, a_run()])
    topics = re.findall(r'<section id="topic-(\w+)"', page)
    assert topics == ["cost", "operator", "machine", "records"]
    assert page.index('id="r1g0"') < page.index('id="r0g0"'), "the operators' run was given first"
    story = re.search(r'<ul class="story">.*?</ul>', page, flags=re.S)[0]
    assert story.index("Alone, on the largest grids") < story.index("At 640 px, swin-t"), "of each run in turn"
    assert len(re.findall(r'<figure id="r\d-(relative|exponents)"', page)) == 2


# Several runs


def test_runs_that_may_be_compared_have_ratios():
    other = run_of(
        [record("vheat-t", size, 0.05 * (size / 224) ** 2.2) for size in SIZES],
        run_id="b",
        environment=SAME,
        created="2026-01-03T03:04:05+00:00",
    )
    section = across_section([a_run(), other], ["swin-t", "vheat-t", "vit-s"], ("log",))
    assert section.alerts == []
    ratios = next(table for table in section.tables if table.id == "across-ratios")
    ((run, subject, _, size, speed, memory),) = ratios.rows
    assert (run, subject, size) == ("3 Jan 2026, 03:04 UTC", "vheat-t", "640 px")
    assert speed.startswith("2.00× (1.96 to 2.04)")
    assert memory == "1.00×"
    environments = next(table for table in section.tables if table.id == "across-environment")
    assert environments.marked == 0
    assert ("host", "no", "h", "elsewhere") in environments.rows


def test_runs_of_different_machines_have_no_ratio_and_say_why():
    section = across_section([a_run(), a_run(run_id="b", environment=H100)], ["swin-t", "vheat-t", "vit-s"], ("log",))
    (alert,) = section.alerts
    assert "not comparable, so no ratio is given: torch: unknown / 2.6.0" in alert
    assert [table.id for table in section.tables] == ["across-environment"]
    table = section.tables[0]
    assert table.rows[: table.marked] == [("torch", "yes", "unknown", "2.6.0")]
    text = render([of_one_size(), of_one_size(run_id="b", environment=H100)])
    assert "no ratio is given" in text
    assert '<tr class="marked"><th scope="row">torch' in text


def test_curves_of_several_runs_share_a_chart():
    section = across_section([a_run(), a_run(suite="b")], ["swin-t", "vheat-t", "vit-s"], ("log",))
    assert [chart.id for chart in section.charts] == ["across-0-latency_s", "across-0-peak_memory_bytes"]
    names = set(re.findall(r'data-s="(.*?)"', section.charts[0].svg))
    assert len(names) == 6
    assert "vheat-t · b, 2 Jan 2026, 03:04 UTC" in names
    assert len(section.charts[0].rows) == 24


def test_runs_on_different_kinds_of_device_are_not_compared():
    gpu = run_of([record("vheat-t", size, 0.1, case={"device": "cuda"}) for size in SIZES], run_id="b")
    section = across_section([a_run(), gpu], ["swin-t", "vheat-t", "vit-s"], ("log",))
    assert "device: cpu / cuda" in section.alerts[0]
    assert all(table.id != "across-ratios" for table in section.tables)


def analysed(mode, run_id, environment):
    """A run of one receptive field, or of heat, on a machine of its own."""
    one = record("vheat-t", 224, 0.1, case={"mode": mode, "analysis": {"layer": "stages.3"}})
    return run_of([one], run_id=run_id, environment=environment)


def test_only_runs_that_hold_the_same_cases_are_set_side_by_side():
    subjects = ["swin-t", "vheat-t", "vit-s"]
    field, heat = analysed("erf", "field", H100), analysed("heat", "heat", SAME)
    assert across_section([field, heat], subjects, ("log",)).empty
    others = run_of([record("resnet50", size, 0.1) for size in SIZES], run_id="others", environment=H100)
    assert across_section([a_run(), others, field], subjects, ("log",)).empty
    section = across_section([field, a_run(), heat, a_run(run_id="b", environment=H100)], subjects, ("log",))
    (alert,) = section.alerts
    assert alert.startswith(
        "resolution-scaling, 2 Jan 2026, 03:04 UTC (2) and resolution-scaling, 2 Jan 2026, 03:04 UTC (4) are "
    )
    environments = next(table for table in section.tables if table.id == "across-environment")
    assert len(environments.header) == 4  # the two of the same cases


def test_labels_differ_even_of_the_same_run_twice():
    at = "2 Jan 2026, 03:04 UTC"
    assert labels_of([a_run(), a_run()]) == [f"resolution-scaling, {at} (1)", f"resolution-scaling, {at} (2)"]
    assert labels_of([a_run(), a_run(created="2026-02-02T00:00:00+00:00")]) == [at, "2 Feb 2026, 00:00 UTC"]
    elsewhere = a_run(environment={"cpu": {"name": "B", "affinity_cores": 4}})
    assert labels_of([a_run(), elsewhere]) == ["A processor (2 cores)", "B (4 cores)"]
    assert labels_of([a_run(), elsewhere, a_run(run_id="c")])[2] == f"A processor (2 cores), {at} (3)"
    parsed = Page(render([a_run(), a_run()]))
    assert len(parsed.ids) == len(set(parsed.ids))
    assert all(link[1:] in parsed.ids for link in parsed.links)


# The verdict


def pair(slower: float, rounds: int = 10):
    runs = []
    for side, factor in (("base", 1.0), ("head", slower)):
        records = []
        for number in range(rounds):
            turn = (number % 2 == 0) == (side == "base")
            started = f"2026-01-02T03:{2 * number + (0 if turn else 1):02d}:00+00:00"
            wobble = 1 + 0.002 * math.sin(7 * number + (side == "head"))
            for subject in ("vheat-t", "swin-t"):
                own = factor if subject == "vheat-t" else 1.0
                records.append(record(subject, 224, 0.1 * own * wobble, round=number, started=started))
        runs.append(run_of(records, run_id=side, rounds=rounds, pairing={"id": "p", "side": side}))
    return runs


def test_the_verdict_names_what_got_slower_and_draws_it():
    base, head = pair(1.25)
    section = verdict_section(compare_runs([base], [head]), "verdict")
    assert section.title == "Verdict: regressed"
    (chart,) = section.charts
    assert chart.rows[0][:3] == ("vheat-t 224 b1 float32 infer", "regressed", "+25.0 %")
    assert chart.rows[1][1] == "same"
    assert "1 regressed, 1 same" in chart.text
    assert chart.svg.count("<title>") == 2
    text = render([base, head], [section])
    assert 'id="verdict"' in text
    assert "Regressed: something got worse." in text
    parsed = Page(text)
    assert all(link[1:] in parsed.ids for link in parsed.links)


def test_a_verdict_on_different_machines_has_no_chart_and_no_ratio():
    base, head = pair(1.25)
    head.header.environment.update(H100)
    section = verdict_section(compare_runs([base], [head]), "verdict")
    assert section.charts == []
    assert "torch: unknown / 2.6.0" in section.alerts[0]
    assert not any("%" in cell for table in section.tables for row in table.rows for cell in row)


def test_the_command_takes_runs_and_a_comparison(tmp_path):
    for run in pair(1.25):
        with RunWriter.create(tmp_path, run.header) as writer:
            for one in run.records:
                writer.append(one)
            writer.finish()
    target = tmp_path / "page.html"
    arguments = ["report", "--compare", "base", "head", "--results", str(tmp_path), "-o", str(target)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    text = target.read_text("utf-8")
    assert "Verdict: regressed" in text
    assert "Runs side by side" in text


# Large runs


def test_a_large_run_stays_light_and_says_what_it_leaves_out():
    records = [
        record(f"{'vheat' if i == 0 else 'model'}-{i}", 224 + 32 * k, 0.01 * (1 + k) * (1 + i % 5), case={"batch": b})
        for b in (1, 2) for i in range(60) for k in range(8)
    ]  # fmt: skip
    records.append(failed("late", 224, "failed", "reason " * 100))
    text = render([run_of(records)])
    assert len(text.encode()) < 1_500_000
    assert "24 of 61 models are compared here; the records have all." in text
    table = re.search(r'<table class="records">.*?</table>', text, flags=re.S)[0]
    assert table.count('<th scope="row">') == len(records)
    assert len(table.encode()) / len(records) < 300  # 10,000 records stay under 5 MB
    assert "How subjects were built" in text
    assert text.count("pos_embed") < 5


def test_variants_beyond_the_budget_are_named_not_drawn():
    records = [
        record(f"m{i}", size, 0.1 * size, case={"batch": b})
        for b in range(1, 31) for i in range(6) for size in (224, 448, 640)
    ]  # fmt: skip
    text = render([run_of(records)])
    assert text.count("<figure") < 30
    assert re.search(r"\d+ of 30 variants of this run are too many to draw on one page", text)


def test_small_runs_are_drawn_in_every_view_and_weigh_little():
    text = render([a_run()])
    assert text.count('data-view="tokens"') == 4
    assert len(text.encode()) < 300_000


@pytest.mark.parametrize("count", [1, 3])
def test_the_environment_of_every_run_is_there(count):
    runs = [of_one_size(run_id=f"id{i}", command=f"command {i}") for i in range(count)]
    text = render(runs)
    assert all(f"by the command <code>command {i}</code>" in text for i in range(count))
