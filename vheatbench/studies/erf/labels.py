"""What tells receptive fields apart, in words: legends, titles of panels and what all of them share."""

from __future__ import annotations

from collections.abc import Sequence

from vheatbench.present.style import shorten, shown
from vheatbench.studies.erf.results import ErfResult

PARTS = ("subject", "layer", "resolution", "conduction", "weights", "dtype", "protocol")
"""What a field is of."""

RANDOM = "random weights"

LONGEST = 44
"""Signs of a label that a legend in one column has room for."""


def words(result: ErfResult, part: str, length: int = 36) -> str:
    """One part in words; empty where there is nothing to say (conduction of a model that has none)."""
    height, width = result.resolution
    if part == "resolution":
        return f"{height} px" if height == width else f"{height}×{width} px"
    if part == "conduction":
        k = shown(result.conduction)
        return {"": "", "learned": "learned k", "none": "no conduction"}.get(k, f"constant k = {k}")
    if part == "weights":
        return RANDOM if result.random else shorten(result.weights, length)
    if part == "protocol":
        return {"centre": "", "replknet": "RepLKNet's protocol"}.get(result.protocol, shown(result.protocol))
    if part == "dtype":
        return result.record.case.dtype
    return shorten(str(getattr(result, part)), length)


def differing(results: Sequence[ErfResult]) -> list[str]:
    """The parts that are not the same in all results.

    Learned k is what a model has by itself, so that it does not differ from a model without heat conduction. A layer
    only differs where a subject has several of them: each model has its own names.
    """
    found = []
    for part in PARTS:
        if part == "layer":
            if any(len(layers) > 1 for layers in _layers(results).values()):
                found.append(part)
        elif len({words(result, part, 999) if part != "conduction" else _ablation(result) for result in results}) > 1:
            found.append(part)
    return found


def _layers(results: Sequence[ErfResult]) -> dict[str, set[str]]:
    layers: dict[str, set[str]] = {}
    for result in results:
        layers.setdefault(result.subject, set()).add(result.layer)
    return layers


def _ablation(result: ErfResult) -> str:
    return "" if result.conduction == "learned" else result.conduction


def labels(results: Sequence[ErfResult], without: Sequence[str] = ()) -> list[str]:
    """One label per result from the parts that differ; the subject where nothing does. No two are alike.

    Args:
        results: what is drawn together.
        without: parts that the figure says otherwise, for example on an axis.
    """
    parts = [part for part in differing(results) if part not in without] or ["subject"]
    for length in (36, 28, 20, 14, 10):
        found = [", ".join(text for part in parts if (text := words(one, part, length))) for one in results]
        if all(len(label) <= LONGEST for label in found):
            break
    found = [label or words(result, "subject") for label, result in zip(found, results, strict=True)]
    seen: dict[str, int] = {}
    for place, label in enumerate(found):
        seen[label] = seen.get(label, 0) + 1
        if seen[label] > 1:
            # names that differ only where they were cut
            found[place] = f"{label} ({seen[label]})"
    return found


def common(results: Sequence[ErfResult], without: Sequence[str] = ()) -> str:
    """What all results share, with the number of images and whether the weights are random."""
    if not results:
        return ""
    apart = differing(results)
    said = [
        words(results[0], part)
        for part in PARTS
        if part not in apart and part not in without and part not in ("layer", "dtype", "conduction")
    ]
    if len({result.subject for result in results}) == 1 and "layer" not in apart and "layer" not in without:
        said.insert(1, words(results[0], "layer"))
    counts = sorted({result.n_images for result in results})
    if len(counts) > 1:
        said.append(f"{counts[0]} to {counts[-1]} images")
    else:
        said.append("1 image" if counts[0] == 1 else f"{counts[0]} images")
    return ", ".join(text for text in said if text)


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
        key = tuple(words(result, part, 999) for part in PARTS if part != "layer")
        if key not in last or result.depth > last[key].depth:
            last[key] = result
    return list(last.values())


def series(results: Sequence[ErfResult], along: str) -> list[list[ErfResult]]:
    """Results that differ in ``along`` only, two or more, in its order: ``layer`` by depth, ``resolution`` by area."""
    found: dict[tuple[str, ...], dict[object, ErfResult]] = {}
    for result in results:
        key = tuple(words(result, part, 999) for part in PARTS if part != along)
        found.setdefault(key, {}).setdefault(getattr(result, along), result)
    if along == "layer":
        ordered = [sorted(group.values(), key=lambda one: one.depth) for group in found.values()]
    else:
        ordered = [
            sorted(group.values(), key=lambda one: (one.resolution[0] * one.resolution[1], one.resolution))
            for group in found.values()
        ]
    return [group for group in ordered if len(group) > 1]
