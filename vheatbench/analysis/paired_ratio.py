"""The ratio of two subjects that took turns: from the i-th turns of both, which stood side by side in time.

What the machine does to both of them (other work, clocks, heat) cancels within a turn. A round, which is one process of
each, is condensed into one log ratio, because processes differ by themselves (memory layout); the interval comes from
the rounds. Single rounds have one too, from their turns, which knows nothing of the spread between processes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

from vheatbench.analysis.signed_rank import hodges_lehmann, signed_rank_interval
from vheatbench.stats import CONFIDENCE, Interval, median, median_interval
from vheatbench.store.schema import Record

POWERS = {"latency_s": 1, "throughput_images_per_s": -1}
"""Metrics of the samples that turns give, and the power of the latency that they go with."""
MIN_ROUNDS = 6
"""Rounds from which on their signed-rank interval can cover 95 %."""


class Paired(NamedTuple):
    """The ratio of two subjects."""

    log: Interval
    """Of the natural logarithm of the ratio."""
    rounds: int

    @property
    def ratio(self) -> Interval:
        """The ratio itself."""
        value, low, high, confidence = self.log
        return Interval(math.exp(value), math.exp(low), math.exp(high), confidence)

    @property
    def half_width(self) -> float:
        """Half the width of the interval of the logarithm: 0.02 is about 2 %."""
        return (self.log.high - self.log.low) / 2


def turn_log_ratios(a: Record, b: Record) -> list[float]:
    """Per turn the logarithm of the latency of ``b`` over that of ``a``, each the median of its samples in that turn.

    Empty where the two took no turns with each other.
    """
    if a.session is None or a.session != b.session:
        return []
    return [math.log(y / x) for x, y in zip(_turns(a), _turns(b), strict=False) if x > 0 and y > 0]


def _turns(record: Record) -> list[float]:
    samples = record.samples.get("latency_s")
    if samples is None or record.status != "ok":
        return []
    ends = accumulate(samples.turns, initial=0)
    return [median(samples.values[start:end]) for start, end in pairwise(ends)]


def round_log_ratio(a: Record, b: Record, metric: str = "latency_s") -> float | None:
    """The logarithm of ``b`` over ``a`` of one round: the median of its turns. None where they took none."""
    ratios = turn_log_ratios(a, b) if metric in POWERS else []
    return POWERS[metric] * median(ratios) if ratios else None


def paired_ratio(
    a: Sequence[Record], b: Sequence[Record], metric: str = "latency_s", confidence: float = CONFIDENCE
) -> Paired | None:
    """The ratio of a metric of ``b`` over that of ``a``, from all rounds in which they took turns; None without any.

    - 6 rounds and more: Hodges and Lehmann's estimate from the rounds with its exact signed-rank interval;
    - one round: the median of its turns with the order-statistic interval, ``confidence`` in the result says of what
      coverage;
    - 2 to 5 rounds: the hull of the rounds' intervals. It holds the range of the rounds, which covers their median with
      1 - 2^(1 - rounds), so that no more is claimed.
    """
    if metric not in POWERS:
        return None
    sessions = {record.session: record for record in a if record.session is not None}
    rounds = [turn_log_ratios(sessions[record.session], record) for record in b if record.session in sessions]
    rounds = [[POWERS[metric] * ratio for ratio in ratios] for ratios in rounds if ratios]
    if not rounds:
        return None
    values = [median(ratios) for ratios in rounds]
    if len(values) >= MIN_ROUNDS:
        low, high = signed_rank_interval(values, confidence)
        if math.isfinite(low):
            return Paired(Interval(hodges_lehmann(values), low, high, confidence), len(values))
    own = [median_interval(ratios, confidence) for ratios in rounds]
    covered = min(interval.confidence for interval in own)
    if len(values) > 1:
        covered = min(covered, 1 - 2.0 ** (1 - len(values)))
    hull = Interval(median(values), min(one.low for one in own), max(one.high for one in own), covered)
    return Paired(hull, len(values))
