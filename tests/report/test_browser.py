"""The page in Debian's Chromium: light, dark, narrow, zoomed, printed, without JavaScript, by keyboard; axe-core."""

from __future__ import annotations

import importlib.util
import re
import shutil
from pathlib import Path

import pytest

from support.pages import EVIL, SIZES, a_run, operator_run
from support.records import record
from vheatbench.report.page import render

pytestmark = pytest.mark.browser


def chromium() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def axe() -> Path | None:
    """axe-core, of which axe-playwright-python brings a copy."""
    package = importlib.util.find_spec("axe_playwright_python")
    source = Path(package.origin).with_name("axe.min.js") if package and package.origin else None
    return source if source and source.is_file() else None


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    path = chromium()
    if path is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, Path]:
    """Three pages: of models, of operators (folded), of two runs on different machines with hostile names."""
    other = a_run(run_id="ffff0000", environment={"cpu": {"name": EVIL, "affinity_cores": 8}, "gpus": []}, command=EVIL)
    other.records.append(record(EVIL, SIZES[0], 0.2, warnings=[EVIL]))
    texts = {
        "models": render([a_run()]),
        "operators": render([operator_run(modes=("infer", "forward_backward"))]),
        "runs": render([a_run(), other]),
    }
    folder = tmp_path_factory.mktemp("pages")
    for name, text in texts.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in texts}


@pytest.fixture
def opened(browser, pages):
    """Opens a page of :func:`pages`; whatever it complains of or asks for beside itself fails the test."""
    contexts, complaints = [], []

    def open_(name, hash_="", width=1280, **options):
        context = browser.new_context(viewport={"width": width, "height": 800}, **options)
        contexts.append(context)
        tab = context.new_page()
        here = pages[name].as_uri()
        tab.on("request", lambda one: one.url.startswith((here, "blob:")) or complaints.append(one.url))
        tab.on("console", lambda message: complaints.append(message.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.goto(here + hash_)
        return tab

    yield open_
    for context in contexts:
        context.close()
    assert complaints == []


def visible(tab, selector: str) -> int:
    return tab.evaluate(
        "s => [...document.querySelectorAll(s)].filter((one) => one.checkVisibility()).length", selector
    )


@pytest.mark.parametrize(("name", "charts"), [("models", 5), ("operators", 6), ("runs", 12)])
@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 320)])
def test_every_chart_is_seen_once_and_nothing_sticks_out(opened, name, charts, scheme, width):
    tab = opened(name, width=width, color_scheme=scheme)
    assert visible(tab, "figure svg") == charts
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    plots = tab.locator(".plot").all()
    assert plots
    assert all(one.evaluate("plot => plot.scrollWidth <= plot.clientWidth") for one in plots)
    ink = tab.evaluate("getComputedStyle(document.querySelector('figure svg text')).fill")
    paper = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert contrast(ink, paper) > 7
    box = tab.locator("figure svg:visible").first.bounding_box()
    assert box["width"] > 200
    assert box["height"] > 120


def test_zoomed_to_200_percent_nothing_sticks_out(opened):
    # half the CSS pixels, each twice as large: what a browser's zoom does
    tab = opened("runs", width=640, device_scale_factor=2)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 640


def test_without_scripts_the_page_is_complete_and_has_no_controls(opened):
    tab = opened("models", java_script_enabled=False)
    assert tab.locator("button, input, select").count() == 0
    assert tab.locator("figure svg:visible").count() == 5
    assert tab.locator("figure [data-view=log]:visible").count() == 4
    first = tab.locator("[data-view=log] circle title").first
    assert first.text_content().startswith("vheat-t at 224 px, 196 tokens: ")
    tab.locator("figure summary").first.click()
    assert tab.locator("figure table").first.is_visible()
    assert tab.locator("#r0-relative svg:visible").count() == 1


