"""Numbers of receptive fields as tables and sentences; from records alone, so that they stand without the maps."""

from __future__ import annotations

import math
from collections.abc import Sequence

from vheatbench import numbers
from vheatbench.analysis.findings import Finding
from vheatbench.analysis.groups import is_focus
from vheatbench.present.parts import StudyTable, Table
from vheatbench.store.read import Run
from vheatbench.store.schema import Metric, Record
from vheatbench.studies.erf.maps import with_interval

COLUMNS = (
    ("erf_images", "images", 1.0),
    ("erf_a50", "A50 (% of the image)", 100.0),
    ("erf_a99", "A99 (%)", 100.0),
    ("erf_radius_px", "RMS radius (px)", 1.0),
    ("erf_radius_share", "RMS radius (% of the shorter side)", 100.0),
    ("erf_major_px", "long axis (px)", 1.0),
    ("erf_minor_px", "short axis (px)", 1.0),
    ("erf_entropy_area", "entropy area (%)", 100.0),
    ("erf_rect50", "r at 50 % (%)", 100.0),
)
"""Metric, heading with unit, factor."""


def erf_records(run: Run) -> list[Record]:
    """Records of measured receptive fields, failed ones left out."""
    return [record for record in run.records if record.case.mode == "erf" and record.status == "ok"]


def metric_of(record: Record, name: str) -> Metric | None:
    """A metric that has a value."""
    found = record.metrics.get(name)
    return found if found is not None and found.value is not None else None


def cell_of(record: Record, name: str, factor: float, unit: str = "") -> str:
    """``4.0 (3.8 to 4.3)``, or a dash."""
    metric = metric_of(record, name)
    if metric is None or metric.value is None:
        return "—"
    return f"{metric.value:.0f}" if name == "erf_images" else with_interval(metric, factor, unit)


def name_of(record: Record) -> tuple[str, str, str, str]:
    """Model, size, layer and state (weights and conduction) in words."""
    analysis = record.case.analysis
    weights = str(analysis.get("weights", "random"))
    state = "random weights" if weights == "random" else str(record.conditions.get("weights", weights))
    k = str(analysis.get("conduction", "learned"))
    if k != "learned":
        state += ", no conduction" if k == "none" else f", constant k = {k}"
    if analysis.get("protocol") == "replknet":
        state += ", RepLKNet's protocol"
    if record.case.dtype != "float32":
        state += f", {record.case.dtype}"
    return record.case.subject, record.case.size, str(analysis.get("layer", "")), state


def numbers_table(id_: str, records: Sequence[Record]) -> Table:
    """Every measured field with its numbers."""
    columns = [column for column in COLUMNS if any(column[0] in record.metrics for record in records)]
    rows = [(*name_of(record), *(cell_of(record, name, factor) for name, _, factor in columns)) for record in records]
    caption = (
        "In brackets the interval, from leaving out groups of photographs (or images of noise), each with all its "
        "views. A50 and A99: smallest share of the pixels that holds half and 99 % of the mass. RMS radius about the "
        "centre of the cells. Entropy area: exp(entropy) over the number of pixels. r: share of the image in the "
        "smallest centred square that holds half of the raw mass. The rankings by A50 and by A99 often differ: a "
        "field can be sharp and wide at once."
    )
    header = ("model", "size", "layer", "weights", *(heading for _, heading, _ in columns))
    return Table(id_, "Receptive fields in numbers", caption, header, rows)


