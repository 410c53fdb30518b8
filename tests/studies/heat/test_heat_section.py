"""Heat in the report: what the sections say and show, and the slider's script against numpy in a real browser."""

from __future__ import annotations

import base64
import json
import re
import shutil
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from support.heat_records import diffuse, diffusion_run, diffusivity_run, kernel_run, random_k
from support.records import record, run_of
from vheatbench.present.images import LEVELS, colour_table
from vheatbench.report.page import TEMPLATES, render
from vheatbench.store import Run
from vheatbench.studies.heat.images import slider_data, strip_markup
from vheatbench.studies.heat.results import diffusions_of
from vheatbench.studies.heat.section import heat_sections
from vheatbench.studies.heat.temperature import TemperatureScale, field_at

EVIL = '<script>alert("x")</script>\' onmouseover="y" $x$'
SCRIPT = (TEMPLATES / "diffusion.js").read_text(encoding="utf-8")


def images(markup: str) -> list[tuple[dict[str, str], Image.Image]]:
    """Attributes and decoded picture of every ``<img>``."""
    found = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attributes):
            if tag == "img":
                values = dict(attributes)
                kind, data = values["src"].split(";base64,")
                assert kind in ("data:image/png", "data:image/jpeg")
                found.append((values, Image.open(BytesIO(base64.b64decode(data)))))

    Reader().feed(markup)
    return found


def test_a_run_without_heat_has_no_section():
    assert heat_sections(run_of([record("vheat-t", 224, 0.1)]), "r0") == []


def test_diffusion_shows_strip_overlay_slider_and_numbers(tmp_path):
    run = diffusion_run(tmp_path)
    (section,) = heat_sections(run, "r0heat")
    film, strip, overlay = section.charts
    assert film.svg.count('<source media="(prefers-reduced-motion: reduce)"') == len(images(film.svg))
    assert all(image.n_frames > 1 for _, image in images(film.svg)), "an APNG, which needs no script"
    assert strip.id == "r0heat-diffuse0-0-strip"
    assert "vheat-t at 144×192 px, stages.0.blocks.1, channel 3 (median of mean k); random weights" in strip.caption
    assert strip.data["kind"] == "diffusion"
    assert overlay.data is None
    assert overlay.header == strip.header
    assert list(overlay.rows) == [strip.rows[i] for i in (1, 3, 4, 6, 8, 9)]
    assert len(strip.rows) == 10
    assert all(len(row) == len(strip.header) for row in strip.rows)
    # at time 0 the source holds everything, in the end a constant k holds the mean
    assert strip.rows[0] == ("learned k", "0", "0", "108", "0", "100")
    assert strip.rows[9][:3] == ("constant k = 5", "40", "200")
    assert "constant k = 5: the hottest cell goes from 108 times the mean at t 0 to 1 at t 40" in strip.text
    assert [finding.important for finding, _ in section.findings] == [True, False]
    assert {anchor for _, anchor in section.findings} == {strip.id}
    sentence = section.findings[0][0].text
    kept = run.records[0].metrics["source_kept"].value
    assert float(re.search(r"leaves ([\d.]+) % of it in its cell", sentence)[1]) == pytest.approx(100 * kept, rel=5e-3)
    assert "which never fade" in sentence
    assert "Temperatures fall below zero: to −0." in section.findings[1][0].text
    assert any("Random weights (vheat-t)" in note for note in section.notes)
    (table,) = section.tables
    assert [row[:5] for row in table.rows] == [
        ("vheat-t", "144x192", "stages.0.blocks.1", "learned", "channel 3 (median of mean k)"),
        ("vheat-t", "144x192", "stages.0.blocks.1", "constant 5", "—"),
    ]
    assert table.rows[1][table.header.index("mean k (cells²)")] == "5"


def test_of_several_models_each_picture_says_which(tmp_path):
    run = diffusion_run(tmp_path)
    run.records.extend(diffusion_run(tmp_path, subject="vheat-s").records)
    (section,) = heat_sections(run, "r0heat")
    titles = [chart.title for chart in section.charts]
    assert titles[:2] == ["Heat in motion: stage 0, block 1, vheat-t", "Heat from one cell: stage 0, block 1, vheat-t"]
    assert sum(title.endswith(", vheat-s") for title in titles) == len(titles) / 2


def test_trained_weights_are_not_called_random(tmp_path):
    (section,) = heat_sections(diffusion_run(tmp_path, weights="best.pth (0123456789ab)"), "r0heat")
    everything = repr(section)
    assert "weights best.pth (0123456789ab)" in everything
    assert "andom weights" not in everything


def test_pictures_of_the_strip_are_the_fields(tmp_path):
    found = diffusions_of(diffusion_run(tmp_path))[0]
    pictures = images(strip_markup(found))
    scale = TemperatureScale.of(found)
    assert len(pictures) == 11
    for (attributes, picture), one, i in zip(pictures, [found[0]] * 5 + [found[1]] * 5, [*range(5)] * 2, strict=False):
        expected = np.round(scale.position(one.frames[i]) * (LEVELS - 1))
        assert picture.mode == "P"
        assert np.array_equal(np.asarray(picture), expected)
        assert (attributes["width"], attributes["height"]) == ("12", "9")
        assert "hottest cell" in attributes["alt"]
    rgb = np.asarray(pictures[0][1].convert("RGB"))
    assert (rgb[2, 7] == colour_table(LEVELS)[-1]).all()


