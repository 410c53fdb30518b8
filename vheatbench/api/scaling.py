"""``vb.scaling``: how the cost of every subject of a run grows with the number of tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from vheatbench.analysis.groups import groups_of
from vheatbench.analysis.powerlaw import PowerFit, Unfit
from vheatbench.analysis.scaling import EndExponent, Scaling, describe_scaling, end_exponent
from vheatbench.analysis.series import Series
from vheatbench.api.runs import RunLike, read_run
from vheatbench.errors import UserError
from vheatbench.numbers import exponent_of, plain
from vheatbench.text import did_you_mean

if TYPE_CHECKING:
    import pandas as pd

HEADINGS = ("subject", "variant", "device", "sizes", "exponent of N", "at the large end")


@dataclass(frozen=True)
class Growth:
    """The growth of one subject: cost = coefficient * N^exponent, N the number of tokens."""

    series: Series
    """The points: ``series.tokens``, and ``series.values`` in ``series.unit``."""
    fit: Scaling
    """A single power, one beside a fixed overhead, local exponents, and what to be warned of."""
    end: EndExponent | None
    """The exponent at the large end, where fixed costs count least; None with fewer than two sizes."""

    @property
    def subject(self) -> str:
        return self.series.subject

    @property
    def exponent(self) -> float | None:
        """Of the single power over all sizes; None where there is none (``fit.power.reason`` says why)."""
        return self._power.exponent if self._power else None

    @property
    def low(self) -> float | None:
        """Lower end of the 95 % interval of the exponent; None with two sizes."""
        return self._power.low if self._power else None

    @property
    def high(self) -> float | None:
        """Upper end of the 95 % interval of the exponent; None with two sizes."""
        return self._power.high if self._power else None

    @property
    def warnings(self) -> list[str]:
        """Why not to believe it, one line each."""
        return self.fit.warnings

    @property
    def _power(self) -> PowerFit | None:
        return None if isinstance(self.fit.power, Unfit) else self.fit.power


@dataclass(frozen=True)
class Growths(Sequence[Growth]):
    """The growth of every subject of a run, by place or by the subject's name."""

    metric: str
    found: tuple[Growth, ...]

    def __getitem__(self, key: int | str) -> Growth:  # type: ignore[override]
        """The i-th, or the only one of a subject. Raises UserError for a subject that is not there or there twice."""
        if not isinstance(key, str):
            return self.found[key]
        fitting = [one for one in self.found if one.subject == key]
        if not fitting:
            hint = did_you_mean(key, [one.subject for one in self.found])
            raise UserError(f"no subject {key!r} in this run{f' ({hint})' if hint else ''}")
        if len(fitting) > 1:
            raise UserError(f"{key} was measured in {len(fitting)} variants: choose by place, or loop over them")
        return fitting[0]

    def __len__(self) -> int:
        return len(self.found)

    def __iter__(self) -> Iterator[Growth]:
        return iter(self.found)

    def to_pandas(self) -> pd.DataFrame:
        """A row for each subject and variant; exponents without a value or an interval are NaN."""
        import pandas as pd

        frame: pd.DataFrame = pd.DataFrame(
            [
                {
                    "subject": one.subject,
                    "variant": one.series.variant,
                    "device": one.series.device,
                    "metric": self.metric,
                    "sizes": len(one.series.points),
                    "exponent": one.exponent,
                    "exponent_low": one.low,
                    "exponent_high": one.high,
                    "end_exponent": one.end.value if one.end else None,
                    "warnings": "; ".join(one.warnings),
                }
                for one in self.found
            ]
        )
        return frame

    def __str__(self) -> str:
        rows = [HEADINGS, *self._rows()]
        widths = [max(len(row[i]) for row in rows) for i in range(len(HEADINGS))]
        return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{escape(text)}</th>" for text in HEADINGS)
        body = "".join(f"<tr>{''.join(f'<td>{escape(text)}</td>' for text in row)}</tr>" for row in self._rows())
        caption = f"{self.metric} as a power of the number of tokens N, with 95 % intervals"
        warnings = "".join(f"<p>⚠ {escape(one.subject)}: {escape(t)}</p>" for one in self.found for t in one.warnings)
        return (
            f"<table><caption>{caption}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{warnings}"
        )

    def _rows(self) -> list[tuple[str, ...]]:
        return [
            (
                one.subject,
                one.series.variant,
                one.series.device,
                str(len(one.series.points)),
                exponent_of(one.fit.power),
                plain(one.end.value, 3) if one.end else "",
            )
            for one in self.found
        ]


def scaling(run: RunLike = "latest", metric: str = "latency_s", *, results: str | Path = "results") -> Growths:
    """How a cost grows with the number of tokens N, by subject: exponents with intervals.

    Args:
        run: see :data:`vheatbench.api.runs.RunLike`.
        metric: ``latency_s``, ``peak_memory_bytes``, ``macs``, ... of the records.
        results: folder that a name is looked for in.

    Returns:
        ``vb.scaling(run)["vheat-t"].exponent``; ``print`` and notebooks show all.

    Raises:
        UserError: no such run, or no record with such a metric.
    """
    found = read_run(run, results)
    growths = []
    for group in groups_of(found.records):
        for series in group.series(metric):
            fit = describe_scaling(series.tokens, series.values, series.deterministic)
            growths.append(Growth(series, fit, end_exponent(series.points)))
    if not growths:
        names = sorted({name for record in found.records for name in record.metrics})
        raise UserError(f"no record of {found.path} has a metric {metric!r}; there are: {', '.join(names) or 'none'}")
    return Growths(metric, tuple(growths))
