"""Figures and report section of receptive fields: what they say, shared scales, escaping, equal bytes, odd input."""

from __future__ import annotations

import base64
import io
import re
import subprocess
import sys
import xml.etree.ElementTree as ET

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from support.erf_records import gaussian, result, run_with
from support.records import record as timed_record
from support.records import run_of
from vheatbench.errors import UserError
from vheatbench.metrics import info_of
from vheatbench.numbers import with_interval
from vheatbench.present import style
from vheatbench.present.images import LEVELS, coarse
from vheatbench.store import Metric
from vheatbench.studies.erf.field import ColourScale, area_curve, density, level_of, radial_profile
from vheatbench.studies.erf.figures import (
    draw_area_by_depth,
    draw_area_by_resolution,
    draw_area_curve,
    draw_radial_profile,
    figures_of,
    save_erf_figures,
)
from vheatbench.studies.erf.labels import common, deepest, differing, labels, series, state
from vheatbench.studies.erf.maps import (
    MAP_BYTES,
    PAGE_BYTES,
    erf_map,
    erf_maps,
    grid_of,
    layer_maps,
    map_uri,
    maps_markup,
)
from vheatbench.studies.erf.section import erf_sections

EVIL = '<script>alert("x")</script>$x_1$ &amp; \u202egnirts\x07'


def svg_text(path):
    return " ".join(t.strip() for t in ET.parse(path).getroot().itertext() if t.strip())


# numbers behind the figures


def test_density_has_mean_one_whatever_the_unit():
    field = gaussian((20, 30), 4)
    assert density(field).mean() == pytest.approx(1)
    np.testing.assert_allclose(density(field * 1e-30), density(field), rtol=1e-5)
    assert not density(np.zeros((4, 4))).any()


@pytest.mark.parametrize("shape", [(7, 7), (64, 64), (33, 65), (1, 9)])
def test_coarse_keeps_the_mass_and_the_cap(shape):
    field = np.random.default_rng(1).random(shape)
    cells, block = coarse(field, 8)
    assert max(cells.shape) <= 8
    heights = np.diff([*range(0, shape[0], block), shape[0]])
    widths = np.diff([*range(0, shape[1], block), shape[1]])
    assert (cells * heights[:, None] * widths).sum() == pytest.approx(field.sum())


def test_level_and_area_curve_of_known_maps():
    ramp = np.arange(1.0, 101).reshape(10, 10)
    assert level_of(ramp, 0.5) == 71  # 71 to 100 sum to 2565 of 5050; 72 to 100 do not reach half
    share, covered = area_curve(ramp)
    assert np.interp(0.5, share, covered) == pytest.approx(0.294, abs=0.01)
    assert (share[0], covered[0], covered[-1]) == (0, 0, 1)
    assert share[-1] == pytest.approx(1)
    share, covered = area_curve(np.ones((50, 50)))
    np.testing.assert_allclose(share, covered, atol=1e-12)
    assert area_curve(np.zeros((5, 5)))[0].size == 0
    assert level_of(np.zeros((5, 5)), 0.5) == 0


def test_radial_profile_of_a_disc_about_its_own_centre():
    y, x = np.mgrid[:64, :64] + 0.5
    disc = (np.hypot(y - 20, x - 40) <= 10).astype(float)
    radius, profile = radial_profile(disc, (20, 40), ring=2)
    height = 64 * 64 / disc.sum()
    np.testing.assert_allclose(profile[radius < 9], height)
    assert not profile[radius > 11].any()
    assert np.all(np.diff(radius) > 0)


# labels


def test_labels_say_what_differs_and_the_title_what_does_not():
    pair = [result("vheat-t", conduction="learned"), result("swin-t", layer="layers.3")]
    assert labels(pair) == ["vheat-t", "swin-t"]
    assert common(pair) == "64 px, random weights, 10 images"
    states = [result(conduction="learned"), result(conduction="none"), result(conduction="5")]
    assert labels(states) == ["learned k", "no conduction", "constant k = 5"]
    before_after = [result(), result(weights="best.pth (0123456789ab)")]
    assert labels(before_after) == ["random weights", "best.pth (0123456789ab)"]
    assert "random" not in common(before_after)
    assert labels([result()]) == ["vheat-t"]
    assert differing([result(), result(protocol="replknet")]) == ["protocol"]
    assert "RepLKNet's protocol" in common([result(protocol="replknet")])


