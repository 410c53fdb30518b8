"""Where the rounds of a run share the models that they have exported. Without torch: the runner asks."""

from __future__ import annotations

import shutil
from pathlib import Path


def exports_folder(run_path: str | Path) -> Path:
    """``x.exports`` beside ``x.jsonl.partial``. Files in it are named by their content, so that none is ever stale."""
    path = Path(run_path)
    return path.with_name(path.name.split(".jsonl")[0] + ".exports")


def remove_exports(run_path: str | Path) -> None:
    """Remove a finished run's exported models, which are as large as its weights. What cannot be removed stays."""
    shutil.rmtree(exports_folder(run_path), ignore_errors=True)
