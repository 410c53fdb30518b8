"""The verdict on every metric of one case, from its rounds on both sides."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from vheatbench import numbers
from vheatbench.analysis.paired_ratio import round_log_ratio
from vheatbench.case import Case
from vheatbench.metrics import info_of, names
from vheatbench.stats import median, quantile
from vheatbench.store.per_image import compared_name, step_name
from vheatbench.store.schema import Metric, Record
from vheatbench.verdict.paired import CaseRounds
from vheatbench.verdict.rule import MIN_ROUNDS, Gate, Verdict, gate, gate_unpaired
from vheatbench.verdict.settings import QUANTILES, Location, Settings

Judgement = Verdict | Literal["changed", "unchanged"]
"""A verdict, or what became of a metric of which neither more nor less is better."""
LARGEST_BATCH = "largest_batch"
"""Judged too: what fitted on the base and does not on the head got worse, whatever the times say."""
BATCH_STEPS = 8
"""The search for the largest batch leaves at most this part of what it found open."""


@dataclass(frozen=True)
class CaseVerdict:
    """What became of one metric of one case."""

    case: Case
    """The head's."""
    metric: str
    """Or ``status``: whether the case could be measured at all."""
    verdict: Judgement
    unit: str = ""
    base: float | None = None
    head: float | None = None
    """In ``unit``: median of the rounds, of an exact metric the worst."""
    gate: Gate | None = None
    """None where a metric is exact or not judged by rounds."""
    in_turns: int = 0
    """Rounds of the gate whose sides took turns; the others are bursts."""
    adjusted_p: float | None = None
    """``gate.p``, adjusted for all cases of the comparison (Holm)."""
    reason: str = ""
    judged: bool = True
    """Whether it counts for the verdict of the whole."""
    higher_is_better: bool = False
    exact: bool = False
    """Whether any change counts."""
    base_case: Case | None = None
    """Where another case is compared with the head's."""

    @property
    def label(self) -> str:
        """The case in words; both cases where they differ."""
        if self.base_case is None or self.base_case.id == self.case.id:
            return self.case.label
        return f"{self.base_case.label} -> {self.case.label}"

    @property
    def open(self) -> bool:
        """Whether a worsening beyond the margin is neither shown nor ruled out."""
        undecided = self.verdict in ("inconclusive", "incomparable")
        return self.judged and undecided and not (self.gate is not None and self.gate.clear)

    @property
    def worsening(self) -> float:
        """The estimate as a log ratio, positive = worse; of an exact metric the same of its values."""
        if self.gate is not None:
            return self.gate.estimate
        if not self.base or not self.head or self.base < 0 or self.head < 0:
            return 0.0
        change = math.log(self.head / self.base)
        return -change if self.higher_is_better else change


def judge_case(
    case: Case, base_case: Case, rounds: CaseRounds, settings: Settings, confidence: float, comparable: bool
) -> list[CaseVerdict]:
    """A verdict for every metric that both sides have and the settings want.

    Args:
        case: the head's.
        base_case: the base's, usually equal.
        rounds: at least one of each side.
        settings: margins, location and metrics.
        confidence: of the intervals.
        comparable: False where the machines differ: then only metrics counted from the model are compared.
    """
    found = []
    for name in _names(rounds):
        if not settings.wants(name) or not (comparable or name in names("portable") or not case.timed):
            continue
        verdict = _judge(case, name, rounds, settings, confidence)
        if verdict is not None:
            found.append(replace(verdict, base_case=base_case))
    return found


def is_gated(metric: str) -> bool:
    """Whether a noisy metric is judged unless others are asked for."""
    return step_name(metric) in names("gated")


def unusable(records: Sequence[Record]) -> str | None:
    """Why timings of these records cannot be used; None if they can."""
    for record in records:
        name = compared_name(record.case, "latency_s")
        samples = record.samples.get(name)
        metric = record.metrics.get(name)
        values = list(samples.values) if samples is not None else []
        values += [metric.value] if metric is not None and metric.value is not None else []
        for value in values:
            if not math.isfinite(value) or value <= 0:
                return f"round {record.round} has a timing of {value:g} s"
    return None


