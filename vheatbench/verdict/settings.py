"""How two sides are compared: margins, confidence, what stands for a round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from vheatbench.errors import UserError
from vheatbench.store.per_image import PER_IMAGE, step_name
from vheatbench.store.read import Run
from vheatbench.verdict.noise_floor import NoiseFloor, check_margin, floor_of_runs

Location = Literal["p25", "min", "p10", "median"]
QUANTILES: dict[Location, float] = {"min": 0.0, "p10": 0.1, "p25": 0.25, "median": 0.5}


@dataclass(frozen=True)
class Settings:
    """How two sides are compared. Raises UserError where a value makes no sense."""

    margin: float = 0.05
    """Relative worsening that is tolerated in a timing, and in the largest batch that fits."""
    margins: Mapping[str, float] = field(default_factory=lambda: {"peak_memory_bytes": 0.10})
    """Of single metrics, instead of ``margin``. That of a step's metric holds for the same per image too."""
    confidence: float = 0.99
    """Of the two-sided intervals."""
    location: Location = "p25"
    """Which quantile of its samples stands for a round. Contention only ever adds time: low ones vary least."""
    metrics: tuple[str, ...] | None = None
    """Names of the only metrics to be compared; None for all exact ones, those that the catalogue calls gated and the
    largest batch. That of a step's metric means the same per image too."""
    floor: NoiseFloor | None = None
    """What this machine's noise was measured to be; margins below it are refused."""
    allow_missing: bool = False
    """Whether cases that only the base has leave the comparison whole."""

    def __post_init__(self) -> None:
        for margin in (self.margin, *self.margins.values()):
            if not 0 <= margin <= 10:
                raise UserError(f"a margin of {margin:g} makes no sense: give one between 0 and 10, for example 0.05")
        if not 0.5 <= self.confidence < 1:
            raise UserError(f"a confidence of {self.confidence:g} makes no sense: give one between 0.5 and 1")
        if self.location not in get_args(Location):
            raise UserError(f"unknown location {self.location!r}: {', '.join(get_args(Location))}")

    def margin_of(self, metric: str) -> float:
        """The margin of a metric."""
        return self.margins.get(metric, self.margins.get(step_name(metric), self.margin))

    def wants(self, metric: str) -> bool:
        """Whether a metric was asked for, as far as its name tells."""
        return self.metrics is None or metric in self.metrics or step_name(metric) in self.metrics

    def check_floor(self, floor: NoiseFloor) -> None:
        """Raises UserError for a margin of a wanted metric that identical code does not stay within."""
        for known in floor.metrics:
            for metric in (known, PER_IMAGE.get(known, known)):
                if self.wants(metric):
                    check_margin(floor, known, self.margin_of(metric))


def settings_for(
    base: Sequence[Run],
    head: Sequence[Run],
    results: Path,
    *,
    margins: Mapping[str, float] | None = None,
    metrics: Sequence[str] | None = None,
    confidence: float | None = None,
    location: str | None = None,
    allow_missing: bool = False,
) -> Settings:
    """How two sides are compared, by whoever compares them: command, page or ``ab`` itself.

    Runs that ``ab`` measured in turns by what it was asked for, others by the defaults; ``margins`` (that of all
    metrics under the empty name), ``metrics``, ``confidence`` and ``location`` come before either where given. With
    the noise floor of the head's machine that is kept in the folder ``results``.

    Raises:
        UserError: a value makes no sense, the floor cannot be read, or a header does not say what was asked for.
    """
    known = _asked_of(base, head)
    given = dict(margins or {})
    return replace(
        known,
        margin=given.pop("", known.margin),
        margins={**known.margins, **given},
        metrics=tuple(metrics) if metrics is not None else known.metrics,
        confidence=confidence if confidence is not None else known.confidence,
        location=location if location is not None else known.location,  # type: ignore[arg-type]
        floor=floor_of_runs(head, results),
        allow_missing=allow_missing,
    )


def _asked_of(base: Sequence[Run], head: Sequence[Run]) -> Settings:
    """What ``ab`` was asked for when it measured both sides; the defaults where that is not one thing."""
    pairings = [{str(run.header.pairing.get("id")): run.header.pairing for run in side} for side in (base, head)]
    found: list[Settings] = []
    for id_, pairing in pairings[0].items():
        settings = asked(pairing) if pairing.get("id") and id_ in pairings[1] else Settings()
        if settings not in found:
            found.append(settings)
    return found[0] if len(found) == 1 else Settings()


def asked(pairing: Mapping[str, Any]) -> Settings:
    """The settings that the header of a run in turns holds (``Header.pairing``), from its ``request`` and looks.

    Raises:
        UserError: they are no settings.
    """
    default = Settings()
    try:
        request = dict(pairing.get("request") or {})
        margins = {str(name): float(value) for name, value in dict(request.get("margins") or {}).items()}
        metrics = request.get("metrics")
        looks, alpha = list(pairing.get("looks") or ()), pairing.get("alpha")
        return Settings(
            margin=margins.pop("", default.margin),
            margins={**default.margins, **margins},
            metrics=tuple(map(str, metrics)) if metrics is not None else None,
            confidence=1 - float(alpha) / len(looks) if looks and alpha else default.confidence,
            location=request.get("location") or default.location,
        )
    except (TypeError, ValueError) as error:
        raise UserError(f"run {pairing.get('id')} does not say what it was asked for: {error}") from None
