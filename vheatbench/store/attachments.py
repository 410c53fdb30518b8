"""Files that belong to a run: arrays and pictures in a folder beside its run file."""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from vheatbench.errors import StoreError, UserError
from vheatbench.files import GIB, read_bytes, reason_of, whole_file
from vheatbench.store.read import Run
from vheatbench.store.schema import Attachment, Record

if TYPE_CHECKING:
    import numpy.typing as npt

Found = TypeVar("Found")

MOST_BYTES = 2 * GIB
"""Of one attachment."""


def folder_of(run_path: str | Path) -> Path:
    """The run's folder of attachments: ``x.files`` beside ``x.jsonl`` and ``x.jsonl.partial``."""
    path = Path(run_path)
    return path.with_name(path.name.split(".jsonl")[0] + ".files")


def attach(run_path: str | Path, name: str, data: bytes) -> Attachment:
    """Write a file into the run's folder and return what a record keeps of it.

    Args:
        run_path: the run file, finished or not.
        name: letters, digits, ``-``, ``_`` and ``.`` stay, everything else becomes ``-``.
        data: content.

    Raises:
        StoreError: it cannot be written.
    """
    folder = folder_of(run_path)
    name = _plain(name)
    target = folder / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with whole_file(target) as file:
            file.write(data)
    except OSError as error:
        raise StoreError(f"cannot write {target}: {reason_of(error)}") from error
    return Attachment(name=name, sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))


def read_attachment(run: Run, attachment: Attachment) -> bytes:
    """The content of an attachment.

    Raises:
        UserError: the folder was not copied along with the run file, or the file has changed.
    """
    path = folder_of(run.path) / Path(attachment.name).name
    try:
        data = read_bytes(path, MOST_BYTES)
    except OSError as error:
        together = f"copy the folder {path.parent.name} together with {run.path.name}"
        raise UserError(f"{path}: cannot be read ({reason_of(error)}); {together}") from None
    if hashlib.sha256(data).hexdigest() != attachment.sha256:
        raise UserError(f"{path}: changed after the run was measured (its SHA-256 is not the record's)")
    return data


def npz_of(**arrays: npt.NDArray[Any]) -> bytes:
    """Arrays by name as the content of an attachment."""
    import numpy as np

    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def read_npz(data: bytes, name: str) -> dict[str, npt.NDArray[Any]]:
    """The arrays of :func:`npz_of`; ``name`` is for the message of a UserError."""
    import numpy as np

    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files}
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise UserError(f"{name}: not the arrays of a record ({type(error).__name__})") from None


def read_results(
    run: Run, belongs: Callable[[Record], bool], read: Callable[[Run, Record], Found]
) -> tuple[list[Found], list[str]]:
    """What ``read`` makes of the records that belong, and what is wrong with the others, one line each.

    Records with another status than ``ok`` are neither: the run says why they hold nothing.
    """
    found, problems = [], []
    for record in run.records:
        if record.status != "ok" or not belongs(record):
            continue
        try:
            found.append(read(run, record))
        except UserError as error:
            problems.append(f"{record.case.label}: {error}")
        except (LookupError, TypeError, ValueError) as error:
            problems.append(f"{record.case.label}: the record lacks what it needs: {type(error).__name__} {error}")
    return found, problems


def check_attachments(run: Run, record: Record) -> None:
    """Raises UserError where a file of a record of ``run`` is missing or has changed."""
    for attachment in record.files.values():
        read_attachment(run, attachment)


def copy_attachments(run: Run, record: Record, target: str | Path) -> dict[str, Attachment]:
    """Copy the files of a record of ``run`` to the folder of the run file ``target``.

    Returns:
        What the record keeps of them there: the same, but where another file has the name already, a name with the
        first 12 digits of its content's SHA-256 in front.

    Raises:
        UserError: a file is missing or has changed.
        StoreError: it cannot be written.
    """
    copied = {}
    for what, attachment in record.files.items():
        data = read_attachment(run, attachment)
        name = Path(attachment.name).name
        there = folder_of(target) / _plain(name)
        if there.exists() and read_bytes(there, MOST_BYTES) != data:
            name = f"{attachment.sha256[:12]}-{name}"
        copied[what] = attach(target, name, data)
    return copied


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "-", name).lstrip(".") or "file"
