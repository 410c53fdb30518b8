"""Several runs side by side: what differs in their environments, curves on shared axes, ratios where they mean it.

Side by side stand runs that hold the same cases: a run of receptive fields and one of heat have nothing to compare.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

from vheatbench.analysis.crossover import ratio_at
from vheatbench.analysis.findings import common_sizes
from vheatbench.analysis.fingerprint import differences, facts
from vheatbench.analysis.groups import ChartGroup, groups_of
from vheatbench.analysis.operator_findings import as_fast, significant
from vheatbench.metrics import names
from vheatbench.present.parts import Chart, Section, Table
from vheatbench.present.style import DASHES, MARKERS, LineStyle
from vheatbench.present.theme import PAPER, style_of
from vheatbench.report.charts import Curve, View, chart_of
from vheatbench.report.section import MOST_CURVES, samples_of
from vheatbench.store.read import Run
from vheatbench.text import moment

MOST_ENTRIES = 40
"""Of differing environments, beside those that decide."""

MOST_VARIANTS = 3
"""Groups of records that are drawn; those with the most curves."""


def across_section(runs: Sequence[Run], subjects: Sequence[str], views: Sequence[View]) -> Section:
    """What several runs have in common and what not; empty where no two of them measured the same case.

    Runs of the same cases whose environments differ in what must match get no ratio, and the section says why.
    """
    labels = labels_of(runs)
    section = Section("across", "Runs side by side")
    places: set[int] = set()
    for (i, one), (j, other) in combinations(enumerate(runs), 2):
        if not _cases(one) & _cases(other):
            continue
        places |= {i, j}
        found = keeping_apart(one, other)
        if found:
            section.alerts.append(
                f"{labels[i]} and {labels[j]} are not comparable, so no ratio is given: {'; '.join(found)}."
            )
    shared = _shared(runs)
    for number, members in enumerate(shared[:MOST_VARIANTS]):
        for metric in names("overlaid"):
            chart = _overlay(f"across-{number}-{metric}", metric, members, labels, subjects, views)
            if chart is not None:
                section.charts.append(chart)
    if len(shared) > MOST_VARIANTS:
        section.notes.append(f"{MOST_VARIANTS} of {len(shared)} variants that several runs measured are drawn here.")
    beside = [runs[i] for i in sorted(places)], [labels[i] for i in sorted(places)]
    tables = (_ratios(runs, labels, shared), _environments(*beside) if places else None)
    section.tables += [table for table in tables if table is not None]
    return section


def _cases(run: Run) -> set[str]:
    """Ids of what a run measured of speed and memory, alike on every kind of device."""
    timed = {record.case_id: record.case for record in run.records if record.case.timed}
    return {case.model_copy(update={"device": "cpu"}).id for case in timed.values() if case.kind != "ceiling"}


def labels_of(runs: Sequence[Run]) -> list[str]:
    """A short name for each run, alike for none: the device; where that tells nothing, when it was measured."""
    names = [run.device_name for run in runs]
    times = [moment(run.header.created) for run in runs]
    if len(set(names)) == 1:
        labels = (
            times
            if len(set(times)) == len(times)
            else [f"{run.header.suite}, {at}" for run, at in zip(runs, times, strict=True)]
        )
    else:
        labels = [one if names.count(one) == 1 else f"{one}, {at}" for one, at in zip(names, times, strict=True)]
    return [label if labels.count(label) == 1 else f"{label} ({place})" for place, label in enumerate(labels, start=1)]


def keeping_apart(one: Run, other: Run) -> list[str]:
    """What keeps two runs from being compared, in words; empty where their timings may be divided."""
    devices = [sorted({record.case.device for record in run.records}) for run in (one, other)]
    shared = [device for device in devices[0] if device in devices[1]]
    if not shared:
        return [f"device: {', '.join(devices[0])} / {', '.join(devices[1])}"]
    environments = one.header.environment, other.header.environment
    return list(dict.fromkeys(text for device in shared for text in differences(*environments, device)))


def _shared(runs: Sequence[Run]) -> list[list[tuple[int, ChartGroup]]]:
    """Groups of one variant in which at least two runs share cases, each with its run's place; most curves first."""
    found: dict[tuple[str, str], list[tuple[int, ChartGroup]]] = {}
    for place, run in enumerate(runs):
        for group in groups_of(run.records):
            found.setdefault((group.kind, group.variant), []).append((place, group))
    several = [alike for members in found.values() if (alike := _holding_the_same(members))]
    return sorted(several, key=lambda members: -sum(len(group.series("latency_s")) for _, group in members))


def _holding_the_same(members: list[tuple[int, ChartGroup]]) -> list[tuple[int, ChartGroup]]:
    """Those members of a variant that have a case in common with one of another run."""
    places: dict[tuple[str, tuple[int, int]], set[int]] = {}
    for place, group in members:
        for record in group.records:
            places.setdefault((record.case.subject, record.case.resolution), set()).add(place)
    common = {case for case, found in places.items() if len(found) > 1}
    return [
        (place, group)
        for place, group in members
        if any((record.case.subject, record.case.resolution) in common for record in group.records)
    ]


