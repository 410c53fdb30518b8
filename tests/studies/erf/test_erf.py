"""``vheatbench erf``: from a command to a run file with maps, and everything that users can get wrong."""

from __future__ import annotations

import argparse
import json
import re
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from vheatbench import cli
from vheatbench.errors import StoreError, UserError
from vheatbench.store.attachments import attach, folder_of
from vheatbench.store.read import begun_runs, read_run
from vheatbench.studies.erf import run as erf_run
from vheatbench.studies.erf.plan import ErfSettings, make_plan
from vheatbench.studies.erf.results import read_map, results_of, write_map
from vheatbench.studies.images.photographs import open_images
from vheatbench.subjects.catalog import build

pytestmark = pytest.mark.usefixtures("one_thread")
SMALL = ("--model", "test_vheat", "--resolution", "64", "--batch", "2", "--max-images", "4", "-q")
UNITS = {
    "erf_a50": "share", "erf_a99": "share", "erf_entropy_area": "share", "erf_radius_px": "px",
    "erf_radius_share": "share", "erf_major_px": "px", "erf_minor_px": "px", "erf_orientation_deg": "deg",
    "erf_rect20": "share", "erf_rect30": "share", "erf_rect50": "share", "erf_rect99": "share", "erf_images": "images",
}  # fmt: skip


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch, in_process):
    """Figures are others' business: here they are only asked for."""
    monkeypatch.chdir(tmp_path)
    import vheatbench.studies.erf.figures as figures

    drawn = []
    monkeypatch.setattr(figures, "save_erf_figures", lambda results, folder: drawn.append((results, folder)) or [])
    return drawn


def run_erf(*words):
    """Exit code, stdout, stderr; a UserError as the entry point prints it."""
    before = resource.getrlimit(resource.RLIMIT_DATA)
    result = CliRunner().invoke(cli.app, ["erf", *words])
    assert resource.getrlimit(resource.RLIMIT_DATA) == before  # the limit of a measurement ends with it
    if isinstance(result.exception, UserError):
        return 2, result.stdout, str(result.exception)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def only_run(folder="results"):
    (path,) = Path(folder).glob("*.jsonl")
    return read_run(path)


def test_records_hold_numbers_conditions_and_maps(in_a_folder):
    code, out, err = run_erf(*SMALL, "--layer", "all")
    assert code == 0, err
    run = only_run()
    assert run.complete
    assert not run.problems
    assert run.header.suite == "erf"
    assert run.header.studies[0].settings["max_images"] == 4
    assert [record.case.analysis["layer"] for record in run.records] == [f"stages.{i}" for i in range(4)]
    assert len({record.case_id for record in run.records}) == 4
    for depth, record in enumerate(run.records):
        assert record.status == "ok"
        assert (record.case.mode, record.case.batch, record.case.timed) == ("erf", 1, False)
        assert record.case.analysis["weights"] == "random"
        assert record.case.analysis["protocol"] == "centre"
        assert re.fullmatch("[0-9a-f]{12}", record.case.analysis["images"])
        assert "conduction" not in record.case.analysis
        assert {name: metric.unit for name, metric in record.metrics.items()} == UNITS
        for name, metric in record.metrics.items():
            assert metric.direction == "neutral"
            assert name == "erf_images" or metric.low <= metric.value <= metric.high
        conditions = record.conditions
        assert conditions["depth"] == depth
        assert conditions["stride"] == [4 * 2**depth] * 2
        assert conditions["conduction"] == "learned"
        assert conditions["weights"] == "random, seed 0"
        assert conditions["stopped_by"] in ("precision", "max-images")
        assert len(conditions["images"]["names"]) == record.metrics["erf_images"].value == 4
        assert conditions["images"]["digest"].startswith(record.case.analysis["images"])
        assert any("hardly conducts" in text for text in record.warnings)
        assert set(record.subject["preprocessing"]) >= {"mean", "std"}
        assert "oneDNN" not in " ".join(record.warnings)
    (results, folder), = in_a_folder  # fmt: skip
    assert folder.name == f"erf-{run.header.run_id}"
    assert [result.depth for result in results] == [0, 1, 2, 3]
    assert "stages.3" in out
    assert re.search(r"hardly conducts", err)