def _judge(case: Case, name: str, rounds: CaseRounds, settings: Settings, confidence: float) -> CaseVerdict | None:
    base, head = _metrics(rounds.base, name), _metrics(rounds.head, name)
    if not base:  # new in the head, or unavailable before: nothing to lose
        return None
    example = base[0]
    exact = all(metric.deterministic for metric in (*base, *head))
    asked = settings.metrics is not None
    if not head:
        if not (exact or is_gated(name) or asked) or example.direction == "neutral":
            return None
        reason = next((m.unavailable for r in rounds.head if (m := r.metrics.get(name)) and m.unavailable), None)
        why = f"the head has no {name}" + (f": {reason}" if reason else "")
        # a resident set that did not grow visibly has no value
        lost = exact or step_name(name) != "peak_memory_bytes"
        return CaseVerdict(case, name, "inconclusive", example.unit, reason=why, judged=lost)
    units = sorted({metric.unit for metric in (*base, *head)})
    if len(units) > 1:
        return CaseVerdict(case, name, "incomparable", reason=f"{name} comes in different units: {', '.join(units)}")
    if exact:
        return _exact(case, name, base, head)
    if name == LARGEST_BATCH:
        return _largest_batch(case, rounds, settings.margin_of(name))
    if not case.timed:
        return _by_intervals(case, name, base, head)
    if is_gated(name) or asked:
        return _gated(case, name, rounds, example, settings, confidence)
    return None


def _exact(case: Case, name: str, base: list[Metric], head: list[Metric]) -> CaseVerdict:
    """Any change of a deterministic metric counts, however small."""
    direction = base[0].direction
    sign = -1 if direction == "higher" else 1
    before, after = (sorted(sign * float(m.value or 0.0) for m in metrics) for metrics in (base, head))
    note = "" if base[0].how == head[0].how else "taken in different ways: compare the two records' 'how'"
    judged = direction != "neutral"
    verdict: Judgement = "same" if judged else "unchanged"
    if not judged and (before[0], before[-1]) != (after[0], after[-1]):
        verdict = "changed"
    elif judged and after[0] > before[-1]:
        verdict = "regressed"
    elif judged and after[-1] < before[0]:
        verdict = "improved"
    elif judged and after[-1] > before[-1]:
        verdict, note = "suspect", "should be exact, but differs between rounds of one side"
    return CaseVerdict(
        case,
        name,
        verdict,
        base[0].unit,
        sign * before[-1],
        sign * after[-1],
        reason=note,
        judged=judged,
        higher_is_better=direction == "higher",
        exact=True,
    )