def test_the_strip_is_one_row_of_every_default_time_and_says_what_it_leaves_out(tmp_path):
    path = tmp_path / "run.jsonl"
    for count, said in ((9, ""), (21, "; 9 of 21 times.")):
        times = np.array([0, *np.geomspace(0.3, 200, count - 1)])
        run = Run(path, run_of([]).header, [diffuse(path, 1.0, times, word="1")])
        (section,) = heat_sections(run, "r0heat")
        _film, strip, overlay = section.charts
        assert "repeat(9," in strip.svg
        assert 'class="scroll"' in strip.svg
        assert len(images(strip.svg)) == 9 + 1  # and the scale's bar
        assert strip.caption.endswith(said or "for all fields.")
        assert len(images(overlay.svg)) == 3
        assert overlay.caption.endswith(
            f"below 0.1 of the mean, or negative, are nearly transparent; 3 of {count} times."
        )


def test_fine_grids_are_shown_as_means_and_have_no_slider(tmp_path):
    path = tmp_path / "run.jsonl"
    grid = (130, 120)
    run = Run(path, run_of([]).header, [diffuse(path, 1.0, [0, 4.0], grid=grid, word="1", image=False)])
    (section,) = heat_sections(run, "r0heat")
    _film, strip = section.charts
    assert strip.data is None
    assert any("no slider" in note for note in section.notes)
    assert images(strip.svg)[0][1].size == (40, 44)


def test_many_layers_are_thinned_out_aloud(tmp_path):
    layers = [f"stages.0.blocks.{i}" for i in range(9)]
    (section,) = heat_sections(diffusion_run(tmp_path, layers=layers, image=False), "r0heat")
    assert len(section.charts) == 7
    assert len({chart.id for chart in section.charts}) == 7
    assert len(section.tables[0].rows) == 18
    assert any("6 of 9 layers" in note for note in section.notes)


def test_what_cannot_be_read_is_said(tmp_path):
    run = diffusion_run(tmp_path)
    for file in (tmp_path / "run.files").glob("*.npz"):
        file.write_bytes(b"no")
    (section,) = heat_sections(run, "r0heat")
    assert section.charts == []
    assert len(section.alerts) == 2
    assert "changed after the run was measured" in section.alerts[0]
    assert not section.empty


def test_diffusivity_shows_every_series_and_both_rules(tmp_path):
    (section,) = heat_sections(diffusivity_run(tmp_path), "r0heat")
    assert len({chart.id for chart in section.charts}) == len(section.charts) == 3 * 3 + 1 + 2
    by_id = {chart.id.removeprefix("r0heat-k"): chart for chart in section.charts}
    assert len(images(by_id["0-maps"].svg)) == 4
    assert len(images(by_id["0-rules0-maps"].svg)) == 7
    assert "k exactly 0 in all channels" in by_id["2-maps"].svg
    assert "k exactly 0 in all channels" not in by_id["0-maps"].svg
    assert [row[0] for row in by_id["0-quantiles"].rows] == [
        "stages.0.blocks.0",
        "stages.1.blocks.0",
        "stages.1.blocks.1",
    ]
    for chart in section.charts:
        assert all(len(row) == len(chart.header) for row in chart.rows)
        assert "random weights" in chart.title
        if "<svg" in chart.svg:
            ET.fromstring(chart.svg)
            assert "var(--series-2)" in chart.svg
            assert "#0072b" not in chart.svg
            assert "#010203" not in chart.svg
    assert "448 px (zeropad)" in by_id["0-length"].svg
    (table,) = section.tables
    assert len(table.rows) == 9
    zeros = table.header.index("k exactly 0 (%)")
    assert float(table.rows[6][zeros]) > 75 > float(table.rows[0][zeros])
    assert table.rows[0][-1] == "—"
    assert len(section.findings) == 3


def test_kernel_shows_profiles_errors_and_what_they_say(tmp_path):
    (section,) = heat_sections(kernel_run(tmp_path), "r0heat")
    profile, errors = section.charts
    assert "operator (DCT)" in profile.svg
    assert "kt = 0.1 cells²" in profile.svg
    assert errors.rows[0] == ("0.1", "20", "10", "3e−16", "0.015")
    said = " ".join(finding.text for finding, _ in section.findings)
    assert "From kt = 1 cells² on the operator is the heat equation's own kernel to 1e−5" in said
    assert "at 0.1 cells² the response goes to −0.015" in said
    assert "conserved to 3e−16" in said
    assert [row[2] for row in section.tables[0].rows] == ["0.1", "1", "5"]


def test_a_single_response_has_no_curve_over_kt(tmp_path):
    (section,) = heat_sections(kernel_run(tmp_path, kts=[0.1]), "r0heat")
    assert [chart.id for chart in section.charts] == ["r0heat-kernel0-profile"]
    assert not any("From kt" in finding.text for finding, _ in section.findings)


