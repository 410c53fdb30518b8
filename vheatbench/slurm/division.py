"""Which shard measures what: whole groups, and in every shard the ceilings and one group that shows the machines."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vheatbench.case import Case
from vheatbench.errors import UserError
from vheatbench.run.progress import weight
from vheatbench.run.task import Forecast, Group
from vheatbench.suites import groups_of

SAFETY, EXTRA_S = 3.0, 600.0
"""A forecast is within a factor of 3; the rest is for queues of the file system, imports and ceilings."""
STUDY_GROUP_S = 120.0
"""Of a study's group, which is not foreseen."""
ASSUMED_FLOP_PER_S = 5e12
"""Half of what the slowest GPUs of clusters multiply at, where there is none to ask."""
STARTUP_S, SAMPLING_S, FEWEST_STEPS = 20.0, 20.0, 14
"""Seconds of a case there: to start and build, to warm up and sample; and the steps that a slow one has at least."""


@dataclass(frozen=True)
class Division:
    """Cases by shard."""

    shards: list[list[str]]
    """Ids of the cases, in measuring order."""
    common: list[str]
    """Ids of those that every shard measures."""
    foreseen_s: list[float]
    """Seconds of each shard."""


def divide(
    timed: Sequence[Case], studies: Sequence[Group], forecasts: Mapping[str, Forecast], rounds: int, shards: int
) -> Division:
    """Divide a plan. Groups are dealt out in turn, as ``--shard`` does; ceilings and the reference group go to all.

    Args:
        timed: the timed cases, in measuring order.
        studies: groups of the studies.
        forecasts: of the timed cases, by their id.
        rounds: of the timed cases.
        shards: how many.

    Raises:
        UserError: there are more shards than groups.
    """
    groups = [group for group in groups_of(timed) if group[0].kind != "ceiling"]
    ceilings = [case for case in timed if case.kind == "ceiling"]
    parts = [[case.id for case in group] for group in groups] + [[case.id for case in one.cases] for one in studies]
    if shards > len(parts):
        raise UserError(
            f"--slurm: {shards} shards are more than there are groups: {len(parts)} (what is compared is measured "
            f"together, on one machine); give array={len(parts)} or less"
        )
    reference = min(groups, key=lambda group: _seconds(group, forecasts)) if groups else []
    common = [case.id for case in [*ceilings, *reference]]
    divided = [
        list(dict.fromkeys([*common, *(id_ for part in parts[first::shards] for id_ in part)]))
        for first in range(shards)
    ]
    known = {case.id: case for case in timed}
    group_of = {case.id: len(one.cases) for one in studies for case in one.cases}
    foreseen = [
        sum(
            rounds * seconds_of(known[id_], forecasts) if id_ in known else STUDY_GROUP_S / group_of[id_] for id_ in ids
        )
        for ids in divided
    ]
    return Division(divided, common, foreseen)


def seconds_of(case: Case, forecasts: Mapping[str, Forecast]) -> float:
    """Roughly what a case takes; where the machine that plans has no such device, from its multiply-adds."""
    forecast = forecasts.get(case.id)
    if forecast is not None and forecast.seconds is not None:
        return forecast.seconds
    macs = forecast.macs if forecast is not None and forecast.macs is not None else 0.0
    return STARTUP_S + max(SAMPLING_S, FEWEST_STEPS * 2 * macs / ASSUMED_FLOP_PER_S)


def minutes_for(foreseen_s: Sequence[float], budget_s: float | None = None) -> int:
    """The time to ask Slurm for, so that the longest shard ends in it: three times the forecast and ten minutes."""
    longest = max(foreseen_s)
    seconds = min(SAFETY * longest, 1.1 * budget_s) if budget_s is not None else SAFETY * longest
    return math.ceil((seconds + EXTRA_S) / 60)


def _seconds(group: Sequence[Case], forecasts: Mapping[str, Forecast]) -> tuple[float, float]:
    return sum(seconds_of(case, forecasts) for case in group), sum(map(weight, group))
