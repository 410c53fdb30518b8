"""Whatever path is read: a FIFO, an endless device and a huge file are one line and exit code 2, at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from support.records import record
from support.run_files import write_run
from vheatbench import files
from vheatbench.cli import app
from vheatbench.errors import StoreError, UserError
from vheatbench.run.checkpointing import read_checkpoint
from vheatbench.store.attachments import read_attachment
from vheatbench.store.history import add_to_history
from vheatbench.store.schema import Attachment
from vheatbench.studies.accuracy.classes import map_classes
from vheatbench.studies.dense.ade import read_ade
from vheatbench.studies.dense.answers import Answers
from vheatbench.studies.dense.coco import read_coco
from vheatbench.studies.dense.files import read_trained
from vheatbench.studies.images.labelled import ImageTensors, open_labelled
from vheatbench.studies.images.photographs import open_images, read_photograph
from vheatbench.studies.training.folder import FILE, open_folder
from vheatbench.studies.training.recipe import load_recipe
from vheatbench.subjects.weights import _read, identify
from vheatbench.verdict.noise_floor import floor_path, read_floor


@pytest.fixture(autouse=True)
def _at_once() -> Iterator[None]:
    """What waits for the other end of a FIFO fails, instead of waiting for ever."""

    def late(*_: object) -> None:
        raise AssertionError("it waits")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


KINDS = ("fifo", "endless", "huge")


def make(kind: str, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "endless":
        path.symlink_to("/dev/zero")
    else:
        with path.open("wb") as file:
            file.truncate(100 * files.GIB)
    return path


WORDS = {"fifo": "not a regular file", "endless": "not a regular file", "huge": "larger than"}

COMMANDS = [
    ["show", "{}"],
    ["report", "{}"],
    ["export", "--format", "csv", "{}"],
    ["compare", "latest", "{}"],
    ["compare", "{}", "latest"],
    ["merge", "{}", "latest"],
    ["report", "--history", "{}"],
    ["track", "show", "--results", "{}"],
    ["track", "add", "latest", "--results", "{}"],
    ["track", "add", "--pytest-benchmark", "{}"],
    ["run", "--suite", "{}", "--dry-run"],
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], kind: str) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "results", [record("vheat-t", 224, 0.1)])
    write_run(tmp_path / "other", [record("vheat-t", 224, 0.1)])
    path = make(kind, tmp_path / "other" / ("x.yaml" if "run" in words else "x.jsonl"))
    done = CliRunner().invoke(app, [word.format(path) for word in words])
    assert isinstance(done.exception, UserError), done.output
    assert WORDS[kind] in str(done.exception)
    assert path.name in str(done.exception)


def _images(root: Path) -> Any:
    Image.new("RGB", (9, 9)).save(make_folder(root / "a") / "good.png")
    return open_labelled(root)


def make_folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


FUNCTIONS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "picture": ("x.png", read_photograph),
    "photographs": ("images/x.png", lambda path: open_images(str(path.parent), 3)),
    "class map": ("map.json", lambda path: map_classes(_images(path.parent / "data"), 1, path)),
    "checkpoint": ("x.pth", lambda path: _read(path, False)),
    "safetensors": ("x.safetensors", lambda path: _read(path, False)),
    "weights of a detector": ("x.safetensors", lambda path: read_trained(path, "maskrcnn")),
    "checkpoint of a training": ("x.pt", read_checkpoint),
    "folder of a training": (FILE, lambda path: open_folder(path.parent)),
    "recipe": ("x.yaml", lambda path: load_recipe(str(path))),
    "COCO": ("annotations/instances_val.json", lambda path: read_coco(path.parent.parent, "val")),
    "noise floor": (floor_path("", "abc").name, lambda path: read_floor(path.parent, "abc")),
    "attachment": (
        "r.files/x.npz",
        lambda path: read_attachment(
            type("Run", (), {"path": path.parent.with_name("r.jsonl")}),  # type: ignore[arg-type]
            Attachment(name="x.npz", sha256="0" * 64, bytes=1),
        ),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", FUNCTIONS)
def test_functions(tmp_path: Path, what: str, kind: str) -> None:
    name, read = FUNCTIONS[what]
    path = make(kind, tmp_path / name)
    with pytest.raises(UserError, match=f"{WORDS[kind]}|no regular file"):
        read(path)


@pytest.mark.parametrize("kind", ["fifo", "endless"])
def test_what_has_no_limit_is_a_regular_file_all_the_same(tmp_path: Path, kind: str) -> None:
    path = make(kind, tmp_path / "x")
    with pytest.raises(UserError, match=WORDS[kind]):
        identify(path)
    answers = Answers(path)
    assert not answers.some
    with pytest.raises(StoreError, match=WORDS[kind]):
        answers.open(3)


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_of_a_data_set_is_unreadable_by_name(tmp_path: Path, kind: str) -> None:
    make(kind, tmp_path / "data" / "a" / "bad.png")
    images = _images(tmp_path / "data")
    assert WORDS[kind] in str(ImageTensors(images, lambda image: image)[0][1])  # type: ignore[arg-type, return-value]
    make(kind, tmp_path / "images" / "val" / "x.png")
    Image.new("L", (9, 9)).save(make_folder(tmp_path / "annotations" / "val") / "x.png")
    with pytest.raises(UserError, match=WORDS[kind]):
        read_ade(tmp_path, "val", 3).image(0)


def test_a_strange_entry_among_the_runs_hides_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "results", [record("vheat-t", 224, 0.1)])
    make("fifo", tmp_path / "results" / "20990101T000000Z-x.jsonl")
    make("endless", tmp_path / "results" / "20990101T000000Z-y.jsonl")
    for words in (["show", "aaaa0001"], ["report", "latest"], ["export", "--format", "csv"]):
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, done.exception
    add_to_history("results", [])