def test_the_state_is_said_in_one_way():
    assert state(result(conduction="learned").record) == "random weights"
    trained = result(weights="best.pth (0123456789ab)", conduction="none", protocol="replknet", dtype="bfloat16")
    assert state(trained.record) == "best.pth (0123456789ab), RepLKNet's protocol, bfloat16, no conduction"
    # a record that failed knows what was asked for alone
    trained.record.conditions.clear()
    assert state(trained.record) == "0123456789ab, RepLKNet's protocol, bfloat16, no conduction"


def test_labels_are_short_and_never_alike():
    long = [result(f"a_model_{'x' * 60}_{i}_{'y' * 60}", weights=f"{'w' * 50}{i}.pth (0123)") for i in range(3)]
    found = labels([*long, result("swin-t")])
    assert all(len(label) <= 50 for label in found)
    assert len(set(found)) == 4


def test_series_and_deepest():
    layers = [result(layer=f"stages.{i}", depth=i) for i in (2, 0, 1)]
    other = result("swin-t", layer="layers.3")
    assert [[one.depth for one in group] for group in series([*layers, other], "layer")] == [[0, 1, 2]]
    assert [one.depth for one in deepest([*layers, other])] == [2, 0]
    sizes = [result(size=(side, side)) for side in (96, 32, 64)]
    assert [one.resolution[0] for one in series([*sizes, other], "resolution")[0]] == [32, 64, 96]
    assert series([other], "resolution") == []


# figures


def test_maps_share_one_scale_and_say_how_it_is_coloured(tmp_path):
    results = [result("vheat-t", sigma=12), result("swin-t", sigma=3)]
    with style.style():
        (figure,) = erf_maps(results)
        images = [ax.images[0] for ax in figure.axes if ax.images]
        assert len(images) == 2
        scale = ColourScale.of(one.map for one in results)
        assert {(one.norm.vmin, one.norm.vmax) for one in images} == {(scale.low, scale.high)}
        assert scale.high == pytest.approx(max(density(one.map).max() for one in results))
        assert [ax.get_title("center") for ax in figure.axes[:2]] == ["vheat-t\nstages.3", "swin-t\nstages.3"]
        path, *_ = style.save(figure, tmp_path / "x", ("svg",))
    text = svg_text(path)
    assert "colour logarithmic" in text
    assert text.count("random weights") == 3  # below each map and above all
    assert "A50 10.8 % (9.7 to 11.8)" in text
    assert text.count("A50") >= 3


def test_least_dense_colour_is_below_all_but_one_percent_of_the_mass():
    results = [result(sigma=12), result(sigma=3)]
    scale = ColourScale.of(one.map for one in results)
    for one in results:
        mass = density(one.map)
        assert mass[mass < scale.low].sum() <= 0.01 * mass.sum()
    assert ColourScale.of([]).high > ColourScale.of([]).low > 0


@pytest.mark.parametrize("field", [gaussian((64, 64), 9), np.ones((64, 64))], ids=["several decades", "even"])
def test_positions_are_those_of_the_norm(field):
    scale = ColourScale.of([field])
    field = np.geomspace(scale.high / 1e6, scale.high * 2, 50)
    np.testing.assert_allclose(scale.positions(field), np.asarray(scale.norm(field)), atol=1e-12)
    assert all(scale.low <= tick <= scale.high for tick in scale.ticks)
    assert len(scale.ticks) >= 2
    assert scale.high / scale.low >= 10


def test_map_marks_the_true_centre_and_half_of_the_mass():
    one = result(field=gaussian((96, 96), 9, centre=(30, 60)), centre=(30.5, 60.5), size=(96, 96))
    with style.style():
        ax = Figure().subplots()
        assert erf_map(ax, one) is ax
    assert list(ax.lines[0].get_data()) == [[60.5], [30.5]]
    contours = [artist for artist in ax.collections if artist.get_paths()]
    rings = [np.concatenate([path.vertices for path in contour.get_paths()]) for contour in contours]
    assert len(rings) == 2, "A99 and, over it, A50"
    assert np.allclose(rings[1].mean(axis=0), (60, 30), atol=3)
    far, near = (np.hypot(*(ring - (60.5, 30.5)).T).mean() for ring in rings)
    assert near == pytest.approx(9 * np.sqrt(2 * np.log(2)), rel=0.25)
    assert far > 1.8 * near


