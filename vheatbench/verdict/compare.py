"""Two runs, or two sets of runs, against each other: what is worse, what is better, what could not be compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from vheatbench.analysis.fingerprint import differences, engine_differences, fingerprint
from vheatbench.case import Case
from vheatbench.errors import UserError
from vheatbench.metrics import names
from vheatbench.store.per_image import compared, compared_name
from vheatbench.store.read import Run
from vheatbench.store.schema import Record
from vheatbench.verdict.comparison import Comparison, Failure, concluded, worst_first
from vheatbench.verdict.derived import SeriesVerdict, series_verdicts
from vheatbench.verdict.judge import CaseVerdict, judge_case, unusable
from vheatbench.verdict.paired import CaseRounds, Protocol, RoundKey, Side, protocol_of, renamed, rounds_of, side_of
from vheatbench.verdict.rule import MIN_ROUNDS, holm
from vheatbench.verdict.settings import Settings


def compare_runs(
    base: Sequence[Run],
    head: Sequence[Run],
    settings: Settings | None = None,
    pairs: Mapping[str, str] | None = None,
) -> Comparison:
    """The verdict on ``head`` against ``base``, case by case and as a whole.

    Cases are matched by id; ``pairs`` maps ids of the base to other ids of the head instead, by default as the headers
    of paired runs say. Timings are compared
    where both sides were measured in turns (``Header.pairing``), by :func:`vheatbench.verdict.rule.gate`; of
    separate sessions they are ``suspect`` at most. Exact metrics are compared exactly. Of cases with the largest batch
    that fits, time and memory per image are compared, and a smaller batch is a regression. ``ok`` before and ``oom``
    now is a regression, any other failure of the head a failed measurement. Where fingerprints differ, only what was
    counted from the models is compared, and the whole is ``incomparable``.

    Raises:
        UserError: the settings name a metric that no record has, or a margin below the machine's noise floor.
    """
    settings = settings or Settings()
    base, head = _once(base), _once(head)
    runs = tuple(run.header.run_id for run in base), tuple(run.header.run_id for run in head)

    def nothing(reason: str) -> Comparison:
        return Comparison(
            "inconclusive", "inconclusive", (reason,), settings=settings, base_runs=runs[0], head_runs=runs[1]
        )

    if not base or not head:
        return nothing("there is no baseline" if not base else "there is no run to compare with the baseline")
    if shared := set(runs[0]) & set(runs[1]):
        return nothing(f"run {', '.join(sorted(shared))} is on both sides: compared with itself it says nothing")
    _check_metrics(settings, [*base, *head])
    protocol = protocol_of(base, head)
    matched = _Matched.of(side_of(base), side_of(head), protocol.cases if pairs is None else pairs)
    unlike = _unlike(base, head, matched, settings)
    warnings = [*_warnings(base, head, matched), *_heed_floor(settings, head, matched)]
    verdicts, failed, found_series = _judged(matched, protocol, settings, not unlike)
    known = renamed(matched.missing, matched.new, matched.base, matched.head)
    comparison = Comparison(
        verdict="same",
        outcome="pass",
        reasons=(),
        cases=tuple(sorted(_adjusted(verdicts), key=worst_first)),
        series=tuple(found_series),
        missing=tuple(case for case in matched.missing if case.id not in {old.id for old, _ in known}),
        new=tuple(case for case in matched.new if case.id not in {new.id for _, new in known}),
        renamed=tuple(known),
        failed=tuple(failed),
        differences=tuple(unlike),
        warnings=tuple(dict.fromkeys(warnings)),
        settings=settings,
        base_runs=runs[0],
        head_runs=runs[1],
    )
    return concluded(comparison, len(matched.common))


@dataclass(frozen=True)
class _Matched:
    """Which cases of the two sides belong together."""

    base: Side
    head: Side
    common: list[tuple[str, str]]
    """Ids on both sides."""
    missing: list[Case]
    new: list[Case]

    @classmethod
    def of(cls, base: Side, head: Side, pairs: Mapping[str, str]) -> _Matched:
        common = [(one, pairs.get(one, one)) for one in base if pairs.get(one, one) in head]
        taken = {other for _, other in common}
        left = {one for one, _ in common}
        missing = [_case(base, one) for one in base if one not in left]
        return cls(base, head, common, missing, [_case(head, one) for one in head if one not in taken])

    def cases(self) -> Iterator[Case]:
        return (_case(self.head, other) for _, other in self.common)


def _case(side: Side, case_id: str) -> Case:
    return next(iter(side[case_id].values())).case


def _once(runs: Sequence[Run]) -> list[Run]:
    return list({run.header.run_id: run for run in runs}.values())


def _check_metrics(settings: Settings, runs: Sequence[Run]) -> None:
    known = {n for run in runs for record in run.records for n in (*record.metrics, *compared(record).metrics)}
    for name in settings.metrics or ():
        if name not in known:
            raise UserError(f"no record has a metric {name!r}; there are: {', '.join(sorted(known)) or 'none'}")


def _unlike(base: Sequence[Run], head: Sequence[Run], matched: _Matched, settings: Settings) -> list[str]:
    """What keeps the machines from being comparable, for the devices of the common timed cases."""
    if settings.metrics is not None and set(settings.metrics) <= set(names("portable")):
        return []
    first = base[0].header
    found = []
    for device in sorted({case.device for case in matched.cases() if case.timed}):
        for run in (*base[1:], *head):
            found += differences(first.environment, run.header.environment, device)
    engines = sorted({case.engine for case in matched.cases() if case.timed})
    for run in (*base[1:], *head):
        found += engine_differences(first.environment, run.header.environment, engines)
        threads = first.policy.get("threads"), run.header.policy.get("threads")
        if threads[0] != threads[1]:
            found.append(f"threads asked for: {threads[0] or 'all'} / {threads[1] or 'all'}")
    return list(dict.fromkeys(found))


def _warnings(base: Sequence[Run], head: Sequence[Run], matched: _Matched) -> Iterator[str]:
    yield from (problem for run in (*base, *head) for problem in run.problems)
    first = base[0].header
    for run in head:
        for package in ("timm", "vheatbench"):
            versions = [(h.environment.get("packages") or {}).get(package) for h in (first, run.header)]
            if versions[0] != versions[1]:
                yield f"{package}: {versions[0]} / {versions[1]}: subjects may be built or measured differently"
        changed = sorted(
            key
            for key in first.policy.keys() | run.header.policy.keys()
            if key not in ("rounds", "seed", "order", "threads") and first.policy.get(key) != run.header.policy.get(key)
        )
        if changed:
            yield f"the policies of the two sides differ: {', '.join(changed)}"
        if run.header.pairing.get("side") == "base" and run.header.pairing.get("id") == first.pairing.get("id"):
            yield "the run given as head was measured as the base of its pair: ratios are turned round"
    for one, other in matched.common:
        before, after = next(iter(matched.base[one].values())), next(iter(matched.head[other].values()))
        for key in ("form", "precision", "attention", "weights", "kernel"):
            old, new = before.subject.get(key), after.subject.get(key)
            if old and new and old != new:
                yield f"{after.case.label} was built differently: {key} {old} / {new}"


def _heed_floor(settings: Settings, head: Sequence[Run], matched: _Matched) -> Iterator[str]:
    """Refuses margins below the floor; warns where the floor says nothing about these runs."""
    floor = settings.floor
    if floor is None or not any(case.device == floor.device for case in matched.cases()):
        return
    if any(fingerprint(run.header.environment, floor.device) != floor.fingerprint for run in head):
        yield f"the noise floor of {floor.created} was measured on another machine: not heeded"
        return
    settings.check_floor(floor)


def _judged(
    matched: _Matched, protocol: Protocol, settings: Settings, comparable: bool
) -> tuple[list[CaseVerdict], list[Failure], list[SeriesVerdict]]:
    verdicts: list[CaseVerdict] = []
    failed: list[Failure] = []
    fitted: list[CaseRounds] = []
    capped: str | None = None
    confidence = max(settings.confidence, protocol.confidence or 0.0)
    for one, other in matched.common:
        base, head = matched.base[one], matched.head[other]
        case, base_case = _case(matched.head, other), _case(matched.base, one)
        verdict, failure = _standing(case, base, head)
        failed += [failure] if failure is not None else []
        if verdict is not None and (comparable or not case.timed):
            verdicts.append(replace(verdict, base_case=base_case))
        rounds = rounds_of(base, head, protocol)
        if not rounds.count:
            continue
        latency = compared_name(case, "latency_s")
        spoilt = case.timed and settings.wants(latency) and _spoilt(case, rounds)
        if spoilt:
            failed.append(spoilt)
            why = f"{spoilt.side}: {spoilt.reason}"
            verdicts.append(CaseVerdict(case, latency, "incomparable", "s", reason=why, base_case=base_case))
            continue
        verdicts += judge_case(case, base_case, rounds, settings, confidence, comparable)
        if (
            case.timed and settings.wants(latency) and rounds.count >= MIN_ROUNDS
        ):  # of fewer, nobody knows the spread between processes
            fitted.append(rounds)
            capped = capped or rounds.capped
    if not comparable:
        return verdicts, failed, []
    before = [record for rounds in fitted for record in rounds.base]
    after = [record for rounds in fitted for record in rounds.head]
    return verdicts, failed, series_verdicts(before, after, settings.margin, capped)


def _standing(
    case: Case, base: Mapping[RoundKey, Record], head: Mapping[RoundKey, Record]
) -> tuple[CaseVerdict | None, Failure | None]:
    """What the statuses of both sides say by themselves."""
    before = [record for record in base.values() if record.status != "ok"]
    after = [record for record in head.values() if record.status != "ok"]
    if not before and not after:
        return None, None
    if len(before) == len(base) and len(after) == len(head):
        return None, _failure(case, "both", after, head)
    oom = [record for record in after if record.status == "oom"]
    if oom and not any(record.status == "oom" for record in before):
        failure = _failure(case, "head", oom, head)
        return CaseVerdict(case, "status", "regressed", reason=f"no longer fits: {failure.sentence}"), failure
    if after and not before:
        return None, _failure(case, "head", after, head)
    if len(before) == len(base):
        fits = all(record.status == "oom" for record in before) and not after
        why = f"fits now, before: {before[0].reason or before[0].status}"
        improved = CaseVerdict(case, "status", "improved", reason=why) if fits else None
        return improved, _failure(case, "base", before, base)
    if len(after) == len(head):
        return None, _failure(case, "head", after, head)
    return None, _failure(case, "both" if after else "base", [*before, *after], {**base, **head})


def _failure(
    case: Case,
    side: Literal["base", "head", "both"],
    bad: Sequence[Record],
    rounds: Mapping[RoundKey, Record],
) -> Failure:
    return Failure(case, side, bad[0].status, bad[0].reason or "", (len(bad), len(rounds)))


def _spoilt(case: Case, rounds: CaseRounds) -> Failure | None:
    """A side whose timings are no timings."""
    if why := unusable(rounds.head):
        return Failure(case, "head", "unusable", why, (1, len(rounds.head)))
    if why := unusable(rounds.base):
        return Failure(case, "base", "unusable", why, (1, len(rounds.base)))
    return None


def _adjusted(verdicts: list[CaseVerdict]) -> list[CaseVerdict]:
    """The verdicts with their probabilities adjusted for how many there are."""
    gates = {i: v.gate for i, v in enumerate(verdicts) if v.gate is not None and v.judged}
    decided = {i: found.p for i, found in gates.items() if found.rounds >= MIN_ROUNDS}
    adjusted = dict(zip(decided, holm(list(decided.values())), strict=True))
    return [replace(v, adjusted_p=adjusted[i]) if i in adjusted else v for i, v in enumerate(verdicts)]
