"""The folder of a training: what it was begun with, and one folder of checkpoint, losses and weights per model."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from vheatbench.errors import UserError
from vheatbench.files import MIB, read_text
from vheatbench.run.checkpointing import write_whole
from vheatbench.studies.training.recipe import Recipe
from vheatbench.text import one_line

TRAININGS = Path("trainings")
"""Where folders are made that no ``--out`` names."""
FILE = "training.json"


@dataclass(frozen=True)
class TrainingFolder:
    """A training that was begun."""

    path: Path
    recipe: Recipe
    data: str | None
    """The folder of images, as it was typed."""
    fingerprint: str
    """Of both parts of the data."""
    run: Path
    """The run file, its name that of the unfinished run."""

    def save(self) -> None:
        """Write what is known, in place of what was. Raises StoreError."""
        content = {
            "version": 1,
            "recipe": self.recipe.model_dump(mode="json"),
            "data": self.data,
            "fingerprint": self.fingerprint,
            "run": str(self.run),
        }
        text = json.dumps(content, indent=1).encode()
        write_whole(self.path / FILE, lambda file: file.write(text), "nothing is trained yet")

    def check(self, recipe: Recipe) -> None:
        """Raises UserError where the training was begun with another recipe, saying how they differ."""
        found = recipe.differences(self.recipe)
        if found:
            raise UserError(
                f"{self.path}: was begun with another recipe ({'; '.join(found[:3])}"
                f"{f'; {len(found) - 3} more' if len(found) > 3 else ''}): begin a new training, or leave "
                "--config and --override out to continue with its own"
            )

    def check_data(self, typed: str | None, fingerprint: str) -> None:
        """Raises UserError where other images than those of the training were typed; the same folder may change."""
        if typed not in (None, self.data) and fingerprint != self.fingerprint:
            raise UserError(
                f"--data {typed}: not the images that the training in {self.path} was begun with ({self.data}): leave "
                "--data out, or begin a new training"
            )


def open_folder(path: Path) -> TrainingFolder:
    """The training in a folder. Raises UserError where there is none or it cannot be read."""
    try:
        content: dict[str, Any] = json.loads(read_text(path / FILE, MIB))
        recipe = Recipe.model_validate(content["recipe"])
        return TrainingFolder(path, recipe, content["data"], content["fingerprint"], Path(content["run"]))
    except FileNotFoundError:
        raise UserError(f"--resume {path}: no training in it ({FILE} is not there)") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise UserError(f"{path / FILE}: not a recipe of this vheatbench ({first['loc']}: {first['msg']})") from None
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(f"{path / FILE}: cannot be read ({one_line(str(error))})") from None


def find_training(recipe: Recipe, out: Path | None, data: str | None) -> Path | None:
    """What ``--resume auto`` goes on with: ``out`` if a training is in it; without ``out`` the newest that was begun
    with this recipe, and with these images if ``data`` names some. None where there is none."""
    if out is not None:
        return out if (out / FILE).exists() else None
    found = sorted(TRAININGS.glob(f"*/{FILE}"), key=lambda path: path.stat().st_mtime, reverse=True)
    return next((path.parent for path in found if _same(path.parent, recipe, data)), None)


def new_folder(recipe: Recipe) -> Path:
    """A folder for a training, that is not there yet."""
    return TRAININGS / f"{recipe.name}-{secrets.token_hex(4)}"


def _same(path: Path, recipe: Recipe, data: str | None) -> bool:
    try:
        folder = open_folder(path)
    except UserError:
        return False
    return not recipe.differences(folder.recipe) and data in (None, folder.data)
