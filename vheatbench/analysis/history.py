"""Runs as history entries, and the history as trends: one metric of one case over time on one machine."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

from vheatbench import numbers
from vheatbench.analysis.changepoint import ChangePoint, change_points, exact_changes
from vheatbench.analysis.fingerprint import fingerprint
from vheatbench.analysis.outcomes import Outcome, outcomes_of
from vheatbench.errors import UserError
from vheatbench.stats import median
from vheatbench.store.history import HistoryEntry, Reading, TrackedCase, TrackedMetric
from vheatbench.store.per_image import PER_IMAGE, step_name
from vheatbench.store.read import Run
from vheatbench.store.schema import Direction


@dataclass(frozen=True)
class TrendPoint:
    """What one run says of a trend; ``value``, ``low`` and ``high`` in the trend's unit."""

    when: str
    commit: str
    run_id: str
    value: float
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class Trend:
    """One metric of one case, by time, from runs of one branch on machines of one fingerprint."""

    branch: str
    fingerprint: str
    machine: str
    device: str
    case_id: str
    label: str
    metric: str
    unit: str
    direction: Direction
    deterministic: bool
    points: tuple[TrendPoint, ...]
    """Oldest first."""
    status: str
    """Of the case in the newest run that has it: other than ``ok`` it is newer than the last point."""

    @property
    def values(self) -> list[float]:
        return [point.value for point in self.points]

    @cached_property
    def changes(self) -> list[ChangePoint]:
        """Changes of level; of a deterministic metric every change."""
        return exact_changes(self.values) if self.deterministic else change_points(self.values)

    @property
    def usual(self) -> float | None:
        """Median of the values before the last one, as far back as the last change; None for a first value."""
        last = self.changes[-1].index if self.changes else 0
        values = self.values[:-1]
        return median(values[last:] or values) if values else None

    @property
    def against_usual(self) -> float | None:
        """The last value over :attr:`usual`, less 1; None where there is none or it is 0."""
        usual = self.usual
        return self.values[-1] / usual - 1 if usual else None

    def size_of(self, change: ChangePoint) -> str:
        """A change in words: ``+6.1 %``, or the difference where a percentage would hide it."""
        if abs(change.relative) >= 0.0005:
            return numbers.percent(change.relative)
        return f"{change.after - change.before:+g} {self.unit}".strip().replace("-", "−")

    def worsens(self, change: ChangePoint) -> bool:
        """Whether a change is one for the worse; False for a metric without a direction."""
        sign = {"lower": 1, "higher": -1, "neutral": 0}[self.direction]
        return sign * (change.after - change.before) > 0


def entries_of(run: Run, branch: str | None = None, commit: str | None = None) -> list[HistoryEntry]:
    """The history entries of a run, one for each kind of device in it.

    Args:
        run: finished; with several rounds, values are medians over rounds.
        branch: in place of the one that the run's environment knows.
        commit: likewise.

    Raises:
        UserError: the run is unfinished, empty or merged from different environments, or gives a metric in
            different units.
    """
    if run.footer is None:
        raise UserError(f"{run.path} is unfinished: finish it with `vheatbench run --resume {run.path}` first")
    if not run.records:
        raise UserError(f"{run.path} holds no records, no case was measured")
    if "mixed" in run.header.environment:
        raise UserError(f"{run.path} was merged from different environments: add the runs that it was merged from")
    devices = sorted({record.case.device for record in run.records})
    return [_entry(run, device, branch, commit) for device in devices]


def _entry(run: Run, device: str, branch: str | None, commit: str | None) -> HistoryEntry:
    environment = run.header.environment
    code = measured_code(environment)
    metrics: dict[str, TrackedMetric] = {}
    cases: dict[str, TrackedCase] = {}
    try:
        outcomes = outcomes_of(record for record in run.records if record.case.device == device)
    except ValueError as error:
        raise UserError(f"{run.path}: {error}") from None
    for outcome in outcomes:
        cases[outcome.case.id] = _case(run, outcome, metrics)
    known_commit = str(code.get("commit") or "")
    return HistoryEntry(
        run_id=run.header.run_id,
        device=device,
        file=run.path.name,
        suite=run.header.suite,
        when=run.header.created,
        branch=branch if branch is not None else str(code.get("branch") or ""),
        commit=commit if commit is not None else known_commit,
        dirty=bool(code.get("dirty")) and commit in (None, known_commit),
        fingerprint=fingerprint(environment, device),
        machine=machine_of(environment, device),
        metrics=metrics,
        cases=cases,
    )


def measured_code(environment: dict[str, Any]) -> dict[str, Any]:
    """The version of what was measured: the project's checkout; empty where it was in none.

    In runs from before that was recorded: the checkout of vheatbench itself.
    """
    return environment.get("project" if "project" in environment else "code") or {}