def test_the_keyboard_reads_every_point(opened):
    tab = opened("models")
    plot = tab.locator("#r0g0-latency_s .plot")
    plot.focus()
    tab.keyboard.press("ArrowRight")
    tip = plot.locator(".tip")
    assert tip.inner_text() == "vheat-t at 224 px, 196 tokens: 100.0 ms (99.0 to 101.0), 10 samples in 1 round"
    tab.keyboard.press("ArrowDown")
    assert tip.inner_text().startswith("swin-t at 224 px")
    tab.keyboard.press("ArrowLeft")
    assert tip.inner_text().startswith("vheat-t at 640 px")
    tab.keyboard.press("Escape")
    assert not tip.is_visible()


def test_the_pointer_reads_the_nearest_point(opened):
    tab = opened("models")
    disc = tab.locator("#r0g0-latency_s [data-view=log] circle").nth(3)
    disc.scroll_into_view_if_needed()
    box = disc.bounding_box()
    tab.mouse.move(box["x"] + box["width"] / 2 + 3, box["y"] + box["height"] / 2 - 2)
    tip = tab.locator("#r0g0-latency_s .tip")
    assert tip.inner_text().startswith("vheat-t at 640 px")
    frame = tab.locator("#r0g0-latency_s").bounding_box()
    assert frame["x"] <= tip.bounding_box()["x"]
    tab.mouse.move(2, 2)
    assert not tip.is_visible()


def test_points_lie_on_their_markers(opened):
    """The disc that is pointed at stands where matplotlib drew the marker, in every view."""
    tab = opened("models")
    for view in ("log", "linear", "tokens"):
        found = tab.evaluate(
            """view => {
              const svg = document.querySelector(`#r0g0-throughput_images_per_s [data-view=${view}] svg`);
              const places = (selector, ...names) => [...svg.querySelectorAll(selector)].map(
                (one) => names.map((name) => +one.getAttribute(name)));
              const discs = places('circle', 'cx', 'cy');
              const uses = places('[data-s] use', 'x', 'y');
              return discs.map(([x, y]) => Math.min(...uses.map(([u, v]) => Math.hypot(x - u, y - v))));
            }""",
            view,
        )
        assert len(found) == 12
        assert max(found) < 0.3


def test_switches_change_the_view_and_the_address(opened):
    tab = opened("models")
    figure = tab.locator("#r0g0-latency_s")
    figure.get_by_label("linear in tokens").check()
    figure.get_by_label("swin-t").uncheck()
    assert figure.locator("[data-view]:visible").get_attribute("data-view") == "tokens"
    assert figure.locator("[data-view=tokens] [data-s=swin-t]:visible").count() == 0
    assert figure.locator("[data-view=tokens] [data-s=vheat-t]:visible").count() > 0
    assert tab.url.endswith("#chart=r0g0-latency_s&scale=tokens&series=vheat-t&series=vit-s")
    # the other charts stay as they were
    assert tab.locator("#r0g0-macs [data-view=log] [data-s=swin-t]:visible").count() > 0


def test_an_address_opens_the_chart_as_it_was(opened):
    tab = opened("operators", "#chart=r0g2-latency_s&series=op/heat&series=nonsense&scale=nonsense")
    figure = tab.locator("#r0g2-latency_s")
    assert figure.is_visible()
    assert figure.bounding_box()["y"] < 800
    assert figure.locator("[data-s='op/heat']:visible").count() > 0
    assert figure.locator("[data-s='op/attention']:visible").count() == 0
    assert tab.locator("#r0g2 .fold").get_attribute("open") is not None
    assert tab.locator("#r0g1 .fold").get_attribute("open") is None


def test_a_link_of_the_story_leads_to_its_chart(opened):
    tab = opened("models")
    tab.locator(".story a").first.click()
    assert tab.locator("#r0g0-latency_s").bounding_box()["y"] < 100


