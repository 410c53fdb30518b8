"""``vheatbench heat``: what people type, what comes out, and what is refused in one line."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import pytest
from PIL import Image
from typer.testing import CliRunner

import vheatbench.studies.heat.figures as heat_figures
import vheatbench.studies.heat.run as heat_run
from vheatbench.cli import app, exits
from vheatbench.errors import UserError, WorkerError
from vheatbench.store.read import begun_runs, list_runs, read_run
from vheatbench.studies.heat.numbers import Numbers
from vheatbench.studies.heat.results import diffusions_of, diffusivities_of

pytestmark = pytest.mark.usefixtures("one_thread", "in_process")


@pytest.fixture
def heat(tmp_path, monkeypatch):
    """Calls the command in an empty folder, figures left out but for their folder."""
    monkeypatch.chdir(tmp_path)
    drawn = []

    def save(run, out_dir):
        drawn.append((run, out_dir))
        return [out_dir / "figure.png"]

    monkeypatch.setattr(heat_figures, "save_heat_figures", save)

    def call(*words: str):
        return CliRunner().invoke(app, ["heat", *words])

    call.drawn = drawn
    return call


def test_diffuse_prints_a_table_and_draws(heat, tmp_path):
    done = heat("diffuse", "--model", "test_vheat", "--times", "0.5,20", "--k", "learned,5,0.50", "--channel", "3")
    assert done.exit_code == 0, done.stderr
    assert "model test_vheat, size 64, layer stages.0.blocks.0, grid 16x16, weights random" in done.stdout
    rows = [line for line in done.stdout.splitlines() if line.startswith("│")]
    assert len(rows) == 3
    assert "learned" in rows[0]
    assert "channel 3" in rows[0]
    assert "constant 5" in rows[1]
    assert "constant 0.5" in rows[2]
    assert "cells²" in done.stdout
    assert "hardly conducts" in done.stderr
    run = read_run(list_runs(tmp_path / "results")[0])
    assert run.header.suite == "heat-diffuse"
    ((shown, folder),) = heat.drawn
    assert shown.header.run_id == run.header.run_id
    assert str(folder) == f"reports/heat-diffuse-{run.header.run_id}"
    found, _ = diffusions_of(run)
    assert found[0].image.startswith(b"\x89PNG")
    assert found[0].record.conditions["image"] == "cat.jpg"


def test_diffuse_takes_a_picture_a_place_and_a_size(heat, tmp_path):
    Image.new("L", (40, 30), 128).save("grey.png")
    done = heat(
        "diffuse", "--model", "test_vheat", "--layer", "3", "--image", "grey.png", "--source", "0,1", "--json",
        "--resolution", "64x96", "--rule", "zeropad", "--times", "1x", "--out", "pictures", "--results", "elsewhere",
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["figures"] == ["pictures/figure.png"]
    learned, constant = answer["records"]
    assert learned["case"]["resolution"] == [64, 96]
    assert learned["case"]["analysis"]["rule"] == "zeropad"
    assert learned["conditions"]["times"] == constant["conditions"]["times"] == [0, 1]
    assert learned["conditions"]["source_cell"] == [0, 2]
    assert answer["path"].startswith("elsewhere/")
    found, _ = diffusions_of(read_run(answer["path"]))
    with Image.open(io.BytesIO(found[0].image)) as picture:
        assert picture.size == (96, 64)


def test_diffusivity_of_every_block_under_both_rules(heat):
    done = heat("diffusivity", "--model", "test_vheat", "--resolution", "64,96", "--rule", "bicubic,zeropad", "--json")
    assert done.exit_code == 0, done.stderr
    found, _ = diffusivities_of(read_run(json.loads(done.stdout)["path"]))
    assert [(one.resolution[0], one.rule) for one in found if one.depth == 0] == [
        (64, ""), (96, "bicubic"), (96, "zeropad"),
    ]  # fmt: skip
    again = heat("diffusivity", "--model", "test_vheat")
    assert again.stdout.count("stages.") == 5
    assert "—" in again.stdout  # half-decay: nowhere
    # one warning for all that it is about
    assert again.stderr.count("! ") == 1
    assert "! test_vheat 64 stages.0.blocks.0 (and 4 more): it hardly conducts" in again.stderr


def test_kernel_rows_and_warnings(heat):
    done = heat("kernel", "--grid", "12x20", "--kt", "0.1,5", "--source", "0,0.5")
    assert done.exit_code == 0, done.stderr
    assert "grid 12x20, source 0,10" in done.stdout
    rows = [line.split("│") for line in done.stdout.splitlines() if line.startswith("│")]
    assert [row[1].strip() for row in rows] == ["0.1", "5"]
    assert "! k t 0.1: the response falls below 0" in done.stderr
    assert done.stderr.count("! ") == 1


def test_a_failed_piece_is_said_and_counts(heat, monkeypatch):
    def broken(*_):
        raise RuntimeError("no luck")

    monkeypatch.setattr(heat_run, "point_response", broken)
    done = heat("kernel", "--grid", "4", "--kt", "1")
    assert done.exit_code == exits.FAILED
    assert "no luck" in done.stdout


def test_ctrl_c_keeps_what_was_found(heat, monkeypatch, tmp_path):
    calls = []

    def interrupted(grid, cell, kt):
        calls.append(kt)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return Numbers({}, {})

    monkeypatch.setattr(heat_run, "point_response", interrupted)
    done = heat("kernel", "--grid", "4", "--kt", "1,2,3")
    assert done.exit_code == exits.INTERRUPTED
    assert "1 of 3 cases are safe" in done.stderr
    (path,) = begun_runs(tmp_path / "results")
    assert len(read_run(path).records) == 1
    assert f"continue with: vheatbench heat kernel --resume {path.relative_to(tmp_path)}" in done.stderr

    monkeypatch.setattr(heat_run, "point_response", lambda *_: Numbers({}, {}))
    again = heat("kernel", "--resume", "latest")
    assert again.exit_code == 0, again.stderr
    assert len(read_run(list_runs(tmp_path / "results")[0]).records) == 3
    refused = heat("kernel", "--resume", "latest", "--kt", "1")
    assert "leave --kt out" in str(refused.exception)


def test_a_model_that_breaks_is_one_line(heat, monkeypatch):
    def broken(*_):
        raise RuntimeError("can't allocate memory")

    monkeypatch.setattr("vheatbench.studies.heat.run.load_heat_model", broken)
    done = heat("diffusivity", "--model", "test_vheat", "--resolution", "64")
    assert isinstance(done.exception, WorkerError)
    assert str(done.exception) == "test_vheat at 64x64: out of memory: can't allocate memory"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("diffuse --model vheat-x", "unknown model"),
        ("diffuse --model swin-t", "no heat operators"),
        ("diffuse --model op/heat", "no model"),
        ("diffusivity --model test_vit", "no heat operators"),
        ("diffuse --model test_vheat --layer 7", "--layer '7' is no stage or block"),
        ("diffuse --model test_vheat --channel 16", "channels 0 to 15"),
        ("diffuse --model test_vheat --channel mean", "neither median"),
        ("diffuse --model test_vheat --source 1.5,0", "outside the image"),
        ("diffuse --model test_vheat --times 5:1:3", "FROM must be below TO"),
        ("diffuse --model test_vheat --k -1", "numbers from 0"),
        ("diffuse --model test_vheat --k 1e300", "numbers from 0 to 1e+09"),
        ("kernel --kt nan", "--kt 'nan'"),
        ("diffuse --model test_vheat --k learnt", "give learned or numbers"),
        ("diffuse --model test_vheat --k ,", "empty value"),
        ("diffuse --model test_vheat --image none.png", "none.png"),
        ("diffuse --model test_vheat --image .", "cannot be read"),
        ("diffuse --model test_vheat --resolution 70", "divisible by 32"),
        ("diffuse --model test_vheat --resolution a", "--resolution"),
        ("diffuse --model test_vheat --rule nearest", "--rule 'nearest'"),
        ("diffuse --model test_vheat --weights none.pth", "no such file"),
        ("diffusivity --model test_vheat --rule bicubic,x", "--rule 'x'"),
        ("kernel --grid 0", "--grid"),
        ("kernel --grid 4096", "at most"),
        ("kernel --kt 0", "positive"),
        ("kernel --kt a", "--kt 'a'"),
        ("kernel --source 2,2", "outside the image"),
        ("kernel --out /dev/null/figures", "--figures /dev/null/figures: cannot be written"),
        ("diffuse --model test_vheat --resolution 33", "resize to 32x32 or pad to 64x64"),
    ],
)
def test_bad_input_is_one_line(heat, words, message, tmp_path):
    done = heat(*words.split())
    assert isinstance(done.exception, UserError), done.output
    assert message in str(done.exception)
    assert "\n" not in str(done.exception)
    assert list_runs(tmp_path / "results") == []


def test_weights_of_another_model_are_refused(heat):
    import timm
    import torch

    torch.save(timm.create_model("test_vit").state_dict(), "vit.pth")
    done = heat("diffuse", "--model", "test_vheat", "--weights", "vit.pth")
    assert isinstance(done.exception, UserError)
    assert "vit.pth" in str(done.exception)


def test_a_deployed_model_is_refused(heat, tmp_path, monkeypatch):
    (tmp_path / "ready.py").write_text(
        "import timm\ndef net(img_size=64):\n    return timm.create_model('test_vheat', img_size=img_size).deploy()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    done = heat("diffusivity", "--model", "ready:net", "--resolution", "64")
    assert isinstance(done.exception, UserError)
    assert "deployed" in str(done.exception)


def test_the_command_as_a_process(tmp_path):
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "vheatbench", "heat", *words], cwd=tmp_path, capture_output=True, text=True
        )

    done = run("kernel", "--grid", "8", "--kt", "2", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["figures"]
    assert all((tmp_path / path).stat().st_size for path in answer["figures"])
    refused = run("diffuse", "--model", "test_vit")
    assert refused.returncode == 2
    assert refused.stderr.startswith("vheatbench: model 'test_vit'")
    assert refused.stderr.count("\n") == 1
    assert refused.stdout == ""