def erf_findings(records: Sequence[Record]) -> list[Finding]:
    """vHeat's field against every other model's of like state at the largest common size, what conduction adds, and
    what grows with the image.

    Without a vHeat, the first model's. Of every model the deepest layer counts.
    """
    deepest: dict[tuple[str, str], dict[tuple[int, int], Record]] = {}
    for record in records:
        subject, _, _, state = name_of(record)
        sizes = deepest.setdefault((subject, state), {})
        known = sizes.get(record.case.resolution)
        if known is None or _depth(record) > _depth(known):
            sizes[record.case.resolution] = record
    subjects = list(dict.fromkeys(subject for subject, _ in deepest))
    focus = [subject for subject in subjects if is_focus(subject)] or subjects[:1]
    found: list[Finding | None] = []
    for (subject, state), sizes in deepest.items():
        if subject not in focus:
            continue
        for other in subjects:
            common = _largest_common(sizes, deepest.get((other, state), {}))
            if other not in focus and common is not None:
                found.append(_against(*common, state))
        common = _largest_common(sizes, deepest.get((subject, f"{state}, no conduction"), {}))
        if common is not None:
            found.append(_conduction(*common, state))
    found += [_growth(list(sizes.values()), state) for (_, state), sizes in deepest.items() if len(sizes) > 1]
    return [finding for finding in found if finding is not None]


Sizes = dict[tuple[int, int], Record]


def _largest_common(own: Sizes, other: Sizes) -> tuple[Record, Record] | None:
    common = sorted(set(own) & set(other), key=lambda size: (size[0] * size[1], size))
    return (own[common[-1]], other[common[-1]]) if common else None


def _depth(record: Record) -> int:
    depth = record.conditions.get("depth", 0)
    return depth if isinstance(depth, int) else 0


def _against(record: Record, baseline: Record, state: str) -> Finding | None:
    half, whole = (_compared(record, baseline, metric) for metric in ("erf_a50", "erf_a99"))
    if half is None or whole is None:
        return None
    text = (
        f"With {state}, at {record.case.size} px half of {record.case.subject}'s receptive field (A50) lies in {half} "
        f"{baseline.case.subject}'s, and 99 % of it (A99) in {whole}."
    )
    return Finding(text, "erf_maps", important=True)


def _conduction(record: Record, plain: Record, state: str) -> Finding | None:
    whole = _compared(record, plain, "erf_a99")
    if whole is None:
        return None
    text = (
        f"With {state}, at {record.case.size} px 99 % of {record.case.subject}'s receptive field lies in {whole} that "
        "of the same weights without conduction."
    )
    return Finding(text, "erf_maps")


def _growth(records: Sequence[Record], state: str) -> Finding | None:
    """A50 and A99 at the smallest and at the largest size."""
    first, *_, last = sorted(records, key=lambda record: record.case.pixels)
    ends = [cell_of(record, name, 100.0, "%") for name in ("erf_a50", "erf_a99") for record in (first, last)]
    if "—" in ends:
        return None
    text = (
        f"With {state}, from {first.case.size} to {last.case.size} px {first.case.subject}'s A50 goes from {ends[0]} "
        f"to {ends[1]} of the image, its A99 from {ends[2]} to {ends[3]}."
    )
    return Finding(text, "erf_resolution")


def _compared(record: Record, baseline: Record, name: str) -> str | None:
    """``4.0 % (3.8 to 4.3) of the image, 2.4× (2.1 to 2.7)``; the ratio with the most cautious interval."""
    own, other = metric_of(record, name), metric_of(baseline, name)
    if own is None or other is None or not own.value or not other.value:
        return None
    ratio = own.value / other.value
    said = f"{with_interval(own, 100.0, '%')} of the image, "
    if own.low is None or own.high is None or other.low is None or other.high is None:
        return f"{said}{numbers.plain(ratio, 3)}×"
    low = own.low / other.high
    # an interval that reaches down to nothing bounds the ratio on one side only
    high = own.high / other.low if other.low > 0 else math.inf
    bound = (
        f"{numbers.plain(low, 2)} to {numbers.plain(high, 2)}" if other.low > 0 else f"{numbers.plain(low, 2)} or more"
    )
    return f"{said}{numbers.plain(ratio, 2)}× ({bound})" + (", no clear difference," if low <= 1 <= high else "")


TABLES = (
    StudyTable(
        "effective receptive fields",
        ("model", "size", "layer", "weights"),
        name_of,
        "erf_paper",
        lambda case: case.mode == "erf",
    ),
)
