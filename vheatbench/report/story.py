"""What a run says in a few sentences: the start of the page, of a summary in Markdown, of a pull request's comment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vheatbench.analysis.crossover import Ratio, crossover_sentences, ratio_at
from vheatbench.analysis.findings import common_sizes, crossings, failure_findings, scaling_of, stopped_by
from vheatbench.analysis.groups import ChartGroup, SubjectPair, pairs_of
from vheatbench.analysis.operator_findings import as_fast, baseline_pairs, significant
from vheatbench.analysis.outcomes import Outcome
from vheatbench.analysis.powerlaw import PowerFit
from vheatbench.analysis.series import Series
from vheatbench.text import listed

MOST_BASELINES = 3
"""In one sentence; the findings have all."""


@dataclass(frozen=True)
class Sentence:
    """One sentence and the id of the chart or table that shows it."""

    text: str
    anchor: str


def story_of(
    groups: Sequence[tuple[ChartGroup, str]], outcomes: Sequence[Outcome], records: str, warnings: str = ""
) -> list[Sentence]:
    """Three or four sentences that the numbers support.

    Speed and memory at the largest common size with their intervals, crossovers, exponents: of the group that most
    subjects were measured in. Then what is missing or noisy in the whole run.

    Args:
        groups: each with the id of its section on the page.
        outcomes: one per case of the run.
        records: id of the table of records.
        warnings: id of the list of warnings.
    """
    found: list[Sentence] = []
    focus = ""
    if groups:
        group, id_ = max(groups, key=lambda pair: len({record.case.subject for record in pair[0].records}))
        scope = f" ({group.title})" if len(groups) > 1 else ""
        sentences = (_speed(group, id_), _crossovers(group, id_), _exponents(group, id_))
        found = [Sentence(f"{one.text}{scope}.", one.anchor) for one in sentences if one is not None]
        focus = next((pair.focus for pair in _pairs(group)), "") if found else ""
    caveat = _caveat(outcomes, focus)
    return [*found, *([Sentence(caveat, warnings)] if caveat else []), Sentence(_health(outcomes), records)]


def _pairs(group: ChartGroup) -> list[SubjectPair]:
    """The pairs of the first subject in question."""
    pairs = baseline_pairs(group) if group.kind == "operator" else pairs_of(group)
    return [pair for pair in pairs if pair.focus == pairs[0].focus][:MOST_BASELINES]


def _sides(group: ChartGroup, pair: SubjectPair, metric: str) -> tuple[Series, Series] | None:
    found = {one.subject: one for one in group.series(metric)}
    if pair.focus not in found or pair.baseline not in found:
        return None
    return found[pair.focus], found[pair.baseline]


def _largest(group: ChartGroup, pair: SubjectPair, metric: str, inverse: bool = False) -> tuple[str, Ratio, str] | None:
    """The size in words, the ratio at the largest common size, and what its metric is called."""
    sides = _sides(group, pair, metric)
    common = common_sizes(*sides) if sides is not None else []
    if sides is None or not common:
        return None
    a, b = sides[::-1] if inverse else sides
    return a.axis.words(common[-1]), ratio_at(a, b, common[-1]), a.info.title


def _speed(group: ChartGroup, id_: str) -> Sentence | None:
    """How many times as fast, with how much memory."""
    metric = "latency_s" if group.kind == "operator" else "throughput_images_per_s"
    at: dict[str, list[str]] = {}
    focus = ""
    for pair in _pairs(group):
        speed = _largest(group, pair, metric, inverse=metric == "latency_s")
        if speed is None:
            continue
        focus, size = pair.focus, speed[0]
        memory = _largest(group, pair, "peak_memory_bytes")
        beside = f", with {_plainly(memory[1])} its {memory[2]}" if memory is not None and memory[0] == size else ""
        at.setdefault(size, []).append(f"{as_fast(speed[1])} as fast as {pair.baseline}{beside}")
    if not at:
        return None
    text = ". ".join(f"At {size} {focus} is {'; '.join(words)}" for size, words in at.items())
    return Sentence(text, f"{id_}-{metric}")


def _plainly(ratio: Ratio) -> str:
    interval = f" ({significant(ratio.low)} to {significant(ratio.high)})" if ratio.low and ratio.high else ""
    return f"{significant(ratio.value)}×{interval}"


def _crossovers(group: ChartGroup, id_: str) -> Sentence | None:
    metric = "latency_s" if group.kind == "operator" else "throughput_images_per_s"
    sentences = crossover_sentences(crossings(group, metric, _pairs(group)))
    return Sentence("; ".join(sentences), f"{id_}-{metric}") if sentences else None


def _exponents(group: ChartGroup, id_: str) -> Sentence | None:
    pairs = _pairs(group)
    named = dict.fromkeys(name for pair in pairs for name in (pair.focus, pair.baseline))
    words: list[str] = []
    spans: dict[str, None] = {}
    cost = ""
    for series, scaling in scaling_of(group, "latency_s"):
        fit = scaling.power
        if isinstance(fit, PowerFit) and fit.low is not None and fit.high is not None and series.subject in named:
            words.append(f"N^{fit.exponent:.2f} ({fit.low:.2f} to {fit.high:.2f}) for {series.subject}")
            cost = series.info.title
            spans[f"{fit.range[0]:.0f} to {fit.range[1]:.0f} tokens N"] = None
    if not words:
        return None
    return Sentence(f"From {' or '.join(spans)} {cost} grows as {listed(words)}", f"{id_}-latency_s")


def _caveat(outcomes: Sequence[Outcome], focus: str) -> str:
    """The warning that most cases of one subject share: it is about the subject, so about every ratio above.

    Where no subject has several such cases, that of the only case which the sentences above are of.
    """
    cases: dict[tuple[str, str], int] = {}
    for outcome in outcomes:
        for text in outcome.warnings:
            cases[outcome.case.subject, text] = cases.get((outcome.case.subject, text), 0) + 1
    (subject, text), count = max(cases.items(), key=lambda item: item[1], default=(("", ""), 0))
    of = sum(outcome.case.subject == subject for outcome in outcomes)
    if count < 2 or 2 * count <= of:
        own = [outcome for outcome in outcomes if outcome.case.subject == focus]
        subject, text = focus, own[0].warnings[0] if len(own) == 1 and own[0].warnings else ""
    return f"Of {subject}: {text.rstrip('.')}." if text else ""


def _health(outcomes: Sequence[Outcome]) -> str:
    """What did not fit, failed, was skipped, noisy or stopped short; or that nothing was."""
    problems = [finding.text for finding in failure_findings(outcomes)]
    if problems:
        return " ".join(problems)
    timed = any(outcome.case.timed for outcome in outcomes)
    stopped = [rule for rule in map(stopped_by, outcomes) if rule]
    if len(outcomes) == 1:
        ending = " and not flagged as noisy" if timed else " to the precision asked for" if stopped else ""
        return f"The only case was measured{ending}."
    ending = ", none was flagged as noisy" if timed else ", all reached the precision asked for" if stopped else ""
    return f"All {len(outcomes)} cases were measured; none failed{ending}."
