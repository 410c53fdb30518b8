"""How alike the machines of a run are: what all of them measured (the ceilings, one group of cases) side by side.

A ratio of two cases that were measured together on one machine holds on the next one; their times do not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vheatbench.stats import median
from vheatbench.store.machine import machine_of
from vheatbench.store.read import Run
from vheatbench.store.schema import Machine

LEAST = math.log(1.05)
"""Logarithm of a ratio to the middle of all machines up to which a machine is like them: rounds differ by that."""
DEVIATIONS = 3.0
"""Robust standard deviations of the machines that one may be off."""
MAD_TO_SIGMA = 1.4826
FEWEST = 3
"""Machines of which one can be told to be the odd one."""


@dataclass(frozen=True)
class Standing:
    """One machine among the others."""

    machine: Machine
    slowdown: float | None
    """What a common case takes there over what it takes in the middle of all machines; None where none was measured."""
    outlying: bool


@dataclass(frozen=True)
class Spread:
    """The machines of a run."""

    standings: list[Standing]
    spread: float | None
    """By how much the slowest takes longer than the quickest, as a share; None for fewer than two known ones."""
    cases: int
    """What it is known from."""

    @property
    def outlying(self) -> list[Standing]:
        return [one for one in self.standings if one.outlying]


def machines_of(runs: Iterable[Run]) -> list[Machine]:
    """The machines that shards were measured on, by name, with the times of what all of them measured."""
    found: dict[tuple[str, str], Machine] = {}
    for run in runs:
        common = set(run.header.common)
        gpus = run.header.environment.get("gpus") or [{}]
        for record in run.records:
            node, gpu = key = machine_of(record)
            if not node:
                continue
            machine = found.get(key)
            if machine is None:
                name = str(gpus[0].get("name", "")) if record.case.device == "cuda" else ""
                machine = found[key] = Machine(node=node, gpu=gpu, gpu_name=name)
            machine.records += 1
            latency = record.metrics.get("latency_s")
            if record.case_id in common and record.status == "ok" and latency is not None and latency.value:
                machine.common.setdefault(record.case_id, []).append(latency.value)
    return [found[key] for key in sorted(found)]


def spread_of(machines: Sequence[Machine]) -> Spread:
    """How far apart the machines are, and which of them is unlike the others."""
    cases = sorted({id_ for machine in machines for id_ in machine.common})
    middle = {
        id_: median([math.log(median(one.common[id_])) for one in machines if id_ in one.common]) for id_ in cases
    }
    logs = [
        median([math.log(median(values)) - middle[id_] for id_, values in one.common.items()]) if one.common else None
        for one in machines
    ]
    known = [value for value in logs if value is not None]
    centre = median(known) if known else 0.0
    sigma = MAD_TO_SIGMA * median([abs(value - centre) for value in known]) if known else 0.0
    limit = max(LEAST, DEVIATIONS * sigma)
    standings = [
        Standing(
            one,
            math.exp(value) if value is not None else None,
            value is not None and len(known) >= FEWEST and abs(value - centre) > limit,
        )
        for one, value in zip(machines, logs, strict=True)
    ]
    spread = math.exp(max(known) - min(known)) - 1 if len(known) > 1 else None
    return Spread(standings, spread, len(cases))


def marks_of(machines: Sequence[Machine]) -> dict[tuple[str, str], str]:
    """What is to be said of every record of an outlying machine, by the machine."""
    return {
        (one.machine.node, one.machine.gpu): (
            f"measured on {name_of(one.machine)}, where what all machines measured takes {one.slowdown:.2f} times what "
            "it takes in their middle: ratios of cases stand, absolute figures do not compare"
        )
        for one in spread_of(machines).outlying
    }


def name_of(machine: Machine) -> str:
    """A machine in words: ``node3, GPU-1a2b3c4d``."""
    return f"{machine.node}, {machine.gpu[:12]}" if machine.gpu else machine.node
