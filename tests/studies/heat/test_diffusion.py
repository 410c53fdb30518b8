"""Fields of a point source and statistics of k, from the model to the run file and back."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image

from vheatbench.errors import UserError
from vheatbench.run.recording import new_header
from vheatbench.store.attachments import folder_of
from vheatbench.store.read import read_run
from vheatbench.store.write import RunWriter
from vheatbench.studies.heat.diffusion import (
    Times,
    diffusion,
    parse_source,
    parse_times,
    source_cell,
    temperature_fields,
)
from vheatbench.studies.heat.diffusivity import EDGES, decay_spectrum, diffusivity, half_decay_frequency, histogram
from vheatbench.studies.heat.model import choose_channel, choose_layers, heat_layers, load_heat_model, own_size
from vheatbench.studies.heat.response import point_response
from vheatbench.studies.heat.results import diffusions_of, diffusivities_of, point_responses_of
from vheatbench.studies.heat.run import (
    CAT,
    Piece,
    diffusion_pieces,
    diffusivity_pieces,
    kernel_pieces,
    measured,
    png_of,
)
from vheatbench.subjects.catalog import find_subject
from vheatbench.subjects.heat.cosines import heat_decay
from vheatbench.subjects.heat_operator import resize_frequencies
from vheatbench.subjects.vheat import VHeat

pytestmark = pytest.mark.usefixtures("one_thread")


def k_of(height: int, width: int, channels: int = 4) -> torch.Tensor:
    uniform = torch.rand(height, width, channels, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return torch.where(uniform < 0.25, 0.0, 3 * uniform)


def tiny(**changes) -> VHeat:
    torch.manual_seed(0)
    return VHeat(**{"img_size": (64, 96), "dim": 8, "depths": (1, 2, 1, 1), "num_classes": 3, **changes}).eval()


# what people type


@pytest.mark.parametrize(
    ("text", "values", "multiples"),
    [
        ("1,5,20", [1, 5, 20], False),
        ("4", [4], False),
        ("1:100:3", [1, 10, 100], False),
        ("1x,10x", [1, 10], True),
        ("0.5x:8x:5", [0.5, 1, 2, 4, 8], True),
    ],
)
def test_times_as_typed(text, values, multiples):
    found = parse_times(text)
    assert found.values == pytest.approx(values)
    assert found.multiples is multiples


@pytest.mark.parametrize(
    "text",
    ["", "a", "1,", "0,1", "-1", "inf", "nan", "1e10", "1:2", "1:2:3:4", "5:1:3", "1:2:1", "1:2:x", "1:2:999", "1x,2"],
)
def test_times_that_are_none(text):
    with pytest.raises(UserError, match="--times"):
        parse_times(text)


def test_times_are_reached_whatever_k_is():
    times = Times((0.5, 2.0))
    assert times.of(0.001) == pytest.approx([0, 500, 2000])
    assert times.of(0.0) == pytest.approx([0, 0.5, 2])
    assert Times((1.0, 10.0), multiples=True).of(0.001) == pytest.approx([0, 1, 10])
    assert Times((2.0, 0.5, 2.0)).of(1.0) == pytest.approx([0, 0.5, 2])


def test_sources_as_typed():
    assert parse_source("0.5, 1") == (0.5, 1.0)
    assert source_cell((0.5, 1.0), (56, 14)) == (28, 13)
    assert source_cell((0.0, 0.49), (1, 2)) == (0, 0)
    for text in ("1.01,0.5", "-0.1,0.5", "nan,0"):
        with pytest.raises(UserError, match="outside the image"):
            parse_source(text)
    for text in ("0.5", "a,b", "1,2,3", ""):
        with pytest.raises(UserError, match="share of height"):
            parse_source(text)


def test_channels_as_typed():
    k = torch.tensor([5.0, 1.0, 4.0, 2.0, 3.0], dtype=torch.float64).expand(3, 2, 5)
    assert choose_channel(k, "median") == (4, "channel 4 (median of mean k)")
    assert choose_channel(k, "q0.25") == (3, "channel 3 (quantile 0.25 of mean k)")
    assert choose_channel(k, "q1")[0] == 0
    assert choose_channel(k, "2") == (2, "channel 2")
    with pytest.raises(UserError, match="channels 0 to 4"):
        choose_channel(k, "5")
    for text in ("mean", "q", "q2", "-1", "qx", "0.5"):
        with pytest.raises(UserError, match="neither median"):
            choose_channel(k, text)


def test_layers_as_typed():
    layers = heat_layers(tiny())
    names = [layer.name for layer in layers]
    assert names == [f"stages.{i}.blocks.{j}" for i, j in [(0, 0), (1, 0), (1, 1), (2, 0), (3, 0)]]

    def chosen(text: str) -> list[int]:
        return [layer.depth for layer in choose_layers(layers, text)]

    assert chosen("all") == [0, 1, 2, 3, 4]
    assert chosen("1") == chosen("stages.1") == [1, 2]
    assert chosen("stages.2.blocks.0, 0, stages.2") == [0, 3]
    for text in ("4", "stages.1.blocks.2", "stages.1.", "blocks", ""):
        with pytest.raises(UserError, match=r"stages.1.blocks.0 to stages.1.blocks.1, stages.2.blocks.0"):
            choose_layers(layers, text)


# models


def test_layers_have_the_models_own_k_grids_and_cells():
    model = tiny()
    layers = heat_layers(model)
    assert [layer.grid for layer in layers] == [(16, 24), (8, 12), (8, 12), (4, 6), (2, 3)]
    assert [layer.cell_px for layer in layers] == [(4, 4), (8, 8), (8, 8), (16, 16), (32, 32)]
    block = model.stages[1].blocks[1]
    expected = torch.relu(torch.nn.functional.linear(model.stages[1].freq_embed, *block.op.to_k[0].parameters()))
    assert torch.allclose(layers[2].diffusivity(), expected.double(), rtol=1e-6, atol=0)
    assert layers[2].diffusivity().dtype == torch.float64


def test_models_without_k_are_refused_in_one_line():
    with pytest.raises(UserError, match="deployed"):
        heat_layers(tiny().deploy())
    for name in ("swin-t", "test_vit"):
        with pytest.raises(UserError, match=rf"{name}.*no heat operators"):
            load_heat_model(name, own_size(name))
    with pytest.raises(UserError, match="no model"):
        own_size("op/heat")
    with pytest.raises(UserError, match="unknown model"):
        own_size("vheat-x")
    with pytest.raises(UserError, match="divisible by 32"):
        load_heat_model("test_vheat", (65, 64))


def test_shipped_weights_are_named_and_resized_by_the_rule() -> None:
    name = "vheat-micro:photographs"
    own, zeros, cubic = (load_heat_model(name, *rest) for rest in (((64, 64),), ((96, 96), "zeropad"), ((96, 96),)))
    assert [one.rule for one in (own, zeros, cubic)] == ["", "zeropad", "bicubic"]
    assert {one.weights for one in (own, zeros, cubic)} == {find_subject(name).weights.words}
    assert own.weights.startswith("shipped (")
    assert own.weights_id == cubic.weights_id
    assert not torch.equal(zeros.layers[0].diffusivity(), cubic.layers[0].diffusivity())


@pytest.mark.parametrize("rule", ["bicubic", "zeropad"])
def test_random_embeddings_are_resized_once_from_their_own_size(rule):
    own = load_heat_model("test_vheat", (64, 64), rule)
    larger = load_heat_model("test_vheat", (96, 64), rule)
    assert (own.rule, larger.rule) == ("", rule)
    assert own.weights == larger.weights_id == "random"
    for before, after in zip(own.layers, larger.layers, strict=True):
        assert after.cell_px == before.cell_px
        assert torch.equal(after.embedding, resize_frequencies(before.embedding, after.grid, rule))
    kept = larger.layers[0].diffusivity()[: own.layers[0].grid[0]]
    assert torch.allclose(kept, own.layers[0].diffusivity(), rtol=1e-5) == (rule == "zeropad")


def test_weights_of_a_file_come_with_its_name_and_are_resized_from_its_grid(tmp_path):
    import timm

    torch.manual_seed(1)
    model = timm.create_model("test_vheat", img_size=96)
    path = tmp_path / "mine.pth"
    torch.save(model.state_dict(), path)
    same = load_heat_model("test_vheat", (96, 96), weights=path)
    assert same.rule == ""
    assert same.weights == f"mine.pth ({same.weights_id})"
    assert len(same.weights_id) == 12
    assert torch.equal(same.layers[1].diffusivity(), heat_layers(model)[1].diffusivity())
    other = load_heat_model("test_vheat", (128, 128), "zeropad", weights=path)
    assert other.rule == "zeropad"
    assert torch.equal(other.layers[0].embedding[:24, :24], model.stages[0].freq_embed)
    with pytest.raises(UserError, match="no such file"):
        load_heat_model("test_vheat", (64, 64), weights=tmp_path / "none.pth")


# fields


def test_frames_are_the_exact_solution_and_follow_from_their_coefficients():
    k = k_of(9, 6)[:, :, 0]
    times = np.array([0.0, 0.3, 4.0, 1e6])
    coefficients, frames = temperature_fields(k, (8, 2), times)
    start = np.zeros((9, 6))
    start[8, 2] = 1
    assert np.abs(frames[0] - start).max() < 1e-14

    def cosines(n: int) -> np.ndarray:
        matrix = np.sqrt(2 / n) * np.cos(np.pi * np.arange(n)[:, None] * (np.arange(n) + 0.5) / n)
        matrix[0] /= np.sqrt(2)
        return matrix

    rows, columns = cosines(9), cosines(6)
    assert np.abs(coefficients - np.outer(rows[:, 8], columns[:, 2])).max() < 1e-14
    w2 = (np.pi * np.arange(9) / 9)[:, None] ** 2 + (np.pi * np.arange(6) / 6) ** 2
    for t, frame in zip(times, frames, strict=True):
        expected = rows.T @ (coefficients * np.exp(-k.numpy() * t * w2)) @ columns
        assert np.abs(frame - expected).max() < 1e-13


def test_a_constant_k_reaches_the_mean_and_what_does_not_conduct_stays():
    k = torch.full((8, 8), 5.0, dtype=torch.float64)
    found = diffusion(k, (0.5, 0.5), Times((1.0, 500.0)), (4, 4), (32, 32))
    assert found.conditions["times"] == pytest.approx([0, 0.2, 100])
    assert found.conditions["mean_kt_cells2"] == pytest.approx([0, 1, 500])
    assert found.arrays["frames"][-1] == pytest.approx(np.full((8, 8), 1 / 64), abs=1e-12)
    values = {name: metric.value for name, metric in found.metrics.items()}
    assert values["k_mean_cells2"] == 5
    assert values["k_zero_share"] == 0
    assert values["diffusion_length_cells"] == pytest.approx(math.sqrt(10))
    assert values["diffusion_length_px"] == pytest.approx(4 * math.sqrt(10))
    assert values["diffusion_length_share"] == pytest.approx(math.sqrt(10) / 8)
    assert values["source_kept"] == pytest.approx(temperature_fields(k, (4, 4), np.array([1.0]))[1][0, 4, 4])
    assert values["mass_error"] < 1e-13
    assert found.warnings == []

    still = diffusion(torch.zeros(8, 8, dtype=torch.float64), (0.5, 0.5), Times((1.0,)), (4, 4), (32, 32))
    assert still.metrics["source_kept"].value == pytest.approx(1)
    assert still.warnings == ["k is 0 at every frequency: nothing spreads, at any time"]


def test_what_hardly_conducts_and_what_overshoots_is_said():
    found = diffusion(1e-3 * k_of(8, 8)[:, :, 0], (0.1, 0.9), Times((0.3, 200.0)), (4, 4), (32, 32))
    hardly, zeros, undershoot = found.warnings
    kept = found.metrics["source_kept"].value
    assert 0.99 < kept < 1
    assert f"leaves {kept:.1%} of the heat in its cell" in hardly
    share = found.metrics["k_zero_share"].value
    assert 0.1 < share < 0.5
    assert f"at {share:.0%} of the frequencies" in zeros
    assert found.metrics["undershoot"].value == pytest.approx(-found.arrays["frames"].min())
    assert "no maximum principle" in undershoot
    assert found.conditions["source_cell"] == [0, 7]
    assert found.conditions["source"] == pytest.approx([0.0625, 0.9375])


# statistics of k


def test_statistics_of_k_are_numpys():
    k = k_of(6, 9, 5)
    found = diffusivity(k, (16, 16), (96, 144), random=True)
    values = {name: metric.value for name, metric in found.metrics.items()}
    flat = k.numpy().ravel()
    decay = heat_decay(k).numpy()
    assert values["k_mean_cells2"] == pytest.approx(flat.mean())
    for name, share in (("min", 0), ("q25", 0.25), ("median", 0.5), ("q75", 0.75), ("max", 1)):
        assert values[f"k_{name}_cells2"] == pytest.approx(np.quantile(flat, share))
    assert values["k_zero_share"] == (flat == 0).mean() > 0.1
    assert values["decay_mean"] == pytest.approx(decay.mean())
    assert values["diffusion_length_share"] == pytest.approx(math.sqrt(2 * flat.mean()) / 6)
    assert found.arrays["mean_map"] == pytest.approx(k.numpy().mean(-1))
    assert found.arrays["zero_map"] == pytest.approx((k.numpy() == 0).mean(-1))
    assert found.arrays["channel_quantiles"].shape == (5, 5)
    assert found.arrays["channel_quantiles"][3] == pytest.approx(
        np.quantile(k.numpy()[:, :, 3], (0, 0.25, 0.5, 0.75, 1))
    )
    assert found.arrays["counts"].sum() == (flat > 0).sum()
    assert found.warnings == []


def test_the_histogram_counts_everything_positive_once():
    k = torch.tensor([0.0, 1e-9, 0.5, 0.5, 1e6], dtype=torch.float64)
    counts = histogram(k)
    assert counts.sum() == 4
    assert counts[0] == counts[-1] == 1
    place = np.searchsorted(EDGES, 0.5) - 1
    assert counts[place] == 2
    assert EDGES[place] <= 0.5 <= EDGES[place + 1]


def test_the_spectrum_of_a_constant_k_is_its_exponential():
    k = torch.full((16, 10, 3), 0.4, dtype=torch.float64)
    frequency, quartiles = decay_spectrum(heat_decay(k))
    assert (np.diff(frequency) > 0).all()
    assert frequency[-1] <= math.sqrt(2) * math.pi
    # within a bin |w| differs by at most its width
    width = math.sqrt(2) * math.pi / 16
    for column in range(3):
        assert (quartiles[:, column] <= np.exp(-0.4 * np.maximum(frequency - width, 0) ** 2)).all()
        assert (quartiles[:, column] >= np.exp(-0.4 * (frequency + width) ** 2)).all()
    assert (np.diff(quartiles, axis=1) >= 0).all()
    half = half_decay_frequency(frequency, quartiles[:, 1])
    assert half == pytest.approx(math.sqrt(math.log(2) / 0.4), abs=width)


def test_half_decay_lies_between_bins_or_nowhere():
    frequency = np.array([0.5, 1.0, 2.0])
    assert half_decay_frequency(frequency, np.array([0.9, 0.7, 0.3])) == pytest.approx(1.5)
    assert half_decay_frequency(frequency, np.array([0.4, 0.3, 0.3])) == 0.5
    assert half_decay_frequency(frequency, np.array([1.0, 0.9, 0.6])) is None
    still = diffusivity(torch.zeros(4, 4, 2, dtype=torch.float64), (4, 4), (16, 16), random=True)
    half = still.metrics["half_decay_frequency_rad_per_cell"]
    assert half.value is None
    assert "stays above 1/2" in half.unavailable
    assert "hardly conducts" in still.warnings[0]
    assert "random" in still.warnings[0]
    from_file = diffusivity(torch.zeros(4, 4, 2, dtype=torch.float64), (4, 4), (16, 16), random=False)
    assert "from a file" in from_file.warnings[0]


def test_a_map_of_one_cell_has_statistics():
    found = diffusivity(torch.ones(1, 1, 3, dtype=torch.float64), (32, 32), (32, 32), random=True)
    assert found.metrics["decay_mean"].value == 1
    assert found.arrays["radial_frequency"].tolist() == [0]


# point responses


def test_the_response_is_compared_with_theory():
    small, large = point_response((20, 30), (10, 3), 0.1), point_response((20, 30), (10, 3), 5.0)
    assert small.metrics["neumann_error"].value > 0.1
    assert large.metrics["neumann_error"].value < 1e-12
    assert 0.005 < large.metrics["finite_difference_error"].value < 0.03
    assert small.metrics["undershoot"].value == pytest.approx(-small.arrays["operator"].min())
    assert "maximum principle" in small.warnings[0]
    assert large.warnings == []
    assert large.metrics["mass_error"].value < 1e-13
    assert large.metrics["peak"].value == large.arrays["operator"].max()
    for kt in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(UserError, match="positive"):
            point_response((4, 4), (0, 0), kt)
    with pytest.raises(UserError, match="rows 0 to 3"):
        point_response((4, 4), (4, 0), 1.0)


def test_extreme_times_are_finite():
    for kt in (1e-300, 1e300):
        found = point_response((3, 5), (1, 2), kt)
        assert all(np.isfinite(array).all() for array in found.arrays.values())


# runs


def written(pieces, folder):
    """The run of some pieces, read back."""
    header = new_header("heat", "", "c", {}, plan=[piece.case for piece in pieces])
    with RunWriter.create(folder, header) as writer:
        for piece in pieces:
            writer.append(measured(piece, writer.path))
        return read_run(writer.finish())


def test_the_picture_is_the_middle_of_the_photograph_from_edge_to_edge(tmp_path):
    columns = np.tile(np.arange(120, dtype=np.uint8), (60, 1))
    Image.fromarray(columns).save(tmp_path / "ramp.png")
    with Image.open(io.BytesIO(png_of(tmp_path / "ramp.png", (30, 30)))) as picture:
        seen = np.asarray(picture).astype(int)
    assert seen.shape == (30, 30, 3)
    assert seen[15, [0, -1], 0] == pytest.approx([30.5, 88.5], abs=2)


def test_a_run_of_diffusions_is_read_back(tmp_path):
    model = load_heat_model("test_vheat", (64, 96))
    png = png_of(CAT, (64, 96))
    pieces = diffusion_pieces(model, "0,1", "q0.9", ["learned", "5"], (0.2, 0.5), Times((0.5, 8.0)), png, "cat.jpg")
    run = written(pieces, tmp_path)
    assert run.complete
    found, problems = diffusions_of(run)
    assert problems == []
    assert [(one.layer, one.k_kind) for one in found] == [
        (layer, k) for layer in ("stages.0.blocks.0", "stages.1.blocks.0") for k in ("learned", "constant 5")
    ]
    learned, constant = found[:2]
    assert learned.random
    assert not constant.random
    assert learned.channel.endswith("(quantile 0.9 of mean k)")
    assert constant.channel == ""
    assert learned.source == (3.5 / 16, 12.5 / 24)
    assert learned.cell_px == (4, 4)
    assert learned.image == png
    assert learned.mean_kt == pytest.approx([0, 0.5, 8])
    assert constant.times == pytest.approx([0, 0.1, 1.6])
    index = learned.record.conditions["channel_index"]
    assert learned.k == pytest.approx(model.layers[0].diffusivity()[:, :, index].numpy())
    assert learned.frames.shape == (3, 16, 24)
    assert diffusivities_of(run) == point_responses_of(run) == ([], [])


def test_a_run_of_diffusivities_and_one_of_responses_are_read_back(tmp_path):
    pieces = [
        piece
        for rule in ("bicubic", "zeropad")
        for size in ((64, 64), (96, 96))
        for piece in diffusivity_pieces(load_heat_model("test_vheat", size, rule))
    ]
    found, problems = diffusivities_of(written(list({piece.case.id: piece for piece in pieces}.values()), tmp_path))
    assert problems == []
    # at its own size both rules are the same case
    assert [(one.resolution[0], one.rule) for one in found if one.depth == 0] == [
        (64, ""), (96, "bicubic"), (96, "zeropad"),
    ]  # fmt: skip
    assert [one.layer for one in found[:5]] == [layer.name for layer in load_heat_model("test_vheat", (64, 64)).layers]
    edges, counts = found[0].histogram
    assert len(edges) == len(counts) + 1
    assert found[0].random

    run = written(kernel_pieces((6, 8), (2, 3), [0.5, 4.0]), tmp_path)
    (first, second), problems = point_responses_of(run)
    assert problems == []
    assert (first.kt, second.kt, first.grid, first.source) == (0.5, 4.0, (6, 8), (2, 3))
    assert second.operator == pytest.approx(second.neumann, abs=1e-10)
    assert second.finite_difference.shape == (6, 8)


def test_a_failure_is_a_record_and_the_others_go_on(tmp_path):
    pieces = kernel_pieces((6, 6), (3, 3), [1.0, 2.0])

    def no_memory():
        raise MemoryError

    pieces[0] = Piece(pieces[0].case, no_memory, {})
    run = written(pieces, tmp_path)
    assert [record.status for record in run.records] == ["oom", "ok"]
    assert len(point_responses_of(run)[0]) == 1


def test_missing_and_damaged_arrays_are_named(tmp_path):
    run = written(kernel_pieces((6, 6), (3, 3), [1.0, 2.0, 3.0]), tmp_path)
    run.records[0].files.clear()
    folder_of(run.path).joinpath(run.records[1].files["arrays"].name).write_bytes(b"no zip")
    del run.records[2].case.analysis["source"]
    found, problems = point_responses_of(run)
    assert found == []
    for word, problem in zip(("names no arrays", "SHA-256", "lacks"), problems, strict=True):
        assert word in problem
