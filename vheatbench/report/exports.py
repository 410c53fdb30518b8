"""What a run measured in the formats of other tools, made from history entries.

Formats: the JSON array of github-action-benchmark (``customSmallerIsBetter``, ``customBiggerIsBetter``), the
Bencher Metric Format (https://bencher.dev/bmf.json), CSV for Apache Otava, and markdown for a step summary.
Cases without a value are left out of all but the last (a null is read as 0 by some of these tools) and named.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from vheatbench.errors import UserError
from vheatbench.metrics import columns
from vheatbench.numbers import with_spread
from vheatbench.store.history import HistoryEntry, TrackedCase, estimate

MARKDOWN_LIMIT = 65_536
"""Characters that GitHub takes for a comment."""


@dataclass(frozen=True)
class Export:
    """The text of an exported file and what is not in it, one line each."""

    text: str
    left_out: list[str]


def github_action_benchmark(entries: Sequence[HistoryEntry], better: Literal["lower", "higher"]) -> Export:
    """JSON array of ``{name, unit, value, range, extra}`` of all metrics of which ``better`` is better.

    Values stay in the metric's own unit (``s``, ``bytes``, ``images/s``), for github-action-benchmark compares
    numbers of different units as they are.
    """
    rows = []
    for entry, case, name in _named(entries):
        for metric, reading in case.readings.items():
            facts = entry.metrics[metric]
            if facts.direction != better:
                continue
            row: dict[str, Any] = {"name": f"{name}: {metric}", "unit": facts.unit, "value": reading[0]}
            if reading[1] is not None and reading[2] is not None and not facts.deterministic:
                row["range"] = f"± {(reading[2] - reading[1]) / 2:.3g}"
            row["extra"] = f"{entry.machine}; n={reading[3]}; run {entry.run_id}"
            rows.append(row)
    if not rows:
        raise UserError(f"nothing to export: no case has a metric of which {better} is better")
    return Export(_json(rows), _failures(entries))


def bencher_metric_format(entries: Sequence[HistoryEntry]) -> Export:
    """``{benchmark: {measure: {value, lower_value, upper_value}}}``, measures named as our metrics.

    Names longer than Bencher takes (1024 characters for a benchmark, 64 for a measure) are cut.
    """
    content: dict[str, dict[str, dict[str, float]]] = {}
    for entry, case, name in _named(entries):
        for metric, (value, low, high, _) in case.readings.items():
            exact = entry.metrics[metric].deterministic
            bounds = {} if exact else {"lower_value": low, "upper_value": high}
            content.setdefault(name[:1024], {})[metric[:64]] = {
                "value": value, **{key: bound for key, bound in bounds.items() if bound is not None},
            }  # fmt: skip
    if not content:
        raise UserError("nothing to export: no case has a value")
    return Export(_json(content), _failures(entries))


def otava_csv(entries: Iterable[HistoryEntry], metrics: Sequence[str] = ("latency_s",)) -> Export:
    """One row per run, oldest first: ``time``, ``commit``, ``run`` and a column for every case and metric.

    Otava refuses an empty cell. So a column that fewer than half of the runs have is left out, then a run that
    lacks one of the columns that stay.

    Raises:
        UserError: entries of several branches or machines (Otava would see steps between them), or no values.
    """
    rows = sorted(entries, key=lambda entry: entry.when)
    groups = sorted({f"branch {entry.branch or '(none)'} on {entry.machine} {entry.fingerprint}" for entry in rows})
    if len(groups) > 1:
        raise UserError(f"one CSV is one series: choose one by --branch and --machine of {'; '.join(groups)}")
    cells = [_cells(entry, metrics) for entry in rows]
    columns = list(dict.fromkeys(name for row in cells for name in row))
    kept = [name for name in columns if 2 * sum(name in row for row in cells) >= len(rows)]
    left_out = [f"column {name}: most runs have no value" for name in columns if name not in kept]
    whole = [(entry, row) for entry, row in zip(rows, cells, strict=True) if all(name in row for name in kept)]
    present = {entry.run_id for entry, _ in whole}
    left_out += [f"run {entry.run_id} of {entry.when}: lacks a value" for entry in rows if entry.run_id not in present]
    if not kept or not whole:
        raise UserError(f"nothing to export: no run has values of {', '.join(metrics)} in every case; try --case")
    left_out += _failures(rows[-1:])
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["time", "commit", "run", *kept])
    writer.writerows([entry.when, entry.commit, entry.run_id, *(row[name] for name in kept)] for entry, row in whole)
    return Export(text.getvalue(), left_out)


def markdown(entries: Sequence[HistoryEntry], limit: int = MARKDOWN_LIMIT) -> Export:
    """A table of every device for a step summary: latency, throughput, peak memory, multiply-adds, of analyses their
    main numbers, and failures.

    Shorter than ``limit`` characters: rows that do not fit are left out, and the text says how many.
    """
    lines: list[str] = []
    rows: list[tuple[int, int]] = []
    for entry in entries:
        shown = columns("summary", [entry])
        commit = f", commit {_code(entry.commit[:12])}" if entry.commit else ""
        lines += [f"### {_code(entry.suite)} on {_code(entry.machine)}", "",
                  f"Run {_code(entry.run_id)}, {entry.when}{commit}.", "",
                  "| case | " + " | ".join(info.heading for info in shown) + " | status |",
                  "| --- |" + " ---: |" * len(shown) + " --- |"]  # fmt: skip
        begun = len(lines)
        for case in entry.cases.values():
            cells = [with_spread(estimate(case.readings.get(info.name)), info) for info in shown]
            lines.append("| " + " | ".join([_code(case.label), *cells, case.status]) + " |")
        rows.append((begun, len(lines)))
        lines.append("")
    # room for the sentence that says so; the last rows go first
    cut, room = 0, limit - 200
    length = sum(len(line) + 1 for line in lines)
    for begun, end in reversed(rows):
        while length > room and end > begun:
            end -= 1
            length -= len(lines.pop(end)) + 1
            cut += 1
    left_out = [f"{cut} rows, to stay below {limit} characters"] if cut else []
    if cut:
        lines.append(f"*{cut} rows are left out to stay below {limit} characters; `vheatbench show` has them all.*")
    return Export("\n".join(lines) + "\n", left_out)


def _code(text: str) -> str:
    """Text from outside as a code span: no markup, no mention of people, no end of the table's cell."""
    text = "".join(c if c.isprintable() else " " for c in text).replace("`", "'").replace("|", "¦")
    return f"`{text}`" if text.strip() else "—"


