"""What a model's accuracy is over several trainings that differ in their seed alone, and what sets models apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vheatbench.stats import Interval, mean_interval
from vheatbench.store.schema import Record
from vheatbench.studies.training.record import name_of

ACCURACY = "top1_accuracy"


@dataclass(frozen=True)
class OverSeeds:
    """A model's test accuracy after the last epoch, by seed."""

    name: str
    by_seed: dict[int, float]
    """Shares of 1."""
    mean: Interval
    """Over the seeds, with Student's interval."""
    change: Interval | None
    """From the first model's, over the seeds that both have: the mean of the differences; None for the first, and where
    there are not two such seeds."""

    def changed(self) -> bool:
        """Whether the interval of the change leaves 0 out."""
        return self.change is not None and not self.change.low <= 0 <= self.change.high


def over_seeds(records: Sequence[Record]) -> list[OverSeeds]:
    """The models of one recipe on the same images that were trained with two seeds or more, in their order.

    Args:
        records: of trainings; the first model is what the others are compared with.
    """
    found: dict[str, dict[int, float]] = {}
    for record in records:
        metric, seed = record.metrics.get(ACCURACY), record.case.analysis.get("seed")
        if metric is not None and metric.value is not None and isinstance(seed, int):
            found.setdefault(name_of(record), {})[seed] = metric.value
    first = next(iter(found.values()), {})
    return [
        OverSeeds(name, own, mean_interval(list(own.values())), None if own is first else _change(own, first))
        for name, own in found.items()
        if len(own) > 1
    ]


def _change(values: dict[int, float], first: dict[int, float]) -> Interval | None:
    differences = [values[seed] - first[seed] for seed in values if seed in first]
    return mean_interval(differences) if len(differences) > 1 else None
