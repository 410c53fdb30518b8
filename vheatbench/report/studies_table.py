"""The numbers of analyses (receptive fields, heat, accuracy, training) as plain tables, for Markdown and LaTeX."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vheatbench.analysis.outcomes import Outcome
from vheatbench.analysis.series import Point
from vheatbench.store.schema import Record

Column = tuple[str, str, float]
"""Metric, heading with unit, factor."""

FIELD = ("erf_images", "erf_a50", "erf_a99", "erf_radius_share", "erf_entropy_area")


@dataclass(frozen=True)
class AnalysisRow:
    """One case: its names, a point per column (None where it has none)."""

    names: tuple[str, ...]
    points: tuple[Point | None, ...]
    status: str


@dataclass(frozen=True)
class AnalysisTable:
    """Cases of one kind of analysis."""

    title: str
    heads: tuple[str, ...]
    """Of the names."""
    columns: tuple[Column, ...]
    rows: tuple[AnalysisRow, ...]


def analysis_tables(outcomes: Sequence[Outcome]) -> list[AnalysisTable]:
    """A table for every kind of analysis among the outcomes; of other outcomes nothing."""
    if all(outcome.case.timed for outcome in outcomes):
        return []
    from vheatbench.studies.accuracy.numbers import COLUMNS as ACCURACY
    from vheatbench.studies.accuracy.numbers import NAMES as ACCURACY_NAMES
    from vheatbench.studies.accuracy.numbers import names_of as accuracy_names
    from vheatbench.studies.erf.numbers import COLUMNS as ERF
    from vheatbench.studies.heat.section import DIFFUSED
    from vheatbench.studies.heat.section_diffusivity import BLOCK
    from vheatbench.studies.heat.section_kernel import RESPONSE
    from vheatbench.studies.training.section import COLUMNS as TRAINING

    of_field = tuple(column for column in ERF if column[0] in FIELD)
    trained = tuple((metric, heading, factor) for metric, heading, factor, _ in TRAINING)
    names, layered = ("model", "size", "layer"), ("model", "size", "layer", "k")
    found = [
        _table("effective receptive fields", _kind(outcomes, "erf"), (*names, "weights"), _field_names, of_field),
        _table("heat diffusion", _kind(outcomes, "diffuse"), layered, _diffusion_names, DIFFUSED),
        _table("diffusivity", _kind(outcomes, "diffusivity"), (*names, "resizing"), _block_names, BLOCK),
        _table("accuracy", _kind(outcomes, "eval"), ACCURACY_NAMES, accuracy_names, ACCURACY),
        _table("training", _kind(outcomes, "fit"), ("model", "size", "epochs"), _trained_names, trained),
        _table("point response", _kind(outcomes, "kernel"), ("grid", "source", "kt (cells²)"), _kernel_names, RESPONSE),
    ]
    return [table for table in found if table.rows]


def _kind(outcomes: Sequence[Outcome], kind: str) -> list[Outcome]:
    if kind in ("erf", "eval", "fit"):
        return [outcome for outcome in outcomes if outcome.case.mode == kind]
    heat = (outcome for outcome in outcomes if outcome.case.mode == "heat")
    return [outcome for outcome in heat if outcome.case.analysis.get("kind") == kind]


def _table(
    title: str,
    outcomes: Sequence[Outcome],
    heads: tuple[str, ...],
    names_of: Callable[[Record], tuple[str, ...]],
    columns: Sequence[Column],
) -> AnalysisTable:
    """Columns that no case fills are left out."""
    named = [names_of(outcome.records[0]) for outcome in outcomes]
    told = [i for i in range(len(heads)) if any(names[i] for names in named)]
    filled = tuple(column for column in columns if any(column[0] in outcome.points for outcome in outcomes))
    rows = (
        AnalysisRow(
            tuple(names[i] for i in told),
            tuple(outcome.points.get(metric) for metric, _, _ in filled),
            outcome.status,
        )
        for outcome, names in zip(outcomes, named, strict=True)
    )
    return AnalysisTable(title, tuple(heads[i] for i in told), filled, tuple(rows))


def _field_names(record: Record) -> tuple[str, ...]:
    from vheatbench.studies.erf.numbers import name_of

    return name_of(record)


def _trained_names(record: Record) -> tuple[str, ...]:
    from vheatbench.studies.training.section import name_of

    return name_of(record), record.case.size, str(record.case.analysis.get("epochs", ""))


def _diffusion_names(record: Record) -> tuple[str, ...]:
    analysis = record.case.analysis
    return (*_place(record), str(record.conditions.get("k", analysis.get("k", ""))))


def _block_names(record: Record) -> tuple[str, ...]:
    return (*_place(record), str(record.case.analysis.get("rule", "")))


def _place(record: Record) -> tuple[str, str, str]:
    return record.case.subject, record.case.size, str(record.case.analysis.get("layer", ""))


def _kernel_names(record: Record) -> tuple[str, ...]:
    analysis = record.case.analysis
    source = analysis.get("source", ())
    return (
        record.case.size,
        ", ".join(map(str, source)) if isinstance(source, list) else str(source),
        f"{analysis.get('kt_cells2', '')}",
    )
