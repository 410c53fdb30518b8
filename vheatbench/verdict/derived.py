"""Verdicts on what is fitted to several cases: exponents, and where one subject overtakes another."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vheatbench.analysis.crossover import Crossover
from vheatbench.analysis.findings import crossings
from vheatbench.analysis.groups import groups_of, pairs_of
from vheatbench.analysis.powerlaw import PowerFit, fit_power
from vheatbench.store.schema import Record
from vheatbench.verdict.rule import Verdict

EXPONENT_MARGIN = 0.05
"""Change of an exponent that is tolerated: 11 % more at eight times the tokens."""
METRIC = "latency_s"


@dataclass(frozen=True)
class SeriesVerdict:
    """What became of an exponent or a crossover."""

    what: str
    """``exponent`` or ``crossover``."""
    label: str
    """Of which subjects, and in which variant and on which device."""
    verdict: Verdict
    base: str
    head: str
    """The value with its interval, in words."""
    reason: str = ""


def series_verdicts(
    base: Sequence[Record], head: Sequence[Record], margin: float, capped: str | None
) -> list[SeriesVerdict]:
    """Exponents and crossovers of latency, each judged by its two intervals.

    ``regressed`` and ``improved`` where they have nothing in common and the values differ by more than the margin
    (``EXPONENT_MARGIN``; ``margin``, relative, for a crossover), ``same`` where they differ by less, else
    ``inconclusive``. With ``capped``, the reason why, ``regressed`` is ``suspect`` at most.

    ``base`` and ``head`` are records of the same cases, all of them ``ok``, in enough rounds to know the spread
    between processes: intervals within one process are too narrow for this.
    """
    found = [*_exponents(base, head), *_crossovers(base, head, margin)]
    if capped is None:
        return found
    lowered: dict[Verdict, Verdict] = {"regressed": "suspect", "improved": "inconclusive"}
    return [
        SeriesVerdict(v.what, v.label, lowered[v.verdict], v.base, v.head, capped) if v.verdict in lowered else v
        for v in found
    ]


def _exponents(base: Sequence[Record], head: Sequence[Record]) -> Iterator[SeriesVerdict]:
    before, after = _fits(base), _fits(head)
    for label, old in before.items():
        new = after.get(label)
        if new is None or old.low is None or old.high is None or new.low is None or new.high is None:
            continue
        verdict = _verdict((old.low, old.high), (new.low, new.high), new.exponent - old.exponent, EXPONENT_MARGIN)
        yield SeriesVerdict("exponent", label, verdict, _exponent(old), _exponent(new))


def _fits(records: Sequence[Record]) -> dict[str, PowerFit]:
    found = {}
    for group in groups_of(records):
        for series in group.series(METRIC):
            fit = fit_power(series.tokens, series.values)
            if isinstance(fit, PowerFit):
                found[f"{series.subject} ({series.variant}, {series.device})"] = fit
    return found


def _crossovers(base: Sequence[Record], head: Sequence[Record], margin: float) -> Iterator[SeriesVerdict]:
    before, after = _crossings(base), _crossings(head)
    for label, old in before.items():
        new = after.get(label)
        a, b = _ends(old), _ends(new) if new is not None else None
        if new is None or a is None or b is None:
            continue
        if old.value is not None and new.value is not None:
            change = math.log(new.value / old.value)
        elif old.kind == new.kind:
            change = 0.0
        else:
            change = math.inf if _rank(new) > _rank(old) else -math.inf
        verdict = _verdict(a, b, change, math.log1p(margin))
        yield SeriesVerdict("crossover", label, verdict, old.sentence, new.sentence)


def _crossings(records: Sequence[Record]) -> dict[str, Crossover]:
    return {
        f"{found.a} against {found.b} ({group.variant}, {group.device})": found
        for group in groups_of(records)
        for found in crossings(group, METRIC, pairs_of(group))
    }


def _rank(found: Crossover) -> int:
    return ("always", "crosses", "never").index(found.kind)


def _ends(found: Crossover) -> tuple[float, float] | None:
    """The sides from which on A may lead, smallest and largest; None where it is no such thing."""
    low = found.low if found.low is not None else -math.inf
    if found.kind == "always":
        return low, found.high if found.high is not None else -math.inf
    if found.kind == "crosses":
        return low, found.high if found.high is not None else math.inf
    if found.kind == "never":
        return found.low if found.low is not None else math.inf, math.inf
    return None


def _verdict(old: tuple[float, float], new: tuple[float, float], change: float, margin: float) -> Verdict:
    """``change``, positive = worse, counts where the intervals have nothing in common."""
    if abs(change) <= margin:
        return "same"
    if new[0] > old[1] and change > 0:
        return "regressed"
    return "improved" if new[1] < old[0] and change < 0 else "inconclusive"


def _exponent(fit: PowerFit) -> str:
    return f"N^{fit.exponent:.3f} ({fit.low:.3f} to {fit.high:.3f})"
