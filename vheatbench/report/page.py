"""The report: one self-contained HTML page from one or more runs, complete without JavaScript."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2

from vheatbench import __version__
from vheatbench.analysis.findings import (
    Finding,
    Group,
    crossovers_of,
    exponent_finding,
    failure_findings,
    groups_of,
    pair_findings,
    pairs_of,
    scaling_of,
)
from vheatbench.analysis.outcomes import Outcome, outcomes_of
from vheatbench.analysis.published import PublishedRow, published_rows
from vheatbench.analysis.scaling import PowerFit, Scaling
from vheatbench.analysis.series import Series
from vheatbench.errors import UserError
from vheatbench.report import numbers
from vheatbench.report.charts import LOOKS, scaling_chart
from vheatbench.store.read import Run

FITTED = ("latency_s", "peak_memory_bytes", "macs")
"""Metrics whose growth is fitted: costs. Throughput is the inverse of latency at a fixed batch."""


@dataclass(frozen=True)
class Chart:
    """A figure, its caption, what it shows in words, and the numbers behind it."""

    id: str
    title: str
    svg: str
    caption: str
    text: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


@dataclass
class Section:
    """One group of records that share charts: a variant on a device of one run."""

    id: str
    title: str
    charts: list[Chart] = field(default_factory=list)
    exponents: list[tuple[str, ...]] = field(default_factory=list)
    crossovers: list[tuple[str, str]] = field(default_factory=list)
    fit_warnings: list[str] = field(default_factory=list)


@dataclass
class RunPart:
    """Everything the page says of one run."""

    run: Run
    title: str
    findings: list[tuple[Finding, str]]
    sections: list[Section]
    published: list[PublishedRow]
    outcomes: list[Outcome]
    warnings: list[tuple[str, str]]
    environment: list[tuple[str, str]]


def write_report(runs: Sequence[Run], path: Path) -> None:
    """Write the page.

    Raises:
        UserError: a run without records, or a path that cannot be written.
    """
    for run in runs:
        if not run.records:
            raise UserError(f"{run.path}: holds no records, there is nothing to report")
    page = render(runs)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from None


def render(runs: Sequence[Run]) -> str:
    """The page as text. Everything from outside goes through jinja2's escaping."""
    subjects = list(dict.fromkeys(record.case.subject for run in runs for record in run.records))
    loader = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["percent"] = numbers.percent
    environment.filters["plain"] = numbers.plain
    parts = [_part(run, i, subjects) for i, run in enumerate(runs)]
    return environment.get_template("report.html").render(
        parts=parts, several=len(parts) > 1, version=__version__, columns=TABLE, cell=_cell, notes=_notes
    )


def _part(run: Run, index: int, subjects: Sequence[str]) -> RunPart:
    outcomes = outcomes_of(run.records)
    groups = groups_of(run.records)
    sections: list[Section] = []
    findings: list[tuple[Finding, str]] = []
    for number, group in enumerate(groups):
        section = _section(group, f"r{index}g{number}", subjects, len(groups) > 1)
        if section.charts:
            sections.append(section)
        found = [finding for pair in pairs_of(group) for finding in pair_findings(group, pair)]
        exponents = exponent_finding(group)
        if exponents is not None:
            found.append(exponents)
        shown = {chart.id for chart in section.charts}
        for finding in found:
            anchor = f"{section.id}-{finding.metric}"
            prefix = f"[{group.variant}] " if len(groups) > 1 else ""
            findings.append(
                (Finding(prefix + finding.text, finding.metric, finding.important), anchor if anchor in shown else "")
            )
    findings.sort(key=lambda pair: not pair[0].important)
    findings += [(finding, f"r{index}-records") for finding in failure_findings(outcomes)]
    warnings = [(outcome.case.label, text) for outcome in outcomes for text in outcome.warnings]
    published = published_rows(outcomes, run.header.reference) if run.header.reference else []
    return RunPart(
        run,
        f"{run.header.suite} on {run.device_name}",
        findings,
        sections,
        published,
        outcomes,
        warnings,
        _environment_rows(run.header.environment),
    )


def _section(group: Group, id_: str, subjects: Sequence[str], several: bool) -> Section:
    section = Section(id_, f"{group.variant} on {group.device}" if several else group.variant)
    for metric in LOOKS:
        fits: dict[str, Scaling] = {}
        if metric in FITTED:
            fits = {series.subject: scaling for series, scaling in scaling_of(group, metric)}
        series = [one for one in group.series(metric) if one.points]
        # one size is a point, not a curve: it stands in the table
        if max((len(one.points) for one in series), default=0) < 2:
            continue
        section.charts.append(_chart(f"{id_}-{metric}", metric, series, fits, subjects, group))
        for one in series:
            section.fit_warnings += one.warnings
            scaling = fits.get(one.subject)
            if scaling is not None:
                section.exponents.append(_exponent_row(metric, one, scaling))
                section.fit_warnings += [f"{one.subject}, {LOOKS[metric].title.lower()}: {w}" for w in scaling.warnings]
    if section.charts:
        section.crossovers = [(LOOKS[found.metric].title, found.sentence) for found in crossovers_of(group)]
    return section