def test_results_give_back_what_was_measured():
    run_erf(*SMALL, "--layer", "1,last", "--resolution", "64,96x64")
    run = only_run()
    results, problems = results_of(run)
    assert not problems
    assert [(r.resolution, r.layer, r.depth) for r in results] == [
        ((64, 64), "stages.1", 0), ((64, 64), "stages.3", 1), ((96, 64), "stages.1", 0), ((96, 64), "stages.3", 1),
    ]  # fmt: skip
    for result in results:
        assert result.map.shape == result.resolution
        assert result.map.dtype == np.float32
        assert result.map.min() >= 0
        assert result.map.max() > 0
        assert result.random
        assert result.weights == "random"
        assert result.n_images == 4
        assert result.images == "10 photographs shipped with vheatbench"
        assert result.conduction == "learned"
    assert results[0].centre == (28.5, 28.5)
    assert results[2].centre == (44.5, 28.5)
    assert results[1].stride == (32, 32)


def test_maps_that_are_missing_or_changed_are_named():
    run_erf(*SMALL, "--layer", "0,1,2")
    run = only_run()
    first, second = (folder_of(run.path) / record.files["map"].name for record in run.records[:2])
    first.unlink()
    second.write_bytes(b"something else")
    results, problems = results_of(run)
    assert [result.layer for result in results] == ["stages.2"]
    assert len(problems) == 2
    assert first.name in problems[0]
    assert "changed" in problems[1]


def test_a_map_of_another_size_and_a_record_without_its_facts_are_named():
    run_erf(*SMALL, "--layer", "0,1")
    run = only_run()
    other = attach(run.path, "other.npz", write_map(np.ones((5, 5), np.float32), (2.5, 2.5)))
    first, second = run.records
    wrong = first.model_copy(update={"files": {"map": other}})
    bare = second.model_copy(update={"conditions": {}})
    none = second.model_copy(update={"files": {}})
    results, problems = results_of(replace(run, records=[wrong, bare, none]))
    assert results == []
    assert ["(5, 5)" in problems[0], "lacks" in problems[1], "names no map" in problems[2]] == [True] * 3


def test_map_file_round_trip_and_damage():
    field = np.random.default_rng(0).random((5, 7), np.float32)
    read, centre = read_map(write_map(field, (2.5, 3.0)), "x")
    assert np.array_equal(read, field)
    assert centre == (2.5, 3.0)
    for data in (b"", b"PK\x03\x04 no archive", write_map(np.zeros(3, np.float32), (0, 0))):
        with pytest.raises(UserError, match=r"x\.npz"):
            read_map(data, "x.npz")


def test_same_images_for_all_models():
    """One hash for models of different preprocessing; the first decides the cut, each its own normalisation."""
    images = open_images(None, 4)
    settings = ErfSettings(("test_vheat", "resnet18", "test_convnext"), ((64, 64), (96, 96)))
    plan = make_plan(settings, images)
    hashes = {}
    for job in plan.jobs:
        hashes.setdefault(job.base.resolution, set()).update(case.analysis["images"] for case in job.cases)
    assert [len(found) for found in hashes.values()] == [1, 1]
    assert hashes[64, 64] != hashes[96, 96]
    own = {job.base.subject: job.preprocessing for job in plan.jobs}
    assert own["resnet18"].crop_pct != own["test_vheat"].crop_pct
    assert {job.cut.crop_pct for job in plan.jobs} == {own["test_vheat"].crop_pct}
    assert own["test_convnext"].mean != own["test_vheat"].mean or own["test_convnext"].crop_pct != 1.0
    assert len({case.id for job in plan.jobs for case in job.cases}) == 6


def test_stops_when_precise_and_never_before_two_batches():
    run_erf("--model", "test_vheat", "--resolution", "64", "--target", "10", "--batch", "3", "-q", "--images", "noise")
    (record,) = only_run().records
    assert record.metrics["erf_images"].value == 6
    assert record.conditions["stopped_by"] == "precision"
    assert not any("views" in text for text in record.warnings)


def test_stops_at_the_most_images_and_says_how_precise_it_is():
    run_erf(*SMALL, "--target", "0.0001", "--max-images", "13")
    (record,) = only_run().records
    assert record.metrics["erf_images"].value == 13
    assert record.conditions["stopped_by"] == "max-images"
    assert any(
        "stopped at 13 images (that many were allowed): relative standard error" in text for text in record.warnings
    )
    assert any("13 images are views of 10 photographs" in text for text in record.warnings)


