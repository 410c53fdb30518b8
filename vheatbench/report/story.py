"""What a run says in at most four sentences: the start of the page, of a summary in Markdown, the end of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from vheatbench import numbers
from vheatbench.analysis.crossover import Crossover, Ratio, ratio_at
from vheatbench.analysis.findings import common_sizes, failure_findings, stopped_by
from vheatbench.analysis.groups import ChartGroup, groups_of, heat_of, pairs_of
from vheatbench.analysis.operator_findings import as_fast, baseline_pairs, speed_ratios
from vheatbench.analysis.operators import ATTENTION
from vheatbench.analysis.outcomes import Outcome, outcomes_of
from vheatbench.analysis.relative_cost import RelativeCost, relative_cost
from vheatbench.analysis.scaling import end_exponent
from vheatbench.analysis.series import Series
from vheatbench.store.read import Run
from vheatbench.studies import STUDIES
from vheatbench.text import listed

MOST = 4
"""Sentences of a story."""
NARROW = 1.25
"""Ends of an interval over each other, up to which a ratio whose interval holds 1 is said to be about 1."""


@dataclass(frozen=True)
class Sentence:
    """One sentence and the id of the chart or table that shows it."""

    text: str
    anchor: str


@dataclass(frozen=True)
class Story:
    """What a stranger should take away, and what limits it."""

    sentences: list[Sentence] = field(default_factory=list)
    """At most :data:`MOST`."""
    caveats: list[Sentence] = field(default_factory=list)
    """The warning that most of it is subject to, and what is missing or noisy; at least the latter."""

    @property
    def everything(self) -> list[Sentence]:
        """Both, in order."""
        return [*self.sentences, *self.caveats]


def story_of(
    groups: Sequence[tuple[ChartGroup, str]],
    outcomes: Sequence[Outcome],
    records: str = "",
    warnings: str = "",
    seen: Sequence[Sentence] = (),
) -> Story:
    """The sentences that the numbers support.

    Of the models: cost at the largest size, crossovers. Of the operators: how their costs grow at the large end. Then
    what the studies say, and where there is room the models' memory.

    Args:
        groups: each with the id of its section on the page.
        outcomes: one per case of the run.
        records: id of the table of records.
        warnings: id of the list of warnings.
        seen: important findings of studies.
    """
    models, operators = telling(groups, "model"), telling(groups, "operator")
    scope = f" ({models[0].title})" if models is not None and sum(g.kind == "model" for g, _ in groups) > 1 else ""
    found: list[Sentence | None] = []
    spare: list[Sentence | None] = []
    focus = ""
    if models is not None:
        cost = relative_cost(models[0])
        focus = next((pair.focus for pair in pairs_of(models[0])), "")
        found += _of_models(cost, models, scope)
        spare.append(_memory(models, scope))
    if operators is not None:
        found.append(operator_growth(*operators))
        spare.insert(0, _operator_speed(*operators))
        focus = focus or heat_of(operators[0]) or ""
    told = [one for one in found if one is not None]
    room = MOST - len(told)
    told += list(seen)[:room]
    told += [one for one in spare if one is not None][: MOST - len(told)]
    timed = [outcome for outcome in outcomes if outcome.case.timed]
    caveat = _caveat(timed or outcomes, focus) if told else ""
    return Story(told[:MOST], [*([Sentence(caveat, warnings)] if caveat else []), Sentence(_health(outcomes), records)])


def story_of_run(run: Run) -> Story:
    """The story of a run without its page: what the end of a run and its summary in Markdown say."""
    studied = any(not record.case.timed for record in run.records)
    findings = [finding for study in STUDIES if studied for finding in study.findings_of(run)]
    seen = [Sentence(finding.text, "") for finding in findings if finding.important]
    return story_of([(group, "") for group in groups_of(run.records)], outcomes_of(run.records), seen=seen)


def telling(groups: Sequence[tuple[ChartGroup, str]], kind: str) -> tuple[ChartGroup, str] | None:
    """The group of this kind that most subjects were measured in, the first of several; None where there is none."""
    alike = [pair for pair in groups if pair[0].kind == kind]
    return max(alike, key=lambda pair: len({record.case.subject for record in pair[0].records}), default=None)


def takes(ratio: Ratio) -> str:
    """``takes 1.3×``, rounded to what the interval supports; where that holds 1, ``about 1×`` or how wide it is."""
    if ratio.low is not None and ratio.high is not None and ratio.low <= 1 <= ratio.high:
        if ratio.high <= NARROW * ratio.low:
            return "takes about 1×"
        return f"takes {numbers.plain(ratio.low, 2)} to {numbers.plain(ratio.high, 2)}×"
    return f"takes {numbers.rounded(numbers.Value(*ratio[:3]))}×"


def _of_models(cost: RelativeCost | None, group: tuple[ChartGroup, str], scope: str) -> list[Sentence | None]:
    if cost is None or cost.last is None:
        return [_single_size(*group, scope)]
    return [_cost(cost, cost.last, group[1], scope), _crossed(cost, group[1], scope)]


def _cost(cost: RelativeCost, size: tuple[int, int], id_: str, scope: str) -> Sentence:
    """What the others take at the largest common size, and vHeat's own products."""
    axis = cost.curves[0].series.axis
    ratios = {curve.subject: curve.at(size) for curve in cost.curves}
    words = [f"{name} {takes(ratio)}" for name, ratio in ratios.items() if ratio is not None]
    text = f"At {axis.words(size)}, {listed(words)} the time of {cost.focus}"
    if cost.own is not None:
        text += " where all run by plain PyTorch"
        own = cost.own.at(size)
        text += f"; by its own products {cost.focus} itself {takes(own)} that time" if own is not None else ""
    return Sentence(f"{text}{scope}.", f"{id_}-latency_s")