def test_weights_and_sizes_are_rows_conduction_is_columns():
    grid, columns, rows = grid_of([result(size=(s, s), conduction=k) for s in (32, 64) for k in ("learned", "none")])
    assert (len(grid), len(grid[0])) == (2, 2)
    assert rows == ["32 px", "64 px"]
    assert [column.split("\n")[-1] for column in columns] == ["learned k", "no conduction"]
    grid, _, rows = grid_of([result(), result(weights="a.pth (0)"), result("swin-t")])
    assert rows == ["random weights", "a.pth (0)"]
    assert [[one is not None for one in line] for line in grid] == [[True, True], [True, False]]


def test_weights_that_a_name_says_are_neither_a_row_nor_part_of_a_label():
    both = [result("vheat-micro"), result("vheat-micro:photographs", weights="shipped (0123456789ab)")]
    assert labels(both) == ["vheat-micro", "vheat-micro:photographs"]
    grid, columns, rows = grid_of(both)
    assert [len(line) for line in grid] == [2]
    assert all(cell is not None for cell in grid[0])
    assert len(columns) == 2
    assert rows == [""]
    assert "weights" not in common(both)
    assert "shipped (0123456789ab)" in common(both[1:])
    other = result("vheat-micro", weights="mine.pth (fedcba987654)")
    assert labels([*both, other])[2].startswith("vheat-micro, mine.pth (")


def test_many_models_many_layers_and_many_sizes_are_split_over_figures_on_one_scale():
    with style.style():
        twelve = erf_maps([result(f"model-{i}", sigma=2 + i) for i in range(12)])
        assert [sum(bool(ax.images) for ax in figure.axes) for figure in twelve] == [12]
        six = erf_maps([result(f"model-{i}", size=(s, s)) for i in range(6) for s in (32, 64)])
        assert [sum(bool(ax.images) for ax in figure.axes) for figure in six] == [10, 2]
        limits = {(ax.images[0].norm.vmin, ax.images[0].norm.vmax) for f in six for ax in f.axes if ax.images}
        assert len(limits) == 1
        assert erf_maps([]) == []
    ((subject, shown),) = layer_maps([result(layer=f"blocks.{i}", depth=i) for i in range(12)])
    assert subject == "vheat-t"
    assert [one.depth for one in shown] == [0, 3, 6, 8, 11]


def everything():
    """Two models at two sizes with three layers each, and an ablation."""
    found = [
        result(subject, size=(size, size), sigma=(2 + depth) * size / 64, layer=f"stages.{depth}", depth=depth)
        for subject in ("vheat-t", "swin-t") for size in (32, 64) for depth in range(3)
    ]  # fmt: skip
    return [*found, result(conduction="none", layer="stages.2", depth=2)]


def test_all_figures_are_written_and_say_random(tmp_path):
    one, two = (save_erf_figures(everything(), tmp_path / name, ("svg",)) for name in "ab")
    assert {path.stem for path in one} == {
        "erf-maps", "erf-layers-vheat-t", "erf-layers-swin-t", "erf-radial", "erf-area", "erf-depth", "erf-resolution",
    }  # fmt: skip
    for first, second in zip(one, two, strict=True):
        assert first.read_bytes() == second.read_bytes(), first.name
        assert "random weights" in svg_text(first), first.name
    assert save_erf_figures([], tmp_path / "none") == []


def test_every_format_has_equal_bytes_and_the_width_of_its_column(tmp_path):
    one, two = (save_erf_figures([result()], tmp_path / name) for name in "ab")
    assert len(one) == 3 * 3
    for first, second in zip(one, two, strict=True):
        assert first.read_bytes() == second.read_bytes(), first.name
        if first.suffix == ".png":
            assert Image.open(first).width <= 300 * style.ONE_COLUMN