def _named(entries: Sequence[HistoryEntry]) -> list[tuple[HistoryEntry, TrackedCase, str]]:
    """Every case under a name that is the same in every run and unique in this one."""
    found = []
    taken: set[str] = set()
    for entry in entries:
        for case_id, case in entry.cases.items():
            name = f"{case.label} on {entry.device}"
            name = f"{name} ({case_id})" if name in taken else name
            taken.add(name)
            found.append((entry, case, name))
    return found


def _cells(entry: HistoryEntry, metrics: Sequence[str]) -> dict[str, float]:
    found: dict[str, float] = {}
    for case_id, case in entry.cases.items():
        slug = re.sub(r"[^A-Za-z0-9.=/+-]+", "_", case.label)
        for metric in metrics:
            if metric in case.readings:
                name = f"{slug}.{metric}"
                found[f"{slug}_{case_id}.{metric}" if name in found else name] = case.readings[metric][0]
    return found


def _failures(entries: Sequence[HistoryEntry]) -> list[str]:
    return [
        f"{case.label} on {entry.device}: {case.status if case.status != 'ok' else 'no value'}"
        for entry in entries
        for case in entry.cases.values()
        if case.status != "ok" or not case.readings
    ]


def _json(content: Any) -> str:
    return json.dumps(content, indent=2, allow_nan=False) + "\n"
