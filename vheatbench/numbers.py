"""Numbers as text: as many digits as the interval allows, always with a unit nearby."""

from __future__ import annotations

import math
from typing import Protocol, runtime_checkable


class Estimate(Protocol):
    """A value with the ends of its interval, None where it has none."""

    @property
    def value(self) -> float: ...
    @property
    def low(self) -> float | None: ...
    @property
    def high(self) -> float | None: ...


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
    """A number with this many significant digits and no exponent: ``0.01235``, ``12.35``, ``12346``."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{decimals}f}".replace(",", "\u202f") if abs(value) >= 10_000 else f"{value:.{decimals}f}"


def digits_for(point: Estimate) -> int:
    """Significant digits that an interval supports: two of its half width, at least 2, at most 5."""
    if point.low is None or point.high is None or point.high <= point.low or point.value == 0:
        return 4
    relative = (point.high - point.low) / 2 / abs(point.value)
    return min(5, max(2, 2 - math.floor(math.log10(relative))))


def value_of(point: Estimate, factor: float) -> str:
    """The value, rounded to what its interval supports."""
    return plain(point.value * factor, digits_for(point))


def interval_of(point: Estimate, factor: float) -> str:
    """``low to high``, or empty for a value without an interval."""
    if point.low is None or point.high is None or point.low == point.high:
        return ""
    digits = digits_for(point)
    return f"{plain(point.low * factor, digits)} to {plain(point.high * factor, digits)}"


def with_interval(point: Estimate | None, factor: float) -> str:
    """``4.02 (3.81 to 4.23)``; a dash for no point, four significant digits at most for one without an interval."""
    if point is None:
        return "—"
    interval = interval_of(point, factor)
    return f"{value_of(point, factor)} ({interval})" if interval else f"{point.value * factor:.4g}"


def exponent_of(fit: Fit | NoFit, without: str = "no interval") -> str:
    """An exponent with its interval, of which an end may be open and both may be ``without``; or why there is none."""
    if isinstance(fit, NoFit):
        return f"— ({fit.reason})"
    if fit.low is None and fit.high is None:
        return f"{fit.exponent:.2f} ({without})"
    ends = (f"{end:.2f}" if end is not None else "open" for end in (fit.low, fit.high))
    return f"{fit.exponent:.2f} ({' to '.join(ends)})"


def percent(value: float, digits: int = 1) -> str:
    """Signed percentage: ``+1.2 %``."""
    return f"{value:+.{digits}%}".replace("%", " %").replace("-", "−")


def half_width(point: Estimate) -> str:
    """Half the interval as a share of the value, `` ±1.2 %``; empty for a value without an interval."""
    if point.low is None or point.high is None or point.low == point.high or point.value == 0:
        return ""
    return f" ±{(point.high - point.low) / 2 / abs(point.value):.1%}".replace("%", " %")


def uncertain(value: float, low: float | None, high: float | None) -> tuple[str, str]:
    """A value and its uncertainty with the digits that the interval allows: ``("48.1", "2.4")``.

    The uncertainty is the longer side of the interval, rounded to two digits; the value ends at the same place. Without
    an interval the value has four digits and the uncertainty is empty.
    """
    width = max(value - low, high - value) if low is not None and high is not None else 0.0
    if not math.isfinite(width) or width <= 0 or not math.isfinite(value):
        return plain(value), ""
    width = float(f"{width:.1e}")
    decimals = 1 - math.floor(math.log10(width))
    shown = max(0, decimals)
    return f"{round(value, decimals):.{shown}f}", f"{width:.{shown}f}"