def test_tables_sort_by_number_and_back(opened):
    tab = opened("models")
    table = tab.locator("table.records")
    heading = table.locator("thead th").nth(3)
    values = []
    for order in ("ascending", "descending"):
        heading.locator("button").click()
        assert heading.get_attribute("aria-sort") == order
        cells = table.locator("tbody tr td:nth-child(4)").all_inner_texts()
        values.append([float(text.split()[0]) if text != "—" else None for text in cells])
    for column, order in zip(values, (1, -1), strict=True):
        assert column[-1] is None  # what was not measured comes last either way
        assert column[:-1] == sorted(column[:-1], key=lambda value: order * value)
    assert len(values[0]) == 13


def test_records_filter_by_words_and_status(opened):
    tab = opened("models")
    tools = tab.locator("#r0-records .tools")
    tools.locator("input").fill("vit-s 4")
    assert tools.locator("output").inner_text() == "4 of 13"  # 224, 448, 640 and 1024
    tools.locator("select").select_option("oom")
    assert tools.locator("output").inner_text() == "1 of 13"
    assert tab.locator("table.records tbody tr:visible").count() == 1


def test_charts_and_tables_are_saved_as_files_of_their_own(opened, tmp_path):
    tab = opened("models", color_scheme="dark")
    with tab.expect_download() as download:
        tab.get_by_role("button", name="Save Latency as SVG").click()
    download.value.save_as(tmp_path / "chart.svg")
    svg = (tmp_path / "chart.svg").read_text("utf-8")
    assert download.value.suggested_filename == "r0g0-latency_s.svg"
    assert "var(" not in svg
    assert "#ff8a3d" in svg  # the first colour of the dark page
    assert "circle" not in svg
    with tab.expect_download() as download:
        tab.locator("#r0-records .tools button").click()
    download.value.save_as(tmp_path / "records.csv")
    lines = (tmp_path / "records.csv").read_text("utf-8").splitlines()
    assert len(lines) == 14
    assert lines[0].startswith('"case","status","samples","throughput (images/s)","latency (ms)"')
    assert lines[1].split(",")[4] == '"100.0 99.0 to 101.0"'


def test_saved_tables_hold_no_formulas(opened, tmp_path):
    tab = opened("models")
    tab.evaluate("document.querySelector('table.records tbody td').textContent = '=1+1 \"x\"'")
    tab.evaluate("document.querySelectorAll('table.records tbody td')[1].textContent = '+5.0 %'")
    with tab.expect_download() as download:
        tab.locator("#r0-records .tools button").click()
    download.value.save_as(tmp_path / "records.csv")
    row = (tmp_path / "records.csv").read_text("utf-8").splitlines()[1]
    assert '"\'=1+1 ""x"""' in row
    assert '"+5.0 %"' in row


def test_printed_it_is_light_without_controls_and_with_all_folds_open(opened):
    tab = opened("operators", color_scheme="dark")
    tab.emulate_media(media="print", color_scheme="dark")
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert visible(tab, "nav, .tools, .tip") == 0
    assert visible(tab, "figure svg") == 21
    pdf = tab.pdf(format="A4")
    assert pdf.startswith(b"%PDF")
    assert 4 <= len(re.findall(rb"/Type\s*/Page\b", pdf)) < 60


@pytest.mark.parametrize("name", ["models", "operators", "runs"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation(opened, name, scheme):
    source = axe()
    if source is None:
        pytest.skip("no axe-core here: pip install axe-playwright-python")
    tab = opened(name, color_scheme=scheme)
    tab.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    tab.evaluate(source.read_text("utf-8"))
    found = tab.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    assert [(one["id"], [node["html"][:200] for node in one["nodes"][:3]]) for one in found["violations"]] == []
    assert len(found["passes"]) > 20


def contrast(one: str, other: str) -> float:
    """WCAG contrast ratio of two CSS rgb() colours."""

    def luminance(colour: str) -> float:
        channels = [int(c) / 255 for c in re.findall(r"\d+", colour)[:3]]
        r, g, b = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    bright, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)