def test_users_own_settings_do_not_change_a_figure(tmp_path):
    (plain,) = save_one(tmp_path / "a")
    with matplotlib.rc_context(
        {"font.size": 20, "axes.facecolor": "red", "svg.fonttype": "path", "lines.linewidth": 9}
    ):
        (own,) = save_one(tmp_path / "b")
    assert plain.read_bytes() == own.read_bytes()


def save_one(folder):
    with style.style():
        figure = style.new_figure()
        draw_area_curve(figure.subplots(), [result()])
        return style.save(figure, folder / "x", ("svg",))


def test_units_and_axes_are_said():
    with style.style():
        same = [result(), result("swin-t")]
        mixed = [result(), result(size=(32, 32))]
        ax = draw_radial_profile(Figure().subplots(), same)
        assert ax.get_xlabel().endswith("(px)")
        assert ax.get_yscale() == "log"
        assert "share of the shorter side" in draw_radial_profile(Figure().subplots(), mixed).get_xlabel()
        ax = draw_area_curve(Figure().subplots(), same)
        assert ax.get_title("left") == "64 px, random weights, 10 images"
        assert [line.get_label() for line in ax.lines[:2]] == ["vheat-t", "swin-t"]
        ax = draw_area_by_depth(Figure().subplots(), everything()[:3], "erf_a99")
        assert [label.get_text() for label in ax.get_xticklabels()] == ["stages.0", "stages.1", "stages.2"]
        assert ax.get_ylabel() == "A99 (share of the image)"
        two = [result(layer=f"s.{i}", depth=i) for i in range(2)]
        three = [result("swin-t", layer=f"b.{i}", depth=i) for i in range(3)]
        ax = draw_area_by_depth(Figure().subplots(), [*two, *three])
        assert "position" in ax.get_xlabel()
        assert [list(bar.lines[0].get_xdata()) for bar in ax.containers] == [[0, 1], [0, 0.5, 1]]


def test_resolution_in_pixels_is_the_share_times_the_area():
    results = [result(size=(s, s), sigma=5) for s in (32, 64)]
    with style.style():
        share, pixels = (
            draw_area_by_resolution(Figure().subplots(), results, "erf_a50", unit) for unit in ("share", "pixels")
        )
    (a,), (b,) = share.containers, pixels.containers
    in_share, in_pixels = (np.asarray(bar.lines[0].get_ydata(), dtype=float) for bar in (a, b))
    np.testing.assert_allclose(in_pixels, in_share * np.array([32**2, 64**2]))
    assert [label.get_text() for label in share.get_xticklabels()] == ["32", "64"]
    metric = results[1].record.metrics["erf_a50"]
    ends = b.lines[2][0].get_segments()[1][:, 1]
    np.testing.assert_allclose(ends, [metric.low * 64**2, metric.high * 64**2])


