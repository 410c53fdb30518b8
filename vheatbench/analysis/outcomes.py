"""One row per case of a run: its status and its metrics over all rounds, for tables."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from vheatbench.analysis.series import Point, series_from
from vheatbench.case import Case
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
    points: dict[str, Point]
    """Metric name to value and interval; unavailable metrics are left out."""

    @property
    def warnings(self) -> list[str]:
        """Warnings of all rounds, each once."""
        return list(dict.fromkeys(text for record in self.records for text in record.warnings))

    def metric(self, name: str) -> Metric | None:
        """The metric as the first round with it has it, for unit and provenance."""
        return next((record.metrics[name] for record in self.records if name in record.metrics), None)


def outcomes_of(records: Iterable[Record]) -> list[Outcome]:
    """Outcomes by variant, then resolution, then subject in order of first appearance."""
    by_case: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_case[record.case_id].append(record)
    subjects: dict[str, int] = {}
    variants: dict[str, int] = {}
    for group in by_case.values():
        subjects.setdefault(group[0].case.subject, len(subjects))
        variants.setdefault(group[0].case.variant, len(variants))
    outcomes = [_outcome(group) for group in by_case.values()]
    outcomes.sort(key=lambda o: (variants[o.case.variant], o.case.pixels, subjects[o.case.subject]))
    return outcomes


def _outcome(records: list[Record]) -> Outcome:
    good = [record for record in records if record.status == "ok"]
    names = dict.fromkeys(name for record in good for name in record.metrics)
    points = {name: series[0].points[0] for name in names if (series := series_from(good, name))}
    reasons = dict.fromkeys(record.reason for record in records if record.status != "ok" and record.reason)
    status = "ok" if good else records[0].status
    return Outcome(records[0].case, status, "; ".join(reasons), len(good), tuple(records), points)
