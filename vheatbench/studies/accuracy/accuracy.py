"""From answers, image by image, to accuracies with intervals. Pure functions of counts and arrays."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from vheatbench.stats import Interval
from vheatbench.studies.accuracy.classes import ClassMap

Ints = npt.NDArray[np.int32]
CONFIDENCE = 0.95


@dataclass(frozen=True)
class ClassResult:
    """One class of the data, and what its images were taken for."""

    name: str
    images: int
    correct: int
    accuracy: Interval
    taken_for: list[tuple[str, int]]
    """Wrong answers and how often, the most frequent first."""


def wilson(successes: int, n: int, confidence: float = CONFIDENCE) -> Interval:
    """A proportion with Wilson's score interval (Wilson 1927; Brown, Cai, DasGupta 2001, section 3.1.1).

    Raises:
        ValueError: not 0 <= successes <= n, or n is 0.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} of {n} is no proportion")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = successes / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # at both ends the interval reaches the end exactly; rounding must not take it past the estimate
    low = 0.0 if successes == 0 else max(0.0, middle - half)
    high = 1.0 if successes == n else min(1.0, middle + half)
    return Interval(share, low, high, confidence)


def paired_difference(gained: int, lost: int, n: int, confidence: float = CONFIDENCE) -> Interval:
    """Change of a proportion over the same n images: ``gained`` became right, ``lost`` became wrong.

    The interval is Agresti and Min's adjusted Wald interval for matched pairs (Statistics in Medicine 2005): half an
    image is added to each of the four cells. It is narrower than the two proportions' intervals suggest, because
    most images are right or wrong both times.

    Raises:
        ValueError: counts that are negative or more than n, or n is 0.
    """
    if n < 1 or min(gained, lost) < 0 or gained + lost > n:
        raise ValueError(f"{gained} gained and {lost} lost of {n} images are no counts")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    b, c, total = gained + 0.5, lost + 0.5, n + 2
    middle = (b - c) / total
    half = z * math.sqrt(max(0.0, b + c - (b - c) ** 2 / total)) / total
    return Interval((gained - lost) / n, max(-1.0, middle - half), min(1.0, middle + half), confidence)


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
