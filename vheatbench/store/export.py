"""Runs as tables for other programs. The run file stays the source: samples are not exported."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vheatbench.errors import UserError
from vheatbench.files import write_file
from vheatbench.store.per_image import with_per_image
from vheatbench.store.read import Run
from vheatbench.store.schema import Record

if TYPE_CHECKING:
    import pandas as pd


def to_frame(run: Run) -> pd.DataFrame:
    """One row per record: the case, its status, and for every metric ``name``, ``name_low``, ``name_high``.

    Metrics are in their own units (part of their names), empty where unavailable. ``batch`` is empty where
    ``batch_policy`` is ``largest``; what such a step cost stands there per image as well. ``channels`` and ``part``
    are empty for models, ``compile`` is true for every way of torch.compile. A metric named like a column
    of the case gets ``metric_`` in front.
    """
    import pandas as pd

    frame = pd.DataFrame([_case(run, record) for record in run.records], columns=list(_COLUMNS))
    frame = frame.astype(_COLUMNS)
    columns: dict[str, pd.Series] = {}
    measured = [with_per_image(record).metrics for record in run.records]
    for name in dict.fromkeys(name for found in measured for name in found):
        metrics = [found.get(name) for found in measured]
        title = f"metric_{name}" if name in _COLUMNS else name
        for suffix, field in (("", "value"), ("_low", "low"), ("_high", "high")):
            values = [getattr(metric, field, None) for metric in metrics]
            columns[title + suffix] = pd.Series(values, dtype="float64")
    table: pd.DataFrame = frame.join(pd.DataFrame(columns, index=frame.index))
    return table


def write_csv(run: Run, path: str | Path) -> None:
    """Writes ``to_frame(run)`` as CSV in UTF-8, compressed where the name ends in ``.gz`` or the like.

    Raises UserError or StoreError if ``path`` cannot be written.
    """
    from pandas.io.common import infer_compression

    content = io.BytesIO()
    to_frame(run).to_csv(content, index=False, compression=infer_compression(os.fspath(path), "infer"))
    write_file(path, content.getvalue())


def write_parquet(run: Run, path: str | Path) -> None:
    """Writes ``to_frame(run)`` as Parquet. Raises UserError if there is no pyarrow; UserError or StoreError if
    ``path`` cannot be written."""
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise UserError("Parquet needs pyarrow, which is not installed: pip install pyarrow") from None
    write_file(path, to_frame(run).to_parquet(engine="pyarrow", index=False))


_COLUMNS = {
    "run_id": "str",
    "case_id": "str",
    "round": "int64",
    "subject": "str",
    "height": "int64",
    "width": "int64",
    "batch": "Int64",
    "batch_policy": "str",
    "dtype": "str",
    "mode": "str",
    "device": "str",
    "memory_format": "str",
    "engine": "str",
    "dynamic": "bool",
    "compile": "bool",
    "freezing": "bool",
    "cudagraphs": "bool",
    "fused_attention": "bool",
    "channels": "Int64",
    "part": "str",
    "options": "str",
    "analysis": "str",
    "status": "str",
    "reason": "str",
    "warnings": "str",
    "started": "str",
    "elapsed_s": "float64",
}


def _case(run: Run, record: Record) -> dict[str, Any]:
    case = record.case
    height, width = case.resolution
    largest = case.batch == "largest"
    values = {
        **case.model_dump(),
        **record.model_dump(include={"case_id", "round", "status", "started", "elapsed_s"}),
        "run_id": run.header.run_id,
        "height": height,
        "width": width,
        "batch": None if largest else case.batch,
        "batch_policy": "largest" if largest else "fixed",
        "compile": case.compiled,
        "freezing": case.engine == "compiled-freezing",
        "cudagraphs": case.engine == "compiled-cudagraphs",
        "part": case.part or "",
        "options": json.dumps(case.options, sort_keys=True),
        "analysis": json.dumps(case.analysis, sort_keys=True),
        "reason": record.reason or "",
        "warnings": "; ".join(record.warnings),
    }
    return {name: _text(values[name]) for name in _COLUMNS}


def _text(value: Any) -> Any:
    # Half surrogate pairs, which a run file can hold, have no place in CSV and Parquet.
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value
