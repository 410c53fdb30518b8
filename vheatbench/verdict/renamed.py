"""Cases that are missing on one side and new on the other, but probably the same."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from vheatbench.case import Case
from vheatbench.verdict.paired import Side

ALIKE = 0.6
"""Similarity of two names (difflib's ratio) from which on one may be the other's new form."""
COUNTED = ("macs", "params")
NEARLY = 0.01
"""Relative difference of those counts up to which two names may be those of one model."""


def renamed(missing: Sequence[Case], new: Sequence[Case], base: Side, head: Side) -> list[tuple[Case, Case]]:
    """Pairs of old and new cases that differ in the subject's name or in its options and in nothing else.

    Of several candidates the one with the same multiply-adds and parameters is taken, else the one with the most
    similar name, unless those counts tell that it is another model. Every case is paired once.
    """
    left = list(new)
    found = []
    for old in missing:
        scored = [(_score(old, other, base, head), other) for other in left if _differ_in_name(old, other)]
        best = max(scored, key=lambda entry: entry[0], default=None)
        if best is not None and best[0] >= ALIKE:
            found.append((old, best[1]))
            left.remove(best[1])
    return found


def _differ_in_name(old: Case, new: Case) -> bool:
    def rest(case: Case, *without: str) -> dict[str, object]:
        return case.model_dump(exclude=set(without))

    return rest(old, "subject") == rest(new, "subject") or rest(old, "options") == rest(new, "options")


def _score(old: Case, new: Case, base: Side, head: Side) -> float:
    if old.subject == new.subject:
        return 1.5  # only the options differ
    counts, others = _counts(base, old), _counts(head, new)
    if len(counts) == len(others) and any(abs(a - b) > NEARLY * abs(a) for a, b in zip(counts, others, strict=True)):
        return 0.0
    same = 1.0 if counts and counts == others else 0.0
    return same + difflib.SequenceMatcher(None, old.subject, new.subject).ratio()


def _counts(side: Side, case: Case) -> list[float]:
    metrics = next(iter(side[case.id].values())).metrics
    values = [metrics[name].value for name in COUNTED if name in metrics]
    return [value for value in values if value is not None]