def _overlay(
    id_: str,
    metric: str,
    members: list[tuple[int, ChartGroup]],
    labels: Sequence[str],
    subjects: Sequence[str],
    views: Sequence[View],
) -> Chart | None:
    curves: list[Curve] = []
    for place, group in members:
        samples = samples_of(group, metric)
        for one in group.series(metric):
            named, own = replace(one, subject=f"{one.subject} · {labels[place]}"), samples.get(one.subject, {})
            curves.append(Curve(named, _style(one.subject, subjects, place), samples=own))
    drawn = [curve for curve in curves if curve.series.points][:MOST_CURVES]
    if not views or len(drawn) < 2 or max(len(curve.series.points) for curve in drawn) < 2:
        return None
    info = drawn[0].series.info
    caption = (
        f"{info.capitalised} in {info.unit} of {len({place for place, _ in members})} runs; {members[0][1].title}. "
        f"Colour: the {drawn[0].series.axis.subject}. Line: the run."
    )
    if len(drawn) < len(curves):
        caption += f" {len(drawn)} of {len(curves)} curves are drawn."
    return chart_of(id_, f"{info.capitalised}, runs side by side", drawn, views, caption)


def _style(subject: str, subjects: Sequence[str], place: int) -> LineStyle:
    own = style_of(subject, subjects)
    marker = MARKERS[(MARKERS.index(own.marker) + place) % len(MARKERS)]
    return replace(own, marker=marker, dash=DASHES[place % len(DASHES)], face=PAPER if place % 2 else own.colour)


def _ratios(runs: Sequence[Run], labels: Sequence[str], shared: list[list[tuple[int, ChartGroup]]]) -> Table | None:
    """The first run over every other that it may be compared with, at the largest common size of each subject."""
    rows: list[tuple[str, ...]] = []
    for members in shared:
        base = [group for place, group in members if place == 0]
        for place, group in members:
            if place == 0 or not base or keeping_apart(runs[0], runs[place]):
                continue
            for own in base:
                if own.device == group.device:
                    rows += _ratio_rows(own, group, labels[place])
    if not rows:
        return None
    caption = (
        f"Against {labels[0]}, at the largest size of both, with the most cautious interval. The runs were not "
        "measured in turns, so a small difference may be the machine's mood: vheatbench ab decides."
    )
    header = ("run", "subject", "variant", "size", "times as fast", "times the peak memory")
    return Table("across-ratios", "Run against run", caption, header, rows)


def _ratio_rows(base: ChartGroup, other: ChartGroup, label: str) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    memory = [{one.subject: one for one in group.series("peak_memory_bytes")} for group in (base, other)]
    others = {one.subject: one for one in other.series("latency_s")}
    for own in base.series("latency_s"):
        its = others.get(own.subject)
        common = common_sizes(own, its) if its is not None else []
        if its is None or not common:
            continue
        size = common[-1]
        kept = "—"
        if all(own.subject in found for found in memory):
            a, b = (found[own.subject] for found in memory)
            if size in common_sizes(a, b):
                kept = f"{significant(ratio_at(b, a, size).value)}×"
        speed = as_fast(ratio_at(own, its, size))
        rows.append((label, own.subject, base.title, own.axis.words(size), speed, kept))
    return rows


def _environments(runs: Sequence[Run], labels: Sequence[str]) -> Table | None:
    """Entries that differ: those that must match first, and marked."""
    environments = [run.header.environment for run in runs]
    device = "cuda" if any(record.case.device == "cuda" for run in runs for record in run.records) else "cpu"
    decisive = [{name: _fact(value) for name, value in facts(one, device).items()} for one in environments]
    rows = [(name, "yes", *(one.get(name, "—") for one in decisive)) for name in decisive[0]]
    rows = [row for row in rows if len(set(row[2:])) > 1]
    marked = len(rows)
    seen = {row[2:] for row in rows}
    flat = [dict(environment_rows(one)) for one in environments]
    for name in dict.fromkeys(name for one in flat for name in one):
        values = tuple(one.get(name, "—") for one in flat)
        if len(set(values)) > 1 and values not in seen and not name.startswith("volatile."):
            seen.add(values)
            rows.append((name, "no", *values))
    if not rows:
        return None
    more = len(rows) - marked - MOST_ENTRIES
    caption = "Entries that differ between the runs. Marked: what must match for timings to be compared."
    if more > 0:
        caption += f" {more} more that need not match are left out."
    header = ("entry", "must match", *labels)
    shown = rows[: marked + MOST_ENTRIES]
    return Table("across-environment", "What differs", caption, header, shown, words=True, marked=marked)


def environment_rows(environment: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Everything an environment says, one entry a row, names joined by points."""
    rows: list[tuple[str, str]] = []
    for key, value in environment.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            rows += environment_rows(value, f"{name}.")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for i, item in enumerate(value):
                rows += environment_rows(item, f"{name}.{i}.")
        elif value not in (None, [], ""):
            rows.append((name, str(value)))
    return rows


def _fact(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "unknown" if value is None else str(value)