def test_stops_where_more_images_bring_nothing(tmp_path):
    """One photograph, whose views are all there is: an error that does not fall with twice as many ends it."""
    images = open_images(None, 200)
    (job,) = make_plan(ErfSettings(("test_vheat",), ((64, 64),)), images).jobs
    calls = []

    class Same:
        """Maps that differ by source alone, so that views bring nothing."""

        largest = None

        def __call__(self, pixels):
            start = sum(calls)
            calls.append(len(pixels))
            fields = np.ones((len(pixels), 64, 64), np.float32)
            for i in range(len(pixels)):
                fields[i, : 5 + 4 * ((start + i) % 10)] += 5
            return [fields]

    settings = ErfSettings(("test_vheat",), ((64, 64),), target=1e-3, max_images=200)
    told = []
    fields = erf_run.measure_fields(Same(), job, settings, images, lambda words, share: told.append((words, share)))
    assert told[0] == ("5 of at most 200 images", 5 / 200)
    assert re.fullmatch(r"20 of at most 200 images, error [\d.]+% of 0.1% wanted", told[-1][0])
    assert fields.stopped_by == "plateau"
    assert fields.means[0].n == 20


def test_one_image_has_no_interval():
    code, out, err = run_erf(*SMALL, "--max-images", "1")
    assert code == 0
    (record,) = only_run().records
    assert record.metrics["erf_a50"].low is None
    assert "unknown with one image" in err
    assert "stopped at 1 image (" in err
    assert erf_run.outcome([record]).startswith("1 image, ")
    assert "±" not in out
    assert "no interval: a single image" in out


def test_one_photograph_has_no_interval_and_says_so_before_and_after(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (70, 90, 3), np.uint8)).save("one.png")
    code, out, err = run_erf(*SMALL, "--images", "one.png", "--max-images", "10", "--target", "10")
    assert code == 0
    (record,) = only_run().records
    assert record.conditions["stopped_by"] == "max-images"
    assert record.metrics["erf_images"].value == 10
    assert all(metric.low is None for metric in record.metrics.values())
    assert "±" not in out
    assert "! views of a single photograph: no interval; give --images a folder of several" in err
    assert "stages.3: views of a single photograph: no interval" in err
    assert "relative standard error unknown from one photograph" in err
    assert record.conditions["images"]["words"] == "1 image, one.png"
    assert "1 photographs" not in err
    assert run_erf(*SMALL, "--images", "noise", "--results", "noise")[0] == 0
    (record,) = only_run("noise").records
    assert record.metrics["erf_a50"].low is not None


def test_numbers_do_not_depend_on_the_batch():
    for batch in ("1", "4"):
        run_erf(*SMALL, "--batch", batch, "--target", "0", "--results", f"b{batch}")
    one, four = (only_run(f"b{batch}").records[0] for batch in ("1", "4"))
    assert one.case_id == four.case_id
    for name in ("erf_a50", "erf_radius_px", "erf_entropy_area"):
        assert one.metrics[name].value == pytest.approx(four.metrics[name].value, rel=1e-3)


def test_replknet_protocol():
    run_erf(*SMALL, "--protocol", "replknet")
    (record,) = only_run().records
    (result,) = results_of(only_run())[0]
    assert result.centre == (32.5, 32.5)
    assert result.protocol == "replknet"
    assert record.conditions["cells"] == [[1], [1]]
    assert "log10(1 + x)" in record.metrics["erf_rect50"].how
    assert "whole" in record.conditions["images"]["cut"]


def test_ablation_of_conduction():
    code, out, _ = run_erf(*SMALL, "--conduction", "learned,none,5,0,5.0", "--compare", "resnet18")
    assert code == 0
    run = only_run()
    assert [(r.case.subject, r.case.analysis.get("conduction"), r.conditions["conduction"]) for r in run.records] == [
        ("test_vheat", None, "learned"),
        ("test_vheat", "none", "none"),
        ("test_vheat", "5", "5"),
        ("resnet18", None, ""),
    ]
    a99 = [record.metrics["erf_a99"].value for record in run.records]
    assert len({record.case_id for record in run.records}) == 4
    assert a99[2] != a99[1]
    assert "random weights, no conduction" in out
    assert "random weights, constant k = 5" in out