def _crossed(cost: RelativeCost, id_: str, scope: str) -> Sentence | None:
    """From which size on vHeat is the faster one, of all in one sentence."""
    words: dict[str, list[str]] = {}
    for found in cost.crossings:
        words.setdefault(_where(found), []).append(found.b)
    if not words:
        return None
    text = "; ".join(where.format(listed(names)) for where, names in words.items())
    plainly = "By plain PyTorch " if cost.own is not None else ""
    return Sentence(f"{plainly}{cost.focus} is {text}{scope}.", f"{id_}-crossovers")


def _where(found: Crossover) -> str:
    """``faster than {} from about 380 px on``, ``slower than {} at every measured size (224 to 640 px)``."""
    axis, span = found.axis, found.axis.span(*found.span) if found.span else ""
    if found.kind == "always":
        doubt = f", though noise allows a crossing up to {axis.near(found.high)}" if found.high is not None else ""
        return f"faster than {{}} at every measured size ({span}){doubt}"
    if found.kind == "never":
        doubt = f", though noise allows a crossing from {axis.near(found.low)} on" if found.low is not None else ""
        return f"slower than {{}} at every measured size ({span}){doubt}"
    if found.value is not None and found.kind == "crosses":
        return f"faster than {{}} from about {axis.near(_plain_side(found.value))} on"
    if found.value is not None:
        return f"faster than {{}} only up to about {axis.near(_plain_side(found.value))}"
    return "as fast as {} within the noise"


def _plain_side(side: float) -> float:
    """To two digits: a crossing is not known better."""
    return float(f"{side:.2g}")


