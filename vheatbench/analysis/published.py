"""A run beside published tables: what is printed, what the source's code gives, what was measured, what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vheatbench.analysis.outcomes import Outcome
from vheatbench.analysis.series import Point

ACCURACIES = {
    "classification": (("acc1", "top1_accuracy", "acc@1"),),
    "detection": (("box_map", "box_map", "box mAP"), ("mask_map", "mask_map", "mask mAP")),
    "segmentation": (("miou", "miou", "mIoU"),),
}
"""By kind of table: the key in the published row, the metric of a record in mode ``eval``, the heading."""


TESTED_ON = {
    "classification": ("ImageNet-1K's validation part", 50_000),
    "detection": ("COCO's val2017", 5_000),
    "segmentation": ("ADE20K's validation part", 2_000),
}
"""By kind of table: what the published accuracies are of, and how many images it has."""


@dataclass(frozen=True)
class Check:
    """One number against its reference. ``passed`` is None where there is nothing to check against."""

    measured: float | None
    published: float | None
    """As printed by the source, rounded."""
    exact: float | None
    """What the source's own code gives: the number that is checked."""
    difference: float | None
    """Relative, signed: 0.01 is 1 % more than ``exact``."""
    passed: bool | None


@dataclass(frozen=True)
class PublishedRow:
    """One subject of the table."""

    subject: str
    variant: str
    params: Check
    macs: Check
    throughput: Check
    acc1: float | None


@dataclass(frozen=True)
class Accuracy:
    """One accuracy, published and measured."""

    heading: str
    published: float | None
    """In percent."""
    measured: Point | None
    """A share; None where no record of the run has it."""


@dataclass(frozen=True)
class PaperRow:
    """One row of a published table, with what the run knows about it."""

    subject: str
    variant: str
    """Of the case that was measured; empty where none was."""
    params: Check
    macs: Check
    """By fvcore's rules, as papers count."""
    macs_without_attention: Check | None
    """Where the source left the products of attention out."""
    macs_torch: float | None
    """Without norms, resizing and pooling."""
    throughput: Point | None
    """Images per second here."""
    published_throughput: float | None
    memory: Point | None
    """Bytes at the peak of a step."""
    accuracies: tuple[Accuracy, ...]
    status: str
    """``ok``, the status and reason of a case that could not be measured, or ``not measured``."""
    note: str
    """Why the source prints another count than its own code gives; empty where it does not."""
    commands: tuple[str, ...]
    """What would fill the empty cells, in the order to run; empty if none is."""
    left_out: tuple[str, ...] = ()
    """Why accuracies of this model that were measured are not in the row."""


@dataclass(frozen=True)
class PaperTable:
    """One published table."""

    title: str
    kind: str
    resolution: tuple[int, int]
    schedule: str
    note: str
    rows: tuple[PaperRow, ...]


def published_rows(outcomes: Sequence[Outcome], reference: dict[str, Any]) -> list[PublishedRow]:
    """Rows for the measured subjects that the reference (``Suite.reference``, as stored) knows, in its order."""
    models = reference.get("models") or {}
    tolerance = float(reference.get("tolerance") or 0.01)
    rows = []
    for outcome in outcomes:
        known = models.get(outcome.case.subject)
        # the published numbers are those of the inference form at 224
        if known is None or outcome.case.mode != "infer" or outcome.case.resolution != (224, 224):
            continue
        macs = "macs_fvcore" if "macs_fvcore" in outcome.points else "macs"
        rows.append(
            PublishedRow(
                outcome.case.subject,
                outcome.case.variant,
                _check(outcome.points, "params", known.get("params"), known.get("exact_params"), tolerance),
                _check(outcome.points, macs, known.get("macs"), known.get("exact_macs"), tolerance),
                _check(outcome.points, "throughput_images_per_s", known.get("throughput"), None, tolerance),
                known.get("acc1"),
            )
        )
    order = list(models)
    return sorted(rows, key=lambda row: order.index(row.subject))


def paper_tables(outcomes: Sequence[Outcome], reference: dict[str, Any], suite: str) -> list[PaperTable]:
    """Every table of a reference (``Suite.reference``, as stored), every row of it, measured or not.

    Args:
        outcomes: of the run.
        reference: with ``tables`` and ``tolerance``.
        suite: name of the suite that measures the rows, for the commands.
    """
    tolerance = float(reference.get("tolerance") or 0.01)
    return [_table(outcomes, table, tolerance, suite) for table in reference.get("tables") or []]


def _table(outcomes: Sequence[Outcome], table: dict[str, Any], tolerance: float, suite: str) -> PaperTable:
    size = (int(table["resolution"][0]), int(table["resolution"][1]))
    rows: list[PaperRow] = []
    for subject, printed in table["rows"].items():
        # the published numbers are those of inference
        own = [o for o in outcomes if o.case.subject == subject]
        evaluated = [o for o in own if o.case.mode == "eval" and _is_row(o, table, size)]
        measured: list[Outcome | None] = [o for o in own if o.case.mode == "infer" and o.case.resolution == size]
        rows += [_row(subject, printed, table, outcome, evaluated, tolerance, suite) for outcome in measured or [None]]
    return PaperTable(table["title"], table["kind"], size, table["schedule"], table["note"], tuple(rows))


