"""Numbers as text: as many digits as the interval allows, in the unit that the metric is shown in.

The styles of a metric's value, for everybody who shows one:

- :func:`with_interval`, ``48.1 (46.0 to 50.7)``: where there is room, and where the ends are what matters;
- :func:`with_spread`, ``48.1 ±4.9 %``: in wide tables;
- :func:`value_of` and :func:`interval_of`: the two apart;
- :func:`latex_of`, ``$48.1 \\pm 2.4$``;
- :func:`with_unit`, ``48.1 ms``: alone in a line of text;
- :func:`rounded`, ``1.3``: a ratio in a sentence;
- :func:`exact`: a count with all its digits.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol, runtime_checkable

from vheatbench.metrics import MetricInfo

MISSING = "—"


class Estimate(Protocol):
    """A value, None where there is none, with the ends of its interval, None where it has none."""

    @property
    def value(self) -> float | None: ...
    @property
    def low(self) -> float | None: ...
    @property
    def high(self) -> float | None: ...


class Value(NamedTuple):
    """A value with the ends of its interval where nothing else holds them."""

    value: float | None
    low: float | None = None
    high: float | None = None


class Fit(Protocol):
    """An exponent with the ends of its interval."""

    @property
    def exponent(self) -> float: ...
    @property
    def low(self) -> float | None: ...
    @property
    def high(self) -> float | None: ...


@runtime_checkable
class NoFit(Protocol):
    """Why there is no exponent."""

    @property
    def reason(self) -> str: ...


def plain(value: float, digits: int = 4) -> str:
    """A number with this many significant digits: ``0.01235``, ``12.35``, ``12346``; with an exponent below 0.0001."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if abs(value) < 1e-4:
        return f"{value:.{max(0, digits - 1)}e}".replace("e-0", "e-")
    return _fixed(value, digits - 1 - math.floor(math.log10(abs(value))))


def value_of(found: Estimate | None, info: MetricInfo) -> str:
    """The value, rounded to what its interval supports; a dash where there is none."""
    if found is None or found.value is None:
        return MISSING
    value, decimals = found.value * info.factor, _decimals(found, info)
    return plain(value, info.digits or 1) if decimals is None else _fixed(value, decimals)


def interval_of(found: Estimate | None, info: MetricInfo) -> str:
    """``low to high``, with as many decimals as the value; empty for a value without an interval."""
    ends = _ends(found)
    if found is None or found.value is None or ends is None:
        return ""
    decimals = _decimals(found, info)
    ours = (end * info.factor for end in ends)
    return " to ".join(plain(end, info.digits or 1) if decimals is None else _fixed(end, decimals) for end in ours)


def with_interval(found: Estimate | None, info: MetricInfo, unit: str = "") -> str:
    """``4.02 (3.81 to 4.23)``, with a unit ``4.0 % (3.8 to 4.3)``; the value alone where it has no interval."""
    interval = interval_of(found, info)
    text = f"{value_of(found, info)}{f' {unit}' if unit else ''}"
    return f"{text} ({interval})" if interval else text


def with_spread(found: Estimate | None, info: MetricInfo) -> str:
    """``48.1 ±4.9 %``, half the interval as a share of the value; the value alone where it has no interval."""
    return f"{value_of(found, info)}{half_width(found)}"


def with_unit(value: float, info: MetricInfo) -> str:
    """``48.12 ms``: a value alone."""
    return f"{value_of(Value(value), info)} {info.unit}".rstrip()


def exact(value: float) -> str:
    """``12,345,678``: every digit, where any change counts."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:g}"


def rounded(found: Estimate) -> str:
    """A ratio or an exponent in a sentence without its interval: two digits, and between 1 and 2 three where the
    interval supports them."""
    if found.value is None:
        return MISSING
    ends = _ends(found)
    sure = ends is not None and (ends[1] - ends[0]) / 2 < 0.02 * abs(found.value)
    return plain(found.value, 3 if sure and 1 <= found.value < 2 else 2)


def as_printed(value: float | None, info: MetricInfo) -> str:
    """A published value with the digits that its source prints."""
    return MISSING if value is None else f"{value * info.factor:g}"


def latex_of(found: Estimate | None, info: MetricInfo) -> str:
    """``$48.1 \\pm 2.4$``: the uncertainty is the longer side of the interval, rounded to two digits.

    The value ends at the same place; without an interval it stands alone.
    """
    ends = _ends(found)
    if found is None or found.value is None:
        return "--"
    value = found.value * info.factor
    width = max(abs(end * info.factor - value) for end in ends) if ends is not None else 0.0
    if not math.isfinite(width) or width <= 0:
        return value_of(found, info).replace("\u202f", r"\,")
    width = float(f"{width:.1e}")
    decimals = 1 - math.floor(math.log10(width))
    shown = max(0, decimals)
    return f"${round(value, decimals):.{shown}f} \\pm {width:.{shown}f}$"


def half_width(found: Estimate | None) -> str:
    """Half the interval as a share of the value, `` ±1.2 %``; empty for a value without an interval."""
    ends = _ends(found)
    if found is None or ends is None or not found.value:
        return ""
    return f" ±{(ends[1] - ends[0]) / 2 / abs(found.value):.1%}".replace("%", " %")


def exponent_of(fit: Fit | NoFit, without: str = "no interval") -> str:
    """An exponent with its interval, of which an end may be open and both may be ``without``; or why there is none."""
    if isinstance(fit, NoFit):
        return f"{MISSING} ({fit.reason})"
    if fit.low is None and fit.high is None:
        return f"{fit.exponent:.2f} ({without})"
    ends = (f"{end:.2f}" if end is not None else "open" for end in (fit.low, fit.high))
    return f"{fit.exponent:.2f} ({' to '.join(ends)})"


def percent(value: float, digits: int = 1) -> str:
    """Signed percentage: ``+1.2 %``."""
    return f"{value:+.{digits}%}".replace("%", " %").replace("-", "−")


def clock(seconds: float) -> str:
    """Seconds as ``1:05`` or ``2:03:04``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _ends(found: Estimate | None) -> tuple[float, float] | None:
    """Of the interval; None where there is none, or nothing between its ends."""
    if found is None or found.low is None or found.high is None or found.low >= found.high:
        return None
    return found.low, found.high


def _decimals(found: Estimate, info: MetricInfo) -> int | None:
    """That show two digits of the interval's half width, and of the value at least 2 digits and at most 5.

    None where no interval says how many, and where they would be too many to read.
    """
    ends = _ends(found)
    relative = (ends[1] - ends[0]) / 2 / abs(found.value) if ends is not None and found.value else 0.0
    if found.value is None or not 0 < relative < math.inf or info.digits == 0:
        return None
    digits = 2 - math.floor(math.log10(relative))
    decimals = min(5, max(2, digits)) - 1 - math.floor(math.log10(abs(found.value * info.factor)))
    return decimals if decimals <= 6 else None


def _fixed(value: float, decimals: int) -> str:
    text = f"{value:,.{max(0, decimals)}f}" if abs(value) >= 10_000 else f"{value:.{max(0, decimals)}f}"
    return text.replace(",", "\u202f")
