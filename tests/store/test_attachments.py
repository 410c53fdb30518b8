"""Files beside a run: written whole, read back unchanged, refused when changed or left behind."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.records import record, run_of
from vheatbench.errors import StoreError, UserError
from vheatbench.store.attachments import attach, copy_attachments, folder_of, read_attachment
from vheatbench.store.merge import write_merged
from vheatbench.store.read import Run, list_runs, read_run
from vheatbench.store.write import RunWriter


def finished(folder: Path, content: bytes = b"map") -> Run:
    kept = record("vheat-t", 224, 0.1)
    with RunWriter.create(folder, run_of([kept]).header) as writer:
        kept.files["map"] = attach(writer.path, "a b/../c.npz", content)
        writer.append(kept)
        return read_run(writer.finish())


def test_the_folder_stays_when_the_run_is_finished(tmp_path: Path) -> None:
    assert folder_of(tmp_path / "x.jsonl.partial") == folder_of(tmp_path / "x.jsonl") == tmp_path / "x.files"
    run = finished(tmp_path)
    found = run.records[0].files["map"]
    assert found.bytes == 3
    assert read_attachment(run, found) == b"map"
    assert [path.parent for path in tmp_path.rglob("*.npz")] == [folder_of(run.path)], "no name leaves the folder"


def test_a_changed_or_missing_file_is_named(tmp_path: Path) -> None:
    run = finished(tmp_path)
    found = run.records[0].files["map"]
    (folder_of(run.path) / found.name).write_bytes(b"pam")
    with pytest.raises(UserError, match="changed after the run was measured"):
        read_attachment(run, found)
    shutil.rmtree(folder_of(run.path))
    with pytest.raises(UserError, match=r"copy the folder .*\.files together with"):
        read_attachment(run, found)


def test_a_record_cannot_point_out_of_the_folder(tmp_path: Path) -> None:
    run = finished(tmp_path)
    (tmp_path / "secret").write_bytes(b"map")
    found = run.records[0].files["map"].model_copy(update={"name": "../secret"})
    with pytest.raises(UserError, match="cannot be read"):
        read_attachment(run, found)


def test_what_cannot_be_written_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "x.files").write_text("a file where the folder should be")
    with pytest.raises(StoreError, match="cannot write"):
        attach(tmp_path / "x.jsonl", "map", b"")


def test_copies(tmp_path: Path) -> None:
    run, other = finished(tmp_path / "a"), finished(tmp_path / "b", b"another map")
    target = tmp_path / "elsewhere" / "y.jsonl"
    first, second, again = (copy_attachments(one, one.records[0], target)["map"] for one in (run, other, run))
    assert first == again == run.records[0].files["map"]
    assert second.name != first.name
    contents = {path.name: path.read_bytes() for path in folder_of(target).iterdir()}
    assert contents == {first.name: b"map", second.name: b"another map"}


# Merging


def a_part(folder: Path, size: int, content: bytes) -> Run:
    """One of two runs of a suite whose records have files of the same name."""
    kept = record("vheat-t", size, 0.1)
    with RunWriter.create(folder, run_of([kept]).header.model_copy(update={"run_id": f"part{size}"})) as writer:
        kept.files["image"] = attach(writer.path, "image.png", content)
        writer.append(kept)
        return read_run(writer.finish())


def test_a_merged_run_has_the_files_of_its_records(tmp_path: Path) -> None:
    parts = [a_part(tmp_path / "parts", 224, b"one"), a_part(tmp_path / "parts", 448, b"two")]
    run = read_run(write_merged(parts, tmp_path / "merged"))
    assert not run.problems
    found = {one.case.resolution[0]: read_attachment(run, one.files["image"]) for one in run.records}
    assert found == {224: b"one", 448: b"two"}
    assert len(list(folder_of(run.path).iterdir())) == 2
    once_more = read_run(write_merged([run], tmp_path / "again"))
    assert [one.files for one in once_more.records] == [one.files for one in run.records]


@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.write_bytes(b"eno")])
def test_runs_whose_files_are_missing_or_changed_are_not_merged(tmp_path: Path, spoil: Callable[[Path], Any]) -> None:
    parts = [a_part(tmp_path / "parts", 224, b"one"), a_part(tmp_path / "parts", 448, b"two")]
    spoil(folder_of(parts[1].path) / "image.png")
    with pytest.raises(UserError, match=r"image\.png"):
        write_merged(parts, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_a_merge_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [a_part(tmp_path / "parts", 224, b"one"), a_part(tmp_path / "parts", 448, b"two")]

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(RunWriter, "finish", lambda writer: os.link("nothing", "nowhere"))
    with pytest.raises(FileNotFoundError):
        write_merged(parts, tmp_path / "merged")
    assert list((tmp_path / "merged").iterdir()) == []
    monkeypatch.undo()
    real = os.write

    def rare(fd: int, data: bytes) -> int:
        return full() or 0 if b"448" in bytes(data) and b'"record"' in bytes(data) else real(fd, data)

    monkeypatch.setattr(os, "write", rare)
    with pytest.raises(StoreError, match=r"cannot write the merged run .*No space left on device; merge again$"):
        write_merged(parts, tmp_path / "merged")
    assert list((tmp_path / "merged").iterdir()) == []


def test_an_empty_merge_does_not_become_the_latest(tmp_path: Path) -> None:
    run = finished(tmp_path)
    with RunWriter.create(tmp_path, run.header.model_copy(update={"run_id": "empty"})) as writer:
        empty = read_run(writer.finish())
    with pytest.raises(UserError, match="nothing to merge"):
        write_merged([empty, empty], tmp_path)
    assert len(list_runs(tmp_path)) == 2
