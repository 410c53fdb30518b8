"""Figures and films of heat: what they show, what they say, and that files open again."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from support.heat_records import block, diffuse, diffusion_run, diffusivity_run, kernel_run, random_k
from support.records import record, run_of
from vheatbench.errors import UserError
from vheatbench.present.images import evenly
from vheatbench.present.style import log_ticks, new_figure, style
from vheatbench.store import Run
from vheatbench.studies.heat import figures as heat_figures
from vheatbench.studies.heat.animation import FRAMES, LAST_MS, MOST_BYTES, draw_frames, save_animation
from vheatbench.studies.heat.diffusivity_figures import (
    ZERO_COLOUR,
    decay_figure,
    decay_floor,
    draw_decay,
    draw_k_map,
    draw_lengths,
    draw_quantiles,
    map_limits,
    maps_figure,
    rules_figure,
)
from vheatbench.studies.heat.diffusivity_groups import rules_of, series_of
from vheatbench.studies.heat.figures import filmstrip_figure, overlay_figure, save_heat_figures
from vheatbench.studies.heat.kernel_figures import draw_errors, draw_profile, draw_undershoot
from vheatbench.studies.heat.labels import Clock, block_words, brief
from vheatbench.studies.heat.results import diffusions_of, diffusivities_of, point_responses_of
from vheatbench.studies.heat.temperature import COLDEST, TemperatureScale, cosine_matrix, field_at, held_at_source

EVIL = '<script>alert("x")</script> $x_1$'


def diffusions(folder, **changes):
    found, problems = diffusions_of(diffusion_run(folder, **changes))
    assert problems == []
    return found


def texts(figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")))


# --- the field


@pytest.mark.parametrize("n", [1, 2, 7, 12])
def test_the_cosine_matrix_is_orthonormal(n):
    matrix = cosine_matrix(n)
    assert np.allclose(matrix @ matrix.T, np.eye(n), atol=1e-14)


def test_the_field_is_the_frame_that_was_stored_and_keeps_its_heat(tmp_path):
    learned, constant = diffusions(tmp_path)
    for one in (learned, constant):
        for t, frame in zip(one.times, one.frames, strict=True):
            assert np.allclose(field_at(one.coefficients, one.k, t), frame, atol=1e-14)
            assert frame.sum() == pytest.approx(1)
    # half of a random k is 0: that half never fades; a constant one becomes even
    assert held_at_source(learned) > 0.3
    assert held_at_source(constant) == pytest.approx(1 / 108, rel=0.2)


def test_one_scale_goes_from_the_coldest_to_the_hottest_cell_of_all(tmp_path):
    found = diffusions(tmp_path)
    scale = TemperatureScale.of(found)
    assert scale.hottest == pytest.approx(108)
    place = scale.position(np.array([[108.0, 1.0, COLDEST, 0.0, -5.0, -98.1]]))
    assert place[0, 0] == 1
    assert 0 < place[0, 1] < 1
    assert np.allclose(place[0, 2:], 0)


def test_fields_with_equal_times_share_t_others_share_mean_kt(tmp_path):
    learned, constant = diffusions(tmp_path)
    clock = Clock([learned, constant])
    assert clock.unit == "mean kt (cells²)"
    assert clock.span == pytest.approx((0.3, 200))
    assert clock.rate(constant) == 5
    assert Clock([constant]).unit == "t"
    assert Clock([constant]).span == pytest.approx((0.06, 40))


def test_a_single_time_and_a_dead_k_still_have_a_span(tmp_path):
    path = tmp_path / "run.jsonl"
    run = Run(path, run_of([]).header, [diffuse(path, 0.0, [0, 3.0]), diffuse(path, 2.0, [0, 1.5], word="2")])
    found = diffusions_of(run)[0]
    clock = Clock(found)
    assert clock.span == pytest.approx((0.03, 3.0))
    assert clock.rate(found[0]) == 1
    assert len(draw_frames(clock, [0, 0.03, 3])) == 3


# --- films


@pytest.mark.parametrize("suffix", [".png", ".gif"])
def test_films_open_again_with_every_frame_looped_and_the_last_held(tmp_path, suffix):
    paths = save_animation(diffusions(tmp_path), tmp_path / "film")
    path = {one.suffix: one for one in paths}[suffix]
    assert path.stat().st_size < MOST_BYTES
    with Image.open(path) as film:
        assert film.n_frames == FRAMES
        assert film.info["loop"] == 0
        durations = []
        for i in range(film.n_frames):
            film.seek(i)
            film.load()
            durations.append(film.info["duration"])
    assert durations == [120] * (FRAMES - 1) + [LAST_MS]


def test_frames_show_the_field_in_the_map_s_colours(tmp_path):
    found = diffusions(tmp_path)
    clock, scale = Clock(found), TemperatureScale.of(found)
    first, last = draw_frames(clock, [0.0, 200.0])
    assert first.mode == "P"
    levels = np.asarray(last)
    zoom = round(224 / 12)
    for one, left in zip(found, (12, 12 + 12 * zoom + 12), strict=True):
        expected = np.round(scale.position(field_at(one.coefficients, one.k, 200 / clock.rate(one))) * 239)
        shown = levels[46 : 46 + 9 * zoom : zoom, left : left + 12 * zoom : zoom]
        assert np.array_equal(shown, expected)
    assert np.asarray(first)[46 + 2 * zoom + 1, 12 + 7 * zoom + 1] == 239


def test_films_of_fine_grids_stay_small(tmp_path):
    path = tmp_path / "run.jsonl"
    grid = (128, 128)
    run = Run(path, run_of([]).header, [diffuse(path, random_k(grid), [0, 10, 1e4], grid=grid, image=False)])
    for film in save_animation(diffusions_of(run)[0], tmp_path / "film"):
        assert film.stat().st_size < MOST_BYTES
        with Image.open(film) as opened:
            assert opened.n_frames == FRAMES


# --- figures


@pytest.fixture
def only_svg(monkeypatch):
    """PNG and PDF take most of the time, and are matplotlib's own."""
    save = heat_figures.save
    monkeypatch.setattr(heat_figures, "save", lambda figure, stem: save(figure, stem, ("svg",)))


