"""One row per case of a run: its status and its metrics over all rounds, for tables."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace

from vheatbench.analysis.operators import rank
from vheatbench.analysis.series import Point, point_of
from vheatbench.case import Case
from vheatbench.store.per_image import PER_IMAGE, compared, compared_name
from vheatbench.store.schema import Metric, Record, Status


@dataclass(frozen=True)
class Outcome:
    """What became of a case. With several rounds, metrics are over the rounds that were ``ok``."""

    case: Case
    status: Status
    """``ok`` if any round was."""
    reason: str
    """Why rounds were not ``ok``, each reason once; empty if all were."""
    rounds: int
    """Rounds that were ``ok``."""
    records: tuple[Record, ...]
    """As they are compared: see :func:`vheatbench.store.per_image.compared`."""
    points: dict[str, Point]
    """Metric name to value and interval; unavailable metrics are left out. An operator has also what it achieved,
    under the names that ceilings are measured in: see :func:`achieved`."""

    @property
    def warnings(self) -> list[str]:
        """Warnings of all rounds, each once."""
        return list(dict.fromkeys(text for record in self.records for text in record.warnings))

    @property
    def latency(self) -> Point | None:
        """Time of a step, or of an image where the batch is the largest that fits."""
        return self.points.get(compared_name(self.case, "latency_s"))

    @property
    def units(self) -> dict[str, str]:
        """Metrics that have a value, to the unit that each is in."""
        found = {name: self.metric(name) for name in self.points}
        return {name: metric.unit if metric is not None else "" for name, metric in found.items()}

    def metric(self, name: str) -> Metric | None:
        """The metric as the first round with it has it, for unit and provenance."""
        return next((record.metrics[name] for record in self.records if name in record.metrics), None)


def outcomes_of(records: Iterable[Record]) -> list[Outcome]:
    """Outcomes by variant, resolution and subject: operators in their order, others as they came; ceilings last."""
    by_case: dict[str, list[Record]] = defaultdict(list)
    for record in map(compared, records):
        by_case[record.case_id].append(record)
    subjects: dict[str, int] = {}
    variants: dict[str, int] = {}
    for group in by_case.values():
        subjects.setdefault(group[0].case.subject, len(subjects))
        variants.setdefault(group[0].case.variant, len(variants))
    outcomes = [_outcome(group) for group in by_case.values()]

    def place(outcome: Outcome) -> tuple[bool, int, int, int, int]:
        case = outcome.case
        first = subjects[case.subject]
        return case.kind == "ceiling", variants[case.variant], case.pixels, rank(case.subject), first

    outcomes.sort(key=place)
    return outcomes


def _outcome(records: list[Record]) -> Outcome:
    good = [record for record in records if record.status == "ok"]
    names = dict.fromkeys(name for record in good for name in record.metrics)
    points = {name: point for name in names if (point := point_of(good, name)) is not None}
    points |= achieved(points)
    reasons = dict.fromkeys(record.reason for record in records if record.status != "ok" and record.reason)
    status = "ok" if good else records[0].status
    return Outcome(records[0].case, status, "; ".join(reasons), len(good), tuple(records), points)


def achieved(points: dict[str, Point]) -> dict[str, Point]:
    """What an operator did per second: FLOP/s and bytes/s, its exact FLOPs and least bytes over its latency.

    Empty for a case whose metrics do not give both.
    """
    per_image = PER_IMAGE["latency_s"] in points
    latency = points.get(PER_IMAGE["latency_s"] if per_image else "latency_s")
    found = {}
    for work, rate in (("flops_per_step", "rate_flop_per_s"), ("min_bytes", "bandwidth_bytes_per_s")):
        work = PER_IMAGE[work] if per_image else work
        if latency is None or latency.value <= 0 or work not in points:
            continue
        amount = points[work].value
        low = amount / latency.high if latency.high else None
        high = amount / latency.low if latency.low else None
        found[rate] = replace(latency, value=amount / latency.value, low=low, high=high)
    return found