def _single_size(group: ChartGroup, id_: str, scope: str) -> Sentence | None:
    """Of models that share one size, or have no vHeat among them: how many times as fast the first is."""
    series = {one.subject: one for one in group.series("latency_s")}
    pairs = pairs_of(group)
    focus = next((pair.focus for pair in pairs if pair.focus in series), "")
    words: dict[str, list[str]] = {}
    for pair in pairs:
        sizes = common_sizes(series[pair.baseline], series[focus]) if focus and pair.baseline in series else []
        if pair.focus == focus and sizes:
            ratio = ratio_at(series[pair.baseline], series[focus], sizes[-1])
            words.setdefault(series[focus].axis.words(sizes[-1]), []).append(f"{pair.baseline} {takes(ratio)}")
    if not words:
        return None
    text = ". ".join(f"At {size}, {listed(named[:3])} the time of {focus}" for size, named in words.items())
    return Sentence(f"{text}{scope}.", f"{id_}-latency_s")


def _memory(group: tuple[ChartGroup, str], scope: str) -> Sentence | None:
    """Peak memory at the largest common size."""
    cost = relative_cost(group[0])
    series = {one.subject: one for one in group[0].series("peak_memory_bytes")}
    if cost is None or cost.last is None or cost.focus not in series:
        return None
    words = [
        f"{curve.subject} {takes(ratio_at(series[curve.subject], series[cost.focus], cost.last))}"
        for curve in cost.curves
        if curve.subject in series and cost.last in common_sizes(series[curve.subject], series[cost.focus])
    ]
    if not words:
        return None
    what, axis = series[cost.focus].info.title, series[cost.focus].axis
    text = f"At {axis.words(cost.last)}, {listed(words)} the {what} of {cost.focus}{scope}."
    return Sentence(text, f"{group[1]}-peak_memory_bytes")


def operator_growth(group: ChartGroup, id_: str) -> Sentence | None:
    """How the time of heat conduction and of global attention grows at the large end, beside their multiply-adds."""
    counted = {one.subject: one for one in group.series("macs")}
    words = []
    for series in _heat_and_attention(group):
        found = end_exponent(series.points)
        if found is None:
            continue
        exact = end_exponent(counted[series.subject].points) if series.subject in counted else None
        macs = f", its multiply-adds as N^{exact.value:.2f}" if exact is not None else ""
        words.append(f"the time of {series.subject} grows as N^{numbers.rounded(numbers.Value(found.value))}{macs}")
    if not words:
        return None
    return Sentence(f"Alone, on the largest grids of N tokens, {'; '.join(words)}.", f"{id_}-latency_s")


def _heat_and_attention(group: ChartGroup) -> list[Series]:
    series = {one.subject: one for one in group.series("latency_s")}
    wanted = [heat_of(group), ATTENTION]
    found = [series[name] for name in wanted if name in series]
    return found or list(series.values())[:1]


def _operator_speed(group: ChartGroup, id_: str) -> Sentence | None:
    """At the largest grid with each other operator."""
    at: dict[str, list[str]] = {}
    focus = ""
    for pair in baseline_pairs(group)[:3]:
        ratios = speed_ratios(group, pair)
        if ratios:
            size, focus = list(ratios)[-1], pair.focus
            axis = group.series("latency_s")[0].axis
            at.setdefault(axis.words(size), []).append(f"{as_fast(ratios[size])} as fast as {pair.baseline}")
    if not at:
        return None
    text = ". ".join(f"At {size} {focus} is {'; '.join(words)}" for size, words in at.items())
    return Sentence(f"{text}.", f"{id_}-latency_s")


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
    # which are noisy or stopped short stands under the machine, which failed here
    problems = [
        finding.text if finding.failed else f"{finding.text.split(': ')[0]}." for finding in failure_findings(outcomes)
    ]
    if problems:
        return " ".join(problems)
    timed = any(outcome.case.timed for outcome in outcomes)
    stopped = [rule for rule in map(stopped_by, outcomes) if rule]
    if len(outcomes) == 1:
        ending = " and not flagged as noisy" if timed else " to the precision asked for" if stopped else ""
        return f"The only case was measured{ending}."
    ending = ", none was flagged as noisy" if timed else ", all reached the precision asked for" if stopped else ""
    return f"All {len(outcomes)} cases were measured; none failed{ending}."
