"""The accuracy of a detector or segmenter as a run of one record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vheatbench.case import Case, DeviceType
from vheatbench.measure.environment import environment
from vheatbench.run.recording import new_header
from vheatbench.store.schema import Metric, Record
from vheatbench.store.write import RunWriter
from vheatbench.studies.dense.detection import DetectionResult
from vheatbench.studies.dense.files import TrainedFile
from vheatbench.studies.dense.segmentation import SegmentationResult
from vheatbench.studies.dense.task import DataFolder, Task


def write_evaluation(
    task: Task,
    trained: TrainedFile,
    folder: DataFolder,
    result: DetectionResult | SegmentationResult,
    results: Path,
    *,
    data_name: str,
    options: dict[str, Any],
    device: DeviceType,
    command: str,
    started: str,
) -> Path:
    """Write a run with one record in mode ``eval`` and return its path.

    Args:
        task, trained, folder: what was tested, and on which data.
        result: what came out.
        results: folder for the run's file.
        data_name: what the data are called.
        options: what of the test itself was chosen, e.g. several scales.
        device, command, started: how and when.

    Raises:
        StoreError, UserError: it cannot be written.
    """
    about = trained.about
    training = about.get("training") or {}
    steps, published = training.get("steps"), training.get("published_steps")
    whole = steps is not None and steps == published
    analysis = {
        "schedule": about["schedule"],
        **({} if whole else {"steps": f"{steps or 'unknown'} of {published or 'unknown'}"}),
        "data": folder.fingerprint,
        "weights": trained.sha256[:12],
        **options,
    }
    subject = f"{task.model}:{about['model']}"
    case = Case(subject=subject, resolution=task.image_size(about), mode="eval", device=device, analysis=analysis)
    metrics = {
        name: Metric(value=value, unit="share", direction="higher", how=result.how)
        for name, value in result.scores.items()
    }
    metrics["images"] = Metric(value=result.images, unit="images", how="counted", deterministic=True)
    metrics["throughput_images_per_s"] = Metric(
        value=result.images / result.model_s,
        unit="images/s",
        direction="higher",
        how="images over seconds of the model alone, batch 1, first images included, of the slowest process",
    )
    weights = f"{trained.path.name} (sha256 {trained.sha256[:12]})"
    data = {"name": data_name, "fingerprint": folder.fingerprint, "images": result.images, **folder.facts}
    record = Record(
        case=case,
        case_id=case.id,
        status="ok",
        metrics=metrics,
        conditions={"data": data},
        warnings=folder.warnings,
        subject={"name": subject, "weights": weights, "form": "training form", **about},
        started=started,
    )
    header = new_header(f"{task.command}-eval", task.measures, command, environment(), plan=[case])
    with RunWriter.create(results, header) as writer:
        writer.append(record)
        return writer.finish()