def test_weights_random_and_from_files(tmp_path):
    def checkpoint(name, seed, path):
        torch.manual_seed(seed)
        model = build(make_plan(ErfSettings((name,), ((64, 64),)), open_images(None, 1)).jobs[0].base).model
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.05 * torch.randn_like(parameter)
        torch.save({"model": model.state_dict()}, path)

    checkpoint("test_vheat", 1, "heat.pth")
    checkpoint("resnet18", 2, "res.pth")
    words = ("--weights", "random", "--weights", "heat.pth", "--weights", "resnet18=res.pth", "--compare", "resnet18")
    code, out, err = run_erf(*SMALL, *words)
    assert code == 0, err
    results, _ = results_of(only_run())
    assert results[1].weights in out
    assert results[3].weights in out
    seen = [(r.subject, r.random, r.weights.split(" ")[0]) for r in results]
    assert seen == [
        ("test_vheat", True, "random"),
        ("test_vheat", False, "heat.pth"),
        ("resnet18", True, "random"),
        ("resnet18", False, "res.pth"),
    ]
    assert re.fullmatch(r"heat\.pth \([0-9a-f]{12}\)", results[1].weights)
    assert not np.allclose(results[0].map, results[1].map, rtol=0.01)
    assert not any("random weights" in text for text in results[1].record.warnings)
    code, _, err = run_erf(*SMALL, "--weights", "heat.pth", "--compare", "resnet18", "--results", "beside")
    assert "resnet18: random weights, beside trained ones" in err
    # another size: the model's own rule of resizing, and it is said
    code, _, err = run_erf(*SMALL, "--weights", "heat.pth", "--resolution", "96", "--results", "larger")
    assert code == 0
    assert "frequency embeddings resized: 16x16 -> 24x24" in err


def model_of(name):
    """A model as the command builds it at 64 pixels."""
    return build(make_plan(ErfSettings((name,), ((64, 64),)), open_images(None, 1)).jobs[0].base).model


def test_weights_of_another_model_are_refused_before_anything_is_measured(tmp_path):
    torch.save(model_of("resnet18").state_dict(), "r.pth")
    torch.save({"conv1.weight": torch.zeros(3)}, "half.pth")
    (tmp_path / "text.pth").write_text("no weights")
    for words in (
        ["--weights", "r.pth"],
        ["--weights", "random", "--weights", "resnet18=half.pth", "--compare", "resnet18"],
        ["--weights", "text.pth"],
        ["--model", "resnet18", "--weights", "text.pth"],
    ):
        code, _, err = run_erf(*SMALL, *words)
        assert code == 2
        assert err.startswith("--weights ")
        assert ".pth" in err
        assert "\n" not in err
    assert not (tmp_path / "results").exists()


def test_checkpoint_with_code_needs_trust():
    for name in ("test_vheat", "resnet18"):
        torch.save({"model": model_of(name).state_dict(), "config": argparse.Namespace(a=1)}, "official.pth")
        words = (*SMALL, "--model", name, "--weights", "official.pth", "--results", name)
        code, _, err = run_erf(*words)
        assert code == 2
        assert "--trust-pickle" in err
        assert "trust_pickle" not in err
        assert run_erf(*words, "--trust-pickle")[0] == 0


def test_json_is_one_document(in_a_folder):
    code, out, _ = run_erf(*SMALL, "--json", "--out", "figures")
    document = json.loads(out)
    assert code == 0
    assert document["records"][0]["metrics"]["erf_a50"]["value"] > 0
    assert document["path"].endswith(".jsonl")
    assert document["figures"] == []
    assert str(in_a_folder[0][1]) == "figures"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "no_such_model"], "no_such_model"),
        (["--model", "op/heat"], "is no model"),
        (["--compare", "no_such_model"], "no_such_model"),
        (["--compare", "a,,b"], "empty value"),
        (["--layer", "stages.9"], "stages.3"),
        (["--layer", "4"], "0 to 3"),
        (["--resolution", "65"], "65"),
        (["--resolution", "0"], "resolution"),
        (["--resolution", "big"], "resolution"),
        (["--weights", "nowhere.pth"], "nowhere.pth"),
        (["--weights", "resnet18=res.pth"], "'resnet18' is none of the models here (test_vheat)"),
        (["--weights", "test_vheat=res.pth"], "no such file"),
        (["--out", "/dev/null/figures"], "--figures /dev/null/figures: cannot be written"),
        (["--resolution", "33"], "resize to 32x32 or pad to 64x64"),
        (["--images", "nowhere"], "nowhere"),
        (["--images", "noise:pink"], "pink"),
        (["--conduction", "-1"], "conduction"),
        (["--conduction", "much"], "conduction"),
        (["--model", "resnet18", "--conduction", "none"], "resnet18"),
        (["--protocol", "vmamba"], "centre, replknet"),
        (["--dtype", "int8"], "int8 is quantised by an engine that takes ONNX"),
        (["--dtype", "int4"], "float32"),
        (["--dtype", "tf32", "--device", "cpu"], "tf32"),
        (["--device", "tpu"], "tpu"),
        (["--device", "cuda:1"], "CUDA_VISIBLE_DEVICES"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, words, message):
    code, out, err = run_erf(*SMALL, *words)
    assert code == 2
    assert message in err
    assert "\n" not in err
    assert out == ""
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("option", ["--max-images", "--batch"])
def test_counts_must_be_positive(option):
    code, _, err = run_erf("--model", "test_vheat", option, "0")
    assert code == 2
    assert option in err


