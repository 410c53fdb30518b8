"""How much this machine varies on identical code: measured by ``vheatbench ab --aa``, heeded by every comparison.

A JSON file ``noise-floor-<fingerprint>.json`` beside the runs: ``fingerprint`` and ``device``, per metric the
smallest ``margin`` (relative) that identical code stays within and the share of ``false_alarms`` it still raised in
``comparisons``, the number of ``rounds`` of each, and when it was ``created``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vheatbench.analysis.fingerprint import fingerprint
from vheatbench.errors import StoreError, UserError
from vheatbench.files import MIB, read_bytes, reason_of, write_file
from vheatbench.store.read import Run
from vheatbench.text import utc_now


class Floor(BaseModel):
    """Of one metric."""

    model_config = ConfigDict(extra="ignore")

    margin: float = Field(ge=0, allow_inf_nan=False)
    """Relative: 0.034 is 3.4 %. A smaller one raises more false alarms than were asked for."""
    false_alarms: float | None = Field(default=None, ge=0, le=1)
    """Share of the comparisons of identical code that ended ``regressed`` at this margin."""
    comparisons: int | None = None


class NoiseFloor(BaseModel):
    """What identical code compared with itself gave on one kind of machine."""

    model_config = ConfigDict(extra="ignore")

    fingerprint: str
    """:func:`vheatbench.analysis.fingerprint.fingerprint`."""
    device: str = "cpu"
    metrics: dict[str, Floor]
    rounds: int
    """Rounds of each comparison; one of fewer rounds than this has a higher floor."""
    location: str = "p25"
    """Quantile of a round's samples."""
    cases: int | None = None
    created: str = Field(default_factory=utc_now)


def floor_path(results: str | Path, fingerprint: str) -> Path:
    """Where the floor of a kind of machine is kept."""
    return Path(results) / f"noise-floor-{fingerprint}.json"


def write_floor(results: str | Path, floor: NoiseFloor) -> Path:
    """Keep a floor, in place of an older one of the same machine. Raises StoreError if it cannot be written."""
    path = floor_path(results, floor.fingerprint)
    try:
        write_file(path, json.dumps(floor.model_dump(), indent=2) + "\n")
    except UserError as error:  # the folder took run files for hours: it is not what was typed
        raise StoreError(str(error)) from error
    return path


def read_floor(results: str | Path, fingerprint: str) -> NoiseFloor | None:
    """The floor that was measured on this kind of machine, or None.

    Raises:
        UserError: there is a file, and it cannot be read.
    """
    path = floor_path(results, fingerprint)
    try:
        floor = NoiseFloor.model_validate_json(read_bytes(path, MIB))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"cannot read {path}: {reason_of(error)}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise UserError(f"{path}: {where}: {first['msg']}; delete it and run `vheatbench ab --aa` again") from None
    if floor.fingerprint != fingerprint:
        raise UserError(f"{path} is the floor of another machine ({floor.fingerprint}): delete it")
    return floor


def floor_of_runs(runs: Sequence[Run], results: str | Path) -> NoiseFloor | None:
    """The floor of the machine that the first run was made on, if it was measured. Raises UserError as above."""
    if not runs:
        return None
    devices = dict.fromkeys(record.case.device for record in runs[0].records)
    floors = (read_floor(results, fingerprint(runs[0].header.environment, device)) for device in devices)
    return next((floor for floor in floors if floor is not None), None)


def check_margin(floor: NoiseFloor, metric: str, margin: float) -> None:
    """Refuse a margin that identical code does not stay within.

    Raises:
        UserError: with the smallest margin that this machine can tell from nothing.
    """
    known = floor.metrics.get(metric)
    if known is not None and margin < known.margin:
        least = math.ceil(known.margin * 1000) / 10
        raise UserError(
            f"a margin of {margin:.3g} for {metric} is below the noise floor of this machine, measured "
            f"{floor.created}: {known.margin:.3g}; ask for --margin {least:g}% or more"
        )