def test_names_from_outside_are_escaped(tmp_path):
    runs = [diffusion_run(tmp_path / "a", subject=EVIL, weights=EVIL), diffusivity_run(tmp_path / "b", subject=EVIL)]
    for run in runs:
        (section,) = heat_sections(run, "r0heat")
        for chart in section.charts:
            assert "<script" not in chart.svg
            assert 'onmouseover="' not in chart.svg
    assert "<script>alert" not in render(runs)


def test_equal_runs_give_equal_pages(tmp_path):
    assert render([diffusion_run(tmp_path)]) == render([diffusion_run(tmp_path)])


def test_the_script_is_small_and_fetches_nothing():
    served = "\n".join(line.strip() for line in SCRIPT.splitlines() if not line.strip().startswith("//"))
    assert len(served.encode()) < 3000
    assert not re.search(r"https?:|fetch\(|import\b|eval\(|innerHTML", SCRIPT)


# --- a real browser


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


def opened(browser, tmp_path, page: str):
    """The page in a tab, and what the browser complained of."""
    path = tmp_path / "page.html"
    path.write_text(page, encoding="utf-8")
    tab, complaints = browser.new_page(), []
    tab.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("request", lambda request: complaints.append(request.url) if request.url.startswith("http") else None)
    tab.goto(path.as_uri())
    return tab, complaints


FIELDS = "[...document.querySelectorAll('canvas')].map((canvas) => [...canvas.field])"
PIXELS = """[...document.querySelectorAll('canvas')].map((canvas) =>
    [...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data])"""


@pytest.mark.browser
@pytest.mark.parametrize("grid", [(9, 12), (7, 7), (1, 5), (33, 20)])
def test_the_slider_shows_the_exact_field(browser, tmp_path, grid):
    path = tmp_path / "run.jsonl"
    k = random_k(grid)
    source = (grid[0] // 3, grid[1] // 2)
    rows = [
        diffuse(path, k, np.array([0, 0.3, 200]) / k.mean(), grid=grid, source=source, image=False),
        diffuse(path, 5.0, np.array([0, 0.3, 200]) / 5, grid=grid, source=source, word="5", image=False),
    ]
    found = diffusions_of(Run(path, run_of([]).header, rows))[0]
    data = json.dumps(slider_data(found))
    tab, complaints = opened(
        browser,
        tmp_path,
        f'<figure id="x"><script type="application/json" data-for="x">{data}</script>'
        '<script type="application/json" data-for="y">{"kind": "other"}</script></figure>'
        f"<script>{SCRIPT}</script>",
    )
    scale = TemperatureScale.of(found)
    slider = tab.get_by_label("Any time")
    for place in (100, 0, 200):
        slider.fill(str(place))
        moment = 0.3 * (200 / 0.3) ** (place / 200)
        for one, rate, field, pixels in zip(
            found, (k.mean(), 5), tab.evaluate(FIELDS), tab.evaluate(PIXELS), strict=True
        ):
            expected = field_at(one.coefficients, one.k, moment / rate)
            assert np.abs(np.reshape(field, grid) - expected).max() < 1e-4 * expected.max()
            colours = colour_table(LEVELS)[np.round(scale.position(expected) * (LEVELS - 1)).astype(int)]
            shown = np.reshape(pixels, (*grid, 4))
            assert (shown[..., 3] == 255).all()
            # a value at the border of two colours may fall to either side
            assert (shown[..., :3] == colours).all(-1).mean() > 0.98
    assert complaints == []
    tab.close()


@pytest.mark.browser
def test_the_slider_works_in_the_page_and_by_keyboard(browser, tmp_path):
    tab, complaints = opened(browser, tmp_path, render([diffusion_run(tmp_path / "a")]))
    slider = tab.get_by_label("Any time")
    assert slider.get_attribute("type") == "range"
    assert tab.locator("output").first.inner_text() == "mean kt (cells²) 7.75"
    before = tab.evaluate(FIELDS)
    slider.focus()
    tab.keyboard.press("ArrowRight")
    assert tab.locator("output").first.inner_text() == "mean kt (cells²) 8"
    assert slider.evaluate("one => one.ariaValueText") == "mean kt (cells²) 8"
    assert tab.evaluate(FIELDS) != before
    tab.keyboard.press("End")
    assert tab.locator("output").first.inner_text() == "mean kt (cells²) 200"
    labels = tab.evaluate("[...document.querySelectorAll('canvas')].map((one) => one.ariaLabel)")
    assert labels[1] == "constant k = 5, t 40"
    assert complaints == []
    tab.close()


@pytest.mark.browser
def test_without_javascript_the_strip_is_complete(browser, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(render([diffusion_run(tmp_path / "a")]), encoding="utf-8")
    context = browser.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto(path.as_uri())
    strip = tab.locator("#r0heat-diffuse0-0-strip")
    assert strip.locator("img").count() == 11
    assert strip.locator("input").count() == 0
    assert all(box["width"] > 20 for box in (image.bounding_box() for image in strip.locator("img").all()))
    context.close()