def _exponent_row(metric: str, series: Series, scaling: Scaling) -> tuple[str, ...]:
    local = scaling.local_exponents
    return (
        LOOKS[metric].title,
        series.subject,
        numbers.exponent_of(scaling.power),
        f"{local[0]:.2f} → {local[1]:.2f}" if local is not None else "—",
        numbers.exponent_of(scaling.overhead),
        f"{series.tokens[0]:.0f} to {series.tokens[-1]:.0f}",
        str(len(series.points)),
    )


def _chart(
    id_: str, metric: str, series: list[Series], fits: dict[str, Scaling], subjects: Sequence[str], group: Group
) -> Chart:
    look = LOOKS[metric]
    pairs = [(one, fits.get(one.subject)) for one in series]
    svg = scaling_chart(id_, metric, pairs, subjects)
    caption = f"{look.title} in {look.axis} against resolution, both logarithmic; {group.variant}."
    if fits:
        caption += " Lines: the fitted power of the token count N, exponent and 95 % interval in the legend."
    if look.guides:
        caption += " Dotted: growth as N, N^1.5 and N²."
    if metric == "peak_memory_bytes":
        caption += (
            " Growth of the process over its size after the model was built: activations and workspaces, no weights."
            if group.device == "cpu"
            else " Most bytes alive at once in torch's allocator: weights, input, activations, workspaces."
        )
    rows = [
        (one.subject, f"{p.resolution[0]}×{p.resolution[1]}", f"{p.tokens:.0f}",
         numbers.value_of(p, look.factor), numbers.interval_of(p, look.factor), str(p.n_rounds))
        for one in series for p in one.points
    ]  # fmt: skip
    header = ("model", "size (px)", "tokens N", f"{look.title.lower()} ({look.axis})", "interval", "rounds")
    return Chart(
        id_, look.title, svg, caption, _describe(look.title, series, fits, look.factor, look.axis), header, rows
    )


def _describe(title: str, series: list[Series], fits: dict[str, Scaling], factor: float, unit: str) -> str:
    """The chart in words, for those who cannot see it."""
    words = []
    for one in series:
        first, last = one.points[0], one.points[-1]
        text = (
            f"{one.subject} goes from {numbers.value_of(first, factor)} at {first.side:.0f} px "
            f"to {numbers.value_of(last, factor)} {unit} at {last.side:.0f} px"
        )
        fit = fits[one.subject].power if one.subject in fits else None
        words.append(text + (f", as N^{fit.exponent:.2f}" if isinstance(fit, PowerFit) else ""))
    return f"{title}: " + "; ".join(words) + "."


TABLE = (
    ("latency_s", "latency (ms)", 1e3),
    ("throughput_images_per_s", "images/s", 1.0),
    ("macs", "GMAC per image", 1e-9),
    ("flops", "GFLOP per image", 1e-9),
    ("params", "parameters (M)", 1e-6),
    ("peak_memory_bytes", "peak memory (MiB)", 2.0**-20),
    ("peak_allocated_bytes", "torch allocator peak (MiB)", 2.0**-20),
    ("peak_reserved_bytes", "reserved (MiB)", 2.0**-20),
    ("nvml_process_bytes", "NVML process (MiB)", 2.0**-20),
    ("energy_per_image_j", "J per image", 1.0),
    ("largest_batch", "largest batch", 1.0),
    ("compile_time_s", "compile (s)", 1.0),
)
"""Columns of the records' table: metric, heading with unit, factor."""


def _cell(outcome: Outcome, metric: str, factor: float) -> tuple[str, str, str]:
    """Value, interval, and how it was taken or why it is not there."""
    point = outcome.points.get(metric)
    taken = outcome.metric(metric)
    if point is None:
        return "—", "", (taken.unavailable or "") if taken is not None else outcome.reason or "not measured"
    return numbers.value_of(point, factor), numbers.interval_of(point, factor), taken.how if taken is not None else ""


def _notes(outcome: Outcome) -> str:
    """How the model was built, in a few words."""
    subject: dict[str, Any] = next((r.subject for r in outcome.records if r.subject), {})
    if not subject:
        return ""
    sizing = subject.get("input", {})
    changed = [f"{key} {value}" for key, value in (sizing.get("changed") or {}).items()]
    more = f" and {len(changed) - 2} more" if len(changed) > 2 else ""
    words = [str(subject.get("form", "")), str(subject.get("precision", ""))]
    if "fused" in str(subject.get("attention")):
        words.append(f"attention {subject['attention']}")
    words.append(f"size by {sizing.get('how')}" + (f" ({'; '.join(changed[:2])}{more})" if changed else ""))
    return "; ".join(word for word in words if word)


def _environment_rows(environment: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in environment.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            rows += _environment_rows(value, f"{name}.")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for i, item in enumerate(value):
                rows += _environment_rows(item, f"{name}.{i}.")
        elif value not in (None, [], ""):
            rows.append((name, str(value)))
    return rows
