"""What a step cost, per image, where the batch is the largest that fits.

A step of 4096 images and one of 2048 are no costs of the same thing. So whoever compares, fits or shows records takes
them by :func:`compared`: the costs of such a step are then gone, and the same per image stand there under names of
their own. What asks for a cost by the name of a step finds the right one by :func:`compared_name`.
"""

from __future__ import annotations

from vheatbench.case import Case
from vheatbench.metrics import CATALOGUE
from vheatbench.store.schema import Metric, Record, Samples

PER_IMAGE = {info.step: info.name for info in CATALOGUE.values() if info.step}
"""From every metric of a whole step to the same per image."""
OF_STEP = {image: step for step, image in PER_IMAGE.items()}

SHARED = ("macs", "flops")
"""Per image already, but of an operator's step, whose part that no image has of its own is spread over the batch."""


def step_name(metric: str) -> str:
    """The metric of a step that one per image comes from; any other name as it is."""
    return OF_STEP.get(metric, metric)


def compared_name(case: Case, metric: str) -> str:
    """The name by which a metric of a step is compared in this case: per image, or as it is."""
    return PER_IMAGE.get(metric, metric) if case.batch == "largest" else metric


def images_per_step(record: Record) -> float | None:
    """The batch that was measured; None where the record does not know the largest that fitted."""
    if record.case.batch != "largest":
        return record.case.batch
    found = record.metrics.get("largest_batch")
    return found.value if found is not None and found.value else None


def compared(record: Record) -> Record:
    """The record as cases are compared: costs of a step per image where its batch is the largest that fits.

    They are no longer deterministic then, for the batch is what a search found. Where the record does not know its
    batch, they are unavailable. A record of a fixed batch, or one that was taken so already, is returned as it is.
    """
    if record.case.batch != "largest" or not PER_IMAGE.keys() & record.metrics.keys():
        return record
    images = images_per_step(record)
    metrics = {
        PER_IMAGE.get(name, name): _per_image(metric, images) if name in PER_IMAGE else metric
        for name, metric in record.metrics.items()
    }
    if record.case.kind == "operator":
        metrics |= {
            name: metrics[name].model_copy(update={"deterministic": False}) for name in SHARED if name in metrics
        }
    samples = {name: found for name, found in record.samples.items() if name not in PER_IMAGE}
    if images is not None:
        samples |= {
            PER_IMAGE[name]: _samples_per_image(found, images)
            for name, found in record.samples.items()
            if name in PER_IMAGE
        }
    return record.model_copy(update={"metrics": metrics, "samples": samples})


def with_per_image(record: Record) -> Record:
    """The record with both: what its step cost as it was measured, and the same per image."""
    taken = compared(record)
    return record.model_copy(update={"metrics": {**record.metrics, **taken.metrics}}) if taken is not record else record


def _per_image(metric: Metric, images: float | None) -> Metric:
    changes: dict[str, object] = {"unit": f"{metric.unit}/image", "deterministic": False}
    if images is None:
        reason = metric.unavailable or "the record does not say how many images its step had"
        return metric.model_copy(update={**changes, "value": None, "low": None, "high": None, "unavailable": reason})
    for end in ("value", "low", "high"):
        number = getattr(metric, end)
        changes[end] = number / images if number is not None else None
    changes["how"] = f"of a step of the largest batch, over its images; {metric.how}"
    return metric.model_copy(update=changes)


def _samples_per_image(samples: Samples, images: float) -> Samples:
    changes = {
        "unit": f"{samples.unit}/image",
        "values": [value / images for value in samples.values],
        "warmup": [value / images for value in samples.warmup],
    }
    return samples.model_copy(update=changes)
