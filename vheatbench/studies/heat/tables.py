"""Numbers of heat for Markdown and LaTeX: diffusion, diffusivity, point response."""

from __future__ import annotations

from collections.abc import Callable

from vheatbench.case import Case
from vheatbench.present.parts import StudyTable
from vheatbench.store.schema import Record


def _place(record: Record) -> tuple[str, str, str]:
    return record.case.subject, record.case.size, str(record.case.analysis.get("layer", ""))


def _diffusion_names(record: Record) -> tuple[str, ...]:
    analysis = record.case.analysis
    return (*_place(record), str(record.conditions.get("k", analysis.get("k", ""))))


def _block_names(record: Record) -> tuple[str, ...]:
    return (*_place(record), str(record.case.analysis.get("rule", "")))


def _kernel_names(record: Record) -> tuple[str, ...]:
    analysis = record.case.analysis
    source = analysis.get("source", ())
    return (
        record.case.size,
        ", ".join(map(str, source)) if isinstance(source, list) else str(source),
        f"{analysis.get('kt_cells2', '')}",
    )


def _of_kind(kind: str) -> Callable[[Case], bool]:
    return lambda case: case.mode == "heat" and case.analysis.get("kind") == kind


TABLES = (
    StudyTable("heat diffusion", ("model", "size", "layer", "k"), _diffusion_names, "diffuse", _of_kind("diffuse")),
    StudyTable(
        "diffusivity", ("model", "size", "layer", "resizing"), _block_names, "diffusivity", _of_kind("diffusivity")
    ),
    StudyTable("point response", ("grid", "source", "kt (cells²)"), _kernel_names, "kernel", _of_kind("kernel")),
)