def test_a_model_that_fails_is_a_record_and_the_rest_goes_on(monkeypatch):
    measured = erf_run._measure

    def failing(job, *rest):
        if job.base.resolution == (64, 64):
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: 8 bytes")
        return measured(job, *rest)

    monkeypatch.setattr(erf_run, "_measure", failing)
    _, out, _ = run_erf(*SMALL, "--resolution", "64,96", "--layer", "0,1")
    run = only_run()
    assert [record.status for record in run.records] == ["oom", "oom", "ok", "ok"]
    assert "allocate" in run.records[0].reason
    assert run.complete
    assert "oom: out of memory" in out
    assert len(results_of(run)[0]) == 2


def test_gradients_that_are_zero_everywhere_fail(monkeypatch):
    """Of a layer whose centre is never positive."""

    def dead(case, device):
        built = build(case, device)
        with torch.no_grad():
            for parameter in built.model.stages[3].parameters():
                parameter.zero_()
        return built

    monkeypatch.setattr(erf_run, "build", dead)
    code, _, _ = run_erf(*SMALL)
    (record,) = only_run().records
    assert code == 6
    assert record.status == "failed"
    assert "zero everywhere" in record.reason


@pytest.mark.parametrize("after", [0, 1])
def test_interrupt_keeps_what_is_there(monkeypatch, after, tmp_path):
    measured, calls = erf_run._measure, []

    def interrupted(*words):
        calls.append(words)
        if len(calls) > after:
            raise KeyboardInterrupt
        return measured(*words)

    monkeypatch.setattr(erf_run, "_measure", interrupted)
    code, _, err = run_erf(*SMALL, "--resolution", "64,96")
    assert code == 130
    assert f"{after} of 2 cases are safe" in err
    (path,) = begun_runs(tmp_path / "results")
    assert f"vheatbench erf --resume {path.relative_to(tmp_path)}" in err
    assert len(read_run(path).records) == after

    monkeypatch.setattr(erf_run, "_measure", measured)
    assert run_erf("--resume", "latest")[0] == 0
    run = only_run()
    assert run.complete
    assert [record.case.size for record in run.records] == ["64", "96"]
    assert len(results_of(run)[0]) == 2


def test_images_that_changed_since_the_run_was_begun_end_it(monkeypatch, tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(rng.integers(0, 255, (70, 90, 3), np.uint8)).save(folder / name)

    def interrupted(*_):
        raise KeyboardInterrupt

    measured = erf_run._measure
    monkeypatch.setattr(erf_run, "_measure", interrupted)
    assert run_erf(*SMALL, "--images", str(folder))[0] == 130
    monkeypatch.setattr(erf_run, "_measure", measured)
    Image.fromarray(rng.integers(0, 255, (70, 90, 3), np.uint8)).save(folder / "b.png")
    code, _, err = run_erf("--resume", "latest")
    assert code == 2
    assert "images changed since it was begun" in err


@pytest.mark.parametrize(("error", "expected"), [(UserError, 0), (StoreError, 6)])
def test_figures_that_cannot_be_drawn_lose_no_number(monkeypatch, error, expected):
    import vheatbench.studies.erf.figures as figures

    def full(results, folder):
        raise error("no room")

    monkeypatch.setattr(figures, "save_erf_figures", full)
    code, out, err = run_erf(*SMALL)
    assert code == expected
    assert "no room" in err
    assert "stages.3" in out


def test_as_a_process(tmp_path):
    """The real thing: a folder of odd images, figures, one line for bad input, no traceback."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (70, 90, 4), np.uint8)).save(folder / "alpha.png")
    Image.fromarray(rng.integers(0, 65535, (70, 90), np.uint16)).save(folder / "deep.png")
    Image.fromarray(rng.integers(0, 255, (70, 90, 3), np.uint8)).convert("P").save(folder / "palette.gif")
    words = [sys.executable, "-m", "vheatbench", "erf", *SMALL[:-1], "--images", str(folder), "--json"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["records"][0]["conditions"]["images"]["words"] == "3 of 3 images in pictures"
    assert re.search(r"\[1/1 \d+:\d\d\] test_vheat 64: 4 images", done.stderr)
    assert all((tmp_path / figure).is_file() for figure in document["figures"])
    assert document["figures"]
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 nothing")
    broken = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert broken.returncode == 2
    assert broken.stdout == ""
    assert broken.stderr.count("\n") == 1
    assert "broken.jpg" in broken.stderr