def _case(run: Run, outcome: Outcome, metrics: dict[str, TrackedMetric]) -> TrackedCase:
    """The outcome as a case, its metrics entered into ``metrics``."""
    readings: dict[str, Reading] = {}
    for name, point in outcome.points.items():
        metric = outcome.metric(name)
        if metric is None:  # derived from others: an operator's rates
            continue
        facts = TrackedMetric(unit=metric.unit, direction=metric.direction, deterministic=metric.deterministic)
        if metrics.setdefault(name, facts).unit != metric.unit:
            raise UserError(f"{run.path} gives {name} in {metrics[name].unit} and in {metric.unit}: it is no series")
        readings[name] = (point.value, _finite(point.low), _finite(point.high), point.n_rounds)
    return TrackedCase(label=outcome.case.label, status=outcome.status, readings=readings)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def machine_of(environment: dict[str, Any], device: str) -> str:
    """The device of an environment in words: ``2 x NVIDIA H100`` or ``AMD EPYC (2 cores)``."""
    if device == "cuda":
        names = [str(gpu.get("name", "an unknown GPU")) for gpu in environment.get("gpus") or []]
        return f"{len(names)} x {names[0]}" if len(names) > 1 else "".join(names) or "an unknown GPU"
    cpu = environment.get("cpu") or {}
    return f"{cpu.get('name') or 'an unknown processor'} ({cpu.get('affinity_cores', '?')} cores)"


def trends_of(
    entries: Iterable[HistoryEntry],
    *,
    branch: str | None = None,
    machine: str | None = None,
    metrics: Sequence[str] | None = None,
    case: str | None = None,
) -> list[Trend]:
    """Trends in the order of first appearance; entries in the order of time.

    Args:
        entries: of one history.
        branch: only this branch.
        machine: only fingerprints that begin so, and machines whose words contain it (any case).
        metrics: only these, each with the same per image; patterns such as ``peak_*`` are meant as in a shell.
        case: only cases whose id is this or whose label matches: contains it, or the pattern with ``*``.

    A case that failed in every run is a trend of ``latency_s`` without points: a failure is a result.
    """
    points: dict[tuple[str, ...], list[TrendPoint]] = {}
    newest: dict[tuple[str, ...], tuple[str, str, TrackedMetric]] = {}
    status: dict[tuple[str, ...], str] = {}
    wanted: dict[str, bool] = {}
    for entry in select(entries, branch=branch, machine=machine, case=case):
        group = (entry.branch, entry.fingerprint, entry.device)
        for case_id, tracked in entry.cases.items():
            place = (*group, case_id)
            status[place] = tracked.status
            readings: dict[str, Reading | None] = dict(tracked.readings)
            if tracked.status != "ok" and not readings:
                readings["latency_s"] = None
            for name, reading in readings.items():
                if name not in wanted:
                    names = (name, step_name(name))
                    wanted[name] = metrics is None or any(fnmatchcase(n, pattern) for n in names for pattern in metrics)
                if not wanted[name]:
                    continue
                metric = entry.metrics.get(name, UNMEASURED)
                key = (*place, name, metric.unit)
                newest[key] = (entry.machine, tracked.label, metric)
                found = points.setdefault(key, [])
                if reading is not None:
                    found.append(TrendPoint(entry.when, entry.commit, entry.run_id, *reading))
    return [_trend(key, *newest[key], tuple(points[key]), status[key[:4]]) for key in points]


UNMEASURED = TrackedMetric(unit="s", direction="lower")
"""``latency_s`` of a run in which nothing was measured."""


def _trend(
    key: tuple[str, ...], machine: str, label: str, metric: TrackedMetric, points: tuple[TrendPoint, ...], status: str
) -> Trend:
    branch, fingerprint, device, case_id, name, unit = key
    return Trend(
        branch, fingerprint, machine, device, case_id, label, name, unit, metric.direction, metric.deterministic,
        points, status,
    )  # fmt: skip


def select(
    entries: Iterable[HistoryEntry], *, branch: str | None = None, machine: str | None = None, case: str | None = None
) -> list[HistoryEntry]:
    """The entries that match, cut down to the cases that do; arguments as those of :func:`trends_of`."""
    found = []
    for entry in map(_per_image, entries):
        if branch is not None and entry.branch != branch:
            continue
        if machine is not None and not _machine_matches(machine, entry):
            continue
        if case is not None:
            cases = {key: c for key, c in entry.cases.items() if _case_matches(case, key, c.label)}
            if not cases:
                continue
            entry = entry.model_copy(update={"cases": cases})
        found.append(entry)
    return found


def _per_image(entry: HistoryEntry) -> HistoryEntry:
    """The entry with what a step of the largest batch cost per image, in lines of before these were kept so."""
    if "largest_batch" not in entry.metrics:
        return entry
    metrics, cases = dict(entry.metrics), dict(entry.cases)
    for case_id, case in entry.cases.items():
        images = case.readings["largest_batch"][0] if "largest_batch" in case.readings else 0.0
        if not images or not PER_IMAGE.keys() & case.readings.keys():
            continue
        readings: dict[str, Reading] = {}
        for name, reading in case.readings.items():
            if name not in PER_IMAGE:
                readings[name] = reading
                continue
            value, low, high = (end / images if end is not None else None for end in reading[:3])
            readings[PER_IMAGE[name]] = (value or 0.0, low, high, reading[3])
            changes = {"unit": f"{metrics[name].unit}/image", "deterministic": False}
            metrics[PER_IMAGE[name]] = metrics[name].model_copy(update=changes)
        cases[case_id] = case.model_copy(update={"readings": readings})
    return entry.model_copy(update={"metrics": metrics, "cases": cases})


def _machine_matches(words: str, entry: HistoryEntry) -> bool:
    return entry.fingerprint.startswith(words) or words.lower() in entry.machine.lower()


def _case_matches(pattern: str, case_id: str, label: str) -> bool:
    return pattern == case_id or pattern in label or fnmatchcase(label, pattern)
