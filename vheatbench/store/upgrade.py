"""Older run files, one schema version at a time up to the current one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vheatbench.errors import UserError
from vheatbench.store.schema import SCHEMA_VERSION

UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""From a schema version to the function that turns one of its lines into a line of the next version."""


def check_version(version: Any, name: str) -> int:
    """The schema version of the file ``name``, if this vheatbench can read it.

    Raises UserError for a newer version, for one without upgrades, and for what is no version at all.
    """
    if not isinstance(version, int) or isinstance(version, bool):
        raise UserError(f"{name} is not a run file of vheatbench: its header has no schema version")
    if version > SCHEMA_VERSION:
        raise UserError(
            f"{name} was written by a newer vheatbench (schema {version}, this one reads up to "
            f"{SCHEMA_VERSION}): upgrade vheatbench"
        )
    if any(step not in UPGRADES for step in range(version, SCHEMA_VERSION)):
        raise UserError(f"{name} has schema {version}, too old for this vheatbench: use an older one")
    return version


def upgrade(line: dict[str, Any], version: int) -> dict[str, Any]:
    """``line``, written with schema ``version``, as the current schema would have written it.

    A version that ``check_version`` refuses is a KeyError here; a damaged line raises whatever its
    upgrade stumbles over.
    """
    for step in range(version, SCHEMA_VERSION):
        line = UPGRADES[step](line)
    if line.get("line") == "header":
        line = {**line, "schema_version": SCHEMA_VERSION}
    return line
