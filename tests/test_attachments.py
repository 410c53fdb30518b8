"""Files beside a run: written whole, read back unchanged, refused when changed or left behind."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from records import record, run_of

from vheatbench.errors import StoreError, UserError
from vheatbench.store.attachments import attach, copy_attachments, folder_of, read_attachment
from vheatbench.store.read import Run, read_run
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
    run = finished(tmp_path)
    other = tmp_path / "elsewhere" / "y.jsonl"
    copy_attachments(run, other)
    assert (folder_of(other) / run.records[0].files["map"].name).read_bytes() == b"map"
