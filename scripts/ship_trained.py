"""Take the first seed's weights of a training into the package: float16, with what they are in the file.

    python scripts/ship_trained.py TRAINING...

TRAINING is the folder of checkpoints of a finished ``vheatbench train``. Only models that
:data:`vheatbench.subjects.micro.SHIPPED` names are taken.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from vheatbench.store import Record, read_run
from vheatbench.studies.training.folder import open_folder
from vheatbench.studies.training.train import finished_run
from vheatbench.subjects.micro import SHIPPED, TRAINED


def main(training: Path) -> None:
    """Write the files that are shipped, and print their sizes."""
    folder = open_folder(training)
    recipe, path = folder.recipe, finished_run(folder)
    if path is None:
        raise SystemExit(f"{training}: not trained to its end: vheatbench train --resume {training}")
    for record in read_run(path).records:
        name = f"{record.case.subject.replace('-', '_')}.{recipe.data}"
        if name not in SHIPPED or record.case.analysis["seed"] != recipe.seed or record.status != "ok":
            continue
        label = str(record.conditions["name"])
        source = training / (f"{label}-seed{recipe.seed}" if recipe.seeds > 1 else label) / "weights.safetensors"
        target = TRAINED / f"{name}.safetensors"
        TRAINED.mkdir(exist_ok=True)
        weights = {key: value.to(torch.float16) for key, value in load_file(source).items()}
        save_file(weights, target, about(record, source) | {"data": recipe.data, "license": "Apache-2.0"})
        target.chmod(0o644)  # safetensors writes for its user alone
        print(f"{target}: {target.stat().st_size / 1e6:.2f} MB")


def about(record: Record, source: Path) -> dict[str, str]:
    """What the training wrote into its file, and how right its answers are."""
    with safe_open(source, "pt") as opened:
        written = dict(opened.metadata() or {})
    return written | {"top1_accuracy": f"{record.metrics['top1_accuracy'].value}", "format": "pt"}


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    for word in sys.argv[1:]:
        main(Path(word))
