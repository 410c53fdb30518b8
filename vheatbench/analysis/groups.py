"""Which records may share a chart, and which of their subjects are compared."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from vheatbench.analysis.operators import HEAT, OFFICIAL, is_heat, rank
from vheatbench.analysis.series import Series, series_from
from vheatbench.case import Mode
from vheatbench.store.per_image import compared, compared_name
from vheatbench.store.schema import Record

LIKE_FOR_LIKE = 0.35
"""Two models compare when their multiply-adds at the smallest common size differ by at most this share."""


@dataclass(frozen=True)
class SubjectPair:
    """Two subjects that are compared, the one in question first."""

    focus: str
    baseline: str


@dataclass(frozen=True)
class ChartGroup:
    """Records of models or of operators, of one variant on one kind of device: what may share a chart."""

    device: str
    variant: str
    records: tuple[Record, ...]
    kind: Literal["model", "operator"] = "model"
    ceilings: tuple[Record, ...] = ()
    """Those of the same run, device and dtype."""

    _series: dict[str, list[Series]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def named(self, metric: str) -> str:
        """The metric that stands for one of a step in this group: the same per image where batches may differ."""
        return compared_name(self.records[0].case, metric)

    @property
    def per_image(self) -> bool:
        """Whether what a step costs is compared per image: the batch is the largest that fits."""
        return self.records[0].case.batch == "largest"

    def series(self, metric: str) -> list[Series]:
        """Series of a metric as it is compared (:meth:`named`), by subject.

        Worked out once: every pair of subjects asks for it.
        """
        metric = self.named(metric)
        if metric not in self._series:
            self._series[metric] = series_from(self.records, metric)
        return self._series[metric]

    @property
    def title(self) -> str:
        """The variant, for people: of an operator what it is part of first, and the precision after it."""
        if self.kind == "model":
            return self.variant
        case = self.records[0].case
        channels = f"C={case.channels}" if case.channels is not None else ""
        named = (case.part or "", case.mode.replace("_", " and "), channels, case.dtype)
        named_already = (case.part or "", case.mode.replace("_", "+"), channels, case.dtype)
        rest = " ".join(word for word in self.variant.split(" ") if word not in named_already)
        return ", ".join(word for word in (*named, rest) if word)


def groups_of(records: Sequence[Record]) -> list[ChartGroup]:
    """Records of one run by device and variant.

    Groups of models stand in order of first appearance, but those of an engine that takes ONNX first: there every model
    runs by the same products, which vHeat's own on a CPU are not. Operators by dtype, channels, part and
    mode, since plans are shuffled. Ceilings are no group: each group has its own. Nor are analyses.
    """
    found: dict[tuple[str, Literal["model", "operator"], str], list[Record]] = {}
    ceilings: dict[tuple[str, str], list[Record]] = {}
    for record in map(compared, records):
        case = record.case
        if not case.timed or case.kind == "data":
            continue
        if case.kind == "ceiling":
            ceilings.setdefault((case.device, case.dtype), []).append(record)
        else:
            found.setdefault((case.device, case.kind, case.variant), []).append(record)
    groups = []
    for (device, kind, variant), members in found.items():
        if kind == "operator":
            members.sort(key=lambda record: rank(record.case.subject))
        own = ceilings.get((device, members[0].case.dtype), [])
        groups.append(ChartGroup(device, variant, tuple(members), kind, tuple(own)))
    models = [group for group in groups if group.kind == "model"]
    return sorted(models, key=lambda group: not group.records[0].case.exported) + sorted(
        (group for group in groups if group.kind == "operator"), key=_order
    )


def _order(group: ChartGroup) -> tuple[str, int, str, int]:
    case = group.records[0].case
    return case.dtype, case.channels or 0, case.part or "", get_args(Mode).index(case.mode)


def is_focus(subject: str) -> bool:
    """Whether a model is what this project is about: a vHeat, but not in its official formulation."""
    return "vheat" in subject.lower() and not is_official(subject)


def is_official(subject: str) -> bool:
    """Whether a model is the official formulation of another, kept as its baseline."""
    return "official" in subject.lower()


def in_order(subjects: Iterable[str]) -> list[str]:
    """Each subject once: operators in their order; of models vHeat, its official formulation, others as they came."""
    order = {True: 0, False: 2}
    return sorted(dict.fromkeys(subjects), key=lambda name: (rank(name), order[is_focus(name)] - is_official(name)))


def pairs_of(group: ChartGroup) -> list[SubjectPair]:
    """Which subjects of a group are compared.

    Models: every vHeat with the other subjects of like cost at the smallest size that both were measured at, and with
    its own official formulation, not with another's. Without a vHeat, the first subject takes its place and is
    compared with every other.

    Operators: channels and grid make them alike already. Heat conduction (:func:`heat_of`) with every other operator,
    and its backends with the official formulation only. Without heat conduction as for models.
    """
    return _operator_pairs(group) if group.kind == "operator" else _model_pairs(group)


def _model_pairs(group: ChartGroup) -> list[SubjectPair]:
    costs = {series.subject: {p.resolution: p.value for p in series.points} for series in group.series("macs")}
    subjects = list(costs)
    focus = [subject for subject in subjects if is_focus(subject)]
    if not focus:
        return [SubjectPair(subjects[0], other) for other in subjects[1:]] if subjects else []
    pairs = []
    for subject in focus:
        for other in subjects:
            common = [size for size in costs[subject] if size in costs[other]]
            if other in focus or not common or (is_official(other) and other != f"{subject}-official"):
                continue
            smallest = min(common, key=lambda size: size[0] * size[1])
            if abs(costs[other][smallest] / costs[subject][smallest] - 1) <= LIKE_FOR_LIKE:
                pairs.append(SubjectPair(subject, other))
    return pairs


def _operator_pairs(group: ChartGroup) -> list[SubjectPair]:
    subjects = [series.subject for series in group.series("latency_s")]
    focus = heat_of(group)
    if focus is None:
        return [SubjectPair(subjects[0], other) for other in subjects[1:]] if subjects else []
    pairs = [SubjectPair(focus, other) for other in subjects if not is_heat(other)]
    if OFFICIAL in subjects:
        pairs += [SubjectPair(backend, OFFICIAL) for backend in subjects if is_heat(backend) and backend != OFFICIAL]
    return pairs


def heat_of(group: ChartGroup) -> str | None:
    """The subject that stands for heat conduction in a group; None where it was not measured.

    ``op/heat`` if it is there, for that is what a user gets; else the backend that is fastest at the largest grid that
    all of the group's backends were measured at, the first of them where they share none.
    """
    values = {
        series.subject: {point.resolution: point.value for point in series.points}
        for series in group.series("latency_s")
        if is_heat(series.subject)
    }
    if HEAT in values or not values:
        return HEAT if values else None
    shared = set.intersection(*(set(by_size) for by_size in values.values()))
    if not shared:
        return next(iter(values))
    largest = max(shared, key=lambda size: (size[0] * size[1], size))
    return min(values, key=lambda subject: values[subject][largest])
