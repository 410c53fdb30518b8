"""The tables of heat runs on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vheatbench.store.read import Run
    from vheatbench.store.schema import Record

REACH = (
    ("diffusion_length_cells", "length cells", 1.0),
    ("diffusion_length_px", "px", 1.0),
    ("diffusion_length_share", "% of side", 100.0),
)
COLUMNS = {
    "diffuse": (
        ("k_mean_cells2", "mean k", 1.0),
        ("k_zero_share", "k = 0 %", 100.0),
        *REACH,
        ("source_kept", "kept at t=1 %", 100.0),
        ("mass_error", "mass error", 1.0),
        ("undershoot", "undershoot", 1.0),
    ),
    "diffusivity": (
        ("k_mean_cells2", "mean k", 1.0),
        ("k_q25_cells2", "q25", 1.0),
        ("k_median_cells2", "median", 1.0),
        ("k_q75_cells2", "q75", 1.0),
        ("k_max_cells2", "max", 1.0),
        ("k_zero_share", "k = 0 %", 100.0),
        *REACH,
        ("decay_mean", "mean decay", 1.0),
        ("half_decay_frequency_rad_per_cell", "half at rad/cell", 1.0),
    ),
    "kernel": (
        ("peak", "peak", 1.0),
        ("mass_error", "mass error", 1.0),
        ("undershoot", "undershoot", 1.0),
        ("overshoot", "overshoot", 1.0),
        ("neumann_error", "off the heat kernel %", 100.0),
        ("finite_difference_error", "off differences %", 100.0),
    ),
}
"""Metric, heading with unit, factor from the metric's unit, by kind of analysis. k is in cells squared."""

ROW = {"diffuse": "k", "diffusivity": "layer", "kernel": "k t"}
"""What a row is called by."""

CAPTIONS = {
    "diffuse": "k in cells²; length = sqrt(2 mean k), one conduction; % of the shorter side; "
    "kept: heat left in the source's cell",
    "diffusivity": "k in cells² over frequencies and channels; length = sqrt(2 mean k); decay exp(-k w²); "
    "half: lowest |w| at which its median is 1/2",
    "kernel": "heat 1 in one cell; largest differences in % of the other's peak; float64",
}


def print_heat(run: Run) -> None:
    """One line per record on stdout; what is wrong with the file and every warning below it, on stderr."""
    from vheatbench.present.terminal import print_warnings

    for kind in COLUMNS:
        records = [record for record in run.records if record.case.analysis.get("kind") == kind]
        if records:
            _print_kind(kind, records, f"{run.header.suite}, {run.header.created}")
    print_warnings(run.problems, ((_label(record), record.warnings) for record in run.records))


def _print_kind(kind: str, records: list[Record], title: str) -> None:
    from vheatbench.present.terminal import Column, print_table

    rows = [_named(kind, record) for record in records]
    # what all rows share stands once, above them; the first name stays, so that a row is never without one
    own = [key for key in rows[0] if key == ROW[kind] or len({row[key] for row in rows}) > 1]
    shared = [f"{key} {text}" for key, text in rows[0].items() if key not in own and text]
    cells = [
        [
            *(row[key] for key in own),
            *(_cell(record, metric, factor) for metric, _, factor in COLUMNS[kind]),
            "" if record.status == "ok" else f"{record.status}: {record.reason}",
        ]
        for row, record in zip(rows, records, strict=True)
    ]
    columns = [
        *(Column(key, "name") for key in own),
        *(Column(heading) for _, heading, _ in COLUMNS[kind]),
        Column("notes", "notes"),
    ]
    print_table(columns, cells, title=", ".join([title, *shared]), caption=CAPTIONS[kind])


def _named(kind: str, record: Record) -> dict[str, str]:
    """What tells the rows apart."""
    case, analysis, conditions = record.case, record.case.analysis, record.conditions
    if kind == "kernel":
        return {
            "grid": case.size,
            "source": ",".join(map(str, analysis["source"])),
            "k t": f"{analysis['kt_cells2']:g}",
        }
    named = {
        "model": case.subject,
        "size": case.size,
        "rule": str(analysis.get("rule", "")),
        "layer": analysis["layer"],
    }
    if kind == "diffuse":
        named |= {"k": str(conditions.get("k", analysis["k"])), "channel": str(conditions.get("channel", ""))}
    return {
        **named,
        "grid": "x".join(map(str, conditions.get("grid", []))),
        "weights": str(conditions.get("weights", "")),
    }


def _cell(record: Record, name: str, factor: float) -> str:
    metric = record.metrics.get(name)
    if metric is None or metric.value is None:
        return "—" if record.status != "ok" or metric is not None else ""
    return f"{metric.value * factor:.3g}"


def _label(record: Record) -> str:
    """The record in a few words."""
    case, analysis = record.case, record.case.analysis
    if analysis.get("kind") == "kernel":
        return f"k t {analysis['kt_cells2']:g}"
    words = [case.subject, case.size, analysis["layer"], analysis.get("rule", ""), record.conditions.get("k", "")]
    return " ".join(filter(None, words))
