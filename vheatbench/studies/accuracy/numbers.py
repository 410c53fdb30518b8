"""What an accuracy is told by: the columns of classifiers, detectors and segmenters, and the names of a case."""

from __future__ import annotations

from vheatbench.present.parts import StudyTable
from vheatbench.store.schema import Record

COLUMNS = (
    ("images", "images", 1.0),
    ("top1_accuracy", "top-1 (%)", 100.0),
    ("top1_gain", "change (points)", 100.0),
    ("top5_accuracy", "top-5 (%)", 100.0),
    ("loss", "loss (nats)", 1.0),
    ("box_map", "box mAP (%)", 100.0),
    ("box_map_50", "box AP50 (%)", 100.0),
    ("box_map_75", "box AP75 (%)", 100.0),
    ("mask_map", "mask mAP (%)", 100.0),
    ("mask_map_50", "mask AP50 (%)", 100.0),
    ("mask_map_75", "mask AP75 (%)", 100.0),
    ("miou", "mIoU (%)", 100.0),
    ("miou_multi_scale", "mIoU, several scales (%)", 100.0),
    ("pixel_accuracy", "pixels right (%)", 100.0),
    ("throughput_images_per_s", "images/s", 1.0),
    ("pipeline_images_per_s", "images/s with loading", 1.0),
)
"""Metric, heading with unit, factor from the metric's unit."""

MAIN = ("top1_accuracy", "box_map", "miou", "miou_multi_scale")
"""The metric that a case is told by, the first that it has."""


NAMES = ("model", "size", "how", "weights", "data")
"""What :func:`names_of` gives."""


def names_of(record: Record) -> tuple[str, str, str, str, str]:
    """Model, size, training and test, weights and data of a case in mode ``eval``; empty where they are not known."""
    weights = record.conditions.get("weights") or record.subject.get("weights") or ""
    data = record.conditions.get("data")
    name = str(data.get("name", "")) if isinstance(data, dict) else ""
    analysis = record.case.analysis
    how = [str(analysis[key]) for key in ("schedule", "test", "scales") if key in analysis]
    how[1:1] = [f"{analysis['steps']} steps"] if "steps" in analysis else []
    data_name = name or str(analysis.get("data", ""))
    return record.case.subject, record.case.size, ", ".join(how), str(weights), data_name


TABLES = (StudyTable("accuracy", NAMES, names_of, COLUMNS, lambda case: case.mode == "eval"),)
