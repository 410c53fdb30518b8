"""The ratios that a page gives of groups of cases that took turns: of every subject to the one in question."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from vheatbench.analysis.groups import groups_of, pairs_of
from vheatbench.analysis.paired_ratio import Paired, paired_ratio
from vheatbench.store.schema import Record

NEAR = 0.05
"""Log ratio below which the winner is what a reader wants to know, not by how much."""


class FocusRatio(NamedTuple):
    """How many times the latency of the subject in question another one has."""

    focus: str
    paired: Paired


def ratios_of(records: Sequence[Record]) -> dict[str, FocusRatio]:
    """By case id, for the cases that took turns with the subject that they are compared with.

    Of several subjects in question that a case is compared with, the first counts.
    """
    found: dict[str, FocusRatio] = {}
    for group in groups_of(records):
        by_case: dict[tuple[str, tuple[int, int]], list[Record]] = {}
        for record in group.records:
            by_case.setdefault((record.case.subject, record.case.resolution), []).append(record)
        for pair in pairs_of(group):
            for (subject, size), own in by_case.items():
                if subject == pair.baseline and own[0].case_id not in found:
                    paired = paired_ratio(by_case.get((pair.focus, size), []), own)
                    if paired is not None:
                        found[own[0].case_id] = FocusRatio(pair.focus, paired)
    return found


def uncertainty(records: Sequence[Record]) -> float:
    """How badly the ratios of a group are known: the widest interval, relative to its ratio; -1 where there are none.

    Args:
        records: all rounds of the cases at one point of the axes.
    """
    ratios = (found.paired for found in ratios_of(records).values())
    return max((paired.half_width / max(NEAR, abs(paired.log.value)) for paired in ratios), default=-1.0)
