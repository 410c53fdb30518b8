"""What a run says, in plain sentences that the numbers support. Each names the chart it comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vheatbench.analysis.crossover import Crossover, alike, crossover, ratio_at
from vheatbench.analysis.groups import ChartGroup, SubjectPair, pairs_of
from vheatbench.analysis.outcomes import Outcome
from vheatbench.analysis.paired_ratio import paired_ratio
from vheatbench.analysis.powerlaw import PowerFit
from vheatbench.analysis.scaling import Scaling, describe_scaling
from vheatbench.analysis.series import Point, Series
from vheatbench.metrics import names
from vheatbench.text import some

NOISY = 0.10
"""Half width of the interval of latency, relative to it, from which a case is called noisy."""


@dataclass(frozen=True)
class Finding:
    """One sentence, and the key of the chart that shows it: its metric (empty for none)."""

    text: str
    chart: str
    important: bool = False
    failed: bool = False
    """Whether it is about cases without a result."""


def model_findings(group: ChartGroup) -> list[Finding]:
    """Everything there is to say of a group of models."""
    found = [finding for pair in pairs_of(group) for finding in pair_findings(group, pair)]
    exponents = exponent_finding(group)
    return [*found, exponents] if exponents is not None else found


def pair_findings(group: ChartGroup, pair: SubjectPair) -> list[Finding]:
    """Throughput and memory at the largest common size, and where one overtakes the other."""
    findings = []
    throughput = {s.subject: s for s in group.series("throughput_images_per_s")}
    memory = {s.subject: s for s in group.series("peak_memory_bytes")}
    a, b = throughput.get(pair.focus), throughput.get(pair.baseline)
    if a is None or b is None:
        return []
    common = common_sizes(a, b)
    if not common:
        return []
    size = common[-1]
    speed = ratio_at(a, b, size)
    text = f"At {a.axis.words(size)} {pair.focus} does {speed.value:.2f}× the images/s of {_called(pair)}"
    text += f" ({speed.low:.2f} to {speed.high:.2f})" if speed.low is not None else ""
    if speed.low is not None and speed.high is not None and speed.low <= 1 <= speed.high:
        text += ", no clear difference"
    own, other = memory.get(pair.focus), memory.get(pair.baseline)
    if own is not None and other is not None and size in common_sizes(own, other):
        text += f", with {ratio_at(own, other, size).value:.2f}× its {own.info.title}"
    findings.append(Finding(text + ".", "throughput_images_per_s", important=True))
    if len(common) > 1:
        findings.append(Finding(standing(a, b, crossover(a, b)), "throughput_images_per_s"))
    return findings


def _called(pair: SubjectPair) -> str:
    """The baseline in a sentence about the focus."""
    if pair.baseline == f"{pair.focus}-official":
        return f"its official formulation ({pair.baseline})"
    return pair.baseline


def crossovers_of(group: ChartGroup) -> list[Crossover]:
    """From which size on each vHeat beats its baselines, in throughput, memory and multiply-adds."""
    pairs = pairs_of(group)
    return [found for metric in names("crossed") for found in crossings(group, metric, pairs)]


def crossings(group: ChartGroup, metric: str, pairs: Sequence[SubjectPair]) -> list[Crossover]:
    """Crossovers in a metric of the pairs that have two sizes in common."""
    series = {one.subject: one for one in group.series(metric)}
    sides = ((series.get(pair.focus), series.get(pair.baseline)) for pair in pairs)
    return [crossover(a, b) for a, b in sides if a is not None and b is not None and len(common_sizes(a, b)) > 1]


def common_sizes(a: Series, b: Series) -> list[tuple[int, int]]:
    """Sizes that both were measured at, by growing area."""
    others = {point.resolution for point in b.points}
    return [point.resolution for point in a.points if point.resolution in others]


def standing(a: Series, b: Series, crossing: Crossover) -> str:
    """At which sizes A clearly leads, clearly trails, or neither; and the crossover if there is one."""
    others = {point.resolution: point for point in b.points}
    verdicts: dict[str, list[str]] = {"clearly faster": [], "clearly slower": [], "within the noise": []}
    for point in a.points:
        if point.resolution in others:
            verdicts[_verdict(point, others[point.resolution])].append(a.axis.words(point.resolution))
    parts = [f"{verdict} at {', '.join(sizes)}" for verdict, sizes in verdicts.items() if sizes]
    text = f"{a.subject} against {b.subject}: {'; '.join(parts)}"
    if crossing.kind in ("crosses", "crosses back"):
        text += f". Crossover: {crossing.sentence}"
    return text + "."


def _verdict(a: Point, b: Point) -> str:
    """By their turns, or else by the intervals of two throughputs."""
    metric = "throughput_images_per_s"
    if alike(a, b, metric):
        return "within the noise"
    paired = paired_ratio(b.records, a.records, metric)
    ahead = paired.log.value > 0 if paired is not None else a.value > b.value
    return "clearly faster" if ahead else "clearly slower"


def scaling_of(group: ChartGroup, metric: str) -> list[tuple[Series, Scaling]]:
    """How every subject's metric grows with the number of tokens."""
    return [
        (series, describe_scaling(series.tokens, series.values, series.deterministic))
        for series in group.series(metric)
    ]


