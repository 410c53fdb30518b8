"""Rounds of one case on both sides of a comparison, and whether they really were taken in turns."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from itertools import pairwise
from typing import NamedTuple

from vheatbench.analysis.paired_ratio import turn_log_ratios
from vheatbench.case import Case
from vheatbench.store.per_image import compared
from vheatbench.store.read import Run
from vheatbench.store.schema import Record

SEPARATE = "measured in separate sessions: the machine's drift between them is part of the difference"

ALIKE = 0.6
"""Similarity of two names (difflib's ratio) from which on one may be the other's new form."""
COUNTED = ("macs", "params")
NEARLY = 0.01
"""Relative difference of those counts up to which two names may be those of one model."""


class RoundKey(NamedTuple):
    """What tells rounds of a side apart: the pairing or else the run that they belong to, and their number."""

    session: str
    number: int


Side = Mapping[str, Mapping[RoundKey, Record]]
"""Records of one side by case id and round."""


@dataclass(frozen=True)
class Protocol:
    """How the rounds of both sides were taken, as the headers of paired runs say it."""

    pairings: frozenset[str] = frozenset()
    """Ids that both sides have."""
    confirm_from: Mapping[str, int] = field(default_factory=dict)
    """Per pairing the number from which on rounds are fresh ones, taken to confirm what the others had flagged."""
    confidence: float | None = None
    """Of each interval where the rounds were looked at several times; None where nothing is said."""
    cases: Mapping[str, str] = field(default_factory=dict)
    """From ids of the base to other ids of the head that they are compared with."""


@dataclass(frozen=True)
class CaseRounds:
    """The rounds of one case that were ``ok``, their records as they are compared (per image where batches differ)."""

    base: tuple[Record, ...]
    head: tuple[Record, ...]
    paired: bool
    """Whether the i-th of one side belongs to the i-th of the other."""
    capped: str | None
    """Why timings of these rounds can neither fail nor clear anybody, or None."""
    fresh: CaseRounds | None = None
    """Rounds that were taken to confirm the others."""

    def __post_init__(self) -> None:
        for side in ("base", "head"):
            object.__setattr__(self, side, tuple(map(compared, getattr(self, side))))

    @property
    def count(self) -> int:
        """Pairs, or rounds of the smaller side."""
        return min(len(self.base), len(self.head))


def side_of(runs: Sequence[Run]) -> Side:
    """Records of several runs by case and round; of two records of one round the first that is ``ok`` is kept."""
    found: dict[str, dict[RoundKey, Record]] = {}
    for run in runs:
        session = str(run.header.pairing.get("id") or run.header.run_id)
        for record in run.records:
            rounds = found.setdefault(record.case_id, {})
            key = RoundKey(session, record.round)
            if key not in rounds or (record.status == "ok" and rounds[key].status != "ok"):
                rounds[key] = record
    return found


def protocol_of(base: Sequence[Run], head: Sequence[Run]) -> Protocol:
    """What pairings the two sides share. ``Header.pairing`` may hold, beside ``id`` and ``side``:

    ``looks`` and ``alpha`` (after how many rounds the answer was asked for, and the probability of an error that
    the looks share), ``confirm_from`` (number of the first fresh round) and ``pairs`` (ids of cases of the side
    ``base`` to ids of the side ``head``, where different cases were measured in turns).
    """
    ids = [{str(run.header.pairing["id"]) for run in runs if run.header.pairing.get("id")} for runs in (base, head)]
    shared = frozenset(ids[0] & ids[1])
    confirm: dict[str, int] = {}
    confidences: list[float] = []
    cases: dict[str, str] = {}
    for run in (*base, *head):
        pairing = run.header.pairing
        if pairing.get("id") not in shared:
            continue
        if isinstance(pairing.get("confirm_from"), int):
            confirm[str(pairing["id"])] = int(pairing["confirm_from"])
        looks, alpha = pairing.get("looks"), pairing.get("alpha")
        if isinstance(looks, list) and looks and isinstance(alpha, int | float) and 0 < alpha < 1:
            confidences.append(1 - alpha / len(looks))
        pairs = pairing.get("pairs")
        if isinstance(pairs, dict) and run in base:
            cases |= pairs if pairing.get("side") != "head" else {other: one for one, other in pairs.items()}
    return Protocol(shared, confirm, max(confidences, default=None), cases)


def rounds_of(base: Mapping[RoundKey, Record], head: Mapping[RoundKey, Record], protocol: Protocol) -> CaseRounds:
    """The rounds of one case: pairs where there are any, else all of both sides."""
    good_base = {key: record for key, record in base.items() if record.status == "ok"}
    good_head = {key: record for key, record in head.items() if record.status == "ok"}
    keys = sorted(key for key in good_base if key in good_head and key.session in protocol.pairings)
    if not keys:
        return CaseRounds(tuple(good_base.values()), tuple(good_head.values()), False, SEPARATE)
    confirming = [key for key in keys if key.number >= protocol.confirm_from.get(key.session, key.number + 1)]
    first = [key for key in keys if key not in confirming]

    def chosen(keys: list[RoundKey], fresh: CaseRounds | None) -> CaseRounds:
        pairs = [(good_base[key], good_head[key]) for key in keys]
        return CaseRounds(tuple(b for b, _ in pairs), tuple(h for _, h in pairs), True, not_in_turns(pairs), fresh)

    return chosen(first, chosen(confirming, None) if confirming else None)


def not_in_turns(pairs: Sequence[tuple[Record, Record]]) -> str | None:
    """Why rounds were not interleaved, by the times they started at; None if they were.

    Both halves of a round must stand together in time, and neither side may come first too often: with all of one
    side first, or always the same one, the machine's drift looks like a difference. Rounds whose sides lived at once
    and sampled in turns are beyond doubt.
    """
    pairs = [pair for pair in pairs if not turn_log_ratios(*pair)]
    try:
        times = [(_time(base.started), _time(head.started)) for base, head in pairs]
    except ValueError:
        return "the records do not say when their rounds started"
    spans = sorted((min(pair), max(pair)) for pair in times)
    if len(spans) < 2:
        return None
    if spans[0][0] == spans[-1][1]:
        return "the records do not say when their rounds started"
    if any(end > start for (_, end), (start, _) in pairwise(spans)):
        return "the rounds of base and head were not taken in turns: the machine's drift is part of the difference"
    base_first = sum(base < head for base, head in times)
    head_first = sum(head < base for base, head in times)
    if min(base_first, head_first) < (base_first + head_first) // 4:
        side, count = max(("base", base_first), ("head", head_first), key=lambda entry: entry[1])
        return f"the {side} came first in {count} of {len(times)} rounds: the order is part of the difference"
    return None


def _time(text: str) -> datetime:
    time = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return time if time.tzinfo else time.replace(tzinfo=timezone.utc)


def renamed(missing: Sequence[Case], new: Sequence[Case], base: Side, head: Side) -> list[tuple[Case, Case]]:
    """Pairs of old and new cases that differ in the subject's name or in its options and in nothing else.

    Of several candidates the one with the same multiply-adds and parameters is taken, else the one with the most
    similar name, unless those counts tell that it is another model. Every case is paired once.
    """
    left = list(new)
    found = []
    for old in missing:
        scored = [(_score(old, other, base, head), other) for other in left if _differ_in_name(old, other)]
        best = max(scored, key=lambda entry: entry[0], default=None)
        if best is not None and best[0] >= ALIKE:
            found.append((old, best[1]))
            left.remove(best[1])
    return found


def _differ_in_name(old: Case, new: Case) -> bool:
    def rest(case: Case, *without: str) -> dict[str, object]:
        return case.model_dump(exclude=set(without))

    return rest(old, "subject") == rest(new, "subject") or rest(old, "options") == rest(new, "options")


def _score(old: Case, new: Case, base: Side, head: Side) -> float:
    if old.subject == new.subject:
        return 1.5  # only the options differ
    counts, others = _counts(base, old), _counts(head, new)
    if len(counts) == len(others) and any(abs(a - b) > NEARLY * abs(a) for a, b in zip(counts, others, strict=True)):
        return 0.0
    same = 1.0 if counts and counts == others else 0.0
    return same + difflib.SequenceMatcher(None, old.subject, new.subject).ratio()


def _counts(side: Side, case: Case) -> list[float]:
    metrics = next(iter(side[case.id].values())).metrics
    values = [metrics[name].value for name in COUNTED if name in metrics]
    return [value for value in values if value is not None]
