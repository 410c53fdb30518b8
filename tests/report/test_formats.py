"""The report as Markdown and LaTeX, and in notebooks: digits, escaping, limits."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from typer.testing import CliRunner

from support import forked
from support.erf_records import result, run_with
from support.heat_records import diffusion_run, diffusivity_run, kernel_run
from support.pages import EVIL, a_run
from support.records import failed, record, run_of
from vheatbench import numbers
from vheatbench.analysis.history import entries_of
from vheatbench.cli import app
from vheatbench.metrics import MetricInfo
from vheatbench.report import exports, latex, markdown, notebook
from vheatbench.report.latex import latex_of
from vheatbench.report.markdown import markdown_of
from vheatbench.report.page import render
from vheatbench.store import Metric, RunWriter
from vheatbench.store.schema import Footer

FOOTER = Footer(records=1, sha256="0" * 64, finished="2026-01-02T03:04:05+00:00")


@pytest.mark.parametrize(
    ("value", "low", "high", "said"),
    [
        (48.13, 45.8, 50.5, ("48.1", "2.4")),
        (48.13, 48.0, 48.2, ("48.13", "0.13")),
        (532.4, 494.0, 613.0, ("532", "81")),
        (1234.5, 1000.0, 1300.0, ("1230", "230")),
        (9.96, 9.0, 10.956, ("9.96", "1.00")),
        (0.012345, 0.0121, 0.0126, ("0.01235", "0.00026")),
        (48.13, None, None, ("48.13", "")),
        (48.13, 48.13, 48.13, ("48.13", "")),
        (float("inf"), 1.0, 2.0, ("inf", "")),
    ],
)
def test_digits_that_the_interval_allows(value, low, high, said):
    if said == ("9.96", "1.00"):
        said = ("10.0", "1.0")  # a width of 0.996 rounds to 1.0, and the value ends where it does
    text = numbers.latex_of(numbers.Value(value, low, high), MetricInfo("x", "x"))
    assert text == (f"${said[0]} \\pm {said[1]}$" if said[1] else said[0])


def test_latex_is_a_booktabs_table():
    text = latex_of([a_run()])
    rows = [line for line in text.splitlines() if line.endswith("\\\\")]
    assert len(rows) == 1 + 12
    columns = re.search(r"\\begin\{tabular\}\{(\w+)\}", text)[1]
    assert all(row.count(" & ") == len(columns) - 1 for row in rows)
    assert "vheat-t & 224 & $10.00 \\pm 0.10$ & $100.0 \\pm 1.0$ & 100.0 & 4.560" in text
    for word in ("toprule", "midrule", "bottomrule", "caption", "label{tab:abcd1234-0}"):
        assert f"\\{word}" in text
    assert text.count("\\begin{") == text.count("\\end{") == 2


def test_latex_escapes_what_comes_from_outside():
    text = latex_of([run_of([record(EVIL, 224, 0.1), record(EVIL, 448, 0.2)], suite="a_b%c{d}\\e$^~#&|")])
    assert r"a\_b\%c\{d\}\textbackslash{}e\$\textasciicircum{}\textasciitilde{}\#\&\textbar{}" in text
    assert "<script>" not in text
    assert "\u202e" not in text
    assert latex.escaped("a\nb") == "a b"


def test_markdown_has_the_story_the_table_and_the_command():
    text = markdown_of([a_run()])
    assert text.startswith("### resolution-scaling on A processor (2 cores)\n")
    assert "- At 640 px, swin-t takes " in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 13
    assert len({row.count("|") for row in rows}) == 1
    assert any(row.startswith("| vheat-t | 224 | 10.00 ±1.0 % | 100.0 ±1.0 % |") for row in rows)
    assert any(row.startswith("| vit-s (oom) | 1024 | — |") for row in rows)
    assert "`vheatbench run`" in text


def test_markdown_escapes_what_comes_from_outside():
    bad = "a|b `c` <b> [d](e) @f #1 *g* _h_ \n### i"
    text = markdown_of([run_of([record(bad, 224, 0.1), record("x", 224, 0.1)], suite=bad, command="run ``x``")])
    assert "<b>" not in text
    assert "@f" not in text
    assert " #1" not in text
    assert "\n### i" not in text
    assert "``` run ``x`` ```" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({row.count("|") for row in rows}) == 1
    assert markdown.escaped("a|b") == "a&#124;b"


def test_markdown_is_cut_where_github_stops_reading():
    records = [record(f"model-{i}", 224, 0.1, case={"batch": b}) for b in range(1, 60) for i in range(20)]
    text = markdown_of([run_of(records)])
    assert len(text) <= markdown.MOST_CHARACTERS
    assert "Cut here: " in text.splitlines()[-1]


def test_analyses_have_tables_with_intervals(tmp_path):
    kinds = {
        "erf": (run_with([result("vheat-t"), result("deit-s", sigma=4.0)], tmp_path), "A50 (% of the image)", 2),
        "diffuse": (diffusion_run(tmp_path), "mean k (cells²)", None),
        "diffusivity": (diffusivity_run(tmp_path), "lower quartile", 9),
        "kernel": (kernel_run(tmp_path), "overshoot", 3),
    }
    for run, heading, count in kinds.values():
        count = len(run.records) if count is None else count
        text = markdown_of([run])
        rows = [line for line in text.splitlines() if line.startswith("|")]
        assert heading in rows[0]
        assert len(rows) == 2 + count
        assert len({row.count("|") for row in rows}) == 1
        assert all(re.search(r"\| [\d.]", row) for row in rows[2:])
        lines = [line for line in latex_of([run]).splitlines() if line.endswith("\\\\")]
        assert len(lines) == 1 + count
        assert len({line.count(" & ") for line in lines}) == 1
        assert "²" not in latex_of([run])
        entries = entries_of(replace(run, footer=FOOTER))
        exported = [line for line in exports.markdown(entries).text.splitlines() if line.startswith("|")]
        assert exported[0].count("|") > 5
        assert len(exported) == 2 + count


@pytest.mark.parametrize(
    ("terms", "others"),
    [
        ("erf", ["Latency and throughput", "Crossover", "Diffusion length", "Samples: of the latency"]),
        ("heat", ["Latency and throughput", "Crossover", "A50, A99", "Core and layer", "Samples: of the latency"]),
        ("timed", ["A50, A99", "Diffusion length"]),
    ],
)
def test_a_page_explains_the_terms_that_it_uses(tmp_path, terms, others):
    runs = {
        "erf": lambda: (run_with([result("vheat-t")], tmp_path), ["A50, A99", "RMS radius", "Status"]),
        "heat": lambda: (kernel_run(tmp_path), ["Diffusion length", "k, t and kt", "Undershoot", "Status"]),
        "timed": lambda: (a_run(), ["Latency and throughput", "Crossover", "Samples: of the latency", "Status"]),
    }
    run, own = runs[terms]()
    page = render([run])
    shown = page[page.index('<section id="reading">') :] + page[page.index("<caption>Every case") :][:300]
    assert [term for term in own if term not in shown] == []
    assert [term for term in others if term in shown] == []


def test_a_receptive_field_in_markdown_and_latex(tmp_path):
    one = result("vheat-t", layer="stages.3.blocks.1")
    one.record.metrics["erf_a50"] = Metric(value=0.04, low=0.038, high=0.043, unit="share", how="h")
    run = run_with([one], tmp_path)
    text = markdown_of([run])
    assert "| vheat-t | 64 | stages.3.blocks.1 | random weights | 10 | 4.000 (3.800 to 4.300) | " in text
    assert "weights are random" not in text
    assert " & 10 & $4.00 \\pm 0.30$ & " in latex_of([run])


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.seen = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.seen.append(tag)
        if tag not in ("br", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_runs_and_records_show_in_a_notebook():
    run = a_run()
    parsed = Tags(run._repr_html_())
    assert parsed.open == []
    assert parsed.seen.count("tr") == 14
    assert "100.0 (99.0 to 101.0)" in run._repr_html_()
    html = run.records[0]._repr_html_()
    assert Tags(html).open == []
    assert "noisy: the median" in html
    assert "<td>latency_s</td><td>100.0</td><td>ms</td><td>99.0 to 101.0</td><td>clock</td>" in html
    assert "out of memory" in run.records[-1]._repr_html_()


def test_charts_show_in_a_notebook_with_colours_of_their_own():
    charts = notebook.charts_of(a_run())
    assert [chart.title for chart in charts] == ["Throughput", "Latency", "Peak memory", "Multiply-adds"]
    html = charts[0]._repr_html_()
    used = set(re.findall(r"var\((--[\w-]+)\)", html))
    assert used
    assert all(f"{name}:" in html for name in used)


def test_notebooks_escape_what_comes_from_outside():
    run = run_of([record(EVIL, 224, 0.1, warnings=[EVIL]), failed("x", 224, "failed", EVIL)], suite=EVIL)
    for html in (run._repr_html_(), *(one._repr_html_() for one in run.records)):
        assert "<script" not in html
        assert "&lt;script&gt;" in html


def test_a_notebook_gets_so_many_rows():
    run = run_of([record(f"m{i}", 224, 0.1) for i in range(notebook.MOST_ROWS + 7)])
    html = run._repr_html_()
    assert html.count("<tr>") == notebook.MOST_ROWS + 1
    assert "7 more cases" in html


@pytest.fixture
def results(tmp_path):
    run = a_run()
    with RunWriter.create(tmp_path, run.header) as writer:
        for one in run.records:
            writer.append(one)
        writer.finish()
    return tmp_path


def test_the_command_prints_markdown_and_latex(results):
    shown = forked.run(
        [sys.executable, "-m", "vheatbench", "report", "--format", "md", "--results", str(results)],
        capture_output=True, text=True, encoding="utf-8",
    )  # fmt: skip
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith("### resolution-scaling")
    target = results / "out" / "table.tex"
    arguments = ["report", "--format", "tex", "--results", str(results), "-o", str(target)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "\\begin{tabular}" in target.read_text("utf-8")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--format", "pdf"], "--format 'pdf' is not known: html, md, tex"),
        (["--format", "md", "--history", "."], "are for the page"),
        (["--history", "nowhere"], "there is no history"),
        (["--compare", "latest", "nonsense"], "no run named 'nonsense'"),
    ],
)
def test_bad_options_are_one_line(results, arguments, words):
    shown = forked.run(
        [sys.executable, "-m", "vheatbench", "report", "--results", str(results), *arguments],
        capture_output=True, text=True, cwd=results,
    )  # fmt: skip
    assert shown.returncode == 2
    assert words in shown.stderr
    assert len(shown.stderr.strip().splitlines()) == 1
