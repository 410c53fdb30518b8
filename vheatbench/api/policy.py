"""How long something is measured, and within which limits."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from vheatbench.errors import UserError
from vheatbench.suites import SuitePolicy


def policy_of(**asked: Any) -> SuitePolicy:
    """A policy with what was asked for; None leaves a field at its default. Raises UserError, naming the field."""
    given = {name: value for name, value in asked.items() if value is not None}
    try:
        return SuitePolicy(**given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise UserError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}, not {first['input']!r}") from None
