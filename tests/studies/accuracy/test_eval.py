"""``vheatbench eval``: known answers, every image once however it is divided or interrupted, and bad input."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config
from typer.testing import CliRunner

from support import forked
from support.eval_models import LEVELS, write_colours, write_levels
from vheatbench import load_checkpoint
from vheatbench.cli import app, exits
from vheatbench.errors import UserError
from vheatbench.stats import wilson
from vheatbench.store.attachments import folder_of, read_attachment
from vheatbench.store.read import list_runs, read_run
from vheatbench.studies.accuracy import evaluate
from vheatbench.studies.accuracy import run as accuracy_run
from vheatbench.studies.accuracy.answers import Answers
from vheatbench.studies.accuracy.plan import EvalSettings, make_plan, prepare
from vheatbench.studies.images.labelled import open_labelled

pytestmark = pytest.mark.usefixtures("one_thread", "in_process")

TESTS = Path(__file__).parents[2]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}


@pytest.fixture
def call(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def call(*words: str | Path):
        return CliRunner().invoke(app, ["eval", *map(str, words)])

    return call


@pytest.fixture
def levels(tmp_path) -> list[tuple[int, int]]:
    """Grey pictures in the folder ``levels``: per image its class and the class it looks like."""
    return write_levels(tmp_path / "levels")


def the_run(folder: str = "results"):
    (path,) = list_runs(folder)
    return read_run(path)


def stored(run, index: int = 0) -> Answers:
    record = run.records[index]
    return Answers.from_bytes(read_attachment(run, record.files["answers"]), record.conditions["data"]["images"])


def same(one: Answers, other: Answers) -> bool:
    names = ("predicted", "rank", "loss")
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in names)


def expected(seen: list[tuple[int, int]]) -> tuple[int, int, float]:
    """Right answers, right among five, and mean loss, from distances between greys."""
    first = five = 0
    losses = []
    for target, looks in seen:
        logits = [-abs(level - LEVELS[looks]) / 20 for level in LEVELS]
        order = sorted(range(len(LEVELS)), key=lambda i: -logits[i])
        first += order[0] == target
        five += target in order[:5]
        losses.append(math.log(sum(map(math.exp, logits))) - logits[target])
    return first, five, sum(losses) / len(losses)


@pytest.mark.parametrize("model", ["levels", "grey_levels"])
def test_a_model_with_known_answers_has_the_known_accuracy(call, levels, model):
    done = call(
        "--model", f"support.eval_models:{model}", "--data", "levels", "--resolution", "32,48x64", "--batch", "13"
    )
    assert done.exit_code == 0, done.stderr
    right, five, loss = expected(levels)
    assert (right, len(levels)) == (24, 40)
    assert 24 < five < 40
    run = the_run()
    assert run.complete
    for record in run.records:
        metrics = record.metrics
        assert metrics["images"].value == 40
        top1 = wilson(24, 40)
        assert metrics["top1_accuracy"].value == top1.value == 0.6
        assert (metrics["top1_accuracy"].low, metrics["top1_accuracy"].high) == (top1.low, top1.high)
        assert metrics["top5_accuracy"].value == five / 40
        assert metrics["loss"].value == pytest.approx(loss, rel=1e-5)
        assert metrics["throughput_images_per_s"].value > metrics["pipeline_images_per_s"].value > 0
        assert record.case.mode == "eval"
        assert stored(run).predicted.tolist() == [looks for _, looks in levels]
    assert [record.case.size for record in run.records] == ["32", "48x64"]
    assert "top1_gain" not in run.records[0].metrics
    assert run.records[1].metrics["top1_gain"].value == 0
    assert "60.0 (44.6 to 73.7)" in done.stdout


def test_the_worst_classes_and_what_they_are_taken_for(call, levels):
    # class 3 gets pictures that look like 5, twice, and loses those that look like itself
    for k in (0, 1):
        Image.new("L", (50, 50), LEVELS[5]).save(f"levels/class3/0{k}.png")
    done = call("--model", "support.eval_models:levels", "--data", "levels", "--resolution", "32", "--worst", "1")
    assert done.exit_code == 0, done.stderr
    run = the_run()
    worst = run.records[0].conditions["worst_classes"]
    assert worst[0] == {
        "name": "class3", "images": 5, "correct": 1, "accuracy": 0.2, "low": wilson(1, 5).low,
        "high": wilson(1, 5).high, "taken_for": [["class5", 2], ["class1", 1], ["class4", 1]],
    }  # fmt: skip
    assert "class5 ×2, class1 ×1, class4 ×1" in done.stdout
    assert "class0" not in done.stdout
    everything = json.loads(read_attachment(run, run.records[0].files["classes"]))
    assert len(everything) == 8


@pytest.mark.parametrize(("size", "rule"), [(64, "bicubic"), (96, "zeropad")])
def test_answers_are_those_of_timms_preprocessing_and_the_training_form(call, tmp_path, size, rule):
    write_colours(tmp_path / "images")
    torch.manual_seed(1)
    model = timm.create_model("test_vheat", num_classes=3)
    with torch.no_grad():
        model.head.fc.weight.mul_(50)
    torch.save({"model": timm.create_model("test_vheat", num_classes=3).state_dict(), "model_ema": model.state_dict()},
               "w.pth")  # fmt: skip
    words = ("--model", "test_vheat", "--num-classes", "3", "--data", "images", "--resolution", size, "--rule", rule)
    done = call(*words, "--weights", "w.pth", "--use", "model_ema", "--batch", "4", "--crop-pct", "0.8", "--json")
    assert done.exit_code == 0, done.stderr
    again = timm.create_model("test_vheat", num_classes=3, img_size=size).eval()
    load_checkpoint(again, "w.pth", weights="model_ema", freq_resize=rule)
    transform = create_transform(**resolve_data_config({"img_size": size, "crop_pct": 0.8}, model=again))
    paths = sorted(Path("images").glob("*/*.png"))
    x = torch.stack([transform(Image.open(path).convert("RGB")) for path in paths])
    with torch.no_grad():
        logits = again(x).double()
    targets = torch.tensor([int(path.parent.name[1]) for path in paths])
    run = the_run()
    found = stored(run)
    assert found.predicted.tolist() == logits.argmax(1).tolist()
    assert len(set(found.predicted.tolist())) > 1
    losses = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    np.testing.assert_allclose(found.loss, losses.numpy(), rtol=1e-4)
    record = json.loads(done.stdout)["records"][0]
    analysis = record["case"]["analysis"]
    assert analysis["use"] == "model_ema"
    assert analysis["crop_pct"] == 0.8
    assert analysis.get("rule", "bicubic") == rule
    assert "set 'model_ema'" in record["subject"]["weights"]
    assert record["subject"]["form"] == "deploy form"
    assert record["metrics"]["top5_accuracy"]["unavailable"]


def test_shipped_weights_are_resized_by_the_rule():
    name, images = "vheat-micro:photographs", torch.randn(2, 3, 96, 96)
    answers = []
    for rule in ("bicubic", "zeropad"):
        settings = EvalSettings(name, "photographs", resolutions=((96, 96),), rule=rule)
        ready = prepare(make_plan(settings).cases[0], settings)
        assert ready.loaded is not None
        with torch.no_grad():
            answers.append(ready.model(images))
    assert not torch.allclose(*answers, rtol=1e-6)


def test_the_change_between_sizes_is_counted_image_by_image(call, tmp_path):
    write_colours(tmp_path / "images")
    done = call("--model", "test_vheat", "--num-classes", "3", "--data", "images", "--resolution", "32,96")
    assert done.exit_code == 0, done.stderr
    run = the_run()
    before, after = (stored(run, i).rank == 0 for i in (0, 1))
    gain = run.records[1].metrics["top1_gain"]
    assert gain.value == pytest.approx(after.mean() - before.mean())
    assert gain.how.startswith(f"against 32: {(after & ~before).sum()} images became right, {(before & ~after).sum()}")


def test_two_processes_count_every_image_once(call, tmp_path):
    write_colours(tmp_path / "images", per_class=7)  # 21 images: neither a multiple of 2 nor of the batch
    words = ["--model", "test_vheat", "--num-classes", "3", "--data", "images", "--batch", "4", "--save-every", "1"]
    command = [*TORCHRUN, "-m", "vheatbench", "eval", *words, "--results", "two", "--json"]
    done = forked.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=120)
    assert done.returncode == 0, done.stderr
    assert call(*words, "--results", "one").exit_code == 0
    two, one = the_run("two"), the_run("one")
    assert json.loads(done.stdout)["records"][0]["conditions"]["processes"] == 2
    assert same(stored(two), stored(one))
    for metric in ("images", "top1_accuracy", "loss"):
        assert two.records[0].metrics[metric] == one.records[0].metrics[metric]
    assert two.records[0].metrics["images"].value == 21
    assert two.records[0].case_id == one.records[0].case_id
    # six batches of one process each are three of both
    assert (len(stored(one).chunks), len(stored(two).chunks)) == (6, 3)


def test_bad_input_of_one_process_ends_both_and_is_said_once(call, tmp_path):
    write_levels(tmp_path / "levels")
    (tmp_path / "levels/class7/04.png").write_text("no picture")
    words = ["--model", "support.eval_models:levels", "--data", "levels", "--resolution", "32", "--batch", "4"]
    command = [*TORCHRUN, "-m", "vheatbench", "eval", *words]
    done = forked.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=120)
    assert done.returncode != 0
    assert done.stderr.count("class7/04.png: cannot be read") == 1
    assert "in process_group" not in done.stderr  # no traceback of ours


def test_a_killed_process_of_two_loses_no_answer(call, levels):
    words = ["--model", "support.eval_models:dying", "--data", "levels", "--resolution", "32", "--batch", "4"]
    command = [*TORCHRUN, "-m", "vheatbench", "eval", *words, "--save-every", "1"]
    environment = {**ENVIRONMENT, "DYING_RANK": "1", "DIE_AT_CALL": "5"}
    done = forked.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode != 0
    (partial,) = list_runs("results")
    assert partial.suffix == ".partial", "a process that is gone is no result of the model"
    assert read_run(partial).records == []
    resumed = call("--resume", "latest")
    assert resumed.exit_code == 0, resumed.stderr
    assert "going on after" in resumed.stderr
    assert the_run().records[0].metrics["top1_accuracy"].value == 0.6


@pytest.mark.slow
def test_a_stopped_torchrun_names_once_what_goes_on(call, levels):
    words = ["--model", "support.eval_models:dying", "--data", "levels", "--resolution", "32", "--batch", "4"]
    command = [*TORCHRUN, "-m", "vheatbench", "eval", *words, "--save-every", "1"]
    environment = {**ENVIRONMENT, "DYING_RANK": "1", "DIE_AT_CALL": "5", "END_TORCHRUN": ""}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    (partial,) = list_runs("results")
    kept = f"what was done is kept; continue with: vheatbench eval --resume {partial}\n"
    assert done.stderr.count("interrupted: ") == done.stderr.count(f"interrupted: {kept}") == 1
    assert "vheatbench/cli" not in done.stderr, "no traceback of ours"
    assert call("--resume", "latest").exit_code == 0


def test_a_killed_evaluation_goes_on_where_it_was(call, levels):
    words = ["--model", "support.eval_models:dying", "--data", "levels", "--resolution", "32,40", "--batch", "3"]
    assert call(*words, "--results", "whole").exit_code == 0
    # a few calls warm up, 14 are those of a size
    environment = {**ENVIRONMENT, "DIE_AT_CALL": "10"}
    command = [sys.executable, "-m", "vheatbench", "eval", *words, "--save-every", "2"]
    killed = forked.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert killed.returncode == exits.FAILED
    assert "killed by SIGKILL" in killed.stderr
    (partial,) = list_runs("results")
    assert f"continue with: vheatbench eval --resume {partial}" in killed.stderr
    left = read_run(partial)
    assert left.records == []
    done_before = Answers.from_bytes(evaluate.progress_file(partial, left.header.plan[0]).read_bytes(), 40).done
    assert 0 < done_before < 40
    resumed = call("--resume", "latest")
    assert resumed.exit_code == 0, resumed.stderr
    assert f"going on after {done_before} of 40 images" in resumed.stderr
    run, whole = the_run(), the_run("whole")
    assert run.complete
    for i in (0, 1):
        assert same(stored(run, i), stored(whole, i))
        for metric in ("images", "top1_accuracy", "top5_accuracy", "loss"):
            assert run.records[i].metrics[metric] == whole.records[i].metrics[metric]
    assert not list(folder_of(run.path).glob("*progress*"))


def test_an_interrupted_evaluation_reads_no_image_twice(call, levels, monkeypatch):
    read: list[int] = []
    stop_after = 2

    answered = accuracy_run._Reporter.answered
    chunks = []

    def stopping(self, done: int, correct: float) -> None:
        answered(self, done, correct)
        chunks.append(done)
        if len(chunks) == stop_after:
            raise KeyboardInterrupt

    get = evaluate.ImageTensors.__getitem__
    monkeypatch.setattr(evaluate.ImageTensors, "__getitem__", lambda self, i: (read.append(i), get(self, i))[1])
    monkeypatch.setattr(accuracy_run._Reporter, "answered", stopping)
    words = ("--model", "support.eval_models:levels", "--data", "levels", "--resolution", "32", "--batch", "6")
    done = call(*words, "--save-every", "1")
    assert done.exit_code == exits.INTERRUPTED
    (partial,) = list_runs("results")
    assert f"continue with: vheatbench eval --resume {partial}" in done.stderr
    assert read == list(range(12))
    assert call("--resume", partial).exit_code == 0
    assert read == list(range(40))
    assert the_run().records[0].metrics["top1_accuracy"].value == 0.6


def test_what_changed_since_is_not_mixed(call, levels, tmp_path):
    (tmp_path / "levels/class7/04.png").write_text("no picture")
    torch.save({"stem.weight": torch.zeros(1, 3, 1, 1), "stem.bias": torch.zeros(1)}, "w.pth")
    words = ("--model", "support.eval_models:levels", "--data", "levels", "--resolution", "32", "--weights", "w.pth")
    assert "cannot be read" in str(call(*words).exception)
    torch.save({"stem.weight": torch.ones(1, 3, 1, 1), "stem.bias": torch.zeros(1)}, "w.pth")
    changed = call("--resume", "latest", "--skip-broken")
    assert "weights changed since it was begun" in str(changed.exception)
    torch.save({"stem.weight": torch.zeros(1, 3, 1, 1), "stem.bias": torch.zeros(1)}, "w.pth")
    shutil.copy("levels/class0/00.png", "levels/class0/99.png")
    assert "data changed since" in str(call("--resume", "latest", "--skip-broken").exception)
    Path("levels/class0/99.png").unlink()
    assert "leave --batch out" in str(call("--resume", "latest", "--batch", "3").exception)
    # a file whose process was killed before it had a header is in nobody's way
    empty = Path("results/20990101T000000Z-eval-h-0123abcd.jsonl.partial")
    empty.touch()
    assert call("--resume", "latest", "--skip-broken").exit_code == 0
    empty.unlink()
    (finished,) = list_runs("results")
    assert "finished already" in str(call("--resume", finished).exception)
    assert "no unfinished run of 'eval'" in str(call("--resume", "latest").exception)


def test_broken_images_are_named_and_left_out_only_when_asked(call, levels):
    Path("levels/class0/00.png").write_bytes(b"")
    whole = Path("levels/class1/03.png").read_bytes()
    Path("levels/class1/03.png").write_bytes(whole[: len(whole) // 2])
    words = ("--model", "support.eval_models:levels", "--data", "levels", "--resolution", "32", "--batch", "5")
    refused = call(*words)
    assert isinstance(refused.exception, UserError)
    assert "levels: class0/00.png: cannot be read as an image" in str(refused.exception)
    assert "--skip-broken" in str(refused.exception)
    assert "levels/class0" not in str(refused.exception)  # the folder is named once
    assert "\n" not in str(refused.exception)
    done = call(*words, "--skip-broken", "--results", "kept")
    assert done.exit_code == 0, done.stderr
    record = the_run("kept").records[0]
    assert record.metrics["images"].value == 38
    assert record.metrics["images_unreadable"].value == 2
    # the first looked like its class, the second like another
    assert record.metrics["top1_accuracy"].value == 23 / 38
    assert "2 of 40 images cannot be read and are left out: class0/00.png, class1/03.png" in done.stderr


def test_readers_in_other_processes_give_the_same(call, levels):
    Path("levels/class0/00.png").write_bytes(b"")
    words = (
        "--model",
        "support.eval_models:levels",
        "--data",
        "levels",
        "--resolution",
        "32",
        "--batch",
        "5",
        "--skip-broken",
    )
    for workers in (0, 2):
        assert call(*words, "--workers", workers, "--results", f"w{workers}").exit_code == 0
    assert same(stored(the_run("w0")), stored(the_run("w2")))


def test_a_limit_keeps_the_share_of_every_class(call, levels):
    done = call("--model", "support.eval_models:levels", "--data", "levels", "--resolution", "32", "--limit", "16")
    assert done.exit_code == 0, done.stderr
    record = the_run().records[0]
    assert record.metrics["images"].value == 16
    assert [c["images"] for c in record.conditions["worst_classes"]] == [2] * 8
    assert "--limit: 16 images" in done.stderr


@pytest.mark.parametrize("name", ["map.json", "map.txt"])
def test_a_class_map_for_a_few_folders_of_many_classes(call, levels, name):
    names = [f"class{i}" for i in (1, 6, 0, 3, 7, 2, 5, 4)]
    kept = [3, 6]
    for target in set(range(8)) - set(kept):
        shutil.rmtree(f"levels/class{target}")
    content = json.dumps({n: i for i, n in enumerate(names)}) if name.endswith("json") else "\n".join(names)
    Path(name).write_text(content)
    words = ("--model", "support.eval_models:levels", "--data", "levels", "--resolution", "32")
    refused = call(*words)
    assert "head has 8 classes, levels has 2: give --class-map" in str(refused.exception)
    done = call(*words, "--class-map", name)
    assert done.exit_code == 0, done.stderr
    # class3 is output 3, as three of its pictures look; class6 is output 1, as none does, and 6 is called class5
    record = the_run().records[0]
    assert record.metrics["top1_accuracy"].value == 3 / 10
    worst, best = record.conditions["worst_classes"]
    assert (worst["name"], worst["correct"], worst["taken_for"][0]) == ("class6", 0, ["class5", 3])
    assert (best["name"], best["correct"]) == ("class3", 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ("[1, 2]", "give an object of class names and whole numbers"),
        ('{"class0": "a"}', "give an object"),
        ('{"class0": 0}', "has no class1, class2, class3 and 4 more, which levels has"),
        (json.dumps({f"class{i}": i + 1 for i in range(8)}), "the head has outputs 0 to 7, not class7: 8"),
        (json.dumps({f"class{i}": i // 2 for i in range(8)}), "class0, class1, class2 are one output"),
    ],
)
def test_class_maps_that_do_not_fit(call, levels, content, message):
    Path("map.json").write_text(content)
    done = call(
        "--model", "support.eval_models:levels", "--data", "levels", "--resolution", "32", "--class-map", "map.json"
    )
    assert isinstance(done.exception, UserError)
    assert message in str(done.exception)
    assert list_runs("results") == []


@pytest.mark.parametrize(
    ("model", "status", "reason"),
    [
        ("nan", "failed", "the logits of class1/04.png are not finite"),
        ("oom", "oom", "out of memory"),
        ("luckless", "failed", "RuntimeError: no luck"),
    ],
)
def test_a_model_that_goes_wrong_is_a_result(call, levels, model, status, reason):
    done = call("--model", f"support.eval_models:{model}", "--data", "levels", "--resolution", "32,64", "--batch", "4")
    assert done.exit_code == exits.FAILED
    run = the_run()
    assert [record.status for record in run.records] == [status, status]
    assert reason in run.records[0].reason
    assert reason in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--model support.eval_models:levels", "--data is missing"),
        ("--model support.eval_models:levels --data none", "--data none: no such folder"),
        ("--model support.eval_models:levels --data empty", "no images in class folders"),
        ("--model support.eval_models:levels --data levels/class0", "its images are in no class folders"),
        ("--model support.eval_models:levels --data up", "(is up/val what is meant?)"),
        ("--model support.eval_models:levels --data levels --split val", "--split val: only for a saved data set"),
        ("--model test_vheat --data levels", "head has 1000 classes, levels has 8"),
        ("--model test_vheat --num-classes 8 --data levels --resolution 70", "divisible by 32"),
        ("--model test_vit --num-classes 8 --data levels --resolution 70", "would drop the rest"),
        ("--model test_vheat --num-classes 8 --data levels --weights w.pth", "give --num-classes 5"),
        ("--model test_vit --num-classes 8 --data levels --weights vit.pth", "its head has 5 classes, the model's 8"),
        ("--model test_vit --num-classes 8 --data levels --weights w.pth", "not weights of this model"),
        ("--model test_vit --num-classes 5 --data five --weights vit.pth --use model_ema", "no 'model_ema'"),
        ("--model test_vheat --num-classes 8 --data levels --weights none.pth", "none.pth"),
        ("--model test_vheat --num-classes 8 --data levels --weights pickled.pth", "add --trust-pickle"),
        ("--model support.eval_models:features --data levels", "not one row of logits per image"),
        ("--model op/heat --data levels", "no model"),
        ("--model vheat-x --data levels", "unknown model"),
        ("--model support.eval_models:levels --data levels --dtype int8", "int8 is quantised by an engine"),
        ("--model support.eval_models:levels --data levels --dtype tf32 --device cpu", "tf32 is a mode of NVIDIA GPUs"),
        ("--model support.eval_models:levels --data levels --resolution big", "--resolution"),
        ("--model support.eval_models:levels --data levels --class-map none.txt", "none.txt: cannot be read"),
        ("--model support.eval_models:levels --data saved", "pip install datasets"),
        ("--resume none", "no run named 'none'"),
    ],
)
def test_bad_input_is_one_line(call, levels, words, message, monkeypatch):
    from yacs.config import CfgNode

    monkeypatch.setitem(sys.modules, "datasets", None)
    for folder in ("empty/class0", "up/val/a", "up/train/a", "saved", "five"):
        Path(folder).mkdir(parents=True)
    shutil.copytree("levels", "five", dirs_exist_ok=True)
    for i in (5, 6, 7):
        shutil.rmtree(f"five/class{i}")
    Image.new("L", (9, 9)).save("up/val/a/1.png")
    Path("saved/dataset_info.json").write_text("{}")
    vheat = timm.create_model("test_vheat", num_classes=5).state_dict()
    torch.save(vheat, "w.pth")
    torch.save({"model": vheat, "config": CfgNode({})}, "pickled.pth")
    torch.save(timm.create_model("test_vit", num_classes=5).state_dict(), "vit.pth")
    done = call(*words.split())
    assert isinstance(done.exception, UserError), done.output
    assert message in str(done.exception)
    assert "\n" not in str(done.exception)
    assert list_runs("results") == []


def test_weights_of_other_models_and_their_averages(call, tmp_path):
    write_colours(tmp_path / "images")
    one, other = (timm.create_model("test_vit", num_classes=3) for _ in range(2))
    torch.nn.init.constant_(other.head.bias, 9.0)
    with torch.no_grad():
        one.head.bias.copy_(torch.tensor([0.0, 99.0, 0.0]))
        other.head.bias.copy_(torch.tensor([0.0, 0.0, 99.0]))
    torch.save({"state_dict": one.state_dict(), "state_dict_ema": other.state_dict()}, "w.pth")
    for use, answer in (("model", 1), ("model_ema", 2)):
        words = ("--model", "test_vit", "--num-classes", "3", "--data", "images", "--weights", "w.pth", "--use", use)
        assert call(*words, "--results", use).exit_code == 0
        assert set(stored(the_run(use)).predicted.tolist()) == {answer}


def test_folders_as_torchvision_reads_them(tmp_path):
    from torchvision.datasets import ImageFolder

    write_levels(tmp_path)
    (tmp_path / "class0/deeper").mkdir()
    Image.new("L", (9, 9)).save(tmp_path / "class0/deeper/x.JPEG")
    (tmp_path / "class1/notes.txt").write_text("")
    (tmp_path / "loose.png").write_text("")
    ours, theirs = open_labelled(tmp_path), ImageFolder(str(tmp_path))
    assert list(ours.classes) == theirs.classes
    assert [(str(tmp_path / n), t) for n, t in zip(ours.names, ours.targets, strict=True)] == theirs.samples
    again = open_labelled(tmp_path)
    assert again.fingerprint == ours.fingerprint
    (tmp_path / "class1/00.png").write_bytes(b"another picture")
    changed = open_labelled(tmp_path).fingerprint
    assert changed != ours.fingerprint
    (tmp_path / "class1/00.png").rename(tmp_path / "class1/zz.png")
    assert open_labelled(tmp_path).fingerprint not in (changed, ours.fingerprint)
    assert ours.empty_classes == []
    (tmp_path / "nothing").mkdir()
    assert open_labelled(tmp_path).empty_classes == ["nothing"]


@pytest.mark.skipif(importlib.util.find_spec("datasets") is None, reason="Hugging Face datasets is not installed")
def test_saved_data_sets_give_the_same_as_folders(call, levels):
    import datasets

    folder = open_labelled("levels")
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(folder.classes))}
    )  # fmt: skip
    rows = {"image": [f"levels/{name}" for name in folder.names], "label": list(folder.targets)}
    table = datasets.Dataset.from_dict(rows, features=features)
    table.save_to_disk("one")
    datasets.DatasetDict({"train": table.select(range(3)), "validation": table}).save_to_disk("several")
    Path("parquet").mkdir()
    table.to_parquet("parquet/part.parquet")
    call("--model", "support.eval_models:levels", "--data", "levels", "--resolution", "32", "--results", "folders")
    for name in ("one", "several", "parquet"):
        done = call(
            "--model", "support.eval_models:levels", "--data", name, "--resolution", "32", "--results", f"of-{name}"
        )
        assert done.exit_code == 0, done.stderr
        assert same(stored(the_run(f"of-{name}")), stored(the_run("folders")))
    absent = call("--model", "support.eval_models:levels", "--data", "several", "--split", "dev")
    assert "no split 'dev': give --split, one of train, validation" in str(absent.exception)
    table.remove_columns("label").save_to_disk("unlabelled")
    assert "of type ClassLabel" in str(call("--model", "support.eval_models:levels", "--data", "unlabelled").exception)