def test_every_figure_of_a_run_is_written(tmp_path, only_svg):
    out = tmp_path / "out"
    names = {path.name for path in save_heat_figures(diffusion_run(tmp_path / "a"), out)}
    stem = "diffuse-vheat-t-144x192-stages.0.blocks.1-random"
    assert names == {
        f"{stem}-strip.svg", f"{stem}-overlay.svg", f"{stem}-film.png", f"{stem}-film.gif"
    }  # fmt: skip
    names = {path.stem for path in save_heat_figures(diffusivity_run(tmp_path / "b"), out)}
    assert names == {
        *(f"diffusivity-{what}-vheat-t-{size}-random" for what in ("maps", "quantiles", "decay")
          for size in ("224", "448-bicubic", "448-zeropad")),
        "diffusivity-length-vheat-t-random", "diffusivity-rules-vheat-t-random-448",
    }  # fmt: skip


def test_figures_are_png_svg_and_pdf(tmp_path):
    paths = save_heat_figures(kernel_run(tmp_path, kts=[0.5]), tmp_path / "out")
    assert {path.name for path in paths} == {f"kernel-12x14-profile.{suffix}" for suffix in ("png", "svg", "pdf")}
    assert all(path.stat().st_size > 1000 for path in paths)


def test_layers_get_a_strip_of_their_own_and_no_file_is_written_twice(tmp_path, only_svg):
    run = diffusion_run(tmp_path, layers=["stages.0.blocks.0", "stages.1.blocks.0"], subject="x/y:z")
    paths = save_heat_figures(run, tmp_path / "out")
    assert len(paths) == len(set(paths)) == 2 * 4 + 1
    assert any(path.name == "diffuse-x-y-z-144x192-layers-random-strip.svg" for path in paths)


def test_a_run_without_heat_has_no_figures(tmp_path):
    assert save_heat_figures(run_of([record("vheat-t", 224, 0.1)]), tmp_path / "out") == []
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        save_heat_figures(kernel_run(tmp_path / "a"), tmp_path / "out" / "x")


def test_equal_runs_give_equal_files(tmp_path, only_svg):
    one = save_heat_figures(diffusion_run(tmp_path / "a"), tmp_path / "one")
    other = save_heat_figures(diffusion_run(tmp_path / "a"), tmp_path / "other")
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in other]


def test_the_filmstrip_says_what_it_shows(tmp_path):
    with style():
        figure = filmstrip_figure(diffusions(tmp_path))
    said = texts(figure)
    assert "vheat-t at 144×192 px, stages.0.blocks.1, channel 3 (median of mean k)" in said
    assert "random weights; learned k is 0 at " in said
    assert "of the heat is in its cell at the end" in said
    assert "stays a point" not in said
    assert "constant\nk = 5" in said
    assert "temperature / its mean, log scale" in said
    # what the rows share is on top, their own times below
    assert "kt 200" in said
    assert "t 40" in said
    images = [image for ax in figure.axes for image in ax.get_images()]
    assert len(images) == 10
    assert {image.get_clim() for image in images} == {(0, 1)}


