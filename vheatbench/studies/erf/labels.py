"""What stands beside a receptive field: its model, layer, size and state in words, and its numbers."""

from __future__ import annotations

from collections.abc import Sequence

from vheatbench import numbers
from vheatbench.case import OWN_WEIGHTS
from vheatbench.metrics import info_of
from vheatbench.present.style import shorten, shown, size_words
from vheatbench.store.schema import Metric, Record
from vheatbench.studies.erf.results import ErfResult

STATE = ("weights", "protocol", "dtype", "conduction")
PARTS = ("subject", "layer", "resolution", "conduction", "weights", "dtype", "protocol")
"""What a field is of."""

RANDOM = "random weights"

LONGEST = 44
"""Characters of a label that a legend in one column has room for."""


def words(record: Record, part: str, length: int = 36) -> str:
    """One part in words; empty where there is nothing to say (conduction of a model that has none)."""
    case, analysis, conditions = record.case, record.case.analysis, record.conditions
    if part == "resolution":
        return size_words(case.resolution)
    if part == "conduction":
        k = shown(str(conditions.get(part, analysis.get(part, ""))))
        return {"": "", "learned": "learned k", "none": "no conduction"}.get(k, f"constant k = {k}")
    if part == "weights":
        # a record that failed knows the file's hash alone
        known = analysis.get(part, "random")
        return RANDOM if known == "random" else shorten(str(conditions.get(part, known)), length)
    if part == "protocol":
        protocol = shown(str(analysis.get(part, "centre")))
        return {"centre": "", "replknet": "RepLKNet's protocol"}.get(protocol, protocol)
    return shorten(str(analysis.get(part, "") if part == "layer" else getattr(case, part)), length)


def state(record: Record, length: int = 999) -> str:
    """Weights, protocol, precision and conduction in words; what is usual is left out."""
    known = (words(record, part, length) for part in STATE)
    return ", ".join(text for text in known if text not in ("", "float32", "learned k"))


def differing(results: Sequence[ErfResult]) -> list[str]:
    """The parts that are not the same in all results.

    Learned k is what a model has by itself, so that it does not differ from a model without heat conduction. A layer
    only differs where a subject has several of them: each model has its own names. Weights that the subject's name
    says do not differ beside it.
    """
    subjects = {result.subject for result in results}
    layers = {(result.subject, result.layer) for result in results}
    texts = {part: {words(one.record, part, 999).replace("learned k", "") for one in results} for part in PARTS}
    texts["weights"] = {text for text in texts["weights"] if not text.startswith(OWN_WEIGHTS)}
    return [part for part in PARTS if (len(layers) > len(subjects) if part == "layer" else len(texts[part]) > 1)]


def labels(results: Sequence[ErfResult], without: Sequence[str] = ()) -> list[str]:
    """One label per result from the parts that differ; the subject where nothing does. No two are alike.

    Args:
        results: what is drawn together.
        without: parts that the figure says otherwise, for example on an axis.
    """
    parts = [part for part in differing(results) if part not in without] or ["subject"]
    for length in (36, 28, 20, 14, 10):
        found = [", ".join(filter(None, (words(one.record, part, length) for part in parts))) for one in results]
        if all(len(label) <= LONGEST for label in found):
            break
    found = [label or words(one.record, "subject") for label, one in zip(found, results, strict=True)]
    # names that differ only where they were cut
    return [
        label if (before := found[:place].count(label)) == 0 else f"{label} ({before + 1})"
        for place, label in enumerate(found)
    ]


def common(results: Sequence[ErfResult], without: Sequence[str] = ()) -> str:
    """What all results share, with the number of images and whether the weights are random."""
    if not results:
        return ""
    apart = {*differing(results), *without}
    alike = [part for part in PARTS if part not in apart and part not in ("dtype", "conduction")]
    if len({words(one.record, "weights") for one in results}) > 1 and "weights" in alike:
        alike.remove("weights")
    if len({result.subject for result in results}) > 1 and "layer" in alike:
        alike.remove("layer")
    counts = sorted({result.n_images for result in results})
    if len(counts) > 1:
        images = f"{counts[0]} to {counts[-1]} images"
    else:
        images = "1 image" if counts[0] == 1 else f"{counts[0]} images"
    return ", ".join(filter(None, [*(words(results[0].record, part) for part in alike), images]))


def title_of(results: Sequence[ErfResult], without: Sequence[str] = (), length: int = LONGEST + 4) -> str:
    """The same on as many lines as it takes, by default over axes one column wide."""
    lines = [""]
    for piece in common(results, without).split(", "):
        if lines[-1] and len(lines[-1]) + len(piece) + 2 > length:
            lines[-1] += ","
            lines.append(piece)
        else:
            lines[-1] += f", {piece}" if lines[-1] else piece
    return "\n".join(lines)


def deepest(results: Sequence[ErfResult]) -> list[ErfResult]:
    """Of every model, size and state only the deepest layer that was measured."""
    last: dict[tuple[str, ...], ErfResult] = {}
    for result in results:
        key = _parts_but(result, "layer")
        if key not in last or result.depth > last[key].depth:
            last[key] = result
    return list(last.values())


def series(results: Sequence[ErfResult], along: str) -> list[list[ErfResult]]:
    """Results that differ in ``along`` only, two or more, in its order: ``layer`` by depth, ``resolution`` by area."""
    found: dict[tuple[str, ...], dict[object, ErfResult]] = {}
    for result in results:
        found.setdefault(_parts_but(result, along), {}).setdefault(getattr(result, along), result)

    def order(one: ErfResult) -> tuple[int, ...]:
        return (one.depth,) if along == "layer" else (one.record.case.pixels, *one.resolution)

    return [sorted(group.values(), key=order) for group in found.values() if len(group) > 1]


def _parts_but(result: ErfResult, part: str) -> tuple[str, ...]:
    return tuple(words(result.record, one, 999) for one in PARTS if one != part)


def metric_of(record: Record, name: str) -> Metric | None:
    """A metric that has a value."""
    found = record.metrics.get(name)
    return found if found is not None and found.value is not None else None


def with_interval(record: Record, name: str, unit: str = "") -> str:
    """A metric as ``4.0 % (3.8 to 4.3)``; a dash where it has no value."""
    return numbers.with_interval(metric_of(record, name), info_of(name), unit)
