"""From a training's epochs to its record: one per model, its metrics those at the end, its curves as samples."""

from __future__ import annotations

from vheatbench.stats import median_interval, wilson
from vheatbench.store.schema import Direction, Metric, Record, Samples
from vheatbench.studies.training.progress import COLUMNS, Progress


def fill(record: Record, progress: Progress, test_images: int, parameters: int, peak_how: str) -> None:
    """Write the metrics of a finished training into its record.

    Args:
        record: of the model; its samples become the curves, one value per epoch.
        progress: with at least one finished epoch.
        test_images: behind every accuracy.
        parameters: of the model as it trains.
        peak_how: how the peak of memory was taken.
    """
    history, metrics = progress.history, record.metrics
    add_curves(record, progress)
    epochs = len(history["train_loss"])
    for name, what in (("top1_accuracy", "the weights"), ("ema_top1_accuracy", "the weights' moving average")):
        if name in history:
            right = round(history[name][-1] * test_images)
            how = f"{right} of {test_images} test images by {what} after epoch {epochs}; Wilson's interval"
            metrics[name] = _interval(*wilson(right, test_images), unit="share", direction="higher", how=how)
    best = max(history["top1_accuracy"])
    how = f"highest of {epochs} epochs, chosen on the test images themselves: optimistic"
    metrics["best_top1_accuracy"] = Metric(value=best, unit="share", direction="higher", how=how)
    metrics["train_loss"] = _last(
        history, "train_loss", f"mean over the updates of epoch {epochs}, as it was minimised"
    )
    metrics["test_loss"] = _last(
        history, "test_loss", f"mean cross entropy of {test_images} images after epoch {epochs}"
    )
    over = f"median of {epochs} epochs, order-statistic interval; images loaded and augmented, test left out"
    for name, direction in (("throughput_images_per_s", "higher"), ("epoch_s", "lower")):
        found = median_interval(history[name])
        metrics[name] = _interval(*found, unit=COLUMNS[name], direction=direction, how=over)  # type: ignore[arg-type]
    waited, total = sum(history["waiting_s"]), sum(history["epoch_s"])
    how = "share of all epochs' seconds that the model waited for images"
    metrics["waiting_share"] = Metric(value=waited / total, unit="share", direction="lower", how=how)
    how = f"sum over {epochs} epochs, interruptions left out"
    metrics["training_s"] = Metric(value=total + sum(history["test_s"]), unit="s", direction="lower", how=how)
    metrics["peak_memory_bytes"] = (
        Metric(value=progress.peak_bytes, unit="bytes", direction="lower", how=peak_how)
        if progress.peak_bytes is not None
        else Metric(
            unit="bytes",
            direction="lower",
            how=peak_how,
            unavailable="the kernel's peak cannot be reset here, or nothing grew",
        )
    )
    how = "counted, as it trains"
    metrics["params"] = Metric(value=parameters, unit="parameters", direction="lower", how=how, deterministic=True)


def name_of(record: Record) -> str:
    """What the recipe calls the model."""
    return str(record.conditions.get("name") or record.case.subject)


def add_curves(record: Record, progress: Progress) -> None:
    """Write the numbers of every finished epoch into the record's samples."""
    record.samples = {name: Samples(unit=COLUMNS[name], values=values) for name, values in progress.history.items()}


def _interval(
    value: float, low: float, high: float, confidence: float, *, unit: str, direction: Direction, how: str
) -> Metric:
    ends = {"low": low, "high": high, "confidence": confidence} if high > low else {}
    return Metric(value=value, unit=unit, direction=direction, how=how, **ends)  # type: ignore[arg-type]


def _last(history: dict[str, list[float]], name: str, how: str) -> Metric:
    return Metric(value=history[name][-1], unit=COLUMNS[name], direction="lower", how=how)