def test_a_field_that_stays_a_point_is_called_one(tmp_path):
    path = tmp_path / "run.jsonl"
    rows = [diffuse(path, random_k(scale=1e-6), [0, 1, 10])]
    with style():
        said = texts(filmstrip_figure(diffusions_of(Run(path, run_of([]).header, rows))[0]))
    assert "100 % of the heat is in its cell at the end: the field stays a point" in said.replace("\n", " ")


def test_trained_weights_are_named_and_not_called_random(tmp_path):
    found = diffusions(tmp_path, weights="best.pth (0123456789ab)")
    with style():
        said = texts(overlay_figure(found))
    assert "weights best.pth (0123456789ab)" in said
    assert "random" not in said


def test_the_strip_shows_every_default_time_and_says_what_it_leaves_out(tmp_path):
    path = tmp_path / "run.jsonl"
    for count, said in ((9, ""), (21, "; 9 of 21 times")):
        times = np.array([0, *np.geomspace(0.3, 200, count - 1)])
        found = diffusions_of(Run(path, run_of([]).header, [diffuse(path, 1.0, times, word="1")]))[0]
        with style():
            strip, overlay = filmstrip_figure(found), overlay_figure(found)
        assert len([ax for ax in strip.axes if ax.images]) == 9
        assert ("times" in texts(strip)) == bool(said)
        assert said in texts(strip)
        assert f"; 4 of {count} times" in texts(overlay)
        assert "(black: below 0.1, or negative)" in texts(strip)
        assert "(nearly transparent: below 0.1, or negative)" in texts(overlay)


def test_the_overlay_puts_the_ring_where_the_source_is(tmp_path):
    with style():
        figure = overlay_figure(diffusions(tmp_path))
    ax = figure.axes[0]
    (ring,) = ax.patches
    assert ring.center == pytest.approx(((7 + 0.5) * 16, (2 + 0.5) * 16))
    picture, field = ax.get_images()
    assert picture.get_extent() == field.get_extent() == [0, 192, 144, 0]
    assert field.get_alpha().shape == (9, 12)


def test_a_damaged_picture_is_named(tmp_path):
    (found, _) = diffusions(tmp_path)
    with pytest.raises(UserError, match="is no image"):
        overlay_figure([type(found)(**{**vars(found), "image": b"no"})])


def test_names_from_outside_stay_text(tmp_path, only_svg):
    out = tmp_path / "out"
    paths = save_heat_figures(diffusion_run(tmp_path, subject=EVIL), out)
    svg = next(path for path in paths if path.name.endswith("strip.svg")).read_text()
    assert "<script" not in svg
    assert "$x_1$" in svg
    assert all(path.parent == out for path in paths)


def blocks(folder, **changes):
    found, problems = diffusivities_of(diffusivity_run(folder, **changes))
    assert problems == []
    return series_of(found)


def test_series_are_the_own_size_first_then_the_rules(tmp_path):
    series = blocks(tmp_path)
    assert [(one[0].resolution[0], one[0].rule) for one in series] == [(224, ""), (448, "bicubic"), (448, "zeropad")]
    assert [[b.depth for b in one] for one in series] == [[0, 1, 2]] * 3
    (compared,) = rules_of(series)
    assert len(compared) == 3
    assert rules_of(series[:1]) == []


def test_exact_zeros_have_their_own_colour(tmp_path):
    zeropad = blocks(tmp_path)[2][0]
    with style():
        figure = new_figure()
        ax = draw_k_map(figure.subplots(), zeropad, map_limits([zeropad]))
        (image,) = ax.get_images()
        colours = image.to_rgba(image.get_array(), bytes=True)[..., :3]
    zero = np.array([int(ZERO_COLOUR[i : i + 2], 16) for i in (1, 3, 5)])
    assert ((colours == zero).all(-1) == (zeropad.mean_map == 0)).all()
    assert (zeropad.mean_map == 0).any()


def test_maps_share_one_scale_and_name_random_weights(tmp_path):
    own, _, zeropad = blocks(tmp_path)
    with style():
        figure, other = maps_figure(own), rules_figure([own, zeropad])
    limits = {image.get_clim() for ax in figure.axes[:3] for image in ax.get_images()}
    assert len(limits) == 1
    assert "224 px, random weights" in texts(figure)
    assert "stage 1, block 1\nmean 0.0" in texts(figure)
    assert "exactly 0 in all channels" not in texts(figure)
    assert "k exactly 0 in all channels" in texts(other)
    assert "448 px (zeropad)" in texts(other)


