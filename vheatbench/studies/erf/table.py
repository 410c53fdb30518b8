"""Receptive fields on the terminal."""

from __future__ import annotations

from vheatbench.store.read import Run
from vheatbench.store.schema import Metric, Record

COLUMNS = (
    ("erf_a50", "A50", 1.0),
    ("erf_a99", "A99", 1.0),
    ("erf_radius_px", "radius px", 1.0),
    ("erf_radius_share", "radius share", 1.0),
    ("erf_entropy_area", "entropy area", 1.0),
    ("erf_rect50", "r50", 1.0),
)
"""Metric, heading, factor from the metric's unit."""


def print_fields(run: Run) -> None:
    """One line per receptive field on stdout, and below it, on stderr, every warning."""
    from vheatbench.present.terminal import Column, print_table, print_warnings

    rows = []
    for record in run.records:
        cells = [record.case.subject, record.case.size, str(record.case.analysis["layer"]), _weights(record)]
        cells.append(str(record.conditions.get("n_images", "")))
        cells += [_cell(record.metrics.get(metric), factor) for metric, _, factor in COLUMNS]
        rows.append([*cells, _axes(record), _notes(record)])
    names = [
        Column("model", "name"),
        Column("size", "name", right=True),
        Column("layer", "name"),
        Column("weights", "name"),
    ]
    print_table(
        [*names, *map(Column, ("n", *(heading for _, heading, _ in COLUMNS), "axes px")), Column("notes", "notes")],
        rows,
        title=f"Effective receptive fields on {run.device_name}, {run.header.created}",
        caption=f"A50, A99, entropy area, r50: shares of the pixels; axes: deviations{_interval_words(run)}",
    )
    print_warnings(run.problems, ((_label(record), record.warnings) for record in run.records))


def _interval_words(run: Run) -> str:
    """What the caption says of intervals; nothing where nothing was measured."""
    known = [record.metrics[name] for record in run.records for name, *_ in COLUMNS if name in record.metrics]
    if any(metric.low is not None for metric in known):
        return "; ± half the 95 % interval"
    return "; no interval: a single image, or views of a single photograph" if known else ""


def _label(record: Record) -> str:
    return f"{record.case.subject} {record.case.size} {record.case.analysis['layer']}"


def _weights(record: Record) -> str:
    conduction = record.case.analysis.get("conduction")
    k = {None: "", "none": ", k = 0"}.get(conduction, f", k = {conduction}")
    weights = str(record.case.analysis["weights"])
    if weights != "random":  # a record that failed knows the hash alone
        from vheatbench.present.style import shorten

        weights = shorten(str(record.conditions.get("weights", weights)), 40)
    return f"{weights}{k}"


def _cell(metric: Metric | None, factor: float) -> str:
    if metric is None:
        return "—"
    if metric.value is None:
        return "none"
    text = f"{metric.value * factor:.3g}"
    if metric.low is None or metric.high is None or not metric.value:
        return text
    return f"{text} ±{(metric.high - metric.low) / 2 / abs(metric.value):.0%}"


def _axes(record: Record) -> str:
    axes = [record.metrics.get(name) for name in ("erf_major_px", "erf_minor_px")]
    values = [metric.value for metric in axes if metric is not None and metric.value is not None]
    return " × ".join(f"{value:.3g}" for value in values) or "—"


def _notes(record: Record) -> str:
    if record.status != "ok":
        return f"{record.status}: {record.reason}"
    count = len(record.warnings)
    return f"{count} warning{'s' * (count > 1)}" if count else ""