def _largest_batch(case: Case, rounds: CaseRounds, margin: float) -> CaseVerdict:
    """The largest batch that fits, smaller or larger in every round, by the least that the searches allow.

    A search ends within an eighth: where 2048 is found, 2304 does not fit, and 2303 might.
    """
    fresh = rounds.fresh
    sides = [
        sorted(float(metric.value or 0.0) for metric in _metrics(records, LARGEST_BATCH))
        for records in (
            (*rounds.base, *(fresh.base if fresh is not None else ())),
            (*rounds.head, *(fresh.head if fresh is not None else ())),
        )
    ]
    base, head = sides

    def least(larger: list[float], smaller: list[float]) -> float:
        """How many times the batch of one side is at least that of the other."""
        return larger[0] / max(smaller[-1] + max(smaller[-1] // BATCH_STEPS, 1.0) - 1, 1.0)

    verdict: Judgement = "same"
    if least(base, head) > 1:
        verdict = "regressed" if least(base, head) > 1 + margin else "suspect"
    elif least(head, base) > 1 + margin:
        verdict = "improved"
    reason = f"found to an eighth: at least {least(base, head) - 1:.0%} smaller" if verdict == "regressed" else ""
    return CaseVerdict(
        case,
        LARGEST_BATCH,
        verdict,
        "images",
        median(base),
        median(head),
        reason=reason,
        higher_is_better=True,
    )


def _by_intervals(case: Case, name: str, base: list[Metric], head: list[Metric]) -> CaseVerdict:
    """An analysis is not better or worse, it changed where the intervals have nothing in common."""

    def hull(metrics: list[Metric]) -> tuple[float, float, float]:
        values = [float(metric.value or 0.0) for metric in metrics]
        lows = [metric.low if metric.low is not None else v for metric, v in zip(metrics, values, strict=True)]
        highs = [metric.high if metric.high is not None else v for metric, v in zip(metrics, values, strict=True)]
        return median(values), min(lows), max(highs)

    (before, low_b, high_b), (after, low_h, high_h) = hull(base), hull(head)
    apart = low_h > high_b or high_h < low_b
    info = info_of(name, base[0].unit)
    sides = (numbers.Value(before, low_b, high_b), numbers.Value(after, low_h, high_h))
    words = f"intervals {' and '.join(numbers.interval_of(side, info) for side in sides)}" if low_b < high_b else ""
    verdict: Judgement = "changed" if apart else "unchanged"
    return CaseVerdict(case, name, verdict, base[0].unit, before, after, reason=words, judged=False)


def _gated(
    case: Case, name: str, rounds: CaseRounds, example: Metric, settings: Settings, confidence: float
) -> CaseVerdict:
    higher = example.direction == "higher"
    memory = example.unit.startswith("bytes")
    there = _having(rounds, name)
    base, head = ([round_value(r, name, settings.location, higher) for r in side] for side in (there.base, there.head))
    verdict = CaseVerdict(
        case,
        name,
        "incomparable",
        example.unit,
        median(base) if base else None,
        median(head) if head else None,
        judged=case.kind != "ceiling" and example.direction != "neutral",
        higher_is_better=higher,
    )
    if not all(math.isfinite(value) and value + info_of(name).allowance > 0 for value in (*base, *head)):
        return replace(verdict, base=None, head=None, reason=f"a value of {name} is zero, negative or no number")
    lost = rounds.count - there.count
    if lost and there.count < MIN_ROUNDS:
        why = f"{name} is missing in {lost} of {rounds.count} rounds"
        return replace(verdict, verdict="inconclusive", reason=why, judged=not memory)
    rounds = there
    margin = settings.margin_of(name)
    found = _gate(rounds, name, settings, confidence, margin, higher)
    if found.verdict == "regressed" and rounds.fresh is not None:
        again = _gate(rounds.fresh, name, settings, confidence, margin, higher)
        if again.verdict != "regressed":
            change = math.expm1(again.estimate)
            why = f"not confirmed: {again.rounds} fresh rounds say {again.verdict} ({numbers.percent(change)})"
            return replace(verdict, verdict="suspect", gate=replace(found, verdict="suspect"), reason=why)
    judgement: Judgement = found.verdict
    if not verdict.judged and judgement in ("same", "improved", "regressed"):
        judgement = "unchanged" if judgement == "same" else "changed"
    in_turns = sum(round_log_ratio(b, h, name) is not None for b, h in zip(rounds.base, rounds.head, strict=False))
    return replace(verdict, verdict=judgement, gate=found, in_turns=in_turns, reason=_why(found))


def _gate(rounds: CaseRounds, name: str, settings: Settings, confidence: float, margin: float, higher: bool) -> Gate:
    allowance = info_of(name).allowance

    def logs(side: Sequence[Record]) -> list[float]:
        values = [round_value(record, name, settings.location, higher) for record in side]
        return [(-1 if higher else 1) * math.log(value + allowance) for value in values]

    base, head = logs(rounds.base), logs(rounds.head)
    if rounds.paired:
        ratios = [after - before for before, after in zip(base, head, strict=True)]
        for i, (one, other) in enumerate(zip(rounds.base, rounds.head, strict=True)):
            in_turns = round_log_ratio(one, other, name)
            if in_turns is not None:
                ratios[i] = (-1 if higher else 1) * in_turns
        return gate(ratios, margin, confidence, rounds.capped)
    return gate_unpaired(base, head, margin, confidence, rounds.capped)


def _why(found: Gate) -> str:
    if found.rounds < MIN_ROUNDS:
        count = "1 round" if found.rounds == 1 else f"{found.rounds} rounds"
        return f"{count} of each side decide nothing: measure {MIN_ROUNDS} or more in turns with `vheatbench ab`"
    if math.isinf(found.high):
        return f"{found.rounds} rounds cannot reach {found.confidence:.4g} confidence: measure more"
    if found.capped and found.verdict in ("suspect", "inconclusive"):
        return found.capped
    if found.verdict == "inconclusive" and found.clear:
        return f"at most {numbers.percent(math.expm1(found.high))}: no worsening beyond the margin"
    return ""


def _having(rounds: CaseRounds, name: str) -> CaseRounds:
    """The rounds without those in which a metric is missing, pairs with both halves."""

    def there(record: Record) -> bool:
        metric = record.metrics.get(name)
        return metric is not None and metric.value is not None

    fresh = _having(rounds.fresh, name) if rounds.fresh is not None else None
    if rounds.paired:
        pairs = [(b, h) for b, h in zip(rounds.base, rounds.head, strict=True) if there(b) and there(h)]
        return replace(rounds, base=tuple(b for b, _ in pairs), head=tuple(h for _, h in pairs), fresh=fresh)
    return replace(rounds, base=tuple(filter(there, rounds.base)), head=tuple(filter(there, rounds.head)), fresh=fresh)


def round_value(record: Record, name: str, location: Location, higher: bool) -> float:
    """One number for a round: a quantile of its samples on the undisturbed side, or the metric where there are none."""
    samples = record.samples.get(name)
    if samples is not None and samples.values:
        if not all(map(math.isfinite, samples.values)):
            return math.nan
        q = QUANTILES[location]
        return quantile(samples.values, 1 - q if higher else q)
    value = record.metrics[name].value
    return math.nan if value is None else value


def _metrics(records: Sequence[Record], name: str) -> list[Metric]:
    found = (record.metrics.get(name) for record in records)
    return [metric for metric in found if metric is not None and metric.value is not None]


def _names(rounds: CaseRounds) -> list[str]:
    return list(dict.fromkeys(name for record in (*rounds.base, *rounds.head) for name in record.metrics))
