"""What identical code compared with itself would give, many times over, from rounds that were measured once.

Under the null hypothesis the two sides of a round may change names, and any rounds may stand for the others: that makes
thousands of comparisons out of twenty rounds. They are not independent, so the rates are rough.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from vheatbench.analysis.paired_ratio import round_log_ratio
from vheatbench.analysis.signed_rank import Floats, hodges_lehmann
from vheatbench.metrics import info_of
from vheatbench.store.per_image import compared, compared_name
from vheatbench.store.schema import Record
from vheatbench.verdict.judge import round_value
from vheatbench.verdict.noise_floor import Floor
from vheatbench.verdict.rule import gate
from vheatbench.verdict.settings import Location

ALARMS = 0.01
"""Share of null comparisons whose estimate may lie beyond the floor."""


def log_ratios(base: Sequence[Record], head: Sequence[Record], metric: str, location: Location = "p25") -> list[float]:
    """Log(head / base) of a metric, as it is compared, in the rounds of one case that both sides have; may be empty."""
    sides = [
        {r.round: r for r in map(compared, records) if _has(r, compared_name(r.case, metric))}
        for records in (base, head)
    ]
    found = []
    for number in sorted(sides[0].keys() & sides[1].keys()):
        name = compared_name(sides[0][number].case, metric)
        in_turns = round_log_ratio(sides[0][number], sides[1][number], name)
        if in_turns is not None:
            found.append(in_turns)
            continue
        values = [round_value(side[number], name, location, False) + info_of(name).allowance for side in sides]
        if all(math.isfinite(value) and value > 0 for value in values):
            found.append(math.log(values[1] / values[0]))
    return found


def regrouped(log_ratios: Sequence[float], rounds: int, count: int, seed: int = 0) -> Floats:
    """Log ratios of ``count`` null comparisons of ``rounds`` rounds each, shape (count, rounds).

    Each takes different rounds at random and changes the names of the sides at random.

    Raises:
        ValueError: fewer than ``rounds`` log ratios.
    """
    d = np.asarray(log_ratios, dtype=float)
    if len(d) < rounds:
        raise ValueError(f"{len(d)} rounds cannot be regrouped into comparisons of {rounds}")
    generator = np.random.default_rng(seed)
    chosen = np.argsort(generator.random((count, len(d))), axis=1)[:, :rounds]
    signs = generator.choice([-1.0, 1.0], size=(count, rounds))
    found: Floats = d[chosen] * signs
    return found


def floor_of(
    cases: Sequence[Sequence[float]], rounds: int, confidence: float, count: int = 2000, seed: int = 0
) -> Floor:
    """The noise floor of a metric: the largest one of its cases.

    A case's floor is the smallest margin that the estimate of 99 % of its null comparisons stays within, worse or
    better. The gate asks more than that (a whole interval beyond the margin), so its false alarms at the floor are
    fewer; they are counted.

    Args:
        cases: per case the log ratios of its rounds, head over base, of identical code.
        rounds: of each comparison.
        confidence: of the gate's interval.
        count: null comparisons per case.
        seed: of the regrouping.

    Raises:
        ValueError: no cases, or fewer rounds than are compared.
    """
    if not cases:
        raise ValueError("a noise floor of no cases")
    null = [regrouped(case, rounds, count, seed) for case in cases]
    margin = max(_floor(comparisons) for comparisons in null)
    alarms = sum(gate(d, margin, confidence).verdict == "regressed" for comparisons in null for d in comparisons)
    return Floor(margin=margin, false_alarms=alarms / (count * len(null)), comparisons=count * len(null))


def _floor(comparisons: Floats) -> float:
    estimates = np.sort([abs(hodges_lehmann(d)) for d in comparisons])
    # the smallest value that at most 1 % of the estimates are beyond
    return math.expm1(float(estimates[math.ceil((1 - ALARMS) * len(estimates)) - 1]))


def _has(record: Record, metric: str) -> bool:
    return record.status == "ok" and metric in record.metrics and record.metrics[metric].value is not None
