"""What a comparison found, case by case, and the verdict of the whole."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from vheatbench.case import Case
from vheatbench.store.per_image import step_name
from vheatbench.text import some
from vheatbench.verdict.derived import SeriesVerdict
from vheatbench.verdict.judge import CaseVerdict, is_gated
from vheatbench.verdict.rule import Verdict
from vheatbench.verdict.settings import Settings

Conclusion = Literal["pass", "regressed", "inconclusive", "incomparable", "failed"]
"""What the comparison ends with; each has an exit code (``vheatbench.cli.exits``)."""


@dataclass(frozen=True)
class Failure:
    """A case that was not measured on a side, in all its rounds or some."""

    case: Case
    side: Literal["base", "head", "both"]
    status: str
    reason: str
    rounds: tuple[int, int]
    """How many rounds, of how many."""

    @property
    def sentence(self) -> str:
        """In plain words."""
        where = {"base": "in the base", "head": "in the head", "both": "on both sides"}[self.side]
        often = "" if self.rounds[0] == self.rounds[1] else f" in {self.rounds[0]} of {self.rounds[1]} rounds"
        return f"{self.case.label}: {self.status} {where}{often}: {self.reason or 'no reason given'}"


@dataclass(frozen=True)
class Comparison:
    """Everything there is to say of two sides."""

    verdict: Verdict
    """Of the whole: ``same`` says that nothing is worse by more than its margin."""
    outcome: Conclusion
    reasons: tuple[str, ...]
    """Why, most important first, one line each."""
    cases: tuple[CaseVerdict, ...] = ()
    """Worst first."""
    series: tuple[SeriesVerdict, ...] = ()
    missing: tuple[Case, ...] = ()
    """Only the base has them."""
    new: tuple[Case, ...] = ()
    """Only the head has them."""
    renamed: tuple[tuple[Case, Case], ...] = ()
    """Missing and new ones that are probably the same, under another name or with other options."""
    failed: tuple[Failure, ...] = ()
    differences: tuple[str, ...] = ()
    """Why the machines are not comparable; empty where they are."""
    warnings: tuple[str, ...] = ()
    settings: Settings = field(default_factory=Settings)
    base_runs: tuple[str, ...] = ()
    head_runs: tuple[str, ...] = ()

    @property
    def detectable(self) -> tuple[float, float] | None:
        """The smallest worsening of latency that could have been called regressed: in the quietest case, and in the
        noisiest, relative (0.08 is 8 %). None where no case had the rounds for it."""
        found = [
            math.expm1(v.gate.detectable)
            for v in self.cases
            if v.gate is not None
            and v.judged
            and step_name(v.metric) == "latency_s"
            and math.isfinite(v.gate.detectable)
        ]
        return (min(found), max(found)) if found else None

    def __str__(self) -> str:
        from vheatbench.verdict.text import headline

        return "\n".join([headline(self), *(f"- {reason}" for reason in self.reasons)])

    def _repr_html_(self) -> str:
        from vheatbench.report.notebook import comparison_html

        return comparison_html(self)


ORDER = ("regressed", "incomparable", "suspect", "inconclusive", "improved", "changed", "same", "unchanged")


def worst_first(verdict: CaseVerdict) -> tuple[int, bool, float, str]:
    return ORDER.index(verdict.verdict), not is_gated(verdict.metric), -verdict.worsening, verdict.label


def concluded(c: Comparison, common: int) -> Comparison:
    """The same with the verdict of the whole, of which ``common`` cases were matched: first what is proven."""
    worse = [v for v in c.cases if v.judged and v.verdict == "regressed"]
    bent = [v for v in c.series if v.verdict == "regressed"]
    broken = [failure for failure in c.failed if failure.side == "head" and not _fell(failure, worse)]
    undecided = [v for v in c.cases if v.open]
    gone = [*c.missing, *(old for old, _ in c.renamed)] if not c.settings.allow_missing else []
    compared = [v for v in c.cases if v.judged and v.verdict not in ("incomparable",)]

    reasons = [f"{v.label}: {v.metric} regressed{_by(v)}" + (f" ({v.reason})" if v.reason else "") for v in worse]
    reasons += [f"{v.what} of {v.label} regressed: {v.base} -> {v.head}" for v in bent]
    reasons += [failure.sentence for failure in broken]
    if not common:
        reasons.append("the two sides have no case in common")
    elif not compared and not c.differences:
        reasons.append("nothing was compared")
    if gone:
        reasons.append(f"{_count(gone, 'case')} of the base not in the head: {some([case.label for case in gone])}")
    for why in dict.fromkeys(v.reason for v in undecided):
        alike = [f"{v.label} {v.metric}" for v in undecided if v.reason == why]
        reasons.append(f"{_count(alike, 'metric')} open ({why or 'too noisy to tell'}): {some(alike)}")
    if c.differences:
        reason = "the machines or their software differ: " + "; ".join(c.differences)
        return replace(c, verdict="incomparable", outcome="incomparable", reasons=(reason, *reasons))
    if worse or bent:
        return replace(c, verdict="regressed", outcome="regressed", reasons=tuple(reasons))
    if broken:
        return replace(c, verdict="inconclusive", outcome="failed", reasons=tuple(reasons))
    if not compared or gone or undecided:
        return replace(c, verdict="inconclusive", outcome="inconclusive", reasons=tuple(reasons))
    kinds = {v.verdict for v in compared} | {v.verdict for v in c.series}
    verdict: Verdict = "suspect" if "suspect" in kinds else "improved" if "improved" in kinds else "same"
    return replace(c, verdict=verdict, outcome="pass", reasons=tuple(reasons))


def _by(v: CaseVerdict) -> str:
    """How much worse, in words."""
    if v.gate is not None:
        share = (lambda x: -math.expm1(-x)) if v.higher_is_better else math.expm1
        return f" by {100 * share(v.gate.estimate):.1f} %, at least {100 * share(v.gate.low):.1f} %"
    return f" from {v.base:,.10g} to {v.head:,.10g} {v.unit}" if v.base is not None and v.head is not None else ""


def _fell(failure: Failure, worse: Sequence[CaseVerdict]) -> bool:
    """Whether a failure is a regression that is reported already."""
    return any(v.metric == "status" and v.case.id == failure.case.id for v in worse)


def _count(things: Sequence[object], noun: str) -> str:
    return f"{len(things)} {noun}{'' if len(things) == 1 else 's'}"
