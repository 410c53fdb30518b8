"""The page: self-contained, escaped, complete. What a browser makes of it: test_report_browser.py."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import xml.etree.ElementTree as ET

import pytest
from typer.testing import CliRunner

from support.pages import EVIL, GRIDS, OPERATORS, SIZES, Page, a_run, operator_run
from support.records import ceiling, failed, operator, record, run_of
from vheatbench import numbers
from vheatbench.analysis.series import Point
from vheatbench.cli import app
from vheatbench.errors import UserError
from vheatbench.metrics import MetricInfo
from vheatbench.present.parts import Chart, Section
from vheatbench.present.style import spaced
from vheatbench.present.theme import PAPER, style_of
from vheatbench.report.page import _scripts, render, write_report
from vheatbench.store import RunWriter


@pytest.fixture(scope="module")
def page() -> str:
    return render([a_run()])


def test_well_formed_with_unique_ids_and_links_that_lead_somewhere(page):
    parsed = Page(page)
    assert parsed.open == []
    assert len(parsed.ids) == len(set(parsed.ids))
    assert parsed.links
    assert all(link.startswith("#") and link[1:] in parsed.ids for link in parsed.links)


def test_nothing_is_fetched_and_only_the_page_s_own_script_runs(page):
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    assert "default-src 'none'" in policy
    assert "unsafe-inline" not in policy.split("script-src")[1]
    scripts = re.findall(r"<script>(.*?)</script>", page, flags=re.S)
    assert page.count("<script") == len(scripts) == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in policy
    # namespaces are names, not requests
    without_names = re.sub(r'xmlns(:\w+)?="[^"]*"', "", page)
    assert not re.search(r"https?://", without_names)
    assert not re.search(r"@import|url\((?!#)", without_names)


def test_own_scripts_stay_under_twelve_kilobytes():
    both = Chart("c", "t", "<svg></svg>", "", "", (), (), {"kind": "diffusion"})
    scripts = _scripts([Section("s", "S", charts=[both])])
    assert len(scripts) == 2
    assert sum(len(text.encode()) for text in scripts) < 12_288


def test_every_chart_has_caption_text_and_numbers(page):
    figures = re.findall(r'<figure id="r0g0.*?</figure>', page, flags=re.S)
    assert len(figures) == 4
    for figure in figures:
        assert "<figcaption>" in figure
        assert "vheat-t goes from" in figure
        assert figure.count('<th scope="row">') == 12
        assert re.findall(r'data-view="(\w+)"', figure) == ["log", "linear", "tokens"]
        svgs = re.findall(r"<svg.*?</svg>", figure, flags=re.S)
        assert len(svgs) == 3
        for svg in svgs:
            ET.fromstring(svg)
            assert "var(--series-1)" in svg
            assert "var(--ink)" in svg
            assert "#010203" not in svg
            assert "resolution (px" in svg
            assert "tokens N" in svg
            assert len(re.findall(r"<circle [^>]*><title>", svg)) == 12
            assert set(re.findall(r'data-s="(.*?)"', svg)) == {"vheat-t", "swin-t", "vit-s"}
    units = ("throughput (images/s)", "latency (ms)", "peak memory (MiB)", "multiply-adds (GMAC per image)")
    assert all(any(unit in figure for figure in figures) for unit in units)


def test_findings_exponents_failures_and_warnings_are_there(page):
    assert "At 640 px vheat-t does" in page
    assert "vheat-t N^1.10" in page
    assert "1.40 (1.40 to 1.40)" in page
    assert "Crossover: vheat-t is faster than vit-s from" in page
    assert "vheat-t is not cheaper than swin-t at any measured size, 224 to 640 px" in page
    assert "did not fit into memory: vit-s 1024" in page
    assert "tried to allocate 9 GiB" in page
    assert "noisy: the median is known to ±40% only" in page
    assert "A processor" in page
    assert "vheatbench run" in page


# Operators


@pytest.fixture(scope="module")
def core_page() -> str:
    return render([operator_run(parts=("core",), modes=("infer",))])


@pytest.fixture(scope="module")
def operators_page() -> str:
    return render([operator_run()])


def test_a_page_of_operators_speaks_of_operators_and_grids(core_page):
    text = core_page
    shown = re.sub(r"<style.*?</style>|<svg.*?</svg>|<section id=\"reading\".*", "", text, flags=re.S)
    assert not re.search(r"\d px|images/s|patches", shown)
    assert "core, infer, C=96, float32, b1" in shown
    figures = {re.search(r'id="([^"]*)"', f)[1]: f for f in re.findall(r"<figure.*?</figure>", text, flags=re.S)}
    assert list(figures) == [
        "r0-exponents",
        *(f"r0g0-{key}" for key in ("latency_s", "backends", "peak_memory_bytes", "macs", "roofline")),
    ]
    assert "token grid (side of the square)" in figures["r0g0-latency_s"]
    assert "op/heat-matmul" not in figures["r0g0-latency_s"]
    assert "op/attention" not in figures["r0g0-backends"]
    assert all(figures["r0g0-roofline"].count(f'<th scope="row">{name}</th>') == 3 for name in OPERATORS)
    roofline = figures["r0g0-roofline"]
    assert "copy 20.0 GB/s" in roofline
    assert "copy of 20.0 GB/s and a matrix product of 200 GFLOP/s: op/heat goes from 247 GFLOP/s" in roofline
    # 900 * 14^3 FLOP in 10 us, of 200 GFLOP/s: above the roof
    assert "123.5 % (121.0 % to 126.0 %)" in roofline
    assert "Above the roof, bound by compute: op/heat at 14×14, " in shown
    assert "Kernels that ran: op/attention: flash for &lt;CPU&gt;." in shown
    assert "ceiling/copy" in shown  # in the records' table
    assert 'href="#r0g0-fastest">Numbers</a>' in shown
    assert "Which backend of heat conduction is fastest" in shown


def test_speed_and_fastest_backend_by_grid_are_tables(core_page):
    speed = re.search(r'<details class="table" id="r0g0-speed">.*?</table>', core_page, flags=re.S)[0]
    # attention takes 4 times as long as heat at 14, and grows with N^2 against N^1.5
    row = re.search(r"over op/attention</th>(.*?)</tr>", speed)[1]
    assert re.findall(r"<td>([\d.]+)×", row) == ["4.00", "8.00", "16.0"]
    fastest = re.search(r'<details class="table" id="r0g0-fastest">.*?</table>', core_page, flags=re.S)[0]
    row = re.search(r"28×28</th>(.*?)</tr>", fastest)[1]
    assert re.findall(r"<td>([^<]*)</td>", row) == [
        "op/heat-official", "0.1600 (0.1584 to 0.1616)", "≈ 1.00× (0.98–1.02)", "clear", "0.50× (0.49–0.51)",
    ]  # fmt: skip


def test_many_groups_of_operators_fold_and_stand_at_a_glance(operators_page):
    text = operators_page
    parsed = Page(text)
    assert parsed.open == []
    assert len(parsed.ids) == len(set(parsed.ids))
    assert all(link.startswith("#") and link[1:] in parsed.ids for link in parsed.links)
    glance = re.search(r'<table class="glance">.*?</table>', text, flags=re.S)[0]
    assert re.findall(r'<a href="#(.*?)">(.*?)</a>', glance) == [
        (f"r0g{i}", f"{part}, {mode}, C=96, float32, b1")
        for i, (part, mode) in enumerate(
            (part, mode) for part in ("core", "layer") for mode in ("infer", "forward and backward")
        )
    ]
    assert "16.0× (15.7 to 16.3) as fast" not in glance
    assert "16.0× (15.7 to 16.3) at 56×56" in glance
    assert "over op/attention-flash" not in glance
    sections = re.findall(r'<div id="r0g\d" class="block">\s*<details class="fold"( open)?>', text)
    assert sections == [" open", "", "", ""]
    assert text.count("At a grid of 56×56 op/heat is 16.0× (15.7 to 16.3) as fast as op/attention") == 4


def test_without_ceilings_the_page_says_why_there_is_no_roofline():
    text = render([operator_run(parts=("core",), modes=("infer",), roof=False)])
    assert "No roofline: this run did not measure ceiling/copy in float32" in text
    assert "r0g0-roofline" not in text


def test_an_operator_that_multiplies_nothing_stands_everywhere_but_under_the_roof():
    roofs = [ceiling("ceiling/copy", 2e10), ceiling("ceiling/matmul", 2e11)]
    means = [operator("op/mean", grid, 3e-6 * grid**2, flop=0) for grid in GRIDS]
    heat = [operator("op/heat", grid, 1e-7 * grid**3) for grid in GRIDS]
    text = render([run_of([*heat, *means, *roofs])])
    figures = {re.search(r'id="([^"]*)"', f)[1]: f for f in re.findall(r"<figure.*?</figure>", text, flags=re.S)}
    found = {key: figures[f"r0g0-{key}"].count('<th scope="row">op/mean</th>') for key in ("macs", "roofline")}
    assert found == {"macs": 3, "roofline": 0}
    assert re.search(r"op/heat is faster than op/mean [^.]*30", text), "the crossover at 3e-6 / 1e-7"
    assert "flops_per_step and min_bytes above 0" in render([run_of([*means, *roofs])])


def test_groups_with_one_point_have_no_section_to_lead_to():
    lone = [operator("op/heat", 14, 1e-3, case={"part": part}) for part in ("core", "layer")]
    parsed = Page(render([run_of(lone)]))
    assert all(link[1:] in parsed.ids for link in parsed.links)
    assert "r0g0" not in parsed.ids


def test_ceilings_take_no_colour():
    models = [record("vheat-t", size, 0.1) for size in SIZES[:2]]
    svg = re.search(r"<svg.*?</svg>", render([run_of([ceiling("ceiling/copy", 1e9), *models])]), flags=re.S)[0]
    assert re.findall(r"--series-\d", svg) == ["--series-1"] * svg.count("--series-")


def test_styles_tell_twenty_four_subjects_apart():
    names = [f"s{i}" for i in range(24)]
    styles = [style_of(name, names) for name in names]
    assert len({(style.colour, style.marker) for style in styles}) == 24
    assert len({style.marker for style in styles[:8]}) == 8
    assert {style.dash for style in styles[:8]} == {"-"}
    assert all(style.face == PAPER and style.dash == "--" for style in styles[8:16])


def test_labels_of_neighbouring_sizes_do_not_run_into_each_other():
    assert spaced([14, 56, 64, 256], ["196", "3136", "4096", "65536"]) == ["196", "", "4096", "65536"]
    assert spaced([14, 28], ["14", "28"]) == ["14", "28"]
    assert spaced([14], ["14"]) == ["14"]
    kts = ["0.1", "0.3", "0.5", "5"]
    assert spaced([0.1, 0.3, 0.5, 5], kts) == kts
    assert spaced([0.1, 0.3, 0.5, 5], kts, digit=0.04) == ["0.1", "", "0.5", "5"]


def test_what_comes_from_outside_is_escaped():
    bad = record(EVIL, 224, 0.1, warnings=[EVIL])
    bad.subject["form"] = EVIL
    run = run_of(
        [bad, record(EVIL, 448, 0.4), failed("x", 224, "failed", EVIL)],
        suite=EVIL, description=EVIL, command=EVIL, environment={EVIL: EVIL},
    )  # fmt: skip
    run.problems.append(EVIL)
    text = render([run])
    assert text.count("<script") == 1
    assert "&lt;script&gt;" in text
    assert not any("onmouseover" in attributes for _, attributes in Page(text).tags)


def test_the_data_of_a_chart_stand_beside_it_and_end_no_script():
    chart = Chart("c", "T", "<svg></svg>", "", "", (), (), {"kind": "other", "words": "</script><b>&"})
    text = render([a_run()], [Section("s", "S", charts=[chart])])
    found = re.search(r'<script type="application/json" data-for="c">(.*?)</script>', text)[1]
    assert json.loads(found) == chart.data
    assert "<" not in found


def test_long_lines_are_cut_and_numbers_are_not_markup():
    text = render([run_of([record("vheat-t", 224, 0.1), failed("x", 224, "failed", "long " * 3000)])])
    assert "(14700 more characters)" in text
    assert text.count("long long") < 200


def test_the_same_run_gives_the_same_page(page):
    assert render([a_run()]) == page


def test_several_runs_stay_apart():
    text = render([a_run(), a_run(run_id="ffff0000", created="2026-02-02T00:00:00+00:00")])
    parsed = Page(text)
    assert len(parsed.ids) == len(set(parsed.ids))
    assert "r1g0-latency_s" in parsed.ids


def test_one_size_gives_a_table_and_no_chart():
    text = render([run_of([record("vheat-t", 224, 0.1), record("swin-t", 224, 0.2)])])
    assert "<figure" not in text
    assert "vheat-t 224 b1 float32 infer" in text
    assert "2.00× the images/s of swin-t" in text


def test_the_published_table_shows_pass_and_fail():
    models = {"vheat-t": {"params": 29e6, "exact_params": 28e6, "macs": 4.6e9, "exact_macs": 9e9, "throughput": 1514}}
    run = run_of([record("vheat-t", 224, 0.1)], reference={"source": "A paper.", "tolerance": 0.01, "models": models})
    text = render([run])
    assert "A paper." in text
    assert '<td class="pass">pass +0.00 %</td>' in text
    assert '<td class="fail">FAIL −49.33 %</td>' in text
    assert "1514" in text


def test_unfinished_runs_say_so():
    run = a_run()
    run.problems.append("run.jsonl: unfinished run: 13 of 20 cases")
    assert "unfinished run: 13 of 20 cases" in render([run])


def test_empty_runs_and_bad_paths_are_refused(tmp_path):
    with pytest.raises(UserError, match="holds no records"):
        write_report([run_of([])], tmp_path / "x.html")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_report([a_run()], tmp_path / "file" / "x.html")


def test_the_command_writes_the_latest_run(tmp_path):
    run = a_run()
    with RunWriter.create(tmp_path / "results", run.header) as writer:
        for one in run.records:
            writer.append(one)
        writer.finish()
    target = tmp_path / "out" / "page.html"
    result = CliRunner().invoke(app, ["report", "--results", str(tmp_path / "results"), "-o", str(target)])
    assert result.exit_code == 0, result.output
    assert "At 640 px" in target.read_text(encoding="utf-8")
    assert target.stat().st_size < 500_000


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(0.012345, 4, "0.01235"), (12.345, 4, "12.35"), (12345.6, 4, "12\u202f346"), (0, 4, "0"), (999.96, 4, "1000.0")],
)
def test_plain_numbers(value, digits, text):
    assert numbers.plain(value, digits) == text


def test_digits_follow_the_interval():
    wide = Point((1, 1), 1, 123.456, 100.0, 150.0)
    narrow = Point((1, 1), 1, 123.456, 123.44, 123.47)
    x = MetricInfo("x", "x")
    assert numbers.value_of(wide, x) == "123"
    assert numbers.value_of(narrow, x) == "123.46"
    assert numbers.interval_of(Point((1, 1), 1, 1.0), x) == ""
