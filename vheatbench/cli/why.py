"""One case from its samples to its numbers: what ``vheatbench show --why`` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vheatbench.errors import UserError
from vheatbench.text import some

if TYPE_CHECKING:
    from vheatbench.analysis.outcomes import Outcome
    from vheatbench.store.read import Run
    from vheatbench.store.schema import Record


def explain(run: Run, words: str) -> None:
    """Print it on stdout. Raises UserError where the words name no case, or several."""
    from vheatbench.analysis.outcomes import outcomes_of

    outcome = _chosen(outcomes_of(run.records), words)
    case = outcome.case
    print(f"{case.label}\nid {case.id}, {len(outcome.records)} records: {outcome.status} {outcome.reason}".rstrip())
    for record in sorted(outcome.records, key=lambda one: one.round):
        _round(record)
    _pooled(outcome)
    _ratio(run, outcome)
    _metrics(outcome)
    for text in outcome.warnings:
        print(f"! {text}")


def _chosen(outcomes: list[Outcome], words: str) -> Outcome:
    wanted = words.lower().split()
    ids = [outcome for outcome in outcomes if outcome.case.id == words]
    named = [one for one in outcomes if all(word in one.case.label.lower().split() for word in wanted)]
    found = ids or named or [one for one in outcomes if all(word in one.case.label.lower() for word in wanted)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise UserError(f"--why {words!r}: no case of this run; there are {some(one.case.label for one in outcomes)}")
    raise UserError(f"--why {words!r} names {len(found)} cases: {some((one.case.label for one in found), 5)}")


def _round(record: Record) -> None:
    """A process: its samples, their median, what ended them."""
    from vheatbench.metrics import info_of
    from vheatbench.numbers import with_interval

    print(f"\nround {record.round}, a process started {record.started}, {record.elapsed_s:.1f} s")
    if record.status != "ok":
        print(f"  {record.status}: {record.reason}")
        return
    for name, samples in record.samples.items():
        turns = f" in {len(samples.turns)} turns" if samples.turns else ""
        steps = f" of {samples.loops} steps" if samples.loops > 1 else ""
        ended = f", ended by {samples.stopped_by}" if samples.stopped_by else ""
        print(f"  {name}: {len(samples.values)} samples{steps}{turns}, after {len(samples.warmup)} to warm up{ended}")
        metric, info = record.metrics.get(name), info_of(name, samples.unit)
        if metric is not None:
            shown = with_interval(metric, info, info.unit)
            least, most = (f"{end * info.factor:.4g}" for end in (min(samples.values), max(samples.values)))
            print(f"  median {shown}, from {least} to {most}")
    spent = ", ".join(f"{name} {seconds:.1f}" for name, seconds in record.spent_s.items() if seconds >= 0.05)
    print(f"  seconds: {spent}" if spent else "", end="\n" if spent else "")


def _pooled(outcome: Outcome) -> None:
    from vheatbench.metrics import info_of
    from vheatbench.numbers import with_interval
    from vheatbench.store.per_image import compared_name

    latency, name = outcome.latency, compared_name(outcome.case, "latency_s")
    if latency is None:
        return
    info = info_of(name)
    rounds = f"median of {latency.n_rounds} rounds" if latency.n_rounds > 1 else "of one round"
    print(f"\n{name}: {with_interval(latency, info, info.unit)}, {rounds}, interval {latency.confidence:.0%}")


def _ratio(run: Run, outcome: Outcome) -> None:
    from vheatbench.analysis.group_ratios import ratios_of
    from vheatbench.metrics import info_of
    from vheatbench.numbers import with_interval

    found = ratios_of(run.records).get(outcome.case.id)
    if found is None:
        return
    ratio = with_interval(found.paired.ratio, info_of("ratio"))
    covered = f"{found.paired.log.confidence:.0%}"
    print(f"time over {found.focus}: {ratio}, from the turns of {found.paired.rounds} rounds, interval {covered}")


def _metrics(outcome: Outcome) -> None:
    from vheatbench.metrics import info_of
    from vheatbench.numbers import with_interval

    print()
    for name, point in outcome.points.items():
        metric = outcome.metric(name)
        info = info_of(name, metric.unit if metric is not None else "")
        how = metric.how if metric is not None else "from the others"
        print(f"{name}: {with_interval(point, info, info.unit)} ({how})")
    for name in dict.fromkeys(name for record in outcome.records for name in record.metrics):
        metric = outcome.metric(name)
        if name not in outcome.points and metric is not None:
            print(f"{name}: not available: {metric.unavailable}")
