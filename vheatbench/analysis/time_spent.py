"""Where the time of a run went."""

from __future__ import annotations

from collections.abc import Sequence

from vheatbench.numbers import clock
from vheatbench.store.schema import Record

MEASURING = "warm-up and samples"
NAMES = {"warm-up": MEASURING, "samples": MEASURING, "start": "starting", "build": "building", "count": "counting"}
"""What parts of ``Record.spent_s`` are called together."""


def shares(records: Sequence[Record], elapsed_s: float) -> dict[str, float]:
    """Shares of the time that a run took by what it went to, the largest first; they sum to 1.

    Args:
        records: what was measured in that time, on one device or several.
        elapsed_s: seconds; what no record accounts for is called "other".

    Waiting for the turns of others is no part of it: somebody works meanwhile.
    """
    seconds: dict[str, float] = {}
    for record in records:
        spent = {name: value for name, value in record.spent_s.items() if name != "wait"}
        if not spent:  # of studies, or of a worker of another version
            spent = {"studies" if not record.case.timed else "other": record.elapsed_s}
        for name, value in spent.items():
            name = NAMES.get(name, name)
            seconds[name] = seconds.get(name, 0.0) + value
    total = sum(seconds.values())
    if total < elapsed_s:
        seconds["other"] = seconds.get("other", 0.0) + elapsed_s - total
    whole = max(total, elapsed_s)
    return {name: value / whole for name, value in sorted(seconds.items(), key=lambda entry: -entry[1]) if whole > 0}


def used_s(records: Sequence[Record]) -> float:
    """Seconds that measuring these records took, devices side by side counted once."""
    own = ((r.elapsed_s - r.spent_s.get("wait", 0.0), r.conditions.get("devices_side_by_side", 1)) for r in records)
    return sum(seconds / float(devices) for seconds, devices in own)


def time_line(records: Sequence[Record], elapsed_s: float | None) -> str:
    """``took 2:50: 63% warm-up and samples, ...``: the shares of what it was spent on, largest first.

    Without ``elapsed_s`` (of an unfinished run) it is empty.
    """
    if elapsed_s is None:
        return ""
    parts = [f"{share:.0%} {name}" for name, share in shares(records, elapsed_s).items() if share >= 0.005]
    return f"took {clock(elapsed_s)}: {', '.join(parts)}"