def test_an_all_zero_k_breaks_nothing(tmp_path, only_svg):
    path = tmp_path / "run.jsonl"
    run = Run(path, run_of([]).header, [block(path, "stages.0.blocks.0", 0, (4, 4), scale=0.0)])
    rows = diffusivities_of(run)[0]
    rows[0].mean_map[:] = 0
    for metric in rows[0].record.metrics.values():
        metric.value = 0.0
    assert save_heat_figures(run, tmp_path / "out")
    with style():
        maps_figure(rows).savefig(tmp_path / "maps.png")
        ax = draw_quantiles(new_figure().subplots(), rows)
    assert ax.get_ylim()[0] > 0


def test_curves_draw_the_records_numbers(tmp_path):
    series = blocks(tmp_path)
    with style():
        figure = new_figure()
        ax = draw_lengths(figure.subplots(), series, share=False)
        lines = {line.get_label(): line.get_ydata() for line in ax.get_lines() if not line.get_label().startswith("_")}
        assert list(lines) == ["224 px", "448 px (bicubic)", "448 px (zeropad)"]
        own = [one.record.metrics["diffusion_length_px"].value for one in series[0]]
        assert list(lines["224 px"]) == pytest.approx(own)
        ax = draw_quantiles(new_figure().subplots(), series[0])
        lines = {line.get_label(): line.get_ydata() for line in ax.get_lines()}
        mean = [one.record.metrics["k_mean_cells2"].value for one in series[0]]
        assert list(lines["mean"]) == pytest.approx(mean)
        above = {text.get_text(): text.get_position()[0] for text in ax.texts if text.get_position()[1] > 1}
        assert above == {"0": 0, "1": 1.5}


def test_half_decay_is_marked_where_it_is_reached(tmp_path):
    fast = blocks(tmp_path / "a", scale=3.0)[0]
    slow = blocks(tmp_path / "b", scale=1e-4)[0]
    with style():
        ax = draw_decay(new_figure().subplots(), fast)
        dots = [line for line in ax.get_lines() if line.get_marker() == "o" and len(line.get_xdata()) == 1]
        assert [dot.get_ydata()[0] for dot in dots] == [0.5] * 3
        assert ax.get_ylim()[0] == 0
        ax = draw_decay(new_figure().subplots(), slow)
        assert not [line for line in ax.get_lines() if len(line.get_xdata()) == 1]
        # hardly anything decays: the axis comes closer, so that it is seen
        assert 0.9 < ax.get_ylim()[0] < 1
        assert ax.get_ylim()[0] == pytest.approx(decay_floor(slow))
        said = texts(decay_figure(fast))
    assert "random weights" in said
    assert {"stages.0", "stages.1"} <= set(said.split("\n"))


def responses(folder):
    found, problems = point_responses_of(kernel_run(folder))
    assert problems == []
    return found


def test_the_profile_goes_through_the_source(tmp_path):
    one = responses(tmp_path)[1]
    with style():
        ax = draw_profile(new_figure().subplots(), one)
    operator = next(line for line in ax.get_lines() if "operator" in line.get_label())
    cells, values = operator.get_data()
    assert np.allclose(values, one.operator[5, cells + 6])
    assert values[list(cells).index(0)] == one.operator.max()
    assert ax.get_title("left") == "kt = 1 cells²"


def test_errors_and_undershoot_are_the_records_numbers(tmp_path):
    found = responses(tmp_path)
    with style():
        ax = draw_errors(new_figure().subplots(), found)
        neumann = next(line for line in ax.get_lines() if "Neumann" in line.get_label())
        assert list(neumann.get_ydata()) == [0.2, 1e-5, 1e-5]
        ax = draw_undershoot(new_figure().subplots(), found)
        assert list(ax.get_lines()[0].get_xdata()) == [0.1]
        assert ax.get_title("left") == "never below 0 at kt = 1, 5"


# --- words


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.3, "0.3"),
        (1228.7, "1230"),
        (99960, "1e5"),
        (128400, "1.28e5"),
        (2.5e-7, "2.5e-7"),
        (-0.012, "-0.012"),
    ],
)
def test_brief_numbers(value, text):
    assert brief(value) == text


def test_ticks_are_few_and_within():
    assert log_ticks(0.1, 3136) == [0.1, 1, 10, 100, 1000]
    assert log_ticks(0.0007, 0.005) == [0.001, 0.002, 0.005]
    assert len(log_ticks(1e-17, 1)) <= 9


def test_blocks_and_choices():
    assert block_words("stages.2.blocks.5") == "stage 2, block 5"
    assert block_words("neck") == "neck"
    assert evenly(22, 3) == [0, 10, 21]
    assert evenly(2, 8) == [0, 1]
