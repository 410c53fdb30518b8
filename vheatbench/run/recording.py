"""What goes into a run's file: its header, and the records of what was measured or could not be."""

from __future__ import annotations

import secrets
from typing import Any

from vheatbench.case import Case
from vheatbench.run.whereabouts import whereabouts
from vheatbench.store.schema import Header, Record, Status
from vheatbench.store.write import RunWriter
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


def failure(case: Case, round_: int, started: str, status: Status, reason: str, elapsed_s: float) -> Record:
    """The record of a case that could not be measured."""
    return Record(
        case=case, case_id=case.id, round=round_, status=status, reason=reason, started=started, elapsed_s=elapsed_s
    )


def keep(writer: RunWriter, record: Record) -> Record:
    """Append a record with where it was measured, and return it as it was kept.

    One that cannot be stored (NaN, say) is a failed case.
    """
    record.conditions |= whereabouts()
    try:
        writer.append(record)
    except ValueError as error:
        record = failure(record.case, record.round, record.started, "failed", str(error), record.elapsed_s)
        record.conditions |= whereabouts()
        writer.append(record)
    return record
