"""Beginning a run: the header of its file."""

from __future__ import annotations

import secrets
from typing import Any

from vheatbench.store.schema import Header
from vheatbench.text import utc_now


def new_header(suite: str, description: str, command: str, environment: dict[str, Any], **more: Any) -> Header:
    """The header of a run that begins now, under an id of its own.

    Args:
        suite: its name; it is in the file's name too.
        description: one line for people.
        command: the command line that makes the run.
        environment: see :func:`vheatbench.measure.environment.environment`.
        more: further fields of :class:`vheatbench.store.schema.Header`.
    """
    return Header(
        run_id=secrets.token_hex(4),
        suite=suite,
        description=" ".join(description.split()),
        command=command,
        created=utc_now(),
        environment=environment,
        **more,
    )
