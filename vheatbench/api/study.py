"""Studies from Python: in a worker process where a name is looked at, here where a live module is."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from vheatbench.api.case import Device
from vheatbench.case import Case
from vheatbench.errors import UserError
from vheatbench.store.read import Run, read_run
from vheatbench.store.schema import Record


@contextlib.contextmanager
def study_of_name(
    study: str, settings: dict[str, Any], suite: str, device: Device, results: str | Path | None
) -> Iterator[Run]:
    """The run of a study in worker processes, as its command makes it; its files are there as long as the block lasts.

    Args:
        study: its name in ``vheatbench.studies``.
        settings: what it is asked for, as JSON.
        suite: name of the run.
        device: to measure on.
        results: folder that keeps the run; None: none does.

    Raises:
        UserError: what was asked for cannot be.
        WorkerError: the model cannot be looked at.
    """
    from vheatbench.cli.execute import How, measure_study

    with _folder(results) as folder:
        try:
            path = measure_study(study, settings, suite, "", How(folder, device, quiet=True))
        except SystemExit:
            raise KeyboardInterrupt from None
        yield checked(read_run(path))


@contextlib.contextmanager
def study_here(
    suite: str, cases: list[Case], measure: Callable[[Path], Iterable[Record]], results: str | Path | None
) -> Iterator[Run]:
    """The run of a study in this process; its files are there as long as the block lasts.

    Args:
        suite: name of the run.
        cases: that it will hold.
        measure: gives their records, of a run file at a path, beside which attachments go.
        results: folder that keeps the run; None: none does.

    Raises:
        UserError: what was asked for cannot be.
    """
    from vheatbench.measure.environment import environment
    from vheatbench.run.recording import keep, new_header
    from vheatbench.store.write import RunWriter

    known = environment() if results is not None else {}
    with _folder(results) as folder:
        with RunWriter.create(folder, new_header(suite, "", f"vheatbench.{suite}(...)", known, plan=cases)) as writer:
            for record in measure(writer.path):
                keep(writer, record)
            path = writer.finish()
        yield checked(read_run(path))


def checked(run: Run) -> Run:
    """The run, of which every record is ``ok``. Raises UserError or RuntimeError with the reason of one that is not."""
    for record in run.records:
        if record.status != "ok":
            kind = UserError if record.status == "skipped" else RuntimeError
            raise kind(f"{record.case.label}: {record.status}: {record.reason}")
    return run


@contextlib.contextmanager
def _folder(results: str | Path | None) -> Iterator[Path]:
    if results is not None:
        yield Path(results)
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)
