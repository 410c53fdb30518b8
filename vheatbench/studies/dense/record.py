"""The accuracy of a detector or segmenter as a run of one record."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vheatbench.case import Case
from vheatbench.measure.environment import environment
from vheatbench.store.schema import Header, Metric, Record
from vheatbench.store.write import RunWriter
from vheatbench.studies.dense.files import TrainedFile
from vheatbench.text import utc_now


@dataclass(frozen=True)
class Evaluation:
    """What was evaluated and what came out."""

    trained: TrainedFile
    subject: str
    """``maskrcnn:...`` or ``upernet:...``."""
    resolution: tuple[int, int]
    """Shorter side that images are resized to, and the most that the longer may have."""
    device: str
    data: str
    """Fingerprint of the data."""
    data_name: str
    """Of the folder."""
    scores: dict[str, float]
    """Shares by metric."""
    how: str
    images: int
    model_s: float
    options: dict[str, Any] = field(default_factory=dict)
    """What of the test itself was chosen, e.g. several scales."""
    data_facts: dict[str, Any] = field(default_factory=dict)
    """What else is known of the data, as JSON has it."""
    warnings: list[str] = field(default_factory=list)


def write_evaluation(done: Evaluation, results: Path, suite: str, command: str, started: str) -> Path:
    """Write a run with one record in mode ``eval`` and return its path.

    Raises:
        StoreError, UserError: it cannot be written.
    """
    training = done.trained.about.get("training") or {}
    steps, published = training.get("steps"), training.get("published_steps")
    whole = steps is not None and steps == published
    analysis = {
        "schedule": done.trained.about["schedule"],
        **({} if whole else {"steps": f"{steps or 'unknown'} of {published or 'unknown'}"}),
        "data": done.data,
        "weights": done.trained.sha256[:12],
        **done.options,
    }
    case = Case(
        subject=done.subject,
        resolution=done.resolution,
        mode="eval",
        device="cuda" if done.device == "cuda" else "cpu",
        analysis=analysis,
    )
    metrics = {
        name: Metric(value=value, unit="share", direction="higher", how=done.how) for name, value in done.scores.items()
    }
    metrics["images"] = Metric(value=done.images, unit="images", how="counted", deterministic=True)
    metrics["throughput_images_per_s"] = Metric(
        value=done.images / done.model_s,
        unit="images/s",
        direction="higher",
        how="images over seconds of the model alone, batch 1, first images included, of the slowest process",
    )
    weights = f"{done.trained.path.name} (sha256 {done.trained.sha256[:12]})"
    record = Record(
        case=case,
        case_id=case.id,
        status="ok",
        metrics=metrics,
        conditions={
            "data": {"name": done.data_name, "fingerprint": done.data, "images": done.images, **done.data_facts}
        },
        warnings=done.warnings,
        subject={"name": done.subject, "weights": weights, "form": "training form", **done.trained.about},
        started=started,
    )
    header = Header(
        run_id=secrets.token_hex(4),
        suite=suite,
        description="Box and mask mAP." if suite == "detect-eval" else "Mean intersection over union.",
        command=command,
        created=utc_now(),
        environment=environment(),
        plan=[case],
    )
    with RunWriter.create(results, header) as writer:
        writer.append(record)
        return writer.finish()