def exponent_finding(group: ChartGroup) -> Finding | None:
    """Exponents of latency and multiply-adds of all subjects, if a fit was possible."""
    words = []
    macs = {series.subject: scaling.power for series, scaling in scaling_of(group, "macs")}
    span, patches, cost = (0.0, 0.0), "", ""
    for series, scaling in scaling_of(group, "latency_s"):
        fit = scaling.power
        if not isinstance(fit, PowerFit) or fit.low is None:
            continue
        span, patches, cost = fit.range, series.axis.tokens_words, series.info.capitalised
        counted = macs.get(series.subject)
        also = f", multiply-adds as N^{counted.exponent:.2f}" if isinstance(counted, PowerFit) else ""
        words.append(f"{series.subject} N^{fit.exponent:.2f} ({fit.low:.2f} to {fit.high:.2f}{also})")
    if not words:
        return None
    return Finding(
        f"{cost} grows with the number of tokens N ({span[0]:.0f} to {span[1]:.0f} {patches}) as "
        f"{'; '.join(words)}. A whole model mixes layers linear in N with its token mixer, so its exponent lies "
        "between 1 and the mixer's own, and below that where a fixed overhead still counts.",
        "latency_s",
        important=True,
    )


def failure_findings(outcomes: Sequence[Outcome]) -> list[Finding]:
    """What did not fit, failed, was noisy by the interval that is shown, or stopped short of its precision."""
    findings = []
    words = {"oom": "did not fit into memory", "timeout": "ran over its time", "failed": "failed", "skipped": "skipped"}
    for status, word in words.items():
        hit = [outcome.case.label for outcome in outcomes if outcome.status == status]
        if hit:
            text = f"{len(hit)} {'case' if len(hit) == 1 else 'cases'} {word}: {some(hit, 4)}."
            findings.append(Finding(text, "", failed=True))
    noisy = [outcome.case.label for outcome in outcomes if _noisy(outcome.latency)]
    if noisy:
        verb = "case is" if len(outcomes) == 1 else "cases is" if len(noisy) == 1 else "cases are"
        worse = f"median known to worse than ±{100 * NOISY:.0f} %"
        findings.append(Finding(f"{len(noisy)} of {len(outcomes)} {verb} noisy ({worse}): {some(noisy, 4)}.", ""))
    fields = [outcome for outcome in outcomes if stopped_by(outcome)]
    short = [outcome for outcome in fields if stopped_by(outcome) != "precision"]
    if short:
        named = some([f"{_field(outcome)} ({_why_stopped(outcome)})" for outcome in short], 4)
        verb = "field" if len(fields) == 1 else "fields"
        text = f"{len(short)} of {len(fields)} receptive {verb} stopped short of the precision asked for: {named}."
        findings.append(Finding(text, ""))
    return findings


def _noisy(latency: Point | None) -> bool:
    """Whether half of the interval, over all rounds, is more than :data:`NOISY` of the value."""
    if latency is None or latency.low is None or latency.high is None or not latency.value:
        return False
    return (latency.high - latency.low) / 2 / abs(latency.value) > NOISY


def stopped_by(outcome: Outcome) -> str:
    """The rule that ended an analysis of many images (``precision``, ``plateau``, ``max-images``); else empty."""
    if outcome.status != "ok" or outcome.case.timed:
        return ""
    return next((str(one.conditions["stopped_by"]) for one in outcome.records if "stopped_by" in one.conditions), "")


def _field(outcome: Outcome) -> str:
    layer = str(outcome.case.analysis.get("layer", ""))
    return " ".join(filter(None, (outcome.case.subject, outcome.case.size, layer)))


def _why_stopped(outcome: Outcome) -> str:
    """The record's own words, or the rule."""
    return next((text for text in outcome.warnings if text.startswith("stopped at")), stopped_by(outcome))
