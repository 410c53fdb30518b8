"""From answers, image by image, to accuracies with intervals. Pure functions of counts and arrays."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from vheatbench.stats import CONFIDENCE, Interval, wilson
from vheatbench.studies.accuracy.classes import ClassMap

Ints = npt.NDArray[np.int32]


@dataclass(frozen=True)
class ClassResult:
    """One class of the data, and what its images were taken for."""

    name: str
    images: int
    correct: int
    accuracy: Interval
    taken_for: list[tuple[str, int]]
    """Wrong answers and how often, the most frequent first."""


def mean_interval(values: npt.NDArray[np.float64], confidence: float = CONFIDENCE) -> Interval:
    """Mean with its normal interval; exact sums, so that the order of values does not matter.

    Of one value the interval is the value. Raises ValueError for none.
    """
    n = len(values)
    if n == 0:
        raise ValueError("mean of no values")
    mean = math.fsum(values.tolist()) / n
    if n == 1:
        return Interval(mean, mean, mean, 0.0)
    deviation = math.sqrt(math.fsum(((values - mean) ** 2).tolist()) / (n - 1))
    half = NormalDist().inv_cdf((1 + confidence) / 2) * deviation / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, confidence)


def by_class(predicted: Ints, targets: Ints, names: tuple[str, ...], classes: ClassMap) -> list[ClassResult]:
    """Every class that has images, the worst first; of equal accuracy the one with more images first.

    Args:
        predicted: outputs of the head, shape (N,).
        targets: classes of the data, shape (N,).
        names: of the classes of the data.
        classes: what outputs mean.
    """
    results = []
    for target in np.unique(targets).tolist():
        answers = Counter(predicted[targets == target].tolist())
        right = classes.outputs[target]
        n, correct = sum(answers.values()), answers.pop(right, 0)
        wrong = sorted(answers.items(), key=lambda item: (-item[1], item[0]))
        taken_for = [(classes.name(output), count) for output, count in wrong]
        results.append(ClassResult(names[target], n, correct, wilson(correct, n), taken_for))
    return sorted(results, key=lambda result: (result.accuracy.value, -result.images, result.name))