def _is_row(evaluated: Outcome, table: dict[str, Any], size: tuple[int, int]) -> bool:
    """Whether an accuracy may be of this table: at its size; of detectors, whose images have any, by its schedule."""
    if table["kind"] == "classification":
        return evaluated.case.resolution == size
    return bool(evaluated.case.analysis.get("schedule") == table["schedule"])


def _unlike(evaluated: Outcome, kind: str) -> str:
    """What keeps an accuracy out of the table; empty where it is of the same data and a whole training."""
    data, images = TESTED_ON[kind]
    points, analysis = evaluated.points, evaluated.case.analysis
    there = sum(points[name].value for name in ("images", "images_unreadable") if name in points)
    if there != images:
        return f"tested on {there:.0f} images, {data} has {images}"
    if analysis.get("weights") == "random":
        return "random weights"
    if "steps" in analysis:
        return f"trained for {analysis['steps']} steps"
    return ""


def _row(
    subject: str,
    printed: dict[str, Any],
    table: dict[str, Any],
    outcome: Outcome | None,
    evaluated: Sequence[Outcome],
    tolerance: float,
    suite: str,
) -> PaperRow:
    points = outcome.points if outcome is not None else {}
    unlike = [_unlike(one, table["kind"]) if one.status == "ok" else one.status for one in evaluated]
    alike = [one for one, why in zip(evaluated, unlike, strict=True) if not why]
    left_out = [why for why in unlike if why]
    several = max(sum(metric in one.points for one in alike) for _, metric, _ in ACCURACIES[table["kind"]])
    left_out += [f"all but the first of {several}"] if several > 1 else []
    accuracies = tuple(
        Accuracy(heading, printed.get(key), next((o.points[metric] for o in alike if metric in o.points), None))
        for key, metric, heading in ACCURACIES[table["kind"]]
    )
    without = printed.get("exact_macs_without_attention")
    commands: list[str] = []
    if outcome is None or outcome.status != "ok":
        height, width = table["resolution"]
        size = str(height) if height == width else f"{height}x{width}"
        commands.append(f"vheatbench run --suite {suite} --model {subject} --resolution {size}")
    if any(one.published is not None and one.measured is None for one in accuracies):
        commands += fill_commands(subject, table["kind"], table["schedule"])
    return PaperRow(
        subject=subject,
        variant=outcome.case.variant if outcome is not None else "",
        params=_check(points, "params", printed.get("params"), printed.get("exact_params"), tolerance),
        macs=_check(points, "macs_fvcore", printed.get("macs"), printed.get("exact_macs"), tolerance),
        macs_without_attention=_check(points, "macs_fvcore_without_attention", printed.get("macs"), without, tolerance)
        if without
        else None,
        macs_torch=points["macs"].value if "macs" in points else None,
        throughput=points.get("throughput_images_per_s"),
        published_throughput=printed.get("throughput"),
        memory=points.get("peak_allocated_bytes") or points.get("peak_memory_bytes"),
        accuracies=accuracies,
        status=_status(outcome),
        note=printed.get("note") or "",
        commands=tuple(commands),
        left_out=tuple(dict.fromkeys(left_out)),
    )


def _status(outcome: Outcome | None) -> str:
    if outcome is None:
        return "not measured"
    return "ok" if outcome.status == "ok" else f"{outcome.status}: {outcome.reason}"


def _check(
    points: dict[str, Point], metric: str, printed: float | None, exact: float | None, tolerance: float
) -> Check:
    measured = points[metric].value if metric in points else None
    difference = measured / exact - 1 if measured is not None and exact else None
    return Check(measured, printed, exact, difference, abs(difference) <= tolerance if difference is not None else None)


def fill_commands(subject: str, kind: str, schedule: str) -> list[str]:
    """Commands that give a row its accuracy; words in capitals stand for files of the user's."""
    backbone = subject.partition(":")[2] or subject
    weights = f"{backbone.replace('-', '_')}.safetensors"
    # the official vHeat files carry a pickled configuration
    trust = " --trust-pickle" if backbone.startswith("vheat") else ""
    if kind == "classification":
        return [f"vheatbench eval --model {subject} --weights CHECKPOINT{trust} --data IMAGENET/val"]
    command, data = ("detect", "COCO") if kind == "detection" else ("segment", "ADE20K")
    out = f"{command}-{backbone}-{schedule}"
    # the printed mIoU of Swin are those of whole images, vHeat's those of windows
    test = " --test whole" if kind == "segmentation" and backbone.startswith("swin") else ""
    return [
        f"torchrun --nproc-per-node 8 -m vheatbench {command} train --model {backbone} "
        f"--backbone-weights CHECKPOINT{trust} --data {data} --schedule {schedule} --out {out}",
        f"vheatbench {command} eval --weights {out}/{weights} --data {data}{test}",
    ]
