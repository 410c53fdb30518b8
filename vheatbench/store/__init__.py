"""Runs on disk: one immutable JSONL file each. Imports neither torch nor timm; pandas only to export."""

from vheatbench.errors import StoreError
from vheatbench.store.export import to_frame, write_csv, write_parquet
from vheatbench.store.merge import Merged, merge_runs, write_merged
from vheatbench.store.read import Run, find_run, list_runs, read_run
from vheatbench.store.schema import SCHEMA_VERSION, Footer, Header, Metric, Record, Samples
from vheatbench.store.write import RunWriter, run_file_name

__all__ = [
    "SCHEMA_VERSION",
    "Footer",
    "Header",
    "Merged",
    "Metric",
    "Record",
    "Run",
    "RunWriter",
    "Samples",
    "StoreError",
    "find_run",
    "list_runs",
    "merge_runs",
    "read_run",
    "run_file_name",
    "to_frame",
    "write_csv",
    "write_merged",
    "write_parquet",
]