ODD = {
    "zero": [result(field=np.zeros((64, 64), np.float32)), result("swin-t")],
    "only zero": [result(field=np.zeros((64, 64), np.float32))],
    "tiny numbers": [result(field=gaussian((64, 64), 8) * np.float32(1e-38))],
    "one pixel": [result(field=np.eye(1, 4096, 2080, dtype=np.float32).reshape(64, 64))],
    "uniform": [result(field=np.ones((64, 64), np.float32))],
    "not square": [result(size=(40, 150)), result("swin-t", size=(150, 40))],
    "very small": [result(size=(2, 3), field=np.ones((2, 3), np.float32))],
    "long names": [result("an_extremely_long_model_name.with_its_training_recipe_in22k_ft_in1k_384" * 2 + str(i))
                   for i in range(3)],
    "markup": [result(EVIL, weights=EVIL, layer=EVIL), result("swin-t")],
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_odd_input_is_drawn_and_named(name, tmp_path):
    paths = save_erf_figures(ODD[name], tmp_path, ("svg",))
    assert {path.stem for path in paths} >= {"erf-maps", "erf-radial", "erf-area"}
    for path in paths:
        text = svg_text(path)  # fails where a name broke the markup
        assert "\u202e" not in text
    (section,) = erf_sections(run_with(ODD[name], tmp_path), "r0")
    assert len(section.charts) == 3


def test_zero_map_is_said():
    with style.style():
        (figure,) = erf_maps(ODD["only zero"])
    assert "no gradient at all" in figure.axes[0].get_xlabel()


def test_a_figure_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        save_erf_figures([result()], tmp_path / "file")


def test_names_are_shortened_in_the_middle_and_folded():
    assert style.shorten("abcdefghij", 5) == "ab…ij"
    assert style.shown("a\u202eb\x00") == "a\ufffdb\ufffd"
    folded = style.fold("swin_tiny_patch4_window7_224.ms_in22k_ft_in1k", 18)
    assert max(map(len, folded.split("\n"))) <= 18
    assert folded.replace("\n", "") == "swin_tiny_patch4_window7_224.ms_in22k_ft_in1k"
    assert style.fold("x" * 100, 10).count("\n") == 2
    assert len({(one.colour, one.dash) for one in style.PRINT_LINES[:24]}) == 24
    assert len({(one.colour, one.dash, one.marker) for one in style.PRINT_LINES}) == 48


def test_figures_need_neither_pyplot_nor_torch():
    code = (
        "import sys, vheatbench.studies.erf.section, vheatbench.studies.erf.figures\n"
        "assert not {'torch', 'timm', 'matplotlib.pyplot'} & set(sys.modules), 'heavy import'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# the page


def test_section_has_every_chart_with_numbers_and_words(tmp_path):
    (section,) = erf_sections(run_with(everything(), tmp_path), "r0")
    titles = [chart.title for chart in section.charts]
    assert titles == [
        "Maps", "Layers of vheat-t", "Layers of swin-t", "Mass over distance", "Area against threshold",
        "A50 over depth", "A99 over depth", "A50 in pixels over resolution", "A50 as a share over resolution",
    ]  # fmt: skip
    ids = [chart.id for chart in section.charts] + [table.id for table in section.tables]
    assert len(set(ids)) == len(ids)
    assert all(id_.startswith("r0-") for id_ in ids)
    for chart in section.charts:
        assert chart.rows
        assert all(len(row) == len(chart.header) for row in chart.rows)
        assert ("swin-t" if "swin-t" in chart.title else "vheat-t") in chart.text
        if "<svg" in chart.svg:
            ET.fromstring(chart.svg)
            assert "var(--series-1)" in chart.svg
            assert "var(--ink)" in chart.svg
            assert "random weights" in chart.svg
            assert 'data-s="vheat-t' in chart.svg
    depth = next(chart for chart in section.charts if chart.title == "A50 over depth")
    discs = re.findall(r'<circle data-s="([^"]*)" cx="([\d.]+)" cy="([\d.]+)" r="7"><title>([^<]*)', depth.svg)
    assert [(name, text.split(":")[0]) for name, _, _, text in discs] == [
        (label, f"{label}, stages.{i}")
        for label in ("vheat-t, 32 px", "vheat-t, 64 px", "swin-t, 32 px", "swin-t, 64 px") for i in range(3)
    ]  # fmt: skip
    assert all(0 < float(x) < 6.2 * 72 and 0 < float(y) < 6 * 72 for _, x, y, _ in discs)
    (table,) = section.tables
    assert len(table.rows) == len(everything())
    assert "from leaving out groups of photographs" in table.caption
    assert all(len(row) == len(table.header) for row in table.rows)
    assert any("Random weights (vheat-t, swin-t)" in note for note in section.notes)


def test_findings_name_the_ratio_with_the_most_cautious_interval(tmp_path):
    wide, narrow = np.zeros((100, 100), np.float32), np.zeros((100, 100), np.float32)
    wide[:40], narrow[:10] = 1, 1
    pair = [result("vheat-t", (100, 100), field=wide), result("swin-t", (100, 100), field=narrow)]
    (section,) = erf_sections(run_with(pair, tmp_path), "r0")
    (short, anchor), (finding, _) = section.findings
    assert anchor == "r0-maps"
    assert (short.important, finding.important) == (True, False)
    assert short.text == (
        "With random weights, 99 % of what vheat-t sees from the centre of its last layer lies in 40 % of the image at "
        "100 px; of swin-t 9.9 %."
    )
    # 20 % of the pixels against 5 %, each to a tenth: 0.9 / 1.1 to 1.1 / 0.9 of 4
    assert "lies in 20.0 % (18.0 to 22.0) of the image, 4.0× (3.3 to 4.9) swin-t's" in finding.text
    assert finding.text.startswith("With random weights, at 100 px half of vheat-t's")
    equal = [result("vheat-t", (100, 100), field=wide), result("swin-t", (100, 100), field=wide)]
    (section,) = erf_sections(run_with(equal, tmp_path), "r0")
    assert section.findings[1][0].text.count("no clear difference") == 2


def test_what_was_learned_comes_before_what_it_began_with(tmp_path):
    fields = [np.zeros((100, 100), np.float32) for _ in range(4)]
    for field, rows in zip(fields, (20, 40, 10, 30), strict=True):
        field[:rows] = 1
    names = ("vheat-micro", "vheat-micro:photographs", "swin-micro", "swin-micro:photographs")
    weights = ("random", "shipped (0123456789ab)", "random", "shipped (ba9876543210)")
    found = [
        result(name, (100, 100), field=field, weights=own)
        for name, field, own in zip(names, fields, weights, strict=True)
    ]
    (section,) = erf_sections(run_with(found, tmp_path), "r0")
    assert section.findings[0][0].text == (
        "With shipped weights, 99 % of what vheat-micro:photographs sees from the centre of its last layer lies in "
        "40 % of the image at 100 px; of swin-micro:photographs 30 %. Before training vheat-micro's lay in 20 %."
    )


def test_an_interval_down_to_nothing_bounds_the_ratio_on_one_side(tmp_path):
    pair = [result(sigma=9), result("swin-t", sigma=5)]
    pair[1].record.metrics["erf_a50"] = Metric(value=0.02, low=0, high=0.2, unit="share", how="jackknife")
    (section,) = erf_sections(run_with(pair, tmp_path), "r0")
    assert "or more), no clear difference, swin-t's" in section.findings[1][0].text


def test_numbers_have_the_digits_of_their_interval():
    def said(value, low, high):
        return with_interval(Metric(value=value, low=low, high=high, unit="share", how="x"), info_of("erf_a50"))

    assert said(0.04, 0.0376, 0.0424) == "4.000 (3.760 to 4.240)"
    assert said(0.0086, 0, 0.02716) == "0.86 (0.00 to 2.72)"
    assert said(0.5, 0.3, 0.7) == "50.0 (30.0 to 70.0)"
    assert said(0.5, None, None) == "50.0"
    assert said(0, None, None) == "0"
    metric = Metric(value=38.2, low=37.2, high=39.2, unit="px", how="x")
    assert with_interval(metric, info_of("erf_radius_px"), "px") == "38.20 px (37.20 to 39.20)"


def test_a_layer_without_a_value_is_a_gap(tmp_path):
    layers = [result(layer=f"stages.{i}", depth=i) for i in range(3)]
    layers[1].record.metrics["erf_a50"] = Metric(unavailable="no gradient", unit="share", how="jackknife")
    other = [result("swin-t", layer=f"stages.{i}", depth=i, field=np.zeros((64, 64), np.float32)) for i in range(3)]
    (section,) = erf_sections(run_with([*layers, *other], tmp_path), "r0")
    depth = next(chart for chart in section.charts if chart.title == "A50 over depth")
    assert depth.svg.count("<circle") == 2
    assert ("vheat-t", "stages.1", "—") in depth.rows


def test_growth_with_the_image_is_told_per_model(tmp_path):
    sizes = [result(size=(side, side), sigma=5) for side in (64, 32)]
    (section,) = erf_sections(run_with(sizes, tmp_path), "r0")
    ((finding, anchor),) = section.findings
    assert "from 32 to 64 px vheat-t's A50 goes from" in finding.text
    assert anchor == "r0-resolution-share"
    assert anchor in [chart.id for chart in section.charts]


def test_conduction_is_compared_with_none(tmp_path):
    states = [result(sigma=9, conduction="learned"), result(sigma=6, conduction="none")]
    (section,) = erf_sections(run_with(states, tmp_path), "r0")
    ((finding, _),) = section.findings
    assert "of the same weights without conduction" in finding.text


def test_other_runs_have_no_section_and_a_lost_map_is_said(tmp_path):
    assert erf_sections(run_of([timed_record("vheat-t", 224, 0.1)]), "r0") == []
    run = run_with([result(), result("swin-t")], tmp_path)
    next((tmp_path / "run.files").glob("0.npz")).unlink()
    (section,) = erf_sections(run, "r0")
    assert len(section.tables[0].rows) == 2
    assert any("No map" in note and "vheat-t" in note for note in section.notes)
    assert "vheat-t" not in section.charts[0].svg
    next((tmp_path / "run.files").glob("1.npz")).unlink()
    (section,) = erf_sections(run, "r0")
    assert section.charts == []
    assert section.findings[0][1] == "r0-numbers"


def pictures(markup):
    uris = re.findall(r'src="data:image/png;base64,([^"]+)"', markup)
    return [Image.open(io.BytesIO(base64.b64decode(uri))) for uri in uris]


def test_maps_of_the_page_are_small_palette_pictures_on_one_scale():
    noise = np.random.default_rng(0).gamma(0.5, 1, (1024, 1024)).astype(np.float32)
    results = [result(size=(1024, 1024), field=noise), result("swin-t", size=(64, 128), sigma=4)]
    markup = maps_markup(results)
    assert all(len(uri) <= MAP_BYTES for uri in re.findall(r'src="([^"]+)"', markup))
    large, small, bar = pictures(markup)
    assert (large.mode, small.mode, bar.width) == ("P", "P", LEVELS)
    assert small.size == (128, 64)
    assert large.width <= 224
    assert large.palette.colors == small.palette.colors
    alts = re.findall(r'alt="([^"]+)"', markup)
    assert len(alts) == 2
    assert "A50" in alts[1]
    assert "random weights" in alts[1]


def test_many_maps_share_the_room_that_the_page_has():
    noise = np.random.default_rng(0).gamma(0.5, 1, (224, 224)).astype(np.float32)
    many = [result(f"model-{i}", size=(224, 224), field=noise) for i in range(20)]
    uris = re.findall(r'src="([^"]+)" alt="Map', maps_markup(many))
    assert len(uris) == 20
    assert sum(map(len, uris)) <= PAGE_BYTES
    assert len(map_uri(many[0], ColourScale.of([many[0].map]))) > PAGE_BYTES / 20


def test_picture_shows_density_contour_and_centre():
    one = result(field=gaussian((64, 64), 6, floor=0, seed=1, centre=(20, 40)), centre=(20.5, 40.5))
    scale = ColourScale(0.1, 100)
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(map_uri(one, scale).split(",")[1]))))
    assert picture[20, 40] == LEVELS + 1
    border = np.argwhere(picture == LEVELS)
    assert np.allclose(border.mean(axis=0), (20, 40), atol=2)
    assert np.hypot(*(border - (20, 40)).T).mean() == pytest.approx(6 * np.sqrt(2 * np.log(2)), rel=0.25)
    plain = picture < LEVELS
    np.testing.assert_array_equal(picture[plain], np.round(scale.positions(density(one.map)) * (LEVELS - 1))[plain])


def test_names_from_outside_are_text_not_markup(tmp_path):
    (section,) = erf_sections(run_with(ODD["markup"], tmp_path), "r0")
    for chart in section.charts:
        assert "<script" not in chart.svg
    assert "&lt;script&gt;" in section.charts[0].svg
    closed = re.sub(r"(<img[^>]*|<br)>", r"\1/>", section.charts[0].svg)
    ET.fromstring(f"<div>{closed}</div>")


def test_section_is_the_same_every_time(tmp_path):
    one, two = (erf_sections(run_with(everything(), tmp_path), "r0")[0] for _ in range(2))
    assert [chart.svg for chart in one.charts] == [chart.svg for chart in two.charts]


def test_figures_have_names_of_their_own():
    with style.style():
        names = [name for name, _ in figures_of([result("a/b"), result("a b"), *everything()])]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[\w.-]+", name) for name in names)
